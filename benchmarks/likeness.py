"""Which features tell best whether a picture shows the subject, and whether diversity collapses.

``python -m benchmarks.likeness RUN --work FOLDER`` (``lorascope demo`` makes a RUN) draws pictures
whose subject is known: three characters that the base model is asked for by their tags, with more
and more attributes wrong; the same pictures moved and cut; and what each epoch of two trainings
draws. The oracle is the attribute reader, an independent network. For each way of describing
pictures:

- rank: Spearman correlation over pictures between nearness to held-out drawings of the subject and
  the share of its fixed attributes that the reader finds;
- right: probability that a picture with all attributes right is nearer than one with at least one
  in nine wrong;
- retrieved: mean average precision when the pictures that show the subject are looked for among
  all, other characters included;
- epochs: Spearman correlation over the epochs of a training between mean nearness and mean share.

What was drawn and seen is kept in the work folder, so that a run that was stopped goes on.
"""

import hashlib
import json
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks import likeness_pictures as pictures_of
from benchmarks.likeness_pictures import Case, Pictures
from benchmarks.miniature.reader import load_reader, read
from lorascope import demo, storage
from lorascope.io.checkpoints import usable_checkpoints
from lorascope.io.images import resize_crop
from lorascope.io.lora_file import read_lora
from lorascope.metrics.likeness import Features, Lens, Space, nearest_of
from lorascope.metrics.similarity import LEVELS, cosines
from lorascope.metrics.spread import spread
from lorascope.metrics.vendi import alike, vendi
from lorascope.models.base import load_base
from lorascope.models.lora import merged
from lorascope.models.sampling import sample
from lorascope.models.sources import base_digest
from lorascope.progress import track
from lorascope.run import Run
from lorascope.tools.pictures.features import kept_features
from lorascope.tools.pictures.own_encoders import BaseEncoder, Encoder, LatentEncoder

if TYPE_CHECKING:
    from lorascope.models.base import Base

Floats = NDArray[np.float64]

RESULTS = Path(__file__).parent / "results" / "likeness.json"
SUBJECTS = 3
USUAL = (0.261, 2)  # timestep, noises
TIMESTEPS = (0.061, 0.261, 0.401)
NOISES = (1,)
OTHER_SPACES = ("plain", "centred", "standard")
PARTS = ("held_out", "training", "base", "pictures")
SEEDS, COLLAPSE_PROMPTS = range(1, 9), ("", "smile")  # after the trigger
PLANTED_IN, PLANTED = 6, (2, 4, 6, 8)  # epoch; copies among eight pictures
COLLAPSE_EPOCHS = (0, 1, 2, 4, 6, 10, 14)


def variants(base: "Base") -> dict[str, Encoder]:
    """Name the encoders that are compared."""
    digest = base_digest(base.name)
    found: dict[str, Encoder] = {"latents": LatentEncoder(base=base, digest=digest)}
    asked = [(0, share, USUAL[1]) for share in TIMESTEPS]
    asked += [(0, USUAL[0], noises) for noises in NOISES]
    asked += [(1, share, USUAL[1]) for share in TIMESTEPS[:2]]
    for block, share, noises in asked:
        found[f"block {block}, timestep {share}, noises {noises}"] = BaseEncoder(
            base=base, digest=digest, timestep=share, block=block, noises=noises, levels=LEVELS
        )
    return found


def scores(cases: Sequence[Case], seen: Sequence[Mapping[str, Features]], how: str) -> Floats:
    """Average each measure over the cases that have it: rank, right, retrieved, epochs."""
    rows = [_scores(case, look, how) for case, look in zip(cases, seen, strict=True)]
    values = np.array(rows)
    known = np.isfinite(values)
    sums = np.where(known, values, 0).sum(axis=0)
    return np.divide(sums, known.sum(axis=0), out=np.full(4, np.nan), where=known.any(axis=0))


def _scores(case: Case, seen: Mapping[str, Features], how: str) -> tuple[float, ...]:
    near = nearness(seen, how)
    right, wrong = near[case.share == 1], near[case.share < 1]
    if case.epochs is None:
        found = (_above(right, wrong), _average_precision(near, case.share == 1), np.nan)
    else:
        means = [
            (near[case.epochs == epoch].mean(), case.share[case.epochs == epoch].mean())
            for epoch in np.unique(case.epochs)
        ]
        found = (_above(right, wrong), np.nan, float(spearmanr(*zip(*means, strict=True))[0]))
    return (float(spearmanr(near, case.share)[0]), *found)


