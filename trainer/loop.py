"""The training itself: one visible loop, and the run directory that it leaves behind."""

import contextlib
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from lorascope import storage
from lorascope.errors import BadInputError, MissingInputError, WeightError
from lorascope.io.dataset_file import Dataset, Split, read_dataset, write_dataset
from lorascope.io.folders import scan_training_folder
from lorascope.io.lora_file import write_lora
from lorascope.io.train_log import LogRow, LogWriter
from lorascope.models.base import Base, Conditioning, base_digest, load_base
from lorascope.models.prompts import chunk_count
from lorascope.progress import track
from lorascope.records import finite, seed_from
from lorascope.run import Run
from trainer.config import TrainConfig, differences, read_config, write_config
from trainer.data import Batch, Prepared, captions, collect, epoch_batches, prepare, warn
from trainer.network import Network, add_network, metadata

STATE = "state.pt"  # in the run's state folder
TINY_SNR = 1e-8  # keeps the weight of a timestep that is pure noise finite
TEXTS_AT_ONCE = 16  # captions

OnEpoch = Callable[[int, Path], object]  # epoch, its checkpoint


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """Everything that one training works with."""

    config: TrainConfig
    run: Run
    base: Base
    dataset: Dataset
    images: Sequence[Prepared]
    network: Network
    optimizer: torch.optim.Optimizer

    @property
    def epoch_steps(self) -> int:
        """How many steps an epoch has; each has as many."""
        return len(self.batches(1))

    def batches(self, epoch: int) -> list[Batch]:
        """Give the batches of one epoch, in order."""
        return epoch_batches(self.images, self.config.batch_size, self.config.seed, epoch)

    def checkpoint(self, epoch: int) -> Path:
        """Where the checkpoint of an epoch belongs."""
        return _checkpoint(self.run, self.config, epoch)


@dataclass(kw_only=True)
class Done:
    """How far a training has come, as far as it is saved."""

    epoch: int = 0
    step: int = 0


def train(config: TrainConfig, out: Path, *, on_epoch: OnEpoch | None = None) -> Run:
    """Train a LoRA and write a run directory.

    The same call again goes on after the last saved epoch, and ends with the same bytes as a
    training that was never stopped; a finished one is left as it is.

    Parameters
    ----------
    config : TrainConfig
        Every setting.
    out : Path
        The run directory; new, empty, or one that was begun with the same settings.
    on_epoch : callable, optional
        Called after each saved epoch with its number and its checkpoint.

    Returns
    -------
    Run

    Raises
    ------
    MissingInputError, BadInputError
        The dataset, the base model or the run directory cannot be used.
    WeightError
        The loss stopped being a number. The epochs saved before are kept.
    StorageError
        The disk is full or may not be written. The epochs saved before are kept.
    """
    scan_training_folder(Path(config.dataset))  # refuse the cheap way, before the base is loaded
    config = replace(config, name=config.name or out.resolve().name)
    base = load_base(config.base)
    side = config.resolution or base.size
    dataset = collect(config, (side, side), known=_known_split(out))
    digest = base_digest(config.base)
    run = Run.create(out, base=config.base, base_digest=digest, dataset=config.dataset)
    _refuse_another_training(run, config, dataset)
    if _checkpoint(run, config, config.epochs).exists():
        warn(f"{run.path} is trained already: all {config.epochs} epochs are there.")
        return run
    images = prepare(base, dataset)
    network = add_network(base, config)
    groups = network.groups(config.unet_lr, config.text_lr)
    job = Job(
        config=config,
        run=run,
        base=base,
        dataset=dataset,
        images=images,
        network=network,
        optimizer=torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True),
    )
    done = _restore(job)
    if not done.epoch:
        _begin(job)
    try:
        _train(job, done, on_epoch)
    except OSError as error:
        raise storage.storage_error(run.path, error) from error
    _state(run).unlink(missing_ok=True)
    return run


