"""The held-out loss: exact on known cases, the same whatever the order, honest about gaps."""

import dataclasses
import hashlib
import math
import sys
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from PIL import Image

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.dataset_file import Dataset, DatasetImage, read_dataset, write_dataset
from lorascope.io.lora_file import LoraModule, read_lora, write_lora
from lorascope.io.train_log import LogRow, LogWriter
from lorascope.models import base as base_module
from lorascope.models.base import Base
from lorascope.models.lora import Merger, merged, module_names
from lorascope.records import Measured, seed_from
from lorascope.run import Run
from lorascope.tools import LOSS
from lorascope.tools.drawing.prompts import UNRELATED
from lorascope.tools.held_out import questions
from lorascope.tools.loss import loss
from tests import pipelines

FEW = {"strata": 2, "draws": 1}


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, Base]:
    return {
        "tiny": pipelines.base_of(pipelines.sd1(tmp_path_factory.mktemp("sd1"), channels=8)),
        "velocity": pipelines.base_of(pipelines.sd2(tmp_path_factory.mktemp("sd2"))),
        "large": pipelines.base_of(pipelines.sdxl(tmp_path_factory.mktemp("sdxl"))),
    }


@pytest.fixture(autouse=True)
def opened(bases, monkeypatch):
    monkeypatch.setattr(base_module, "load_base", lambda name, dtype: bases[name])


@pytest.fixture
def inputs(tmp_path: Path, bases) -> dict[str, Path]:
    return planted(tmp_path, bases)


