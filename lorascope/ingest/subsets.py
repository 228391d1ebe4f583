"""What a dataset config says of its folders, put into a run's dataset: repeats and captions."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lorascope.errors import LorascopeError
from lorascope.ingest.carry import Say
from lorascope.io.captions import read_caption
from lorascope.io.dataset_file import DatasetImage, read_dataset, write_dataset
from lorascope.io.folders import scan_training_folder
from lorascope.io.foreign.settings import Settings, Subset
from lorascope.run import Run

TEXT = ".txt"  # the usual ending of captions


def subsets_by_folder(settings: Settings, paths: Sequence[Path]) -> dict[Path, Subset]:
    """Match the folders that were found with what is told of them; none where they are others."""
    names = [Path(subset.folder.replace("\\", "/")).name for subset in settings.subsets]
    if [path.name for path in paths] != names:
        return {}
    return {p.resolve(): subset for p, subset in zip(paths, settings.subsets, strict=True)}


def spoken(word: str, told: dict[Path, Subset]) -> bool:
    """Tell whether captions agree that a word is the trigger: it stands in one, or none is there.

    sd-scripts takes the class tokens only where an image has no caption.
    """
    captions = [
        caption
        for folder, subset in told.items()
        for image in _images(folder)
        if (caption := _caption(image, subset.caption_ending or TEXT))
    ]
    return not captions or any(word in caption for caption in captions)


def put_subsets(run: Run, told: dict[Path, Subset], say: Say) -> None:
    """Give each image the repeats and the caption that its folder's entry stands for."""
    dataset = read_dataset(run.place("dataset"))
    root = dataset.root.resolve()

    def as_told(image: DatasetImage) -> DatasetImage:
        path = root / image.file
        subset = told.get(path.parent)
        if subset is None or image.split != "train":
            return image
        ending = subset.caption_ending or TEXT
        caption = image.caption if ending == TEXT else _caption(path, ending)
        return replace(image, repeats=subset.repeats, caption=caption)

    images = tuple(as_told(image) for image in dataset.images)
    if images != dataset.images:
        write_dataset(run.place("dataset"), replace(dataset, images=images))
    endings = sorted({s.caption_ending for s in told.values()} - {"", TEXT})
    if endings:
        known = sum(bool(image.caption) for image in images)
        say(
            f"The captions were read from {', '.join(endings)} files, as the dataset config says: "
            f"{known} of {len(images)} images have one."
        )


def _images(folder: Path) -> list[Path]:
    try:
        return [path for path, _ in scan_training_folder(folder)]
    except LorascopeError:
        return []


def _caption(image: Path, ending: str) -> str:
    try:
        return read_caption(image, extension=ending)
    except LorascopeError:
        return ""
