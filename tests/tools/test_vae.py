"""The VAE tool: a perfect coder loses nothing, a lossy one is caught where it loses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lorascope.errors import BadInputError
from lorascope.io.dataset_file import Dataset, DatasetImage, read_dataset, write_dataset
from lorascope.models import base as base_module
from lorascope.run import Run
from lorascope.tools import VAE
from lorascope.tools.vae import vae


class Coder:
    """Stands for a base model whose VAE is known exactly."""

    def __init__(self, spoil=None):
        self.spoil = spoil

    def encode_images(self, images):
        return torch.from_numpy(images)

    def decode(self, latents):
        pictures = latents.numpy().copy()
        if self.spoil is not None:
            x, y = self.spoil
            pictures[:, y : y + 24, x : x + 24] //= 2
        return pictures


@pytest.fixture
def inputs(tmp_path) -> dict[str, Path]:
    root, images = tmp_path / "pictures", []
    for i, (folder, side) in enumerate([("2_a", 64), ("1_b", 64), ("1_b", 96)]):
        (root / folder).mkdir(parents=True, exist_ok=True)
        name = "same" if i < 2 else "other"
        picture = np.random.default_rng(i).integers(40, 256, (side, side, 3)).astype(np.uint8)
        Image.fromarray(picture).save(root / folder / f"{name}.png")
        images.append(
            DatasetImage(
                file=f"{folder}/{name}.png",
                sha256=str(i),
                caption="",
                repeats=1,
                split="held-out" if i == 0 else "train",
                width=side,
                height=side,
            )
        )
    dataset = Dataset(
        root=root, trigger="", class_word="", resolution=(64, 64), images=tuple(images)
    )
    write_dataset(tmp_path / "dataset.json", dataset)
    return {
        "dataset": tmp_path / "dataset.json",
        "base": Path("tiny"),
        "samples": tmp_path / "samples",
    }


@pytest.fixture
def coder(monkeypatch):
    def use(**options):
        monkeypatch.setattr(base_module, "load_base", lambda _name: Coder(**options))

    use()
    return use


def number(measured, name):
    return next(m.value for m in measured.numbers if m.name == name)


def test_a_perfect_coder_loses_nothing(inputs, coder):
    found = vae(inputs)
    assert number(found, "psnr") == number(found, "worst_psnr") == 100
    assert number(found, "ssim") == pytest.approx(1)
    assert number(found, "edge_retention") == pytest.approx(1)
    assert not found.arrays["errors"].any()


def test_the_spoilt_place_is_found(inputs, coder):
    coder(spoil=(30, 8))
    found = vae(inputs)
    for row, errors in zip(found.tables["images"], found.arrays["errors"], strict=True):
        assert (row["worst_x"], row["worst_y"]) == (30, 8)
        assert row["worst_psnr"] < row["psnr"] < 100
        assert errors[:4].max() == errors[16:].max() == 0
        assert errors[4:16, 15:27].min() > 0


def test_pictures_are_measured_at_training_size(inputs, coder):
    rows = vae(inputs)
    assert {(r["width"], r["height"]) for r in rows.tables["images"]} == {(64, 64)}


def test_pictures_are_kept_under_names_of_their_own(inputs, coder):
    coder(spoil=(0, 0))
    rows = vae(inputs).tables["images"]
    files = [r[k] for r in rows for k in ("file_original", "file_decoded")]
    assert "samples/vae/other-original.png" in files
    assert len(set(files)) == 6
    for row in rows:
        original, decoded = (
            np.array(Image.open(inputs["samples"].parent / row[k]))
            for k in ("file_original", "file_decoded")
        )
        assert original.shape == decoded.shape == (64, 64, 3)
        assert (original != decoded).any()


def test_only_as_many_pictures_are_kept_as_asked(inputs, coder):
    found = vae(inputs, pictures=1)
    assert [bool(r["file_original"]) for r in found.tables["images"]] == [True, False, False]
    assert len(list((inputs["samples"] / "vae").iterdir())) == 2
    assert any("first 1 of 3" in c for c in found.caveats)


def test_the_answer_survives_being_stored(inputs, coder, tmp_path):
    run = Run.create(tmp_path / "run", base="tiny", base_digest="0")
    run.place("dataset").parent.mkdir()
    write_dataset(run.place("dataset"), read_dataset(inputs["dataset"]))
    first = run.measure(VAE)
    assert run.latest("vae").measured.tables == first.measured.tables
    for row in first.table("images"):
        assert (run.path / row["file_decoded"]).is_file()


def test_a_real_autoencoder_makes_the_round_trip(inputs, monkeypatch, tmp_path):
    from tests import pipelines

    base = pipelines.base_of(pipelines.sd1(tmp_path / "sd1", channels=8))
    monkeypatch.setattr(base_module, "load_base", lambda _name: base)
    found = vae(inputs)
    assert 0 < number(found, "psnr") < 100
    assert found.arrays["errors"].shape == (3, 32, 32)


def test_an_unreadable_image_is_refused_by_name(inputs, coder):
    (inputs["dataset"].parent / "pictures" / "2_a" / "same.png").write_bytes(b"")
    with pytest.raises(BadInputError, match=r"same\.png"):
        vae(inputs)
