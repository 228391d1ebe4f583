"""Adherence: obeying and disobeying pictures told apart, kept answers, gaps said in words."""

import dataclasses
import shutil
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lorascope import tables
from lorascope.errors import BadInputError, LorascopeError
from lorascope.io.dataset_file import Dataset, DatasetImage, write_dataset
from lorascope.io.images import write_png
from lorascope.models.encoders import Clip
from lorascope.run import Run, defaults
from lorascope.tools.adherence import ADHERENCE, adherence
from lorascope.tools.pictures.obeying import asked_of

COLOURS = {
    "red": (200, 20, 20),
    "green": (20, 200, 20),
    "blue": (20, 20, 200),
    "white": (230, 230, 230),
    "black": (10, 10, 10),
}
GREY = (120, 120, 120)
PROMPTS = {
    "zyx": "trigger",
    "zyx, red": "caption",
    "zyx, green": "unseen",
    "zyx, blue": "edit",
    "zyx, blorfle": "unseen",
    "white": "class",
    "black": "unrelated",
}
SIDE = 16


class Base:
    """Stands in for a base model: a latent is the picture's mean colour."""

    name, size, pixels_per_latent, compute_dtype = "tiny", 64, 8, torch.float32
    unet = SimpleNamespace(config=SimpleNamespace(block_out_channels=(1, 1)))
    noise = SimpleNamespace(config=SimpleNamespace(num_train_timesteps=1000))

    def encode_images(self, pictures):
        shown = np.asarray(pictures, dtype=np.float32).mean(axis=(1, 2))
        return torch.from_numpy(shown[:, :, None, None])


class Likelihood:
    """Stands in for the base model's answers: it knows five colours and no other word."""

    asked = 0  # losses, over all of them

    def __init__(self, base, *, timesteps, seed):
        self.base, self.timesteps, self.seed = base, timesteps, seed

    def chunks(self, texts):
        return 1

    def losses(self, latents, texts, *, chunks):
        found = []
        for latent, several in zip(latents, texts, strict=True):
            Likelihood.asked += len(several)
            found.append(np.array([self._row(latent.numpy().ravel(), text) for text in several]))
        return found

    def _row(self, shown, text):
        known = [np.array(COLOURS[tag]) for tag in text.split(", ") if tag in COLOURS]
        apart = [np.abs(shown - colour).mean() / 100 - 0.3 for colour in known]
        noise = np.random.default_rng(zlib.crc32(f"{shown}{text}".encode()))
        jitter = 0.01 * noise.normal(size=len(self.timesteps))
        return 1 + np.mean(apart or [0.0]) + (jitter if text else 0 * jitter)


class Colours(Clip):
    """Stands in for a CLIP."""

    def __init__(self):
        self.name, self.window = "colours", 77

    def images(self, pictures):
        return self._unit(np.array([p.mean(axis=(0, 1)) for p in pictures]))

    def texts(self, prompts):
        shown = [np.mean([COLOURS.get(t, GREY) for t in p.split(", ")], axis=0) for p in prompts]
        return self._unit(np.array(shown))

    def too_long(self, prompt):
        return len(prompt) > 77

    def _unit(self, values):
        values = values - 90
        return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch, request):
    if "slow" in request.keywords:  # asks the real ones
        return
    Likelihood.asked = 0
    monkeypatch.setattr("lorascope.models.base.shared_base", lambda _: Base(), raising=False)
    monkeypatch.setattr("lorascope.models.likelihood.Likelihood", Likelihood)
    monkeypatch.setattr("lorascope.models.sources.base_digest", lambda _: "d" * 64)
    monkeypatch.setattr("lorascope.models.encoders.load_encoder", lambda _: Colours())


def right(prompt):
    return next((tag for tag in COLOURS if tag in prompt), "grey")


def picture(colour, rng, size=(SIDE, SIDE)):
    shown = np.array(COLOURS.get(colour, GREY)) + rng.normal(0, 6, (*size, 3))
    return shown.clip(0, 255).astype(np.uint8)


