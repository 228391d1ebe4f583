"""Training folders: numbered ones give repeats, and an empty one says what it holds instead."""

from pathlib import Path

import pytest

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.folders import left_out, scan_training_folder


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(root: Path) -> dict[str, int]:
    return {p.relative_to(root).as_posix(): n for p, n in scan_training_folder(root)}


def test_numbered_folders_give_the_repeats(tmp_path):
    put(tmp_path, "10_fern/b.png", "10_fern/a.png", "10_fern/a.txt", "2_red pot/c.jpg")
    assert list(found(tmp_path).items()) == [
        ("10_fern/a.png", 10),
        ("10_fern/b.png", 10),
        ("2_red pot/c.jpg", 2),
    ]


def test_a_plain_folder_shows_each_picture_once(tmp_path):
    put(tmp_path, "a.png", "b.png", "other/c.png")
    assert found(tmp_path) == {"a.png": 1, "b.png": 1}


def test_what_lies_beside_numbered_folders_is_left_out_and_listed(tmp_path):
    put(tmp_path, "3_fern/a.png", "cover.png", "raw/b.png", "0_off/c.png")
    assert found(tmp_path) == {"3_fern/a.png": 3}
    names = [p.relative_to(tmp_path).as_posix() for p in left_out(tmp_path)]
    assert names == ["cover.png", "0_off/c.png", "raw/b.png"]


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(BadInputError, match=r"no images.*it holds nothing"):
        scan_training_folder(tmp_path)


def test_a_folder_of_captions_alone_says_so(tmp_path):
    put(tmp_path, *(f"10_fern/{n}.txt" for n in range(12)), "10_fern/a.gif")
    with pytest.raises(BadInputError, match="12 text files, 1 gif file"):
        scan_training_folder(tmp_path)


def test_pictures_one_folder_too_deep_come_with_the_new_name(tmp_path):
    put(tmp_path, "fern/a.png")
    with pytest.raises(BadInputError, match=r"rename .*fern to .*1_fern"):
        scan_training_folder(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    put(tmp_path, "a.png")
    with pytest.raises(MissingInputError, match="does not exist"):
        scan_training_folder(tmp_path / "nowhere")
    with pytest.raises(BadInputError, match="is a file"):
        scan_training_folder(tmp_path / "a.png")
