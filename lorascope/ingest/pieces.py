"""The pieces of a run, each looked for in a foreign folder: found, or missing and how to add it."""

import filecmp
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lorascope import storage
from lorascope.errors import LorascopeError
from lorascope.ingest.bases import checked_base, find_base
from lorascope.ingest.carry import Carrier, targets
from lorascope.ingest.datasets import Guess, find_datasets, put_images, usual_resolution
from lorascope.ingest.logs import bring_logs, find_logs, folders_of, free_logs, logs_of, tags_of
from lorascope.ingest.looking import Work, file_word
from lorascope.ingest.pictures import Sample, bring_samples, find_prompts, samples_of
from lorascope.ingest.subsets import put_subsets, spoken, subsets_by_folder
from lorascope.ingest.trainings import home_of, span, within
from lorascope.io import train_settings
from lorascope.io.checkpoints import Checkpoint, TrainingGroup, list_checkpoints
from lorascope.io.dataset_file import read_dataset
from lorascope.io.foreign.folder import places
from lorascope.io.foreign.layouts import DIFFUSERS_FILES, KOHYA, named_state, printable
from lorascope.io.foreign.settings import Settings, as_toml
from lorascope.io.lora_facts import facts_of
from lorascope.io.lora_file import PEFT_CONFIG
from lorascope.records import Row
from lorascope.run import Run

LISTED = 20  # folders of logs that may be meant


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One kind of thing that the run has now."""

    role: str
    count: int
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """One kind of thing that was not there, and how to add it."""

    role: str
    why: str
    command: str


def bring_checkpoints(carrier: Carrier, group: TrainingGroup) -> None:
    """Take the saved states over, and PEFT's settings beside the last of them."""
    states = list(group.checkpoints)
    if len(states) > 1 and _saved_twice(states[-1], states[-2]):
        states.pop()
    steps = {state.path: state.step for state in states}
    place = carrier.run.place("lora")

    def name_of(path: Path) -> str:
        if path.stem in DIFFUSERS_FILES:  # they are all called so
            step = steps[path]
            end = f"-step{step:08}" if named_state(path).by_step else ""
            return f"{group.name.partition('#')[0]}{end}.safetensors"
        if path.stem == "lora" and path.parent.name == "lora":
            return f"{path.parent.parent.name}.safetensors"
        return f"{path.stem}.safetensors"

    pairs = targets([state.path for state in states], place, name_of)
    carrier.bring_all(pairs, label="taking over checkpoints")
    bring_peft_settings(carrier, states[-1].path)


def bring_peft_settings(carrier: Carrier, lora: Path) -> None:
    """Take over what PEFT keeps beside a LoRA: its alpha stands nowhere else."""
    beside = lora.with_name(PEFT_CONFIG)
    if beside.is_file():
        carrier.bring(beside, carrier.run.place("lora") / PEFT_CONFIG)


def _saved_twice(last: Checkpoint, before: Checkpoint) -> bool:
    """Tell whether the last state, which has no number, is the one before it, byte for byte."""
    named = named_state(last.path)
    if named.epoch is not None or named.by_step or facts_of(last.path).step:
        return False
    try:
        return filecmp.cmp(last.path, before.path, shallow=False)
    except OSError:
        return False


def about_lora(run: Run, group: TrainingGroup) -> Found:
    """Say which checkpoints a run has now."""
    saved = list_checkpoints(run.place("lora"))
    by_step = any(named_state(c.path).by_step for c in saved)
    parts = [f"saved by steps, numbered as {span(saved)}" if by_step else span(saved)]
    if group.rank:
        parts.append(f"rank {group.rank}")
    if len(group.sessions) > 1:
        parts.append(f"of {len(group.sessions)} starts of the trainer")
    return Found(role="lora", count=len(saved), text=", ".join(parts))


