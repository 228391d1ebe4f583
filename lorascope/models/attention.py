"""Which part of a picture each token was drawn into: DAAM's maps, for any shape and batch.

Method: Tang et al., "What the DAAM: Interpreting Stable Diffusion Using Cross Attention",
ACL 2023. Probabilities of every cross attention outside the middle block are summed over sampling
steps, enlarged (bicubic), clamped at 0 and averaged over layers and heads. Queries and keys are
read where the UNet makes them, so the pictures are the same to the bit.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lorascope.errors import BadInputError, MissingInputError
from lorascope.models.base import Base
from lorascope.models.prompts import token_ids, window

Floats = NDArray[np.float32]
Tokens = Sequence[int] | Sequence[Sequence[int]] | None

SKIPPED_FACTOR = 8  # DAAM leaves out grids of an eighth of the latent's side and coarser


class _Place(NamedTuple):
    layer: str
    image: int


class Recorder:
    """Collects attention while a UNet runs; made by `capture`.

    Attributes
    ----------
    tokens : sequence of int, sequence of such sequences, or None
        Positions that are kept: for all images, for each image, or all of them.
    """

    def __init__(self, base: Base, tokens: Tokens) -> None:
        self.base = base
        self.tokens = tokens
        self.latent: tuple[int, int] = (0, 0)  # height, width
        self.images: list[int] = []
        self.first = 0
        self._announced = False
        self._sums: dict[_Place, Tensor] = {}  # (T, heads, h, w), summed over sampling steps
        self._queries: Tensor | None = None
        self._keys: Tensor | None = None

    def rows(self, images: Sequence[int], first: int) -> None:
        """Learn that row ``first + i`` of the next forward is image ``images[i]``."""
        self.images, self.first, self._announced = list(images), first, True

    def maps(
        self, image: int = 0, *, size: tuple[int, int] | None = None, min_grid: int | None = None
    ) -> Floats:
        """Give the maps of one image.

        Parameters
        ----------
        image : int
            Its place among the prompts of `sample`, or its row of a plain `Base.predict`.
        size : (height, width), optional
            Of the maps; the latent's own otherwise.
        min_grid : int, optional
            The shorter side of the coarsest attention grid that counts. By default a grid must be
            finer than an eighth of the latent: for SD 1.x at 512 px (64 x 64) the 8 x 8 grids are
            left out as in DAAM, while on a 16 x 16 latent the 8 x 8 grids count, which hold most
            of what is to be seen there.

        Returns
        -------
        (T, height, width) float32 array
            At least 0; sums over the sampling steps, so at most about their number.

        Raises
        ------
        MissingInputError
            Nothing was recorded of this image.
        """
        least = min_grid if min_grid is not None else min(self.latent) // SKIPPED_FACTOR + 1
        total: Tensor | None = None
        count = 0
        for place, sums in self._sums.items():
            if place.image != image or min(sums.shape[-2:]) < least:
                continue
            large = functional.interpolate(sums, size=size or self.latent, mode="bicubic")
            heads = large.clamp_(min=0).sum(1)  # undershoot goes head by head, as in DAAM
            total = heads if total is None else total + heads
            count += sums.shape[1]
        if total is None:
            raise MissingInputError(
                f"No attention was recorded of image {image}: nothing was sampled inside "
                f"`capture`, or every grid is smaller than {least}."
            )
        return (total / count).cpu().numpy().astype(np.float32)

    def see_latent(self, latent: tuple[int, int], batch: int) -> None:
        """Learn the size of the picture that a forward is about."""
        self.latent = latent
        if not self._announced:
            self.images, self.first = list(range(batch)), 0
        self._announced = False

    def see_queries(self, queries: Tensor) -> None:
        """Take (B, pixels, heads x d) queries."""
        self._queries = queries

    def see_keys(self, keys: Tensor) -> None:
        """Take (B, tokens, heads x d) keys."""
        self._keys = keys

    @torch.no_grad()
    def add(self, layer: str, heads: int, scale: float) -> None:
        """Turn the last queries and keys into probabilities, one image at a time."""
        if self._queries is None or self._keys is None:
            return
        grid = _grid(self.latent, self._queries.shape[1])
        rows = slice(self.first, self.first + len(self.images))
        queries, keys = (_by_head(t[rows], heads) for t in (self._queries, self._keys))
        self._queries = self._keys = None
        with torch.autocast(queries.device.type, enabled=False):
            for row, image in enumerate(self.images):
                scores = queries[row] @ keys[row].transpose(-1, -2)  # heads, pixels, tokens
                shares = scores.mul_(scale).softmax(dim=-1)
                if (kept := self._kept(image)) is not None:
                    shares = shares[..., kept]
                shares = shares.permute(2, 0, 1).unflatten(-1, grid)
                place = _Place(layer, image)
                if place in self._sums:
                    self._sums[place] += shares
                else:
                    self._sums[place] = shares.contiguous()

    def _kept(self, image: int) -> list[int] | None:
        if self.tokens is None:
            return None
        if all(isinstance(token, int) for token in self.tokens):
            return list(self.tokens)  # type: ignore[arg-type]  # just checked
        return list(self.tokens[image])  # type: ignore[arg-type]  # one sequence per image


@contextmanager
def capture(base: Base, tokens: Tokens = None) -> Iterator[Recorder]:
    """Record cross attention of what is sampled or predicted inside this context.

    Parameters
    ----------
    base : Base
    tokens : sequence of int, sequence of such sequences, or None
        Positions to keep, as `token_positions` gives them: one list for every image, or one list
        per image. None keeps all, which takes much memory on real models.

    Yields
    ------
    Recorder
        Its `maps` may be asked inside the context and after it.

    Raises
    ------
    BadInputError
        The base model is being watched already.
    """
    if base.observer is not None:
        raise BadInputError("Attention of this base model is being captured already.")
    recorder = Recorder(base, tokens)
    hooks = [base.unet.register_forward_pre_hook(_latent_hook(recorder), with_kwargs=True)]
    for name, layer in base.unet.named_modules():
        if name.endswith("attn2") and not name.startswith("mid_block"):
            hooks += [
                layer.to_q.register_forward_hook(lambda _m, _i, out: recorder.see_queries(out)),
                layer.to_k.register_forward_hook(lambda _m, _i, out: recorder.see_keys(out)),
                layer.register_forward_hook(_attention_hook(recorder, name)),
            ]
    base.observer = recorder
    try:
        yield recorder
    finally:
        base.observer = None
        for hook in hooks:
            hook.remove()


def token_positions(base: Base, prompt: str, tag: str) -> list[int]:
    """Find a tag's tokens in an encoded prompt.

    Parameters
    ----------
    base : Base
    prompt : str
        Of any length.
    tag : str
        One or several words. Where it is a whole comma-separated part of the prompt, only such
        parts count ("hat" is not found in "red hat" then); otherwise it is looked for anywhere.

    Returns
    -------
    list of int
        Positions of all its pieces, at every occurrence, along the token axis of
        `Conditioning.hidden`; empty where the prompt does not have the tag.
    """
    tokenizer = base.tokenizers[0]
    words, wanted = token_ids(tokenizer, prompt), token_ids(tokenizer, tag.strip())
    commas = set(token_ids(tokenizer, ","))
    if not wanted:
        return []
    starts = [i for i in range(len(words)) if words[i : i + len(wanted)] == wanted]
    whole = [
        i for i in starts if _ends(words, commas, i) and _begins(words, commas, i + len(wanted))
    ]
    places = sorted({i + k for i in (whole or starts) for k in range(len(wanted))})
    room = window(tokenizer) - 2
    return [place // room * (room + 2) + 1 + place % room for place in places]


def _ends(words: Sequence[int], commas: set[int], place: int) -> bool:
    """Tell whether a part of the prompt ends right before this place."""
    return place == 0 or words[place - 1] in commas


def _begins(words: Sequence[int], commas: set[int], place: int) -> bool:
    """Tell whether a part of the prompt begins right after this place."""
    return place == len(words) or words[place] in commas


def _latent_hook(recorder: Recorder) -> Any:
    def see(_unet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        latents = args[0] if args else kwargs["sample"]
        recorder.see_latent((latents.shape[-2], latents.shape[-1]), latents.shape[0])

    return see


def _attention_hook(recorder: Recorder, name: str) -> Any:
    def see(layer: Any, _args: Any, _output: Any) -> None:
        recorder.add(name, layer.heads, layer.scale)

    return see


def _by_head(values: Tensor, heads: int) -> Tensor:
    """Reshape (B, n, heads x d) into (B, heads, n, d) float32."""
    return values.float().unflatten(-1, (heads, -1)).transpose(1, 2)


def _grid(latent: tuple[int, int], pixels: int) -> tuple[int, int]:
    """Find the (height, width) of a grid that was halved, rounding up, from the latent's."""
    height, width = latent
    while height * width > pixels:
        height, width = (height + 1) // 2, (width + 1) // 2
    if height * width != pixels:
        raise BadInputError(f"A grid of {pixels} cells does not come from a latent {latent}.")
    return height, width
