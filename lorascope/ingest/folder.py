"""`ingest`: a folder that another trainer left behind becomes a run directory.

The folder is only read. Giving the same command again takes over what is new since.
"""

import filecmp
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lorascope import storage
from lorascope.errors import BadInputError, LorascopeError
from lorascope.ingest.bases import checked_base, find_base
from lorascope.ingest.carry import Carrier, Say, Taken, targets
from lorascope.ingest.datasets import Guess, find_datasets, put_images, usual_resolution
from lorascope.ingest.logs import bring_logs, find_logs, logs_of, tags_of
from lorascope.ingest.pictures import Sample, bring_samples, find_prompts, samples_of
from lorascope.io import train_settings
from lorascope.io.checkpoints import (
    Checkpoint,
    TrainingGroup,
    group_runs,
    list_checkpoints,
    usable_checkpoints,
)
from lorascope.io.dataset_file import read_dataset
from lorascope.io.foreign_configs import Settings, as_toml, from_metadata, merged, read_settings
from lorascope.io.foreign_folder import Survey, survey
from lorascope.io.layouts import (
    DIFFUSERS_FILES,
    KOHYA,
    ONETRAINER,
    named_state,
    printable,
    trainer_of,
)
from lorascope.io.lora_facts import DAMAGED, LORA, facts_of
from lorascope.io.lora_file import read_metadata
from lorascope.progress import track
from lorascope.records import Row
from lorascope.run import BUNDLE, Run

MOST_CONFIGS = 500
PEFT_CONFIG = "adapter_config.json"
LISTED = 40  # trainings, when a folder holds several


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Ingested:
    """What became of a folder."""

    run: Run
    name: str
    trainer: str  # "" where nothing tells
    found: tuple[Found, ...]
    missing: tuple[Missing, ...]
    notes: tuple[str, ...]
    new: int  # files taken over by this call
    changed: int  # files that were taken over before and had changed

    @property
    def next(self) -> str:
        """The command to give now."""
        return f"lorascope diagnose {self.run.shell}"


@dataclass(kw_only=True)
class _Work:
    """What one call works with."""

    folder: Path
    out: Path
    look: Survey
    say: Say
    notes: list[str] = field(default_factory=list)
    loras: list[Path] = field(default_factory=list)
    configs: list[Settings] = field(default_factory=list)
    groups: tuple[TrainingGroup, ...] = ()

    def note(self, text: str) -> None:
        """Keep a sentence for the end, and say it."""
        self.notes.append(text)
        self.say(text)


def ingest(
    folder: Path, out: Path, *, name: str = "", base: str = "", copy: bool = False, say: Say
) -> Ingested:
    """Make a run directory of what another trainer left behind.

    Parameters
    ----------
    folder : Path
        What kohya_ss, sd-scripts, OneTrainer, ai-toolkit or diffusers saved to. It is only read.
    out : Path
        The run directory; new, empty, or one that was made of the same folder before.
    name : str
        Which training, where the folder holds several.
    base : str
        The base model, where it is known better than from the files.
    copy : bool
        Copy the checkpoints and samples instead of linking them.
    say : callable
        Takes a sentence for everything that does not go without saying.

    Raises
    ------
    MissingInputError, BadInputError
        There is no such folder, it holds no LoRA, or it holds several and none was named.
    StorageError
        The run cannot be written; what was taken over before is kept.
    """
    folder, out = Path(folder), Path(out)
    known = _refuse(folder, out)
    work = _Work(folder=folder, out=out, look=survey(folder), say=say)
    _read(work)
    group = _choose(work, name or known)
    metadata = _metadata(group)
    settings = _settings(work, group, metadata)
    run = _open(work, group, settings)
    with Carrier(run=run, say=work.note, copy=copy) as carrier:
        _bring_checkpoints(carrier, group)
        saved, _ = usable_checkpoints(run.place("lora"))
        found_base = _give_base(work, run, settings, metadata, base, saved[-1].path)
        samples = _bring_samples(work, carrier, group, settings, saved)
        logs = _bring_logs(work, carrier, group, settings)
    data = _give_dataset(work, run, settings, metadata)
    _write_config(run, settings)
    told = [_about_lora(run, group), found_base, samples, logs, data]
    return Ingested(
        run=run,
        name=group.name,
        trainer=settings.trainer or group.trainer,
        found=tuple(one for one in told if isinstance(one, Found)),
        missing=tuple(one for one in told if isinstance(one, Missing)),
        notes=tuple(work.notes),
        new=carrier.counts[Taken.NEW],
        changed=carrier.counts[Taken.CHANGED],
    )


