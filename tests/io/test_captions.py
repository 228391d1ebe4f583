"""Captions are the first line of the text file beside a picture."""

import pytest

from lorascope.errors import BadInputError
from lorascope.io.captions import read_caption, split_tags


def test_the_first_line_is_read_and_stripped(tmp_path):
    (tmp_path / "a.txt").write_text("\n  fern, green leaf \nanother line\n")
    assert read_caption(tmp_path / "a.png") == "fern, green leaf"


def test_a_missing_or_empty_caption_is_empty(tmp_path):
    (tmp_path / "b.txt").write_text(" \n\t\n")
    (tmp_path / "c.txt").touch()
    assert [read_caption(tmp_path / f"{n}.png") for n in "abc"] == ["", "", ""]


def test_another_ending_can_be_asked_for(tmp_path):
    (tmp_path / "a.caption").write_text("fern")
    assert read_caption(tmp_path / "a.png", extension=".caption") == "fern"
    assert read_caption(tmp_path / "a.png") == ""


def test_a_name_with_dots_keeps_all_but_its_ending(tmp_path):
    (tmp_path / "a.b.txt").write_text("fern")
    assert read_caption(tmp_path / "a.b.png") == "fern"


def test_windows_line_ends_byte_order_marks_and_nulls_do_not_matter(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbff\0ern, gr\xc3\xbcn\r\nmore\r\n")
    assert read_caption(tmp_path / "a.png") == "fern, grün"


@pytest.mark.parametrize("content", [b"\xff\xfef\x00", b"gr\xfcn"])
def test_a_caption_in_another_encoding_is_refused_by_name(tmp_path, content):
    (tmp_path / "odd.txt").write_bytes(content)
    with pytest.raises(BadInputError, match=r"odd\.txt is not text in UTF-8"):
        read_caption(tmp_path / "odd.png")


def test_tags_are_split_at_commas_stripped_and_never_empty():
    assert split_tags(" fern,green leaf , ,, red pot,") == ["fern", "green leaf", "red pot"]
    assert split_tags("") == []