def write_set(root, rng, rows, *, prompts=PROMPTS, base=True, seeds=(1,), size=(SIDE, SIDE)):
    """Write a grid of plain colours.

    Each row of ``rows`` says of a prompt which colour the LoRA draws.
    """
    drawn = [right, *rows] if base else list(rows)
    columns = [(prompt, seed) for prompt in prompts for seed in seeds]
    listed = []
    for number, colour in enumerate(drawn):
        own = base and number == 0
        for column, (prompt, seed) in enumerate(columns):
            file = f"samples/cells/{number:02}-{column:02}.png"
            write_png(root / "run" / file, picture(colour(prompt), rng, size))
            listed.append(
                {
                    "cell": len(listed),
                    "row": number,
                    "column": column,
                    "kind": "base" if own else "lora",
                    "epoch": number,
                    "step": 10 * number,
                    "strength": float(not own),
                    "text_strength": float(not own),
                    "prompt": prompt,
                    "group": prompts[prompt],
                    "seed": seed,
                    "width": size[1],
                    "height": size[0],
                    "base": "tiny",
                    "baseline": column if base else None,
                    "file": file,
                }
            )
    path = root / "run" / "evidence" / "grid" / "abc.cells.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tables.as_csv(listed))
    write_dataset(root / "run" / "train" / "dataset.json", dataset(root))
    return {
        "pictures": path,
        "dataset": root / "run" / "train" / "dataset.json",
        "base": Path("tiny"),
        "features": root / "run" / "features",
    }


def dataset(root):
    image = DatasetImage(
        file="00.png",
        sha256="0" * 64,
        caption="zyx, red",
        repeats=1,
        split="train",
        width=SIDE,
        height=SIDE,
    )
    held_out = dataclasses.replace(image, caption="zyx, green", sha256="1" * 64, split="held-out")
    return Dataset(
        root=root, trigger="zyx", class_word="", resolution=(SIDE, SIDE), images=(image, held_out)
    )


def always_red(_prompt):
    return "red"


def by_prompt(found, name="adherence"):
    return {row["cell"]: row[name] for row in found.tables["cells"]}


def test_a_row_that_obeys_lies_at_one_and_one_that_ignores_its_prompts_lies_at_zero(tmp_path, rng):
    prompts = {p: g for p, g in PROMPTS.items() if "red" not in p}
    inputs = write_set(tmp_path, rng, [right, always_red], prompts=prompts)
    base, obeys, ignores = adherence(inputs).tables["epochs"]
    assert base["adherence"] == pytest.approx(1, abs=0.02)
    assert obeys["adherence"] == pytest.approx(1, abs=0.05)
    assert ignores["adherence"] < 0.3
    assert ignores["adherence_low"] < ignores["adherence"] < ignores["adherence_high"]
    assert ignores["counted"] == 4


def test_captions_known_by_heart_do_not_hide_that_new_prompts_are_ignored(tmp_path, rng):
    _, row = adherence(write_set(tmp_path, rng, [always_red])).tables["epochs"]
    assert row["adherence_caption"] == pytest.approx(1, abs=0.05)
    assert row["adherence_new"] < 0.3
    assert row["adherence_other"] < 0.5


def test_a_held_out_caption_is_a_new_prompt(tmp_path, rng):
    found = adherence(write_set(tmp_path, rng, [right]))
    asked = by_prompt(found, "asked")
    assert (asked[1], asked[2], asked[5]) == ("caption", "new", "other")
    assert next(n.value for n in found.numbers if n.name == "caption_pictures") == 2


def test_a_prompt_of_the_trigger_alone_asks_for_nothing(tmp_path, rng):
    found = adherence(write_set(tmp_path, rng, [right]))
    assert 0 not in by_prompt(found)
    only = {"zyx": "trigger"}
    found = adherence(write_set(tmp_path / "only", rng, [right], prompts=only))
    assert found.tables["cells"] == []
    assert found.tables["epochs"][1]["adherence"] is None
    assert any("nothing to obey" in caveat for caveat in found.caveats)


def test_words_that_the_base_model_does_not_know_are_not_testable(tmp_path, rng):
    found = adherence(write_set(tmp_path, rng, [right, always_red]))
    rows = [row for row in found.tables["cells"] if row["cell"] % len(PROMPTS) == 4]
    assert [row["testable"] for row in rows] == [False] * 3
    assert all(row["adherence"] is None and row["gain"] is not None for row in rows)
    assert any(c.startswith("Not testable, 1 prompt(s)") and "blorfle" in c for c in found.caveats)
    numbers = {n.name: n for n in found.numbers}
    assert (numbers["testable"].value, numbers["prompts"].value) == (5, 6)
    assert numbers["gain_base"].value > 0 > numbers["gain_other"].value


def test_seeds_of_one_prompt_are_one_item_and_share_its_scale(tmp_path, rng):
    found = adherence(write_set(tmp_path, rng, [right], seeds=(1, 2, 3)))
    rows = [r for r in found.tables["cells"] if 3 <= r["cell"] < 6]
    assert len({row["gain_base"] for row in rows}) == 1
    assert found.tables["epochs"][0]["counted"] == 15


