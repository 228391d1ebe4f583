"""Small WebP copies of pictures, and the address a browser finds them under."""

import base64
import functools
import hashlib
import io
import os
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, ImageOps

from dashboards.folders import SERVED, STATIC

SIZE = 256  # px, the longer side of a thumbnail
LARGE = 1024  # px, where two pictures are compared
WORKERS = 4
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def url(path: Path, *, size: int = SIZE) -> str:
    """Give the address of a picture made small; "" where it cannot be read."""
    try:
        state = path.stat()
    except OSError:
        return ""
    return _url(path, state.st_mtime_ns, size, os.environ.get(STATIC, ""))


def urls(paths: Iterable[Path]) -> dict[Path, str]:
    """Give the addresses of many pictures, made side by side."""
    listed = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(WORKERS) as pool:
        return dict(zip(listed, pool.map(url, listed), strict=True))


def shape(path: Path) -> float:
    """Give a picture's width over its height; 1 where it cannot be read."""
    try:
        with Image.open(path) as opened:
            return opened.width / opened.height
    except UNREADABLE:
        return 1.0


@functools.lru_cache(maxsize=20_000)
def _url(path: Path, mtime_ns: int, size: int, static: str) -> str:
    """Serve from the static folder; without one, the picture travels inside its address."""
    if not static:
        content = _webp(path, size)
        return f"data:image/webp;base64,{base64.b64encode(content).decode()}" if content else ""
    folder = Path(static)  # its own name is secret, so nobody can guess an address under it
    name = hashlib.sha256(f"{path}\0{mtime_ns}\0{size}".encode()).hexdigest()[:32] + ".webp"
    if not (folder / name).exists():
        content = _webp(path, size)
        if not content:
            return ""
        partial = folder / f"{name}.{threading.get_ident()}"  # may be lost: no need to sync
        partial.write_bytes(content)
        partial.replace(folder / name)
    return f"{SERVED}/{folder.name}/{name}"


def _webp(path: Path, size: int) -> bytes:
    """Make the small copy; nothing where the file is no picture."""
    try:
        with Image.open(path) as opened:
            small = ImageOps.exif_transpose(opened).convert("RGB")
            small.thumbnail((size, size))
            out = io.BytesIO()
            small.save(out, "WEBP", quality=85, method=2)
    except UNREADABLE:
        return b""
    return out.getvalue()
