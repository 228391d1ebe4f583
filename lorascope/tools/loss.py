"""Loss: how well every saved checkpoint predicts images it never saw, without luck."""

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import BadInputError, LorascopeError, MissingInputError
from lorascope.io.checkpoints import Checkpoint, usable_checkpoints
from lorascope.io.dataset_file import read_dataset
from lorascope.io.lora_file import read_lora
from lorascope.progress import announce, duration, track
from lorascope.records import Inputs, Measured, Tool
from lorascope.tools.drawing.prompts import without_trigger
from lorascope.tools.held_out.asked_images import Plan, choose
from lorascope.tools.held_out.losses import KEPT, Answers, sum_up
from lorascope.tools.held_out.questions import SAME_ANSWER, Asker, Questions, Shelf, stratified
from lorascope.tools.logs.logged import describe_logs

if TYPE_CHECKING:
    from lorascope.models.base import Base

Array = NDArray[Any]

VERSION = 2
MOST_STRATA = 1000  # timesteps of every published Stable Diffusion
SNR_LIMIT = 5.0  # gamma of min-SNR weighting; Hang et al., ICCV 2023


def loss(
    inputs: Inputs,
    *,
    strata: int = 10,
    draws: int = 2,
    images: int = 0,
    train_images: int = 16,
    kept: int = 8,
    seed: int = 0,
    dtype: str = "fp32",
    batch: int = 0,
) -> Measured:
    """Measure the loss of every saved checkpoint on held-out images, on fixed noise and timesteps.

    Parameters
    ----------
    inputs : Inputs
        Reads ``lora``. With ``dataset`` and ``base`` it measures; with ``log`` or ``events`` it
        describes what the training logged. ``losses``, a folder, keeps the answers of single
        checkpoints, so that only new ones are asked.
    strata : int
        Timesteps, one from each of so many equal parts of the noise schedule.
    draws : int
        Noises for each image and timestep.
    images : int
        Held-out images to measure; 0 for all that are held out.
    train_images : int
        Training images to measure; 0 for all.
    kept : int
        Pictures that the base model draws of prompts without the trigger, to see what it keeps.
    seed : int
        Of noise and timesteps.
    dtype : str
        What is computed in: fp32, fp16, bf16 or auto. A coarser one is faster and blurs small
        differences between epochs.
    batch : int
        Latents predicted at once; 0 chooses by their size. Has no influence beyond rounding.

    Returns
    -------
    Measured
        Values are mean log-ratios to the loss of the base model: 0 is the base model (epoch 0),
        below 0 is better. Tables: ``epochs``; ``turns``, a row for each of the three sets that
        are kept apart (held-out images, held-out compositions, prompts without the trigger);
        ``images``, ``trajectories``, ``bands``, ``leaks``; ``memory`` where nothing is held out;
        what the log gives. Arrays: ``losses`` (checkpoint, item, stratum, draw), base model
        first, items as in the first rows of ``images``; ``timesteps`` (stratum,).

    Raises
    ------
    MissingInputError
        There is no checkpoint; or neither a log nor a dataset and a base model.
    BadInputError
        An option makes no sense, or the LoRA does not fit the base model.

    Notes
    -----
    The mean over an image's timesteps and noises of ``log(loss / loss of the base model)``: every
    timestep weighs alike, and noise is shared by all checkpoints, so that it cancels. Latents are
    the VAE's posterior mean, captions are used as they are. In bf16 merged weights and predictions
    are rounded, which moves epochs by more than what often lies between neighbours: compare epochs
    in one ``dtype`` only.
    """
    if min(strata, draws) < 1 or min(images, train_images, kept, batch) < 0:
        raise BadInputError("strata and draws must be 1 or more, the other numbers 0 or more.")
    if strata > MOST_STRATA:
        raise BadInputError(f"strata must be at most {MOST_STRATA}: there are no more timesteps.")
    checkpoints, left_out = usable_checkpoints(inputs["lora"])
    logged = describe_logs(inputs, checkpoints)
    if lacking := [role for role in ("dataset", "base") if role not in inputs]:
        return _log_only(inputs, logged, left_out, lacking)
    dataset = read_dataset(inputs["dataset"])
    from lorascope.models.base import load_base

    base = load_base(str(inputs["base"]), dtype=dtype)
    chosen = choose(dataset, images, train_images)
    prompts = without_trigger(dataset, kept, in_world=base.name == "miniature")
    plan = Plan(dataset=dataset, chosen=chosen, prompts=prompts, seed=seed)
    told = (VERSION, base.name, dtype, strata, draws, seed, *plan.told)
    asked, skipped = _ask(
        base,
        plan,
        checkpoints,
        Shelf(inputs.get("losses"), *told),
        timesteps=stratified(int(base.noise.config.num_train_timesteps), strata, seed),
        draws=draws,
        batch=batch,
    )
    found = sum_up(asked, leaked=len(chosen.leaks))
    return Measured(
        numbers=(*found.numbers, *logged.numbers),
        tables={**found.tables, "leaks": chosen.leaks, **logged.tables},
        arrays=found.arrays,
        caveats=(*left_out, *chosen.unread, *skipped, *found.caveats, *logged.caveats),
    )


