"""Sets of plain coloured pictures, and an encoder that sees nothing but colours."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lorascope import tables
from lorascope.io.dataset_file import Dataset, DatasetImage, write_dataset
from lorascope.io.images import write_png
from lorascope.io.sample_list import COLUMNS, LIST
from lorascope.records import Inputs

SIDE = 16
PROMPTS = {
    "zyx": "trigger",
    "zyx, smile": "caption",
    "zyx, sky": "unseen",
    "smile": "class",
    "a house": "unrelated",
    "a lake": "unrelated",
}
SUBJECT = np.array([200.0, 40.0, 120.0])  # the colour that the training images share


class Colours:
    """Describes a picture by the mean colour of its quarters; counts what it is shown."""

    name = "colours"

    def __init__(self) -> None:
        self.shown = 0

    def images(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Describe pictures as rows of 12 numbers."""
        self.shown += len(pictures)
        half = [p.shape[0] // 2 for p in pictures]
        rows = [
            np.concatenate(
                [q.mean(axis=(0, 1)) for h in (p[:n], p[n:]) for q in (h[:, :n], h[:, n:])]
            )
            for p, n in zip(pictures, half, strict=True)
        ]
        return np.array(rows, dtype=np.float32)


def spots(colour: np.ndarray, rng: np.random.Generator, spread: float = 25.0) -> np.ndarray:
    """Draw four quarters, each near a colour."""
    quarters = colour + rng.normal(0, spread, (2, 2, 3))
    return np.kron(quarters, np.ones((SIDE // 2, SIDE // 2, 1))).clip(0, 255).astype(np.uint8)


def images(root: Path, rng: np.random.Generator, *, train: int = 6, held_out: int = 5) -> Dataset:
    """Write a dataset of the subject."""
    found = []
    for number in range(train + held_out):
        file = root / "images" / f"{number:02}.png"
        write_png(file, spots(SUBJECT, rng))
        found.append(
            DatasetImage(
                file=file.name,
                sha256=f"{number:064}",
                caption="zyx, smile",
                repeats=1,
                split="train" if number < train else "held-out",
                width=SIDE,
                height=SIDE,
            )
        )
    dataset = Dataset(
        root=root / "images",
        trigger="zyx",
        class_word="",
        resolution=(SIDE, SIDE),
        images=tuple(found),
    )
    write_dataset(root / "run" / "train" / "dataset.json", dataset)
    return dataset


def grid(
    root: Path,
    rows: Sequence[str],
    draw: Callable[[int, str, int], np.ndarray],
    *,
    seeds: Sequence[int] = (1, 2),
) -> Inputs:
    """Write a grid's list of pictures, and the pictures.

    Parameters
    ----------
    root : Path
    rows : sequence of str
        The kind of each row.
    draw : callable
        Given the row, the prompt and the seed, gives the picture.
    seeds : sequence of int
    """
    run, listed = root / "run", []
    columns = [(prompt, seed) for prompt in PROMPTS for seed in seeds]
    across = len(columns)
    for number, kind in enumerate(rows):
        for column, (prompt, seed) in enumerate(columns):
            group = PROMPTS[prompt]
            off = kind == "trigger-off" and group not in ("class", "unrelated")
            name = f"samples/cells/{number:02}-{column:02}.png"
            write_png(run / name, draw(number, prompt, seed))
            listed.append(
                {
                    "cell": number * across + column,
                    "row": number,
                    "column": column,
                    "kind": kind,
                    "epoch": number,
                    "step": number * 10,
                    "strength": float(number > 0),
                    "text_strength": float(number > 0),
                    "prompt": prompt.removeprefix("zyx, ") if off else prompt,
                    "group": "class" if off else group,
                    "seed": seed,
                    "width": SIDE,
                    "height": SIDE,
                    "base": "tiny",
                    "baseline": column if rows[0] == "base" else None,
                    "file": name,
                }
            )
    path = run / "evidence" / "grid" / "abc.cells.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tables.as_csv(listed))
    return {
        "pictures": path,
        "dataset": run / "train" / "dataset.json",
        "base": Path("tiny"),
        "features": run / "features",
    }


def of_trainer(root: Path, rng: np.random.Generator, *, epochs: Sequence[int]) -> Inputs:
    """Write what another trainer drew: prompts and epochs are known, seeds are not."""
    folder = root / "run" / "samples" / "trainer"
    rows = []
    for epoch in epochs:
        for index, prompt in enumerate(PROMPTS):
            file = f"{epoch:02}-{index}.png"
            share = epoch / max(epochs) if prompt.startswith("zyx") else 0.0
            picture = spots(np.array([90.0, 110.0, 60.0]) * (1 - share) + share * SUBJECT, rng)
            side = 1 + (index == 1)  # one prompt is drawn larger
            write_png(folder / file, np.kron(picture, np.ones((side, side, 1), dtype=np.uint8)))
            rows.append(dict.fromkeys(COLUMNS) | {"file": file, "epoch": epoch, "step": epoch})
            rows[-1] |= {"index": index, "prompt": prompt}
    (folder / LIST).write_text(tables.as_csv(rows))
    return {
        "pictures": folder,
        "dataset": root / "run" / "train" / "dataset.json",
        "base": Path("tiny"),
        "features": root / "run" / "features",
    }
