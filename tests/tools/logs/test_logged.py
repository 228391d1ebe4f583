"""Logs of any trainer: described as they are, with their noise, their epochs and what was saved."""

import json
from pathlib import Path

import numpy as np
import pytest

from lorascope.io.checkpoints import Checkpoint
from lorascope.io.train_log import LogRow, LogWriter
from lorascope.metrics import curves
from lorascope.records import Measured
from lorascope.tables import as_csv, column_types
from lorascope.tools.logs import logged
from lorascope.tools.logs import reading as log_reading
from lorascope.tools.logs.logged import NO_BETTER, describe_logs
from tests.tools.conftest import (
    checkpoints,
    events_of,
    losses,
    number,
    series,
)

TAG_COLUMNS = "tag kind part points first_step last_step first last lowest lowest_step".split()
EVENT_COLUMNS = "event step epoch value threshold text".split()


def test_a_kohya_log_is_described_by_its_own_epochs(describe, tmp_path, rng):
    values = losses(rng)
    found = describe(series("loss/current", values), checkpoints=checkpoints(tmp_path))
    rows = found.tables["log_epochs"]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows] == [50, 100, 150, 200, 250, 300]
    assert rows[1]["loss"] == pytest.approx(values[50:100].mean())
    noise = values[50:100].std(ddof=1) / np.sqrt(50)
    assert rows[1]["noise"] == pytest.approx(noise)
    assert (number(found, "log_steps"), number(found, "log_nan")) == (300, 0)
    assert 0.1 < number(found, "log_noise") < 0.2
    assert any("no better than chance" in c for c in found.caveats)
    assert not any("Nothing says" in c for c in found.caveats)


def test_every_table_has_its_columns_and_can_be_written(describe, tmp_path, rng):
    found = describe(
        series("loss/current", losses(rng)),
        series("lr/unet", np.linspace(1e-4, 0, 300)),
        series("strange/tag", [1, np.nan]),
        checkpoints=checkpoints(tmp_path),
    )
    assert set(TAG_COLUMNS) <= set(found.tables["log_tags"][0])
    assert all(set(EVENT_COLUMNS) <= set(row) for row in found.tables["log_events"])
    assert set(found.tables["log_curves"][0]) >= {"tag", "kind", "step", "value"}
    for table in found.tables.values():
        assert column_types(table)
        assert as_csv(table)


def test_steps_from_0_and_steps_from_1_give_the_same_epochs(describe, tmp_path, rng):
    values, saved = losses(rng), checkpoints(tmp_path)
    one = describe(series("loss/current", values), checkpoints=saved).tables["log_epochs"]
    other = describe(series("loss/current", values, np.arange(300)), checkpoints=saved).tables[
        "log_epochs"
    ]
    assert [r["loss"] for r in one] == [r["loss"] for r in other]
    assert [r["step"] - 1 for r in one] == [r["step"] for r in other]


def test_another_unit_of_the_loss_changes_no_dip_and_no_event(describe, tmp_path, rng):
    values, saved = losses(rng, levels=[3, 2, 1, 2, 2, 2, 2, 2, 2, 1]), checkpoints(tmp_path)
    values[120] = 1e6
    one = describe(series("loss/current", values), checkpoints=saved)
    other = describe(series("loss/current", 1e-3 * values), checkpoints=saved)
    for column in ("epoch", "p_noise", "edge", "saved"):
        assert [r[column] for r in one.tables["dips"]] == pytest.approx(
            [r[column] for r in other.tables["dips"]]
        )
    kinds = [[(r["event"], r["step"]) for r in f.tables["log_events"]] for f in (one, other)]
    assert kinds[0] == kinds[1]


def test_gathered_gradients_make_an_epoch_shorter(describe, tmp_path, rng):
    metadata = {"ss_num_batches_per_epoch": "100", "ss_gradient_accumulation_steps": "2"}
    saved = checkpoints(tmp_path, metadata)
    found = describe(series("loss/current", losses(rng)), checkpoints=saved)
    assert len(found.tables["log_epochs"]) == 6