def _log_only(
    inputs: Inputs, logged: Measured, left_out: Sequence[str], lacking: Sequence[str]
) -> Measured:
    """Give what the log alone tells."""
    if not logged.tables:
        run = inputs["lora"].parent
        fix = "\n".join(f"Fix: lorascope add {role} {run} PATH" for role in (*lacking, "logs"))
        raise MissingInputError(
            f"{run} has no {' and no '.join(lacking)} to measure the loss on, and no log.\n{fix}"
        )
    why = (
        f"The held-out loss was not measured: the run has no {' and no '.join(lacking)}. A log "
        "alone never tells which epoch is best."
    )
    return Measured(
        numbers=logged.numbers, tables=logged.tables, caveats=(*left_out, why, *logged.caveats)
    )


def _ask(
    base: "Base",
    plan: Plan,
    checkpoints: Sequence[Checkpoint],
    shelf: Shelf,
    *,
    timesteps: Array,
    draws: int,
    batch: int,
) -> tuple[Answers, list[str]]:
    """Let the base model and every checkpoint predict the same noise.

    Returns
    -------
    answers : Answers
        Of the checkpoints that could be asked.
    skipped : list of str
        A sentence for each that could not.
    """
    from lorascope.models.lora import Merger

    merger = Merger(base)
    merger.restore()
    asker, own, seconds = _of_base(base, plan, shelf, timesteps, draws, batch)
    known, digests = _known(checkpoints, shelf, own)
    new = [c for c in checkpoints if c not in known]
    _say_cost(asker, len(checkpoints), len(new), seconds)
    refused: dict[Checkpoint, LorascopeError] = {}
    answers: list[Array] = []
    text = False
    try:
        for checkpoint, b in track(
            [(c, b) for c in new for b in range(len(asker.batches))], label="loss"
        ):
            if b == 0:
                try:
                    lora = read_lora(checkpoint.path)
                    merger.apply(lora)
                except LorascopeError as error:  # one that does not fit does not hide the others
                    refused[checkpoint] = error
                    continue
                adapted = (*lora.modules, *lora.bound)
                text = any(not name.startswith("lora_unet_") for name in adapted)
                answers = []
            if checkpoint in refused:
                continue
            answers.append(asker.losses(b, own_text=text))
            if b == len(asker.batches) - 1:
                known[checkpoint] = asker.together(answers)
                if checkpoint in digests:
                    shelf.keep(digests[checkpoint], own, known[checkpoint])
    finally:
        merger.restore()
    if refused and not known:
        raise next(iter(refused.values()))
    asked = _answers(base, asker, own, {c: known[c] for c in checkpoints if c in known})
    return asked, [
        f"Epoch {c.epoch} was left out: {str(why).splitlines()[0]}" for c, why in refused.items()
    ]


