"""`lorascope grid` as it is typed: the plan, words for epochs, several processes, pages."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks.killing import write_lora_of_noise
from lorascope.cli import asking, cli
from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.dataset_file import Dataset, DatasetImage, write_dataset
from lorascope.io.images import read_image, write_png
from lorascope.models.sources import base_digest
from lorascope.records import Evidence, Measured
from lorascope.report import measures_as_text
from lorascope.run import Run
from tests.conftest import EPOCHS, held_out_curve, measure_all
from tests.painting import replace_engine

FEW = ["--steps", "2", "--prompts", "zyxfern | smile", "--trigger-off", "none", "--draw-only"]


@pytest.fixture
def painter(monkeypatch):
    return replace_engine(monkeypatch)


def typed(*words):
    return CliRunner().invoke(cli, ["grid", *map(str, words)])


def test_a_dry_run_prints_the_plan_and_draws_nothing(tiny_run, painter):
    shown = typed(tiny_run.path, "--dry-run", *FEW)
    assert shown.exit_code == 0, shown.output
    assert f"{EPOCHS + 1} rows x 2 columns" in shown.output
    assert f"{2 * EPOCHS + 2} pictures to draw" in shown.output
    assert not painter.painted
    assert tiny_run.all("grid") == []


def test_the_plan_comes_before_the_pictures(tiny_run, painter):
    shown = typed(tiny_run.path, *FEW)
    assert shown.exit_code == 0, shown.output
    assert f"grid: {2 * EPOCHS + 2} pictures to draw" in shown.output
    again = typed(tiny_run.path, *FEW, "--seeds", "1,2")
    assert f"grid: {2 * EPOCHS + 2} pictures to draw ({2 * EPOCHS + 2} of" in again.output


def test_the_page_and_the_animation_lie_beside_the_pictures(tiny_run, painter):
    shown = typed(tiny_run.path, *FEW, "--gif", "epoch")
    assert shown.exit_code == 0, shown.output
    page, animation = (tiny_run.place("samples") / name for name in ("grid.html", "grid-epoch.gif"))
    assert str(page) in shown.output
    assert "<!doctype html>" in page.read_text().lower()
    with Image.open(animation) as opened:
        assert opened.n_frames == EPOCHS + 1


def test_an_answer_is_drawn_again_where_its_pictures_are_gone(tiny_run, painter):
    typed(tiny_run.path, *FEW)
    count = len(painter.painted)
    typed(tiny_run.path, *FEW)
    assert len(painter.painted) == count
    drawn = tiny_run.latest("grid").table("cells")
    (tiny_run.path / drawn[3]["file"]).unlink()
    (tiny_run.path / drawn[4]["file"]).write_bytes(b"torn")
    typed(tiny_run.path, *FEW)
    assert len(painter.painted) == count + 2


def test_json_holds_the_evidence_and_names_the_page(tiny_run, painter):
    found = json.loads(typed(tiny_run.path, *FEW, "--json").stdout)
    assert found["tool"] == "grid"
    assert len(found["tables"]["cells"]) == 2 * EPOCHS + 2
    assert found["pages"] == [str(tiny_run.place("samples") / "grid.html")]


def test_dips_and_the_pick_are_words_for_epochs(tiny_run):
    with pytest.raises(MissingInputError, match=r"no loss was measured\.\nFix: lorascope loss"):
        asking.meant_epochs(tiny_run, "dips")
    with pytest.raises(MissingInputError, match="no epoch is recommended"):
        asking.meant_epochs(tiny_run, "2,pick")
    measure_all(tiny_run)
    low, high = asking.meant_epochs(tiny_run, "pick").split("-")
    assert 1 <= int(low) < int(high) <= EPOCHS + 1
    assert asking.meant_epochs(tiny_run, "1,pick,last") == f"1,{low}-{high},last"


def test_dips_are_the_saved_epochs_at_a_dip(tiny_run):
    dips = [
        {"epoch": 3, "file": "fern-000003.safetensors"},
        {"epoch": 4, "file": ""},
        {"epoch": 7, "file": "fern-000007.safetensors"},
    ]
    held_out_curve(tiny_run, [-0.1] * EPOCHS, more={"dips": dips})
    assert asking.meant_epochs(tiny_run, "dips") == "3,7"


def test_pictures_are_those_of_the_grid_of_a_trainer_or_of_a_named_grid(tiny_run, painter):
    assert asking.pictures_of(tiny_run, "grid") == {}
    typed(tiny_run.path, *FEW)
    usual = asking.pictures_of(tiny_run, "grid")
    drawn = tiny_run.latest("grid")
    assert asking.pictures_of(tiny_run, drawn.id) == usual
    with pytest.raises(MissingInputError, match="lorascope add samples"):
        asking.pictures_of(tiny_run, "trainer")
    with pytest.raises(BadInputError, match=drawn.id):
        asking.pictures_of(tiny_run, "nonsense")


def test_a_measure_without_a_grid_says_what_to_type(tiny_run):
    shown = CliRunner().invoke(cli, ["likeness", str(tiny_run.path)])
    assert shown.exit_code == 2
    assert f"Fix: lorascope grid {tiny_run.path}" in shown.output


def test_pictures_that_are_there_are_measured_and_not_drawn(tiny_run, painter):
    for more in ("--dry-run", "--draw-only"):
        shown = typed(tiny_run.path, "--pictures", "trainer", more)
        assert shown.exit_code == 2
        assert "draw a grid" in shown.output


def test_rows_of_the_answer_can_be_told_apart(tiny_run, painter):
    typed(tiny_run.path, *FEW, "--strengths", "0.5,1", "--epochs", "1")
    drawn = tiny_run.latest("grid")
    rows = [{**row, "likeness": 0.1} for row in drawn.table("rows")]
    likeness = Evidence(
        tool="likeness",
        version=1,
        params={},
        inputs={},
        measured=Measured(numbers=(), tables={"epochs": rows}),
    )
    said = measures_as_text({"likeness": likeness}, grid=drawn)
    assert "strength  text_strength" in said
    assert "companions" not in said


def test_only_the_first_of_several_processes_measures(tiny_run, painter, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    shown = typed(tiny_run.path, *[w for w in FEW if w != "--draw-only"])
    assert shown.exit_code == 0, shown.output
    assert "measured" not in shown.stdout
    assert not (tiny_run.place("samples") / "grid.html").exists()


@pytest.fixture(scope="module")
def real_run(tmp_path_factory):
    """A run on the miniature, its LoRA of noise."""
    folder = tmp_path_factory.mktemp("real")
    run = Run.create(folder / "run", base="miniature", base_digest=base_digest("miniature"))
    for epoch in (1, 2):
        write_lora_of_noise(run.place("lora") / f"noise-{epoch:06}.safetensors", seed=epoch)
    rng, images = np.random.default_rng(0), []
    for number in range(3):
        write_png(folder / f"{number}.png", rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
        images.append(
            DatasetImage(
                file=f"{number}.png",
                sha256=str(number),
                caption="zyx, smile",
                repeats=1,
                split="train",
                width=64,
                height=64,
            )
        )
    write_dataset(
        run.place("dataset"),
        Dataset(
            root=folder, trigger="zyx", class_word="", resolution=(64, 64), images=tuple(images)
        ),
    )
    return run


ASKED = ["--steps", "3", "--prompts", "zyx, smile|smile|zyx, night|sky", "--seeds", "1-3"]
ASKED += ["--batch", "4", "--draw-only"]


def started(run, **environment):
    words = [sys.executable, "-m", "lorascope", "grid", str(run.path), *ASKED]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(words, env=os.environ | environment, **quiet)


def finished(process):
    """Wait for a process; what it said is shown where it failed."""
    said, _ = process.communicate()
    if process.returncode:
        print(said)
    return process.returncode


def pictures(run):
    return {path.name: path for path in (run.place("samples") / "cells").glob("[!.]*.png")}


def moved_to(run, folder):
    """A copy of a run without its pictures."""
    shutil.copytree(run.path, folder, ignore=shutil.ignore_patterns("samples", "evidence"))
    return Run(folder)


@pytest.mark.slow
def test_two_processes_draw_every_cell_once_and_the_same_as_one(real_run, tmp_path):
    alone = started(real_run)
    assert finished(alone) == 0
    shared = moved_to(real_run, tmp_path / "shared")
    both = [started(shared, RANK=str(rank), WORLD_SIZE="2") for rank in (0, 1)]
    assert [finished(process) for process in both] == [0, 0]
    one, other = pictures(real_run), pictures(shared)
    assert one.keys() == other.keys()
    apart = [abs(read_image(one[name]).astype(int) - read_image(other[name])).max() for name in one]
    assert max(apart) <= 2


@pytest.mark.slow
def test_killed_processes_lose_nothing_that_was_drawn(real_run, tmp_path):
    whole = started(real_run)
    assert finished(whole) == 0
    besieged = moved_to(real_run, tmp_path / "besieged")
    kills = 0
    for least in (4, 12, 20):
        process = started(besieged)
        while process.poll() is None and len(pictures(besieged)) < least:
            time.sleep(0.01)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
    assert kills == 3
    kept = {name: path.stat().st_mtime_ns for name, path in pictures(besieged).items()}
    last = started(besieged)
    assert finished(last) == 0
    one, other = pictures(real_run), pictures(besieged)
    assert one.keys() == other.keys()
    assert all(other[name].stat().st_mtime_ns == moment for name, moment in kept.items())
    for name, path in one.items():
        assert abs(read_image(path).astype(int) - read_image(other[name])).max() <= 2
