"""The grid: which epochs, which prompts, and no picture drawn twice."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from lorascope.cli import cli
from lorascope.errors import BadInputError, LorascopeError, MissingInputError
from lorascope.io.dataset_file import Dataset, DatasetImage, write_dataset
from lorascope.io.images import read_image, write_png
from lorascope.io.infotext import read_infotext
from lorascope.io.lora_file import LoraModule, write_lora
from lorascope.io.lora_hashes import hashes
from lorascope.run import Run, defaults
from lorascope.tools import GRID
from lorascope.tools.grid import grid, plan
from tests import pipelines
from tests.painting import replace_engine

LAYERS = [
    f"lora_unet_{place}_attentions_0_transformer_blocks_0_attn2_to_v"
    for place in ("down_blocks_0", "up_blocks_1")
]
QUICK = {
    "steps": "2",
    "sampler": "ddim",
    "prompts": "sks|cat, sks|dog",
    "trigger_off": "none",
}
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


def write_epoch(folder, epoch, *, seed, clip_skip="None"):
    rng = np.random.default_rng(seed)
    shapes = (2, 16), (8, 2)  # down and up, as the tiny pipeline's layers are
    modules = [
        LoraModule(name, *(rng.normal(0, 0.3, shape).astype(np.float32) for shape in shapes), 1.0)
        for name in LAYERS
    ]
    metadata = {"ss_epoch": str(epoch), "ss_steps": str(10 * epoch), "ss_clip_skip": clip_skip}
    write_lora(folder / "lora" / f"fern-{epoch:06}.safetensors", modules, metadata)


@pytest.fixture
def painter(monkeypatch):
    """A grid in milliseconds: drawing is replaced, all else is real."""
    return replace_engine(monkeypatch)


def test_a_grid_has_a_row_for_each_epoch_under_one_for_the_base_model(inputs, painter):
    found = grid(inputs, **QUICK)
    cells, rows = found.tables["cells"], found.tables["rows"]
    assert [(c["epoch"], c["prompt"]) for c in cells] == [
        (epoch, prompt) for epoch in (0, 1, 2) for prompt in ("sks", "cat, sks", "dog")
    ]
    assert [c["group"] for c in cells[:3]] == ["trigger", "caption", "class"]
    assert [(r["kind"], r["epoch"], r["step"], r["strength"]) for r in rows] == [
        ("base", 0, 0, 0.0),
        ("lora", 1, 10, 1.0),
        ("lora", 2, 20, 1.0),
    ]
    assert {m.name: m.value for m in found.numbers} == {
        "cells": 9,
        "prompts": 3,
        "seeds": 1,
        "epochs": 2,
    }
    assert len(painter.painted) == 9
    root = inputs["samples"].parent
    assert all(read_image(root / c["file"]).shape == (64, 64, 3) for c in cells)
    assert read_image(inputs["samples"] / "grid.png").shape[0] > 3 * 64


def test_the_last_epoch_is_drawn_once_more_with_the_trigger_left_out(inputs, painter):
    cells = grid(inputs, **QUICK | {"trigger_off": "last"}).tables["cells"]
    off = [c for c in cells if c["kind"] == "trigger-off"]
    assert [(c["epoch"], c["prompt"], c["group"]) for c in off] == [
        (0, "", "unrelated"),
        (0, "cat", "class"),
        (0, "dog", "class"),
        (2, "", "unrelated"),
        (2, "cat", "class"),
        (2, "dog", "class"),
    ]
    dogs = {c["file"] for c in cells if c["prompt"] == "dog" and c["epoch"] == 2}
    assert len(dogs) == 1  # it has no trigger to leave out
    assert all(cells[c["baseline"]]["epoch"] == 0 for c in off)
    assert all(cells[c["baseline"]]["prompt"] == c["prompt"] for c in off)


def test_every_axis_can_have_several_values(inputs, painter):
    found = grid(
        inputs,
        **QUICK
        | {
            "prompts": "sks",
            "seeds": "1-2",
            "guidance": "1,5",
            "steps": "2,3",
            "sampler": "ddim,euler",
            "sizes": "64x64,32x64",
            "negatives": "|bad",
            "strengths": "0.5,1",
            "text_strengths": "0,1",
            "epochs": "last",
        },
    )
    cells, rows = found.tables["cells"], found.tables["rows"]
    assert [(r["strength"], r["text_strength"]) for r in rows] == [
        (0.0, 0.0),
        (0.5, 0.0),
        (0.5, 1.0),
        (1.0, 0.0),
        (1.0, 1.0),
    ]
    assert len(cells) == 5 * 2**6
    assert len({c["file"] for c in cells}) == len(cells)
    assert {(c["width"], c["height"]) for c in cells} == {(64, 64), (32, 64)}


def test_other_loras_are_drawn_with_it_and_stay_in_the_baseline(inputs, painter, tmp_path):
    write_epoch(tmp_path / "others", 7, seed=7)
    folder = str(tmp_path / "others" / "lora")
    style = "<lora:fern-000007:0.6>"
    found = grid(inputs, **QUICK | {"loras": f" | {style}"}, lora_dir=folder, epochs="1")
    assert [(r["epoch"], r["companions"]) for r in found.tables["rows"]] == [
        (0, ""),
        (1, ""),
        (0, style),
        (1, style),
    ]
    in_prompt = grid(
        inputs, **QUICK | {"prompts": f"sks {style}"}, lora_dir=folder, epochs="1"
    ).tables["cells"]
    assert [(c["prompt"], c["tags"]) for c in in_prompt] == [("sks ", style)] * 2
    alone = grid(inputs, **QUICK | {"prompts": "sks "}, epochs="1").tables["cells"]
    assert in_prompt[0]["file"] != alone[0]["file"]


def test_a_picture_says_how_it_was_made(inputs, model):
    inputs["base"] = model
    cells = grid(inputs, **QUICK, seeds="3", epochs="2").tables["cells"]
    with Image.open(inputs["samples"].parent / cells[-1]["file"]) as opened:
        said = read_infotext(opened.info["parameters"])
    assert said.prompt == "dog <lora:fern-000002:1>"
    values = {name: said.parameters[name] for name in ("Steps", "Sampler", "Seed", "Size")}
    assert values == {"Steps": "2", "Sampler": "DDIM", "Seed": "3", "Size": "64x64"}
    assert (
        hashes(inputs["lora"] / "fern-000002.safetensors").autov3 in said.parameters["Lora hashes"]
    )
    assert not any(str(inputs["lora"].parent) in text for text in opened.info.values())


def test_the_prompts_that_were_drawn_lie_there_to_be_edited(inputs, painter):
    drawn = grid(inputs, **QUICK).tables["prompts"]
    text = (inputs["samples"] / "prompts.txt").read_text()
    again = grid(inputs, **QUICK | {"prompts": text}).tables["prompts"]
    assert again == drawn
    assert len(painter.painted) == 9


def test_a_plan_says_what_would_be_drawn_and_draws_nothing(inputs, painter):
    asked = defaults(GRID) | QUICK
    said = plan(inputs, **asked)
    assert "3 rows x 3 columns" in said
    assert "9 pictures to draw: 36 forwards of the UNet, about 1 s, at most 0.1 MiB" in said
    assert "epoch 2" in said
    assert "cat, sks" in said
    assert not (inputs["samples"] / "cells").exists()
    grid(inputs, **QUICK)
    assert "all drawn already" in plan(inputs, **asked)


def test_a_clip_skip_that_was_trained_with_is_drawn_with(inputs, painter):
    assert grid(inputs, **QUICK).tables["cells"][0]["clip_skip"] == 1
    write_epoch(inputs["lora"].parent, 2, seed=2, clip_skip="2")
    assert grid(inputs, **QUICK).tables["cells"][0]["clip_skip"] == 2
    assert grid(inputs, **QUICK, clip_skip=1).tables["cells"][0]["clip_skip"] == 1


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
    rows = grid(inputs, **QUICK, strengths="0,0.5,1", epochs="2").tables["rows"]
    assert [(r["epoch"], r["strength"]) for r in rows] == [(0, 0.0), (2, 0.5), (2, 1.0)]


def test_every_seed_is_a_column(inputs, painter):
    cells = grid(inputs, **QUICK, seeds="1,2", epochs="1").tables["cells"]
    assert [c["seed"] for c in cells[:4]] == [1, 2, 1, 2]
    assert [c["column"] for c in cells[:4]] == [0, 1, 2, 3]


def test_stopping_keeps_what_is_drawn(inputs, painter):
    painter.fail_at = 5
    with pytest.raises(KeyboardInterrupt):
        grid(inputs, **QUICK, batch=2)
    assert len(list((inputs["samples"] / "cells").glob("*.png"))) == 5
    painter.fail_at = None
    assert len(grid(inputs, **QUICK, batch=2).tables["cells"]) == 9
    assert len(painter.painted) == 9


def test_a_grid_without_one_side_of_the_trigger_says_what_it_cannot_tell(inputs, painter):
    for prompts, lacking in (("dog|person", "likeness"), ("sks", "drift")):
        said = grid(inputs, **QUICK | {"prompts": prompts}, epochs="1").caveats
        assert any(lacking in caveat for caveat in said)


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
    words += ["--draw-only", "--trigger-off", "none"]
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
        {"steps": "0"},
        {"guidance": "nan"},
        {"batch": 0},
        {"sampler": "magic"},
        {"sizes": "63x64"},
        {"loras": "style:0.6"},
        {"loras": "<lora:style:0.6>"},
        {"prompts": "<lora:style:0.6>"},
        {"trigger_off": "9"},
        {"clip_skip": -1},
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
    with pytest.raises(BadInputError, match=r"(?s)'x' in --seeds.*guidance is -1.*steps is 0"):
        grid(inputs, steps="0", guidance="-1", seeds="x")


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
    drawn = {cell["epoch"]: cell["file"] for cell in many}
    base, epoch = (read_image(inputs["samples"].parent / drawn[e]).astype(int) for e in (0, 2))
    assert np.abs(base - epoch).max() > 1


def test_a_checkpoint_whose_parts_do_not_fit_is_left_out_and_the_others_are_drawn(inputs, painter):
    parts = np.ones((2, 16), np.float32), np.ones((8, 3), np.float32)
    path = inputs["lora"] / "fern-000003.safetensors"
    write_lora(path, [LoraModule(LAYERS[0], *parts, 1.0)], {"ss_epoch": "3", "ss_steps": "30"})
    found = grid(inputs, **QUICK)
    assert {row["epoch"] for row in found.tables["rows"]} == {0, 1, 2}
    assert any("Epoch 3 was left out" in caveat for caveat in found.caveats)
    with pytest.raises(BadInputError, match="Epoch 3 was left out"):
        grid(inputs, **QUICK, epochs="3")


def test_a_cut_checkpoint_that_is_asked_for_says_why_it_is_not_there(inputs, painter):
    path = inputs["lora"] / "fern-000002.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadInputError, match=r"(?s)Epoch 2 was left out.*no epoch 2 to draw"):
        grid(inputs, **QUICK, epochs="2")


def test_without_a_trigger_no_row_leaves_it_out(inputs, painter):
    found = grid(inputs, **QUICK | {"prompts": "dog|person", "trigger_off": "all"})
    assert {row["kind"] for row in found.tables["rows"]} == {"base", "lora"}
    alone = grid(inputs, **QUICK | {"strengths": "0", "trigger_off": "all"})
    assert [row["kind"] for row in alone.tables["rows"]] == ["base"]


def test_the_runs_own_lora_is_no_companion_and_equal_sets_count_once(inputs, painter):
    with pytest.raises(BadInputError, match=r"own LoRA.*\nFix: --strengths"):
        grid(inputs, **QUICK, loras="<lora:fern-000002:0.6> | ")
    assert len(grid(inputs, **QUICK, loras=" | ").tables["rows"]) == 3


def test_an_epoch_for_trigger_off_that_is_not_drawn_is_named_with_its_option(inputs, painter):
    with pytest.raises(BadInputError, match="Fix: --trigger-off 1-2"):
        grid(inputs, **QUICK | {"trigger_off": "3"})


@pytest.mark.parametrize(
    ("asked", "fix"), [("--w 5000", "--w"), ("--w 4", "--w"), ("--s 1001", "--s")]
)
def test_what_a_prompt_sets_itself_is_checked_before_anything_is_drawn(inputs, painter, asked, fix):
    with pytest.raises(BadInputError, match=f"'sks'(?s:.*)Fix:.*{fix}"):
        grid(inputs, **QUICK | {"prompts": f"sks {asked}"})
    assert not painter.painted


def test_sides_in_a_prompt_are_cut_to_what_can_be_drawn(inputs, painter):
    cells = grid(inputs, **QUICK | {"prompts": "sks --w 100 --h 60"}).tables["cells"]
    assert {(c["width"], c["height"]) for c in cells} == {(96, 56)}


def test_a_broken_epoch_is_drawn_and_named(inputs, model):
    inputs["base"] = model
    broken = np.full((2, 16), np.nan, np.float32), np.ones((8, 2), np.float32)
    path = inputs["lora"] / "fern-000003.safetensors"
    write_lora(path, [LoraModule(LAYERS[0], *broken, 1.0)], {"ss_epoch": "3"})
    found = grid(inputs, **QUICK, epochs="2,3")
    cells = found.tables["cells"]
    assert all((inputs["samples"].parent / cell["file"]).is_file() for cell in cells)
    assert [caveat for caveat in found.caveats if caveat.startswith("Epoch 3 gave pictures")]
    assert not any(caveat.startswith("Epoch 2") for caveat in found.caveats)
