"""VAE: what the base model cannot even store."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import BadInputError
from lorascope.io.dataset_file import Dataset, DatasetImage, read_dataset
from lorascope.io.images import read_image, resize_crop, write_png
from lorascope.metrics import fidelity
from lorascope.metrics.buckets import bucket
from lorascope.metrics.intervals import interval
from lorascope.progress import track
from lorascope.records import Inputs, Measured, Measurement, Row, Tool

Array = NDArray[Any]

CELLS = 32  # of the error maps, on each side


def vae(inputs: Inputs, *, tile: int = 24, pictures: int = 40) -> Measured:
    """Send every image of the dataset through the base model's VAE and back, at training size.

    Parameters
    ----------
    inputs : Inputs
        Reads ``dataset`` and ``base``; writes into ``samples``.
    tile : int
        Side of the square, in px, that is looked for where most was lost.
    pictures : int
        Of how many images the original and the decoded picture are kept; in the dataset's order.

    Returns
    -------
    Measured
        Table ``images``, a row per image (files relative to the run); array ``errors``
        (images, 32, 32), mean absolute difference from 0 to 255, in the order of the table.

    Raises
    ------
    BadInputError
        An image cannot be read, or the dataset has none.
    """
    from lorascope.models.base import load_base

    dataset = read_dataset(inputs["dataset"])
    if not dataset.images:
        raise BadInputError(
            f"{inputs['dataset']} lists no image.\nFix: make the run again from a folder of images."
        )
    base = load_base(str(inputs["base"]))
    names = _names(dataset.images)
    rows: list[Row] = []
    errors: list[Array] = []
    for image in track(dataset.images, label="VAE round trip"):
        original = at_training_size(dataset, image)
        decoded = base.decode(base.encode_images(original[None]))[0]
        kept = (
            _keep(inputs["samples"], names[image.file], original, decoded)
            if len(rows) < pictures
            else {"file_original": "", "file_decoded": ""}
        )
        x, y, worst = fidelity.worst_tile(original, decoded, size=tile)
        rows.append(
            {
                "image": image.file,
                "split": image.split,
                "width": original.shape[1],
                "height": original.shape[0],
                "psnr": fidelity.psnr(original, decoded),
                "ssim": fidelity.ssim(original, decoded),
                "edges": fidelity.edge_retention(original, decoded),
                "worst_x": x,
                "worst_y": y,
                "worst_psnr": worst,
                **kept,
            }
        )
        errors.append(fidelity.error_map(original, decoded, cells=CELLS))
    return Measured(
        numbers=_numbers(rows),
        tables={"images": rows},
        arrays={"errors": np.stack(errors)},
        caveats=_caveats(len(rows), pictures),
    )


def at_training_size(dataset: Dataset, image: DatasetImage) -> Array:
    """Read one image and cut it to the size it is trained at.

    Returns
    -------
    (H, W, 3) uint8 array

    Raises
    ------
    BadInputError
        The image cannot be read.
    """
    size = bucket(image.width, image.height, dataset.resolution[0])
    return np.array(resize_crop(read_image(dataset.path(image)), *size))  # torch wants its own


def _names(images: Sequence[DatasetImage]) -> dict[str, str]:
    """Name the pictures by their stem, and by their folder too where two share one."""
    stems = Counter(Path(image.file).stem for image in images)
    return {
        image.file: Path(image.file).stem
        if stems[Path(image.file).stem] == 1
        else image.file.replace("/", "-").replace(".", "-")
        for image in images
    }


def _keep(samples: Path, name: str, original: Array, decoded: Array) -> dict[str, str]:
    """Write both pictures; give their places relative to the run."""
    places = {}
    for which, picture in (("original", original), ("decoded", decoded)):
        file = samples / "vae" / f"{name}-{which}.png"
        write_png(file, picture)
        places[f"file_{which}"] = f"{samples.name}/vae/{file.name}"
    return places


def _numbers(rows: Sequence[Row]) -> tuple[Measurement, ...]:
    numbers = [Measurement(name="images", value=len(rows), unit="images", n=len(rows))]
    for name, column, unit in (
        ("psnr", "psnr", "dB"),
        ("ssim", "ssim", "1"),
        ("edge_retention", "edges", "1"),
    ):
        values = np.array([row[column] for row in rows], dtype=np.float64)
        numbers.append(
            Measurement(
                name=name,
                value=float(values.mean()),
                unit=unit,
                n=len(rows),
                interval=interval(values),
            )
        )
    worst = min(float(row["worst_psnr"] or 0.0) for row in rows)
    numbers.append(Measurement(name="worst_psnr", value=worst, unit="dB", n=len(rows)))
    return tuple(numbers)


def _caveats(images: int, pictures: int) -> tuple[str, ...]:
    caveats = ["PSNR depends on the content of a picture: compare within the set."]
    if images > pictures:
        caveats.append(f"Pictures were kept of the first {pictures} of {images} images.")
    return tuple(caveats)


VAE = Tool(
    name="vae",
    asks="What detail is lost before training?",
    reads=("dataset", "base"),
    writes=("samples",),
    measure=vae,
)