def _refuse(folder: Path, out: Path) -> str:
    """Refuse what would write into the folder or over another run; recall what was asked before."""
    if (folder / BUNDLE).is_file():
        quoted = shlex.quote(str(folder))
        raise BadInputError(f"{folder} is a run already.\nFix: lorascope diagnose {quoted}")
    inside = out.resolve().is_relative_to(folder.resolve())
    if inside and folder.exists():
        raise BadInputError(
            f"{printable(out)} lies inside {printable(folder)}, which is only read.\n"
            "Fix: choose a folder elsewhere with --out."
        )
    if not (out / BUNDLE).is_file():
        return ""
    origin = Run(out).origin
    if origin.get("folder") != str(folder.resolve()):
        other = f"made of {origin['folder']}" if origin.get("folder") else "not made of a folder"
        raise BadInputError(
            f"{printable(out)} holds a run that was {other}.\nFix: choose a new folder with --out."
        )
    return origin.get("name", "")


def _read(work: _Work) -> None:
    """Sort the files: which are LoRAs, which are torn, what else lies there; read the configs."""
    look = work.look
    others: Counter[str] = Counter()
    weights = look.weights
    for path in track(weights, label="looking at files"):
        facts = facts_of(path)
        if facts.kind == LORA:
            work.loras.append(path)
        elif facts.kind == DAMAGED:
            work.note(
                f"Left out: {printable(facts.damage)} It may still be being written; the same "
                "command takes it once it is whole."
            )
        else:
            others[facts.kind] += 1
    if not work.loras:
        kept = [path for path in look.backups if facts_of(path).kind == LORA]
        if kept:
            work.note(f"No saves, but {len(kept)} backups hold the LoRA; these were taken.")
        work.loras = kept
    for kind, count in others.items():
        what = "of an unknown kind" if kind == "unknown" else kind
        work.note(f"Left out: {count} .safetensors {_files(count)}, {what} and no LoRA.")
    for path in look.runs:
        work.note(f"Left out: {printable(path)}, a run of lorascope's own.")
    for sentence in look.closed:
        work.note(sentence)
    if look.cut:
        work.note("The folder holds more files than were looked at; name a smaller one.")
    configs = (read_settings(path) for path in look.configs[:MOST_CONFIGS])
    work.configs = [settings for settings in configs if settings is not None]
    if not work.loras:
        raise BadInputError(_no_lora(work, others))
    work.groups = group_runs(work.loras, names=_names(work))


def _files(count: int) -> str:
    return "file" if count == 1 else "files"


def _no_lora(work: _Work, others: Mapping[str, int]) -> str:
    """Say what a folder holds instead of a LoRA, and what it may be meant for."""
    look, shown = work.look, printable(work.folder)
    quoted = shlex.quote(str(work.folder))
    torn = [note for note in work.notes if note.startswith("Left out:") and "whole" in note]
    if look.empty:
        return f"{shown} is empty.\nFix: name the folder that your trainer saves to."
    if (work.folder / "model_index.json").is_file() or "a base model" in others:
        return (
            f"{shown} holds a base model and no LoRA.\n"
            "Fix: name the folder that your trainer saves to; a base model is added with "
            f"lorascope add base RUN {quoted}"
        )
    if torn:
        return f"{shown} holds no LoRA that can be read. {torn[0].removeprefix('Left out: ')}"
    if look.pictures:
        return (
            f"{shown} holds {len(look.pictures)} pictures and no LoRA.\n"
            f"Fix: name the folder that your trainer saves to, or take these as training images "
            f"of a run: lorascope add dataset RUN {quoted}"
        )
    kinds = Counter(p.suffix.lower() or "nameless" for p in [*look.others, *look.configs])
    held = ", ".join(f"{n} {printable(kind)}" for kind, n in kinds.most_common(3))
    more = f" It holds {held}." if held else ""
    if look.closed:
        more += f" {look.closed[0]}"
    pickles = any(kind in kinds for kind in (".pt", ".ckpt", ".bin"))
    fix = "save the LoRA as .safetensors" if pickles else "name the folder your trainer saves to"
    return f"{shown} holds no LoRA (.safetensors).{more}\nFix: {fix}."


