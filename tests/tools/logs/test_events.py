"""What happened in a log is told: NaN, spikes, trends, levels, schedules, norms, and traps."""

import numpy as np
import pytest

from lorascope.records import Measured
from lorascope.tools.logs.events import MOST_EVENTS
from tests.tools.conftest import TRAINED, checkpoints, events_of, losses, number, series


def test_nan_is_named_where_it_begins(describe, tmp_path, rng):
    values = losses(rng)
    values[120:] = np.nan
    found = describe(series("loss/current", values), checkpoints=checkpoints(tmp_path))
    (row,) = events_of(found, "nan")
    assert (row["step"], row["epoch"], row["value"]) == (121, 3, 180)
    assert "never a number again" in row["text"]
    assert number(found, "log_nan") == 180
    assert [r["epoch"] for r in found.tables["log_epochs"]] == [1, 2, 3]


def test_a_log_of_nan_alone_is_described(describe, tmp_path):
    found = describe(series("loss/current", np.full(60, np.nan)))
    assert events_of(found, "nan")[0]["step"] == 1
    assert found.tables["log_epochs"] == []
    assert found.tables["dips"] == []


def test_spikes_next_to_each_other_count_once(describe, rng):
    values = losses(rng, 20)
    values[[300, 303, 700]] = 1e3, 1e4, 1e3
    found = describe(series("loss/current", values))
    assert [(r["step"], r["value"]) for r in events_of(found, "spike")] == [(304, 1e4), (701, 1e3)]
    assert not events_of(describe(series("loss/current", losses(rng, 20))), "spike")


@pytest.mark.parametrize(("every", "spikes"), [(1, 1), (5, 1), (6, 2), (50, 2)])
def test_spikes_are_apart_by_steps_and_not_by_places(describe, rng, every, spikes):
    values = losses(rng, 20)
    values[[300, 302]] = 1e3, 1e4
    found = describe(series("loss/current", values, every * np.arange(1, 1001)))
    assert len(events_of(found, "spike")) == spikes


def test_neighbours_in_a_sparse_log_are_one_spike(describe, rng):
    values = losses(rng, 20)
    values[[300, 301]] = 1e3, 1e4
    found = describe(series("loss/current", values, 50 * np.arange(1, 1001)))
    assert [row["step"] for row in events_of(found, "spike")] == [50 * 302]


def test_a_thousand_spikes_are_cut_to_the_highest(describe, rng):
    values = losses(rng, 100)
    values[::40] = 1e4
    assert len(events_of(describe(series("loss/current", values)), "spike")) == MOST_EVENTS


def test_a_loss_that_runs_away_is_named(describe, tmp_path, rng):
    levels = np.concatenate([np.linspace(2, 1, 30), np.geomspace(1, 8, 10)])
    found = describe(series("loss/current", losses(rng, levels=levels)))
    (row,) = events_of(found, "diverging")
    assert row["value"] > 1
    assert row["step"] > 900
    steady = describe(series("loss/current", losses(rng, levels=np.linspace(2, 1, 40))))
    assert not events_of(steady, "diverging")


def test_a_resting_loss_and_a_change_of_level_are_named(describe, tmp_path, rng):
    quiet = np.repeat([1.0, 0.5], 600) * (1 + 0.02 * rng.normal(size=1200))
    found = describe(series("loss/current", quiet), checkpoints=checkpoints(tmp_path))
    (row,) = events_of(found, "level")
    assert (row["epoch"], row["value"]) == (13, pytest.approx(-0.5, abs=0.01))
    (rest,) = events_of(found, "plateau")
    assert 550 <= rest["step"] <= 900


def test_noise_has_no_levels(describe, tmp_path, rng):
    saved = checkpoints(tmp_path)
    for _ in range(12):
        noise = describe(series("loss/current", losses(rng, 24)), checkpoints=saved)
        assert not events_of(noise, "level")


def test_a_schedule_is_told_once_for_equal_rates(describe, rng):
    rate = np.concatenate([np.linspace(1e-6, 1e-4, 30), np.linspace(1e-4, 1e-5, 200)])
    found = describe(
        series("loss/current", losses(rng)), series("lr/group1", rate), series("lr/unet", rate)
    )
    assert [r["tag"] for r in events_of(found, "schedule")] == ["lr/unet"]
    assert "linear-like" in events_of(found, "schedule")[0]["text"]
    assert events_of(found, "warmup end")[0]["step"] == 30
    assert events_of(found, "final rate")[0]["value"] == pytest.approx(0.1)


