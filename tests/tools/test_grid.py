"""The grid: which epochs, which prompts, and no picture drawn twice."""

import hashlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from lorascope.cli import cli
from lorascope.errors import BadInputError, LorascopeError, MissingInputError
from lorascope.io.dataset_file import Dataset, DatasetImage, write_dataset
from lorascope.io.images import read_image, write_png
from lorascope.io.lora_file import LoraModule, write_lora
from lorascope.miniature import world
from lorascope.models import base as base_module
from lorascope.models import lora as lora_module
from lorascope.models import sampling
from lorascope.run import Run
from lorascope.tools import GRID
from lorascope.tools.grid import grid, parse_epochs
from lorascope.tools.prompts import choose_prompts, group_of
from tests import pipelines

LAYERS = [
    f"lora_unet_{place}_attentions_0_transformer_blocks_0_attn2_to_v"
    for place in ("down_blocks_0", "up_blocks_1")
]
QUICK = {"steps": 2, "sampler": "ddim", "prompts": "sks|cat, sks|dog"}
CAPTIONS = ["sks, red hat, castle", "sks, dog", "sks, cat", "sks, red hat"]


def dataset_of(captions, *, root=Path("pictures"), trigger="sks", held_out=(), class_word=""):
    rows = [(text, "train") for text in captions] + [(text, "held-out") for text in held_out]
    images = [
        DatasetImage(
            file=f"{i}.png",
            sha256=str(i),
            caption=text,
            repeats=1,
            split=split,
            width=64,
            height=64,
        )
        for i, (text, split) in enumerate(rows)
    ]
    return Dataset(
        root=root,
        trigger=trigger,
        class_word=class_word,
        resolution=(64, 64),
        images=tuple(images),
    )


def texts(prompts, group):
    return [prompt.text for prompt in prompts if prompt.group == group]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", (1, 2, 4, 6, 7, 8)),
        ("2", (2,)),
        ("2,4,6-8", (2, 4, 6, 7, 8)),
        (" 8 , 2 ", (2, 8)),
        ("2,2-4", (2, 4)),
        ("0,4", (4,)),
        ("5-99", (6, 7, 8)),
    ],
)
def test_epochs_are_read_as_people_write_them(text, meant):
    assert parse_epochs(text, [1, 2, 4, 6, 7, 8]) == meant


@pytest.mark.parametrize("text", ["two", "1,,2", ",", "-3", "4-", "4-2", "1-2-3", "1.5", "3", "9"])
def test_epochs_that_mean_nothing_get_one_clear_message(text):
    with pytest.raises(BadInputError) as caught:
        parse_epochs(text, [1, 2, 4])
    assert len(str(caught.value).splitlines()) == 2
    assert "Fix: --epochs" in str(caught.value)


def test_a_missing_epoch_is_answered_with_those_that_are_there():
    with pytest.raises(BadInputError, match=r"there are 1-3, 7\.\nFix: --epochs 1-3,7"):
        parse_epochs("5", [1, 2, 3, 7])


WORLD = dataset_of(
    ["zyx, smile, forest", "zyx, frown, night", "zyx, smile, sky"],
    trigger="zyx",
    held_out=["zyx, open mouth, room"],
)


def test_prompts_for_the_miniature_stay_in_its_world_and_ask_for_what_was_never_shown():
    found = choose_prompts("", WORLD, in_world=True)
    assert texts(found, "trigger") == ["zyx"]
    assert texts(found, "caption") == [
        "zyx, smile, forest",
        "zyx, frown, night",
        "zyx, open mouth, room",
    ]
    assert texts(found, "edit") == ["zyx, open mouth, forest"]
    assert texts(found, "class") == ["smile, forest"]
    unseen = [text.removeprefix("zyx, ") for text in texts(found, "unseen")]
    assert len(unseen) == 2
    assert set(unseen) <= set(world.BACKGROUNDS) - {"forest", "night", "sky"}
    assert all("zyx" not in text for text in texts(found, "unrelated"))
    assert [p.split for p in found if p.group == "caption"] == ["train", "train", "held-out"]