def test_without_metadata_a_loss_logged_by_epoch_tells_the_epochs(describe, rng):
    values = losses(rng, 4)
    found = describe(
        series("loss/current", values, times=np.arange(200.0)),
        series("loss/epoch_average", np.ones(4), [1, 2, 3, 4], times=[49.5, 99.5, 149.5, 199.5]),
    )
    assert [row["step"] for row in found.tables["log_epochs"]] == [50, 100, 150, 200]
    assert [row["steps"] for row in found.tables["log_epochs"]] == [50] * 4


def test_else_the_log_is_cut_at_the_checkpoints(describe, tmp_path, rng):
    saved = checkpoints(tmp_path, {}, steps=(80, 160, 300))
    found = describe(series("loss/current", losses(rng)), checkpoints=saved)
    assert [row["step"] for row in found.tables["log_epochs"]] == [80, 160, 300]
    assert any("cut at the checkpoints" in c for c in found.caveats)


def test_else_it_is_cut_into_parts_that_are_nobodys_epochs(describe, rng):
    found = describe(series("loss/current", losses(rng)))
    assert len(found.tables["log_epochs"]) == log_reading.PARTS
    assert all(row["epoch"] is None for row in found.tables["dips"])
    assert any("equal parts" in c for c in found.caveats)


def test_metadata_of_none_is_no_metadata(describe, tmp_path, rng):
    saved = checkpoints(tmp_path, {"ss_num_batches_per_epoch": "None"}, steps=(300,))
    found = describe(series("loss/current", losses(rng)), checkpoints=saved)
    assert any("equal parts" in c for c in found.caveats)


def test_a_deep_dip_is_no_noise_and_names_what_was_saved(describe, tmp_path, rng):
    levels = [1.0] * 4 + [0.2] * 2 + [1.0] * 6
    saved = checkpoints(tmp_path, steps=(100, 250, 300, 600))
    found = describe(series("loss/current", losses(rng, levels=levels)), checkpoints=saved)
    (dip,) = [row for row in found.tables["dips"] if row["p_noise"] < 0.05]
    assert dip["step"] in (250, 300)
    assert dip["file"] in ("fern-000002.safetensors", "fern-000003.safetensors")
    assert f"step {dip['step']}: {dip['file']}" in dip["saved"]
    assert dip["edge"] is False


def test_dips_of_a_log_of_noise_are_noise(describe, tmp_path, rng):
    saved = checkpoints(tmp_path)
    rows = [
        row
        for _ in range(10)
        for row in describe(series("loss/current", losses(rng, 20)), checkpoints=saved).tables[
            "dips"
        ]
    ]
    assert len(rows) > 25
    assert sum(row["p_noise"] < 0.05 for row in rows) / len(rows) < 0.05


def test_the_last_epoch_of_a_falling_loss_is_an_edge(describe, tmp_path, rng):
    values = losses(rng, levels=[5, 4, 3, 2, 1])
    found = describe(series("loss/current", values), checkpoints=checkpoints(tmp_path))
    assert [(row["epoch"], row["edge"]) for row in found.tables["dips"]] == [(5, True)]


def test_a_checkpoint_saved_by_steps_is_found_by_its_step(describe, tmp_path, rng):
    saved = checkpoints(tmp_path, steps=(30, 60, 260))  # keys 1, 2, 3 in epochs 1, 2, 6
    values = losses(rng, levels=[5, 4, 3, 2.5, 2, 0.5])
    found = describe(series("loss/current", values), checkpoints=saved)
    dips = {row["step"]: row for row in found.tables["dips"]}
    assert dips[300]["file"] == "fern-000003.safetensors"
    assert dips[300]["epoch"] == 3  # the checkpoint's number: what pages and commands call it


