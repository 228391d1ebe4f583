"""`add`: one more piece for a run, from anywhere; a run is made where there is none."""

from collections.abc import Sequence
from pathlib import Path

from lorascope.errors import BadInputError, MissingInputError
from lorascope.ingest.bases import checked_base
from lorascope.ingest.carry import Carrier, Say, Taken, targets
from lorascope.ingest.datasets import Guess, put_images, usual_resolution
from lorascope.ingest.logs import Log, bring_logs, tags_of
from lorascope.ingest.pickled import (
    FIX,
    Command,
    checked_pickle,
    convert_pickle,
    no_lora,
    passed_over,
    pickled_loras,
)
from lorascope.ingest.pictures import Sample, bring_samples, find_prompts
from lorascope.ingest.pieces import bring_peft_settings
from lorascope.ingest.strangers import refuse_strangers
from lorascope.ingest.trainings import metadata_of, stored_name
from lorascope.io import train_settings
from lorascope.io.checkpoints import Checkpoint, list_checkpoints, unplaced
from lorascope.io.dataset_file import Dataset, Split
from lorascope.io.foreign.folder import PROMPT_FILES, event_files, survey
from lorascope.io.foreign.layouts import DIFFUSERS_FILES, named_sample, printable
from lorascope.io.foreign.pickled import is_pickle
from lorascope.io.images import ENDINGS as PICTURES
from lorascope.io.lora_facts import DAMAGED, LORA, facts_of
from lorascope.run import BUNDLE, Run


def open_or_create(path: Path) -> Run:
    """Open a run, or make one whose base model is not known yet.

    Raises
    ------
    BadInputError
        The folder holds other things, or its ``run.json`` is damaged.
    """
    if (path / BUNDLE).is_file():
        return Run(path)
    return Run.create(path, base="", base_digest="", origin={"folder": "", "name": path.name})


def add_lora(
    path: Path, files: Sequence[Path], *, copy: bool = False, allow_pickle: bool = False, say: Say
) -> Run:
    """Add checkpoints to a run: files, or folders of them.

    Parameters
    ----------
    path : Path
        The run.
    files : sequence of Path
    copy : bool
        Copy the files instead of linking them.
    allow_pickle : bool
        Convert pickles that are named one by one; nothing in them is run.
    say : callable

    Raises
    ------
    MissingInputError, BadInputError
        One is not there, is damaged, is no LoRA, or is of another training; nothing was added.
    """
    command = Command(run=path, files=files, allowed=allow_pickle, copy=copy, say=say)
    found = [one for file in files for one in _loras(file, command)]
    run = open_or_create(path)
    refuse_strangers(run, _saved(run), found)
    with Carrier(run=run, say=say, copy=copy) as carrier:
        pairs = targets(found, run.place("lora"), stored_name)
        plain = {source: to for source, to in pairs.items() if not is_pickle(source)}
        carrier.bring_all(plain, label="adding checkpoints")
        pickled = {source: to for source, to in pairs.items() if is_pickle(source)}
        carrier.bring_all(pickled, label="converting pickles", convert=convert_pickle)
        if found[-1].stem in DIFFUSERS_FILES:
            bring_peft_settings(carrier, found[-1])
    _say_counts(carrier, "checkpoint", say)
    return run


def add_logs(path: Path, source: Path, *, say: Say) -> Run:
    """Add event files to a run: one, or all below a folder.

    Raises
    ------
    MissingInputError, BadInputError
        It is not there, or holds no event file.
    """
    _there(source)
    root = source if source.is_dir() else source.parent
    found = event_files(source) if source.is_dir() else [source]
    if not found or not all("tfevents" in one.name for one in found):
        raise BadInputError(
            f"{printable(source)} holds no event files (events.out.tfevents...).\n"
            "Fix: name the logging folder of your trainer."
        )
    run = open_or_create(path)
    with Carrier(run=run, say=say) as carrier:
        bring_logs(carrier, [Log(path=one, root=root, inside=False) for one in found])
    _say_counts(carrier, "event file", say)
    tags, damage = tags_of(run.place("events"))
    if damage:
        say(printable(damage))
    say(f"Tags: {', '.join(printable(tag) for tag in tags)}" if tags else "No scalar in them.")
    return run


