"""Pictures in and out: every doubtful file is named, no half-read picture is ever given."""

import io
import struct
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from lorascope import storage
from lorascope.errors import BadInputError, MissingInputError, ShapeError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
PNG_START = b"\x89PNG\r\n\x1a\n"
MAX_PIXELS = 64_000_000
BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
REPLACE = "Fix: replace the file, or take it out of the folder."
NO_TEXT: Mapping[str, str] = MappingProxyType({})


def read_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read one picture, upright, without transparency.

    Parameters
    ----------
    path : Path
        A file that Pillow can read.
    max_pixels : int
        The most width x height that is accepted, looked at before anything is decoded.

    Returns
    -------
    (H, W, 3) uint8 array
        RGB; turned as its EXIF orientation says; transparent parts are white;
        16-bit greys are reduced to 8.

    Raises
    ------
    MissingInputError
        There is no such file.
    BadInputError
        The file is empty, truncated, too large, not a picture, or may not be read.
    """
    content = read_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is judged below, before decoding
            opened = Image.open(io.BytesIO(content))
        width, height = opened.size
        if width * height > max_pixels:
            raise BadInputError(_too_large(path, f"{width} x {height} px", max_pixels))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd EXIF blocks do not matter
            opened.load()
            return _as_rgb(ImageOps.exif_transpose(opened))
    except Image.DecompressionBombError as error:
        raise BadInputError(_too_large(path, str(error), max_pixels)) from error
    except UnidentifiedImageError as error:
        raise BadInputError(f"{path} is not a picture that can be read.\n{REPLACE}") from error
    except BROKEN as error:
        raise BadInputError(f"{path} is damaged or truncated ({error}).\n{REPLACE}") from error


def read_file(path: Path) -> bytes:
    """Read a file's bytes.

    Raises
    ------
    MissingInputError
        There is no such file.
    BadInputError
        It is empty, a folder, or may not be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise MissingInputError(f"{path} does not exist.\nFix: check the path.") from error
    except OSError as error:
        raise BadInputError(
            f"{path} cannot be read: {error.strerror}.\nFix: check what it is and its rights."
        ) from error
    if not content:
        raise BadInputError(f"{path} is empty (0 bytes).\n{REPLACE}")
    return content


def find_images(folder: Path) -> list[Path]:
    """List the pictures directly in a folder (png, jpg, jpeg, webp, bmp), sorted by name.

    Hidden files are passed over.

    Raises
    ------
    MissingInputError
        There is no such folder.
    BadInputError
        It is a file, or may not be read.
    """
    return [p for p in list_folder(folder) if p.suffix.lower() in ENDINGS and p.is_file()]


def list_folder(folder: Path) -> list[Path]:
    """List what lies in a folder and is not hidden, sorted by name.

    Raises
    ------
    MissingInputError
        There is no such folder.
    BadInputError
        It is a file, or may not be read.
    """
    try:
        return sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except FileNotFoundError as error:
        raise MissingInputError(f"{folder} does not exist.\nFix: check the path.") from error
    except NotADirectoryError as error:
        raise BadInputError(
            f"{folder} is a file, not a folder.\nFix: name the folder that holds the pictures."
        ) from error
    except OSError as error:
        raise BadInputError(
            f"{folder} cannot be read: {error.strerror}.\nFix: chmod u+rx '{folder}'"
        ) from error


def write_png(path: Path, array: NDArray[np.uint8], *, text: Mapping[str, str] = NO_TEXT) -> None:
    """Write a picture as PNG, whole or not at all; the same array gives the same bytes.

    Parameters
    ----------
    path : Path
        The file.
    array : (H, W, 3) or (H, W) uint8 array
        RGB or grey.
    text : mapping
        Keyword to text, kept in the file's text chunks (prompt, seed ...).

    Raises
    ------
    ShapeError
        The array is not a picture.
    StorageError
        The file cannot be written.
    """
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)):
        raise ShapeError(f"a picture is (H, W, 3) uint8, not {array.shape} {array.dtype}")
    info = PngImagePlugin.PngInfo()
    for key, value in text.items():
        info.add_text(key, value)  # tEXt where that can hold it: not every reader knows iTXt
    packed = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(packed, "PNG", pnginfo=info)
    storage.write_bytes(path, packed.getvalue())


def whole_png_size(path: Path) -> tuple[int, int] | None:
    """Say how large a PNG is, if every byte of it is as it was written; nothing is decoded.

    Parameters
    ----------
    path : Path

    Returns
    -------
    (width, height) in px, or None
        None for a missing, cut or damaged file: the checksum of every chunk is compared.
    """
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if not content.startswith(PNG_START):
        return None
    place, size = len(PNG_START), None
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        end = place + 8 + length
        kind, checksum = content[place + 4 : place + 8], content[end : end + 4]
        if zlib.crc32(memoryview(content)[place + 4 : end]).to_bytes(4, "big") != checksum:
            return None
        if kind == b"IHDR":
            width, height = struct.unpack(">II", content[place + 8 : place + 16])
            size = width, height
        if kind == b"IEND":
            return size
        place = end + 4
    return None


def resize_crop(array: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Scale a picture until it covers a size, and cut away what stands over, equally on both sides.

    Parameters
    ----------
    array : (H, W, 3) uint8 array
        The picture; one that has the size already comes back as it is.
    width, height : int
        The size wanted, in px.

    Returns
    -------
    (height, width, 3) uint8 array
        Lanczos; nothing is stretched.
    """
    if array.shape[:2] == (height, width):
        return array
    fitted = ImageOps.fit(Image.fromarray(array), (width, height), Image.Resampling.LANCZOS)
    return np.array(fitted, dtype=np.uint8)


def _as_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Bring any mode to RGB: 16-bit greys scaled, transparency laid on white."""
    if image.mode.startswith("I"):
        grey = np.asarray(image, dtype=np.float64) / 257.0
        image = Image.fromarray(grey.clip(0, 255).round().astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, layer)
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _too_large(path: Path, size: str, max_pixels: int) -> str:
    return (
        f"{path} is too large ({size}; at most {max_pixels // 1_000_000} million px).\n"
        "Fix: scale it down, or take it out of the folder."
    )
