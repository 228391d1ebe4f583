"""The training images of another trainer: found by what it wrote down, never guessed at."""

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lorascope.errors import BadInputError, LorascopeError
from lorascope.ingest.sides import Merged, Placed, count_of, merge
from lorascope.io.captions import split_tags
from lorascope.io.dataset_file import Dataset, DatasetImage, Split, read_dataset, write_dataset
from lorascope.io.folders import NUMBERED, scan_training_folder
from lorascope.io.foreign.folder import places
from lorascope.io.foreign.layouts import DATASET_FOLDERS
from lorascope.io.foreign.settings import Settings
from lorascope.io.scan import Say, scan_images
from lorascope.io.train_settings import Folder
from lorascope.run import Run

SIDES = (("sdxl", 1024), ("sd_v2", 768), ("stable-diffusion-xl", 1024))
USUAL_SIDE = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Guess:
    """What a dataset is called by, and where that was read."""

    trigger: str = ""
    class_word: str = ""
    source: str = ""


NO_GUESS = Guess()


def find_datasets(
    folder: Path, settings: Settings, folders: Sequence[Folder], run: Run
) -> tuple[list[Path], str]:
    """Find the folders of images that a training used.

    Parameters
    ----------
    folder : Path
        What the trainer left behind.
    settings : Settings
        Name folders of images, where its config was found.
    folders : sequence of Folder
        What the checkpoints say of their images: names and counts.
    run : Run
        For the command that mends what does not agree.

    Returns
    -------
    paths : list of Path
        None where they are not there, or more than one place could be meant.
    why : str
        Then, what was looked for; else what does not agree, or "".
    """
    told = [path for name in settings.datasets if (path := _near(folder, name)) is not None]
    if told and len(told) == len(settings.datasets):
        return told, _counts(told, folders, run)
    names = [f.name.replace("\\", "/") for f in folders if not f.regularisation]
    if not names:
        looked = ", ".join(settings.datasets) or "nothing that was left behind names it"
        return [], looked
    whole = [path for name in names if (path := _near(folder, name)) is not None]
    if len(whole) == len(names) and all("/" in name for name in names):
        return whole, _counts(whole, folders, run)
    last = [Path(name).name for name in names]
    roots = _roots(folder, last)
    if len(roots) == 1:
        return roots, _counts(roots, folders, run)
    if roots:
        return [], f"{', '.join(last)} lies in more than one place: {roots[0]}, {roots[1]}"
    return [], f"looked for {', '.join(last[:3])} near {folder}"


def guess(told: Guess, folders: Iterable[str], captions: Sequence[str], given: Guess) -> Guess:
    """Guess the trigger and the class word, from the surest source to the least.

    Parameters
    ----------
    told : Guess
        What the LoRA's maker wrote down as such.
    folders : iterable of str
        Names of folders: ``10_fern woman``.
    captions : sequence of str
        Of the images trained on.
    given : Guess
        What the user said; it counts before all.
    """
    words = next((n.split("_", 1)[1].split() for n in folders if NUMBERED.fullmatch(n)), [])
    found = Guess()
    firsts = [tags[0] for caption in captions if (tags := split_tags(caption))]
    if told.trigger:
        found = told
    elif words and (not firsts or any(words[0] in caption for caption in captions)):
        found = Guess(trigger=words[0], source="the folder's name")
    elif len(firsts) > 1 and len(firsts) == len(captions) and len(set(firsts)) == 1:
        found = Guess(trigger=firsts[0], source="the first tag of every caption")
    return Guess(
        trigger=given.trigger or found.trigger,
        class_word=given.class_word or " ".join(words[1:]),
        source="" if given.trigger else found.source,
    )


