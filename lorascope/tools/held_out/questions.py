"""What the loss tool asks a model: each picture at each timestep under noise of its own."""

import hashlib
import io
import json
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lorascope import storage
from lorascope.records import seed_from

if TYPE_CHECKING:
    from torch import Tensor

    from lorascope.models.base import Base, Conditioning

Array = NDArray[Any]

LATENTS_AT_ONCE = 16 * 64 * 64  # places of latents in one batch: 16 pictures of 512 px
LARGEST_BATCH = 64
KEPT_NUMBERS = 1 << 26  # of noisy latents in memory; beyond that noise is drawn again each time
SAME_ANSWER = 1e-4  # log-ratio up to which two answers to one question are the same
SHORT_S = 1.0  # a first batch quicker than that is timed once more, without its warming up


@dataclass(frozen=True, kw_only=True, eq=False)
class Item:
    """One picture, ready to be asked about.

    Attributes
    ----------
    kind : str
        The set it belongs to: held-out, composition, train, kept, shuffled, augmented.
    name : str
        The image's file; the prompt where the base model drew it.
    key : str
        Decides its noise, whatever else is asked and in whatever order.
    prompt : str
    latent : (C, h, w) float32 tensor
        In main memory; batches travel to the device one at a time.
    """

    kind: str
    name: str
    key: str
    prompt: str
    latent: "Tensor"


@dataclass(frozen=True, kw_only=True, eq=False)
class Questions:
    """Items x strata x draws: the same for the base model and for every checkpoint."""

    items: tuple[Item, ...]
    timesteps: Array  # (strata,) int
    draws: int
    seed: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(items, strata, draws)."""
        return len(self.items), len(self.timesteps), self.draws


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Questions that go through the UNet together: latents of one size, prompts of one length."""

    places: Array  # (n,) into the flattened (items, strata, draws)
    texts: tuple[str, ...]  # the distinct prompts ...
    which: tuple[int, ...]  # ... and which of them each row has
    chunks: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixed:
    """The latents of one batch, mixed with their noise; in main memory."""

    noisy: "Tensor"  # (n, C, h, w)
    target: "Tensor"  # the same shape
    timesteps: "Tensor"  # (n,)


@dataclass(eq=False)
class Asker:
    """Asks one set of questions of a base model, whatever is merged into it at the time.

    Parameters
    ----------
    base : Base
    questions : Questions
    batch : int
        Questions at a time; 0 chooses by the size of the latents.
    """

    base: "Base"
    questions: Questions
    batch: int = 0
    batches: list[Batch] = field(init=False)
    _mixed: dict[int, Mixed] = field(init=False, default_factory=dict)
    _plain: dict[tuple[str, int], "Conditioning"] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Lay the questions out."""
        self.batches = list(_batches(self.base, self.questions, self.batch))

    def losses(self, number: int, *, own_text: bool) -> Array:
        """Ask one batch.

        Parameters
        ----------
        number : int
            Of the batch.
        own_text : bool
            The text encoders are not the base model's: prompts have to be encoded again.

        Returns
        -------
        (n,) float64 array
            Mean square error of each prediction.
        """
        import torch

        from lorascope.models.likelihood import predict_in_halves

        batch, mixed, device = self.batches[number], self.mixed(number), self.base.device
        with torch.no_grad():
            cond = self._encoded(batch, own_text=own_text).take(batch.which)
            at = mixed.timesteps.to(device)
            predicted = predict_in_halves(self.base, mixed.noisy.to(device), at, cond)
            error = (predicted.double() - mixed.target.to(device).double()).square()
            found: Array = error.flatten(1).mean(dim=1).cpu().numpy()
        return found

    def mixed(self, number: int) -> Mixed:
        """Give a batch's noisy latents; kept from call to call where all of them are small."""
        found = self._mixed.get(number)
        if found is None:
            found = _mix(self.base, self.questions, self.batches[number].places)
            if self.forwards() * self.questions.items[0].latent.numel() < KEPT_NUMBERS:
                self._mixed[number] = found
        return found

    def forwards(self) -> int:
        """Count the forwards of one model, in latents."""
        return sum(len(batch.places) for batch in self.batches)

    def first(self) -> tuple[Array, float]:
        """Ask the first batch, and say how many seconds the questions of one model will take."""
        for _ in range(2):
            started = time.perf_counter()
            found = self.losses(0, own_text=False)
            took = time.perf_counter() - started
            if took > SHORT_S:
                break
        return found, took / len(found) * self.forwards()

    def together(self, answers: Sequence[Array]) -> Array:
        """Put the answers of all batches into (items, strata, draws)."""
        found = np.full(int(np.prod(self.questions.shape)), np.nan)
        for batch, answer in zip(self.batches, answers, strict=True):
            found[batch.places] = answer
        return found.reshape(self.questions.shape)

    def _encoded(self, batch: Batch, *, own_text: bool) -> "Conditioning":
        """Encode a batch's prompts; those of the base model's own encoders only once."""
        from lorascope.models.base import Conditioning

        if own_text:
            return self.base.encode_prompts(batch.texts, chunks=batch.chunks)
        new = [text for text in batch.texts if (text, batch.chunks) not in self._plain]
        if new:
            cond = self.base.encode_prompts(new, chunks=batch.chunks)
            self._plain |= {(text, batch.chunks): cond[i] for i, text in enumerate(new)}
        return Conditioning.cat([self._plain[text, batch.chunks] for text in batch.texts])


