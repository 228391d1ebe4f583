"""sd-scripts' dataset config: which folders a training was shown, how often, with what words."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lorascope.io.foreign.config_file import load
from lorascope.io.foreign.folder import places
from lorascope.io.foreign.layouts import KOHYA
from lorascope.io.foreign.settings import Settings, Subset
from lorascope.io.foreign.values import OUR_CHECKS, Value, texts, whole

COUNT, SIDE = whole(1, 10_000), whole(64, 4096)


def knows(raw: Mapping[str, Any]) -> bool:
    """Tell whether a config is a dataset config of sd-scripts."""
    return any("image_dir" in subset for _, subset in _rows(raw))


def read(path: Path, raw: Mapping[str, Any]) -> Settings:
    """Read a dataset config; one folder named in several datasets is shown once for each.

    A subset of regularisation images is left out.
    """
    found: dict[str, Subset] = {}
    for shared, subset in _rows(raw):
        given = {**shared, **subset}
        folder = _folder(path, given.get("image_dir"))
        if not folder or str(given.get("is_reg")).lower() == "true":
            continue
        repeats = COUNT(given.get("num_repeats", 1)) or 1
        before = found.get(folder)
        found[folder] = Subset(
            folder=folder,
            repeats=repeats + (before.repeats if before else 0),
            class_tokens=" ".join(texts(given.get("class_tokens"))),
            caption_ending=_ending(given.get("caption_extension")),
            resolution=before.resolution if before else _resolution(given.get("resolution")),
        )
    subsets = tuple(found.values())
    return Settings(
        trainer=KOHYA,
        path=path,
        ours=_ours(subsets),
        datasets=tuple(found),
        subsets=subsets,
        dataset_config=str(path.resolve()),
    )


def named_by(config: Path, text: str) -> Settings | None:
    """Read the dataset config that a training's config names; None where it is not there.

    A config is often moved together with it, so one of its name beside is looked for too.
    """
    for path in (*places(config.parent, text), config.parent / Path(text.replace("\\", "/")).name):
        raw = load(path)
        if isinstance(raw, dict) and knows(raw):
            return read(path, raw)
    return None


def _rows(raw: Mapping[str, Any]) -> Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Give each subset with what its dataset and the general part say for it."""
    general = raw["general"] if isinstance(raw.get("general"), Mapping) else {}
    datasets = raw.get("datasets")
    for dataset in datasets if isinstance(datasets, list) else ():
        if not isinstance(dataset, Mapping):
            continue
        subsets = dataset.get("subsets")
        for subset in subsets if isinstance(subsets, list) else ():
            if isinstance(subset, Mapping):
                yield {**raw, **general, **dataset}, subset


def _folder(path: Path, name: object) -> str:
    """Give a folder as the config names it; in full where it lies beside the config."""
    text = next(iter(texts(name)), "")
    beside = path.parent / text.replace("\\", "/")
    try:
        return str(beside.resolve()) if text and beside.is_dir() else text
    except OSError:  # a name too long to be one
        return text


def _ending(value: object) -> str:
    text = next(iter(texts(value)), "")
    return f".{text.lstrip('.')}" if text.lstrip(".").isalnum() else ""


def _resolution(value: object) -> tuple[int, int] | None:
    """Read a side, or width and height; None where there is neither."""
    sides = [SIDE(side) for side in (value if isinstance(value, list) else [value])]
    known = [side for side in sides if side is not None]
    if len(known) != len(sides) or len(known) not in (1, 2):
        return None
    return known[0], known[-1]


def _ours(subsets: Iterable[Subset]) -> dict[str, Value]:
    """Say what all subsets agree on, in the words of our own config."""
    words = {subset.class_tokens for subset in subsets}
    resolutions = {subset.resolution for subset in subsets}
    repeats = {subset.repeats for subset in subsets}
    told: dict[str, object] = {}
    if len(words) == 1:
        told["trigger"], _, told["class_word"] = next(iter(words)).partition(" ")
    if len(resolutions) == 1:
        told["resolution"] = next(iter(resolutions))
    if len(repeats) == 1:
        told["repeats"] = next(iter(repeats))
    checked = ((name, OUR_CHECKS[name](value)) for name, value in told.items() if value)
    return {name: value for name, value in checked if value is not None}
