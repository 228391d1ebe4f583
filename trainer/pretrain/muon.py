"""Muon: momentum whose direction is made orthogonal, its work shared by the processes.

``torch.optim.Muon`` takes only matrices and repeats all work in every process; most of the
miniature's weights are convolutions, and the orthogonalisation is what costs.
Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, Jordan et al.
ITERATIONS = 5
MATCH_ADAMW = 0.2  # scales updates to AdamW's usual size: Liu et al., "Muon is scalable", 2025
GROUP = 8  # matrices of one shape that are worked on together


def orthogonalised(matrices: Tensor) -> Tensor:
    """Push the singular values of each matrix towards 1.

    Parameters
    ----------
    matrices : (N, rows, columns) tensor

    Returns
    -------
    (N, rows, columns) float32 tensor
        Newton-Schulz iteration in bfloat16.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.bfloat16()
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x.mT if tall else x).float()


class Muon:
    """Optimise hidden weights of two or more axes.

    Parameters
    ----------
    parameters : sequence of tensors
        Flattened to (first axis, all others).
    momentum, weight_decay : float
    """

    def __init__(
        self, parameters: Sequence[Tensor], *, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        self.parameters = list(parameters)
        self.momentum, self.weight_decay = momentum, weight_decay
        self.buffers = [torch.zeros(p.shape[0], p.numel() // p.shape[0]) for p in self.parameters]
        self.starts = [0]
        for p in self.parameters:
            self.starts.append(self.starts[-1] + p.numel())
        self.update = torch.zeros(self.starts[-1])
        self.mine = _share_of_work([tuple(b.shape) for b in self.buffers])

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move every weight once, along the gradients that lie beside them."""
        pairs = zip(self.parameters, self.buffers, strict=True)
        gradients = [_gradient(p).reshape(b.shape) for p, b in pairs]
        torch._foreach_mul_(self.buffers, self.momentum)
        torch._foreach_add_(self.buffers, gradients)
        self.update.zero_()
        for group in self.mine:
            nesterov = [gradients[i] + self.momentum * self.buffers[i] for i in group]
            directions = orthogonalised(torch.stack(nesterov))
            directions *= MATCH_ADAMW * max(directions.shape[-2:]) ** 0.5
            for i, direction in zip(group, directions, strict=True):
                self.update[self.starts[i] : self.starts[i + 1]] = direction.reshape(-1)
        if dist.is_initialized():
            dist.all_reduce(self.update)
        for i, p in enumerate(self.parameters):
            direction = self.update[self.starts[i] : self.starts[i + 1]].view(p.shape)
            p.mul_(1 - learning_rate * self.weight_decay).add_(direction, alpha=-learning_rate)

    def state(self) -> list[Tensor]:
        """Give what a later start needs."""
        return self.buffers

    def load(self, state: Sequence[Tensor]) -> None:
        """Go on from an earlier state."""
        for buffer, stored in zip(self.buffers, state, strict=True):
            buffer.copy_(stored)


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _share_of_work(shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Split the matrices into groups of one shape and take this process's fair share of them."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, shape in enumerate(shapes):
        by_shape.setdefault(shape, []).append(i)
    groups = [
        (min(shape) * shape[0] * shape[1] * len(part), part)
        for shape, all_of_it in by_shape.items()
        for part in _pieces(all_of_it, world)
    ]
    load = [0] * world
    mine = []
    for cost, group in sorted(groups, key=lambda g: (-g[0], g[1])):
        receiver = load.index(min(load))
        load[receiver] += cost
        if receiver == rank:
            mine.append(group)
    return mine


def _pieces(indices: list[int], world: int) -> list[list[int]]:
    size = max(1, min(GROUP, -(-len(indices) // world)))
    return [indices[i : i + size] for i in range(0, len(indices), size)]