def test_a_mean_alone_has_no_noise(describe, tmp_path, rng):
    values = curves.smooth(losses(rng), weight=0.9)
    found = describe(series("loss/average", values), checkpoints=checkpoints(tmp_path))
    rows = found.tables["log_epochs"]
    assert rows[2]["loss"] == values[149]  # what the epoch ends with
    assert all(row["noise"] is None for row in rows)
    assert all(row["p_noise"] is None for row in found.tables["dips"])
    assert "log_noise" not in {n.name for n in found.numbers}
    assert any("trailing mean" in c for c in found.caveats)


@pytest.mark.parametrize("tag", ["smooth_loss/train_step", "loss/epoch_average"])
def test_what_is_averaged_already_says_so(describe, tag, rng):
    found = describe(series(tag, rng.uniform(0.1, 0.2, size=12)))
    assert all(row["noise"] is None for row in found.tables["log_epochs"])
    assert any("averaged already" in c for c in found.caveats)


def test_steps_come_before_means_and_a_plain_loss_before_a_weighted_one(describe, rng):
    values = losses(rng)
    found = describe(
        series("loss/debiased", 9 * values),
        series("loss/average", curves.smooth(values)),
        series("loss/train", values),
    )
    assert found.tables["log"][0]["loss"] == pytest.approx(values[0])
    assert {row["tag"] for row in found.tables["log_curves"]} == {"loss/debiased", "loss/average"}


def test_every_tag_is_listed_with_its_lowest(describe, rng):
    found = describe(
        series("loss/current", [3, np.nan, 1, 2], [10, 20, 30, 40]),
        series("what/is this", [np.nan, np.inf]),
    )
    one, other = found.tables["log_tags"]
    assert (one["points"], one["first_step"], one["last_step"]) == (4, 10, 40)
    assert (one["first"], one["last"], one["lowest"], one["lowest_step"]) == (3, 2, 1, 30)
    assert (other["kind"], other["part"]) == ("other", "what/is this")
    assert other["lowest"] is None


def test_long_curves_are_thinned_and_the_axis_of_epochs_becomes_steps(describe, tmp_path, rng):
    found = describe(
        series("loss/current", losses(rng, 100)),
        series("lr/unet", np.full(5000, 1e-4)),
        series("loss/validation/epoch_average", [0.3, 0.2], [1, 2]),
        checkpoints=checkpoints(tmp_path),
    )
    rows = found.tables["log_curves"]
    assert sum(row["tag"] == "lr/unet" for row in rows) == logged.CURVE_POINTS
    validated = [row for row in rows if row["kind"] == "validation loss"]
    assert [(row["step"], row["axis"]) for row in validated] == [(50, "step"), (100, "step")]


def test_an_epoch_loss_written_at_steps_is_not_taken_for_epochs(describe, rng):
    found = describe(
        series("loss/log_step", losses(rng, 10)),
        series("loss/epoch", np.ones(5), [100, 200, 300, 400, 500]),
    )
    assert [row["step"] for row in found.tables["log_epochs"]] == [100, 200, 300, 400, 500]
    assert {row["axis"] for row in found.tables["log_curves"]} == {"step"}


def test_a_log_without_a_loss_gives_its_tables_and_a_caveat(describe, rng):
    found = describe(series("lr/unet", np.full(20, 1e-4)), series("x", [1.0]))
    assert set(found.tables) == {"log_tags", "log_curves", "log_events"}
    assert any("no training loss" in c for c in found.caveats)
    assert [n.name for n in found.numbers] == ["log_tags"]


def test_damage_becomes_caveats_and_few_of_them(describe, rng):
    damage = tuple(f"a.tfevents is cut at byte {i}." for i in range(30))
    found = describe(series("loss/current", losses(rng)), damage=damage)
    assert sum("cut at byte" in c for c in found.caveats) == logged.DAMAGE_NAMED
    assert any("in 25 more places" in c for c in found.caveats)


