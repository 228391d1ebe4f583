"""Weights: what the numbers in the files alone give away."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from lorascope.errors import BadInputError, LorascopeError, MissingInputError
from lorascope.io.checkpoints import (
    Checkpoint,
    group_runs,
    list_checkpoints,
    readable_checkpoints,
    unplaced,
)
from lorascope.io.train_metadata import settings
from lorascope.progress import track
from lorascope.records import Inputs, Measured, Measurement, Row, Tool
from lorascope.tools.files import against_base
from lorascope.tools.files.against_base import BaseWeights
from lorascope.tools.files.checkpoint_facts import (
    PLAIN,
    Looked,
    at_cap_share,
    block_of,
    encoder_of,
    look,
    module_rows,
    part_of,
)
from lorascope.tools.files.file_facts import about_file, differing_keys
from lorascope.tools.files.growth import Journey

__all__ = ["WEIGHTS", "block_of", "look_at_files", "part_of", "weights"]

FAR_OUT = 6.0  # robust z above which a module is named as an outlier; design value


def weights(inputs: Inputs, *, relative: bool = False) -> Measured:
    """Measure size, used rank, growth and soundness of every saved checkpoint.

    Parameters
    ----------
    inputs : Inputs
        Reads ``lora``; ``base`` where relative sizes are asked for.
    relative : bool
        Compare with the base model's own weights, which have to be loaded for it: takes minutes.

    Returns
    -------
    Measured
        Tables: ``epochs``, a row per checkpoint; ``modules``, ``blocks`` and ``encoders`` of the
        last one; ``growth``, a row per checkpoint and block; ``module_epochs``, a row per
        checkpoint and module; ``metadata``, ``words`` and ``hashes`` of the last one;
        ``relative``, its modules against the base model; ``broken``, a row per file that cannot be
        opened. Norms are Frobenius norms of the update; ranks are in directions.

    Raises
    ------
    MissingInputError
        There is no checkpoint; or relative sizes are asked for and no base model is known.
    BadInputError
        The LoRA was not made for the base model.
    """
    if relative and not inputs.get("base"):
        raise MissingInputError(
            "Relative sizes need the base model, and the run names none.\n"
            "Fix: lorascope add base RUN PATH"
        )
    checkpoints, torn = readable_checkpoints(inputs["lora"])
    base = against_base.open_base(str(inputs["base"])) if relative and checkpoints else None
    broken = dict(torn)
    journey, against = _travel(checkpoints, broken, base)
    if not journey.rows:
        return Measured(numbers=(), tables={"epochs": [], "broken": _torn_rows(broken)})
    tables = _tables(journey, against)
    tables |= about_file(journey.last.lora.path, journey.last.lora.metadata)
    return Measured(
        numbers=_numbers(journey, against),
        tables=tables | {"broken": _torn_rows(broken)},
        caveats=(*_caveats(journey, against), *filter(None, [unplaced(inputs["lora"])])),
    )


def look_at_files(paths: Sequence[Path]) -> Measured:
    """Look at LoRA files that belong to no run.

    Parameters
    ----------
    paths : sequence of Path
        Files, in the order in which they are to be followed; or one folder of them.

    Returns
    -------
    Measured
        As `weights` gives it; ``metadata``, ``words`` and ``hashes`` of every file; of two or more
        files also ``differences``: the keys of the metadata on which they do not all agree, a row
        per key and file.

    Raises
    ------
    MissingInputError
        There is no such file.
    BadInputError
        None of them can be opened; the first one's reason.
    """
    checkpoints = _as_checkpoints([Path(path) for path in paths])
    broken: dict[Checkpoint, str] = {}
    kept: list[tuple[Path, Mapping[str, str]]] = []
    strangers = len(group_runs(c.path for c in checkpoints)) > 1
    journey, _ = _travel(checkpoints, broken, None, kept=kept, strangers=strangers)
    if not journey.rows:
        first = next(iter(broken.values()), "There is no file to look at.")
        raise BadInputError(f"{first}\nFix: name a LoRA's .safetensors file, or a folder of them.")
    tables = _tables(journey, None)
    files = [about_file(path, metadata) for path, metadata in kept]
    tables |= {name: [row for one in files for row in one[name]] for name in files[0]}
    if len(kept) > 1:
        tables["differences"] = differing_keys(kept)
    caveats = _caveats(journey, None)
    if strangers:
        caveats += (
            "The files are not of one training: each was looked at by itself, and their sizes do "
            "not compare.",
        )
    elif len(kept) > 1:
        caveats += ("The files were followed in the order given, as saved states of one training.",)
    return Measured(
        numbers=_numbers(journey, None),
        tables=tables | {"broken": _torn_rows(broken)},
        caveats=caveats,
    )


def _as_checkpoints(paths: Sequence[Path]) -> list[Checkpoint]:
    """Order a folder by its epochs, and files as they were given."""
    if len(paths) == 1 and paths[0].is_dir():
        found = list_checkpoints(paths[0])
        if not found:
            raise MissingInputError(
                f"{paths[0]} has no LoRA (.safetensors).\nFix: name a LoRA's file or its folder."
            )
        return found
    for path in paths:
        if not path.is_file():
            what = "is a folder among files" if path.is_dir() else "does not exist"
            raise MissingInputError(
                f"{path} {what}.\nFix: name LoRA files, or one folder of them, or a run."
            )
    steps = [next((c.step for c in list_checkpoints(path)), 0) for path in paths]
    rising = all(0 < one < two for one, two in pairwise(steps))
    return [
        Checkpoint(path, place, step if rising else 0)
        for place, (path, step) in enumerate(zip(paths, steps, strict=True), start=1)
    ]


def _travel(
    checkpoints: Sequence[Checkpoint],
    broken: dict[Checkpoint, str],
    base: BaseWeights | None,
    *,
    kept: list[tuple[Path, Mapping[str, str]]] | None = None,
    strangers: bool = False,
) -> tuple[Journey, list[Row] | None]:
    """Follow the checkpoints; a file that cannot be read joins the broken ones."""
    journey = Journey(strangers=strangers)
    for checkpoint in track(checkpoints, label="weights"):
        try:
            looked = look(checkpoint.path, checkpoint.epoch, checkpoint.step)
        except LorascopeError as error:
            broken[checkpoint] = str(error).splitlines()[0]
            continue
        journey.go_on(looked)
        if kept is not None:
            kept.append((checkpoint.path, looked.lora.metadata))
        if base is not None:
            journey.rows[-1] |= against_base.epoch_cells(looked, base)
    against = None
    if base is not None and journey.rows:
        against = against_base.module_table(journey.last, base)
    return journey, against


def _tables(journey: Journey, against: list[Row] | None) -> dict[str, list[Row]]:
    last = journey.last
    tables: dict[str, list[Row]] = {
        "epochs": list(journey.rows),
        "modules": module_rows(last),
        "blocks": _sums(last, ("block", "part")),
        "encoders": _sums(last, ("encoder",)),
        "growth": journey.growth,
        "module_epochs": journey.modules,
    }
    return tables | ({"relative": against} if against is not None else {})


def _sums(last: Looked, by: Sequence[str]) -> list[Row]:
    """Sum the squared norm of one checkpoint up by stage, part or model."""
    places = {"block": block_of, "part": part_of, "encoder": encoder_of}
    total = last.square
    sums: dict[tuple[str, ...], list[float]] = {}
    for name, one in last.facts.items():
        sums.setdefault(tuple(places[key](name) for key in by), []).append(one.square)
    return [
        {
            "epoch": last.epoch,
            **dict(zip(by, names, strict=True)),
            "modules": len(squares),
            "norm": math.sqrt(sum(squares)),
            "share": sum(squares) / total if total else None,
        }
        for names, squares in sums.items()
    ]


def _torn_rows(broken: Mapping[Checkpoint, str]) -> list[Row]:
    return [{"epoch": c.epoch, "file": c.path.name, "why": why} for c, why in broken.items()]


def _numbers(journey: Journey, against: list[Row] | None) -> tuple[Measurement, ...]:
    """Sum up the last checkpoint and the way there; what was not measured is left out."""
    rows, last = journey.rows, journey.last
    end = rows[-1]
    modules = len(last.lora.modules)
    same = sum(bool(row["identical_to_previous"]) for row in rows)
    trained = sum(one.square > 0 for one in last.facts.values())
    cosines = [v for r in rows if isinstance(v := r["update_cosine"], float)]
    trainer = settings(last.lora.metadata)
    found: list[tuple[str, Any, str, int]] = [
        ("checkpoints", len(rows), "files", len(rows)),
        ("modules", modules, "modules", modules),
        ("norm", end["norm"], "1", modules),
        ("largest_norm", end["largest_norm"], "1", modules),
        ("spectral_norm", end["spectral_norm"], "1", trained),
        ("effective_rank", end["effective_rank"], "directions", trained),
        ("energy_rank", end["energy_rank"], "directions", trained),
        ("stable_rank", end["stable_rank"], "directions", trained),
        ("top_share", end["top_share"], "1", trained),
        ("rank", end["rank"], "directions", modules),
        ("nan_modules", end["nan_modules"], "modules", modules),
        ("dead_modules", end["dead_modules"], "modules", modules),
        ("outlier_modules", _far_out(last), "modules", trained),
        ("zero_share", end["zero_share"], "1", modules),
        ("subnormal_share", end["subnormal_share"], "1", modules),
        ("underflow_share", end["underflow_share"], "1", modules),
        ("text_encoder_share", end["text_encoder_share"], "1", modules),
        ("update_cosine", _mean(cosines), "cosine", len(cosines)),
        ("growth", end["growth"], "1", modules),
        ("late_slope", journey.late_slope, "1", len(rows)),
        ("path_efficiency", journey.efficiency, "1", len(rows)),
        ("identical_files", same, "files", len(rows)),
        ("max_norm", last.max_norm, "1", trained),
        ("at_cap_share", at_cap_share(last), "1", trained),
        ("unet_lr", trainer.unet_lr, "1", 1),
        ("text_lr", trainer.text_lr, "1", 1),
        ("relative_norm", end.get("relative_norm"), "1", len(against or ())),
        ("base_cosine", end.get("base_cosine"), "cosine", len(against or ())),
        *_intruder_numbers(against),
    ]
    return tuple(
        Measurement(name=name, value=float(value), unit=unit, n=n)
        for name, value, unit, n in found
        if value is not None and math.isfinite(value)
    )


def _intruder_numbers(against: list[Row] | None) -> list[tuple[str, Any, str, int]]:
    """Mean number of new directions among the ten strongest, at each epsilon."""
    found: list[tuple[str, Any, str, int]] = []
    for key in ("intruders_3", "intruders_5", "intruders_7"):
        counts = [v for row in against or () if isinstance(v := row[key], int)]
        found.append((key, _mean(counts), "directions", len(counts)))
    return found


def _far_out(last: Looked) -> int:
    return sum(z > FAR_OUT for z in last.outliers.values())


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _caveats(journey: Journey, against: list[Row] | None) -> tuple[str, ...]:
    last = journey.last
    caveats = [
        "Weights alone can show that a LoRA is broken, dead or blown up, not that it is good; "
        "sizes compare within one run only."
    ]
    if len(journey.rows) == 1:
        caveats.append("There is one checkpoint: how the weights moved was not measured.")
    if any(row["nan_modules"] for row in journey.rows):
        caveats.append("Modules with NaN or infinity are left out of every sum.")
    kinds = {module.kind for module in last.lora.modules.values()}
    if "DoRA" in kinds:
        caveats.append(
            "DoRA: the low-rank part alone was measured; what its magnitudes change depends on "
            "the base model."
        )
    if kinds - set(PLAIN):
        caveats.append(
            f"{', '.join(sorted(kinds - set(PLAIN)))}: the stored numbers are not the update's "
            "factors, so that zeros and small numbers were not counted there."
        )
    if last.lora.bound:
        some = sorted({module.kind for module in last.lora.bound.values()})
        caveats.append(
            f"{len(last.lora.bound)} modules ({', '.join(some)}) change the base model's weight by "
            "rule, not by a sum: they are listed without a size."
        )
    if last.lora.unsupported:
        caveats.append(
            f"{len(last.lora.unsupported)} entries of {last.file} could not be read and were "
            f"passed over, {last.lora.unsupported[0]} for one."
        )
    if last.max_norm and settings(last.lora.metadata).max_norm is None:
        caveats.append("The cap on the norms was not written down; it was found from the norms.")
    if against is not None:
        caveats.append(
            "New directions (intruders) were counted in the modules that changed most; that they "
            "matter was shown for language models only."
        )
    return tuple(caveats)


WEIGHTS = Tool(
    name="weights",
    asks="Are the LoRA's weights sound, and how did they grow?",
    reads=("lora",),
    may_read=("base",),
    measure=weights,
    version=2,
)
