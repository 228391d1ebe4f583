"""Of several trainings, tries and lists that lie together, a run gets what is its own."""

import json
import os
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from lorascope.cli import cli
from lorascope.errors import BadInputError
from lorascope.ingest import ingest
from lorascope.io.checkpoints import list_checkpoints
from lorascope.io.dataset_file import read_dataset
from tests import foreign_folders as foreign
from tests.test_ingest import epochs, samples, take

HOUR = 3600


def two(folder: Path, *, apart: int = HOUR + 40) -> Path:
    """Write fern, an hour long, and moss, begun 40 s after its end, in one folder."""
    for number, name in enumerate(("fern", "moss")):
        start = foreign.STARTED + number * apart
        for epoch in (1, 2):
            about = foreign.kohya_metadata(epoch, ss_output_name=name, ss_session_id=number,
                ss_training_started_at=start, ss_training_finished_at=start + HOUR // 2 * epoch,
            )  # fmt: skip
            tensors = foreign.kohya_tensors(epoch + 10 * number)
            foreign.save(folder / f"{name}-{epoch:06}.safetensors", tensors, about)
        foreign.events(folder / "logs" / name, ["loss/current"], start=start + 5)
    return folder


def silent(folder: Path, *stems: str) -> Path:
    """Write files without metadata."""
    for number, stem in enumerate(stems):
        foreign.save(folder / f"{stem}.safetensors", foreign.kohya_tensors(number), {})
    return folder


def logs(run) -> list[str]:
    return sorted(p.parent.name for p in run.place("events").rglob("*tfevents*"))


def test_a_run_of_one_training_is_not_made_of_another_too(tmp_path):
    folder, out = two(tmp_path / "there"), tmp_path / "R"
    take(folder, out, name="moss")
    with pytest.raises(BadInputError, match="made of the training moss, not of fern") as raised:
        take(folder, out, name="fern")
    assert {c.path.name for c in list_checkpoints(out / "lora")} == {
        "moss-000001.safetensors", "moss-000002.safetensors"}  # fmt: skip
    command = str(raised.value).split("Fix: lorascope ")[1]
    done = CliRunner().invoke(cli, shlex.split(command))
    assert done.exit_code == 0, done.output
    assert len(list_checkpoints(tmp_path / "fern" / "lora")) == 2
    assert take(folder, out, name="moss").name == "moss"


def test_a_run_that_bears_the_other_trainings_name_is_not_named_in_the_command(tmp_path):
    folder, out = two(tmp_path / "there"), tmp_path / "fern"
    take(folder, out, name="moss")
    with pytest.raises(BadInputError, match=r"--out .*fern-2 --name fern"):
        take(folder, out, name="fern")


def test_a_training_that_got_a_number_since_is_still_the_one_of_its_run(tmp_path):
    folder, out = tmp_path / "there", tmp_path / "R"
    about = foreign.kohya_metadata(1)
    foreign.save(folder / "fern-000001.safetensors", foreign.kohya_tensors(1), about)
    assert take(folder, out).name == "fern"
    later = {"ss_session_id": 2, "ss_training_started_at": foreign.STARTED + 90_000}
    about = foreign.kohya_metadata(1, **later)
    foreign.save(folder / "again" / "fern-000001.safetensors", foreign.kohya_tensors(2), about)
    assert take(folder, out, name="fern#1").name == "fern#1"
    with pytest.raises(BadInputError, match="not of fern#2"):
        take(folder, out, name="fern#2")


def test_logs_of_trainings_queued_back_to_back_go_to_the_one_that_started_last(tmp_path):
    folder = two(tmp_path / "there")
    for name in ("fern", "moss"):
        assert logs(take(folder, tmp_path / name, name=name).run) == [name]


def test_a_log_begun_after_the_end_is_not_that_trainings(tmp_path):
    folder = two(tmp_path / "there")
    for path in folder.glob("moss*"):
        path.unlink()
    assert logs(take(folder, tmp_path / "run").run) == ["fern"]


def test_which_log_is_its_cannot_be_told_and_each_is_named_with_its_command(tmp_path):
    folder = silent(tmp_path / "there", "fern-000001", "fern-000002")
    for number in (1, 2):
        foreign.events(tmp_path / "logs" / f"try {number}", ["loss"], start=number * 1e9)
    done = take(folder, tmp_path / "run")
    lacking = [missing for missing in done.missing if missing.role == "logs"]
    assert len(lacking) == 2
    assert all("cannot be told which of 2 folders of logs is its" in m.why for m in lacking)
    assert not any("other times" in missing.why for missing in lacking)
    shown = CliRunner().invoke(cli, shlex.split(lacking[1].command)[1:])
    assert shown.exit_code == 0, shown.output
    assert len(logs(done.run)) == 1