@pytest.fixture(scope="module")
def answer(tmp_path_factory, bases) -> Measured:
    """What the tool says about the planted inputs: asked once for many tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_module, "load_base", lambda name, dtype: bases[name])
        return loss(planted(tmp_path_factory.mktemp("planted"), bases), **FEW)


def planted(tmp_path: Path, bases) -> dict[str, Path]:
    """Eight pictures, four held out and one kept out as a composition; two checkpoints."""
    root = tmp_path / "pictures"
    root.mkdir()
    images = []
    for i in range(8):
        picture = np.random.default_rng(i).integers(0, 256, (64, 64, 3)).astype(np.uint8)
        Image.fromarray(picture).save(root / f"{i}.png")
        images.append(
            DatasetImage(
                file=f"{i}.png",
                sha256=hashlib.sha256((root / f"{i}.png").read_bytes()).hexdigest(),
                caption="sks, red hat" if i % 2 else "sks, cat",
                repeats=1,
                split="held-out" if i < 4 else "composition" if i == 4 else "train",
                width=64,
                height=64,
            )
        )
    places = {
        "lora": tmp_path / "lora",
        "dataset": tmp_path / "dataset.json",
        "base": Path("tiny"),
    }
    dataset = Dataset(
        root=root, trigger="sks", class_word="", resolution=(64, 64), images=tuple(images)
    )
    write_dataset(places["dataset"], dataset)
    save(places, bases["tiny"], 1, 0.5)
    save(places, bases["tiny"], 2, 1.0)
    return places


def save(inputs, base, epoch, strength, *, only="") -> None:
    wanted = (only,) if only else ("attn2_to_k", "mlp_fc1")
    names = [n for n in module_names(base) if any(w in n for w in wanted)]
    modules = [
        LoraModule(m.name, m.down, m.up * np.float32(strength), m.alpha)
        for m in pipelines.random_modules(base, names)
    ]
    path = inputs["lora"] / f"fern-{epoch:06d}.safetensors"
    write_lora(path, modules, {"ss_epoch": str(epoch), "ss_steps": str(10 * epoch)}, dtype="F32")


def change(inputs, **changes) -> None:
    dataset = read_dataset(inputs["dataset"])
    write_dataset(inputs["dataset"], dataclasses.replace(dataset, **changes))


def number(measured, name) -> float:
    return next(m.value for m in measured.numbers if m.name == name)


@pytest.mark.parametrize("kind", ["tiny", "velocity", "large"])
def test_an_update_of_zero_is_exactly_the_base_model(inputs, bases, kind):
    inputs["base"] = Path(kind)
    save(inputs, bases[kind], 1, 0.0)
    save(inputs, bases[kind], 2, 0.0)
    found = loss(inputs, **FEW)
    assert (found.arrays["losses"] == found.arrays["losses"][0]).all()
    for row in found.tables["epochs"]:
        assert row["held_out"] == row["train"] == row["gap"] == 0
        assert row["rise"] is None
        assert row["composition"] == row["kept"] == 0
    assert number(found, "depth") == 0


def test_the_value_is_the_mean_log_ratio_done_by_hand(inputs, bases):
    base, dataset = bases["tiny"], read_dataset(inputs["dataset"])
    image = min(dataset.held_out, key=lambda i: i.sha256)
    found = loss(inputs, strata=2, draws=2, seed=7)
    pixels = np.array(Image.open(dataset.path(image)))
    lora = read_lora(inputs["lora"] / "fern-000002.safetensors")
    ratios = []
    with torch.no_grad():
        latent = base.encode_images(pixels[None])
        for k in range(2):
            t = int(1000 * (k + seed_from(7, "stratum", k) / 2**63) / 2)
            for r in range(2):
                key = seed_from(7, image.sha256, k, r)
                draw = np.random.Generator(np.random.Philox(key=key))
                noise = torch.from_numpy(draw.standard_normal((1, 8, 8, 8), dtype=np.float32))
                at = torch.tensor([t])
                errors = []
                for which in (None, lora):
                    with merged(base, which):
                        cond = base.encode_prompts([image.caption])
                        out = base.predict(base.add_noise(latent, noise, at), at, cond)
                    errors.append(float(((out - noise) ** 2).mean()))
                ratios.append(math.log(errors[1] / errors[0]))
    row = next(r for r in found.tables["images"] if (r["epoch"], r["image"]) == (2, image.file))
    assert row["value"] == pytest.approx(np.mean(ratios), abs=1e-5)
    assert abs(row["value"]) > 1e-3


def test_epochs_are_means_over_their_images(answer):
    found = answer
    values = np.log(found.arrays["losses"] / found.arrays["losses"][0]).mean(axis=(2, 3))
    for c, row in enumerate(found.tables["epochs"]):
        assert row["held_out"] == pytest.approx(values[c, :4].mean())
        assert row["composition"] == pytest.approx(values[c, 4])
        assert row["train"] == pytest.approx(values[c, 5:8].mean())
        assert row["kept"] == pytest.approx(values[c, 8:].mean())
        assert row["held_out_low"] <= row["held_out"] <= row["held_out_high"]
    assert [r["epoch"] for r in found.tables["epochs"]] == [0, 1, 2]
    assert [r["step"] for r in found.tables["epochs"]] == [0, 10, 20]
    assert sum(r["p_best"] for r in found.tables["epochs"]) == pytest.approx(1)


def test_rise_runs_from_zero_at_the_best_to_one_at_the_base_models_level(inputs, bases):
    save(inputs, bases["tiny"], 2, 30.0, only="conv_out")
    rows = loss(inputs, **FEW).tables["epochs"]
    assert rows[1]["held_out"] < 0 < rows[2]["held_out"]
    assert (rows[0]["rise"], rows[1]["rise"]) == (pytest.approx(1), 0)
    assert rows[2]["rise"] > 1
    assert rows[1]["p_best"] == 1
    assert (rows[1]["in_set"], rows[2]["in_set"]) == (True, False)


def test_every_third_of_the_noise_schedule_has_its_band(inputs):
    rows = loss(inputs, strata=10, draws=1, images=1, kept=0).tables["bands"]
    rows = [r for r in rows if r["epoch"] == 1]
    assert {r["band"]: r["timesteps"] for r in rows} == {
        "composition": 3,
        "structure": 4,
        "detail": 2,
    }


def test_what_the_base_model_keeps_changes_more_the_larger_the_update(answer):
    rows = answer.tables["epochs"]
    assert rows[0]["kept"] == 0
    assert abs(rows[1]["kept"]) < abs(rows[2]["kept"])


def test_the_same_question_gives_the_same_bits(inputs, answer):
    one, other = answer, loss(inputs, **FEW)
    assert one.numbers == other.numbers
    assert one.tables == other.tables
    assert (one.arrays["losses"] == other.arrays["losses"]).all()


def ratios(found) -> dict[tuple[int, str, str], float]:
    rows = found.tables["images"]
    return {(r["epoch"], r["split"], r["image"]): r["value"] for r in rows}


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_the_size_of_a_batch_changes_nothing_but_rounding(inputs, answer, batch):
    assert ratios(loss(inputs, **FEW, batch=batch)) == pytest.approx(ratios(answer), abs=1e-5)


def test_the_order_of_the_images_changes_nothing_but_rounding(inputs, answer):
    change(inputs, images=read_dataset(inputs["dataset"]).images[::-1])
    assert ratios(loss(inputs, **FEW)) == pytest.approx(ratios(answer), abs=1e-5)


def test_other_images_and_longer_prompts_change_nothing_but_rounding(inputs, answer):
    images = list(read_dataset(inputs["dataset"]).images)
    images[0] = dataclasses.replace(images[0], caption=", ".join(["sks", *["red hat"] * 60]))
    change(inputs, images=tuple(images[:5]))
    found = ratios(loss(inputs, **FEW))
    same = {key: value for key, value in ratios(answer).items() if key in found}
    same = {k: v for k, v in same.items() if k[2] not in ("0.png",) and k[1] != "kept"}
    assert len(same) == 3 * 4
    assert {key: found[key] for key in same} == pytest.approx(same, abs=1e-5)


def test_a_batch_without_room_on_the_card_is_halved(inputs, bases, answer, monkeypatch):
    tiny, asked = bases["tiny"], []

    def predict(noisy, at, cond, **more):
        if len(noisy) > 3:
            raise torch.OutOfMemoryError("no room")
        asked.append(len(noisy))
        return Base.predict(tiny, noisy, at, cond, **more)

    monkeypatch.setattr(tiny, "predict", predict)
    found = loss(inputs, **FEW, kept=0)
    assert max(asked) <= 3
    before = {k: v for k, v in ratios(answer).items() if k[1] != "kept"}
    assert ratios(found) == pytest.approx(before, abs=1e-5)


def test_only_new_checkpoints_are_asked(inputs, bases, tmp_path, monkeypatch):
    inputs["losses"] = tmp_path / "losses"
    inputs["losses"].mkdir()
    tiny, asked = bases["tiny"], []

    def predict(noisy, at, cond, **more):
        asked.append(len(noisy))
        return Base.predict(tiny, noisy, at, cond, **more)

    monkeypatch.setattr(tiny, "predict", predict)
    first = loss(inputs, **FEW)
    everything, asked[:] = sum(asked), []
    again = loss(inputs, **FEW)
    one_batch = sum(asked)
    assert again == dataclasses.replace(first, arrays=again.arrays)
    assert one_batch < everything / 3
    asked[:] = []
    save(inputs, tiny, 3, 2.0)
    third = loss(inputs, **FEW)
    model = first.arrays["losses"][0].size
    assert sum(asked) == one_batch + model
    assert (third.arrays["losses"][:3] == first.arrays["losses"]).all()


@pytest.mark.slow
def test_answers_of_another_base_model_or_torn_ones_are_not_believed(inputs, bases, tmp_path):
    inputs["losses"] = tmp_path / "losses"
    inputs["losses"].mkdir()
    first = loss(inputs, **FEW)
    for file in inputs["losses"].iterdir():
        file.write_bytes(file.read_bytes()[:100])
    assert loss(inputs, **FEW) == dataclasses.replace(first, arrays=ANY)
    with torch.no_grad():
        weight = bases["tiny"].unet.conv_in.weight
        before = weight.clone()
        weight.mul_(1.5)
        try:
            other = loss(inputs, **FEW)
        finally:
            weight.copy_(before)
    assert ratios(other) != pytest.approx(ratios(first), abs=1e-3)


def test_another_seed_asks_with_other_noise(inputs, answer):
    one, other = answer, loss(inputs, **FEW, seed=1)
    assert (one.arrays["losses"] != other.arrays["losses"]).all()


def test_the_base_model_is_given_back_as_it_was(inputs, bases):
    Merger(bases["tiny"]).restore()
    before = {k: v.clone() for k, v in bases["tiny"].unet.state_dict().items()}
    loss(inputs, **FEW)
    assert all((v == before[k]).all() for k, v in bases["tiny"].unet.state_dict().items())


def test_the_answer_survives_being_stored(inputs, tmp_path):
    run = Run.create(tmp_path / "run", base="tiny", base_digest="0")
    inputs["lora"].rename(run.place("lora"))
    run.place("dataset").parent.mkdir()
    write_dataset(run.place("dataset"), read_dataset(inputs["dataset"]))
    first = run.measure(LOSS, **FEW)
    again = run.latest("loss")
    assert again.measured.numbers == first.measured.numbers
    assert again.measured.tables == first.measured.tables


def test_without_held_out_images_training_images_are_measured_and_it_says_so(inputs):
    images = read_dataset(inputs["dataset"]).images
    change(inputs, images=tuple(dataclasses.replace(i, split="train") for i in images))
    found = loss(inputs, **FEW)
    assert all(r["held_out"] is None and r["train"] is not None for r in found.tables["epochs"])
    assert number(found, "images") == 0
    assert number(found, "train_images") == 8
    assert "best_epoch" not in {m.name for m in found.numbers}
    assert any("No image was held out" in c for c in found.caveats)


def test_below_four_held_out_images_no_epoch_is_named_best(inputs):
    images = read_dataset(inputs["dataset"]).images
    change(inputs, images=images[1:])
    found = loss(inputs, **FEW)
    names = {m.name for m in found.numbers}
    assert not names & {"best_epoch", "p_best", "set_size", "earliest_epoch", "turned_p"}
    assert all(r["p_best"] is None and r["in_set"] is None for r in found.tables["epochs"])
    (said,) = (c for c in found.caveats if "Only 3 held-out" in c)
    rows = [r for r in found.tables["trajectories"] if r["split"] == "held-out"]
    lowest = ", ".join(str(row["lowest_epoch"]) for row in rows)
    assert len(rows) == 3
    assert said.endswith(f"The lowest epoch of each: {lowest}.")


@pytest.mark.slow
def test_what_decides_an_answer_decides_whether_a_kept_one_counts(inputs, bases, tmp_path):
    inputs["losses"] = tmp_path / "losses"
    inputs["losses"].mkdir()
    first = loss(inputs, **FEW)
    changes = (
        {"trigger": "cat"},
        {"resolution": (128, 128)},
        {"images": read_dataset(inputs["dataset"]).images[1:]},
    )
    for changed in changes:
        before = read_dataset(inputs["dataset"])
        change(inputs, **changed)
        again = loss(inputs, **FEW)
        fresh = loss({k: v for k, v in inputs.items() if k != "losses"}, **FEW)
        assert ratios(again) == ratios(fresh)
        assert ratios(again) != ratios(first)
        write_dataset(inputs["dataset"], before)


def test_large_questions_draw_their_noise_again_and_answer_alike(inputs, answer, monkeypatch):
    monkeypatch.setattr(questions, "KEPT_NUMBERS", 0)
    assert ratios(loss(inputs, **FEW)) == ratios(answer)


def test_an_image_that_cannot_be_read_is_left_out_and_named(inputs):
    dataset = read_dataset(inputs["dataset"])
    (dataset.root / "0.png").unlink()
    (dataset.root / "7.png").write_bytes(b"torn")
    found = loss(inputs, **FEW)
    assert (number(found, "images"), number(found, "train_images")) == (3, 2)
    assert sum("left out" in c for c in found.caveats) == 2
    for image in dataset.images:
        (dataset.root / image.file).unlink(missing_ok=True)
    with pytest.raises(BadInputError, match="lorascope add dataset"):
        loss(inputs, **FEW)


def test_a_checkpoint_that_does_not_fit_or_is_gone_does_not_hide_the_others(
    inputs, bases, monkeypatch
):
    save({"lora": inputs["lora"]}, bases["large"], 3, 1.0)
    save(inputs, bases["tiny"], 4, 1.5)
    module = sys.modules["lorascope.tools.loss"]
    real = module.read_lora

    def vanishing(path):
        if path.stem.endswith("4"):
            path.unlink()
        return real(path)

    monkeypatch.setattr(module, "read_lora", vanishing)
    found = loss(inputs, **FEW)
    assert [r["epoch"] for r in found.tables["epochs"]] == [0, 1, 2]
    assert any(c.startswith("Epoch 3 was left out") and "does not fit" in c for c in found.caveats)
    assert any(c.startswith("Epoch 4 was left out") for c in found.caveats)


def test_held_out_images_that_all_leak_are_not_called_missing(inputs):
    dataset = read_dataset(inputs["dataset"])
    twins = [
        dataclasses.replace(dataset.images[i], file=f"{i + 5}.png", sha256=d.sha256)
        for i, d in ((0, dataset.images[5]), (1, dataset.images[6]))
    ]
    change(inputs, images=(*twins, *dataset.images[5:]))
    said = " ".join(loss(inputs, **FEW).caveats)
    assert "All held-out images (2) are among the training images too" in said


def test_each_set_has_a_row_of_its_own(answer):
    assert [r["set"] for r in answer.tables["turns"]] == ["held-out", "composition", "kept"]
    assert [r["images"] for r in answer.tables["turns"]] == [4, 1, number(answer, "kept")]


def test_a_held_out_image_that_is_also_trained_on_is_named_and_left_out(inputs, answer):
    dataset = read_dataset(inputs["dataset"])
    other = Image.open(dataset.path(dataset.images[5])).resize((96, 96))
    other.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(dataset.root / "0.png")
    twin = dataclasses.replace(dataset.images[1], file="6.png", sha256=dataset.images[6].sha256)
    change(inputs, images=(dataset.images[0], twin, *dataset.images[2:]))
    found = loss(inputs, **FEW)
    assert [(r["image"], r["other"], r["same"]) for r in found.tables["leaks"]] == [
        ("0.png", "5.png", False),
        ("6.png", "6.png", True),
    ] or sorted(r["image"] for r in found.tables["leaks"]) == ["0.png", "6.png"]
    assert number(found, "images") == 2
    assert answer.tables["leaks"] == []


def test_training_images_asked_about_in_other_ways_stand_in_for_held_out_ones(inputs):
    images = read_dataset(inputs["dataset"]).images
    long = [f"sks, cat, red hat, castle {i}, dog" for i in range(len(images))]
    change(
        inputs,
        images=tuple(
            dataclasses.replace(i, split="train", caption=text)
            for i, text in zip(images, long, strict=True)
        ),
    )
    found = loss(inputs, **FEW)
    base, *rows = found.tables["memory"]
    assert base["caption_gap"] == base["augment_gap"] == 0
    assert all(row["caption_gap_n"] == row["augment_gap_n"] == 8 for row in rows)
    assert all(row["caption_gap"] != 0 != row["augment_gap"] for row in rows)
    assert rows[0]["caption_gap_low"] <= rows[0]["caption_gap"] <= rows[0]["caption_gap_high"]


def test_without_dataset_or_base_only_the_log_speaks_and_without_a_log_it_is_refused(
    inputs, tmp_path
):
    with pytest.raises(MissingInputError, match="lorascope add dataset"):
        loss({"lora": inputs["lora"]}, **FEW)
    inputs["log"] = tmp_path / "log.csv"
    with LogWriter(inputs["log"]) as log:
        for step in range(40):
            log.add(LogRow(step=step + 1, epoch=step // 20 + 1, loss=0.1, lr_unet=1e-4, lr_text=0))
    found = loss({"lora": inputs["lora"], "log": inputs["log"]}, **FEW)
    assert "epochs" not in found.tables
    assert len(found.tables["log"]) == 40
    assert any("no dataset and no base" in c for c in found.caveats)


def test_a_broken_checkpoint_is_left_out_and_named(inputs):
    path = inputs["lora"] / "fern-000001.safetensors"
    lora = read_lora(path)
    broken = [LoraModule(m.name, m.down * np.nan, m.up, m.alpha) for m in lora.modules.values()]
    write_lora(path, broken, lora.metadata, dtype="F32")
    found = loss(inputs, **FEW)
    rows = found.tables["epochs"]
    assert rows[1]["held_out"] is None
    assert rows[1]["p_best"] == 0
    assert rows[2]["p_best"] == 1
    assert number(found, "best_epoch") == 2
    assert any("Epoch 1 does not give finite numbers" in c for c in found.caveats)


def test_the_log_is_described_and_its_dips_named(inputs, tmp_path):
    inputs["log"] = tmp_path / "log.csv"
    by_epoch = [5.0, 3.0, 4.0, 4.5]
    with LogWriter(inputs["log"]) as log:
        for step in range(40):
            level = by_epoch[step // 10] + (0.1 if step % 2 else -0.1)
            log.add(
                LogRow(step=step + 1, epoch=step // 10 + 1, loss=level, lr_unet=1e-4, lr_text=0)
            )
    found = loss(inputs, **FEW)
    (dip,) = found.tables["dips"]
    assert (dip["epoch"], dip["step"]) == (2, 20)
    assert dip["file"] == "fern-000002.safetensors"
    assert dip["loss"] == pytest.approx(3)
    assert dip["prominence"] == pytest.approx(1.5)
    assert dip["noise"] == pytest.approx(0.1 * math.sqrt(10 / 9) / math.sqrt(10))
    assert len(found.tables["log"]) == 40
    assert any("no better than chance" in c for c in found.caveats)


def test_without_a_trigger_only_unrelated_prompts_are_kept(inputs):
    change(inputs, trigger="")
    found = loss(inputs, **FEW)
    assert {r["image"] for r in found.tables["images"] if r["split"] == "kept"} == set(UNRELATED)


def test_the_cost_is_said_before_it_is_paid(inputs, capsys):
    loss(inputs, **FEW)
    said = capsys.readouterr().err
    assert "loss: 2 checkpoints x 12 pictures x 2 timesteps x 1 noises: 48 forwards" in said


def test_questions_without_an_answer_are_refused(inputs, bases, tmp_path):
    with pytest.raises(BadInputError, match="strata"):
        loss(inputs, strata=0)
    with pytest.raises(BadInputError, match="at most 1000"):
        loss(inputs, strata=1001)
    with pytest.raises(BadInputError, match="0 or more"):
        loss(inputs, kept=-1)
    with pytest.raises(BadInputError, match="does not fit"):
        loss({**inputs, "base": Path("large")}, **FEW)
    change(inputs, images=())
    with pytest.raises(BadInputError, match="no image"):
        loss(inputs)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInputError, match="no checkpoint"):
        loss({**inputs, "lora": tmp_path / "empty"})