def _train(job: Job, done: Done, on_epoch: OnEpoch | None) -> None:
    """Do the epochs that are left."""
    config, optimizer = job.config, job.optimizer
    texts = Texts(config, job.base, job.images)
    total = config.epochs * job.epoch_steps
    steps = track(range(done.step + 1, total + 1), label="training")
    with (
        _explained(job, done),
        LogWriter(job.run.place("log"), after=done.step) as log,
        contextlib.closing(_board(job.run, done)) as board,
    ):
        for epoch in range(done.epoch + 1, config.epochs + 1):
            losses = []
            for batch, step in zip(job.batches(epoch), steps, strict=False):
                lrs = set_learning_rates(optimizer, config, step, total)
                loss = batch_loss(job, batch, texts, step)
                loss.backward()
                length = clip(job.network, config.max_grad_norm)
                losses.append(loss.item())
                if not math.isfinite(losses[-1]) or not math.isfinite(length):
                    raise _not_a_number(job, done, f"step {step} (epoch {epoch})")
                optimizer.step()
                optimizer.zero_grad()
                log.add(LogRow(step=step, epoch=epoch, loss=losses[-1], **lrs))
                _show(board, step, losses[-1], lrs)
            mean = sum(losses) / len(losses)
            board.add_scalar("loss/average", mean, step)
            warn(f"epoch {epoch}/{config.epochs}: loss {mean:.4f}")
            if epoch % config.save_every_epochs == 0 or epoch == config.epochs:
                _save(job, done, epoch, step)
                board.flush()
                if on_epoch is not None:
                    on_epoch(epoch, job.checkpoint(epoch))
        next(steps, None)  # lets the progress say its last line


def batch_loss(job: Job, batch: Batch, texts: "Texts", step: int) -> torch.Tensor:
    """Compute the loss of one step.

    The squared error of the prediction, averaged over channels, height and width; weighted by
    min-SNR; averaged over the batch. Noise and timesteps depend on the seed and the step alone.

    Returns
    -------
    () tensor
        With its gradient graph.
    """
    config, base = job.config, job.base
    members = [job.images[m] for m in batch.members]
    latents = torch.stack([one.latent for one in members]).to(base.device)
    noise = torch.randn(latents.shape, generator=_draw(config, "noise", step)).to(base.device)
    drawn = torch.randint(
        0,
        len(base.noise.alphas_cumprod),
        (len(members),),
        generator=_draw(config, "timesteps", step),
    )
    timesteps = drawn.to(base.device)
    noisy = base.add_noise(latents, noise, timesteps)
    cond = texts.encode(captions(config, [one.image for one in members], step))
    predicted = base.predict(noisy, timesteps, cond, size=batch.size)
    target = base.target(latents, noise, timesteps)
    errors = (predicted - target).square().mean(dim=(1, 2, 3))
    return (errors * snr_weights(base, timesteps, config.min_snr_gamma)).mean()


