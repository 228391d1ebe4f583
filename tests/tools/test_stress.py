"""The stress test: what a strength does is known beforehand, so are the numbers that come out."""

import numpy as np
import pytest
import torch

from lorascope import tables
from lorascope.errors import BadInputError, LorascopeError, MissingInputError
from lorascope.io.dataset_file import Dataset, DatasetImage, read_dataset, write_dataset
from lorascope.io.images import read_image, write_png
from lorascope.io.lora_file import LoraModule, read_lora, write_lora
from lorascope.models import base as base_module
from lorascope.tools import stress as stress_module
from lorascope.tools.pictures.features import encoder_of
from lorascope.tools.strengths import sampled as sampled_stress
from lorascope.tools.strengths.x0 import guesses, noised
from lorascope.tools.stress import STRESS, stress
from tests import pipelines
from tests.metrics.test_artefacts import drawing

LAYER = "lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_attn2_to_v"
SIDE = 64
QUICK = {"strengths": "0,0.5,1,1.5,2", "seeds": "1,2", "prompts": "sks|sks cat", "steps": 1}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {
        "epsilon": pipelines.base_of(pipelines.sd1(folder / "sd1", channels=8)),
        "velocity": pipelines.base_of(pipelines.sd2(folder / "sd2")),
    }


@pytest.fixture
def inputs(tmp_path, bases, monkeypatch):
    """A run of two checkpoints and eight drawings on a tiny base model."""
    monkeypatch.setattr(base_module, "shared_base", lambda _: bases["epsilon"], raising=False)
    images = []
    for number in range(8):
        file = tmp_path / "images" / f"{number}.png"
        write_png(file, drawing(np.random.default_rng(number)))
        images.append(
            DatasetImage(
                file=file.name,
                sha256=f"{number:064}",
                caption="sks, cat",
                repeats=1,
                split="train" if number < 4 else "held-out",
                width=SIDE,
                height=SIDE,
            )
        )
    dataset = Dataset(
        root=tmp_path / "images",
        trigger="sks",
        class_word="",
        resolution=(SIDE, SIDE),
        images=tuple(images),
    )
    write_dataset(tmp_path / "run" / "train" / "dataset.json", dataset)
    for epoch in (1, 2):
        modules = pipelines.random_modules(bases["epsilon"], [LAYER], seed=epoch)
        about = {"ss_epoch": str(epoch), "ss_steps": str(epoch)}
        write_lora(tmp_path / "run" / "lora" / f"fern-{epoch:06}.safetensors", modules, about)
    return {
        "lora": tmp_path / "run" / "lora",
        "dataset": tmp_path / "run" / "train" / "dataset.json",
        "base": tmp_path / "tiny",
        "samples": tmp_path / "run" / "samples",
        "features": tmp_path / "run" / "features",
    }


class Colours:
    """Sees the mean colour of a picture and nothing else."""

    name = "colours"

    def images(self, pictures):
        return np.array([p.mean(axis=(0, 1)) for p in pictures], dtype=np.float32)


@pytest.fixture
def painter(monkeypatch):
    """Paint instead of drawing: the colour nears the subject's with the strength up to 1, and
    blotches come beyond it."""
    painted = []
    monkeypatch.setattr(sampled_stress, "encoder_of", lambda *_: Colours())
    monkeypatch.setattr("lorascope.tools.drawing.cells.base_digest", lambda _: "tiny")
    subject = np.mean([drawing(np.random.default_rng(n)) for n in range(8)], axis=(0, 1, 2))

    def draw(cells, samples, **_):
        for cell in cells:
            strength = cell.weights.loras[0].strength if cell.weights.loras else 0.0
            rng = np.random.default_rng([cell.shot.seed, len(cell.shot.prompt)])
            picture = drawing(rng).astype(float)
            far = np.array([-60.0, 30.0, 55.0]) * (1 - min(strength, 1)) + (
                subject - picture.mean(axis=(0, 1))
            ) * min(strength, 1)
            noise = np.kron(rng.normal(0, 1, (16, 16, 3)), np.ones((4, 4, 1)))
            picture += far + 20 * max(strength - 1, 0) * noise
            write_png(cell.path(samples), picture.clip(0, 255).astype(np.uint8))
            painted.append(strength)
        return len(cells)

    monkeypatch.setattr(sampled_stress, "draw", draw)
    return painted


def asked(base, inputs, **options):
    return noised(base, read_dataset(inputs["dataset"]), **{"latents": 3, "seed": 0} | options)[0]


def number(found, name):
    return next(m for m in found.numbers if m.name == name)


def test_at_strength_zero_nothing_has_changed(inputs, bases):
    lora = read_lora(inputs["lora"] / "fern-000001.safetensors")
    found = guesses(bases["epsilon"], lora, asked(bases["epsilon"], inputs), [0, 1], batch=5)
    for values in (found.z, found.change, found.removed):
        assert (values[0] == 0).all()
        assert values.shape == (2, 3, 4)
    assert found.change[1].min() > 0


