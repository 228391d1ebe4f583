"""The training log can be read while it is written, and goes on where it stopped."""

import math

import pytest

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.train_log import HEADER, LogRow, LogWriter, read_log


def row(step: int, loss: float = 0.125) -> LogRow:
    return LogRow(step=step, epoch=1 + step // 3, loss=loss, lr_unet=1e-4, lr_text=5e-5)


def test_rows_read_back_as_they_were_written(tmp_path):
    with LogWriter(tmp_path / "log.csv") as log:
        for step in range(1, 6):
            log.add(row(step))
    assert read_log(tmp_path / "log.csv") == [row(step) for step in range(1, 6)]
    assert (tmp_path / "log.csv").read_text().splitlines()[0] == HEADER


def test_a_row_can_be_read_before_the_log_is_closed(tmp_path):
    with LogWriter(tmp_path / "log.csv") as log:
        log.add(row(1))
        assert read_log(tmp_path / "log.csv") == [row(1)]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_torn_last_line_is_passed_over_wherever_it_is_torn(tmp_path, cut):
    with LogWriter(tmp_path / "log.csv") as log:
        log.add(row(1))
        log.add(row(2))
    content = (tmp_path / "log.csv").read_bytes()
    (tmp_path / "log.csv").write_bytes(content[:-cut])
    assert read_log(tmp_path / "log.csv") == [row(1)]


def test_going_on_drops_what_came_after_the_saved_step_even_torn(tmp_path):
    with LogWriter(tmp_path / "log.csv") as log:
        for step in range(1, 6):
            log.add(row(step))
    with (tmp_path / "log.csv").open("a") as torn:
        torn.write("6,2,0.1")
    with LogWriter(tmp_path / "log.csv", after=3) as log:
        log.add(row(4, loss=0.5))
    assert read_log(tmp_path / "log.csv") == [row(1), row(2), row(3), row(4, loss=0.5)]


def test_beginning_anew_forgets_the_old_log(tmp_path):
    for _ in range(2):
        with LogWriter(tmp_path / "log.csv") as log:
            log.add(row(1))
    assert read_log(tmp_path / "log.csv") == [row(1)]


def test_a_loss_that_is_no_number_is_kept_for_a_rule_to_find(tmp_path):
    with LogWriter(tmp_path / "log.csv") as log:
        log.add(row(1, loss=math.nan))
    assert math.isnan(read_log(tmp_path / "log.csv")[0].loss)


def test_what_is_no_log_is_refused(tmp_path):
    with pytest.raises(MissingInputError):
        read_log(tmp_path / "log.csv")
    (tmp_path / "log.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadInputError, match="not a training log"):
        read_log(tmp_path / "log.csv")
    (tmp_path / "log.csv").write_text(f"{HEADER}\n1,1,x,0,0\n2,1,0.1,0,0\n")
    with pytest.raises(BadInputError, match="line 2 is damaged"):
        read_log(tmp_path / "log.csv")