def give_base(
    work: Work, run: Run, settings: Settings, metadata: Mapping[str, str], given: str, lora: Path
) -> Found | Missing:
    """Write down the base model: what the user named, else what the files name and is there."""
    if given:
        run.set_base(*checked_base(given, lora, work.say))
        return Found(role="base", count=1, text=f"{run.base}, as you named it")
    if run.base:
        return Found(role="base", count=1, text=run.base)
    named = [str(settings.ours["base"])] if "base" in settings.ours else []
    near = [c for c in work.configs if c.name in ("", settings.name)]
    configs = [str(c.ours["base"]) for c in near if "base" in c.ours]
    name, digest, why = find_base(work.folder, [*configs, *named], metadata, work.say)
    if name:
        run.set_base(name, digest)
        return Found(role="base", count=1, text=f"{name} ({why})")
    why = printable(why)
    return Missing(role="base", why=why, command=f"lorascope add base {run.shell} NAME_OR_PATH")


def give_samples(
    work: Work,
    carrier: Carrier,
    group: TrainingGroup,
    settings: Settings,
    saved: Sequence[Checkpoint],
) -> Found | Missing:
    """Take over the samples that this training drew."""
    run, home = carrier.run, home_of(group)
    drawn = samples_of(work.look.pictures)
    mine = [s for s in drawn if _is_of(s, group, home, work)] or _of_one_name(drawn, work)
    named = (path for name in settings.prompt_files for path in places(work.folder, name))
    prompts = settings.prompts or find_prompts([*named, *_prompt_files(work, home, mine)])
    rows = bring_samples(carrier, mine, saved, prompts)
    if not rows:
        command = f"lorascope add samples {run.shell} PATH"
        why = "no sample pictures"
        if drawn:
            why = f"{len(drawn)} sample pictures, none of its name, such as {drawn[0].path.name}"
        return Missing(role="samples", why=printable(why), command=command)
    return Found(role="samples", count=len(rows), text=_about_samples(rows))


def _is_of(sample: Sample, group: TrainingGroup, home: Path, work: Work) -> bool:
    """Tell whether a sample was drawn by this training: by its name, else by its folder."""
    named, name = sample.named, group.name.partition("#")[0]
    if named is None:
        return False
    if named.trainer == KOHYA:
        mine = named.name in (name, "")
    else:
        mine = sample.path.is_relative_to(home)
    if not mine or "#" not in group.name:
        return mine
    homes = {home_of(g) for g in work.groups if g.name.partition("#")[0] == name}
    around = [one for one in homes if sample.path.is_relative_to(one)]
    if len(around) == 1 and len(homes) > 1:  # they kept their pictures apart
        return around == [home]
    return within(sample.path, group)


def _of_one_name(samples: Sequence[Sample], work: Work) -> list[Sample]:
    """Give samples of another name where there is one training and one name: it was renamed."""
    named = [(s.named.name, s) for s in samples if s.named and s.named.trainer == KOHYA]
    names = {name for name, _ in named}
    return [s for _, s in named] if len(work.groups) == 1 and len(names) == 1 else []


def _prompt_files(work: Work, home: Path, samples: Sequence[Sample]) -> list[Path]:
    folders = {sample.path.parent for sample in samples} | {home}
    return [path for path in work.look.prompts if path.parent in folders]


def _about_samples(rows: Sequence[Row]) -> str:
    counts = Counter(row["epoch"] for row in rows)
    known = sorted(epoch for epoch in counts if isinstance(epoch, int))
    loose = counts.get(None, 0)
    each = {counts[epoch] for epoch in known}
    parts = []
    if known:
        per = f"{each.pop()} each" if len(each) == 1 else "not the same number each"
        some = f"{len(known)} epochs ({known[0]} to {known[-1]})"
        parts.append(f"of {some}, {per}" if len(known) > 1 else f"of epoch {known[0]}")
    if loose:
        parts.append(f"{loose} between the saved states")
    if any(row["prompt"] for row in rows):
        parts.append(f"with {len({row['prompt'] for row in rows if row['prompt']})} prompts")
    else:
        parts.append("their prompts are not known")
    return ", ".join(parts)


