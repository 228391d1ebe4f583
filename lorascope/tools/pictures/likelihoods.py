"""What texts tell the base model about pictures, kept by content: nothing is asked twice."""

import contextlib
import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lorascope import storage
from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.images import resize_crop
from lorascope.metrics.adherence import gain, middles
from lorascope.progress import track
from lorascope.tools.pictures.sets import PictureSet

if TYPE_CHECKING:
    from torch import Tensor

    from lorascope.models.likelihood import Likelihood

Array = NDArray[Any]
Pixels = NDArray[np.uint8]
Asked = tuple[int, str]  # place of a picture in its set, and a text

VERSION = 1  # raised whenever the same question would be answered otherwise
AT_ONCE = 16  # pictures: what a stopped measurement loses at most
ENCODED = 4  # pictures that go through the VAE together
TORN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True, kw_only=True, eq=False)
class Listener:
    """Asks a base model about the pictures of a set.

    Attributes
    ----------
    pictures : PictureSet
    likelihood : Likelihood
    folder : Path
        Where answers are kept; its name says everything that decides them but picture and text.
    """

    pictures: PictureSet
    likelihood: "Likelihood"
    folder: Path
    _content: dict[int, str] = field(default_factory=dict)

    def gains(self, asked: Sequence[Asked]) -> Array:
        """Ask how much each text tells about its picture.

        Parameters
        ----------
        asked : sequence of n (place, text)

        Returns
        -------
        (n, K) float64 array
            `metrics.adherence.gain`; NaN where a picture cannot be read.
        """
        chunks = {text: self.likelihood.chunks(["", text]) for _, text in asked}
        wanted: dict[str, tuple[int, str, int]] = {}
        for place, text in asked:
            for words in ("", text):
                wanted.setdefault(
                    self._key(place, words, chunks[text]), (place, words, chunks[text])
                )
        known = _read_kept(self.folder, wanted)
        missing = [question for key, question in wanted.items() if key not in known]
        for part in track(list(_by_picture(missing)), label="adherence"):
            known |= self._ask(part)
        nothing = np.full(len(self.likelihood.timesteps), np.nan)

        def losses(words: Sequence[str]) -> Array:
            keys = [
                self._key(place, said, chunks[text])
                for (place, text), said in zip(asked, words, strict=True)
            ]
            return np.stack([known.get(key, nothing) for key in keys])

        if not asked:
            return np.zeros((0, len(nothing)))
        return gain(losses([""] * len(asked)), losses([text for _, text in asked]))

    def _ask(self, questions: Sequence[tuple[int, str, int]]) -> dict[str, Array]:
        """Ask about some pictures, and keep the answers."""
        latents = self._latents(list(dict.fromkeys(place for place, _, _ in questions)))
        groups: dict[tuple[int, int], list[str]] = {}
        for place, text, chunks in questions:
            if place in latents:
                groups.setdefault((place, chunks), []).append(text)
        answers = self.likelihood.losses(
            [latents[place] for place, _ in groups],
            list(groups.values()),
            chunks=[chunks for _, chunks in groups],
        )
        found = {
            self._key(place, text, chunks): row
            for ((place, chunks), texts), rows in zip(groups.items(), answers, strict=True)
            for text, row in zip(texts, rows, strict=True)
        }
        if found:
            _keep(self.folder, found)
        return found

    def _latents(self, places: Sequence[int]) -> dict[int, "Tensor"]:
        """Read and encode pictures, those of one size together."""
        sizes: dict[tuple[int, ...], dict[int, Pixels]] = {}
        for place in places:
            with contextlib.suppress(BadInputError, MissingInputError, OSError):
                picture = self.pictures.pictures[place].read(self.pictures.run)
                ready = self._fitted(picture)
                sizes.setdefault(ready.shape, {})[place] = ready
        found: dict[int, Tensor] = {}
        for same in sizes.values():
            for start in range(0, len(same), ENCODED):
                some = list(same)[start : start + ENCODED]
                codes = self.likelihood.base.encode_images(np.stack([same[i] for i in some]))
                found |= zip(some, codes.float().cpu(), strict=True)
        return found

    def _fitted(self, picture: Pixels) -> Pixels:
        """Give a picture sides that the model takes; one larger than its own size is shrunk."""
        base = self.likelihood.base
        unit = base.pixels_per_latent * 2 ** (len(base.unet.config.block_out_channels) - 1)
        height, width = picture.shape[:2]
        shrink = min(1.0, base.size / (height * width) ** 0.5)
        wide, high = (max(1, round(side * shrink / unit)) * unit for side in (width, height))
        return resize_crop(picture, wide, high)

    def _key(self, place: int, text: str, chunks: int) -> str:
        if place not in self._content:
            with contextlib.suppress(OSError):
                self._content[place] = self.pictures.content(self.pictures.pictures[place])
        content = self._content.get(place, f"missing {place}")
        said = hashlib.sha256(f"{chunks}\0{text}".encode()).hexdigest()[:16]
        return f"{content}-{said}"


def listener(
    pictures: PictureSet,
    base: str,
    *,
    strata: int,
    band: tuple[float, float],
    seed: int,
    folder: Path,
) -> Listener:
    """Open a base model to ask about pictures.

    Parameters
    ----------
    pictures : PictureSet
    base : str
        Its name.
    strata : int
        Timesteps, the middles of so many equal parts of the band.
    band : (low, high)
        Shares of the noise schedule.
    seed : int
        Of the noise.
    folder : Path
        The run's folder of features.
    """
    from lorascope.models.base import shared_base
    from lorascope.models.likelihood import Likelihood
    from lorascope.models.sources import base_digest

    opened = shared_base(base)
    timesteps = middles(int(opened.noise.config.num_train_timesteps), strata, band).tolist()
    told = [timesteps, seed, str(opened.compute_dtype), VERSION]
    question = hashlib.sha256(repr(told).encode()).hexdigest()[:12]
    return Listener(
        pictures=pictures,
        likelihood=Likelihood(opened, timesteps=timesteps, seed=seed),
        folder=folder / f"likelihood-{base_digest(base)[:16]}-{question}",
    )


def _by_picture(
    questions: Sequence[tuple[int, str, int]],
) -> Iterator[list[tuple[int, str, int]]]:
    """Cut questions into parts of a few pictures each."""
    places = list(dict.fromkeys(place for place, _, _ in questions))
    parts: dict[int, list[tuple[int, str, int]]] = {}
    part_of = {place: i // AT_ONCE for i, place in enumerate(places)}
    for question in questions:
        parts.setdefault(part_of[question[0]], []).append(question)
    yield from parts.values()


def _read_kept(folder: Path, wanted: Mapping[str, object]) -> dict[str, Array]:
    """Read what was answered before; a torn file is passed over."""
    known: dict[str, Array] = {}
    for file in sorted(folder.glob("*.npz")):
        with contextlib.suppress(*TORN):
            packed = np.load(io.BytesIO(file.read_bytes()), allow_pickle=False)
            rows = zip(packed["keys"].tolist(), packed["losses"], strict=True)
            known |= {key: row.copy() for key, row in rows if key in wanted}
    return known


def _keep(folder: Path, answers: Mapping[str, Array]) -> None:
    name = hashlib.sha256("\0".join(answers).encode()).hexdigest()[:16]
    with storage.replacing(folder / f"{name}.npz") as partial:
        np.savez(partial, keys=np.array(list(answers)), losses=np.stack(list(answers.values())))