def _known(
    checkpoints: Sequence[Checkpoint], shelf: Shelf, own: Array
) -> tuple[dict[Checkpoint, Array], dict[Checkpoint, str]]:
    """Find the checkpoints that were asked before, and hash the bytes of all."""
    digests: dict[Checkpoint, str] = {}
    for checkpoint in checkpoints:
        with contextlib.suppress(OSError):  # it is gone; to read it says so
            digests[checkpoint] = _digest(checkpoint.path)
    found = {c: shelf.checkpoint(digest, own) for c, digest in digests.items()}
    return {c: losses for c, losses in found.items() if losses is not None}, digests


def _answers(base: "Base", asker: Asker, own: Array, known: Mapping[Checkpoint, Array]) -> Answers:
    """Put together what everybody answered."""
    questions, steps = asker.questions, int(base.noise.config.num_train_timesteps)
    ratio = base.noise.alphas_cumprod.double().cpu().numpy()[questions.timesteps]
    snr = ratio / (1 - ratio)
    v = base.prediction_type == "v_prediction"
    return Answers(
        checkpoints=(Checkpoint(Path(), 0, 0), *known),
        kinds=np.array([item.kind for item in questions.items], dtype=object),
        names=tuple(item.name for item in questions.items),
        losses=np.stack([own, *known.values()]),
        timesteps=questions.timesteps,
        share=questions.timesteps / steps,
        weights=np.minimum(snr, SNR_LIMIT) / (snr + 1 if v else snr),
        forwards=(1 + len(known)) * asker.forwards(),
    )


def _of_base(
    base: "Base", plan: Plan, shelf: Shelf, timesteps: Array, draws: int, batch: int
) -> tuple[Asker, Array, float]:
    """Ask the plain base model, or find its answers; and say how long one model takes, in s.

    Kept answers are believed when the first batch, asked again, agrees with them. When it does
    not, another model stands under this name: what it drew is drawn anew as well.
    """
    stored = shelf.base_answers()
    for drawn in dict.fromkeys((bool(stored), False)):
        latents = stored.get("kept") if drawn else None
        items = plan.items(base, latents)
        questions = Questions(items=items, timesteps=timesteps, draws=draws, seed=plan.seed)
        asker = Asker(base, questions, batch)
        first, seconds = asker.first()
        losses = stored.get("losses") if drawn else None
        if losses is not None and losses.shape == questions.shape:
            again = losses.reshape(-1)[asker.batches[0].places]
            if np.allclose(np.log(again), np.log(first), atol=SAME_ANSWER, rtol=0):
                return asker, losses, seconds
    rest = [
        asker.losses(number, own_text=False)
        for number in track(range(1, len(asker.batches)), label="loss of the base model")
    ]
    own = asker.together([first, *rest])
    kept = [item.latent.numpy() for item in asker.questions.items if item.kind == KEPT]
    shelf.keep_base({"losses": own} | ({"kept": np.stack(kept)} if kept else {}))
    return asker, own, seconds


def _say_cost(asker: Asker, checkpoints: int, new: int, seconds: float) -> None:
    """Say what is about to be done, before it is done."""
    items, strata, draws = asker.questions.shape
    known = "" if new == checkpoints else f" ({checkpoints - new} known already)"
    announce(
        f"loss: {checkpoints} checkpoints{known} x {items} pictures x {strata} timesteps x "
        f"{draws} noises: {new * asker.forwards():,} forwards, about {duration(new * seconds)}"
    )


def _digest(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


LOSS = Tool(
    name="loss",
    asks="Which checkpoint predicts unseen images best?",
    reads=("lora",),
    may_read=("dataset", "base", "log", "events"),
    writes=("losses",),
    measure=loss,
    version=VERSION,
)