def put_images(
    run: Run,
    folder: Path,
    *,
    split: Split | None,
    given: Guess,
    told: Guess = NO_GUESS,
    resolution: tuple[int, int] | None,
    say: Say,
) -> tuple[Dataset, Merged]:
    """Put a folder of images into a run's dataset; the first call makes it.

    An image that is in the dataset already, known by its bytes wherever it lies, keeps its side;
    where its old place holds it no longer, the dataset has its new one from now on.

    Parameters
    ----------
    split : Split, optional
        The side that the user named; without one, new images are taken as trained on.

    Returns
    -------
    dataset : Dataset
    merged : Merged
        What became of each image.

    Raises
    ------
    MissingInputError, BadInputError
        There is no such folder, no image in it can be used, or some are on another side already.
    """
    folder = folder.resolve()
    images = scan_images(folder, say=say)
    old = read_dataset(run.place("dataset")) if run.has("dataset") else None
    called = _called(run, folder, images, old, given, told, say)
    at = old.root.resolve() if old else folder
    known = {at / image.file: image for image in old.images} if old else {}
    scanned = {folder / image.file: image for image in images}
    merged = merge(known, scanned, split, ours=not run.origin)
    _refuse_other_sides(run, folder, merged, known, split)
    root = _root(at, folder, merged.images)
    placed = [
        replace(image, file=path.relative_to(root).as_posix())
        for path, image in merged.images.items()
    ]
    dataset = Dataset(
        root=root,
        trigger=given.trigger or (old.trigger if old else "") or called.trigger,
        class_word=given.class_word or (old.class_word if old else "") or called.class_word,
        resolution=resolution or (old.resolution if old else (USUAL_SIDE, USUAL_SIDE)),
        images=tuple(sorted(placed, key=lambda image: image.file)),
    )
    write_dataset(run.place("dataset"), dataset)
    _say_images(merged, at, folder, split, say)
    if old:
        _say_settings(old, dataset, given, resolution, say)
    return dataset, merged


def usual_resolution(version: str, stated: tuple[int, int] | None) -> tuple[int, int]:
    """Give the resolution that a training aimed at; else what its kind of model is made for."""
    if stated:
        return stated
    side = next((side for start, side in SIDES if version.lower().startswith(start)), USUAL_SIDE)
    return side, side


def _near(folder: Path, name: str) -> Path | None:
    """Find a folder that a config names: in what was left behind, or beside it."""
    for path in places(folder, name):
        try:
            if path.is_dir():
                return path
        except OSError:  # a name too long to be one
            continue
    return None


def _roots(folder: Path, names: Sequence[str]) -> list[Path]:
    """List the places near a folder that hold all the named folders."""
    bases = list(dict.fromkeys([folder, folder.parent, folder.parent.parent]))
    places = [base / sub for base in bases for sub in ("", *DATASET_FOLDERS)]
    found = {}
    for place in places:
        try:
            if all((place / name).is_dir() for name in names):
                found[place.resolve()] = place
        except OSError:
            continue
    return list(found.values())


def _counts(roots: Sequence[Path], folders: Sequence[Folder], run: Run) -> str:
    """Say where a folder has not as many images as the training had, and what to do about it."""
    wanted = sum(f.images for f in folders if not f.regularisation)
    have = 0
    for root in roots:
        try:
            have += len(scan_training_folder(root))
        except LorascopeError:
            continue
    if not wanted or have == wanted:
        return ""
    said = f"it has {have} {'image' if have == 1 else 'images'}, and the training had {wanted}"
    if have < wanted:
        return said
    return (
        f"{said}; all are taken as trained on, so move those that were not to a folder of their "
        f"own and give lorascope add dataset {run.shell} FOLDER --as held-out"
    )


def _called(
    run: Run,
    folder: Path,
    images: Sequence[DatasetImage],
    old: Dataset | None,
    given: Guess,
    told: Guess,
    say: Say,
) -> Guess:
    """Guess what a dataset is called by, and say how to correct that."""
    names = [folder.name, *(p.name for p in {f.parent for f, _ in scan_training_folder(folder)})]
    called = guess(told, names, [image.caption for image in images], given)
    if called.trigger and called.source and not (old and old.trigger):
        say(
            f"The trigger is taken to be {called.trigger!r} (a guess from {called.source}); if it "
            f"is another: {_command(run, folder)} --trigger WORD"
        )
    return called