def nearness(seen: Mapping[str, Features], how: str) -> Floats:
    """Mean cosine of each picture to its nearest held-out drawings.

    Features as they are (plain), measured from the base model's pictures (centred), in units of
    their spread too (standard), whitened besides (whitened: what is shipped).
    """
    base, training = seen["base"], seen["training"]
    lens = Lens.over(base, training)
    size = base.shape[1]
    spaces = {
        "plain": Space(np.zeros(size), np.ones(size)),
        "centred": Space(lens.space.centre, np.ones(size)),
        "standard": lens.space,
    }
    see = lens.see if how == "whitened" else spaces[how].place
    found = cosines(see(seen["pictures"]), see(seen["held_out"]))
    return nearest_of(found, found.shape[1])


def cut(features: Features, levels: Sequence[int]) -> Features:
    """Take some levels out of a layout of all `LEVELS`."""
    width = features.shape[1] // sum(level**2 for level in LEVELS)
    ends = np.cumsum([level**2 * width for level in LEVELS])
    parts = dict(zip(LEVELS, np.split(features, ends[:-1], axis=1), strict=True))
    return np.concatenate([parts[level] for level in levels], axis=1)


def moved(case: Case) -> Case:
    """Cut each picture to 80 to 100 % of its sides, anywhere, and scale it up again."""
    rng = np.random.default_rng(0)
    side, found = case.pictures.shape[1], []
    for picture in case.pictures:
        kept = int(side * rng.uniform(0.8, 1))
        x, y = rng.integers(0, side - kept + 1, 2)
        found.append(resize_crop(picture[y : y + kept, x : x + kept], side, side))
    return replace(case, name=f"{case.name} moved", pictures=np.stack(found))


def collapse(base: "Base", run: Run, work: Path) -> list[dict[str, float]]:
    """Measure diversity among the seeds of two prompts, epoch by epoch."""
    texts = [f"{demo.TRIGGER}, {tail}" if tail else demo.TRIGGER for tail in COLLAPSE_PROMPTS]
    prompts = [text for text in texts for _ in SEEDS]
    files = {c.epoch: c.path for c in usable_checkpoints(run.input("lora"))[0]}
    drawn = {}
    for epoch in track([e for e in COLLAPSE_EPOCHS if e in (0, *files)], label="epochs drawn"):

        def draw(epoch: int = epoch) -> Pictures:
            with merged(base, read_lora(files[epoch]) if epoch else None):
                return sample(base, prompts, [*SEEDS] * len(texts), steps=pictures_of.STEPS)

        drawn[epoch] = kept(work / f"collapse-{epoch}.pkl", draw)
    return [{"epoch": epoch, **row} for epoch, row in _spreads(base, drawn, work).items()]


def planted(base: "Base", work: Path) -> list[dict[str, float]]:
    """Put more and more copies of one picture among the pictures of a set."""
    whole = kept(work / f"collapse-{PLANTED_IN}.pkl", lambda: None)
    sets = {0: whole}
    for copies in PLANTED:
        found = whole.copy()
        for first in (0, len(SEEDS)):
            found[first : first + copies] = whole[first]
        sets[copies] = found
    rows = _spreads(base, {-1: kept(work / "collapse-0.pkl", lambda: None), **sets}, work)
    return [{"copies": copies, **rows[copies]} for copies in sets]


