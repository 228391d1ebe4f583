"""The main job, as a newcomer starts it: one command, from nothing to a verdict."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