class Shelf:
    """Answers of single checkpoints, kept from one call to the next.

    A run that is still training, or a measurement that was stopped, is asked only what is new.
    The base model's answers are kept too; before they are believed, one batch is asked again.

    Parameters
    ----------
    folder : Path or None
        None keeps nothing.
    asked : tuple
        All that decides an answer but the weights: what JSON can hold.
    """

    def __init__(self, folder: Path | None, *asked: object) -> None:
        self.folder = folder
        self.question = hashlib.sha256(json.dumps(asked).encode()).hexdigest()

    def base_answers(self) -> Mapping[str, Array]:
        """Give what was kept of the base model; nothing where there is nothing whole."""
        return self._read(f"base-{self.question[:16]}")

    def keep_base(self, answers: Mapping[str, Array]) -> None:
        """Keep what the base model answered."""
        self._write(f"base-{self.question[:16]}", answers)

    def checkpoint(self, digest: str, base: Array) -> Array | None:
        """Give the losses of a checkpoint with these bytes, on a base with these answers."""
        found = self._read(self._name(digest, base)).get("losses")
        return found if found is not None and found.shape == base.shape else None

    def keep(self, digest: str, base: Array, losses: Array) -> None:
        """Keep the losses of one checkpoint."""
        self._write(self._name(digest, base), {"losses": losses})

    def _name(self, digest: str, base: Array) -> str:
        told = self.question + digest + hashlib.sha256(base.tobytes()).hexdigest()
        return hashlib.sha256(told.encode()).hexdigest()[:20]

    def _read(self, name: str) -> Mapping[str, Array]:
        if self.folder is None:
            return {}
        try:
            content = (self.folder / f"{name}.npz").read_bytes()
            with np.load(io.BytesIO(content), allow_pickle=False) as packed:
                return dict(packed)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return {}

    def _write(self, name: str, answers: Mapping[str, Array]) -> None:
        if self.folder is None:
            return
        packed = io.BytesIO()
        np.savez(packed, allow_pickle=False, **answers)
        storage.write_bytes(self.folder / f"{name}.npz", packed.getvalue())


def stratified(steps: int, strata: int, seed: int) -> Array:
    """Draw one timestep from each of ``strata`` equal parts of [0, steps)."""
    inside = [seed_from(seed, "stratum", k) / 2**63 for k in range(strata)]
    return np.array([min(int(steps * (k + u) / strata), steps - 1) for k, u in enumerate(inside)])


def _batches(base: "Base", questions: Questions, batch: int) -> Iterator[Batch]:
    """Lay the questions out in full batches."""
    from lorascope.models.prompts import chunk_count

    lengths = {i.prompt: chunk_count(base.tokenizers, i.prompt) for i in questions.items}
    groups: dict[tuple[tuple[int, ...], int], list[int]] = {}
    for place, item in enumerate(questions.items):
        groups.setdefault((tuple(item.latent.shape), lengths[item.prompt]), []).append(place)
    slots = len(questions.timesteps) * questions.draws
    for (shape, chunks), members in groups.items():
        places = (np.array(members)[:, None] * slots + np.arange(slots)).ravel()
        usual = min(LARGEST_BATCH, max(1, LATENTS_AT_ONCE // int(np.prod(shape[1:]))))
        for part in np.array_split(places, -(-len(places) // (batch or usual))):
            prompts = [questions.items[i].prompt for i in part // slots]
            texts = tuple(dict.fromkeys(prompts))
            which = tuple(texts.index(prompt) for prompt in prompts)
            yield Batch(places=part, texts=texts, which=which, chunks=chunks)


def _mix(base: "Base", questions: Questions, places: Array) -> Mixed:
    """Mix the latents of some questions with their noise."""
    import torch

    items, strata, draws = np.unravel_index(places, questions.shape)
    rows = [questions.items[i] for i in items]
    noise = np.stack(
        [
            _noise(questions.seed, row, int(k), int(r))
            for row, k, r in zip(rows, strata, draws, strict=True)
        ]
    )
    latents, drawn = torch.stack([row.latent for row in rows]), torch.from_numpy(noise)
    at = torch.from_numpy(questions.timesteps[strata])
    return Mixed(
        noisy=base.add_noise(latents, drawn, at),
        target=base.target(latents, drawn, at),
        timesteps=at,
    )


def _noise(seed: int, item: Item, stratum: int, draw: int) -> NDArray[np.float32]:
    """Draw the noise of one question from its content alone."""
    key = seed_from(seed, item.key, stratum, draw)
    return np.random.Generator(np.random.Philox(key=key)).standard_normal(
        tuple(item.latent.shape), dtype=np.float32
    )
