"""What the two trainings share: processes, one clock, averaged gradients, checkpoints, a log."""

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from lorascope import storage
from trainer.pretrain.muon import Muon
from trainer.pretrain.settings import Settings

SAVE_EVERY_S = 180.0
LOG_EVERY = 20  # steps
EMA = 0.998
CLIP = 1.0  # norm of the averaged gradient


def in_processes(stage: Callable[[Settings], None], settings: Settings) -> None:
    """Run a stage in every process at once and wait for all of them."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with tempfile.TemporaryDirectory() as meeting:
        spawn(_worker, args=(stage, settings, meeting), nprocs=settings.processes, join=True)


def _worker(rank: int, stage: Callable[[Settings], None], settings: Settings, meeting: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}/ranks", rank=rank, world_size=settings.processes
    )
    stage(settings)
    dist.barrier()
    dist.destroy_process_group()


class Clock:
    """How much of the time is spent: the same answer in every process, and across pauses."""

    def __init__(self, minutes: float, spent_s: float = 0.0) -> None:
        self.seconds = minutes * 60
        self.started = time.monotonic() - spent_s

    @property
    def spent_s(self) -> float:
        """Seconds of training so far."""
        return time.monotonic() - self.started

    def share(self) -> float:
        """Share of the time that is spent, 0 to 1 and beyond, as the first process sees it."""
        answer = torch.tensor([self.spent_s / self.seconds])
        dist.broadcast(answer, 0)
        return float(answer)


class Learner:
    """The weights of one stage, with optimisers, moving average and checkpoints.

    Parameters
    ----------
    parameters : iterable of (name, tensor)
    learning_rates : (float, float)
        Muon's and AdamW's.
    is_hidden : callable
        Tells from name and tensor whether Muon serves a weight.
    slower : callable
        Factor on AdamW's learning rate, from a name.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, Tensor]],
        *,
        learning_rates: tuple[float, float],
        is_hidden: Callable[[str, Tensor], bool],
        slower: Callable[[str], float] = lambda _name: 1.0,
    ) -> None:
        named = dict(parameters)
        self.parameters = list(named.values())
        self.learning_rates = learning_rates
        hidden = [p for n, p in named.items() if is_hidden(n, p)]
        groups = [
            {"params": [p], "factor": slower(n)} for n, p in named.items() if not is_hidden(n, p)
        ]
        self.muon = Muon(hidden)
        self.adamw = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.01)
        self.average = [p.detach().clone() for p in self.parameters]
        self.steps = 0

    def step(self, loss: Tensor, *, factor: float) -> None:
        """Average the gradients over the processes and move every weight once."""
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"the loss is {loss.item()} at step {self.steps}")
        for p in self.parameters:
            p.grad = None
        loss.backward()
        self._average_gradients()
        for group in self.adamw.param_groups:
            group["lr"] = self.learning_rates[1] * factor * group["factor"]
        self.adamw.step()
        self.muon.step(self.learning_rates[0] * factor)
        self.steps += 1
        keep = min(EMA, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [p.data for p in self.parameters], 1 - keep)

    @torch.no_grad()
    def _average_gradients(self) -> None:
        flat = torch.cat(
            [
                (p.grad if p.grad is not None else torch.zeros_like(p)).reshape(-1)
                for p in self.parameters
            ]
        )
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        flat *= min(1.0, CLIP / (float(flat.norm()) + 1e-6))
        start = 0
        for p in self.parameters:
            p.grad = flat[start : start + p.numel()].view_as(p).clone()
            start += p.numel()

    def save(self, path: Path, *, spent_s: float) -> None:
        """Write all that a later start needs."""
        state = {
            "parameters": [p.detach() for p in self.parameters],
            "average": self.average,
            "adamw": self.adamw.state_dict(),
            "muon": self.muon.state(),
            "steps": self.steps,
            "spent_s": spent_s,
        }
        with storage.replacing(path) as partial:
            torch.save(state, partial)

    def load(self, path: Path) -> float:
        """Go on from a checkpoint; gives the seconds spent until then, 0 without one."""
        if not path.exists():
            return 0.0
        state: dict[str, Any] = torch.load(path, weights_only=True)
        with torch.no_grad():
            for p, stored in zip(self.parameters, state["parameters"], strict=True):
                p.copy_(stored)
            for p, stored in zip(self.average, state["average"], strict=True):
                p.copy_(stored)
        self.adamw.load_state_dict(state["adamw"])
        self.muon.load(state["muon"])
        self.steps = state["steps"]
        return float(state["spent_s"])

    @torch.no_grad()
    def take_average(self) -> None:
        """Put the moving average in the place of the weights: what is shipped."""
        for p, mean in zip(self.parameters, self.average, strict=True):
            p.copy_(mean)


