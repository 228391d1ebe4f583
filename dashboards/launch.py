"""Start the dashboard: Streamlit in a process of its own, on this machine only."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from dashboards.folders import STATIC, cache_folder
from lorascope import storage
from lorascope.errors import BadInputError

PORT = 8501  # Streamlit's own
TRIES = 50  # ports after it
PATIENCE_S = 30.0  # until the server answers
SCRIPT = "from dashboards.app import main\nmain()\n"
CONFIG = Path(__file__).parent / "static" / "config.toml"


def launch(
    runs: Sequence[Path],
    *,
    port: int | None = None,
    address: str = "127.0.0.1",
    open_browser: bool = True,
) -> int:
    """Serve the dashboard until Ctrl-C.

    Parameters
    ----------
    runs : sequence of paths
        Run directories, or folders that hold some.
    port : int, optional
        Where to listen; a taken one gives way to the next free one.
    address : str
        This machine's own address, so that nobody else can look in.
    open_browser : bool
        Open the page as soon as it is there.

    Returns
    -------
    int
        0 after Ctrl-C, else Streamlit's own exit status.

    Raises
    ------
    BadInputError
        A path is not there, or no port is free.
    """
    for run in runs:
        if not run.is_dir():
            raise BadInputError(
                f"{run} is not a folder.\nFix: name a run; `lorascope demo` makes one to try."
            )
    port = free_port(address, PORT if port is None else port)
    site = make_site()
    process = _start(site, [run.resolve() for run in runs], address, port)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        url = f"http://{address}:{port}"
        if _answers(url, process):
            print(f"LoraScope: {url}  (Ctrl-C ends it)", flush=True)
            if open_browser:
                webbrowser.open(url)
        return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        signal.signal(signal.SIGTERM, before)
        _stop(process)
        shutil.rmtree(site, ignore_errors=True)


def make_site() -> Path:
    """Write what Streamlit runs: the launcher, its settings, the folder that thumbnails go to."""
    sites = storage.make_folder(cache_folder() / "dashboard")
    _sweep(sites)
    site = sites / f"{os.getpid()}-{secrets.token_hex(4)}"
    storage.write_text(site / "main.py", SCRIPT)
    storage.write_text(site / ".streamlit" / "config.toml", CONFIG.read_text())
    storage.make_folder(_static(site))
    site.chmod(0o700)
    return site


def free_port(address: str, first: int) -> int:
    """Find the first port that nobody listens on.

    Raises
    ------
    BadInputError
        None of the next ports is free, or the address is not this machine's.
    """
    for port in range(first, min(first + TRIES, 65536)):
        with socket.socket() as probe:
            if os.name == "posix":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except (OSError, OverflowError):
                continue
            return port
    raise BadInputError(
        f"No free port on {address} from {first} on.\nFix: name another one with --port."
    )


def _static(site: Path) -> Path:
    """Give the served folder an unguessable name: the one made first, for good."""
    static = storage.make_folder(site / "static")
    return next(iter(static.iterdir()), static / secrets.token_hex(16))


def _start(site: Path, runs: Sequence[Path], address: str, port: int) -> "subprocess.Popen[bytes]":
    options = [f"--server.address={address}", f"--server.port={port}"]
    command = [sys.executable, "-m", "streamlit", "run", str(site / "main.py"), *options]
    source = str(Path(__file__).resolve().parent.parent)
    paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [*command, "--", *map(str, runs)],
        cwd=site,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), STATIC: str(_static(site))},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # its own greeting; ours says where
        start_new_session=True,  # Ctrl-C is for us, we stop it
    )


def _answers(url: str, process: "subprocess.Popen[bytes]") -> bool:
    """Wait until the server answers; False where it ended instead."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    return process.poll() is None


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _sweep(sites: Path) -> None:
    """Remove what a launcher left that was killed."""
    if os.name != "posix":
        return
    for site in sites.glob("*-*"):
        try:
            os.kill(int(site.name.split("-")[0]), 0)
        except (ProcessLookupError, ValueError, OverflowError):
            shutil.rmtree(site, ignore_errors=True)
        except PermissionError:
            continue


if __name__ == "__main__":
    sys.exit(launch([Path(a) for a in sys.argv[1:]]))
