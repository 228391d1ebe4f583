"""Images that meet a dataset again: known by their bytes, each keeps its side of the split."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from lorascope.io.dataset_file import DatasetImage, Split

Placed = Mapping[Path, DatasetImage]  # where each image lies


@dataclass(frozen=True, kw_only=True, slots=True)
class Clash:
    """An image that is on another side already, and stays there."""

    path: Path  # where it was named now
    side: Split  # where it is
    copy: bool  # the image of the dataset lies elsewhere


@dataclass(kw_only=True)
class Merged:
    """A dataset's images with those of one more folder.

    Attributes
    ----------
    images : dict of Path to DatasetImage
    new : list of Path
        Not in the dataset before.
    there : list of Path
        In it already: at this place, or as the same bytes at another.
    found : list of Path
        In it already, where their old place holds them no longer.
    turned : list of DatasetImage
        As they were before they changed sides.
    twins : list of Path
        Of new images, those with the bytes of another; each adds its repeats to that one's.
    captions : int
        How many known images have another caption now.
    edited : list of Path
        At the place of a known image, with other bytes; taken for the same image.
    lost : list of Path
        Known images whose place another known image has taken; they are left out.
    missing : list of Path
        Known images that lie nowhere.
    clashes : list of Clash
    """

    images: dict[Path, DatasetImage] = field(default_factory=dict)
    new: list[Path] = field(default_factory=list)
    there: list[Path] = field(default_factory=list)
    found: list[Path] = field(default_factory=list)
    turned: list[DatasetImage] = field(default_factory=list)
    twins: list[Path] = field(default_factory=list)
    captions: int = 0
    edited: list[Path] = field(default_factory=list)
    lost: list[Path] = field(default_factory=list)
    missing: list[Path] = field(default_factory=list)
    clashes: list[Clash] = field(default_factory=list)

    @property
    def allowed(self) -> bool:
        """Whether something is left to do, and no image of the dataset itself was named."""
        some = bool(self.new or self.turned) or not self.clashes
        return some and all(clash.copy for clash in self.clashes)


def merge(known: Placed, scanned: Placed, split: Split | None, *, ours: bool) -> Merged:
    """Put a folder's images to those of a dataset.

    Parameters
    ----------
    known, scanned : mapping of Path to DatasetImage
        The dataset's, and the folder's.
    split : Split, optional
        The side that the user named. Without one, new images are taken as trained on.
    ours : bool
        Our own trainer trained on them, so that sides and captions are facts. Of another
        trainer's folder, ingest takes all images as trained on; by moving some of them its user
        says that these were not.
    """
    done = Merged()
    known_as = _matched(known, scanned)
    by_bytes: dict[str, list[Path]] = {}
    for place, image in known.items():
        by_bytes.setdefault(image.sha256, []).append(place)
    fresh: dict[str, Path] = {}
    for path, image in scanned.items():
        if (at := known_as.get(path)) is not None:
            same = by_bytes.get(image.sha256, [])
            free = not ours and bool(same) and all(_gone(o, known[o], scanned) for o in same)
            _take_known(done, path, image, known[at], at, split, free=free, ours=ours)
        elif image.sha256 in by_bytes:
            side = known[by_bytes[image.sha256][0]].split
            if split in (None, side):
                done.there.append(path)
            else:
                done.clashes.append(Clash(path=path, side=side, copy=True))
        elif image.sha256 in fresh:
            first = fresh[image.sha256]
            repeats = done.images[first].repeats + image.repeats
            done.images[first] = replace(done.images[first], repeats=repeats)
            done.twins.append(path)
        else:
            fresh[image.sha256] = path
            done.images[path] = replace(image, split=split or "train")
            done.new.append(path)
    _keep_others(done, known, set(known_as.values()))
    return done


def count_of(things: Iterable[object], verb: tuple[str, str] = ("", "")) -> str:
    """Count images in words: ``1 image is``, ``3 images are``."""
    count = len(list(things))
    return f"{'1 image' if count == 1 else f'{count} images'} {verb[count != 1]}".rstrip()


def _matched(known: Placed, scanned: Placed) -> dict[Path, Path]:
    """Say which image of the dataset a scanned one is: path -> its place in the dataset.

    The same bytes at the same place; else the same bytes, whose old place holds them no longer;
    else other bytes at the place of an image that was not found elsewhere: it was edited.
    """
    found = {p: p for p, i in scanned.items() if p in known and known[p].sha256 == i.sha256}
    homeless: dict[str, list[Path]] = {}
    for at, image in known.items():
        if at not in found and _gone(at, image, scanned):
            homeless.setdefault(image.sha256, []).append(at)
    for path, image in scanned.items():
        if path not in found and homeless.get(image.sha256):
            found[path] = homeless[image.sha256].pop(0)
    bytes_known = {image.sha256 for image in known.values()}
    taken = set(found.values())
    for path, image in scanned.items():
        if path not in found and path in known and path not in taken:
            if image.sha256 not in bytes_known:
                found[path] = path
    return found


def _gone(at: Path, image: DatasetImage, scanned: Placed) -> bool:
    if at in scanned:
        return scanned[at].sha256 != image.sha256
    return not _there(at)


def _there(path: Path) -> bool:
    """Tell whether a file lies there; where that may not be looked at, it is not taken for gone."""
    try:
        return path.is_file()
    except OSError:
        return True


def _take_known(
    done: Merged,
    path: Path,
    image: DatasetImage,
    before: DatasetImage,
    at: Path,
    split: Split | None,
    *,
    free: bool,
    ours: bool,
) -> None:
    """Take an image that the dataset has already, at its place or found at another."""
    side = before.split
    if split is not None and split != side:
        if not free:
            done.clashes.append(Clash(path=path, side=side, copy=False))
            return
        side = split
        done.turned.append(before)
    caption = before.caption if ours or not image.caption else image.caption
    done.captions += caption != before.caption
    done.images[path] = replace(image, split=side, caption=caption, repeats=before.repeats)
    if image.sha256 != before.sha256:
        done.edited.append(path)
    if path == at:
        done.there.append(path)
    elif side == before.split:
        done.found.append(path)


def _keep_others(done: Merged, known: Placed, matched: set[Path]) -> None:
    """Keep the images of the dataset that were not named; a dead twin of one found is dropped."""
    bytes_there = {image.sha256 for image in done.images.values()}
    for at, image in known.items():
        if at in matched:
            continue
        if at in done.images:
            done.lost.append(at)
        elif _there(at):
            done.images[at] = image
        elif image.sha256 not in bytes_there:
            done.images[at] = image
            done.missing.append(at)