def _command(run: Run, folder: Path) -> str:
    return f"lorascope add dataset {run.shell} {shlex.quote(str(folder))}"


def _root(before: Path, folder: Path, images: Iterable[Path]) -> Path:
    """Give the folder that holds all images: the old one where that still does."""
    paths = list(images)
    old = any(path.is_relative_to(before) for path in paths)
    new = any(not path.is_relative_to(before) for path in paths)
    if not (old and new):
        return before if old else folder
    try:
        return Path(os.path.commonpath([before, folder]))
    except ValueError as error:
        raise BadInputError(
            f"{folder} is on another drive than {before}; a dataset has one root.\n"
            "Fix: copy the images to one drive."
        ) from error


def _refuse_other_sides(
    run: Run, folder: Path, merged: Merged, known: Placed, split: Split | None
) -> None:
    """Refuse to change the side of an image: a verdict on held-out images rests on it."""
    if not merged.allowed:
        sides = " or ".join(sorted({clash.side for clash in merged.clashes}))
        first = merged.clashes[0].path.relative_to(folder).as_posix()
        fix = f"name a folder of other images; to leave all as they are: {_command(run, folder)}"
        if run.origin:
            fix = (
                "where they were not trained on, move them to a folder of their own, and then: "
                f"lorascope add dataset {run.shell} THAT-FOLDER --as {split}"
            )
        raise BadInputError(
            f"{count_of(merged.clashes, ('is', 'are'))} in the run already, as {sides}, and cannot "
            f"become {split}: {first}\nFix: {fix}"
        )
    before = any(image.split == "train" for image in known.values())
    if merged.turned and before and all(i.split != "train" for i in merged.images.values()):
        raise BadInputError(
            f"All {len(merged.turned)} images trained on would become {split}; none would be left."
            f"\nFix: where they were only moved: {_command(run, folder)}"
        )


def _say_images(merged: Merged, before: Path, folder: Path, split: Split | None, say: Say) -> None:
    """Say what became of images that the dataset had already."""
    if merged.clashes:
        count, clash = count_of(merged.clashes, ("is", "are")), merged.clashes[0]
        name = clash.path.relative_to(folder).as_posix()
        say(f"warning: {count} in the run as {clash.side} already and not added: {name}")
    if merged.turned:
        count = count_of(merged.turned, ("was", "were"))
        say(f"{count} moved out of {before}, and no longer {merged.turned[0].split} but {split}.")
    if merged.found:
        count = count_of(merged.found, ("was", "were"))
        say(f"{count} found again in {folder}; each keeps its side.")
    if merged.missing:
        say(f"warning: {count_of(merged.missing)} of the run still missing: {merged.missing[0]}")
    if merged.lost:
        count = count_of(merged.lost, ("was", "were"))
        say(f"warning: {count} replaced by another and left out: {merged.lost[0]}")
    if merged.edited:
        count = count_of(merged.edited, ("has", "have"))
        say(f"warning: {count} changed since: {merged.edited[0]}")
    if merged.twins:
        count = count_of(merged.twins, ("has", "have"))
        say(
            f"{count} the same bytes as another and counted with it: "
            f"{merged.twins[0].relative_to(folder).as_posix()}"
        )
    if merged.captions:
        say(f"{merged.captions} captions changed.")


def _say_settings(
    old: Dataset, new: Dataset, given: Guess, resolution: tuple[int, int] | None, say: Say
) -> None:
    """Say what the user set for the whole dataset, and what it was before."""
    size, was = (f"{width} x {height} px" for width, height in (new.resolution, old.resolution))
    for name, asked, value, before in (
        ("trigger", given.trigger, new.trigger, old.trigger),
        ("class word", given.class_word, new.class_word, old.class_word),
        ("resolution", resolution, size, was),
    ):
        if asked:
            more = f" (it was {before})" if before and before != value else ""
            say(f"The {name} of the dataset is {value}{more}.")
