"""Contact sheets: everything in its place, at a size that can be looked at."""

import numpy as np
import pytest

from lorascope.errors import ShapeError
from lorascope.io.contact_sheet import LARGEST, MOST_LINES, SMALLEST, contact_sheet, shown_size

RED, BLUE = (255, 0, 0), (0, 0, 255)


def picture(colour, width=128, height=128):
    return np.full((height, width, 3), colour, dtype=np.uint8)


def sheet_of(rows=2, columns=3, size=(128, 128), text="smile", **options):
    cells = [[picture(RED, *size) for _ in range(columns)] for _ in range(rows)]
    return contact_sheet(
        cells,
        rows=[(f"epoch {i}", "") for i in range(rows)],
        columns=[(text, "caption")] * columns,
        **options,
    )


def count(sheet, colour):
    return int((sheet == colour).all(axis=2).sum())


def test_every_cell_is_on_the_sheet_whole():
    assert count(sheet_of(rows=2, columns=3), RED) == 2 * 3 * 128 * 128


def test_the_sheet_is_as_large_as_cells_gaps_margins_and_labels():
    one, more = sheet_of(rows=1, columns=1), sheet_of(rows=3, columns=4)
    assert more.shape[1] - one.shape[1] == 3 * (128 + 4)
    assert more.shape[0] - one.shape[0] == 2 * 128 + 12 + 4  # the first row is set apart


def test_columns_of_another_group_are_set_apart():
    cells = [[picture(RED), picture(BLUE)]]
    rows = [("base model", "")]
    same = contact_sheet(cells, rows=rows, columns=[("a", "edit"), ("b", "edit")])
    apart = contact_sheet(cells, rows=rows, columns=[("a", "edit"), ("b", "class")])
    assert apart.shape[1] - same.shape[1] == 8


def test_cells_stand_in_their_order():
    cells = [[picture(RED), picture(BLUE)]]
    sheet = contact_sheet(cells, rows=[("base", "")], columns=[("a", ""), ("b", "")])
    red = np.argwhere((sheet == RED).all(axis=2))
    blue = np.argwhere((sheet == BLUE).all(axis=2))
    assert red[:, 1].max() < blue[:, 1].min()
    assert red[:, 0].min() == blue[:, 0].min()


def test_an_empty_place_stays_empty():
    sheet = contact_sheet([[picture(RED), None]], rows=[("1", "")], columns=[("", "")] * 2)
    assert count(sheet, RED) == 128 * 128
    assert count(sheet, (236, 238, 241)) == 128 * 128


def test_a_long_prompt_is_wrapped_and_ends_in_an_ellipsis():
    short, long = sheet_of(text="smile"), sheet_of(text="a very long prompt " * 200)
    assert short.shape[1] == long.shape[1]
    line = 12 + 4
    assert long.shape[0] - short.shape[0] == (MOST_LINES - 1) * line


def test_a_word_without_a_break_and_odd_letters_do_no_harm():
    sheet = sheet_of(text="x" * 500 + "\x00\n\u200b ü 猫")
    assert sheet.shape[1] == sheet_of().shape[1]


def test_a_title_makes_the_sheet_taller_and_wide_enough():
    assert sheet_of(title="a").shape[0] > sheet_of().shape[0]
    assert sheet_of(columns=1, title="word " * 80).shape[1] > 1000


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((128, 128), (128, 128)),
        ((1024, 1024), (LARGEST, LARGEST)),
        ((64, 64), (SMALLEST, SMALLEST)),
        ((1024, 512), (LARGEST, LARGEST // 2)),
    ],
)
def test_pictures_are_shown_neither_too_small_nor_too_large(size, shown):
    assert shown_size(*size) == shown
    assert count(sheet_of(1, 1, size), RED) == shown[0] * shown[1]


def test_very_many_pictures_get_smaller_so_that_the_sheet_stays_usable():
    side, _ = shown_size(1024, 1024, cells=4000)
    assert side < 128
    assert 4000 * side * side <= 40_000_000


def test_pictures_of_two_sizes_are_refused():
    cells = [[picture(RED), picture(RED, 64, 64)]]
    with pytest.raises(ShapeError, match="one size"):
        contact_sheet(cells, rows=[("1", "")], columns=[("a", ""), ("b", "")])


def test_labels_must_fit_the_pictures():
    with pytest.raises(ShapeError, match="do not fill"):
        contact_sheet([[picture(RED)]], rows=[("1", "")], columns=[("a", ""), ("b", "")])