def _spreads(
    base: "Base", drawn: Mapping[int, Pictures], work: Path
) -> dict[int, dict[str, float]]:
    """Measure sets of pictures among the seeds of each prompt, beside the first set.

    The oracle counts how many combinations of expression and background it reads, as the
    exponential of their entropy.
    """
    encoder = BaseEncoder(base=base, digest=base_digest(base.name))
    reader = load_reader()
    seen = {name: _look(encoder, pictures, work) for name, pictures in drawn.items()}
    first = next(iter(seen.values()))
    space = Space.between(first, first)
    parts = np.split(np.arange(len(first)), len(COLLAPSE_PROMPTS))
    usual = [spread(space.place(first)[part]) for part in parts]
    found = {}
    for name, features in seen.items():
        pairs = [(space.place(features)[part], u) for part, u in zip(parts, usual, strict=True)]
        shown = [
            tuple(r.attributes[head] for head in pictures_of.FREE)
            for r in read(reader, drawn[name])
        ]
        counts = [list(Counter(shown[i] for i in part).values()) for part in parts]
        shares = [np.array(count) / sum(count) for count in counts]
        row = {
            "diversity": np.mean([spread(some) / u for some, u in pairs]),
            "vendi": np.mean([vendi(alike(some, u)) for some, u in pairs]),
            "oracle": np.mean([np.exp(-(share * np.log(share)).sum()) for share in shares]),
        }
        found[name] = {key: round(float(value), 3) for key, value in row.items()}
    return found


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """Read what was made before, or make it."""
    if path.is_file():
        return pickle.loads(path.read_bytes())  # our own file
    found = make()
    storage.write_bytes(path, pickle.dumps(found))
    return found


def all_cases(base: "Base", run: Run, work: Path) -> Iterator[Case]:
    """Draw every case, or read it."""
    reader = load_reader()
    asked = kept(
        work / "asked.pkl",
        lambda: list(pictures_of.asked_cases(base, reader, subjects=SUBJECTS)),
    )
    yield from asked
    yield from map(moved, asked)
    yield kept(
        work / "demo.pkl",
        lambda: pictures_of.trained_case(base, reader, run, pictures_of.demo_subject(), "demo"),
    )
    second = pictures_of.train_second(work / "second")
    subject = pictures_of.second_subject()
    yield kept(
        work / "second.pkl",
        lambda: pictures_of.trained_case(base, reader, second, subject, "second"),
    )


def _look(encoder: Encoder, pictures: Pictures, work: Path) -> Features:
    contents = [hashlib.sha256(picture.tobytes()).hexdigest() for picture in pictures]
    return kept_features(contents, lambda place: pictures[place], encoder, work / "features")


def _above(right: Floats, wrong: Floats) -> float:
    """Probability that one of the right ones lies above one of the wrong ones."""
    apart = right[:, None] - wrong[None]
    return float(np.mean((apart > 0) + 0.5 * (apart == 0)))


def _average_precision(near: Floats, wanted: NDArray[np.bool_]) -> float:
    hits = wanted[np.argsort(-near, kind="stable")]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


def _row(name: str, levels: Sequence[int], how: str, found: Floats) -> dict[str, Any]:
    names = ("rank", "right", "retrieved", "epochs")
    known = {k: v for k, v in zip(names, found, strict=True) if np.isfinite(v)}
    values = {k: round(float(v), 3) for k, v in known.items()}
    told = {"features": name, "levels": "+".join(map(str, levels)), "space": how}
    return told | values | {"mean": round(float(np.nanmean(found)), 4)}


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Keeps what was made.")
def main(run: Path, work: Path) -> None:
    """Measure all of it and write the tables."""
    base, opened = load_base("miniature"), Run(run)
    cases = list(all_cases(base, opened, work))
    groups = {
        "as drawn": [c for c in cases if not c.name.endswith("moved")],
        "moved": [c for c in cases if c.name.endswith("moved")],
    }
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in groups}
    for name, encoder in variants(base).items():
        for group, some in groups.items():
            seen = [{part: _look(encoder, getattr(c, part), work) for part in PARTS} for c in some]
            ways: list[tuple[tuple[int, ...], str]] = [(LEVELS, "whitened")]
            ways += [((1,), "whitened"), ((1, 2), "whitened"), ((4,), "whitened")]
            if name == "latents" or f"timestep {USUAL[0]}, noises {USUAL[1]}" in name:
                ways += [(some, how) for some in (LEVELS, (1,)) for how in OTHER_SPACES]
            for levels, how in ways:
                chosen = [{part: cut(f, levels) for part, f in look.items()} for look in seen]
                tables[group].append(_row(name, levels, how, scores(some, chosen, how)))
                click.echo(f"{group}: {tables[group][-1]}")
    found = {
        "pictures": int(sum(len(c.pictures) for c in cases)),
        **tables,
        "seeds": collapse(base, opened, work),
        "planted_copies": planted(base, work),
    }
    click.echo(json.dumps({name: found[name] for name in ("seeds", "planted_copies")}, indent=1))
    storage.write_text(RESULTS, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
