"""Writing: whole or not at all, and one sentence when it fails."""

import errno
import os
import time
from pathlib import Path

import pytest

from lorascope import storage
from lorascope.errors import StorageError


def test_a_file_is_written_whole_and_nothing_stays_beside_it(tmp_path):
    storage.write_text(tmp_path / "a" / "b.txt", "ä")
    assert (tmp_path / "a" / "b.txt").read_text() == "ä"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_what_was_there_stays_when_writing_fails(tmp_path):
    file = tmp_path / "a.txt"
    storage.write_text(file, "old")
    with pytest.raises(RuntimeError), storage.replacing(file) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert file.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    storage.write_text(file, "old")

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="the disk is full"):
        storage.write_text(file, "new")
    assert file.read_text() == "old"


def test_the_content_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(os, "fsync", lambda _: order.append("fsync"))
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda s, t: (order.append("rename"), replace(s, t))[1])
    storage.write_text(tmp_path / "a.txt", "new")
    assert order[:2] == ["fsync", "rename"]


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(StorageError, match="Cannot write"):
        storage.write_text(tmp_path / "a" / "b.txt", "new")


def test_what_a_killed_process_was_writing_is_swept_away_in_time(tmp_path):
    old, new = (tmp_path / f"{storage.PARTIAL}{name}.png" for name in ("old", "new"))
    for path in (old, new, tmp_path / "kept.png"):
        path.write_bytes(b"x")
    long_ago = time.time() - storage.ABANDONED_S - 60
    for path in (old, tmp_path / "kept.png"):
        os.utime(path, (long_ago, long_ago))
    assert storage.sweep(tmp_path) == 1
    assert {path.name for path in tmp_path.iterdir()} == {new.name, "kept.png"}
