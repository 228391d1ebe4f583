"""A run that is still training can be read at any moment, and what was measured stays measured."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lorascope import demo
from lorascope.io.checkpoints import list_checkpoints
from lorascope.miniature.datasets import write_character
from trainer.config import config_from, write_config

pytestmark = pytest.mark.slow

# Two programs that share few cores wait for each other's threads most of the time.
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
QUICK = {"epochs": 40, "repeats": 4, "warmup_steps": 0, "held_out_tag": ""}


def lorascope(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lorascope", *map(str, words)],
        capture_output=True,
        text=True,
        env=ONE_THREAD,
    )


@pytest.fixture
def training(tmp_path: Path):
    """Start a training that would go on for minutes; it is ended with the test."""
    write_character(tmp_path / "set", trigger=demo.TRIGGER, images=8, repeats=4, seed=0)
    settings = {**demo.SETTINGS, **QUICK, "dataset": str(tmp_path / "set")}
    write_config(tmp_path / "fern.toml", config_from(settings))
    words = ["train", str(tmp_path / "fern.toml"), "--out", str(tmp_path / "run")]
    with subprocess.Popen(
        [sys.executable, "-m", "lorascope", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=ONE_THREAD,
    ) as process:
        yield tmp_path / "run"
        os.killpg(process.pid, signal.SIGKILL)


def wait_for(run: Path, epochs: int) -> None:
    ends = time.monotonic() + 300
    while time.monotonic() < ends:
        if (run / "lora").is_dir() and len(list_checkpoints(run / "lora")) >= epochs:
            return
        time.sleep(0.1)
    raise AssertionError(f"{run} never had {epochs} epochs")


def test_a_run_in_training_is_measured_at_any_moment_and_only_what_is_new(training):
    seen: list[int] = []
    for epochs in (1, 3):
        wait_for(training, epochs)
        done = lorascope("loss", training, "--strata", 2, "--draws", 1, "--kept", 2, "--json")
        assert done.returncode == 0, done.stderr
        rows = json.loads(done.stdout)["tables"]["epochs"]
        seen.append(len(rows) - 1)
    assert seen[1] > seen[0] >= 1
    assert "known already" in done.stderr
    assert lorascope("weights", training).returncode == 0
