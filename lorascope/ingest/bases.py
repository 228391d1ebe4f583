"""The base model that another trainer used: taken only where it is really there."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from lorascope.errors import BadInputError, LorascopeError
from lorascope.ingest.carry import Say
from lorascope.io.foreign.folder import places
from lorascope.io.lora_facts import facts_of
from lorascope.io.train_settings import LORASCOPE, made_by, settings
from lorascope.models import sources

MIB = 1 << 20
NOTICED = 200 * MIB  # hashing so much takes long enough to be said
WIDTHS = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL"}  # width of the text
VERSIONS = (("sdxl", 2048), ("sd_v2", 1024))
MARKS = (
    ("conditioner.embedders.1.model.", 2048),
    ("cond_stage_model.model.", 1024),
    ("cond_stage_model.transformer.", 768),
)


def find_base(
    folder: Path, names: Iterable[str], metadata: Mapping[str, str], say: Say
) -> tuple[str, str, str]:
    """Find the base model that a training's files name.

    Returns
    -------
    name, digest : str
        "" where it is not there.
    why : str
        What is known of it, or how sure it is.
    """
    known = settings(metadata)
    if known.base_model == sources.MINIATURE and made_by(metadata) == LORASCOPE:
        return sources.MINIATURE, sources.base_digest(sources.MINIATURE), "the embedded miniature"
    told = [name for name in dict.fromkeys([*names, known.base_model]) if name]
    for name in told:
        path = next((p for p in places(folder, name) if _is_there(p)), None)
        if path is None:
            continue
        try:
            sources.find(str(path))
            _say_size(path, say)
            digest = sources.base_digest(str(path))
        except LorascopeError as error:
            say(str(error).splitlines()[0])
            continue
        if known.base_sha256 and path.is_file() and known.base_sha256 != digest:
            return "", "", f"{path} has its name and is another model (its sha256 differs)"
        sure = "its sha256 agrees" if known.base_sha256 == digest else "by its name alone"
        return str(path.resolve()), digest, sure
    return "", "", f"trained on {told[0]}, which is not here" if told else "nothing names it"


def checked_base(name: str, lora: Path | None, say: Say) -> tuple[str, str]:
    """Check a base model that the user named, and hash it.

    Parameters
    ----------
    name : str
        A name, folder or file.
    lora : Path, optional
        A checkpoint that must fit.
    say : callable

    Returns
    -------
    name, digest : str
        A folder or file is given in full.

    Raises
    ------
    MissingInputError, BadInputError
        There is no such model, or the LoRA was made for another kind.
    """
    source = sources.find(name)
    here, needed = text_width(source), _needed_width(lora) if lora is not None else 0
    if here and needed and here != needed:
        raise BadInputError(
            f"{name} is {_kind(here)}, and the LoRA was made for {_kind(needed)} ({lora}).\n"
            "Fix: name the base model it was trained on."
        )
    _say_size(source.path, say)
    digest = sources.base_digest(name)
    local = Path(name).expanduser()
    return (str(local.resolve()) if local.exists() and name != sources.MINIATURE else name), digest


def text_width(source: sources.Source) -> int:
    """Give the width of the text a model reads, which tells its kind; 0 where it is not clear.

    Only configurations and the names of weights are looked at.
    """
    if source.kind is sources.Kind.FILE:
        keys = sources.file_keys(source.path)
        return next((width for mark, width in MARKS if any(k.startswith(mark) for k in keys)), 0)
    try:
        config = json.loads((source.path / "unet" / "config.json").read_text())
        return int(config["cross_attention_dim"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _needed_width(lora: Path) -> int:
    """Give the width that a LoRA was made for, by its shapes, else by what it says."""
    facts = facts_of(lora)
    stated = facts.version.lower()
    told = next((width for start, width in VERSIONS if stated.startswith(start)), 0)
    return facts.width or told


def _kind(width: int) -> str:
    return WIDTHS.get(width, f"a model that reads text {width} wide")


def _is_there(path: Path) -> bool:
    try:
        return path.is_file() or (path / "model_index.json").is_file()
    except OSError:
        return False


def _say_size(path: Path, say: Say) -> None:
    files = [path] if path.is_file() else list(path.glob("*/*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    if size > NOTICED:
        say(f"Hashing the base model {path} ({size / (1 << 30):.1f} GiB) ...")