def test_constant_rates_restarts_and_adaptive_rates_are_told(describe, rng):
    cosine = np.tile(0.5 * (1 + np.cos(np.pi * np.arange(100) / 100)), 3)
    found = describe(
        series("lr/unet", np.ones(300)),
        series("lr/textencoder", cosine),
        series("lr/d*lr/unet", np.geomspace(1e-6, 1e-3, 300)),
    )
    texts = [row["text"] for row in events_of(found, "schedule")]
    assert any("lr/unet is constant" in text for text in texts)
    assert any("cosine-like" in text and "2 restart" in text for text in texts)
    assert [row["step"] for row in events_of(found, "restart")] == [101, 201]
    assert events_of(found, "adaptive rate")[0]["value"] == pytest.approx(1000)


def test_the_knee_of_the_largest_norm_and_the_share_of_held_modules(describe, tmp_path, rng):
    saved = checkpoints(tmp_path, {**TRAINED, "ss_scale_weight_norms": "1.0"})
    norm = np.minimum(np.arange(300) / 100, 1.0)
    found = describe(
        series("max_norm/max_key_norm", norm),
        series("max_norm/keys_scaled", np.where(np.arange(300) > 100, 1, 0)),
        checkpoints=saved,
    )
    (row,) = events_of(found, "max-norm knee")
    assert row["step"] == pytest.approx(101, abs=3)
    assert (row["value"], row["threshold"]) == (pytest.approx(1, abs=0.03), 1.0)
    assert events_of(found, "max-norm scaled")[0]["value"] == 0.5  # 1 of 2 modules
    growing = describe(series("max_norm/max_key_norm", np.arange(300.0)), checkpoints=saved)
    assert not events_of(growing, "max-norm knee")


def traps(found: Measured) -> set:
    return {row["tag"] for row in events_of(found, "trap")}


def test_the_traps_of_a_kohya_validation_are_named(describe, tmp_path, rng):
    metadata = {
        **TRAINED,
        "ss_validation_split": "0.1",
        "ss_validation_seed": "None",
        "ss_min_snr_gamma": "5.0",
        "ss_debiased_estimation": "True",
    }
    found = describe(
        series("loss/current", losses(rng)),
        series("loss/average", losses(rng)),
        series("loss/validation/epoch_divergence", [0.1, 0.2], [1, 2]),
        series("loss/validation/epoch_average", [0.1, 0.2], [1, 2]),
        checkpoints=checkpoints(tmp_path, metadata),
    )
    assert traps(found) == {
        "loss/average",
        "loss/validation/epoch_divergence",
        "loss/validation/epoch_average",
        "ss_validation_split",
        "ss_min_snr_gamma",
        "ss_debiased_estimation",
    }
    leak = next(r for r in events_of(found, "trap") if r["tag"] == "ss_validation_split")
    assert "nine in ten validation images" in leak["text"]


def test_a_seed_of_its_own_and_no_weighting_are_no_traps(describe, tmp_path, rng):
    metadata = {
        **TRAINED,
        "ss_validation_split": "0.1",
        "ss_validation_seed": "0",
        "ss_min_snr_gamma": "None",
        "ss_debiased_estimation": "False",
    }
    saved = checkpoints(tmp_path, metadata)
    assert traps(describe(series("loss/current", losses(rng)), checkpoints=saved)) == set()


def recorded(true: list[float], within: int) -> list[float]:
    """What a trainer shows that appends in its first epoch and replaces the first later."""
    kept: list[float] = []
    shown = []
    for i, value in enumerate(true):
        kept = [*kept, value] if i < within else [value, *kept[1:]]
        shown.append(float(np.mean(kept)))
    return shown


def test_validations_that_stay_for_ever_are_found_and_worked_back(describe, tmp_path, rng):
    true = [1.0, 0.9, 0.8, 0.6, 0.5]
    shown = recorded(true, 3)
    assert shown[-1] == pytest.approx(0.733, abs=1e-3)
    found = describe(
        series("loss/current", losses(rng)),
        series("loss/validation/step_average", shown, [10, 20, 30, 60, 110]),
        checkpoints=checkpoints(tmp_path),
    )
    row = next(r for r in events_of(found, "trap") if r["value"] is not None)
    assert row["value"] == pytest.approx(0.5)
    assert "3 values in the first epoch" in row["text"]


def test_one_validation_in_the_first_epoch_stays_nowhere(describe, tmp_path, rng):
    found = describe(
        series("loss/current", losses(rng)),
        series("loss/validation/step_average", [0.5, 0.4], [50, 100]),
        checkpoints=checkpoints(tmp_path),
    )
    assert all("first epoch" not in row["text"] for row in events_of(found, "trap"))


def test_onetrainer_validates_at_one_timestep(describe, rng):
    found = describe(
        series("loss/train_step", losses(rng)),
        series("loss/validation_step/cats", [0.3, 0.2], [100, 200]),
    )
    (row,) = events_of(found, "trap")
    assert "one timestep" in row["text"]