def test_where_every_value_was_shown_an_edit_adds_something():
    captions = [f"zyx, {face}, forest" for face in world.EXPRESSIONS]
    captions += [f"zyx, smile, {place}" for place in world.BACKGROUNDS]
    found = choose_prompts("", dataset_of(captions, trigger="zyx"), in_world=True)
    assert texts(found, "edit") == ["zyx, glasses"]
    assert texts(found, "unseen") == []


def test_prompts_for_a_real_model_recolour_what_was_shown_and_go_where_it_never_was():
    captions = ["ana woman, red shirt, on a beach", "ana woman, blue shirt, indoors"]
    dataset = dataset_of(captions, trigger="ana", class_word="woman")
    found = choose_prompts("", dataset, in_world=False)
    assert texts(found, "edit") == ["ana woman, green shirt, on a beach"]
    assert texts(found, "unseen") == ["ana, in the snow", "ana, in a forest"]
    assert texts(found, "class") == ["woman, woman, red shirt, on a beach"]
    assert not any(tag in p.text for p in found for tag in world.ACCESSORIES)


def test_no_prompt_is_asked_twice_and_captions_without_tags_still_make_some():
    found = choose_prompts("", dataset_of(["sks", "sks"]), in_world=False)
    assert len({p.text for p in found}) == len(found)
    assert {"trigger", "unseen", "unrelated"} <= {p.group for p in found}


def test_without_a_trigger_nothing_is_left_out_of_it():
    found = choose_prompts("", dataset_of(["smile, forest"], trigger=""), in_world=True)
    assert {p.group for p in found} == {"caption", "edit", "unseen", "unrelated"}


@pytest.mark.parametrize(
    ("prompt", "group"),
    [
        ("zyx", "trigger"),
        ("zyx, forest, smile", "caption"),
        ("zyx, open mouth, room", "caption"),
        ("zyx, night, smile", "edit"),
        ("zyx, smile, beach", "unseen"),
        ("smile, beach", "class"),
        ("a fish", "unrelated"),
    ],
)
def test_a_prompt_is_known_by_what_it_asks(prompt, group):
    assert group_of(prompt, WORLD) == group


def test_prompts_are_separated_by_bars_or_by_lines():
    found = choose_prompts("# mine\nzyx, beach\n\n  zyx  \nzyx\n", WORLD, in_world=True)
    assert [p.text for p in found] == ["zyx, beach", "zyx"]
    assert [p.group for p in found] == ["unseen", "trigger"]
    assert choose_prompts("zyx, beach|zyx", WORLD, in_world=True) == found


def test_one_line_is_a_prompt_and_never_opened_as_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("zyx").write_text("beach")
    assert [p.text for p in choose_prompts("zyx", WORLD, in_world=True)] == ["zyx"]
    assert len(choose_prompts("a sign|notes.txt", WORLD, in_world=True)) == 2


@pytest.mark.parametrize("text", ["# nothing\n", "|", "no/such/file.txt", " FILE.TXT "])
def test_text_that_holds_no_prompt_is_refused(text):
    with pytest.raises(BadInputError, match="Fix: --prompts FILE"):
        choose_prompts(text, WORLD, in_world=True)


@pytest.fixture
def inputs(tmp_path, rng):
    """Two epochs, four training images, one held-out image."""
    for epoch in (1, 2):
        write_epoch(tmp_path, epoch, seed=epoch)
    dataset = dataset_of(CAPTIONS, root=tmp_path / "pictures", held_out=["sks, castle"])
    for image in dataset.images:
        picture = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        write_png(dataset.path(image), picture)
    write_dataset(tmp_path / "train" / "dataset.json", dataset)
    return {
        "lora": tmp_path / "lora",
        "dataset": tmp_path / "train" / "dataset.json",
        "base": tmp_path / "model",
        "samples": tmp_path / "samples",
    }


