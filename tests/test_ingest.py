"""A folder of another trainer becomes a run, and is not touched by it."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lorascope import tables
from lorascope.cli import cli
from lorascope.errors import BadInputError, LorascopeError, MissingInputError
from lorascope.ingest import add_base, add_dataset, add_logs, add_lora, add_samples, ingest
from lorascope.ingest.trainings import LISTED
from lorascope.io import safetensors_file
from lorascope.io.checkpoints import list_checkpoints
from lorascope.io.dataset_file import read_dataset
from lorascope.io.lora_file import read_lora, read_metadata
from lorascope.io.sample_list import TYPES
from lorascope.run import Run
from tests import foreign_folders as foreign
from trainer.config import read_config

MAKERS = {
    "kohya": foreign.kohya,
    "OneTrainer": foreign.onetrainer,
    "ai-toolkit": foreign.ai_toolkit,
    "diffusers": foreign.diffusers,
}
LATER = {"ss_session_id": 99, "ss_training_started_at": foreign.STARTED + 90_000}


def quiet(_text: str) -> None:
    pass


def take(folder: Path, out: Path, **options: object):
    return ingest(folder, out, say=quiet, **options)


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


def samples(run: Run) -> list[dict[str, object]]:
    text = (run.place("drawn") / "images.csv").read_text()
    return [dict(row) for row in tables.from_csv(text, TYPES)]


def epochs(run: Run) -> list[tuple[int, int]]:
    return [(c.epoch, c.step) for c in list_checkpoints(run.place("lora"))]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return foreign.kohya(tmp_path / "kohya")


@pytest.mark.parametrize(
    ("trainer", "saved", "drawn", "logs", "images"),
    [
        ("kohya", [(1, 20), (2, 40), (3, 60), (4, 80)], 8, 1, 2),
        ("OneTrainer", [(1, 20), (2, 40), (3, 60)], 7, 1, 3),
        ("ai-toolkit", [(1, 250), (2, 500), (3, 750)], 8, 0, 2),
        ("diffusers", [(1, 500), (2, 1000)], 0, 1, 2),
    ],
)
def test_what_each_trainer_leaves_becomes_a_run(tmp_path, trainer, saved, drawn, logs, images):
    folder = MAKERS[trainer](tmp_path / "there")
    done = take(folder, tmp_path / "run")
    counts = {found.role: found.count for found in done.found}
    assert epochs(done.run) == saved
    assert counts.get("samples", 0) == drawn
    assert counts.get("logs", 0) == logs
    assert counts["dataset"] == images
    assert done.trainer == trainer
    assert "base" in {missing.role for missing in done.missing}
    for checkpoint in list_checkpoints(done.run.place("lora")):
        assert read_lora(checkpoint.path).modules
    read_config(done.run.place("config"))


@pytest.mark.parametrize("trainer", MAKERS)
def test_the_folder_is_as_it_was_to_the_last_byte_and_time(tmp_path, trainer):
    folder = MAKERS[trainer](tmp_path / "there")
    before = state(tmp_path / "there")
    take(folder, tmp_path / "run")
    take(folder, tmp_path / "run")
    assert state(tmp_path / "there") == before


def test_a_folder_that_may_not_be_written_to_is_taken_over(tmp_path, model):
    folders = [p for p in model.rglob("*") if p.is_dir()]
    for folder in [model, *folders]:
        folder.chmod(0o555)
    try:
        assert len(epochs(take(model, tmp_path / "run").run)) == 4
    finally:
        for folder in [model, *folders]:
            folder.chmod(0o755)


def test_samples_carry_their_epoch_prompt_and_seed(tmp_path, model):
    rows = samples(take(model, tmp_path / "run").run)
    assert [(row["epoch"], row["step"], row["index"]) for row in rows[:3]] == [
        (1, 20, 0), (1, 20, 1), (2, 40, 0)]  # fmt: skip
    first = rows[0]
    assert (first["prompt"], first["negative"]) == ("zyxfern, in a pot", "blurry")
    assert (first["seed"], first["width"], first["height"]) == (7, 16, 16)
    assert first["taken"] == "2024-05-01T12:00:01"


def test_samples_of_onetrainer_and_ai_toolkit_are_matched_by_step(tmp_path):
    one = samples(take(foreign.onetrainer(tmp_path / "a"), tmp_path / "one").run)
    assert [(row["epoch"], row["step"]) for row in one[:3]] == [(0, 0), (1, 20), (1, 20)]
    assert [row["prompt"] for row in one[1:3]] == ["zyxmoss on a stone", "a cat"]
    assert one[2]["negative"] == "dog"
    ivy = samples(take(foreign.ai_toolkit(tmp_path / "b"), tmp_path / "ivy").run)
    assert [row["epoch"] for row in ivy] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [row["seed"] for row in ivy[:2]] == [42, 5]


def test_logs_are_those_begun_while_the_training_ran(tmp_path, model):
    run = take(model, tmp_path / "run").run
    files = [p.relative_to(run.place("events")) for p in run.place("events").rglob("*tfevents*")]
    assert [str(p.parent) for p in files] == ["20240501120005/network_train"]


def test_the_same_command_again_takes_over_what_is_new_and_loses_nothing(tmp_path, model):
    first = take(model, tmp_path / "run")
    assert first.new == 13
    again = take(model, tmp_path / "run")
    assert (again.new, again.changed) == (0, 0)
    (model / "fern-000001.safetensors").unlink()
    about = foreign.kohya_metadata(5)
    foreign.save(model / "fern-000005.safetensors", foreign.kohya_tensors(5), about)
    third = take(model, tmp_path / "run")
    assert third.new == 1
    assert [epoch for epoch, _ in epochs(third.run)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("in_place", [True, False])
def test_a_file_that_changed_is_replaced_and_named(tmp_path, model, in_place):
    take(model, tmp_path / "run")
    file = model / "fern-000002.safetensors"
    other = foreign.save(tmp_path / "x", foreign.kohya_tensors(9), foreign.kohya_metadata(2))
    content = other.read_bytes()
    if not in_place:
        file.unlink()
    file.write_bytes(content)
    os.utime(file, ns=(1, file.stat().st_mtime_ns + 1_000_000))
    done = take(model, tmp_path / "run")
    assert done.changed == 1
    assert any("fern-000002" in note and "changed" in note for note in done.notes)
    assert (done.run.place("lora") / file.name).read_bytes() == content


def test_a_run_that_was_copied_keeps_what_its_trainer_writes_over(tmp_path, model):
    run = take(model, tmp_path / "run", copy=True).run
    kept = run.place("lora") / "fern-000002.safetensors"
    before = kept.read_bytes()
    with (model / kept.name).open("r+b") as opened:
        opened.write(b"\0" * 64)
    assert kept.read_bytes() == before


def test_a_growing_log_is_copied_again(tmp_path, model):
    run = take(model, tmp_path / "run").run
    log = next((model.parent / "log" / "20240501120005").rglob("*tfevents*"))
    before = state(run.place("events"))
    with log.open("ab") as opened:
        opened.write(log.read_bytes()[-60:])
    assert state(run.place("events")) == before  # a copy, which does not grow under a reader
    assert take(model, tmp_path / "run").changed == 1
    assert next(run.place("events").rglob("*tfevents*")).read_bytes() == log.read_bytes()


def test_a_checkpoint_still_being_written_is_taken_the_next_time(tmp_path, model):
    file = model / "fern-000003.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    done = take(model, tmp_path / "run")
    assert [epoch for epoch, _ in epochs(done.run)] == [1, 2, 4]
    assert any("fern-000003" in note and "cut short" in note for note in done.notes)
    file.write_bytes(whole)
    assert [epoch for epoch, _ in epochs(take(model, tmp_path / "run").run)] == [1, 2, 3, 4]


def test_several_trainings_are_listed_each_with_its_command(tmp_path, model):
    about = foreign.kohya_metadata(1, ss_output_name="moss", **LATER)
    foreign.save(model / "moss.safetensors", foreign.kohya_tensors(1), about)
    with pytest.raises(BadInputError, match="2 trainings") as raised:
        take(model, tmp_path / "run")
    told = str(raised.value)
    assert "fern: 4 checkpoints, epochs 1 to 4 (steps 20 to 80), rank 4, on anylora" in told
    assert "moss: 1 checkpoint" in told
    assert "--name moss" in told
    assert not (tmp_path / "run").exists()
    done = take(model, tmp_path / "run", name="moss")
    assert epochs(done.run) == [(1, 20)]
    assert take(model, tmp_path / "run").name == "moss"  # asked once, remembered
    fern = take(model, tmp_path / "fern", name="fern")
    assert {f.role: f.count for f in fern.found}["samples"] == 8
    with pytest.raises(BadInputError, match="no training called oak"):
        take(model, tmp_path / "oak", name="oak")


def test_the_base_model_is_taken_only_where_it_is_there_and_the_same(tmp_path, model, monkeypatch):
    import hashlib

    file = tmp_path / "kohya" / "nowhere" / "anylora.safetensors"
    unet = np.zeros((2, 2), np.float32)
    tensors = {
        "model.diffusion_model.input_blocks.0.0.weight": unet,
        "cond_stage_model.transformer.text_model.embeddings.position_ids": unet,
    }
    foreign.save(file, tensors, {})
    done = take(model, tmp_path / "run")
    assert done.run.base == str(file)
    assert Run(tmp_path / "run").info["base"]["digest"] == hashlib.sha256(
        file.read_bytes()).hexdigest()  # fmt: skip
    for path in model.glob("fern*.safetensors"):
        about = foreign.kohya_metadata(1, ss_new_sd_model_hash="0" * 64, ss_epoch=len(path.name))
        foreign.save(path, foreign.kohya_tensors(1), about)
    other = take(model, tmp_path / "other")
    assert other.run.base == ""
    assert any("another model" in missing.why for missing in other.missing)


def test_images_named_in_the_metadata_are_found_near_and_not_where_two_could_be_meant(
    tmp_path, model
):
    next(model.glob("*.json")).unlink()
    assert take(model, tmp_path / "one").run.has("dataset")
    shutil.copytree(tmp_path / "kohya" / "img", tmp_path / "kohya" / "dataset")
    done = take(model, tmp_path / "two")
    assert not done.run.has("dataset")
    assert any("more than one place" in missing.why for missing in done.missing)


def test_the_dataset_has_repeats_captions_and_a_guessed_trigger(tmp_path, model):
    dataset = read_dataset(take(model, tmp_path / "run").run.place("dataset"))
    assert {image.repeats for image in dataset.images} == {10}
    assert {image.split for image in dataset.images} == {"train"}
    assert (dataset.trigger, dataset.class_word) == ("zyxfern", "plant")
    assert dataset.resolution == (512, 512)


def test_backups_are_taken_where_nothing_else_was_saved(tmp_path):
    work = foreign.onetrainer(tmp_path / "there")
    shutil.rmtree(work / "save")
    done = take(work, tmp_path / "run")
    assert epochs(done.run) == [(3, 60)]
    assert any("backups" in note for note in done.notes)


@pytest.mark.slow
def test_a_folder_of_ten_thousand_files_is_looked_through(tmp_path, model):
    for number in range(10_000):
        (model / f"{number}.txt").touch()
    assert len(epochs(take(model, tmp_path / "run").run)) == 4


def bad_folder(root: Path, kind: str) -> Path:
    folder = root / "bad"
    if kind == "missing":
        return folder
    if kind == "file":
        folder.write_text("hello")
        return folder
    folder.mkdir()
    if kind == "pictures":
        foreign.picture(folder / "a.png")
    elif kind == "base model":
        (folder / "model_index.json").write_text("{}")
    elif kind == "base file":
        key = "model.diffusion_model.input_blocks.0.0.weight"
        foreign.save(folder / "b.safetensors", {key: np.zeros((2, 2), np.float32)}, {})
    elif kind == "pickles":
        foreign.pickled(folder / "fern.pt", 1)
    elif kind == "optimizer":
        (folder / "optimizer.pt").write_bytes(b"x")
    elif kind == "torn":
        (folder / "fern.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    elif kind == "dead link":
        (folder / "fern.safetensors").symlink_to(folder / "nowhere")
    elif kind == "run":
        Run.create(folder, base="", base_digest="")
    return folder


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "does not exist"),
        ("file", "is a file, not a folder"),
        ("empty", "is empty"),
        ("pictures", "holds 1 pictures and no LoRA"),
        ("base model", "holds a base model and no LoRA"),
        ("base file", "holds a base model and no LoRA"),
        ("pickles", "fern.pt --allow-pickle"),
        ("optimizer", "save the LoRA as .safetensors"),
        ("torn", "no LoRA that can be read"),
        ("dead link", "no LoRA that can be read"),
        ("run", "is a run already"),
    ],
)
def test_a_folder_that_cannot_become_a_run_is_one_clear_message(tmp_path, kind, said):
    shown = CliRunner().invoke(
        cli, ["ingest", str(bad_folder(tmp_path, kind)), "--out", str(tmp_path / "run")]
    )
    assert shown.exit_code == 2
    assert said in shown.output
    assert "Traceback" not in shown.output
    assert not (tmp_path / "run").exists()


def test_a_run_called_whole_is_not_taken_for_a_damaged_lora(tmp_path):
    folder = bad_folder(tmp_path, "pictures")
    Run.create(folder / "whole", base="", base_digest="")
    with pytest.raises(BadInputError, match="holds 1 pictures and no LoRA"):
        take(folder, tmp_path / "run")


def test_nothing_is_written_into_the_folder_or_over_another_run(tmp_path, model, empty_run):
    with pytest.raises(BadInputError, match="only read"):
        take(model, model / "run")
    with pytest.raises(BadInputError, match="not made of a folder"):
        take(model, empty_run.path)


def test_a_file_that_vanishes_meanwhile_is_named(tmp_path, model, monkeypatch):
    from lorascope.ingest.carry import Carrier

    bring = Carrier.bring

    def late(self, source, target, **options):
        if source.name == "fern-000003.safetensors":
            source.unlink()
        return bring(self, source, target, **options)

    monkeypatch.setattr(Carrier, "bring", late)
    done = take(model, tmp_path / "run")
    assert [epoch for epoch, _ in epochs(done.run)] == [1, 2, 4]
    assert any("not there any more" in note for note in done.notes)


def test_names_that_could_harm_a_terminal_are_printed_and_stored_safely(tmp_path):
    folder = tmp_path / "there"
    name = "fe\x1b[31mrn\nシダ"
    about = foreign.kohya_metadata(1, ss_output_name=name, ss_dataset_dirs="{}")
    foreign.save(folder / f"{name}-000001.safetensors", foreign.kohya_tensors(1), about)
    shown = CliRunner().invoke(cli, ["ingest", str(folder), "--out", str(tmp_path / "run")])
    assert shown.exit_code == 0, shown.output
    assert "\x1b" not in shown.output
    stored = [p.name for p in (tmp_path / "run" / "lora").iterdir()]
    assert stored == ["fe_[31mrn_シダ-000001.safetensors"]


def test_ingest_prints_json_for_machines(tmp_path, model):
    shown = CliRunner().invoke(cli, ["ingest", str(model), "--out", str(tmp_path / "r"), "--json"])
    said = json.loads(shown.stdout)
    assert said["trainer"] == "kohya"
    assert {found["role"] for found in said["found"]} == {"lora", "samples", "logs", "dataset"}
    assert said["missing"][0]["command"].startswith("lorascope add base")


def test_a_lora_from_anywhere_makes_a_run(tmp_path, model):
    run = add_lora(tmp_path / "run", [model / "fern-000002.safetensors"], say=quiet)
    assert (run.base, epochs(run)) == ("", [(2, 40)])
    add_lora(tmp_path / "run", [model / "fern.safetensors"], say=quiet)
    assert epochs(Run(tmp_path / "run")) == [(2, 40), (4, 80)]
    assert not run.has("base")
    with pytest.raises(MissingInputError, match="lorascope add base"):
        run.input("base")


@pytest.mark.parametrize("kind", ["missing", "torn", "base file", "empty"])
def test_what_is_no_lora_is_not_added(tmp_path, kind):
    folder = bad_folder(tmp_path, kind)
    named = next(iter(folder.iterdir()), folder) if folder.is_dir() else folder
    with pytest.raises(LorascopeError, match=r"no LoRA|does not exist|cut short|no safetensors"):
        add_lora(tmp_path / "run", [named], say=quiet)
    assert not (tmp_path / "run").exists()


def test_logs_and_samples_are_added_to_a_run(tmp_path, model):
    run = add_lora(tmp_path / "run", [model], say=quiet)
    add_logs(run.path, model.parent / "log" / "20240501120005", say=quiet)
    add_samples(run.path, model / "sample", say=quiet)
    assert len(list(run.place("events").rglob("*tfevents*"))) == 1
    assert [row["epoch"] for row in samples(run)] == [1, 1, 2, 2, 3, 3, 4, 4]
    for wrong in (model / "sample", model / "fern.safetensors"):
        with pytest.raises(BadInputError, match="no event files"):
            add_logs(run.path, wrong, say=quiet)
    with pytest.raises(BadInputError, match="holds no pictures"):
        add_samples(run.path, model.parent / "log", say=quiet)


def images(root: Path, seeds: range, tag: str = "zyxfern") -> Path:
    for seed in seeds:
        image = foreign.picture(root / f"{seed}.png", seed=seed, side=32)
        image.with_suffix(".txt").write_text(f"{tag}, leaf {seed}")
    return root


def test_images_of_several_splits_share_one_root(tmp_path):
    train = images(tmp_path / "data" / "5_zyxfern plant", range(3)).parent
    kept = images(tmp_path / "kept", range(3, 5))
    run, _ = add_dataset(tmp_path / "run", train, say=quiet)
    run, dataset = add_dataset(run.path, kept, split="held-out", say=quiet)
    run, dataset = add_dataset(run.path, kept, split="held-out", say=quiet)
    assert dataset.root == tmp_path
    assert [(i.file, i.split, i.repeats) for i in dataset.images] == [
        ("data/5_zyxfern plant/0.png", "train", 5),
        ("data/5_zyxfern plant/1.png", "train", 5),
        ("data/5_zyxfern plant/2.png", "train", 5),
        ("kept/3.png", "held-out", 1),
        ("kept/4.png", "held-out", 1),
    ]
    stored = read_dataset(run.place("dataset"))
    assert all(stored.path(image).is_file() for image in stored.images)
    assert stored.trigger == "zyxfern"


def test_an_image_trained_on_is_never_added_as_held_out(tmp_path):
    train = images(tmp_path / "train", range(3))
    run, _ = add_dataset(tmp_path / "run", train, say=quiet)
    said: list[str] = []
    both = images(tmp_path / "both", range(2, 4))
    _, dataset = add_dataset(run.path, both, split="held-out", say=said.append)
    assert [i.file for i in dataset.held_out] == ["both/3.png"]
    assert any("in the run as train already" in text for text in said)
    with pytest.raises(BadInputError, match="in the run already"):
        add_dataset(run.path, images(tmp_path / "again", range(3)), split="held-out", say=quiet)


def test_a_base_of_the_wrong_family_is_refused_and_a_right_one_kept(tmp_path, model):
    run = add_lora(tmp_path / "run", [model / "fern.safetensors"], say=quiet)
    unet = np.zeros((2, 2), np.float32)
    start = {"model.diffusion_model.input_blocks.0.0.weight": unet}
    wrong = foreign.save(
        tmp_path / "xl.safetensors", {**start, "conditioner.embedders.1.model.ln": unet}, {}
    )
    with pytest.raises(BadInputError, match=r"is SDXL, and the LoRA was made for SD 1\.x"):
        add_base(run.path, str(wrong), say=quiet)
    with pytest.raises(BadInputError, match=r"the LoRA was made for SD 1\.x"):
        add_base(run.path, "miniature", say=quiet)
    assert Run(run.path).base == ""
    right = foreign.save(
        tmp_path / "sd.safetensors", {**start, "cond_stage_model.transformer.ln": unet}, {}
    )
    assert add_base(run.path, str(right), say=quiet).base == str(right)
    assert Run(run.path).has("base")


@pytest.mark.parametrize("what", ["lora", "logs", "samples", "dataset"])
def test_adding_a_path_that_is_not_there_makes_no_run(tmp_path, what):
    shown = CliRunner().invoke(cli, ["add", what, str(tmp_path / "run"), str(tmp_path / "none")])
    assert shown.exit_code == 2
    assert "does not exist" in shown.output
    assert not (tmp_path / "run").exists()


def test_more_of_one_name_than_are_listed_are_counted_among_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr("lorascope.ingest.trainings.LISTED", 2)
    for number in range(3):
        about = foreign.kohya_metadata(1, ss_session_id=number,
                                       ss_training_started_at=foreign.STARTED + number)  # fmt: skip
        foreign.save(
            tmp_path / "there" / str(number) / "fern-000001.safetensors",
            foreign.kohya_tensors(1),
            about,
        )
    for name in ("moss", "oak", "ivy"):
        about = foreign.kohya_metadata(1, ss_output_name=name)
        foreign.save(tmp_path / "there" / f"{name}.safetensors", foreign.kohya_tensors(1), about)
    with pytest.raises(BadInputError, match=r"\.\.\. and 1 more"):
        take(tmp_path / "there", tmp_path / "run", name="fern")
    with pytest.raises(BadInputError, match=r"\.\.\. and 4 more"):
        take(tmp_path / "there", tmp_path / "run")
    assert LISTED == 40


def two_of_one_name(root: Path, *, told: bool) -> Path:
    for number, folder in enumerate(("a", "b"), start=1):
        start = foreign.STARTED + 90_000 * number
        for epoch in (1, 2):
            about = foreign.kohya_metadata(epoch, ss_session_id=number,
                ss_training_started_at=start, ss_training_finished_at=start + 60)  # fmt: skip
            file = root / folder / f"fern-{epoch:06}.safetensors"
            foreign.save(file, foreign.kohya_tensors(epoch + number), about if told else {})
        foreign.picture(root / folder / f"fern_e000001_00_20240501120001_{number}.png")
        config = {"output_name": "fern", "network_dim": 4, "seed": number}
        (root / folder / "fern.json").write_text(json.dumps(config))
    return root


@pytest.mark.parametrize("told", [True, False])
def test_two_trainings_of_one_name_in_two_folders_keep_what_is_theirs(tmp_path, told):
    folder = two_of_one_name(tmp_path / "there", told=told)
    with pytest.raises(BadInputError, match="2 trainings") as raised:
        take(folder, tmp_path / "run")
    assert "fern#1, in a: 2 checkpoints" in str(raised.value)
    assert "fern#2, in b: 2 checkpoints" in str(raised.value)
    for number in (1, 2):
        done = take(folder, tmp_path / str(number), name=f"fern#{number}")
        assert [epoch for epoch, _ in epochs(done.run)] == [1, 2]
        assert [row["seed"] for row in samples(done.run)] == [number]
        config = read_config(done.run.place("config"))
        assert config.seed == (42 if told else number)


def test_prompts_in_the_current_directory_are_never_taken(tmp_path, model, monkeypatch):
    (model / "sample" / "prompt.txt").unlink()
    file = next(model.glob("*.json"))
    about = json.loads(file.read_text())
    file.write_text(json.dumps({**about, "sample_prompts": "prompts/mine.txt"}))
    here = tmp_path / "here"
    (here / "prompts").mkdir(parents=True)
    (here / "prompts" / "mine.txt").write_text("unrelated --d 1\nunrelated too\n")
    monkeypatch.chdir(here)
    assert {row["prompt"] for row in samples(take(model, tmp_path / "one").run)} == {""}
    (model / "prompts").mkdir()
    (model / "prompts" / "mine.txt").write_text("zyxfern\na cat\n")
    assert {row["prompt"] for row in samples(take(model, tmp_path / "two").run)} == {
        "zyxfern", "a cat"}  # fmt: skip


def test_images_in_the_current_directory_are_never_taken(tmp_path, model, monkeypatch):
    file = next(model.glob("*.json"))
    about = json.loads(file.read_text())
    file.write_text(json.dumps({**about, "train_data_dir": "pictures"}))
    images(model / "pictures", range(3))
    images(model.parent / "pictures", range(3, 5))
    monkeypatch.chdir(model.parent)
    done = take(Path("model"), tmp_path / "run")
    assert read_dataset(done.run.place("dataset")).root == model / "pictures"


def test_of_several_configs_the_one_of_this_time_counts(tmp_path, model):
    first = next(model.glob("*.json"))
    about = json.loads(first.read_text())
    first.unlink()
    began = foreign.STARTED
    for name, seconds, offset in (("old", -90 * 86400, 1.0), ("mine", -60, 2.0), ("new", 1e7, 3.0)):
        file = model / f"{name}.json"
        file.write_text(json.dumps({**about, "noise_offset": offset}))
        os.utime(file, (began + seconds, began + seconds))
    assert "noise_offset = 2.0" in take(model, tmp_path / "a").run.place("config").read_text()
    stamped = (
        model / "fern_20240501-115900.json"
    )  # copied: its file time says nothing, its name does
    stamped.write_text(json.dumps({**about, "noise_offset": 4.0}))
    os.utime(stamped, (began + 2e7, began + 2e7))
    (model / "mine.json").unlink()
    assert "noise_offset = 4.0" in take(model, tmp_path / "b").run.place("config").read_text()
    timeless = model / "fern.json"
    stamped.rename(timeless)
    os.utime(timeless, (0, 0))  # of no known time: rather this one than one of another month
    assert "noise_offset = 4.0" in take(model, tmp_path / "c").run.place("config").read_text()


def test_images_that_were_not_trained_on_are_said_with_the_command_that_holds_them_out(
    tmp_path, model
):
    root = model.parent / "img"
    extra = images(root / "10_zyxfern plant", range(10, 13))
    done = take(model, tmp_path / "run")
    said = next(found.text for found in done.found if found.role == "dataset")
    assert "it has 5 images, and the training had 2" in said
    assert f"lorascope add dataset {done.run.shell} FOLDER --as held-out" in said
    assert said.count(". ") == 0
    moved = tmp_path / "kohya" / "kept"
    moved.mkdir()
    for seed in range(10, 13):
        for ending in (".png", ".txt"):
            (extra / f"{seed}{ending}").rename(moved / f"{seed}{ending}")
    _, dataset = add_dataset(done.run.path, moved, split="held-out", say=quiet)
    assert len(dataset.held_out) == 3
    assert len(dataset.images) == 5
    assert all(dataset.path(image).is_file() for image in dataset.images)
    again = take(model, tmp_path / "run")
    assert len(read_dataset(again.run.place("dataset")).held_out) == 3


def test_images_that_our_own_trainer_trained_on_are_not_held_out_by_moving_them(tmp_path):
    train = images(tmp_path / "train", range(3))
    run = Run.create(tmp_path / "run", base="", base_digest="")
    add_dataset(run.path, train, say=quiet)
    train.rename(tmp_path / "moved")
    with pytest.raises(BadInputError, match="in the run already"):
        add_dataset(run.path, tmp_path / "moved", split="held-out", say=quiet)


def test_a_dataset_with_fewer_images_than_the_training_had_is_said(tmp_path, model):
    next((model.parent / "img").rglob("0.png")).unlink()
    done = take(model, tmp_path / "run")
    said = next(found.text for found in done.found if found.role == "dataset")
    assert said.endswith("it has 1 image, and the training had 2")


@pytest.mark.parametrize("ending", [".pt", ".ckpt", ".pth", ".bin"])
def test_a_pickled_lora_is_refused_and_the_command_said_is_the_one_that_takes_it(tmp_path, ending):
    file = foreign.pickled(tmp_path / f"my fern-000003{ending}", 3)
    run = tmp_path / "my run"
    refused = CliRunner().invoke(cli, ["add", "lora", str(run), str(file)])
    assert refused.exit_code == 2
    assert "is a LoRA in a pickle, which can run any program when it is opened" in refused.output
    assert not run.exists()
    command = refused.output.split("Fix: lorascope ")[1].strip()
    shown = CliRunner().invoke(cli, shlex.split(command))
    assert shown.exit_code == 0, shown.output
    saved = list_checkpoints(Run(run).place("lora"))
    assert [(c.path.name, c.epoch) for c in saved] == [("my fern-000003.safetensors", 3)]


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_nothing_of_a_pickled_lora_is_lost(tmp_path, dtype):
    file = foreign.pickled(tmp_path / "fern.ckpt", 3, dtype=dtype, zipped=False)
    run = add_lora(tmp_path / "run", [file], allow_pickle=True, say=quiet)
    kept = run.place("lora") / "fern.safetensors"
    read = read_lora(kept)
    assert read.dtype == dtype
    assert read_metadata(kept) == {}
    with safetensors_file.Reader(kept, safetensors_file.read_header(kept)) as reader:
        for name, values in foreign.pickled_tensors(3, dtype).items():
            np.testing.assert_array_equal(reader.tensor(name), values)


def test_a_pickled_lora_is_converted_once_and_again_when_it_has_changed(tmp_path):
    file = foreign.pickled(tmp_path / "fern.pt", 3)
    said: list[str] = []
    for _ in range(2):
        run = add_lora(tmp_path / "run", [file], allow_pickle=True, say=said.append)
    assert said == ["Checkpoints: 1 new.", "Checkpoints: 0 new, 1 there already."]
    foreign.pickled(file, 4)
    os.utime(file, (1, 1))
    add_lora(tmp_path / "run", [file], allow_pickle=True, say=said.append)
    assert said[-1] == "Checkpoints: 0 new, 1 changed."
    module = next(iter(read_lora(run.place("lora") / "fern.safetensors").modules.values()))
    expected = foreign.pickled_tensors(4, "F16")[f"{module.name}.lora_up.weight"]
    np.testing.assert_array_equal(module.up, expected)


def test_a_pickle_that_would_run_code_runs_none_and_leaves_no_run(tmp_path):
    made = tmp_path / "made"
    file = foreign.dangerous(tmp_path / "fern.pt", made)
    for words in ([], ["--allow-pickle"]):
        shown = CliRunner().invoke(cli, ["add", "lora", str(tmp_path / "run"), str(file), *words])
        assert shown.exit_code == 2
        assert "Traceback" not in shown.output
    assert "nothing in it was run" in shown.output
    (tmp_path / "there").mkdir()
    file.rename(tmp_path / "there" / "fern.pt")
    with pytest.raises(BadInputError, match="1 LoRA in a pickle"):
        take(tmp_path / "there", tmp_path / "run")
    assert not made.exists()
    assert not (tmp_path / "run").exists()


def test_a_pickle_of_something_else_is_named_and_not_loaded(tmp_path, monkeypatch):
    file = foreign.pickled(tmp_path / "model.ckpt", 3, start="model.diffusion_model.")
    monkeypatch.setattr("torch.load", None)
    with pytest.raises(BadInputError, match="no LoRA: it is a base model"):
        add_lora(tmp_path / "run", [file], allow_pickle=True, say=quiet)
    with pytest.raises(BadInputError, match="no LoRA: it is a base model"):
        add_lora(tmp_path / "run", [file], say=quiet)


def test_pickles_and_other_files_are_added_together_or_not_at_all(tmp_path, model):
    file = foreign.pickled(tmp_path / "fern-000009.pt", 9)
    dangerous = foreign.dangerous(tmp_path / "bad.pt", tmp_path / "made")
    with pytest.raises(BadInputError, match="nothing in it was run"):
        add_lora(tmp_path / "run", [file, dangerous], allow_pickle=True, say=quiet)
    assert not (tmp_path / "run").exists()
    both = [model / "fern-000002.safetensors", file]
    run = add_lora(tmp_path / "run", both, allow_pickle=True, say=quiet)
    assert epochs(run) == [(2, 40), (9, 0)]


def test_pickled_loras_are_passed_over_and_listed_with_the_command(tmp_path, model):
    for epoch in (5, 6):
        foreign.pickled(model / f"fern-{epoch:06}.ckpt", epoch)
    foreign.pickled(model / "base.ckpt", 1, start="model.diffusion_model.")
    (model / "optimizer.pt").write_bytes(b"x" * 64)
    done = take(model, tmp_path / "run")
    assert [epoch for epoch, _ in epochs(done.run)] == [1, 2, 3, 4]
    note = next(note for note in done.notes if "pickle" in note)
    assert note.startswith("Left out: 2 LoRAs in pickles, which can run any program when opened")
    command = note.split("lorascope ")[1]
    assert "base.ckpt" not in command
    assert "optimizer" not in command
    shown = CliRunner().invoke(cli, shlex.split(command))
    assert shown.exit_code == 0, shown.output
    assert [epoch for epoch, _ in epochs(done.run)] == [1, 2, 3, 4, 5, 6]


def test_a_folder_with_pickled_loras_alone_says_the_command(tmp_path):
    folder = tmp_path / "there"
    for epoch in (1, 2):
        foreign.pickled(folder / f"fern-{epoch:06}.pt", epoch)
    command = f"lorascope add lora {tmp_path / 'run'}"
    with pytest.raises(BadInputError, match="2 LoRAs in pickles") as raised:
        take(folder, tmp_path / "run")
    assert str(raised.value).split("Fix: ")[1].startswith(command)
    with pytest.raises(BadInputError, match="2 LoRAs in pickles") as raised:
        add_lora(tmp_path / "run", [folder], allow_pickle=True, say=quiet)
    told = str(raised.value).split("Fix: lorascope ")[1]
    assert CliRunner().invoke(cli, shlex.split(told)).exit_code == 0
    assert len(epochs(Run(tmp_path / "run"))) == 2


def test_ingest_loads_no_torch_where_there_are_pickles(tmp_path):
    folder = tmp_path / "there"
    foreign.save(folder / "fern.safetensors", foreign.kohya_tensors(1), foreign.kohya_metadata(1))
    foreign.pickled(folder / "fern-000002.pt", 2)
    code = (
        "import sys; from pathlib import Path; from lorascope.ingest import ingest\n"
        f"ingest(Path({str(folder)!r}), Path({str(tmp_path / 'run')!r}), say=print)\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "LoRA in a pickle" in done.stdout


def test_the_steps_in_the_names_of_folders_are_kept(tmp_path):
    out = foreign.diffusers(tmp_path)
    folders = [out / f"checkpoint-{step}" for step in (1000, 500)]
    run = add_lora(tmp_path / "run", folders, say=quiet)
    assert epochs(run) == [(1, 500), (2, 1000)]


def test_what_peft_keeps_beside_a_pickled_adapter_is_taken_with_it(tmp_path):
    file = foreign.pickled(tmp_path / "oak" / "adapter_model.bin", 1, peft=True)
    (file.parent / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 1}')
    run = add_lora(tmp_path / "run", [file], allow_pickle=True, say=quiet)
    lora = read_lora(run.place("lora") / "adapter_model.safetensors")
    assert {module.scale for module in lora.modules.values()} == {0.25}
