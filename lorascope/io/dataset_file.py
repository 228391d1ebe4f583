"""The run's ``train/dataset.json``: which picture was trained on, which was held out."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from lorascope import storage
from lorascope.errors import BadInputError, MissingInputError

SCHEMA = 1
# "held-out": images of the same kind as those trained on. "composition": every image of one
# background or outfit, kept out whole: what a LoRA must do that it was never shown at all.
Split = Literal["train", "held-out", "composition"]
SPLITS: tuple[Split, ...] = ("train", "held-out", "composition")


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetImage:
    """One picture of a dataset."""

    file: str  # relative to the dataset's root, with forward slashes
    sha256: str  # of the file's bytes
    caption: str  # as it stands beside the picture; may be empty
    repeats: int  # how often it is shown in one epoch
    split: Split
    width: int  # px, upright
    height: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """The pictures of one training, with the split that was written once."""

    root: Path
    trigger: str
    class_word: str
    resolution: tuple[int, int]  # width, height in px that training aims at
    images: tuple[DatasetImage, ...]

    @property
    def train(self) -> tuple[DatasetImage, ...]:
        """The pictures that are trained on."""
        return self.of("train")

    @property
    def held_out(self) -> tuple[DatasetImage, ...]:
        """The pictures, of the same kind as the others, that are never trained on."""
        return self.of("held-out")

    def of(self, split: Split) -> tuple[DatasetImage, ...]:
        """Give the pictures of one side of the split."""
        return tuple(i for i in self.images if i.split == split)

    def path(self, image: DatasetImage) -> Path:
        """Where a picture lies."""
        return self.root / image.file


def read_dataset(path: Path) -> Dataset:
    """Read a ``dataset.json``.

    Raises
    ------
    MissingInputError
        There is no such file.
    BadInputError
        It is damaged, written by a newer program, or names files outside its root.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if int(raw["schema"]) > SCHEMA:
            raise BadInputError(
                f"{path} was written by a newer program (schema {raw['schema']}, known: {SCHEMA})."
                "\nFix: pip install --upgrade lorascope"
            )
        width, height = (int(side) for side in raw["resolution"])
        return Dataset(
            root=path.parent / raw["root"],
            trigger=str(raw["trigger"]),
            class_word=str(raw["class_word"]),
            resolution=(width, height),
            images=tuple(_image(row) for row in raw["images"]),
        )
    except FileNotFoundError as error:
        raise MissingInputError(f"{path} does not exist.\nFix: lorascope train CONFIG") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInputError(f"{path} is damaged ({error!r}).\nFix: train again.") from error


def write_dataset(path: Path, dataset: Dataset) -> None:
    """Write a ``dataset.json``, whole or not at all.

    A root inside the run directory is written relative to the file, so that a run can be moved
    with its pictures; any other root is written in full.

    Raises
    ------
    StorageError
        The file cannot be written.
    """
    root, run = dataset.root.resolve(), path.parent.parent.resolve()
    inside = root.is_relative_to(run)
    raw = {
        "schema": SCHEMA,
        "root": f"../{root.relative_to(run).as_posix()}" if inside else str(root),
        "trigger": dataset.trigger,
        "class_word": dataset.class_word,
        "resolution": list(dataset.resolution),
        "images": [asdict(image) for image in dataset.images],
    }
    storage.write_text(path, json.dumps(raw, indent=1, ensure_ascii=False) + "\n")


def _image(raw: dict[str, Any]) -> DatasetImage:
    file = PurePosixPath(raw["file"])
    if file.is_absolute() or ".." in file.parts:
        raise ValueError(f"{file} lies outside the dataset's root")
    if raw["split"] not in SPLITS:
        raise ValueError(f"a split is one of {', '.join(SPLITS)}, not {raw['split']}")
    return DatasetImage(
        file=str(raw["file"]),
        sha256=str(raw["sha256"]),
        caption=str(raw["caption"]),
        repeats=int(raw["repeats"]),
        split=raw["split"],
        width=int(raw["width"]),
        height=int(raw["height"]),
    )
