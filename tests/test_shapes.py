"""The same code path for real models: each shape goes the whole way, in small."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lorascope.cli.asking import ask
from lorascope.io.images import write_png
from lorascope.run import Run
from lorascope.tools import TOOLS
from lorascope.verdict import verdict
from tests import pipelines
from trainer.config import TrainConfig
from trainer.loop import train

pytestmark = pytest.mark.slow

SMALL = {
    "loss": {"strata": 2, "draws": 1},
    "grid": {"steps": "2", "prompts": "sks cat|sks castle|red hat|house"},
    "heatmap": {"steps": 2},
    "stress": {"strengths": "0,1,2", "form": "both", "steps": 2},
}
SHAPES = {"sd1": pipelines.sd1, "sd2": pipelines.sd2, "sdxl": pipelines.sdxl}


def save(shape: str, folder: Path) -> Path:
    return pipelines.saved(SHAPES[shape](folder / "words"), folder / "base")


@pytest.fixture(params=SHAPES, scope="module")
def trained(request, tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp(request.param)
    base = save(request.param, folder)
    rng = np.random.default_rng(0)
    for i in range(6):
        image = folder / "images" / "2_cat" / f"{i}.png"
        write_png(image, rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
        image.with_suffix(".txt").write_text(f"sks, cat, {'red hat' if i % 2 else 'castle'}")
    config = TrainConfig(
        base=str(base),
        dataset=str(folder / "images"),
        name="sks",
        trigger="sks",
        epochs=2,
        rank=2,
        alpha=2.0,
        unet_lr=1e-2,
        text_lr=1e-3,
        held_out=0.34,
    )
    return train(config, folder / "run")


def test_every_tool_measures_a_lora_trained_on_it(trained):
    for tool in TOOLS:
        evidence = ask(trained, tool, **SMALL.get(tool.name, {}))
        assert evidence.measured.numbers, tool.name
    answer = verdict(trained)
    assert answer.not_measured == ()
    assert [epoch.epoch for epoch in answer.epochs] == [1, 2]


def test_the_lora_changed_what_the_model_predicts(trained):
    loss = next(tool for tool in TOOLS if tool.name == "loss")
    rows = trained.measure(loss, **SMALL["loss"]).table("epochs")
    assert rows[0]["held_out"] == 0
    assert rows[-1]["held_out"] != 0


def test_a_lora_for_another_architecture_is_refused_by_name(trained, tmp_path):
    from lorascope.io.checkpoints import list_checkpoints
    from lorascope.io.lora_file import read_lora
    from lorascope.models.base import load_base
    from lorascope.models.lora import LoraMismatchError, Merger

    shape = load_base(trained.base).family
    other = "sd1" if shape == "sdxl" else "sdxl"
    base = load_base(str(save(other, tmp_path)))
    lora = read_lora(list_checkpoints(trained.place("lora"))[0].path)
    with pytest.raises(LoraMismatchError) as raised:
        Merger(base).apply(dataclasses.replace(lora))
    assert "SDXL" in str(raised.value)
