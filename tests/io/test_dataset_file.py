"""The dataset of a run reads back as it was written, and a damaged one is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.dataset_file import Dataset, DatasetImage, read_dataset, write_dataset


def image(name: str, **changed: object) -> DatasetImage:
    plain = DatasetImage(
        file=name,
        sha256="0" * 64,
        caption="fern, grün",
        repeats=3,
        split="train",
        width=64,
        height=48,
    )
    return replace(plain, **changed)


def dataset(root: Path) -> Dataset:
    return Dataset(
        root=root,
        trigger="fern",
        class_word="plant",
        resolution=(512, 512),
        images=(image("10_fern/a.png"), image("10_fern/b.png", split="held-out", caption="")),
    )


def test_a_dataset_reads_back_as_it_was_written(tmp_path):
    written = dataset(tmp_path / "elsewhere")
    write_dataset(tmp_path / "run" / "train" / "dataset.json", written)
    assert read_dataset(tmp_path / "run" / "train" / "dataset.json") == written


def test_the_split_decides_what_is_trained_on(tmp_path):
    both = dataset(tmp_path)
    assert [i.file for i in both.train] == ["10_fern/a.png"]
    assert [i.file for i in both.held_out] == ["10_fern/b.png"]
    assert both.path(both.held_out[0]) == tmp_path / "10_fern" / "b.png"


def test_a_run_can_be_moved_together_with_the_pictures_inside_it(tmp_path):
    path = tmp_path / "run" / "train" / "dataset.json"
    write_dataset(path, dataset(tmp_path / "run" / "images"))
    (tmp_path / "run" / "images" / "10_fern").mkdir(parents=True)
    (tmp_path / "run" / "images" / "10_fern" / "a.png").touch()
    shutil.move(tmp_path / "run", tmp_path / "moved")
    moved = read_dataset(tmp_path / "moved" / "train" / "dataset.json")
    assert moved.path(moved.images[0]).is_file()
    assert str(tmp_path) not in (tmp_path / "moved" / "train" / "dataset.json").read_text()


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw.pop("images"),
        lambda raw: raw["images"][0].update(split="test"),
        lambda raw: raw["images"][0].update(file="../../secret.png"),
        lambda raw: raw["images"][0].update(file="/etc/passwd"),
        lambda raw: raw["images"][0].update(repeats="many"),
        lambda raw: raw.update(resolution=512),
        lambda raw: raw.update(schema=99),
    ],
)
def test_a_damaged_dataset_is_refused_by_name(tmp_path, damage):
    path = tmp_path / "dataset.json"
    write_dataset(path, dataset(tmp_path))
    raw = json.loads(path.read_text())
    damage(raw)
    path.write_text(json.dumps(raw))
    with pytest.raises(BadInputError, match=r"dataset\.json"):
        read_dataset(path)


def test_half_a_file_and_no_file_are_refused(tmp_path):
    path = tmp_path / "dataset.json"
    with pytest.raises(MissingInputError):
        read_dataset(path)
    write_dataset(path, dataset(tmp_path))
    path.write_text(path.read_text()[:100])
    with pytest.raises(BadInputError, match="damaged"):
        read_dataset(path)
