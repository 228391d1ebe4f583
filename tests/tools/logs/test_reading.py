"""Logs meet what was saved, wherever their steps begin; trainings over again are told apart."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from lorascope.io import event_file
from lorascope.io.checkpoints import Checkpoint, list_checkpoints
from lorascope.tools.logs.logged import describe_logs
from lorascope.tools.logs.reading import PARTS
from tests.event_records import scalar, written
from tests.tools.conftest import TRAINED, checkpoints, losses, series

DIP_IN_2 = [1, 0.2, 1, 1, 1, 1]

from_0_and_1 = pytest.mark.parametrize("first", [0, 1])


def write_log(folder: Path, steps, values=None, tag: str = "loss/current") -> None:
    with SummaryWriter(str(folder)) as board:
        for place, step in enumerate(steps):
            board.add_scalar(tag, 0.1 if values is None else values[place], step)


def ends(found) -> list[int]:
    return [row["step"] for row in found.tables["log_epochs"]]


def deepest(found) -> dict:
    return min(found.tables["dips"], key=lambda row: row["loss"])


# Checkpoints


@from_0_and_1
@pytest.mark.parametrize("every", [1, 10])
def test_a_log_is_cut_at_all_its_checkpoints_wherever_its_steps_begin(
    describe, tmp_path, rng, first, every
):
    saved = checkpoints(tmp_path, {}, steps=(50, 100, 150))
    steps = np.arange(first, 150 + first, every)
    found = describe(series("loss/current", losses(rng, 3)[::every], steps), checkpoints=saved)
    assert ends(found) == [first + end - every for end in (50, 100, 150)]
    assert [row["steps"] for row in found.tables["log_epochs"]] == [50 // every] * 3


@from_0_and_1
@pytest.mark.parametrize("metadata", [TRAINED, {}], ids=["stated", "cut"])
def test_a_dip_meets_the_checkpoint_of_its_epoch_wherever_steps_begin(
    describe, tmp_path, rng, first, metadata
):
    saved = checkpoints(tmp_path, metadata, steps=(50, 100, 150, 200, 250, 300))
    given = series("loss/current", losses(rng, levels=DIP_IN_2), np.arange(first, 300 + first))
    dip = deepest(describe(given, checkpoints=saved))
    assert (dip["epoch"], dip["file"]) == (2, "fern-000002.safetensors")
    assert dip["saved"] == "epoch 2, step 100: fern-000002.safetensors"


@from_0_and_1
def test_a_dip_where_nothing_was_saved_has_its_epoch_wherever_steps_begin(
    describe, tmp_path, rng, first
):
    saved = checkpoints(tmp_path, steps=(50,))
    given = series("loss/current", losses(rng, levels=DIP_IN_2), np.arange(first, 300 + first))
    dip = deepest(describe(given, checkpoints=saved))
    assert (dip["epoch"], dip["file"]) == (2, "")


@from_0_and_1
def test_a_log_of_every_tenth_step_meets_its_checkpoints_too(describe, tmp_path, rng, first):
    steps = np.arange(first, 300 + first, 10)
    values = np.repeat(DIP_IN_2, 5) * rng.uniform(0.09, 0.1, 30)
    for metadata in (TRAINED, {}):
        saved = checkpoints(tmp_path, metadata, steps=(50, 100, 150, 200, 250, 300))
        found = describe(series("loss/current", values, steps), checkpoints=saved)
        assert [row["steps"] for row in found.tables["log_epochs"]] == [5] * 6
        dip = deepest(found)
        assert (dip["epoch"], dip["file"]) == (2, "fern-000002.safetensors")


def test_an_epoch_of_nan_alone_leaves_its_checkpoint_to_no_other(describe, tmp_path, rng):
    values = losses(rng, levels=[5, 4, 3, 2, 1, 0.1])
    values[200:250] = np.nan
    saved = checkpoints(tmp_path, steps=(50, 100, 150, 200, 250))
    dip = deepest(describe(series("loss/current", values), checkpoints=saved))
    assert (dip["epoch"], dip["step"], dip["saved"]) == (6, 300, "")


@pytest.mark.parametrize("first", [-20, 0, 1])
def test_a_checkpoint_of_unknown_step_cuts_no_log(describe, tmp_path, rng, first):
    saved = checkpoints(tmp_path, {}, steps=(0, 60, 120))
    given = series("loss/current", losses(rng), np.arange(300) + first)
    assert len(ends(describe(given, checkpoints=saved))) == PARTS
    more = [*saved, Checkpoint(tmp_path / "fern-000004.safetensors", 4, 200)]
    shift = int(first == 0)
    assert ends(describe(given, checkpoints=more))[:3] == [60 - shift, 120 - shift, 200 - shift]


def test_a_checkpoint_behind_the_end_of_a_log_is_in_none_of_its_epochs(describe, tmp_path, rng):
    saved = checkpoints(tmp_path, {}, steps=(50, 100, 150, 1000))
    found = describe(series("loss/current", losses(rng, levels=[3, 2, 2, 1])), checkpoints=saved)
    dip = deepest(found)
    assert (dip["step"], dip["edge"], dip["saved"]) == (200, True, "")


@pytest.mark.parametrize("step", [2**62, 2**63, 10**30, -7])
@pytest.mark.parametrize("metadata", [TRAINED, {}], ids=["stated", "cut"])
def test_a_checkpoint_of_a_step_that_cannot_be_is_met_by_no_dip(
    describe, tmp_path, rng, step, metadata
):
    saved = checkpoints(tmp_path, metadata, steps=(50, 100, 150, step))
    values = losses(rng, levels=[3, 2, 2, 2, 2, 1])
    for first in (0, 1):
        found = describe(series("loss/current", values, np.arange(300) + first), checkpoints=saved)
        assert all(str(step) not in dip["saved"] for dip in found.tables["dips"])
        assert found.tables["dips"]


# An ingested run, its checkpoints saved by steps


@pytest.fixture
def by_steps(tmp_path):
    """Give the checkpoints of a training that was saved at steps, as `list_checkpoints` numbers."""

    def saved(metadata, *, last: bool = False):
        folder = tmp_path / "lora"
        folder.mkdir()
        for checkpoint in checkpoints(tmp_path, metadata, steps=(250, 500, 750)):
            shutil.move(checkpoint.path, folder / f"fern-step{checkpoint.step:08}.safetensors")
        if last:
            (file,) = [one.path for one in checkpoints(tmp_path, metadata, steps=(0,))]
            shutil.move(file, folder / "fern.safetensors")
        return list_checkpoints(folder)

    return saved


@from_0_and_1
def test_steps_of_an_ingested_run_cut_its_log_and_meet_its_dips(tmp_path, rng, by_steps, first):
    levels = np.repeat([1, 0.2, 1], 5)
    write_log(tmp_path / "logs", range(first, 750 + first), losses(rng, levels=levels))
    saved = by_steps({})
    assert [(c.epoch, c.step) for c in saved] == [(1, 250), (2, 500), (3, 750)]
    found = describe_logs({"events": tmp_path / "logs"}, saved)
    assert [row["epoch"] for row in found.tables["log_epochs"]] == [1, 2, 3]
    assert [row["steps"] for row in found.tables["log_epochs"]] == [250, 250, 250]
    (dip,) = found.tables["dips"]
    assert (dip["epoch"], dip["file"]) == (2, "fern-step00000500.safetensors")


@from_0_and_1
def test_numbers_of_steps_are_not_taken_for_epochs_of_the_log(tmp_path, rng, by_steps, first):
    levels = np.ones(15)
    levels[[3, 9]] = 0.3, 0.1  # the fourth epoch, and the tenth, which ends at step 500
    write_log(tmp_path / "logs", range(first, 750 + first), losses(rng, levels=levels))
    found = describe_logs({"events": tmp_path / "logs"}, by_steps(TRAINED, last=True))
    assert len(found.tables["log_epochs"]) == 15
    dips = {row["step"] + 1 - first: row for row in found.tables["dips"]}
    assert (dips[500]["epoch"], dips[500]["file"]) == (2, "fern-step00000500.safetensors")
    # The last state is the fourth, and tells no step: it is not that of the fourth epoch.
    assert (dips[200]["epoch"], dips[200]["file"]) == (None, "")


# Trainings that count the same steps


def over_again(found) -> list[str]:
    return [caveat for caveat in found.caveats if "count the same steps" in caveat]


def test_one_file_of_something_else_does_not_hide_the_log_of_two_folders(tmp_path):
    write_log(tmp_path / "20260101", range(1, 101))
    write_log(tmp_path / "20260102", range(91, 201))
    (tmp_path / "20260102" / "notes.tfevents.txt").write_text("a text of some length\n")
    found = describe_logs({"events": tmp_path}, [])
    assert found.tables["log_tags"][0]["last_step"] == 200
    assert any("Passed over" in caveat for caveat in found.caveats)
    assert not any("left out" in caveat for caveat in found.caveats)


def test_every_event_file_is_read_once(tmp_path, monkeypatch):
    write_log(tmp_path / "20260101", range(1, 101))
    write_log(tmp_path / "20260102", range(1, 51))
    read, once = [], event_file._read_file

    def counting(path, *given, **named):
        read.append(path)
        return once(path, *given, **named)

    monkeypatch.setattr(event_file, "_read_file", counting)
    assert over_again(describe_logs({"events": tmp_path}, []))
    assert len(read) == len(set(read)) == 2


def test_a_training_that_counts_its_steps_again_is_told_from_one_that_goes_on(tmp_path):
    write_log(tmp_path / "20260101", range(1, 101))
    write_log(tmp_path / "20260102", range(91, 201))
    assert not over_again(describe_logs({"events": tmp_path}, []))
    write_log(tmp_path / "20260103", range(1, 51))
    (told,) = over_again(describe_logs({"events": tmp_path}, []))
    assert "2 trainings that count the same steps (1 to 200, then 1 to 50)" in told


def test_trainings_are_named_by_the_steps_that_overlap(tmp_path):
    spans = [(1, 101), (1, 61), (61, 121), (121, 181)]
    for day, span in enumerate(spans, 1):
        write_log(tmp_path / f"2026010{day}", range(*span))
    (told,) = over_again(describe_logs({"events": tmp_path}, []))
    assert "2 trainings that count the same steps (1 to 100, then 1 to 180)" in told


def test_settings_in_a_folder_of_their_own_are_no_training(tmp_path):
    write_log(tmp_path / "20260101", range(1, 101))
    write_log(tmp_path / "20260101" / "hparams", [0], tag="hparams")
    assert not over_again(describe_logs({"events": tmp_path}, []))


# A resumed training that begins at step 0 again

DIP_AT_60 = [*np.ones(40), *np.full(20, 0.1)]
TWO_STARTS = {1: 900.0, 2: 1900.0}  # s; the logs begin 100 s later


@pytest.fixture
def resumed(tmp_path):
    """Give the log and the checkpoints of a training of 60 steps, and of 60 more."""

    def make(
        *,
        counted=True,
        stated=True,
        epochs=(1, 2, 3, 4, 5, 6),
        first=1,
        tag="loss/current",
        late=0.0,
    ):
        for session in (1, 2):
            values = DIP_AT_60 if session == 2 else np.ones(60)
            parts = [
                scalar(tag, first + place, value, at=1000.0 * session + place)
                for place, value in enumerate(values)
            ]
            written(tmp_path / "logs" / f"2026010{session}" / "network_train", b"".join(parts))
        saved = []
        for place, epoch in enumerate(epochs):
            session, step = place // 3 + 1, 20 * (place % 3 + 1)
            about = {"ss_num_batches_per_epoch": "20", "ss_epoch": str(epoch)}
            if stated:
                about["ss_training_started_at"] = str(TWO_STARTS[session] + late)
                about["ss_training_finished_at"] = str(1000.0 * session + step + late)
            shown = step + 60 * (session - 1) * counted
            (tmp_path / str(place)).mkdir()
            (one,) = checkpoints(tmp_path / str(place), about, steps=(shown,))
            path = one.path.rename(tmp_path / f"fern-{place + 1:06}.safetensors")
            saved.append(Checkpoint(path, epoch, shown))
        return describe_logs({"events": tmp_path / "logs"}, sorted(saved, key=lambda c: c.epoch))

    return make


@from_0_and_1
@pytest.mark.parametrize("counted", [True, False], ids=["counted on", "from 0 again"])
def test_a_resumed_training_is_one_curve_whose_dips_meet_its_own_files(resumed, first, counted):
    found = resumed(counted=counted, first=first)
    assert ends(found) == [step + first - 1 for step in (20, 40, 60, 80, 100, 120)]
    assert found.tables["log_tags"][0]["points"] == 120
    dip = deepest(found)
    assert dip["saved"] == "epoch 6, step 120: fern-000006.safetensors"
    (told,) = over_again(found)
    assert "resumed" in told
    assert "counted on, by 60." in told


def test_steps_of_files_beyond_each_log_tell_that_a_training_was_resumed(resumed):
    assert deepest(resumed(stated=False))["saved"] == "epoch 6, step 120: fern-000006.safetensors"


@pytest.mark.parametrize("late", [-9e4, 9e4])
def test_where_another_clock_was_used_the_starts_are_told_apart_by_their_order(resumed, late):
    found = resumed(counted=False, late=late)
    assert deepest(found)["saved"] == "epoch 6, step 120: fern-000006.safetensors"


def test_files_of_trainings_whose_logs_are_gone_meet_no_dip(resumed):
    found = resumed(counted=False, epochs=(1, 2, 3), late=9e4)
    assert deepest(found)["saved"] == ""


def test_a_loss_of_epochs_alone_is_not_counted_on_in_steps(resumed):
    found = resumed(tag="loss/epoch_average")
    (told,) = over_again(found)
    assert "the latest is shown alone" in told


def test_vast_steps_are_not_added_up(tmp_path):
    saved = []
    for session in (1, 2):
        at = 1000.0 * session
        steps = [scalar("loss/current", step, 1.0, at=at) for step in (1, 2, 2**62)]
        written(tmp_path / "logs" / str(session), b"".join(steps))
        (tmp_path / str(session)).mkdir()
        about = {"ss_training_started_at": str(TWO_STARTS[session])}
        (one,) = checkpoints(tmp_path / str(session), about, steps=(2,))
        saved.append(Checkpoint(one.path, session, 2))
    (told,) = over_again(describe_logs({"events": tmp_path / "logs"}, saved))
    assert "the latest is shown alone" in told


def test_another_try_is_shown_alone_and_meets_no_file_of_the_one_before(resumed):
    found = resumed(counted=False, epochs=(2, 4, 6, 1, 3, 5))
    assert found.tables["log_tags"][0]["points"] == 60
    assert deepest(found)["saved"] == "epoch 5, step 60: fern-000006.safetensors"
    (told,) = over_again(found)
    assert "the latest is shown alone" in told


def test_a_try_that_saved_nothing_meets_no_file_of_the_one_before(resumed):
    found = resumed(counted=False, epochs=(1, 2, 3))
    assert deepest(found)["saved"] == ""
    assert found.tables["log_tags"][0]["points"] == 60


def test_a_training_that_went_on_from_a_state_before_the_end_of_its_log_does_those_steps_again(
    tmp_path,
):
    for session, count in ((1, 50), (2, 40)):  # stopped at step 50, resumed from the state of 40
        steps = b"".join(
            scalar("loss/current", step, float(session), at=1000.0 * session + step)
            for step in range(1, count + 1)
        )
        written(tmp_path / "logs" / str(session), steps)
    saved = []
    for epoch, session, step in ((1, 1, 20), (2, 1, 40), (3, 2, 20), (4, 2, 40)):
        about = {"ss_num_batches_per_epoch": "20", "ss_epoch": str(epoch)}
        about["ss_training_started_at"] = str(TWO_STARTS[session])
        (tmp_path / str(epoch)).mkdir()
        (one,) = checkpoints(tmp_path / str(epoch), about, steps=(step,))
        saved.append(Checkpoint(one.path, epoch, step))
    found = describe_logs({"events": tmp_path / "logs"}, saved)
    assert [row["loss"] for row in found.tables["log_epochs"]] == [1.0, 1.0, 2.0, 2.0]
    assert ends(found) == [20, 40, 60, 80]