def write_epoch(folder, epoch, *, seed):
    rng = np.random.default_rng(seed)
    shapes = (2, 16), (8, 2)  # down and up, as the tiny pipeline's layers are
    modules = [
        LoraModule(name, *(rng.normal(0, 0.3, shape).astype(np.float32) for shape in shapes), 1.0)
        for name in LAYERS
    ]
    metadata = {"ss_epoch": str(epoch), "ss_steps": str(10 * epoch)}
    write_lora(folder / "lora" / f"fern-{epoch:06}.safetensors", modules, metadata)


class Painter:
    """Stands for a base model: paints noise that prompt, seed and LoRA decide."""

    name, size, pixels_per_latent = "painter", 64, 8

    def __init__(self):
        self.state = ""
        self.painted = []

    def encode_images(self, images):
        fields = images.reshape(len(images), 8, 8, 8, 8, 3).mean(axis=(2, 4))
        return torch.from_numpy(np.moveaxis(fields, 3, 1))

    def paint(self, prompt, seed):
        self.painted.append(prompt)
        rng = np.random.default_rng(int(hashlib.sha256(prompt.encode()).hexdigest()[:8], 16) + seed)
        picture = rng.integers(0, 200, (64, 64, 3), dtype=np.uint8)
        return picture + int(self.state or "0", 16) % 50


@pytest.fixture
def painter(monkeypatch):
    """A grid in milliseconds: drawing is replaced, all else is real."""
    found = Painter()

    @contextmanager
    def merged(base, lora, *, strength):
        words = "" if lora is None else str([m.up.tobytes() for m in lora.modules.values()])
        base.state = hashlib.sha256(f"{words}{strength}".encode()).hexdigest() if words else ""
        yield base
        base.state = ""

    def sample(base, prompts, seeds, **_options):
        return np.stack([base.paint(p, s) for p, s in zip(prompts, seeds, strict=True)])

    monkeypatch.setattr(base_module, "load_base", lambda _name: found)
    monkeypatch.setattr(base_module, "base_digest", lambda _name: "0" * 64)
    monkeypatch.setattr(lora_module, "merged", merged)
    monkeypatch.setattr(sampling, "sample", sample)
    return found


def test_a_grid_has_a_row_for_each_epoch_under_one_for_the_base_model(inputs, painter):
    found = grid(inputs, **QUICK)
    cells, epochs = found.tables["cells"], found.tables["epochs"]
    assert [(c["epoch"], c["prompt"]) for c in cells] == [
        (epoch, prompt) for epoch in (0, 1, 2) for prompt in ("sks", "cat, sks", "dog")
    ]
    assert [c["group"] for c in cells[:3]] == ["trigger", "caption", "class"]
    assert [(r["epoch"], r["step"], r["strength"]) for r in epochs] == [
        (0, 0, 0.0),
        (1, 10, 1.0),
        (2, 20, 1.0),
    ]
    assert {m.name: m.value for m in found.numbers if m.name in ("cells", "prompts", "epochs")} == {
        "cells": 9,
        "prompts": 3,
        "epochs": 2,
    }
    assert len(painter.painted) == 9
    root = inputs["samples"].parent
    assert all(read_image(root / c["file"]).shape == (64, 64, 3) for c in cells)
    assert read_image(inputs["samples"] / "grid.png").shape[0] > 3 * 64


def test_a_picture_says_how_it_was_made(inputs, painter):
    cells = grid(inputs, **QUICK, seeds="3").tables["cells"]
    with Image.open(inputs["samples"].parent / cells[-1]["file"]) as opened:
        said = opened.text
    assert said["prompt"] == "dog"
    assert (said["seed"], said["epoch"], said["strength"]) == ("3", "2", "1.0")
    assert (said["sampler"], said["steps"]) == ("ddim", "2")
    assert not any(str(inputs["base"].parent) in value for value in said.values())


