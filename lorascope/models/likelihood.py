"""How much better a base model knows a picture once it is told a text: the text's likelihood.

A picture is mixed with noise and the model is asked for the noise, with the text and without any.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorascope.models.base import Base, Conditioning
from lorascope.models.prompts import chunk_count
from lorascope.records import seed_from

Array = NDArray[np.float64]
OnBatch = Callable[[int], None]  # told how many forwards were just done

LATENTS_AT_ONCE = 16 * 64 * 64  # places of latents in one batch: 16 pictures of 512 px
LARGEST_BATCH = 64
Question = tuple[int, int, int]  # places of a picture, of one of its texts, of a timestep


class Likelihood:
    """Asks a base model for the noise in pictures, told one text or another.

    Every picture is mixed with the same noise at a timestep, whichever text it is asked with: what
    the noise does to the loss cancels in a comparison, between texts and between pictures.

    Parameters
    ----------
    base : Base
        As it is: nothing is merged into it here.
    timesteps : sequence of int
        K of them.
    seed : int
        Of the noise.
    batch : int
        Forwards at a time; 0 chooses by the size of the latents. Has no influence on the numbers
        beyond rounding.
    """

    def __init__(
        self, base: Base, *, timesteps: Sequence[int], seed: int = 0, batch: int = 0
    ) -> None:
        self.base = base
        self.timesteps = [int(t) for t in timesteps]
        self.seed = seed
        self.batch = batch
        self._texts: dict[tuple[str, int], Conditioning] = {}
        self._noise: tuple[tuple[int, ...], Tensor] | None = None

    @torch.no_grad()
    def losses(
        self,
        latents: Sequence[Tensor],
        texts: Sequence[Sequence[str]],
        *,
        chunks: Sequence[int] | None = None,
        on_batch: OnBatch | None = None,
    ) -> list[Array]:
        """Ask every picture with each of its texts at every timestep.

        Parameters
        ----------
        latents : sequence of (C, h, w) float32 tensors
            N pictures of any sizes.
        texts : sequence of N sequences of str
            What each is asked with; "" is no text.
        chunks : sequence of N int, optional
            To how many chunks of tokens the texts of a picture are padded; the longest of them
            decides otherwise. A text and none are compared at the same number.
        on_batch : callable, optional
            Told after each batch how many forwards it took.

        Returns
        -------
        list of N (texts, K) float64 arrays
            Mean square error of the prediction. Costs K forwards a text and picture.

        Notes
        -----
        The model is asked for what it was trained to predict, noise or velocity.
        """
        padded = chunks or [self.chunks(several) for several in texts]
        found = [np.full((len(several), len(self.timesteps)), np.nan) for several in texts]
        for (shape, count), questions in self._groups(latents, texts, padded).items():
            for some in _parts(questions, self.batch or _usual_batch(shape)):
                values = self._ask(some, latents, texts, count)
                for (picture, text, k), value in zip(some, values.tolist(), strict=True):
                    found[picture][text, k] = value
                if on_batch is not None:
                    on_batch(len(some))
        return found

    def chunks(self, texts: Sequence[str]) -> int:
        """Count the chunks of tokens that the longest of some texts needs."""
        return max((chunk_count(self.base.tokenizers, text) for text in texts), default=1)

    def _groups(
        self, latents: Sequence[Tensor], texts: Sequence[Sequence[str]], chunks: Sequence[int]
    ) -> dict[tuple[tuple[int, ...], int], list[Question]]:
        """Put together what can go through the UNet together: one size, one number of tokens."""
        groups: dict[tuple[tuple[int, ...], int], list[Question]] = {}
        asked = enumerate(zip(latents, texts, chunks, strict=True))
        for picture, (latent, several, count) in asked:
            groups.setdefault((tuple(latent.shape), count), []).extend(
                (picture, text, k)
                for text in range(len(several))
                for k in range(len(self.timesteps))
            )
        return groups

    def _ask(
        self,
        questions: Sequence[Question],
        latents: Sequence[Tensor],
        texts: Sequence[Sequence[str]],
        chunks: int,
    ) -> Array:
        """Send one batch through the UNet: (n,) losses."""
        device = self.base.device
        clean = torch.stack([latents[picture] for picture, _, _ in questions])
        places = [k for _, _, k in questions]
        noise = self._noise_of(tuple(clean.shape[1:]))[places]
        at = torch.tensor([self.timesteps[k] for k in places])
        noisy, target = (
            self.base.add_noise(clean, noise, at).to(device),
            self.base.target(clean, noise, at).to(device),
        )
        cond = self._encoded([texts[picture][text] for picture, text, _ in questions], chunks)
        predicted = predict_in_halves(self.base, noisy, at.to(device), cond)
        error = (predicted - target).square().flatten(1).mean(dim=1)
        values: Array = error.double().cpu().numpy()
        return values

    def _encoded(self, texts: Sequence[str], chunks: int) -> Conditioning:
        """Encode texts, each of them once for all calls."""
        distinct = list(dict.fromkeys(texts))
        new = [text for text in distinct if (text, chunks) not in self._texts]
        if new:
            cond = self.base.encode_prompts(new, chunks=chunks)
            self._texts |= {(text, chunks): cond[i] for i, text in enumerate(new)}
        kept = Conditioning.cat([self._texts[text, chunks] for text in distinct])
        return kept.take([distinct.index(text) for text in texts])

    def _noise_of(self, shape: tuple[int, ...]) -> Tensor:
        """Draw (K, C, h, w) noise of a size; the last size's is kept."""
        if self._noise is None or self._noise[0] != shape:
            drawn = [self._draw(shape, k) for k in range(len(self.timesteps))]
            self._noise = (shape, torch.from_numpy(np.stack(drawn)))
        return self._noise[1]

    def _draw(self, shape: tuple[int, ...], stratum: int) -> NDArray[np.float32]:
        key = seed_from(self.seed, "likelihood", stratum)
        generator = np.random.Generator(np.random.Philox(key=key))
        return generator.standard_normal(shape, dtype=np.float32)


def predict_in_halves(base: Base, noisy: Tensor, at: Tensor, cond: Conditioning) -> Tensor:
    """Run the UNet; where a graphics card has no room for the batch, in two halves."""
    try:
        return base.predict(noisy, at, cond)
    except torch.OutOfMemoryError:
        if len(noisy) == 1:
            raise
        torch.cuda.empty_cache()
    half = len(noisy) // 2
    return torch.cat(
        [
            predict_in_halves(base, noisy[:half], at[:half], cond[:half]),
            predict_in_halves(base, noisy[half:], at[half:], cond[half:]),
        ]
    )


def _usual_batch(shape: tuple[int, ...]) -> int:
    return min(LARGEST_BATCH, max(1, LATENTS_AT_ONCE // int(np.prod(shape[1:]))))


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Cut a list into parts of nearly the same length, none longer than ``size``."""
    count = -(-len(items) // size)
    ends = [len(items) * part // count for part in range(count + 1)] if count else []
    yield from (items[start:stop] for start, stop in itertools.pairwise(ends))