def test_nothing_is_asked_twice_and_a_redrawn_epoch_costs_its_own_row_only(tmp_path, rng):
    inputs = write_set(tmp_path, rng, [right, always_red])
    first = adherence(inputs)
    whole, Likelihood.asked = Likelihood.asked, 0
    forwards = next(n.value for n in first.numbers if n.name == "forwards")
    assert forwards == 8 * whole
    assert adherence(inputs) == first
    assert Likelihood.asked == 0
    lines = inputs["pictures"].read_text().replace("/02-", "/09-")
    inputs["pictures"].write_text(lines)
    for file in sorted((tmp_path / "run" / "samples" / "cells").glob("02-*.png")):
        shutil.move(file, file.with_name(file.name.replace("02-", "09-")))
    adherence(inputs)
    assert Likelihood.asked == 2 * 6  # with and without its text: six prompts of one row
    assert whole > 3 * Likelihood.asked


def test_another_seed_or_number_of_timesteps_is_another_question(tmp_path, rng):
    inputs = write_set(tmp_path, rng, [right])
    adherence(inputs)
    for options in ({"strata": 4}, {"seed": 1}):
        Likelihood.asked = 0
        adherence(inputs, **options)
        assert Likelihood.asked > 0


def test_a_torn_file_of_kept_answers_is_made_again(tmp_path, rng):
    inputs = write_set(tmp_path, rng, [right])
    first = adherence(inputs)
    for file in inputs["features"].rglob("*.npz"):
        file.write_bytes(file.read_bytes()[:100])
    assert adherence(inputs) == first


def test_a_picture_that_cannot_be_read_is_left_out_and_named(tmp_path, rng):
    inputs = write_set(tmp_path, rng, [right])
    cells = tmp_path / "run" / "samples" / "cells"
    (cells / "01-02.png").write_bytes(b"nothing")
    (cells / "01-03.png").unlink()
    (cells / "00-06.png").write_bytes(b"nothing")
    found = adherence(inputs)
    assert by_prompt(found)[9] is None
    assert by_prompt(found)[8] == pytest.approx(1, abs=0.1)
    told = next(c for c in found.caveats if "could not be read" in c)
    assert "3 picture(s)" in told
    assert "01-02.png" in told
    assert found.tables["epochs"][1]["counted"] == 2  # the base's picture of the last is broken


def test_without_the_base_models_pictures_there_are_gains_and_no_adherence(tmp_path, rng):
    found = adherence(write_set(tmp_path, rng, [right, always_red], base=False))
    rows = found.tables["epochs"]
    assert [row["adherence"] for row in rows] == [None, None]
    assert rows[0]["gain"] > rows[1]["gain"]
    assert any("drew none of these prompts" in caveat for caveat in found.caveats)


def test_samples_of_another_trainer_are_measured_as_far_as_can_be(tmp_path, rng):
    inputs = write_set(tmp_path, rng, [right])
    folder = tmp_path / "run" / "samples" / "trainer"
    listed = []
    for epoch in (1, 2):
        for index, colour in enumerate(("red", "green")):
            name = f"{epoch}-{index}.png"
            write_png(folder / name, picture(colour, rng, (24, 40)))
            listed.append(
                {
                    "file": name,
                    "epoch": epoch,
                    "step": epoch,
                    "index": index,
                    "prompt": f"zyx, {colour} <lora:a:1>",
                    "negative": "",
                    "seed": None,
                    "width": 40,
                    "height": 24,
                    "taken": "",
                }
            )
    (folder / "images.csv").write_text(tables.as_csv(listed))
    found = adherence({**inputs, "pictures": folder})
    assert len(found.tables["cells"]) == 4
    assert all(row["gain"] > 0 for row in found.tables["cells"])
    assert found.tables["epochs"][0]["adherence"] is None


@pytest.mark.parametrize("size", [(16, 16), (17, 43), (200, 120)])
def test_pictures_of_any_size_are_asked_about(tmp_path, rng, size):
    found = adherence(write_set(tmp_path, rng, [right], size=size))
    assert found.tables["epochs"][1]["adherence"] == pytest.approx(1, abs=0.05)


def test_a_picture_that_shows_all_of_a_prompt_is_no_picture_of_another(tmp_path, rng):
    several = ("zyx, red", "zyx, red, wide", "zyx, red, long", "zyx, green", "blue", "white")
    prompts = dict.fromkeys(several, "edit")
    found = adherence(write_set(tmp_path, rng, [right], prompts=prompts))
    assert by_prompt(found, "testable")[0]
    assert by_prompt(found, "gain_other")[0] < -0.8  # of green, blue and white alone


