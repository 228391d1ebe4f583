"""A LoRA's update beside the weights it changes: how large, how aligned, what is new in them."""

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import BadInputError
from lorascope.metrics.lowrank import dense, inner
from lorascope.progress import track
from lorascope.records import Row
from lorascope.tools.files.checkpoint_facts import Looked, block_of
from lorascope.tools.files.growth import Cells

Array = NDArray[Any]

TOP = 10  # left singular vectors looked at; Shuttleworth et al., NeurIPS 2025
EPSILONS = (0.3, 0.5, 0.7)  # cosines below which one is new; the same paper sweeps them
MOST_MODULES = 24  # those that changed most, relative to their weight; a decomposition takes 1 s
SPARE = 20  # vectors carried along in the iteration, so that the first ones settle
ROUNDS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseWeights:
    """The weights of a base model that a LoRA can change, by kohya's names."""

    name: str
    targets: Mapping[str, tuple[Any, str]]  # torch module, and which of its parameters
    delta: Callable[..., Any]  # how a module changes a weight, exactly
    norms: dict[str, float]  # Frobenius norms, as far as asked for

    def tensor(self, name: str) -> Any:
        """Give one weight as it is."""
        layer, parameter = self.targets[name]
        return getattr(layer, parameter).detach()

    def matrix(self, name: str) -> Array:
        """Give one weight as (out, in), kernel axes flattened into ``in``."""
        weight = self.tensor(name).float().cpu().numpy()
        flat: Array = weight.reshape(len(weight), -1)
        return flat

    def norm(self, name: str) -> float:
        """Give the Frobenius norm of one weight."""
        if name not in self.norms:
            self.norms[name] = float(np.linalg.norm(self.matrix(name).astype(np.float64)))
        return self.norms[name]


def open_base(name: str) -> BaseWeights:
    """Load a base model; takes as long as its size asks for.

    Raises
    ------
    MissingInputError, BadInputError
        There is no such model, or it is something else.
    """
    base = importlib.import_module("lorascope.models.base").load_base(name, device="cpu")
    lora = importlib.import_module("lorascope.models.lora")
    return BaseWeights(name=name, targets=lora.parameters(base), delta=lora.delta, norms={})


def epoch_cells(looked: Looked, base: BaseWeights) -> Cells:
    """Measure one checkpoint against the base model.

    Returns
    -------
    dict
        ``relative_norm``: of the update against the weights that it changes.
        ``base_cosine``: of update and weight, mean over the modules that change anything.

    Raises
    ------
    BadInputError
        No module of the LoRA has a layer of its own size in the base model.
    """
    names = _shared(looked, base)
    if not names:
        raise BadInputError(
            f"{looked.file} does not fit {base.name}: none of its modules has a layer of its "
            "size there.\nFix: name the base model it was trained on."
        )
    found = {name: _beside(looked, base, name) for name in names}
    weight = sum(base.norm(name) ** 2 for name in names)
    update = sum(size**2 for size, _ in found.values())
    cosines = [cosine for _, cosine in found.values() if cosine is not None]
    return {
        "relative_norm": math.sqrt(update / weight) if weight else None,
        "base_cosine": float(np.mean(cosines)) if cosines else None,
    }


def module_table(looked: Looked, base: BaseWeights) -> list[Row]:
    """Measure every module against its weight, largest first; the first ones in depth.

    Returns
    -------
    list of dict
        ``intruders_3``, ``_5``, ``_7``: how many of the ten strongest left singular vectors of the
        changed weight have no cosine of 0.3, 0.5, 0.7 with any of the base weight's own.
    """
    found = {
        name: _beside(looked, base, name) for name in _shared(looked, base) if base.norm(name) > 0
    }
    order = sorted(found, key=lambda name: -found[name][0] / base.norm(name))
    deep = [name for name in order if min(base.matrix(name).shape) >= TOP and found[name][0] > 0]
    counts: dict[str, dict[str, int]] = {}
    for name in track(deep[:MOST_MODULES], label="weights against the base model"):
        counts[name] = intruders(base.matrix(name), _change(looked, base, name))
    return [
        {
            "epoch": looked.epoch,
            "module": name,
            "block": block_of(name),
            "relative_norm": found[name][0] / base.norm(name),
            "base_cosine": found[name][1],
            **{f"intruders_{round(10 * e)}": _count(counts, name, e) for e in EPSILONS},
        }
        for name in order
    ]


