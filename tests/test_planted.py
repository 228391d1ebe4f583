"""Faults planted into a real training on the miniature, found by the real tools."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lorascope import demo
from lorascope.cli import cli
from lorascope.io.checkpoints import list_checkpoints
from lorascope.io.images import write_png
from lorascope.io.lora_file import read_lora, write_lora
from lorascope.miniature.datasets import write_character
from trainer.config import config_from
from trainer.loop import train

pytestmark = pytest.mark.slow

BARELY = {"epochs": 2, "unet_lr": 1e-4, "warmup_steps": 0}


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> dict:
    """Train far too little on a spoilt dataset, spoil the last file, and ask for the verdict."""
    folder = tmp_path_factory.mktemp("planted")
    pictures = write_character(folder / "set", trigger=demo.TRIGGER, images=12, repeats=4, seed=0)
    for caption in sorted(Path(pictures).rglob("*.txt"))[:8]:
        caption.write_text(caption.read_text().removeprefix(f"{demo.TRIGGER}, "))
    fine = np.random.default_rng(0).integers(0, 2, (128, 128, 1), dtype=np.uint8) * 255
    write_png(sorted(Path(pictures).rglob("*.png"))[-1], np.repeat(fine, 3, axis=2))
    settings = {**demo.SETTINGS, **BARELY, "dataset": str(folder / "set")}
    run = train(config_from(settings), folder / "run")
    last = list_checkpoints(run.place("lora"))[-1].path
    lora = read_lora(last)
    next(iter(lora.modules.values())).up[0, 0] = np.nan
    write_lora(last, list(lora.modules.values()), lora.metadata)
    done = CliRunner().invoke(cli, ["diagnose", str(run.path), "--json"])
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == 1, done.output
    found: dict = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("code", ["WGT-NAN", "TAG-ACT-MISSING", "VAE-DETAIL-LOSS", "FIT-UNDER"])
def test_the_fault_is_named(said, code):
    assert any(finding["code"].startswith(code) for finding in said["findings"])


def test_nothing_is_called_good(said):
    assert said["outcome"] == "fail"
    assert {epoch["fit"] for epoch in said["epochs"]} <= {"underfit", "uncertain"}
