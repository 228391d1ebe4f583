"""Adherence: do the pictures show what their prompts ask for, beyond the trigger?"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.dataset_file import read_dataset
from lorascope.metrics.adherence import PromptScale
from lorascope.metrics.intervals import interval
from lorascope.models.encoder_files import NAMED
from lorascope.records import Inputs, Measured, Measurement, Scalar, Tool
from lorascope.tools.pictures.features import encoder_digest, features_of
from lorascope.tools.pictures.likelihoods import Asked, listener
from lorascope.tools.pictures.obeying import (
    CAPTION,
    NEW,
    OTHER,
    Prompt,
    Told,
    asked_of,
    kind_of,
    others_of,
    some_of,
)
from lorascope.tools.pictures.sets import PictureSet, read_pictures

Array = NDArray[Any]

BAND = (0.0, 1.0)  # of the noise schedule: all of it; benchmarks/results/adherence.json
MOST_STRATA = 64
TAKES = "Fix: --features base, --features clip, or a folder with a CLIP."


def adherence(
    inputs: Inputs, *, features: str = "base", strata: int = 8, seed: int = 0
) -> Measured:
    """Tell how far each picture shows what its prompt asks for, the trigger left out.

    Parameters
    ----------
    inputs : Inputs
        Reads ``pictures``, ``dataset`` and ``base``; keeps what it was told in ``features``.
    features : str
        Who judges: base (the base model's own likelihood), clip, or a folder with a CLIP.
    strata : int
        Timesteps that the base model is asked at: two forwards each for a picture.
    seed : int
        Of the noise that the base model is asked under.

    Returns
    -------
    Measured
        Tables ``cells`` (a row per picture whose prompt asks for anything but the trigger) and
        ``epochs`` (a row per row of the set, with means over its pictures).

    Raises
    ------
    BadInputError
        A setting cannot be used; the features know no texts.
    MissingInputError
        There is no such CLIP on this machine.

    Notes
    -----
    gain: how much smaller the base model's loss on a picture is once it is told the text, as a
    share of the loss (``metrics.adherence.gain``); with a CLIP, the cosine of picture and text.
    adherence: the gain on a scale from the base model's pictures of other prompts (0) to its own
    picture of the prompt (1). A prompt that the base model cannot tell in its own pictures is not
    testable and does not count.

    adherence_caption counts prompts that are captions of training images, adherence_new those
    with the trigger that are not: a LoRA that knows its captions by heart obeys only the former.
    adherence_other counts prompts without the trigger.

    A picture costs 2 x strata forwards; a prompt ``OTHERS`` x strata more, once.
    """
    _check(strata)
    dataset = read_dataset(inputs["dataset"])
    pictures = read_pictures(inputs["pictures"], dataset)
    wanted = tuple(asked_of(picture.prompt, dataset) for picture in pictures.pictures)
    others = others_of(pictures, wanted)
    asked = {(place, text) for place, text in enumerate(wanted) if text}
    asked |= {(place, text) for (_, text), places in others.items() for place in places}
    if features == "base":
        gains, doubts = _of_base(inputs, pictures, sorted(asked), strata, seed)
    else:
        gains, doubts = _of_clip(inputs, pictures, sorted(asked), features)
    floor = 0.0 if features == "base" else -np.inf  # a text that says nothing gains nothing
    told = Told(pictures=pictures, dataset=dataset, texts=wanted, gains=gains)
    scales = told.scales(others, floor=floor)
    cells = list(told.cells(scales))
    forwards = strata * (len(gains) + len({place for place, _ in gains}))  # without a text, once
    return Measured(
        numbers=tuple(_numbers(told, scales, forwards, features)),
        tables={"cells": cells, "epochs": list(told.epochs(cells))},
        caveats=(*doubts, *told.doubts(scales)),
    )


def _check(strata: int) -> None:
    if not 1 <= strata <= MOST_STRATA:
        raise BadInputError(
            f"strata is {strata}, and must be from 1 to {MOST_STRATA}.\n"
            "Fix: lorascope adherence --help"
        )


def _judge(options: Mapping[str, Scalar]) -> Mapping[str, str]:
    """Say which bytes the judge is."""
    with _judging(str(options["features"])):
        return encoder_digest(options)


@contextlib.contextmanager
def _judging(name: str) -> Iterator[None]:
    """Refuse what knows no texts before it is opened, and say what would be taken."""
    if name.partition(":")[0] in (*NAMED, "latents", "dinov2"):
        raise BadInputError(f"{name} describes pictures and no texts.\n{TAKES}")
    try:
        yield
    except MissingInputError as error:
        if name == "clip":  # how to get it is said already
            raise
        raise MissingInputError(f"{str(error).splitlines()[0]}\n{TAKES}") from error


def _of_base(
    inputs: Inputs, pictures: PictureSet, asked: Sequence[Asked], strata: int, seed: int
) -> tuple[dict[Asked, Array], tuple[str, ...]]:
    """Ask the base model what the texts tell it about the pictures."""
    if not asked:
        return {}, ()
    ask = listener(
        pictures,
        str(inputs["base"]),
        strata=strata,
        band=BAND,
        seed=seed,
        folder=inputs["features"],
    )
    told = ask.gains(asked)
    return dict(zip(asked, told, strict=True)), ()


def _of_clip(
    inputs: Inputs, pictures: PictureSet, asked: Sequence[Asked], name: str
) -> tuple[dict[Asked, Array], tuple[str, ...]]:
    """Compare pictures and texts as CLIP sees them."""
    from lorascope.models.encoders import Clip, load_encoder

    with _judging(name):
        clip = load_encoder(name)
    if not isinstance(clip, Clip):
        raise BadInputError(f"{name} describes pictures and no texts.\n{TAKES}")
    if not asked:
        return {}, ()
    seen = features_of(pictures, clip, inputs["features"]).astype(np.float64)
    texts = list(dict.fromkeys(text for _, text in asked))
    said = dict(zip(texts, clip.texts(texts).astype(np.float64), strict=True))
    long = [text for text in texts if clip.too_long(text)]
    doubts = (
        [f"CLIP reads {clip.window} tokens, and not the end of: {some_of(long)}."] if long else []
    )
    blind = seen.shape[1] == 0  # no picture could be read
    found = {
        (place, text): np.array([np.nan if blind else seen[place] @ said[text]])
        for place, text in asked
    }
    return found, tuple(doubts)


def _numbers(
    told: Told, scales: Mapping[Prompt, PromptScale], forwards: int, features: str
) -> Iterator[Measurement]:
    """Count the prompts, and say what the scale was laid between."""
    known = [scale for scale in scales.values() if scale.known]
    prompts = len(scales)
    yield Measurement(name="prompts", value=prompts, unit="prompts", n=prompts)
    yield Measurement(name="testable", value=len(known), unit="prompts", n=prompts)
    unit = "1" if features == "base" else "cosine"
    for name, values in (
        ("gain_base", [scale.one for scale in known]),
        ("gain_other", [scale.zero for scale in known]),
    ):
        if values:
            between = interval(np.array(values)) if len(values) > 1 else None
            value = float(np.mean(values))
            yield Measurement(name=name, value=value, unit=unit, n=len(known), interval=between)
    kinds = Counter(kind_of(p, told.dataset) for p in told.pictures.pictures if told.texts[p.cell])
    for kind in (CAPTION, NEW, OTHER):
        n = kinds[kind]
        yield Measurement(name=f"{kind}_pictures", value=n, unit="pictures", n=n)
    if features == "base":
        n = len(told.gains)
        yield Measurement(name="forwards", value=forwards, unit="forwards", n=n)


ADHERENCE = Tool(
    name="adherence",
    asks="Do the pictures show what their prompts ask for?",
    reads=("pictures", "dataset", "base"),
    writes=("features",),
    named=_judge,
    measure=adherence,
    page="grid",
)