def add_samples(path: Path, source: Path, *, copy: bool = False, say: Say) -> Run:
    """Add sample pictures to a run; names as trainers give them tell epoch and prompt.

    Raises
    ------
    MissingInputError, BadInputError
        It is not there, or holds no picture.
    """
    _there(source)
    look = survey(source) if source.is_dir() else None
    pictures = look.pictures if look else [source]
    if not pictures or any(one.suffix.lower() not in PICTURES for one in pictures):
        raise BadInputError(
            f"{printable(source)} holds no pictures ({' '.join(e[1:] for e in PICTURES)}).\n"
            "Fix: name the folder that your trainer draws its samples into."
        )
    lists = look.prompts if look else [source.with_name(name) for name in sorted(PROMPT_FILES)]
    run = open_or_create(path)
    with Carrier(run=run, say=say, copy=copy) as carrier:
        samples = [Sample(path=one, named=named_sample(one)) for one in pictures]
        rows = bring_samples(carrier, samples, _saved(run), find_prompts(lists))
    placed = sum(row["epoch"] is not None for row in rows)
    say(f"{len(rows)} samples in the run, {placed} of them at a known epoch.")
    return run


def add_dataset(
    path: Path,
    source: Path,
    *,
    split: Split | None = None,
    trigger: str = "",
    class_word: str = "",
    resolution: int = 0,
    say: Say,
) -> tuple[Run, Dataset]:
    """Add a folder of images to a run's dataset; the first call makes it.

    Parameters
    ----------
    split : Split, optional
        The side that was named. Without one, new images are taken as trained on, and those that
        are in the dataset already keep their side.

    Raises
    ------
    MissingInputError, BadInputError
        There is no such folder, no image in it can be used, or some are on another side already.
    """
    _there(source)
    if not source.is_dir():
        raise BadInputError(
            f"{printable(source)} is a file, not a folder.\n"
            "Fix: name the folder that holds the images."
        )
    run = open_or_create(path)
    known = train_settings.settings(metadata_of(_saved(run)))
    stated = (resolution, resolution) if resolution else None
    if stated is None and not run.has("dataset"):
        stated = usual_resolution(known.base_version, known.resolution)
    dataset, merged = put_images(
        run,
        source,
        split=split,
        given=Guess(trigger=trigger, class_word=class_word),
        told=Guess(trigger=known.trigger, source="the LoRA's metadata"),
        resolution=stated,
        say=say,
    )
    parts = [f"{len(merged.new)} new {'image' if len(merged.new) == 1 else 'images'}"]
    parts[0] += f" as {split or 'train'}" if merged.new else ""
    parts += [f"{len(merged.there)} there already"] if merged.there else []
    say(f"{', '.join(parts)}; the dataset has {len(dataset.images)}.")
    return run, dataset


def add_base(path: Path, name: str, *, say: Say) -> Run:
    """Write down on which base model the LoRA was trained.

    Raises
    ------
    MissingInputError, BadInputError
        There is no such model, or the LoRA was made for another kind.
    """
    saved = _saved(Run(path)) if (path / BUNDLE).is_file() else []
    found, digest = checked_base(name, saved[-1].path if saved else None, say)
    run = open_or_create(path)
    run.set_base(found, digest)
    say(f"Base model: {found}")
    return run


def _loras(file: Path, command: Command) -> list[Path]:
    """List the LoRA files that one argument names, each of them sound."""
    _there(file)
    if file.is_dir():
        return [checkpoint.path for checkpoint in _sound(file, command)]
    if is_pickle(file):
        return [checked_pickle(file, command)]
    facts = facts_of(file)
    if facts.kind == DAMAGED:
        raise BadInputError(f"{facts.damage}\nFix: copy or download the file again.")
    if facts.kind != LORA:
        raise no_lora(file, facts.kind)
    return [file]


def _sound(folder: Path, command: Command) -> list[Checkpoint]:
    """List a folder's LoRAs; pickles are opened only when each is named."""
    found = [c for c in list_checkpoints(folder) if facts_of(c.path).kind == LORA]
    pickled = pickled_loras(sorted(one for one in folder.iterdir() if one.is_file()))
    if not found and pickled:
        raise BadInputError(
            f"{printable(folder)} holds {passed_over(pickled, command.run, join=FIX)}"
        )
    if not found:
        raise BadInputError(
            f"{printable(folder)} holds no LoRA (.safetensors).\nFix: name LoRA files."
        )
    if pickled:
        command.say(f"Left out: {passed_over(pickled, command.run)}")
    if told := unplaced(folder):
        command.say(told)
    return found


def _there(path: Path) -> None:
    try:
        there = path.exists()
    except OSError:
        there = False
    if not there:
        raise MissingInputError(f"{printable(path)} does not exist.\nFix: check the path.")


def _saved(run: Run) -> list[Checkpoint]:
    return list_checkpoints(run.place("lora")) if run.has("lora") else []


def _say_counts(carrier: Carrier, noun: str, say: Say) -> None:
    new, changed = carrier.counts[Taken.NEW], carrier.counts[Taken.CHANGED]
    same = carrier.counts[Taken.SAME]
    parts = [f"{new} new"]
    parts += [f"{changed} changed"] if changed else []
    parts += [f"{same} there already"] if same else []
    say(f"{noun.capitalize()}s: {', '.join(parts)}.")
