"""What is added to a run leaves what it has as it was: sides, repeats, checkpoints."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from lorascope.cli import cli
from lorascope.errors import BadInputError
from lorascope.ingest import add_dataset, add_lora, ingest
from lorascope.io.dataset_file import Dataset, read_dataset
from lorascope.io.lora_file import read_metadata
from lorascope.run import Run
from tests import foreign_folders as foreign

TRAINED, HELD = range(4), range(4, 6)


def quiet(_text: str) -> None:
    pass


def images(root: Path, seeds: range, tag: str = "zyxfern") -> Path:
    for seed in seeds:
        image = foreign.picture(root / f"{seed}.png", seed=seed, side=16)
        image.with_suffix(".txt").write_text(f"{tag}, leaf {seed}")
    return root


def sides(dataset: Dataset) -> dict[str, str]:
    return {image.file.rpartition("/")[2]: image.split for image in dataset.images}


def stored(run: Run) -> Dataset:
    return read_dataset(run.place("dataset"))


def made(tmp_path: Path, *, ours: bool) -> Run:
    """A run with four images trained on and two held out."""
    origin = None if ours else {"folder": "", "name": "fern"}
    run = Run.create(tmp_path / "run", base="", base_digest="", origin=origin)
    images(tmp_path / "data" / "5_zyxfern", TRAINED)
    images(tmp_path / "kept", HELD)
    add_dataset(run.path, tmp_path / "data", split="train", say=quiet)
    add_dataset(run.path, tmp_path / "kept", split="held-out", say=quiet)
    return run


SIDES = {f"{n}.png": "train" for n in TRAINED} | {f"{n}.png": "held-out" for n in HELD}
each_maker = pytest.mark.parametrize("ours", [True, False], ids=["ours", "another's"])


@each_maker
@pytest.mark.parametrize("other", ["held-out", "composition"])
def test_images_trained_on_do_not_become_others_in_their_place(tmp_path, ours, other):
    run = made(tmp_path, ours=ours)
    before = run.place("dataset").read_bytes()
    with pytest.raises(BadInputError, match="4 images are in the run already, as train") as raised:
        add_dataset(run.path, tmp_path / "data", split=other, say=quiet)
    assert "5_zyxfern/0.png" in str(raised.value)
    assert "\nFix: " in str(raised.value)
    assert run.place("dataset").read_bytes() == before


@each_maker
def test_held_out_images_do_not_become_trained_on_in_their_place(tmp_path, ours):
    run = made(tmp_path, ours=ours)
    with pytest.raises(BadInputError, match="2 images are in the run already, as held-out"):
        add_dataset(run.path, tmp_path / "kept", split="train", say=quiet)
    assert sides(stored(run)) == SIDES


def test_one_image_trained_on_among_new_ones_stops_all_where_its_own_folder_is_named(tmp_path):
    run = made(tmp_path, ours=False)
    images(tmp_path / "data" / "5_zyxfern", range(6, 8))
    with pytest.raises(BadInputError, match="4 images are in the run already"):
        add_dataset(run.path, tmp_path / "data", split="held-out", say=quiet)
    assert sides(stored(run)) == SIDES


@each_maker
def test_a_copy_of_an_image_trained_on_is_never_held_out(tmp_path, ours):
    run = made(tmp_path, ours=ours)
    with pytest.raises(BadInputError, match="2 images are in the run already, as train"):
        add_dataset(run.path, images(tmp_path / "new", range(2)), split="held-out", say=quiet)
    said: list[str] = []
    mixed = images(tmp_path / "mixed", range(3, 8))
    add_dataset(run.path, mixed, split="held-out", say=said.append)
    assert sides(stored(run)) == SIDES | {"6.png": "held-out", "7.png": "held-out"}
    assert "warning: 1 image is in the run as train already and not added: 3.png" in said
    assert said[-1] == "2 new images as held-out, 2 there already; the dataset has 8."


def test_images_of_another_trainer_that_are_moved_and_named_change_their_side(tmp_path):
    run = made(tmp_path, ours=False)
    moved = tmp_path / "moved"
    moved.mkdir()
    for ending in ("png", "txt"):
        (tmp_path / "data" / "5_zyxfern" / f"2.{ending}").rename(moved / f"2.{ending}")
    said: list[str] = []
    _, dataset = add_dataset(run.path, moved, split="held-out", say=said.append)
    assert sides(dataset) == SIDES | {"2.png": "held-out"}
    assert any("1 image was moved out of" in text and "no longer train" in text for text in said)
    assert all(dataset.path(image).is_file() for image in dataset.images)


@pytest.mark.parametrize("how", ["moved, ours", "edited"])
def test_one_image_of_our_trainer_or_one_edited_in_place_stays_trained_on(tmp_path, how):
    run = made(tmp_path, ours=how != "edited")
    folder = tmp_path / "data" / "5_zyxfern"
    if how == "edited":
        for number in range(3):
            (folder / f"{number}.png").rename(tmp_path / f"{number}.png")
        foreign.picture(folder / "3.png", seed=99, side=16)
    else:
        (tmp_path / "moved").mkdir()
        (folder / "3.png").rename(tmp_path / "moved" / "3.png")
        folder = tmp_path / "moved"
    with pytest.raises(BadInputError, match="1 image is in the run already, as train"):
        add_dataset(run.path, folder, split="held-out", say=quiet)
    assert sides(stored(run)) == SIDES


def test_of_two_with_the_same_bytes_the_one_that_is_gone_is_dropped(tmp_path):
    run = made(tmp_path, ours=True)
    place = run.place("dataset")
    raw = json.loads(place.read_text())
    row = next(row for row in raw["images"] if row["file"].endswith("/2.png"))
    raw["images"].append({**row, "file": row["file"].replace("2.png", "twin.png")})
    place.write_text(json.dumps(raw))
    add_dataset(run.path, tmp_path / "data", say=quiet)
    assert sides(stored(run)) == SIDES


def test_a_dataset_that_was_moved_whole_is_not_held_out_whole(tmp_path):
    run = made(tmp_path, ours=False)
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    with pytest.raises(BadInputError, match="All 4 images trained on would become held-out"):
        add_dataset(run.path, tmp_path / "elsewhere", split="held-out", say=quiet)
    assert sides(stored(run)) == SIDES


def test_a_twin_that_still_lies_among_those_trained_on_keeps_its_image_there(tmp_path):
    run = made(tmp_path, ours=False)
    place = run.place("dataset")
    raw = json.loads(place.read_text())
    twin = tmp_path / "data" / "5_zyxfern" / "twin.png"
    shutil.copy(tmp_path / "data" / "5_zyxfern" / "2.png", twin)
    row = next(row for row in raw["images"] if row["file"].endswith("/2.png"))
    raw["images"].append({**row, "file": row["file"].replace("2.png", "twin.png")})
    place.write_text(json.dumps(raw))
    (tmp_path / "moved").mkdir()
    (tmp_path / "data" / "5_zyxfern" / "2.png").rename(tmp_path / "moved" / "2.png")
    with pytest.raises(BadInputError, match="1 image is in the run already, as train"):
        add_dataset(run.path, tmp_path / "moved", split="held-out", say=quiet)


@each_maker
@pytest.mark.parametrize("folder", ["data", "data/5_zyxfern", "kept"])
def test_a_trigger_given_later_leaves_every_image_as_it_was(tmp_path, ours, folder):
    run = made(tmp_path, ours=ours)
    before = stored(run)
    said: list[str] = []
    options = {"trigger": "zyxmoss", "class_word": "plant", "resolution": 768}
    add_dataset(run.path, tmp_path / folder, say=said.append, **options)
    after = stored(run)
    assert after.images == before.images
    assert (after.trigger, after.class_word, after.resolution) == ("zyxmoss", "plant", (768, 768))
    assert "The trigger of the dataset is zyxmoss (it was zyxfern)." in said
    assert "The class word of the dataset is plant." in said
    assert "The resolution of the dataset is 768 x 768 px (it was 512 x 512 px)." in said


def test_the_command_keeps_sides_where_none_is_named_and_says_what_it_did(tmp_path):
    run = made(tmp_path, ours=True)
    words = ["add", "dataset", str(run.path), str(tmp_path / "kept"), "--trigger", "zyxmoss"]
    shown = CliRunner().invoke(cli, words)
    assert shown.exit_code == 0, shown.output
    assert "0 new images, 2 there already; the dataset has 6." in shown.output
    assert sides(stored(run)) == SIDES
    shown = CliRunner().invoke(cli, [*words[:3], str(tmp_path / "data"), "--as", "held-out"])
    assert shown.exit_code == 2
    assert "in the run already, as train" in shown.output


def test_new_images_without_a_side_are_trained_on(tmp_path):
    run = made(tmp_path, ours=False)
    add_dataset(run.path, images(tmp_path / "more", range(6, 7)), say=quiet)
    assert sides(stored(run)) == SIDES | {"6.png": "train"}


@each_maker
def test_images_that_were_moved_are_found_again_and_keep_their_side_and_repeats(tmp_path, ours):
    run = made(tmp_path, ours=ours)
    new = tmp_path / "far" / "away"
    new.parent.mkdir()
    (tmp_path / "data").rename(new)
    said: list[str] = []
    add_dataset(run.path, new, say=said.append)
    dataset = stored(run)
    assert sides(dataset) == SIDES
    assert {image.repeats for image in dataset.train} == {5}
    assert all(dataset.path(image).is_file() for image in dataset.images)
    assert f"4 images were found again in {new}; each keeps its side." in said
    assert said[-1] == "0 new images; the dataset has 6."


def test_a_dataset_moved_whole_has_its_new_root_and_no_other(tmp_path):
    run = Run.create(tmp_path / "run", base="", base_digest="")
    images(tmp_path / "one" / "data", TRAINED)
    add_dataset(run.path, tmp_path / "one" / "data", say=quiet)
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "data").rename(tmp_path / "two" / "data")
    add_dataset(run.path, tmp_path / "two" / "data", say=quiet)
    assert stored(run).root == tmp_path / "two" / "data"
    assert [image.file for image in stored(run).images] == [f"{n}.png" for n in TRAINED]


def test_images_still_missing_are_said(tmp_path):
    run = made(tmp_path, ours=True)
    (tmp_path / "data").rename(tmp_path / "moved")
    (tmp_path / "moved" / "5_zyxfern" / "3.png").unlink()
    said: list[str] = []
    add_dataset(run.path, tmp_path / "moved", say=said.append)
    lost = tmp_path / "data" / "5_zyxfern" / "3.png"
    assert f"warning: 1 image of the run still missing: {lost}" in said
    assert sides(stored(run)) == SIDES


def test_a_place_that_may_not_be_looked_at_is_not_taken_for_gone(tmp_path, monkeypatch):
    run = made(tmp_path, ours=False)
    copy = images(tmp_path / "copy", range(2))
    is_file = Path.is_file

    def closed(self):
        if self.parent.name == "5_zyxfern":
            raise PermissionError(13, "Permission denied")
        return is_file(self)

    monkeypatch.setattr(Path, "is_file", closed)
    with pytest.raises(BadInputError, match="in the run already, as train"):
        add_dataset(run.path, copy, split="held-out", say=quiet)


def test_images_renumbered_after_one_was_deleted_are_known_by_their_bytes(tmp_path):
    run = made(tmp_path, ours=True)
    folder = tmp_path / "data" / "5_zyxfern"
    for number in range(3):
        (folder / f"{number + 1}.png").replace(folder / f"{number}.png")
    said: list[str] = []
    add_dataset(run.path, tmp_path / "data", say=said.append)
    dataset = stored(run)
    assert len(dataset.train) == 3
    assert any("3 images were found again" in text for text in said)
    assert any("1 image was replaced by another" in text for text in said)
    for image in dataset.images:
        assert dataset.path(image).is_file()


def test_an_image_that_was_edited_in_place_stays_on_its_side(tmp_path):
    run = made(tmp_path, ours=False)
    foreign.picture(tmp_path / "data" / "5_zyxfern" / "1.png", seed=99, side=16)
    with pytest.raises(BadInputError, match="as train"):
        add_dataset(run.path, tmp_path / "data", split="held-out", say=quiet)
    said: list[str] = []
    add_dataset(run.path, tmp_path / "data", say=said.append)
    assert sides(stored(run)) == SIDES
    assert any("1 image has changed since" in text for text in said)


@each_maker
def test_captions_written_later_are_taken_unless_our_trainer_was_shown_others(tmp_path, ours):
    run = made(tmp_path, ours=ours)
    (tmp_path / "data" / "5_zyxfern" / "0.txt").write_text("zyxfern, a new word")
    (tmp_path / "data" / "5_zyxfern" / "1.txt").unlink()
    add_dataset(run.path, tmp_path / "data", say=quiet)
    captions = [image.caption for image in stored(run).train]
    assert captions[0] == ("zyxfern, leaf 0" if ours else "zyxfern, a new word")
    assert captions[1] == "zyxfern, leaf 1"


def test_the_same_bytes_from_another_folder_count_once(tmp_path):
    run = made(tmp_path, ours=True)
    said: list[str] = []
    shutil.copytree(tmp_path / "kept", tmp_path / "copy")
    add_dataset(run.path, tmp_path / "copy", split="held-out", say=said.append)
    assert len(stored(run).held_out) == 2
    assert said[-1] == "0 new images, 2 there already; the dataset has 6."
    assert all(image.file.startswith("kept/") for image in stored(run).held_out)


def test_twins_of_one_folder_count_once_and_are_shown_as_often_as_both(tmp_path):
    for folder in ("5_zyxfern", "2_closeup"):
        images(tmp_path / "data" / folder, range(1))
    said: list[str] = []
    _, dataset = add_dataset(tmp_path / "run", tmp_path / "data", say=said.append)
    assert [image.repeats for image in dataset.images] == [7]
    assert any("1 image has the same bytes as another" in text for text in said)


def test_the_command_that_ingest_gives_for_images_not_trained_on_does_what_it_says(tmp_path):
    model = foreign.kohya(tmp_path / "kohya")
    root = tmp_path / "kohya" / "img" / "10_zyxfern plant"
    images(root, range(10, 13))
    done = ingest(model, tmp_path / "run", say=quiet)
    said = next(found.text for found in done.found if found.role == "dataset")
    command = said.split("give lorascope ")[1]
    held = tmp_path / "held"
    shutil.copytree(root, held, ignore=shutil.ignore_patterns("[0-9].*"))
    words = command.replace("FOLDER", str(held)).split()
    shown = CliRunner().invoke(cli, words)  # copied only: they lie among those trained on still
    assert shown.exit_code == 2
    assert "move them to a folder of their own" in shown.output
    for path in root.glob("1?.*"):
        path.unlink()
    shown = CliRunner().invoke(cli, words)
    assert shown.exit_code == 0, shown.output
    dataset = stored(done.run)
    assert sorted(image.file.rpartition("/")[2] for image in dataset.held_out) == [
        "10.png", "11.png", "12.png"]  # fmt: skip
    assert len(dataset.train) == 2


@pytest.mark.parametrize("inner", ["lora/sub", "sub", "a/b"])
def test_no_run_is_made_inside_another(tmp_path, inner):
    outer = Run.create(tmp_path / "outer", base="", base_digest="")
    model = foreign.kohya(tmp_path / "kohya")
    with pytest.raises(BadInputError, match="inside another run"):
        ingest(model, outer.path / inner, say=quiet)
    with pytest.raises(BadInputError, match="inside another run"):
        add_lora(outer.path / inner, [model / "fern.safetensors"], say=quiet)
    assert [path.name for path in outer.path.rglob("*")] == ["run.json"]
    Run.create(tmp_path / "beside", base="", base_digest="")


def one_lora(path: Path, epoch: int = 2, *, seed: int = 50, rank: int = 4, **about: object) -> Path:
    about = {"ss_network_dim": rank, **about}
    metadata = foreign.kohya_metadata(epoch, **about)
    return foreign.save(path, foreign.kohya_tensors(seed, rank), metadata)


@pytest.fixture
def trained(tmp_path: Path) -> Run:
    model = foreign.kohya(tmp_path / "kohya")
    return add_lora(tmp_path / "run", [model], say=quiet)


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"ss_output_name": "moss"}, "its name is moss, not fern"),
        ({"rank": 8}, "its rank is 8, not 4"),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "its base version is sdxl_base"),
        ({"ss_session_id": 99}, "another start of the trainer made it"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(tmp_path, trained, about, said):
    stranger = one_lora(tmp_path / "other" / "fern-000002.safetensors", **about)
    kept = trained.place("lora") / stranger.name
    before = kept.read_bytes()
    with pytest.raises(BadInputError, match=said) as raised:
        add_lora(trained.path, [stranger], say=quiet)
    assert kept.read_bytes() == before
    command = str(raised.value).split("lorascope ")[1].split()
    shown = CliRunner().invoke(cli, command)
    assert shown.exit_code == 0, shown.output
    assert Run(tmp_path / "run-2").has("lora")


def test_a_checkpoint_that_says_nothing_hides_no_stranger(tmp_path, trained):
    bare = foreign.save(tmp_path / "fern-000007.safetensors", foreign.kohya_tensors(7), {})
    add_lora(trained.path, [bare], say=quiet)
    with pytest.raises(BadInputError, match="its name is moss, not fern"):
        add_lora(trained.path, [one_lora(tmp_path / "moss", ss_output_name="moss")], say=quiet)


def test_a_training_of_ours_with_another_seed_is_refused(tmp_path):
    silent = {"ss_session_id": "None"}
    one = one_lora(tmp_path / "one" / "fern-000002.safetensors", seed=1, **silent)
    run = add_lora(tmp_path / "run", [one], say=quiet)
    for about, said in (({"ss_seed": 0}, "its seed is 0"), ({"ss_unet_lr": 1}, "unet lr is 1")):
        other = one_lora(tmp_path / "two" / one.name, **silent, **about)
        with pytest.raises(BadInputError, match=said):
            add_lora(run.path, [other], say=quiet)


@pytest.mark.parametrize("silent", [True, False])
def test_a_file_of_the_same_training_that_was_made_again_replaces_with_a_sentence(
    tmp_path, trained, silent
):
    about = {"ss_session_id": "None"} if silent else {}
    again = one_lora(tmp_path / "again" / "fern-000002.safetensors", **about)
    said: list[str] = []
    add_lora(trained.path, [again], say=said.append)
    assert (trained.place("lora") / again.name).read_bytes() == again.read_bytes()
    assert "fern-000002.safetensors has changed since; the run has the new file now." in said


def test_a_resumed_training_goes_on_in_its_run(tmp_path, trained):
    later = one_lora(tmp_path / "later" / "fern-000006.safetensors", epoch=6, ss_session_id=99)
    add_lora(trained.path, [later], say=quiet)
    assert read_metadata(trained.place("lora") / later.name)["ss_session_id"] == "99"


def test_a_file_that_says_nothing_of_itself_is_no_stranger(tmp_path, trained):
    bare = foreign.save(tmp_path / "fern-000007.safetensors", foreign.kohya_tensors(7), {})
    add_lora(trained.path, [bare], say=quiet)
    assert (trained.place("lora") / bare.name).is_file()


def test_a_file_of_no_known_epoch_may_be_a_resumed_one_with_other_settings(tmp_path):
    loose = {"ss_epoch": "None", "ss_session_id": "None"}
    one = one_lora(tmp_path / "fern-step00000100.safetensors", **loose, ss_steps=100)
    run = add_lora(tmp_path / "run", [one], say=quiet)
    later = {"ss_steps": 200, "ss_unet_lr": 0.5}
    other = one_lora(tmp_path / "fern-step00000200.safetensors", seed=9, **loose, **later)
    add_lora(run.path, [other], say=quiet)
    assert (run.place("lora") / other.name).is_file()