def test_the_order_of_epochs_and_steps_that_nothing_tells_is_not_made_up(tmp_path):
    names = [f"fern-{epoch:06}" for epoch in (1, 2, 3, 4)]
    steps = [f"fern-step{step:08}" for step in (10, 30, 50, 70)]
    folder = silent(tmp_path / "there", *names, *steps)
    for path in folder.iterdir():
        os.utime(path, (1e9, 1e9))
    shown = CliRunner().invoke(cli, ["ingest", str(folder), "--out", str(tmp_path / "run")])
    assert shown.exit_code == 0, shown.output
    assert "fern-step00000010.safetensors and 3 more were left out: saved at steps" in shown.output
    assert "epochs 1 to 4" in shown.output
    kept = [(c.epoch, c.path.stem) for c in list_checkpoints(tmp_path / "run" / "lora")]
    assert kept == list(enumerate(names, start=1))


@pytest.mark.parametrize("copy", [True, False])
def test_an_order_told_by_times_outlives_the_taking_over(tmp_path, copy):
    order = ["fern-step00000010", "fern-000001", "fern-000002", "fern-step00000050"]
    folder = silent(tmp_path / "there", *order)
    for number, stem in enumerate(order):
        os.utime(folder / f"{stem}.safetensors", (1e9 + number, 1e9 + number))
    run = take(folder, tmp_path / "run", copy=copy).run
    assert [c.path.stem for c in list_checkpoints(run.place("lora"))] == order


def test_samples_of_another_lora_are_not_taken_where_its_own_are_there(tmp_path):
    folder = silent(tmp_path / "there", "fern_2_v01-000001", "fern_2_v01-000002")
    for name, seed in (("fern_2", 5), ("fern_2_v01", 6)):
        foreign.picture(folder / "sample" / f"{name}_e000001_00_20240501120001_{seed}.png")
    assert [row["seed"] for row in samples(take(folder, tmp_path / "run").run)] == [6]


def test_samples_of_one_other_name_are_those_of_a_renamed_training_and_of_two_are_not(tmp_path):
    folder = silent(tmp_path / "there", "moss-000001")
    foreign.picture(folder / "fern_e000001_00_20240501120001_5.png")
    assert [row["seed"] for row in samples(take(folder, tmp_path / "one").run)] == [5]
    foreign.picture(folder / "oak_e000001_00_20240501120001_6.png")
    done = take(folder, tmp_path / "two")
    assert any("2 sample pictures, none of its name" in missing.why for missing in done.missing)


def test_a_sample_of_an_epoch_is_not_put_at_the_state_of_that_number(tmp_path):
    folder = silent(tmp_path / "there", "fern-step00000010", "fern-step00000020")
    foreign.picture(folder / "fern_e000001_00_20240501120001_5.png")
    assert [row["epoch"] for row in samples(take(folder, tmp_path / "run").run)] == [None]


TOML = """
[general]
caption_extension = ".caption"
[[datasets]]
resolution = [640, 512]
  [[datasets.subsets]]
  image_dir = {ferns}
  num_repeats = 7
  class_tokens = "zyxfern plant"
  [[datasets.subsets]]
  image_dir = "class images"
  is_reg = true
"""


def with_toml(root: Path) -> Path:
    """Write a training whose images only a dataset config names."""
    folder = root / "there"
    about = foreign.kohya_metadata(1, ss_dataset_dirs="{}", ss_tag_frequency="{}",
                                   ss_resolution="None")  # fmt: skip
    del about["modelspec.resolution"]
    foreign.save(folder / "fern.safetensors", foreign.kohya_tensors(1), about)
    for seed in (1, 2):
        image = foreign.picture(root / "pictures" / f"{seed}.png", seed=seed, side=64)
        image.with_suffix(".caption").write_text("zyxfern, pot")
        foreign.picture(folder / "class images" / f"{seed}.png", seed=seed + 5, side=64)
    text = TOML.format(ferns=json.dumps(str(root / "pictures")))
    (folder / "dataset.toml").write_text(text)
    return folder


@pytest.mark.parametrize("where", ["beside", "named", "named from elsewhere"])
def test_images_that_a_dataset_config_names_are_taken_with_what_it_says(tmp_path, where):
    folder = with_toml(tmp_path)
    if where != "beside":
        name = "/home/me/dataset.toml" if where == "named from elsewhere" else "dataset.toml"
        about = {"output_name": "fern", "network_dim": 4, "dataset_config": name,
                 "train_data_dir": "class images"}  # fmt: skip
        (folder / "fern.json").write_text(json.dumps(about))
    done = take(folder, tmp_path / "run")
    dataset = read_dataset(done.run.place("dataset"))
    assert dataset.root == tmp_path / "pictures"
    assert {(i.repeats, i.caption) for i in dataset.images} == {(7, "zyxfern, pot")}
    assert len(dataset.images) == 2
    assert (dataset.trigger, dataset.class_word) == ("zyxfern", "plant")
    assert dataset.resolution == (640, 512)
    assert "repeats = 7" in done.run.place("config").read_text()