def flat_then_cosine(share: float, step: int, *, warmup: int, flat: float, floor: float) -> float:
    """Factor on the learning rate: linear warm-up, flat, then a cosine down to ``floor``."""
    start = min(1.0, (step + 1) / warmup)
    if share < flat:
        return start
    wave = 0.5 * (1 + math.cos(math.pi * (share - flat) / (1 - flat)))
    return start * (wave * (1 - floor) + floor)


class Log:
    """A row every few steps, in a file and on the screen; only the first process writes."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, columns
        self.rows: list[list[float]] = []
        self.mine = dist.get_rank() == 0
        if self.mine and not path.exists():
            storage.write_text(path, ",".join(["step", "seconds", *columns]) + "\n")

    def add(self, step: int, seconds: float, values: Sequence[float]) -> None:
        """Take one step's values; write their means every ``LOG_EVERY`` steps."""
        self.rows.append(list(values))
        if step % LOG_EVERY or not self.mine:
            return
        means = [sum(column) / len(self.rows) for column in zip(*self.rows, strict=True)]
        self.rows.clear()
        with self.path.open("a") as file:
            file.write(",".join([str(step), f"{seconds:.0f}", *(f"{m:.5g}" for m in means)]) + "\n")
        named = " ".join(f"{c} {m:.4g}" for c, m in zip(self.columns, means, strict=True))
        print(f"step {step} {seconds:.0f} s {named}", flush=True)


def learn(
    learner: Learner,
    attempt: Callable[[float], tuple[Tensor, Sequence[float]]],
    *,
    minutes: float,
    checkpoint: Path,
    log: Log,
    factor: Callable[[float, int], float],
) -> None:
    """Train until the time is spent, going on from a checkpoint where there is one.

    Parameters
    ----------
    attempt : callable
        Gives the loss of one step and what the log is told, from the share of the time spent.
    minutes : float
        Of training, pauses not counted.
    checkpoint : Path
        Written every few minutes, and at the end.
    factor : callable
        On the learning rates, from the share of the time spent and the step.
    """
    first = dist.get_rank() == 0
    clock = Clock(minutes, learner.load(checkpoint))
    saved = clock.spent_s
    while (share := clock.share()) < 1:
        loss, values = attempt(share)
        learner.step(loss, factor=factor(share, learner.steps))
        log.add(learner.steps, clock.spent_s, values)
        if first and clock.spent_s - saved > SAVE_EVERY_S:
            saved = clock.spent_s
            learner.save(checkpoint, spent_s=saved)
    if first:
        learner.save(checkpoint, spent_s=clock.spent_s)


def calm_start(module: nn.Module) -> None:
    """Make residual branches small and resampling near the identity, so that training starts fast.

    ``conv2`` and ``to_out`` are scaled by .1; resampling and shortcut convolutions get a Dirac.
    """
    with torch.no_grad():
        for name, part in module.named_modules():
            if name.endswith("conv2") and isinstance(part, nn.Conv2d):
                part.weight.mul_(0.1)
                if part.bias is not None:
                    part.bias.zero_()
            elif name.endswith("conv_shortcut"):
                _towards_identity(part, keep=0.5)
            elif name.endswith("samplers.0.conv"):
                _towards_identity(part, keep=0.3)
            elif name.endswith("to_out.0") and isinstance(part, nn.Linear):
                part.weight.mul_(0.1)


def _towards_identity(part: nn.Module, *, keep: float) -> None:
    assert isinstance(part, nn.Conv2d)
    identity = torch.zeros_like(part.weight)
    nn.init.dirac_(identity)
    part.weight.mul_(keep).add_(identity)