def _names(work: _Work) -> dict[Path, str]:
    """Name the files whose own names do not: OneTrainer's, by its prefix or its workspace."""
    names: dict[Path, str] = {}
    finals = {Path(save).name for one in work.configs if one.trainer == ONETRAINER
              for save in one.saves}  # fmt: skip
    for path in work.loras:
        named = named_state(path)
        if named.trainer == ONETRAINER or path.name in finals:
            home = path.parent.parent if path.parent.name == "save" else work.folder
            own = named.name if named.trainer == ONETRAINER else ""
            names[path] = own or home.resolve().name
    return names


def _choose(work: _Work, name: str) -> TrainingGroup:
    """Pick the training that was asked for, or the only one; list them where that is not clear."""
    groups = work.groups
    if not name and len(groups) == 1:
        return groups[0]
    for group in groups:
        if group.name == name:
            return group
    alike = [group for group in groups if name and group.name.partition("#")[0] == name]
    if len(alike) == 1:
        return alike[0]
    start = f"{printable(work.folder)} holds {len(groups)} trainings"
    if name and not alike:
        start = f"{printable(work.folder)} holds no training called {printable(name)}"
    elif name:
        start = f"{printable(work.folder)} holds {len(alike)} trainings called {printable(name)}"
    lines = [f"{start}; one run is made of one:"]
    for group in (alike or groups)[:LISTED]:
        lines.append(f"  {_line(group)}")
        where = work.out.parent / group.name
        lines.append(
            f"    lorascope ingest {shlex.quote(printable(work.folder))} "
            f"--out {shlex.quote(printable(where))} --name {shlex.quote(printable(group.name))}"
        )
    if len(groups) > LISTED:
        lines.append(f"  ... and {len(groups) - LISTED} more")
    raise BadInputError("\n".join(lines) + "\nFix: give one of these commands.")


def _line(group: TrainingGroup) -> str:
    count = len(group.checkpoints)
    parts = ["1 checkpoint" if count == 1 else f"{count} checkpoints", _span(group.checkpoints)]
    if group.rank:
        parts.append(f"rank {group.rank}")
    if group.base:
        parts.append(f"on {printable(group.base)}")
    return f"{printable(group.name)}: {', '.join(parts)}"


def _span(checkpoints: Sequence[Checkpoint]) -> str:
    first, last = checkpoints[0], checkpoints[-1]
    text = f"epoch {first.epoch}" if first is last else f"epochs {first.epoch} to {last.epoch}"
    if last.step:
        text += f" (step {last.step})" if first is last else f" (steps {first.step} to {last.step})"
    return text


def _metadata(group: TrainingGroup) -> dict[str, str]:
    """Read what the last checkpoint says; the last knows most."""
    for checkpoint in reversed(group.checkpoints):
        try:
            return read_metadata(checkpoint.path)
        except LorascopeError:
            continue
    return {}