def test_class_tokens_that_no_caption_has_are_no_trigger(tmp_path):
    folder = with_toml(tmp_path)
    for path in (tmp_path / "pictures").glob("*.caption"):
        path.write_text("moss, stone")
    run = take(folder, tmp_path / "run").run
    assert read_dataset(run.place("dataset")).trigger != "zyxfern"


def test_of_two_dataset_configs_none_is_taken_and_a_lost_one_is_named(tmp_path):
    folder = with_toml(tmp_path)
    other = (folder / "dataset.toml").read_text().replace("= 7", "= 3")
    (folder / "other.toml").write_text(other)
    done = take(folder, tmp_path / "run")
    assert not done.run.has("dataset")
    assert any("2 dataset configs" in note for note in done.notes)
    about = {"output_name": "fern", "network_dim": 4, "dataset_config": "D:\\x\\lost.toml"}
    (folder / "fern.json").write_text(json.dumps(about))
    lost = take(folder, tmp_path / "lost")
    assert any("lost.toml is not here" in missing.why for missing in lost.missing)


def test_one_dataset_config_beside_two_trainings_is_neithers_until_one_names_it(tmp_path):
    folder = with_toml(tmp_path)
    about = foreign.kohya_metadata(1, ss_output_name="moss", ss_dataset_dirs="{}")
    foreign.save(folder / "moss.safetensors", foreign.kohya_tensors(2), about)
    assert not take(folder, tmp_path / "one", name="fern").run.has("dataset")
    config = {"output_name": "fern", "network_dim": 4, "dataset_config": "dataset.toml"}
    (folder / "fern.json").write_text(json.dumps(config))
    assert take(folder, tmp_path / "fern", name="fern").run.has("dataset")
    assert not take(folder, tmp_path / "moss", name="moss").run.has("dataset")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("prompt.toml", '[prompt]\n[[prompt.subset]]\nprompt = "zyxfern"\nseed = 5\n'),
        ("prompt.json", '[{"prompt": "zyxfern", "seed": 5}]'),
        ("prompts.txt", "zyxfern --d 5\n"),
    ],
)
def test_a_list_of_prompts_beside_the_samples_is_read(tmp_path, name, text):
    folder = silent(tmp_path / "there", "fern-000001")
    foreign.picture(folder / "sample" / "fern_e000001_00_20240501120001_5.png")
    (folder / "sample" / name).write_text(text)
    assert [row["prompt"] for row in samples(take(folder, tmp_path / "run").run)] == ["zyxfern"]


def damaged(folder: Path, kind: str) -> None:
    path = folder / "bad.safetensors"
    if kind == "text":
        path.write_text("a text that is no LoRA at all")
    elif kind == "header alone":
        path.write_bytes(b"\x10\0\0\0\0\0\0\0")
    elif kind == "dead link":
        path.symlink_to(folder / "nowhere")
    elif kind == "cut":
        path.write_bytes((folder / "fern-000001.safetensors").read_bytes()[:-10])
    else:
        path.touch()
        os.utime(path, (1e9, 1e9) if kind == "empty, old" else None)


@pytest.mark.parametrize(
    ("kind", "waits"),
    [("text", False), ("header alone", False), ("dead link", False), ("empty, old", False),
     ("cut", True), ("empty, new", True)],
)  # fmt: skip
def test_only_a_file_that_is_to_grow_is_said_to_be_still_written(tmp_path, kind, waits):
    folder = silent(tmp_path / "there", "fern-000001")
    damaged(folder, kind)
    done = take(folder, tmp_path / "run")
    note = next(note for note in done.notes if "bad.safetensors" in note)
    assert ("still be being written" in note) is waits


@pytest.mark.parametrize("name", ["pipe.safetensors", "events.out.tfevents.1.host", "a.json"])
def test_what_is_no_regular_file_is_passed_over_and_named(tmp_path, name):
    folder = silent(tmp_path / "there", "fern-000001")
    os.mkfifo(folder / name)
    done = take(folder, tmp_path / "run")
    assert epochs(done.run) == [(1, 0)]
    assert [n for n in done.notes if "no regular file" in n]
    assert not any("does not exist" in note for note in done.notes)


def test_notes_are_said_once(tmp_path):
    said: list[str] = []
    folder = silent(tmp_path / "there", "fern-000001", "fern-step00000010", "fern-step00000020")
    for path in folder.iterdir():
        os.utime(path, (1e9, 1e9))
    ingest(folder, tmp_path / "run", say=said.append)
    assert sum("saved at steps" in text for text in said) == 1