def test_the_base_model_is_the_zero_of_every_measure(inputs, painter):
    base, *later = grid(inputs, **QUICK).tables["epochs"]
    assert base["likeness"] == pytest.approx(0)
    assert base["class_likeness"] == base["drift"] == base["unrelated_change"] == 0
    assert base["diversity"] == pytest.approx(1)
    assert all(row["drift"] > 0 and row["unrelated_change"] > 0 for row in later)


def test_an_epoch_that_draws_the_training_images_has_likeness_one_and_copies(
    inputs, painter, monkeypatch
):
    pictures = [read_image(inputs["dataset"].parents[1] / "pictures" / f"{i}.png") for i in (0, 1)]
    calls = []

    def sample(base, prompts, seeds, **options):
        calls.append(prompts)
        noise = np.random.default_rng(0).integers(0, 256, (len(prompts), 64, 64, 3))
        if len(calls) == 1:  # the base model
            return noise.astype(np.uint8) // 4
        return np.stack([pictures[i % 2] for i in range(len(prompts))])

    monkeypatch.setattr(sampling, "sample", sample)
    base, first, _ = grid(inputs, **QUICK).tables["epochs"]
    assert base["copy_ratio"] > 0.8
    assert first["copy_ratio"] == 0
    assert first["likeness"] > 0.9


def test_the_same_grid_is_not_drawn_again_and_measures_the_same(inputs, painter):
    first = grid(inputs, **QUICK)
    painter.painted.clear()
    assert grid(inputs, **QUICK) == first
    assert painter.painted == []


def test_one_more_prompt_draws_only_its_cells(inputs, painter):
    grid(inputs, **QUICK)
    painter.painted.clear()
    grid(inputs, **QUICK | {"prompts": QUICK["prompts"] + "|castle"})
    assert painter.painted == ["castle"] * 3


