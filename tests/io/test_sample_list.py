"""The list of another trainer's samples: what is damaged is left out, row by row."""

import pytest

from lorascope import tables
from lorascope.io.sample_list import COLUMNS, LIST, read_list, read_sample_list


@pytest.fixture
def text():
    rows = [
        dict.fromkeys(COLUMNS) | {"file": f"{i}.png", "epoch": i, "index": 0, "prompt": "zyx, cat"}
        for i in (1, 2, 3)
    ]
    return tables.as_csv(rows)


def read(folder, text):
    data = text if isinstance(text, bytes) else text.encode()
    (folder / LIST).write_bytes(data)
    return [row["file"] for row in read_sample_list(folder)]


def test_a_list_that_is_whole_gives_all_its_rows(tmp_path, text):
    assert read(tmp_path, text) == ["1.png", "2.png", "3.png"]
    assert read_list(tmp_path).damaged == 0


def test_a_list_cut_anywhere_never_raises_and_keeps_what_came_before(tmp_path, text):
    third = text.index("3.png")
    for end in range(len(text)):
        found = read(tmp_path, text[:end])
        if end >= third:
            assert found[:2] == ["1.png", "2.png"]


@pytest.mark.parametrize(
    "row",
    [
        "2.png",
        "2.png,two,,0,x,,,,,",
        "../2.png,2,,0,x,,,,,",
        "2.png,-2,,0,x,,,,,",
        '"' + "a" * 200_000,
    ],
)
def test_a_damaged_row_is_left_out_alone_and_counted(tmp_path, text, row):
    lines = text.splitlines()
    lines[2] = row
    if row.startswith('"'):
        lines[2] += '"'
    assert read(tmp_path, "\n".join(lines)) == ["1.png", "3.png"]
    assert read_list(tmp_path).damaged == 1


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00", b"\n\n", b"a,b\n1,2\n"])
def test_what_is_no_such_list_gives_no_rows(tmp_path, data):
    assert read(tmp_path, data) == []
    assert not read_sample_list(tmp_path / "nowhere")