def test_the_base_model_is_as_before(inputs, bases):
    before = {k: v.clone() for k, v in bases["epsilon"].unet.state_dict().items()}
    stress(inputs, latents=2, strengths="1,2")
    after = bases["epsilon"].unet.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_size_of_a_batch_changes_nothing_beyond_rounding(inputs, bases):
    lora = read_lora(inputs["lora"] / "fern-000001.safetensors")
    questions = asked(bases["epsilon"], inputs)
    one, many = (
        guesses(bases["epsilon"], lora, questions, [0, 1], batch=batch) for batch in (1, 12)
    )
    assert one.change == pytest.approx(many.change, rel=1e-3, abs=1e-6)


def test_noise_is_the_images_own_whatever_else_is_asked(inputs, bases):
    few, many = (asked(bases["epsilon"], inputs, latents=n) for n in (2, 4))
    assert torch.equal(few.noise, many.noise[:2])
    other = asked(bases["epsilon"], inputs, latents=2, seed=1)
    assert not torch.equal(few.noise, other.noise)


def test_held_out_images_are_asked_about_first(inputs, bases):
    assert asked(bases["epsilon"], inputs, latents=4).names == ("4.png", "5.png", "6.png", "7.png")


@pytest.mark.parametrize("kind", ["epsilon", "velocity"])
def test_a_model_that_predicts_perfectly_removes_all_error(inputs, bases, kind, monkeypatch):
    """The base model is asked at strength 0; at any other the truth answers in its place."""
    base = bases[kind]
    questions = asked(base, inputs, latents=2)
    flat = questions.noisy.flatten(0, 1), questions.noise.flatten(0, 1)
    count = {"forwards": 0}
    honest = base.predict

    def predict(noisy, timesteps, cond):
        count["forwards"] += 1
        if count["forwards"] == 1:
            return honest(noisy, timesteps, cond)
        level = base.noise.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        clean = (flat[0] - (1 - level).sqrt() * flat[1]) / level.sqrt()
        return base.target(clean, flat[1], timesteps)

    monkeypatch.setattr(base, "predict", predict)
    modules = pipelines.random_modules(base, [LAYER])
    write_lora(inputs["lora"] / "x.safetensors", modules, {})
    lora = read_lora(inputs["lora"] / "x.safetensors")
    found = guesses(base, lora, questions, [0, 1], batch=8)
    assert found.removed[1] == pytest.approx(1, abs=1e-4)
    shown = found.shown[1, :, 0]
    originals = [read_image(inputs["dataset"].parents[2] / "images" / n) for n in questions.names]
    assert len(shown) == len(originals) == 2
    assert (shown[0] == found.shown[1, 0, 3]).mean() > 0.95  # the same guess from any noise


def test_a_change_that_is_straight_does_not_bend(inputs, bases, monkeypatch):
    base, times = bases["epsilon"], iter((0.0, 0.5, 1.0, 2.0))
    questions = asked(base, inputs, latents=2)
    way = torch.randn(questions.noisy.flatten(0, 1).shape, generator=torch.manual_seed(0))
    monkeypatch.setattr(base, "predict", lambda noisy, *_: noisy + next(times) * way)
    lora = read_lora(inputs["lora"] / "fern-000001.safetensors")
    found = guesses(base, lora, questions, [0, 0.5, 1, 2], batch=8)
    assert found.bend == pytest.approx(0, abs=1e-5)
    assert found.change[3] == pytest.approx(2 * found.change[2], rel=1e-5)


def test_the_x0_form_gives_its_tables_its_numbers_and_a_sheet(inputs):
    found = stress(inputs, latents=3, strengths="1,0.5")
    assert [row["strength"] for row in found.tables["curve"]] == [0, 0.5, 1]
    assert {row["epoch"] for row in found.tables["curve"]} == {2}
    assert len(found.tables["latents"]) == 3 * 3 * 4
    assert number(found, "x0_items").value == 3
    assert read_image(inputs["samples"] / "stress.png").ndim == 3
    assert "cells" not in found.tables
    for name, table in found.tables.items():
        written = tables.as_csv(table)
        assert len(tables.from_csv(written, tables.column_types(table))) == len(table), name


def test_several_epochs_have_rows_of_their_own(inputs):
    found = stress(inputs, latents=2, strengths="1", epochs="1-2")
    assert [(r["epoch"], r["form"]) for r in found.tables["strengths"]] == [(1, "x0"), (2, "x0")]


def test_the_sampled_form_finds_where_the_painter_spoils(inputs, painter):
    found = stress(inputs, form="sampled", **QUICK)
    saturation = number(found, "saturation")
    assert 1 < saturation.value < 1.5
    assert saturation.n == 4
    assert saturation.interval[0] <= saturation.value <= saturation.interval[1]
    assert number(found, "headroom").value == pytest.approx(saturation.value - 1)


def test_the_sampled_form_finds_where_likeness_comes(inputs, painter):
    found = stress(inputs, form="sampled", **QUICK)
    likeness = [row["likeness"] for row in found.tables["curve"]]
    assert likeness[0] == pytest.approx(0, abs=0.05)
    assert likeness[0] < likeness[1] < likeness[2]
    assert number(found, "half").value < 1
    assert 0.5 <= number(found, "best").value <= 1.2


