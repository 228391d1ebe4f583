"""Stress by sampling: the same prompts and noise, drawn at every strength."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import BadInputError
from lorascope.io.checkpoints import Checkpoint
from lorascope.io.contact_sheet import thumbnail
from lorascope.io.dataset_file import Dataset
from lorascope.io.images import read_image
from lorascope.metrics.artefacts import Usual, artefact_z, joint_z, measured, z_scores
from lorascope.metrics.likeness import LikenessScale
from lorascope.models.shots import Shot
from lorascope.tools.artefacts import training_values
from lorascope.tools.drawing.cells import Applied, Cell, Weights, make_cell
from lorascope.tools.drawing.draw import draw
from lorascope.tools.pictures.features import encoder_of, features_of_images, kept_features
from lorascope.tools.pictures.own_encoders import Encoder

if TYPE_CHECKING:
    from lorascope.models.base import Base

Floats = NDArray[np.float64]
Picture = NDArray[np.uint8]

MOST_REFERENCES = 64  # images of each side of the split
FEW_REFERENCES = 4  # held-out images, below which the training images are the reference


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """What one checkpoint drew at every strength.

    Attributes
    ----------
    strengths : (S,) array
        Rising, 0 first.
    cells : list of S lists of N Cells
    values : (S, N, K) array
        `artefacts.MEASURES`.
    z : (S, N) array
        Artefact z, against strength 0 of the same prompt and noise and the training images.
    worst : (S, N) int array
        Which measure that is.
    likeness : (S, N) array or None
        0 the base model, 1 the training images among themselves.
    thumbs : list of S lists of N pictures
    """

    strengths: Floats
    cells: list[list[Cell]]
    values: Floats
    z: Floats
    worst: NDArray[np.int64]
    likeness: Floats | None
    thumbs: list[list[Picture]]


def drawn(
    base: "Base",
    dataset: Dataset,
    checkpoint: Checkpoint,
    shots: Sequence[Shot],
    strengths: Sequence[float],
    *,
    samples: Path,
    features: Path,
    encoder: str,
    batch: int,
    shown: tuple[int, int],
) -> tuple[Drawn, list[str]]:
    """Draw what is missing, and measure it.

    Parameters
    ----------
    base : Base
        Without any LoRA.
    dataset : Dataset
    checkpoint : Checkpoint
    shots : sequence of Shot
        N prompts and seeds.
    strengths : sequence of float
        Rising, 0 first.
    samples, features : Path
        Folders of the run.
    encoder : str
        What likeness is measured by; see `features.encoder_of`.
    batch : int
        Pictures drawn at once.
    shown : (width, height)
        Of the thumbnails, in px.

    Returns
    -------
    drawn : Drawn
    doubts : list of str

    Raises
    ------
    BadInputError
        No training image can be read, or the LoRA does not fit the base model.
    """
    cells = [
        [make_cell(_weights(base.name, checkpoint, strength), shot) for shot in shots]
        for strength in strengths
    ]
    seen_by = encoder_of(encoder, base)  # before the drawing: it may be missing
    draw([cell for row in cells for cell in row], samples, batch=batch, label="stress")
    values, thumbs = _measured(cells, samples, shown)
    size = (shots[0].width, shots[0].height)
    trained, doubts = training_values(dataset, size)
    if not len(trained):
        raise BadInputError("No training image can be read.\nFix: lorascope add dataset RUN FOLDER")
    training, usual = Usual.among(trained), Usual.among(values[0])
    joint = np.stack(
        [joint_z(z_scores(row, values[0], usual), z_scores(row, None, training)) for row in values]
    )
    likeness = _likeness(dataset, cells, size, seen_by, samples, features)
    if likeness is None:
        doubts.append("Likeness was not measured: the base model's pictures are as near already.")
    return Drawn(
        strengths=np.asarray(strengths, dtype=float),
        cells=cells,
        values=values,
        z=np.stack([artefact_z(row) for row in joint]),
        worst=joint.argmax(axis=2),
        likeness=likeness,
        thumbs=thumbs,
    ), doubts


def _weights(base: str, checkpoint: Checkpoint, strength: float) -> Weights:
    applied = Applied(path=checkpoint.path, strength=strength, text_strength=strength)
    return Weights(base=base, loras=(applied,))


def _measured(
    cells: Sequence[Sequence[Cell]], samples: Path, shown: tuple[int, int]
) -> tuple[Floats, list[list[Picture]]]:
    """Measure every picture and keep it small."""
    values: list[list[Floats]] = []
    thumbs: list[list[Picture]] = []
    for row in cells:
        values.append([])
        thumbs.append([])
        for cell in row:
            picture = read_image(cell.path(samples))
            values[-1].append(measured(picture))
            thumbs[-1].append(np.asarray(thumbnail(picture, *shown)))
    return np.array(values), thumbs


def _likeness(
    dataset: Dataset,
    cells: Sequence[Sequence[Cell]],
    size: tuple[int, int],
    encoder: Encoder,
    samples: Path,
    features: Path,
) -> Floats | None:
    """Place every picture on the scale from the base model's to the training images."""
    every = [cell for row in cells for cell in row]
    raw = kept_features(
        [cell.name for cell in every],
        lambda place: read_image(every[place].path(samples)),
        encoder,
        features,
    ).astype(np.float64)
    sides = []
    for images in (dataset.train, dataset.held_out):
        some = images[:: max(1, -(-len(images) // MOST_REFERENCES))]
        if not some:
            sides.append(raw[:0])
            continue
        seen = features_of_images(dataset, some, size, encoder, features).astype(np.float64)
        whole = np.isfinite(seen).all(axis=1) & bool(seen.shape[1])
        sides.append(seen[whole] if whole.any() else raw[:0])
    training, held_out = sides
    if len(training) < 2:
        return None
    own = held_out if len(held_out) >= FEW_REFERENCES else None
    placed = LikenessScale.between(raw[: len(cells[0])], training, own).likeness(raw)
    return None if placed is None else placed.reshape(len(cells), -1)
