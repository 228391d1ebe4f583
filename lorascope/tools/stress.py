"""Stress: how strong can the LoRA be set before pictures spoil, and where does it work best?"""

import contextlib
import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.checkpoints import Checkpoint, usable_checkpoints
from lorascope.io.contact_sheet import shown_size
from lorascope.io.dataset_file import Dataset, DatasetImage, read_dataset
from lorascope.io.images import read_image
from lorascope.io.lora_file import read_lora
from lorascope.models.shots import SAMPLER_NAMES, UNIT, Shot
from lorascope.models.sources import MINIATURE
from lorascope.records import Inputs, Measured, Tool
from lorascope.tools.drawing import axes
from lorascope.tools.drawing.prompts import Prompt, choose_prompts
from lorascope.tools.pictures.features import encoder_digest
from lorascope.tools.strengths.sampled import drawn
from lorascope.tools.strengths.sheet import write_sheet
from lorascope.tools.strengths.tables import Told, of_drawn, of_guesses, together
from lorascope.tools.strengths.x0 import FEWEST, LATENTS, guesses, noised

if TYPE_CHECKING:
    from lorascope.models.base import Base

FORMS = ("x0", "sampled", "both")
GROUPS = ("trigger", "caption", "unseen")  # of the prompts that are drawn where none are named
SHEET, SECOND_SHEET = "stress.png", "stress-x0.png"
EXAMPLE = "0,0.5,1,1.5"
MOST_LATENTS = 64  # their guesses at every strength are in memory at once