def snr_weights(base: Base, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
    """Weigh timesteps by their signal-to-noise ratio.

    Returns
    -------
    (N,) tensor
        ``min(SNR, gamma) / SNR`` for epsilon, ``min(SNR, gamma) / (SNR + 1)`` for v; 1 where gamma
        is 0.

    Notes
    -----
    Source: Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", ICCV 2023.
    """
    if not gamma:
        return torch.ones(len(timesteps), device=timesteps.device)
    kept = base.noise.alphas_cumprod.to(timesteps.device)[timesteps].float()
    snr = (kept / (1 - kept)).clamp(min=TINY_SNR)
    below = snr + 1 if base.prediction_type == "v_prediction" else snr
    return snr.clamp(max=gamma) / below


def set_learning_rates(
    optimizer: torch.optim.Optimizer, config: TrainConfig, step: int, total: int
) -> dict[str, float]:
    """Set the learning rates of one step.

    Returns
    -------
    dict
        ``lr_unet`` and ``lr_text``; 0 for what is not trained.
    """
    factor = lr_factor(config.scheduler, config.warmup_steps, step, total)
    lrs = {"lr_unet": 0.0, "lr_text": 0.0}
    for group in optimizer.param_groups:
        lrs[f"lr_{group['part']}"] = group["lr"] = group["full_lr"] * factor
    return lrs


def lr_factor(scheduler: str, warmup_steps: int, step: int, total: int) -> float:
    """Give the share of the full learning rate at a step.

    Parameters
    ----------
    scheduler : str
        ``cosine`` falls to 0 just after the last step; ``constant`` stays.
    warmup_steps : int
        Rises in equal parts; its last step has the full rate.
    step : int
        From 1.
    total : int
        The last step.
    """
    if step <= warmup_steps:
        return step / warmup_steps
    if scheduler == "constant":
        return 1.0
    passed = (step - 1 - warmup_steps) / max(1, total - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, passed)))


def clip(network: Network, max_norm: float) -> float:
    """Shorten the gradient to a length; 0 only measures it.

    Returns
    -------
    float
        The length before.
    """
    weights = network.weights().values()
    return float(torch.nn.utils.clip_grad_norm_(weights, max_norm or math.inf))


class Texts:
    """Encodes captions: all of them beforehand where they never change, else step by step.

    Either way the result depends on the captions alone, never on what was asked before.
    """

    def __init__(self, config: TrainConfig, base: Base, images: Sequence[Prepared]) -> None:
        self._config, self._base = config, base
        self._places: dict[str, int] = {}
        self._stored: Conditioning | None = None
        if config.text_lr or config.shuffle_tags:
            return
        distinct = sorted({one.image.caption for one in images} | {""})
        self._places = {caption: place for place, caption in enumerate(distinct)}
        chunks = max(chunk_count(base.tokenizers, caption) for caption in distinct)
        starts = range(0, len(distinct), TEXTS_AT_ONCE)
        with torch.no_grad():
            parts = [self._now(distinct[s : s + TEXTS_AT_ONCE], chunks) for s in starts]
        self._stored = Conditioning.cat(parts)

    def encode(self, wanted: Sequence[str]) -> Conditioning:
        """Give the conditioning of the captions of one step, in their order."""
        if self._stored is not None:
            return self._stored.take([self._places[caption] for caption in wanted])
        with torch.set_grad_enabled(self._config.text_lr > 0):
            return self._now(wanted)

    def _now(self, wanted: Sequence[str], chunks: int | None = None) -> Conditioning:
        clip_skip = self._config.clip_skip
        return self._base.encode_prompts(wanted, clip_skip=clip_skip, chunks=chunks)


def _checkpoint(run: Run, config: TrainConfig, epoch: int) -> Path:
    return run.place("lora") / f"{config.name}-{epoch:06d}.safetensors"


def _state(run: Run) -> Path:
    return run.place("state") / STATE


def _draw(config: TrainConfig, purpose: str, step: int) -> torch.Generator:
    """Make the random generator of one purpose at one step."""
    return torch.Generator().manual_seed(seed_from(config.seed, purpose, step))


def _known_split(out: Path) -> dict[str, Split]:
    """Recall which image fell on which side in an earlier training of the run."""
    with contextlib.suppress(MissingInputError):
        known = read_dataset(Run(out).place("dataset"))
        return {image.sha256: image.split for image in known.images}
    return {}


def _refuse_another_training(run: Run, config: TrainConfig, dataset: Dataset) -> None:
    """Refuse to mix checkpoints of different trainings in one run."""
    if not any(run.place("lora").glob("*.safetensors")):
        return
    try:
        other = replace(read_config(run.place("config")), dataset=config.dataset)
        differ = differences(other, config)
        if read_dataset(run.place("dataset")).images != dataset.images:
            differ.append("the images or their captions")
    except (MissingInputError, BadInputError) as error:
        differ = [str(error).splitlines()[0]]
    if differ:
        raise BadInputError(
            f"{run.path} holds checkpoints of another training: {'; '.join(differ)}.\n"
            "Fix: choose a new folder with --out."
        )