def intruders(weight: Array, update: Array, *, top: int = TOP) -> dict[str, int]:
    """Count the strong directions of a changed weight that the base weight does not have.

    Parameters
    ----------
    weight, update : (out, in) array
    top : int
        Left singular vectors of ``weight + update`` that are looked at, strongest first.

    Returns
    -------
    dict of str to int
        Epsilon, as text, to the number of vectors whose largest cosine with any left singular
        vector of ``weight`` is below it.

    Notes
    -----
    Source: Shuttleworth et al., LoRA vs Full Fine-tuning: An Illusion of Equivalence, NeurIPS
    2025. Shown for language models; here it is a description, not a fault.
    """
    own = _left_vectors(np.asarray(weight, dtype=np.float64))
    changed = np.asarray(weight, dtype=np.float64) + update
    top = min(top, *changed.shape)
    sketch = update @ np.random.default_rng(0).normal(size=(update.shape[1], SPARE))
    start = np.concatenate([own[:, : top + SPARE], sketch], axis=1)[:, : min(changed.shape)]
    vectors = _strongest(changed, start, top)
    nearest = np.abs(own.T @ vectors).max(axis=0)
    return {str(epsilon): int((nearest < epsilon).sum()) for epsilon in EPSILONS}


def _left_vectors(weight: Array) -> Array:
    """List all left singular vectors, strongest first, from the smaller Gram matrix."""
    if len(weight) <= weight.shape[1]:
        vectors: Array = np.linalg.eigh(weight @ weight.T)[1][:, ::-1]
        return vectors
    right = np.linalg.eigh(weight.T @ weight)[1][:, ::-1]
    left = weight @ right
    sizes = np.linalg.norm(left, axis=0)
    kept: Array = left[:, sizes > 1e-8 * max(float(sizes.max()), 1e-300)]
    units: Array = kept / np.linalg.norm(kept, axis=0)
    return units


def _strongest(matrix: Array, start: Array, count: int) -> Array:
    """Find the strongest left singular vectors, by subspace iteration from a good start."""
    basis = np.linalg.qr(start)[0]
    for _ in range(ROUNDS):
        basis = np.linalg.qr(matrix @ (matrix.T @ basis))[0]
    small = np.linalg.svd(basis.T @ matrix, full_matrices=False)[0]
    vectors: Array = (basis @ small)[:, :count]
    return vectors


def _shared(looked: Looked, base: BaseWeights) -> Sequence[str]:
    """List the sound modules that have a layer of their own size in the base model."""
    modules = looked.lora.modules
    plain = [
        name
        for name in looked.facts
        if name in base.targets and math.prod(modules[name].size) == base.tensor(name).numel()
    ]
    return [*plain, *(name for name in looked.lora.bound if name in base.targets)]


def _beside(looked: Looked, base: BaseWeights, name: str) -> tuple[float, float | None]:
    """Give the size of one module's change, and its cosine with the weight; None where it is 0."""
    weight = base.matrix(name)
    if _depends(looked, name):
        change = _change(looked, base, name)
        size, along = float(np.linalg.norm(change)), float((change * weight).sum())
    else:
        module = looked.lora.modules[name]
        size = math.sqrt(looked.facts[name].square)
        along = inner(module.factors(), (weight, None, 1.0), left=module.left) if size else 0.0
    both = size * base.norm(name)
    return size, max(-1.0, min(1.0, along / both)) if both else None


def _change(looked: Looked, base: BaseWeights, name: str) -> Array:
    """Form one module's change, (out, in); of DoRA, OFT and their like as the base model has it."""
    if not _depends(looked, name):
        module = looked.lora.modules[name]
        return dense(module.factors(), left=module.left)
    bound = looked.lora.bound.get(name) or looked.lora.modules[name]
    change = base.delta(bound, base.tensor(name)).float().cpu().numpy().astype(np.float64)
    flat: Array = change.reshape(len(change), -1)
    return flat


def _depends(looked: Looked, name: str) -> bool:
    """Tell whether a module's change depends on the base model's weight."""
    return name in looked.lora.bound or looked.lora.modules[name].magnitude is not None


def _count(found: Mapping[str, Mapping[str, int]], name: str, epsilon: float) -> int | None:
    return found[name][str(epsilon)] if name in found else None