def stress(
    inputs: Inputs,
    *,
    epochs: str = "",
    strengths: str = "0,0.25,0.5,0.75,1,1.25,1.5,2",
    form: str = "x0",
    latents: int = LATENTS,
    prompts: str = "",
    seeds: str = "1,2",
    steps: int = 20,
    guidance: float = 5.0,
    sampler: str = "dpm++2m",
    features: str = "base",
    seed: int = 0,
    batch: int = 16,
) -> Measured:
    """Turn the LoRA's strength up and see what becomes of the pictures.

    Parameters
    ----------
    inputs : Inputs
        Reads ``lora``, ``dataset`` and ``base``; fills ``samples`` and ``features``.
    epochs : str
        Which epochs, as in "6" or "4,6,8"; the last one where empty.
    strengths : str
        Strengths from 0; 0, the base model, is always among them.
    form : str
        x0 asks what the model takes noised images of the dataset for, in one forward each;
        sampled draws pictures, which costs ten times as much; both does both.
    latents : int
        Images that x0 asks about, held-out ones first.
    prompts : str
        What is drawn, with a bar between prompts; made from the dataset's tags where empty.
    seeds : str
        Seeds of the drawn pictures' noise.
    steps : int
        Sampling steps.
    guidance : float
        Guidance scale; 1 turns guidance off.
    sampler : str
        dpm++2m, ddim, euler or euler_a.
    features : str
        What drawn pictures are compared by, for their likeness: base, latents, or a network on
        this machine (dinov2, clip, dreamsim:FOLDER, sscd:FILE).
    seed : int
        Of the noise that x0 asks about.
    batch : int
        Latents or pictures at once.

    Returns
    -------
    Measured
        Tables ``curve`` (a row per epoch, form and strength), ``strengths`` (what the curve of
        each epoch and form comes to), ``cells`` (a row per drawn picture) and ``latents`` (a row
        per image, timestep and strength). Numbers of the last epoch that was asked, those of the
        x0 form with ``x0_`` before their names. ``samples/stress.png`` shows what was asked last.

    Raises
    ------
    BadInputError
        An option cannot be used, images cannot be read, or the LoRA does not fit.
    MissingInputError
        There is no checkpoint.

    Notes
    -----
    - artefact_z: as in the tool ``artefacts``, against strength 0 of the same noise and against
      the training images; 3 is a spoilt picture.
    - saturation: the smallest strength at which the median picture is spoilt, by straight lines
      between the strengths asked; headroom is what lies between it and strength 1.
    - likeness (sampled): 0 like the base model's pictures, 1 as near to images of the subject as
      the training images are to one another.
    - removed (x0): share of the base model's squared error on these images that is gone;
      break_even: the strength from which the LoRA predicts them worse than the base model does.
      Among LoRAs that are not burnt it follows the strength at which drawn pictures spoil better
      than the x0 form's own saturation does (``benchmarks/results/stress.json``).
    - half: where half of the gain at strength 1 is reached; slope: how fast the gain still rises
      from 1 to 1.5. The gain is the likeness, from its mean at strength 0 (0) to 1, or the
      removed share over its own highest mean.
    - best: where ``utility`` is highest: min(gain, 1), less (artefact_z - 1) / 2 where that is
      above 0. lost: how much lower it is at strength 1, where 1 is the worth of full likeness.
    - change, bend (x0): distance of the prediction from strength 0, over its own size; how far
      that leaves the straight line through strength 1, over the change expected on it.
    """
    from lorascope.models.base import shared_base

    _check(form, latents, batch, sampler)
    read = axes.read_all(
        {
            "strengths": lambda: _strengths(strengths),
            "seeds": lambda: axes.seeds(seeds),
            "steps": lambda: axes.steps(str(steps))[0],
            "guidance": lambda: axes.numbers("guidance", str(guidance), example="5", least=0.0)[0],
        }
    )
    asked = read.pop("strengths")
    dataset = read_dataset(inputs["dataset"])
    sound, left_out = usable_checkpoints(inputs["lora"])
    chosen = _chosen(sound, epochs)
    in_world = str(inputs["base"]) == MINIATURE
    found_prompts = choose_prompts(prompts, dataset, in_world=in_world)
    some = found_prompts if prompts.strip() else _few(found_prompts)
    _check_images(dataset, 1 if form == "sampled" else FEWEST, trained=form != "x0")
    base = shared_base(str(inputs["base"]))
    found = []
    if form != "x0":
        shots = _shots(base, dataset, some, sampler=sampler, **read)
        found.append(_sampled(base, dataset, chosen, shots, asked, inputs, features, batch))
    if form != "sampled":
        found.append(_by_x0(base, dataset, chosen, asked, latents, seed, batch))
    for name, told in zip((SHEET, SECOND_SHEET), found, strict=False):
        write_sheet(inputs["samples"] / name, told.sheet)
    measured = together(found)
    return dataclasses.replace(measured, caveats=(*left_out, *measured.caveats))


def _by_x0(
    base: "Base",
    dataset: Dataset,
    checkpoints: Sequence[Checkpoint],
    strengths: Sequence[float],
    latents: int,
    seed: int,
    batch: int,
) -> Told:
    """Ask every checkpoint about the same noised latents."""
    from lorascope.models.lora import Merger

    Merger(base).restore()
    asked, unread = noised(base, dataset, latents=latents, seed=seed)
    answers = [
        (c, guesses(base, read_lora(c.path), asked, strengths, batch=batch)) for c in checkpoints
    ]
    return of_guesses(asked, answers, unread)


def _sampled(
    base: "Base",
    dataset: Dataset,
    checkpoints: Sequence[Checkpoint],
    shots: Sequence[Shot],
    strengths: Sequence[float],
    inputs: Inputs,
    features: str,
    batch: int,
) -> Told:
    """Draw every checkpoint from the same prompts and noise."""
    count = len(strengths) * len(shots) * len(checkpoints)
    shown = shown_size(shots[0].width, shots[0].height, cells=count)
    answers, doubts = [], []
    for checkpoint in checkpoints:
        answer, said = drawn(
            base,
            dataset,
            checkpoint,
            shots,
            strengths,
            samples=inputs["samples"],
            features=inputs["features"],
            encoder=features,
            batch=batch,
            shown=shown,
        )
        answers.append((checkpoint, answer))
        doubts += said
    return of_drawn(inputs["samples"], answers, tuple(dict.fromkeys(doubts)))