def give_logs(
    work: Work, carrier: Carrier, group: TrainingGroup, settings: Settings
) -> list[Found | Missing]:
    """Take over the event files that this training wrote."""
    run = carrier.run
    logs = find_logs(work.folder, work.look.events, settings.logs)
    mine = logs_of(logs, group, work.groups)
    bring_logs(carrier, mine)
    if run.has("events"):
        tags, damage = tags_of(run.place("events"))
        if damage:
            work.note(printable(damage))
        files = [p for p in run.place("events").rglob("*tfevents*") if p.is_file()]
        text = f"tags {', '.join(printable(tag) for tag in tags)}" if tags else "no scalar in them"
        return [Found(role="logs", count=len(files), text=text)]
    free = free_logs(logs, work.groups)
    if free and not group.times:
        return _perhaps_logs(run, folders_of(free))
    why = "no event files"
    if logs:
        why = f"{len(logs)} event {file_word(len(logs))} of other times, such as {logs[0].path}"
    command = f"lorascope add logs {run.shell} PATH"
    return [Missing(role="logs", why=printable(why), command=command)]


def _perhaps_logs(run: Run, folders: Sequence[Path]) -> list[Found | Missing]:
    """Name the folders of logs that may be those of a training of unknown time."""
    why = "it cannot be told whether this folder of logs is its"
    if len(folders) > 1:
        why = f"it cannot be told which of {len(folders)} folders of logs is its"
    return [
        Missing(
            role="logs",
            why=printable(f"{why}, as the LoRA does not say when it was trained: {folder}"),
            command=f"lorascope add logs {run.shell} {shlex.quote(printable(folder))}",
        )
        for folder in folders[:LISTED]
    ]


def give_dataset(
    work: Work, run: Run, settings: Settings, metadata: Mapping[str, str]
) -> Found | Missing:
    """Write down the images trained on, where they are there."""
    command = f"lorascope add dataset {run.shell} PATH"
    known = train_settings.settings(metadata)
    why = ""
    if not run.has("dataset"):
        paths, why = find_datasets(work.folder, settings, known.folders, run)
        if not paths:
            if settings.dataset_config and not settings.datasets:
                why = f"its dataset config {settings.dataset_config} is not here, or names none"
            return Missing(role="dataset", why=printable(why), command=command)
        subsets = subsets_by_folder(settings, paths)
        stated = {subset.resolution for subset in subsets.values()}
        one_size = stated.pop() if len(stated) == 1 else None
        resolution = usual_resolution(known.base_version, known.resolution or one_size)
        told = Guess(trigger=known.trigger, source="the LoRA's metadata")
        word = str(settings.ours.get("trigger", ""))
        if not known.trigger and word and (not subsets or spoken(word, subsets)):
            told = Guess(trigger=word, source="its trainer's config")
        class_word = str(settings.ours.get("class_word", "")) if subsets else ""
        for path in paths:
            try:
                put_images(
                    run,
                    path,
                    split="train",
                    given=Guess(class_word=class_word),
                    told=told,
                    resolution=resolution,
                    say=work.note,
                )
            except LorascopeError as error:
                work.note(printable(str(error).splitlines()[0]))
        if subsets and run.has("dataset"):
            put_subsets(run, subsets, work.note)
    if not run.has("dataset"):
        return Missing(role="dataset", why="its images cannot be read", command=command)
    dataset = read_dataset(run.place("dataset"))
    trigger = f", trigger {dataset.trigger!r}" if dataset.trigger else ""
    more = f"; {why}" if why else ""
    text = printable(f"images from {dataset.root}{trigger}{more}")
    return Found(role="dataset", count=len(dataset.images), text=text)


def write_config(run: Run, settings: Settings) -> None:
    """Write the recovered settings so that our trainer reads them, where they say enough."""
    known: dict[str, str] = {}
    if run.base:
        known["base"] = run.base
    if run.has("dataset"):
        known["dataset"] = str(read_dataset(run.place("dataset")).root.resolve())
    elif settings.datasets:
        known["dataset"] = settings.datasets[0]
    whole = replace(settings, ours={**settings.ours, **known})
    text = as_toml(whole, missing={"base": "unknown", "dataset": "unknown"})
    path = run.place("config")
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        storage.write_text(path, text)