def test_no_log_no_events_and_an_empty_log_are_no_error(tmp_path):
    assert describe_logs({}, []) == Measured(numbers=())
    (tmp_path / "train").mkdir()
    assert describe_logs({"events": tmp_path / "train"}, []) == Measured(numbers=())
    with LogWriter(tmp_path / "log.csv"):
        pass
    assert describe_logs({"log": tmp_path / "log.csv"}, []).caveats == (
        "The training log is empty.",
    )


def test_a_log_that_cannot_be_read_is_a_caveat(tmp_path):
    (tmp_path / "log.csv").write_text("nonsense\n1,2\n")
    (caveat,) = describe_logs({"log": tmp_path / "log.csv"}, []).caveats
    assert "left out" in caveat
    assert "not a training log" in caveat


def test_our_own_log_comes_first_and_keeps_its_epochs(tmp_path, rng):
    with LogWriter(tmp_path / "log.csv") as log:
        for step in range(1, 41):
            epoch = (step - 1) // 10 + 1
            value = [5.0, 3.0, 4.0, 4.5][epoch - 1] + (0.1 if step % 2 else -0.1)
            log.add(LogRow(step=step, epoch=epoch, loss=value, lr_unet=1e-4, lr_text=0))
    inputs = {"log": tmp_path / "log.csv", "events": tmp_path}
    found = describe_logs(inputs, [Checkpoint(tmp_path / "fern-000002.safetensors", 2, 20)])
    assert [row["epoch"] for row in found.tables["log_epochs"]] == [1, 2, 3, 4]
    (dip,) = found.tables["dips"]
    assert (dip["epoch"], dip["step"], dip["file"]) == (2, 20, "fern-000002.safetensors")
    assert dip["p_noise"] < 1e-6
    assert [row["tag"] for row in found.tables["log_tags"]] == ["loss", "lr_unet"]


STRANGE = {
    "one step": [0.5],
    "one NaN": [np.nan],
    "zeros": np.zeros(50),
    "below 0": -np.ones(50),
    "as large as a number gets": np.full(50, 1.7e308),
    "always the same": np.full(500, 0.1),
    "infinite": np.full(50, -np.inf),
}


@pytest.mark.parametrize("tag", ["loss/current", "loss/average", "loss/epoch_average", "lr/unet"])
@pytest.mark.parametrize("name", STRANGE)
def test_strange_values_are_described_all_the_same(describe, tag, name):
    found = describe(series(tag, STRANGE[name]))
    assert len(found.tables["log_tags"]) == 1
    assert not events_of(found, "spike")


def test_strange_steps_are_described_all_the_same(describe, tmp_path):
    given = series("loss/current", [1, 2, 3], [-5, 4, 2**62])
    assert len(describe(given).tables["log"]) == 3
    assert len(describe(given, checkpoints=checkpoints(tmp_path)).tables["log"]) == 3


@pytest.mark.slow
def test_real_event_files_are_read(tmp_path, rng):
    from torch.utils.tensorboard import SummaryWriter

    values = losses(rng)
    board = SummaryWriter(str(tmp_path / "events" / "20260101"))
    for step, value in enumerate(values, 1):
        board.add_scalar("loss/current", value, step)
        board.add_scalar("lr/unet", 1e-4, step)
    board.close()
    saved = checkpoints(tmp_path / "lora")
    found = describe_logs({"events": tmp_path / "events"}, saved)
    assert len(found.tables["log_epochs"]) == 6
    assert found.tables["log_epochs"][0]["loss"] == pytest.approx(values[:50].mean(), rel=1e-5)
    assert "constant" in events_of(found, "schedule")[0]["text"]


def test_the_figures_said_of_dips_are_the_measured_ones():
    results = Path(__file__).parents[3] / "benchmarks" / "results" / "dips.json"
    rows = json.loads(results.read_text())
    mean = rows.pop("mean")
    assert len(rows) == 4
    assert f"at random lost {mean['random']:.2f} of" in NO_BETTER
    assert f"smoothed log {mean['dips']:.2f}." in NO_BETTER
    assert mean["dips"] > mean["random"]