def _strengths(text: str) -> tuple[float, ...]:
    asked = axes.numbers("strengths", text, example=EXAMPLE, least=0.0)
    if not any(strength > 0 for strength in asked):
        raise BadInputError(
            f"Strengths of {text!r} leave the LoRA out.\nFix: --strengths {EXAMPLE}"
        )
    return tuple(sorted({0.0, *asked}))


def _check(form: str, latents: int, batch: int, sampler: str) -> None:
    if form not in FORMS:
        raise BadInputError(f"{form!r} is no form of the test.\nFix: --form {' or '.join(FORMS)}")
    if not FEWEST <= latents <= MOST_LATENTS or batch < 1:
        raise BadInputError(
            f"latents must be from {FEWEST} to {MOST_LATENTS}, batch 1 or more.\nFix: --latents 6"
        )
    if sampler not in SAMPLER_NAMES:
        raise BadInputError(f"{sampler!r} is no sampler.\nFix: {', '.join(SAMPLER_NAMES)}.")


def _check_images(dataset: Dataset, wanted: int, *, trained: bool) -> None:
    """Look for what pictures are compared with, before anything is computed."""
    if trained and not _readable(dataset, dataset.train, 1):
        raise BadInputError("No training image can be read.\nFix: lorascope add dataset RUN FOLDER")
    if (count := _readable(dataset, dataset.images, wanted)) < wanted:
        raise BadInputError(
            f"The dataset has {count} image(s) that can be read, and {wanted} are needed.\n"
            "Fix: lorascope add dataset RUN FOLDER"
        )


def _readable(dataset: Dataset, images: Sequence[DatasetImage], wanted: int) -> int:
    """Count images that can be read, and stop where there are enough."""
    count = 0
    for image in images:
        with contextlib.suppress(BadInputError, MissingInputError):
            read_image(dataset.path(image))
            count += 1
        if count >= wanted:
            break
    return count


def _chosen(sound: Sequence[Checkpoint], epochs: str) -> list[Checkpoint]:
    saved = {checkpoint.epoch: checkpoint for checkpoint in sound}
    if not epochs.strip():
        return [sound[-1]]
    chosen = [saved[epoch] for epoch in axes.epochs(epochs, list(saved))]
    if not chosen:
        raise BadInputError(
            "Epoch 0 is the base model, which has no strength.\n"
            f"Fix: --epochs {axes.spans(list(saved)).replace(' ', '')}"
        )
    return chosen


def _shots(
    base: "Base",
    dataset: Dataset,
    prompts: Sequence[Prompt],
    *,
    seeds: Sequence[int],
    steps: int,
    guidance: float,
    sampler: str,
) -> list[Shot]:
    """Make prompts x seeds."""
    width, height = (round(side / UNIT) * UNIT or base.size for side in dataset.resolution)
    return [
        Shot(
            prompt=prompt.text,
            seed=one,
            width=width,
            height=height,
            steps=steps,
            guidance=guidance,
            sampler=sampler,
        )
        for prompt, one in itertools.product(prompts, seeds)
    ]


def _few(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Take one of each group of the prompts that were made from the dataset."""
    firsts = [next((p for p in prompts if p.group == group), None) for group in GROUPS]
    return [prompt for prompt in firsts if prompt is not None] or list(prompts[: len(GROUPS)])


def _is_there(inputs: Inputs, _measured: Measured) -> bool:
    return (inputs["samples"] / SHEET).is_file()


STRESS = Tool(
    name="stress",
    asks="How strong can it be set before pictures spoil?",
    reads=("lora", "dataset", "base"),
    writes=("samples", "features"),
    measure=stress,
    named=encoder_digest,
    holds=_is_there,
)
