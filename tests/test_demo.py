"""The main job, as a newcomer starts it: one command, from nothing to a verdict."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lorascope import demo as settings
from lorascope.io.checkpoints import list_checkpoints
from lorascope.io.dataset_file import read_dataset, write_dataset
from lorascope.io.scan import scan_images
from lorascope.miniature.datasets import write_character
from lorascope.run import Run
from lorascope.tools import LOSS
from lorascope.tools.loss import loss
from lorascope.verdict import verdict

pytestmark = pytest.mark.slow


def lorascope(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lorascope", *map(str, words)], capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("runs") / "demo"
    done = lorascope("demo", "--out", out, "--no-open")
    assert done.returncode == 0, done.stderr
    return out, done.stdout


@pytest.fixture(scope="module")
def said(demo):
    done = lorascope("diagnose", demo[0], "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_verdict_is_on_stdout(demo):
    assert "is the one to take" in demo[1]


def test_early_epochs_are_underfit_the_middle_is_usable_and_the_end_overfit(said):
    fits = [epoch["fit"] for epoch in said["epochs"]]
    assert fits[0] == "underfit"
    assert "good" in fits
    assert fits[-1] == "overfit"
    order = [fits.index(fit) for fit in ("underfit", "good", "overfit")]
    assert order == sorted(order)


def test_the_pick_is_a_usable_epoch(said):
    by_epoch = {epoch["epoch"]: epoch["fit"] for epoch in said["epochs"]}
    assert by_epoch[said["best"]["epoch"]] == "good"
    assert said["best"]["epoch"] in said["best"]["set"]


def test_nothing_is_left_unmeasured_and_nothing_is_broken(said):
    assert said["not_measured"] == []
    assert not [f for f in said["findings"] if f["severity"] == "error"]


def test_the_second_time_everything_is_answered_from_the_store(demo):
    before = {p: p.stat().st_mtime_ns for p in demo[0].rglob("*") if p.is_file()}
    again = lorascope("demo", "--out", demo[0], "--no-open")
    assert again.returncode == 0, again.stderr
    after = {p: p.stat().st_mtime_ns for p in demo[0].rglob("*") if p.is_file()}
    assert after == before
    assert again.stdout == demo[1]


def test_the_held_out_loss_turns_within_one_epoch_of_the_oracles(demo, tmp_path):
    """The oracle asks forty new drawings of the character; only a drawn world has any number."""
    run = Run(demo[0])
    few = turn(run.latest("loss").measured)
    dataset = read_dataset(run.input("dataset"))
    write_character(tmp_path / "new", trigger=settings.TRIGGER, images=40, seed=7919)
    new = scan_images(tmp_path / "new", say=lambda _: None)
    seen = {image.sha256 for image in dataset.images}
    unseen = tuple(replace(i, split="held-out") for i in new if i.sha256 not in seen)
    many = tmp_path / "many" / "train" / "dataset.json"
    write_dataset(many, replace(dataset, root=tmp_path / "new", images=unseen))
    inputs = {"lora": run.input("lora"), "dataset": many, "base": Path(run.base)}
    oracle = turn(loss(inputs, strata=8, draws=1, kept=0))
    assert few["images"] == 6 and oracle["images"] > 30
    assert few["turned"] and oracle["turned"]
    assert abs(few["turn_epoch"] - oracle["turn_epoch"]) <= 1


def test_a_run_that_is_too_short_shows_no_turn_and_says_so(demo, tmp_path):
    run = Run(demo[0])
    (tmp_path / "lora").mkdir()
    for checkpoint in list_checkpoints(run.input("lora"))[:5]:
        shutil.copy(checkpoint.path, tmp_path / "lora")
    short = Run.create(tmp_path / "short", base=run.base, base_digest=run.info["base"]["digest"])
    (tmp_path / "lora").rename(short.place("lora"))
    write_dataset(short.place("dataset"), read_dataset(run.input("dataset")))
    found = short.measure(LOSS, strata=4, draws=1, kept=0)
    assert not turn(found.measured)["turned"]
    assert any(finding.code == "SEL-NO-TURN" for finding in verdict(short).findings)


def turn(measured):
    return next(row for row in measured.tables["turns"] if row["set"] == "held-out")


def test_every_page_of_the_dashboard_opens_on_it(demo):
    from streamlit.testing.v1 import AppTest

    views = Path(__file__).parents[1] / "dashboards" / "views"
    for view in sorted(views.glob("*.py")):
        page = AppTest.from_file(str(view), default_timeout=60)
        page.session_state["run"] = str(demo[0])
        page.run()
        assert not page.exception, view.name


def test_a_dataset_that_was_mended_is_not_drawn_over(demo):
    caption = next((demo[0].parent / "demo-dataset").rglob("*.txt"))
    before = caption.read_text()
    caption.write_text("mended")
    lorascope("demo", "--out", demo[0], "--no-open")
    assert caption.read_text() == "mended"
    caption.write_text(before)
