"""Captions: the text file beside a picture, and the tags in it."""

from pathlib import Path

from lorascope.errors import BadInputError


def read_caption(image_path: Path, *, extension: str = ".txt") -> str:
    """Read the caption of a picture: the first line of the text file beside it.

    Parameters
    ----------
    image_path : Path
        The picture; its caption has the same name with another ending.
    extension : str
        The caption's ending.

    Returns
    -------
    str
        Stripped; empty where there is no file or nothing in it.

    Raises
    ------
    BadInputError
        The file may not be read, or is not text in UTF-8.
    """
    path = image_path.with_suffix(extension)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise BadInputError(
            f"{path} is not text in UTF-8 ({error.reason} at byte {error.start}).\n"
            "Fix: save it as UTF-8."
        ) from error
    except OSError as error:
        raise BadInputError(
            f"{path} cannot be read: {error.strerror}.\nFix: check what it is and its rights."
        ) from error
    lines = text.replace("\0", "").strip().splitlines()
    return lines[0].strip() if lines else ""


def split_tags(caption: str) -> list[str]:
    """Split a caption into its comma-separated tags, stripped, empty ones dropped."""
    return [tag for part in caption.split(",") if (tag := part.strip())]