def _begin(job: Job) -> None:
    """Write what a new training writes once, and clear away what an aborted one left."""
    write_config(job.run.place("config"), job.config)
    write_dataset(job.run.place("dataset"), job.dataset)
    for stale in job.run.place("board").glob("events.out.tfevents.*"):
        stale.unlink()


def _board(run: Run, done: Done) -> SummaryWriter:
    """Open TensorBoard's file; on going on, what came after the saved step is to be ignored."""
    purge = done.step + 1 if done.step else None
    return SummaryWriter(str(run.place("board")), purge_step=purge)


def _show(board: SummaryWriter, step: int, loss: float, lrs: dict[str, float]) -> None:
    board.add_scalar("loss/current", loss, step)
    for tag, lr in (("lr/unet", lrs["lr_unet"]), ("lr/textencoder", lrs["lr_text"])):
        if lr:
            board.add_scalar(tag, lr, step)


def _save(job: Job, done: Done, epoch: int, step: int) -> None:
    """Write a checkpoint, then what going on after it needs, then count it as done."""
    modules = job.network.modules()
    if not all(finite(part) for m in modules for part in (m.down, m.up) if part is not None):
        raise _not_a_number(job, done, f"the end of epoch {epoch}")
    steps = job.epoch_steps
    about = metadata(job.config, job.dataset, job.base, epoch=epoch, step=step, epoch_steps=steps)
    write_lora(job.checkpoint(epoch), modules, about)
    state = {  # random draws need nothing: they depend on the step alone
        "epoch": epoch,
        "step": step,
        "weights": {name: weight.detach() for name, weight in job.network.weights().items()},
        "optimizer": job.optimizer.state_dict(),
    }
    packed = io.BytesIO()
    torch.save(state, packed)
    storage.write_bytes(_state(job.run), packed.getvalue())
    done.epoch, done.step = epoch, step


def _restore(job: Job) -> Done:
    """Put a stopped training back to where it was last saved."""
    path = _state(job.run)
    if not path.exists():
        return Done()
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        weights = job.network.weights()
        if state["weights"].keys() != weights.keys():
            raise ValueError("other modules")
        for name, weight in weights.items():
            weight.data.copy_(state["weights"][name])
        job.optimizer.load_state_dict(state["optimizer"])
        done = Done(epoch=int(state["epoch"]), step=int(state["step"]))
    except Exception as error:  # torch and pickle raise many kinds
        raise BadInputError(
            f"{path} is damaged ({type(error).__name__}).\n"
            "Fix: delete it and give the same command again; training begins anew."
        ) from error
    warn(f"going on after epoch {done.epoch} (step {done.step})")
    return done


@contextlib.contextmanager
def _explained(job: Job, done: Done) -> Iterator[None]:
    """On Ctrl-C say what is kept and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        where = f"after epoch {done.epoch}" if done.epoch else "from the beginning"
        warn(f"\nStopped. {_kept(job, done)} The same command again goes on {where}.")
        raise


def _kept(job: Job, done: Done) -> str:
    if not done.epoch:
        return "No epoch was saved yet."
    return f"Saved up to epoch {done.epoch} in {job.run.place('lora')}."


def _not_a_number(job: Job, done: Done, where: str) -> WeightError:
    name = "unet_lr" if job.config.unet_lr else "text_lr"
    lower = getattr(job.config, name) / 4
    return WeightError(
        f"Training stopped at {where}: the loss, its gradient or a weight is not a number. "
        f"{_kept(job, done)}\n"
        f"Fix: lower {name} (to {lower:g}) or set warmup_steps, and choose a new folder with --out."
    )
