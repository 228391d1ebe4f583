"""Starting and ending the dashboard's server."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from dashboards import launch as starting
from dashboards.folders import find_runs
from lorascope.errors import BadInputError


def test_a_taken_port_gives_way_to_the_next_free_one():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert starting.free_port("127.0.0.1", port) > port


def test_a_foreign_address_is_refused_with_a_way_out():
    with pytest.raises(BadInputError, match="--port"):
        starting.free_port("192.0.2.1", 65530)


def test_a_path_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="lorascope demo"):
        starting.launch([tmp_path / "nothing"], open_browser=False)


def test_a_folder_of_runs_stands_for_its_runs(full_run, empty_run):
    assert find_runs([full_run.parent, empty_run]) == [full_run, empty_run]
    assert find_runs([full_run / "samples"]) == []


def test_what_a_killed_launcher_left_is_swept_away(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                           capture_output=True, text=True, check=True)  # fmt: skip
    left = tmp_path / "lorascope" / "dashboard" / f"{ended.stdout.strip()}-abcd"
    left.mkdir(parents=True)
    site = starting.make_site()
    assert site.is_dir()
    assert not left.exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_on_this_machine_and_ends_cleanly(how, full_run, tmp_path):
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "BROWSER": "true"}
    root = Path(starting.__file__).parent.parent
    process = subprocess.Popen(
        [sys.executable, "-m", "dashboards.launch", str(full_run)],
        cwd=root, env=environment, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # however the tests run
    )  # fmt: skip
    assert process.stdout is not None
    said = process.stdout.readline()
    address = next(word for word in said.split() if word.startswith("http://127.0.0.1:"))
    with urllib.request.urlopen(address, timeout=10) as answer:
        assert answer.status == 200
    process.send_signal(how)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert list((tmp_path / "lorascope" / "dashboard").iterdir()) == []
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address, timeout=5)