def test_clip_compares_pictures_with_texts(tmp_path, rng):
    inputs = write_set(tmp_path, rng, [right, always_red])
    found = adherence(inputs, features="clip")
    base, obeys, ignores = found.tables["epochs"]
    assert base["adherence"] == pytest.approx(1, abs=0.05)
    assert obeys["adherence"] == pytest.approx(1, abs=0.1)
    assert ignores["adherence_new"] < 0.5
    assert Likelihood.asked == 0
    assert not any(number.name == "forwards" for number in found.numbers)


def test_a_prompt_beyond_clips_window_is_told(tmp_path, rng):
    prompts = PROMPTS | {"zyx, green, " + "long, " * 30: "unseen"}
    found = adherence(write_set(tmp_path, rng, [right], prompts=prompts), features="clip")
    assert any(c.startswith("CLIP reads 77 tokens") for c in found.caveats)


def test_features_that_know_no_text_are_refused(tmp_path, rng, monkeypatch):
    monkeypatch.setattr("lorascope.models.encoders.load_encoder", lambda _: object())
    with pytest.raises(BadInputError, match="describes pictures and no texts"):
        adherence(write_set(tmp_path, rng, [right]), features="dinov2")


@pytest.mark.parametrize("strata", [0, -1, 1000])
def test_an_impossible_number_of_timesteps_is_refused(tmp_path, rng, strata):
    with pytest.raises(BadInputError, match="strata is"):
        adherence(write_set(tmp_path, rng, [right]), strata=strata)


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("zyx, smile, sky", "smile, sky"),
        ("a photo of zyx, sky", "a photo of, sky"),
        ("ZYX", ""),
        ("smile <lora:fern:0.8>, sky", "smile, sky"),
        ("", ""),
    ],
)
def test_what_is_asked_is_the_prompt_without_trigger_and_loras(tmp_path, prompt, wanted):
    assert asked_of(prompt, dataset(tmp_path)) == wanted


def test_without_a_trigger_everything_is_asked(tmp_path):
    plain = dataclasses.replace(dataset(tmp_path), trigger="")
    assert asked_of("zyx, smile", plain) == "zyx, smile"


@pytest.mark.slow
def test_the_miniature_tells_its_own_pictures_from_those_of_other_prompts(tmp_path, rng):
    from lorascope.models.base import shared_base
    from lorascope.models.sampling import sample

    several = (
        "red hair, twintails, green dress, night",
        "blue hair, short hair, white hoodie, beach",
        "white hair, long hair, red armor, forest",
        "black hair, bob, yellow t-shirt, room",
    )
    prompts = dict.fromkeys(several, "class")
    inputs = write_set(tmp_path, rng, [right], prompts=prompts, size=(128, 128))
    base = shared_base("miniature")
    pictures = sample(base, list(prompts), [1] * 4, steps=8)
    for column in range(4):  # the other row draws each prompt in the place of the next one
        for row, shown in ((0, column), (1, (column + 1) % 4)):
            path = tmp_path / "run" / "samples" / "cells" / f"{row:02}-{column:02}.png"
            write_png(path, pictures[shown])
    found = adherence({**inputs, "base": Path("miniature")})
    own, others = found.tables["epochs"]
    assert all(row["testable"] for row in found.tables["cells"])
    assert own["adherence"] == pytest.approx(1)
    assert others["adherence"] < 0.4


def test_the_tool_is_asked_through_the_run_and_answered_from_disk_the_second_time(tmp_path, rng):
    inputs = write_set(tmp_path, rng, [right])
    shutil.move(tmp_path / "run", tmp_path / "kept")
    run = Run.create(tmp_path / "run", base="tiny", base_digest="d" * 64)
    shutil.copytree(tmp_path / "kept", run.path, dirs_exist_ok=True)
    given = {"pictures": inputs["pictures"]}
    first = run.measure(ADHERENCE, given=given)
    Likelihood.asked = 0
    assert run.measure(ADHERENCE, given=given).id == first.id
    assert Likelihood.asked == 0
    assert set(defaults(ADHERENCE)) == {"features", "strata", "seed"}


@pytest.mark.parametrize("name", ["nonsense", "latents", "dinov2", "dreamsim:x", "sscd:x"])
def test_the_message_names_what_is_taken(name):
    said = "Fix: --features base, --features clip, or a folder with a CLIP"
    with pytest.raises(LorascopeError, match=said):
        ADHERENCE.named({"features": name})
