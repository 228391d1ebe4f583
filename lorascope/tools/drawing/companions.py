"""Other LoRAs that are asked for by name, as in <lora:name:0.6>: found, never opened as a path."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.checkpoints import ENDING, Checkpoint
from lorascope.io.lora_facts import facts_of
from lorascope.io.lora_tags import LoraTag, split_lora_tags, write_lora_tag
from lorascope.run import digest
from lorascope.tools.drawing.cells import Applied

MOST_FILES = 20_000  # that a folder of LoRAs is searched through


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the tags of one text ask for."""

    text: str  # without the tags
    tags: str = ""  # the tags, as they are typed
    strength: float = 1.0  # factor on the strength of the run's own LoRA
    text_strength: float = 1.0
    companions: tuple[Applied, ...] = ()
    own: bool = False  # a tag names the run's own LoRA


def asked_of(text: str, own: Sequence[Checkpoint], folder: str) -> Asked:
    """Take the tags out of a text and find what they name.

    Parameters
    ----------
    text : str
        A prompt with or without ``<lora:name:weight>``.
    own : sequence of Checkpoint
        The run's own: a tag with the name of one of them, or of their training, stands for
        whichever of them is drawn, and multiplies its strength.
    folder : str
        Where other LoRAs lie; may be empty.

    Raises
    ------
    MissingInputError
        A name is not there.
    BadInputError
        A tag cannot be read, or two files have its name.
    """
    bare, tags = split_lora_tags(text)
    names = own_names(own)
    strength, text_strength, companions = 1.0, 1.0, []
    for tag in tags:
        if tag.rank is not None:
            raise BadInputError(
                f"{write_lora_tag(tag)} asks for a part of a DyLoRA, which is not supported.\n"
                "Fix: leave the last number away."
            )
        if tag.name.casefold() in names:
            strength, text_strength = strength * tag.strength, text_strength * tag.text_strength
        else:
            companions.append(
                Applied(
                    path=_file_named(tag.name, folder),
                    strength=tag.strength,
                    text_strength=tag.text_strength,
                )
            )
    return Asked(
        text=bare,
        tags=" ".join(write_lora_tag(tag) for tag in tags),
        strength=strength,
        text_strength=text_strength,
        companions=tuple(companions),
        own=len(companions) < len(tags),
    )


def own_names(own: Sequence[Checkpoint]) -> set[str]:
    """List what a run's LoRA is called: its files, and the name that its trainer gave it."""
    found = {checkpoint.path.stem.casefold() for checkpoint in own}
    return (found | {facts_of(checkpoint.path).name.casefold() for checkpoint in own}) - {""}


def named_digests(text: str, folder: str) -> Mapping[str, str]:
    """Hash the files of a folder that the tags of a text name; others may be the run's own."""
    if not folder:
        return {}
    _, tags = split_lora_tags(text)
    files = _files_of(Path(folder))
    return {
        f"lora {tag.name}": digest(files[tag.name.casefold()][0])
        for tag in tags
        if tag.name.casefold() in files
    }


def said(companions: Sequence[Applied]) -> str:
    """Name companions as they are typed, without what is not needed."""
    return " ".join(
        write_lora_tag(
            LoraTag(name=lora.path.stem, strength=lora.strength, text_strength=lora.text_strength)
        )
        for lora in companions
    )


def _file_named(name: str, folder: str) -> Path:
    if not folder:
        raise MissingInputError(
            f"<lora:{name}> names no checkpoint of this run, and no folder of other LoRAs is "
            "known.\nFix: --lora-dir FOLDER"
        )
    found = _files_of(Path(folder)).get(name.casefold(), ())
    if not found:
        raise MissingInputError(
            f"<lora:{name}>: {folder} has no {name}{ENDING}, and no file that was trained under "
            "that name.\nFix: name a file that lies there, without its ending."
        )
    if len(found) > 1:
        raise BadInputError(
            f"<lora:{name}> may be {found[0]} or {found[1]}.\nFix: rename one of them."
        )
    return found[0]


def _files_of(folder: Path) -> Mapping[str, tuple[Path, ...]]:
    if not folder.is_dir():
        raise MissingInputError(f"{folder} is no folder.\nFix: --lora-dir FOLDER")
    return _indexed(folder, folder.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _indexed(folder: Path, _mtime_ns: int) -> Mapping[str, tuple[Path, ...]]:
    """Find the files of a folder by name; where no file has it, by what their training was called.

    A file's own name counts first, as in the programs that know such tags.
    """
    files = sorted(folder.rglob(f"*{ENDING}"))[:MOST_FILES]
    by_stem: dict[str, tuple[Path, ...]] = {}
    by_training: dict[str, tuple[Path, ...]] = {}
    for file in files:
        stem, name = file.stem.casefold(), facts_of(file).name.casefold()
        by_stem[stem] = (*by_stem.get(stem, ()), file)
        if name:
            by_training[name] = (*by_training.get(name, ()), file)
    return by_training | by_stem
