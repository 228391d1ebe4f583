"""One look through a foreign folder: which of its files are LoRAs, and what lies beside them."""

import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lorascope.errors import BadInputError
from lorascope.ingest.carry import Say
from lorascope.ingest.pickled import FIX, passed_over, pickled_loras
from lorascope.io.checkpoints import TrainingGroup, group_runs
from lorascope.io.foreign.configs import read_settings
from lorascope.io.foreign.folder import Survey
from lorascope.io.foreign.layouts import ONETRAINER, named_state, printable
from lorascope.io.foreign.settings import Settings
from lorascope.io.lora_facts import DAMAGED, LORA, facts_of
from lorascope.progress import track

MOST_CONFIGS = 500
FRESH_S = 600.0  # no trainer takes longer to write a LoRA


@dataclass(kw_only=True)
class Work:
    """What one call works with."""

    folder: Path
    out: Path
    look: Survey
    say: Say
    notes: list[str] = field(default_factory=list)
    loras: list[Path] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)  # a sentence for each damaged file
    configs: list[Settings] = field(default_factory=list)
    groups: tuple[TrainingGroup, ...] = ()

    def note(self, text: str) -> None:
        """Keep a sentence for the end, and say it."""
        self.notes.append(text)
        self.say(text)


def look_through(work: Work) -> None:
    """Sort the files: which are LoRAs, which are torn, what else lies there; read the configs.

    Raises
    ------
    BadInputError
        There is no LoRA.
    """
    look = work.look
    others = _find_loras(work)
    for kind, count in others.items():
        what = "of an unknown kind" if kind == "unknown" else kind
        work.note(f"Left out: {count} .safetensors {file_word(count)}, {what} and no LoRA.")
    pickled = pickled_loras(look.others)
    if pickled and work.loras:
        work.note(f"Left out: {passed_over(pickled, work.out)}")
    for path in look.runs:
        work.note(f"Left out: {printable(path)}, a run of lorascope's own.")
    for sentence in look.closed:
        work.note(sentence)
    if look.cut:
        work.note("The folder holds more files than were looked at; name a smaller one.")
    configs = (read_settings(path) for path in look.configs[:MOST_CONFIGS])
    work.configs = [settings for settings in configs if settings is not None]
    if not work.loras:
        raise BadInputError(_no_lora(work, others, pickled))
    work.groups = group_runs(work.loras, names=_names(work))


def file_word(count: int) -> str:
    """Give the noun that suits a number of files."""
    return "file" if count == 1 else "files"


def _find_loras(work: Work) -> Counter[str]:
    """Find the LoRAs, in backups where there are no saves; count what the others are."""
    others: Counter[str] = Counter()
    for path in track(work.look.weights, label="looking at files"):
        facts = facts_of(path)
        if facts.kind == LORA:
            work.loras.append(path)
        elif facts.kind == DAMAGED:
            damage = printable(facts.damage)
            if facts.unfinished or _just_begun(path):
                damage += (
                    " It may still be being written; the same command takes it once it is whole."
                )
            work.torn.append(damage)
            work.note(f"Left out: {damage}")
        else:
            others[facts.kind] += 1
    if not work.loras:
        kept = [path for path in work.look.backups if facts_of(path).kind == LORA]
        if kept:
            work.note(f"No saves, but {len(kept)} backups hold the LoRA; these were taken.")
        work.loras = kept
    return others


def _just_begun(path: Path) -> bool:
    """Tell whether a file is empty and was made a short time ago."""
    try:
        found = path.stat()
    except OSError:
        return False
    return found.st_size == 0 and abs(time.time() - found.st_mtime) < FRESH_S


def _no_lora(work: Work, others: Mapping[str, int], pickled: Sequence[Path]) -> str:
    """Say what a folder holds instead of a LoRA, and what it may be meant for."""
    look, shown = work.look, printable(work.folder)
    quoted = shlex.quote(str(work.folder))
    if look.empty:
        return f"{shown} is empty.\nFix: name the folder that your trainer saves to."
    if pickled:
        return f"{shown} holds {passed_over(pickled, work.out, join=FIX)}"
    if (work.folder / "model_index.json").is_file() or "a base model" in others:
        return (
            f"{shown} holds a base model and no LoRA.\n"
            "Fix: name the folder that your trainer saves to; a base model is added with "
            f"lorascope add base RUN {quoted}"
        )
    if work.torn:
        return (
            f"{shown} holds no LoRA that can be read. {work.torn[0]}\n"
            "Fix: copy or download the file again, or name another folder."
        )
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


def _names(work: Work) -> dict[Path, str]:
    """Name the files whose own names do not: OneTrainer's, by its prefix or its workspace."""
    names: dict[Path, str] = {}
    onetrainers = [one for one in work.configs if one.trainer == ONETRAINER]
    finals = {Path(save).name for one in onetrainers for save in one.saves}
    for path in work.loras:
        named = named_state(path)
        if named.trainer == ONETRAINER or path.name in finals:
            home = path.parent.parent if path.parent.name == "save" else work.folder
            own = named.name if named.trainer == ONETRAINER else ""
            names[path] = own or home.resolve().name
    return names