def test_a_torn_picture_is_drawn_again_and_no_other(inputs, painter):
    cells = grid(inputs, **QUICK).tables["cells"]
    torn, gone = (inputs["samples"].parent / cells[place]["file"] for place in (1, 5))
    whole = torn.read_bytes()
    torn.write_bytes(whole[: len(whole) // 2])
    gone.unlink()
    painter.painted.clear()
    grid(inputs, **QUICK)
    assert painter.painted == ["cat, sks", "dog"]
    assert torn.read_bytes() == whole


def test_a_retrained_epoch_alone_is_drawn_again(inputs, painter):
    before = grid(inputs, **QUICK).tables["cells"]
    write_epoch(inputs["lora"].parent, 2, seed=9)
    painter.painted.clear()
    after = grid(inputs, **QUICK).tables["cells"]
    assert len(painter.painted) == 3
    changed = [one["epoch"] for one, new in zip(before, after, strict=True) if one != new]
    assert changed == [2, 2, 2]


def test_one_changed_byte_of_a_checkpoint_is_another_checkpoint(inputs, painter):
    grid(inputs, **QUICK)
    file = inputs["lora"] / "fern-000002.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    painter.painted.clear()
    grid(inputs, **QUICK)
    assert len(painter.painted) == 3


def test_a_checkpoint_saved_twice_is_drawn_once(inputs, painter):
    write_epoch(inputs["lora"].parent, 1, seed=1)
    same = (inputs["lora"] / "fern-000001.safetensors").read_bytes()
    (inputs["lora"] / "again-000002.safetensors").write_bytes(same)
    (inputs["lora"] / "fern-000002.safetensors").unlink()
    cells = grid(inputs, **QUICK).tables["cells"]
    assert {c["epoch"] for c in cells} == {0, 1, 2}
    assert len(painter.painted) == len({c["file"] for c in cells}) == len(cells) * 2 // 3


def test_strengths_are_rows_of_their_own_and_zero_is_the_base_model(inputs, painter):
    rows = grid(inputs, **QUICK, strengths="0,0.5,1", epochs="2").tables["epochs"]
    assert [(r["epoch"], r["strength"]) for r in rows] == [(0, 0.0), (2, 0.5), (2, 1.0)]


def test_every_seed_is_a_column_and_makes_diversity_known(inputs, painter):
    found = grid(inputs, **QUICK, seeds="1,2", epochs="1")
    assert [c["seed"] for c in found.tables["cells"][:4]] == [1, 2, 1, 2]
    assert [c["column"] for c in found.tables["cells"][:4]] == [0, 0, 1, 1]
    assert found.tables["epochs"][0]["seed_diversity"] == pytest.approx(1)
    assert found.tables["epochs"][1]["seed_diversity"] > 0
    assert not any("One seed" in caveat for caveat in found.caveats)


def test_stopping_keeps_what_is_drawn(inputs, painter, monkeypatch):
    real, calls = sampling.sample, []

    def sample(*args, **options):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(sampling, "sample", sample)
    with pytest.raises(KeyboardInterrupt):
        grid(inputs, **QUICK, batch=2)
    assert len(list((inputs["samples"] / "cells").glob("*.png"))) == 3
    monkeypatch.setattr(sampling, "sample", real)
    assert len(grid(inputs, **QUICK, batch=2).tables["cells"]) == 9


def test_prompts_without_the_trigger_alone_leave_likeness_unsaid(inputs, painter):
    found = grid(inputs, **QUICK | {"prompts": "dog|person"}, epochs="1")
    assert found.tables["epochs"][1]["likeness"] is None
    assert found.tables["epochs"][1]["diversity"] is None
    assert found.tables["epochs"][1]["drift"] > 0
    assert any("likeness" in caveat for caveat in found.caveats)


def test_a_dataset_of_one_image_is_no_scale_but_still_a_grid(inputs, painter):
    root = inputs["dataset"].parents[1] / "pictures"
    write_dataset(inputs["dataset"], dataset_of(["sks"], root=root))
    found = grid(inputs, **QUICK, epochs="1")
    assert found.tables["cells"][0]["nearest_train"] == "0.png"
    assert found.tables["cells"][0]["copy_ratio"] is None
    assert found.tables["epochs"][1]["likeness"] is None


@pytest.fixture
def run(inputs, painter, tmp_path):
    """The same inputs as a run that the command line can be asked about."""
    found = Run.create(tmp_path / "run", base=str(inputs["base"]), base_digest="0" * 64)
    inputs["lora"].rename(found.place("lora"))
    write_dataset(found.place("dataset"), dataset_of(CAPTIONS, root=tmp_path / "pictures"))
    return found


def test_evidence_of_a_grid_is_read_back_as_it_was_written(run):
    measured = run.measure(GRID, **QUICK)
    stored = run.measure(GRID, **QUICK)
    assert [dict(r) for r in stored.table("cells")] == [dict(r) for r in measured.table("cells")]
    assert (run.path / stored.table("cells")[0]["file"]).is_file()


def ask(run, prompts):
    words = ["grid", str(run.path), "--steps", "2", "--sampler", "ddim", "--prompts", str(prompts)]
    return CliRunner().invoke(cli, words)


def test_the_text_of_a_prompt_file_is_the_question_and_not_its_path(run, tmp_path):
    file = tmp_path / "prompts.txt"
    for text in ("sks\n", "sks, beach\n"):
        file.write_text(text, encoding="utf-8-sig")
        shown = ask(run, file)
        assert shown.exit_code == 0, shown.output
    asked = {e.params["prompts"]: e for e in run.all("grid")}
    assert set(asked) == {"sks\n", "sks, beach\n"}
    assert {c["prompt"] for c in asked["sks, beach\n"].table("cells")} == {"sks, beach"}


def test_a_moved_prompt_file_asks_the_same_question(run, tmp_path):
    for name in ("one.txt", "two.md"):
        (tmp_path / name).write_text("sks\ndog\n")
        assert ask(run, tmp_path / name).exit_code == 0
    assert len(run.all("grid")) == 1


def test_prompts_on_the_command_line_may_be_longer_than_any_path(run):
    long = ", ".join(["sks", *(f"tag{i}" for i in range(100))])
    assert ask(run, long).exit_code == 0
    assert ask(run, f"{long}|{long}, dog").exit_code == 0


@pytest.mark.parametrize("content", [None, b"", b" \n", b"# nothing\n", b"\xff\xfe\x00"])
def test_a_prompt_file_that_holds_no_prompt_is_refused(run, tmp_path, content):
    file = tmp_path / "prompts.txt"
    if content is not None:
        file.write_bytes(content)
    shown = ask(run, file)
    assert shown.exit_code == 2
    assert "Fix: --prompts FILE" in shown.output
    assert "Traceback" not in shown.output
    assert run.all("grid") == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"guidance": float("nan")},
        {"batch": 0},
        {"strengths": "strong"},
        {"strengths": "1,inf"},
        {"seeds": "1,-2"},
        {"seeds": ""},
        {"epochs": "7"},
        {"prompts": "no/such/file.txt"},
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_few_words(inputs, painter, wrong):
    with pytest.raises(LorascopeError) as caught:
        grid(inputs, **QUICK | wrong)
    assert "Fix:" in str(caught.value)
    assert not (inputs["samples"] / "grid.png").exists()


def test_all_wrong_settings_are_named_at_once(inputs, painter):
    with pytest.raises(BadInputError, match=r"steps is 0.*guidance is -1.*batch is 0"):
        grid(inputs, steps=0, guidance=-1, batch=0)


def test_a_run_without_checkpoints_or_images_is_told_so(inputs, painter):
    for file in inputs["lora"].iterdir():
        file.unlink()
    with pytest.raises(MissingInputError, match="no checkpoint"):
        grid(inputs, **QUICK)
    write_dataset(inputs["dataset"], dataset_of([]))
    with pytest.raises(BadInputError, match="no training image"):
        grid(inputs, **QUICK)


def test_a_cell_is_named_by_its_content(inputs, painter):
    names = {Path(c["file"]).stem for c in grid(inputs, **QUICK).tables["cells"]}
    assert len(names) == 9
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in names)
    assert hashlib.sha256(b"").hexdigest()[:16] not in names


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny pipeline on disk, of eight latent channels."""
    folder = tmp_path_factory.mktemp("model")
    return pipelines.saved(pipelines.sd1(folder, channels=8), folder / "tiny")


def test_a_real_pipeline_draws_the_same_pictures_however_many_at_once(inputs, model):
    inputs["base"] = model
    one = grid(inputs, **QUICK, epochs="2", batch=1).tables["cells"]
    pictures = [read_image(inputs["samples"].parent / c["file"]).astype(int) for c in one]
    for file in (inputs["samples"] / "cells").iterdir():
        file.unlink()
    many = grid(inputs, **QUICK, epochs="2", batch=16).tables["cells"]
    assert [c["file"] for c in many] == [c["file"] for c in one]
    for cell, picture in zip(many, pictures, strict=True):
        again = read_image(inputs["samples"].parent / cell["file"])
        assert np.abs(again - picture).max() <= 1
    assert max(float(cell["change"]) for cell in many) > 0.001


def test_a_sampler_that_is_none_is_refused_before_anything_is_drawn(inputs, model):
    inputs["base"] = model
    with pytest.raises(BadInputError, match="magic"):
        grid(inputs, **QUICK | {"sampler": "magic"})
    assert not (inputs["samples"] / "cells").exists()


def test_a_broken_epoch_is_drawn_and_measured_like_any_other(inputs, model):
    inputs["base"] = model
    modules = [
        LoraModule(
            LAYERS[0], np.full((2, 16), np.nan, np.float32), np.ones((8, 2), np.float32), 1.0
        )
    ]
    write_lora(inputs["lora"] / "fern-000003.safetensors", modules, {"ss_epoch": "3"})
    row = grid(inputs, **QUICK, epochs="3").tables["epochs"][1]
    assert row["epoch"] == 3
    assert all(np.isfinite(v) for v in row.values() if isinstance(v, float))