def _settings(work: _Work, group: TrainingGroup, metadata: Mapping[str, str]) -> Settings:
    """Put together what is known of a training: its files count before its configs."""
    base_name = group.name.partition("#")[0]
    home = _home(group)
    fitting = []
    for one in work.configs:
        near = one.path is not None and one.path.is_relative_to(home)
        named = bool(one.name) and one.name == base_name
        if named or (near and (not one.name or one.trainer in ("diffusers", ONETRAINER))):
            fitting.append(one)
    began = group.times[0][0] if group.times else 0.0
    if not began and group.checkpoints:
        began = _written(group.checkpoints[0].path)
    fitting.sort(key=lambda one: abs(_written(one.path) - began) if one.path else 0.0)
    whole = merged([from_metadata(metadata), *fitting])
    names = [named_state(c.path).trainer for c in group.checkpoints]
    trainer = whole.trainer or group.trainer or trainer_of(names, tuple(metadata))
    return replace(whole, trainer=trainer)


def _home(group: TrainingGroup) -> Path:
    """Give the folder that a training kept everything in."""
    home = group.checkpoints[-1].path.parent
    if home.name == "save" or home.name.startswith("checkpoint-"):
        return home.parent
    return home


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _open(work: _Work, group: TrainingGroup, settings: Settings) -> Run:
    if (work.out / BUNDLE).is_file():
        return Run(work.out)
    origin = {
        "folder": str(work.folder.resolve()),
        "trainer": settings.trainer,
        "name": group.name,
    }
    return Run.create(work.out, base="", base_digest="", origin=origin)


def _bring_checkpoints(carrier: Carrier, group: TrainingGroup) -> None:
    """Take the saved states over, and what PEFT keeps beside them."""
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
    beside = states[-1].path.with_name(PEFT_CONFIG)
    if beside.is_file():
        carrier.bring(beside, place / PEFT_CONFIG)


def _saved_twice(last: Checkpoint, before: Checkpoint) -> bool:
    """Tell whether the last state, which has no number, is the one before it, byte for byte."""
    named = named_state(last.path)
    if named.epoch is not None or named.by_step or facts_of(last.path).step:
        return False
    try:
        return filecmp.cmp(last.path, before.path, shallow=False)
    except OSError:
        return False


def _about_lora(run: Run, group: TrainingGroup) -> Found:
    saved = list_checkpoints(run.place("lora"))
    by_step = any(named_state(c.path).by_step for c in saved)
    parts = [f"saved by steps, numbered as {_span(saved)}" if by_step else _span(saved)]
    if group.rank:
        parts.append(f"rank {group.rank}")
    if len(group.sessions) > 1:
        parts.append(f"of {len(group.sessions)} starts of the trainer")
    return Found(role="lora", count=len(saved), text=", ".join(parts))


def _give_base(
    work: _Work, run: Run, settings: Settings, metadata: Mapping[str, str], given: str, lora: Path
) -> Found | Missing:
    if given:
        run.set_base(*checked_base(given, lora, work.say))
        return Found(role="base", count=1, text=f"{run.base}, as you named it")
    if run.base:
        return Found(role="base", count=1, text=run.base)
    named = [str(settings.ours["base"])] if "base" in settings.ours else []
    configs = [str(c.ours["base"]) for c in work.configs if "base" in c.ours and c.name in (
        "", settings.name)]  # fmt: skip
    name, digest, why = find_base(work.folder, [*configs, *named], metadata, work.say)
    if name:
        run.set_base(name, digest)
        return Found(role="base", count=1, text=f"{name} ({why})")
    why = printable(why)
    return Missing(role="base", why=why, command=f"lorascope add base {run.shell} NAME_OR_PATH")


def _bring_samples(
    work: _Work,
    carrier: Carrier,
    group: TrainingGroup,
    settings: Settings,
    saved: Sequence[Checkpoint],
) -> Found | Missing:
    run, home = carrier.run, _home(group)
    mine = [s for s in samples_of(work.look.pictures) if _is_of(s, group, home, work)]
    listed = [*settings.prompt_files, *(str(p) for p in _prompt_files(work, home, mine))]
    prompts = settings.prompts or find_prompts(
        path for name in listed for path in (Path(name), work.folder / name)
    )
    rows = bring_samples(carrier, mine, saved, prompts)
    if not rows:
        command = f"lorascope add samples {run.shell} PATH"
        return Missing(role="samples", why="no sample pictures", command=command)
    return Found(role="samples", count=len(rows), text=_about_samples(rows))