def test_strength_zero_is_drawn_once_for_all_epochs(inputs, painter):
    found = stress(inputs, form="sampled", epochs="1,2", **QUICK)
    files = {r["file"] for r in found.tables["cells"] if r["strength"] == 0}
    assert len(files) == 4
    assert len({row["file"] for row in found.tables["cells"]}) == 4 + 2 * 4 * 4


def test_both_forms_stand_side_by_side(inputs, painter):
    found = stress(inputs, form="both", latents=2, **QUICK)
    assert {row["form"] for row in found.tables["curve"]} == {"x0", "sampled"}
    assert (inputs["samples"] / "stress-x0.png").is_file()
    assert {"cells", "latents", "curve", "strengths"} == set(found.tables)


def test_what_was_not_reached_is_left_out_and_said(inputs, painter):
    found = stress(inputs, form="sampled", **QUICK | {"strengths": "0,0.5,1"})
    assert not any(m.name == "saturation" for m in found.numbers)
    assert any("not spoilt at any strength up to 1" in text for text in found.caveats)


def test_an_image_that_cannot_be_read_is_left_out_and_said(inputs):
    (inputs["dataset"].parents[2] / "images" / "5.png").write_bytes(b"torn")
    found = stress(inputs, latents=3, strengths="1")
    assert any("5.png" in text for text in found.caveats)
    assert number(found, "x0_items").value == 3


@pytest.mark.parametrize(
    "options",
    [
        {"form": "guessed"},
        {"strengths": "much"},
        {"strengths": "0"},
        {"strengths": "-1,1"},
        {"epochs": "9"},
        {"epochs": "0"},
        {"latents": 1},
        {"latents": 65},
        {"batch": 0},
        {"sampler": "magic", "form": "sampled"},
        {"seeds": "one", "form": "sampled"},
    ],
)
def test_what_cannot_be_asked_gets_one_clear_message(inputs, options):
    with pytest.raises(BadInputError) as caught:
        stress(inputs, **options)
    assert "Fix: " in str(caught.value)


def test_a_dataset_without_images_and_a_run_without_checkpoints_are_refused(inputs):
    for file in (inputs["dataset"].parents[2] / "images").iterdir():
        file.write_bytes(b"torn")
    with pytest.raises(LorascopeError, match="can be read"):
        stress(inputs)
    for file in inputs["lora"].iterdir():
        file.unlink()
    with pytest.raises(MissingInputError):
        stress(inputs)


def test_a_lora_for_another_model_is_refused(inputs, bases):
    module = LoraModule(
        "lora_unet_nowhere_to_q",
        np.zeros((2, 4), dtype=np.float32),
        np.zeros((4, 2), dtype=np.float32),
        2.0,
    )
    write_lora(inputs["lora"] / "fern-000003.safetensors", [module], {"ss_epoch": "3"})
    with pytest.raises(BadInputError, match="does not fit"):
        stress(inputs)


def test_an_answer_without_its_sheet_is_measured_again(inputs):
    found = stress(inputs, latents=2, strengths="1")
    assert STRESS.holds(inputs, found)
    (inputs["samples"] / stress_module.SHEET).unlink()
    assert not STRESS.holds(inputs, found)


@pytest.mark.parametrize("form", ["x0", "sampled", "both"])
@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"guidance": -1.0},
        {"seeds": "one"},
        {"strengths": "much"},
        {"epochs": "9"},
        {"sampler": "magic"},
        {"prompts": "prompts.txt"},
    ],
)
def test_every_option_is_read_before_the_base_model_is(inputs, options, form, monkeypatch):
    monkeypatch.setattr(base_module, "shared_base", lambda _: pytest.fail("it was opened"))
    with pytest.raises(BadInputError, match="Fix: "):
        stress(inputs, form=form, **options)


@pytest.mark.parametrize("form", ["sampled", "both"])
def test_without_a_training_image_nothing_is_drawn(inputs, form, monkeypatch):
    monkeypatch.setattr(base_module, "shared_base", lambda _: pytest.fail("it was opened"))
    for number in range(4):
        (inputs["dataset"].parents[2] / "images" / f"{number}.png").write_bytes(b"torn")
    with pytest.raises(BadInputError, match="No training image can be read"):
        stress(inputs, form=form)


def test_what_pictures_are_compared_by_is_opened_before_they_are_drawn(inputs, painter):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampled_stress, "encoder_of", encoder_of)
        with pytest.raises(MissingInputError):
            stress(inputs, form="sampled", features="nowhere", **QUICK)
    assert painter == []


def test_one_picture_gives_no_interval(inputs, painter):
    found = stress(inputs, form="sampled", **QUICK | {"seeds": "1", "prompts": "sks"})
    assert [m.interval for m in found.numbers] == [None] * len(found.numbers)
    ends = {
        k: v
        for t in ("curve", "strengths")
        for row in found.tables[t]
        for k, v in row.items()
        if k.endswith(("_low", "_high"))
    }
    assert ends
    assert set(ends.values()) == {None}