def _is_of(sample: Sample, group: TrainingGroup, home: Path, work: _Work) -> bool:
    """Tell whether a sample was drawn by this training: by its name, else by its folder."""
    named, name = sample.named, group.name.partition("#")[0]
    if named is None:
        return False
    if named.trainer == KOHYA:
        mine = named.name in (name, "") or len(work.groups) == 1
        return mine and ("#" not in group.name or _within(sample.path, group))
    return sample.path.is_relative_to(home) and ("#" not in group.name or _within(
        sample.path, group))  # fmt: skip


def _within(path: Path, group: TrainingGroup) -> bool:
    """Tell whether a file was written while a training ran, of several with one name."""
    times = group.times or (
        (_written(group.checkpoints[0].path), _written(group.checkpoints[-1].path)),
    )
    return any(start - 60 <= _written(path) <= (end or start) + 60 for start, end in times)


def _prompt_files(work: _Work, home: Path, samples: Sequence[Sample]) -> list[Path]:
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
        parts.append(f"of {len(known)} epochs ({known[0]} to {known[-1]}), {per}")
    if loose:
        parts.append(f"{loose} between the saved states")
    if any(row["prompt"] for row in rows):
        parts.append(f"with {len({row['prompt'] for row in rows if row['prompt']})} prompts")
    else:
        parts.append("their prompts are not known")
    return ", ".join(parts)


def _bring_logs(
    work: _Work, carrier: Carrier, group: TrainingGroup, settings: Settings
) -> Found | Missing:
    run = carrier.run
    logs = find_logs(work.folder, work.look.events, settings.logs)
    mine = logs_of(logs, group, alone=len(work.groups) == 1)
    bring_logs(carrier, mine)
    if run.has("events"):
        tags, damage = tags_of(run.place("events"))
        if damage:
            work.note(printable(damage))
        files = [p for p in run.place("events").rglob("*tfevents*") if p.is_file()]
        text = f"tags {', '.join(printable(tag) for tag in tags)}" if tags else "no scalar in them"
        return Found(role="logs", count=len(files), text=text)
    why = "no event files"
    if logs:
        why = f"{len(logs)} event {_files(len(logs))} of other times, such as {logs[0].path}"
    command = f"lorascope add logs {run.shell} PATH"
    return Missing(role="logs", why=printable(why), command=command)


def _give_dataset(
    work: _Work, run: Run, settings: Settings, metadata: Mapping[str, str]
) -> Found | Missing:
    command = f"lorascope add dataset {run.shell} PATH"
    known = train_settings.settings(metadata)
    why = ""
    if not run.has("dataset"):
        paths, why = find_datasets(work.folder, settings, known.folders)
        if not paths:
            return Missing(role="dataset", why=printable(why), command=command)
        resolution = usual_resolution(known.base_version, known.resolution)
        told = Guess(trigger=known.trigger, source="the LoRA's metadata")
        if not known.trigger and "trigger" in settings.ours:
            told = Guess(trigger=str(settings.ours["trigger"]), source="its trainer's config")
        for path in paths:
            try:
                put_images(
                    run,
                    path,
                    split="train",
                    given=Guess(),
                    told=told,
                    resolution=resolution,
                    say=work.note,
                )
            except LorascopeError as error:
                work.note(printable(str(error).splitlines()[0]))
    if not run.has("dataset"):
        return Missing(role="dataset", why="its images cannot be read", command=command)
    dataset = read_dataset(run.place("dataset"))
    trigger = f", trigger {dataset.trigger!r}" if dataset.trigger else ""
    more = f"; {why}" if why else ""
    text = printable(f"images from {dataset.root}{trigger}{more}")
    return Found(role="dataset", count=len(dataset.images), text=text)


def _write_config(run: Run, settings: Settings) -> None:
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
