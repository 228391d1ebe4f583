import os

import numpy as np
import pytest

from lorascope.errors import MissingInputError
from lorascope.io.checkpoints import (
    group_runs,
    list_checkpoints,
    readable_checkpoints,
    unplaced,
    usable_checkpoints,
)
from lorascope.io.lora_file import LoraModule, write_lora
from tests.foreign_folders import STARTED, kohya_metadata, kohya_tensors, peft_tensors, save

KEY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


def module() -> LoraModule:
    down, up = np.ones((4, 6), np.float32), np.ones((8, 4), np.float32)
    return LoraModule(KEY, down, up, 2.0)


def test_checkpoints_are_ordered_by_what_their_trainer_wrote(tmp_path):
    for name, epoch, step in [("b", 2, 40), ("a", 10, 200), ("c", 1, 20)]:
        metadata = {"ss_epoch": str(epoch), "ss_steps": str(step)}
        write_lora(tmp_path / f"{name}.safetensors", [module()], metadata)
    found = [(c.path.name, c.epoch, c.step) for c in list_checkpoints(tmp_path)]
    assert found == [
        ("c.safetensors", 1, 20),
        ("b.safetensors", 2, 40),
        ("a.safetensors", 10, 200),
    ]


def test_checkpoints_without_metadata_are_ordered_by_name(tmp_path):
    for name in ("fern", "fern-000010", "fern-000002"):
        write_lora(tmp_path / f"{name}.safetensors", [module()], {})
    (tmp_path / "fern-000004.safetensors").write_bytes(b"torn")
    (tmp_path / ".partial-x.safetensors").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("hello")
    found = [(c.path.name, c.epoch) for c in list_checkpoints(tmp_path)]
    assert found == [
        ("fern-000002.safetensors", 2),
        ("fern-000004.safetensors", 4),
        ("fern-000010.safetensors", 10),
        ("fern.safetensors", 11),
    ]
    assert list_checkpoints(tmp_path / "fern-000002.safetensors")[0].epoch == 2


def test_the_last_state_saved_twice_counts_once(tmp_path):
    metadata = {"ss_epoch": "10", "ss_steps": "200"}
    for name in ("fern", "fern-000010"):
        write_lora(tmp_path / f"{name}.safetensors", [module()], metadata)
    write_lora(tmp_path / "moss.safetensors", [module()], metadata)
    names = [c.path.name for c in list_checkpoints(tmp_path)]
    assert names == ["fern-000010.safetensors", "moss.safetensors"]


def test_an_empty_folder_has_none_and_a_missing_one_is_refused(tmp_path):
    assert list_checkpoints(tmp_path) == []
    with pytest.raises(MissingInputError):
        list_checkpoints(tmp_path / "none")


def keys(folder):
    return [(c.path.name, c.epoch, c.step) for c in list_checkpoints(folder)]


def saved(folder, stem, epoch, **changed):
    about = kohya_metadata(epoch, **changed)
    return save(folder / f"{stem}.safetensors", kohya_tensors(epoch), about)


def test_a_run_saved_by_steps_is_numbered_in_order_of_step(tmp_path):
    for step in (30, 10, 20, 40):
        saved(tmp_path, f"fern-step{step:08}", 1 + step // 25, ss_steps=step)
    saved(tmp_path, "fern", 2, ss_steps=50)
    assert [(epoch, step) for _, epoch, step in keys(tmp_path)] == [
        (1, 10), (2, 20), (3, 30), (4, 40), (5, 50)]  # fmt: skip
    only = tmp_path / "fern-step00000030.safetensors"
    assert [(c.epoch, c.step) for c in list_checkpoints(only)] == [(1, 30)]


def test_steps_are_numbered_without_metadata_and_the_nameless_last_is_last(tmp_path):
    for stem in ("ivy_000000500", "ivy_000001000", "ivy", "ivy_000000250"):
        save(tmp_path / f"{stem}.safetensors", kohya_tensors(1), {})
    assert keys(tmp_path)[-1] == ("ivy.safetensors", 4, 0)
    assert [step for _, _, step in keys(tmp_path)] == [250, 500, 1000, 0]


def test_epochs_stay_epochs_beside_saves_by_step_while_none_is_claimed_twice(tmp_path):
    saved(tmp_path, "fern-000002", 2)
    saved(tmp_path, "fern-000004", 4)
    saved(tmp_path, "fern-step00000050", 3, ss_steps=50)
    assert [epoch for _, epoch, _ in keys(tmp_path)] == [2, 3, 4]
    saved(tmp_path, "fern-step00000055", 3, ss_steps=55)
    assert [epoch for _, epoch, _ in keys(tmp_path)] == [1, 2, 3, 4]


def test_a_step_that_is_also_the_end_of_an_epoch_counts_once(tmp_path):
    saved(tmp_path, "fern-000002", 2)
    saved(tmp_path, "fern-step00000040", 2)
    assert keys(tmp_path) == [("fern-000002.safetensors", 2, 40)]


def test_every_state_has_a_key_of_its_own(tmp_path):
    for stem in ("a", "b", "c"):
        save(tmp_path / f"{stem}.safetensors", kohya_tensors(1), {})
    assert [epoch for _, epoch, _ in keys(tmp_path)] == [1, 2, 3]


def test_the_names_of_other_trainers_tell_epoch_and_step(tmp_path):
    for epoch in (1, 2):
        stem = f"2024-05-01_12-00-00-save-{20 * epoch}-{epoch}-0"
        save(tmp_path / "one" / f"{stem}.safetensors", kohya_tensors(epoch), {})
        place = tmp_path / "oak" / f"checkpoint-{500 * epoch}"
        save(place / "pytorch_lora_weights.safetensors", peft_tensors(epoch), {})
    assert [(epoch, step) for _, epoch, step in keys(tmp_path / "one")] == [(1, 20), (2, 40)]
    assert [(epoch, step) for _, epoch, step in keys(tmp_path / "oak")] == [(1, 500), (2, 1000)]


@pytest.mark.parametrize(
    "key",
    [
        "model.diffusion_model.input_blocks.0.0.weight",
        "first_stage_model.encoder.conv_in.weight",
        "emb_params",
        "encoder.down.0.block.0.conv1.weight",
        "down_blocks.0.resnets.0.conv1.weight",
    ],
)
def test_what_is_no_lora_is_no_checkpoint(tmp_path, key):
    save(tmp_path / "fern.SAFETENSORS", kohya_tensors(1), {})
    save(tmp_path / "other.safetensors", {key: np.zeros((2, 2), np.float32)}, {})
    assert [name for name, _, _ in keys(tmp_path)] == ["fern.SAFETENSORS"]


def test_a_file_still_being_written_is_named_and_left_out(tmp_path):
    saved(tmp_path, "fern-000001", 1)
    whole = saved(tmp_path, "fern-000002", 2)
    whole.write_bytes(whole.read_bytes()[:-10])
    sound, told = usable_checkpoints(tmp_path)
    assert [c.epoch for c in sound] == [1]
    assert "cut short" in told[0]


def groups(folder):
    found = group_runs(sorted(folder.rglob("*.safetensors")))
    return {group.name: [c.epoch for c in group.checkpoints] for group in found}


def test_trainings_in_one_folder_are_told_apart_by_name_rank_and_base(tmp_path):
    saved(tmp_path, "fern-000001", 1)
    saved(tmp_path, "fern-000002", 2)
    saved(tmp_path, "moss-000001", 1, ss_output_name="moss")
    saved(tmp_path, "moss", 2, ss_output_name="moss")
    saved(tmp_path, "fern8-000001", 1, ss_network_dim=8)
    saved(tmp_path, "fernxl", 1, ss_base_model_version="sdxl_base_v1-0")
    found = groups(tmp_path)
    assert found["moss"] == [1, 2]
    assert sorted(found) == ["fern#1", "fern#2", "fern#3", "moss"]


def test_a_resumed_training_is_one_and_an_earlier_try_of_the_same_name_another(tmp_path):
    later = {"ss_session_id": 2, "ss_training_started_at": STARTED + 9000}
    saved(tmp_path, "fern-000001", 1)
    saved(tmp_path, "fern-000002", 2)
    saved(tmp_path, "fern-000003", 3, **later, ss_steps=20)
    saved(tmp_path, "fern", 4, **later, ss_steps=40)
    assert groups(tmp_path) == {"fern": [1, 2, 3, 4]}
    (tmp_path / "fern-000003.safetensors").unlink()
    saved(tmp_path, "fern-000001", 1, **later)
    assert groups(tmp_path) == {"fern#1": [2], "fern#2": [1, 4]}


def test_a_workspace_used_twice_holds_two_trainings(tmp_path):
    for day, steps in (("01", (20, 40)), ("02", (20, 40, 60))):
        for step in steps:
            stem = f"2024-05-{day}_12-00-{step}-save-{step}-{step // 20}-0"
            save(tmp_path / f"{stem}.safetensors", kohya_tensors(step), {})
    assert sorted(map(len, groups(tmp_path).values())) == [2, 3]


def test_files_without_metadata_of_one_name_in_two_folders_are_two_trainings(tmp_path):
    for folder, seed in (("a", 1), ("b", 5)):
        for epoch in (1, 2):
            save(tmp_path / folder / f"fern-{epoch:06}.safetensors", kohya_tensors(seed), {})
    assert groups(tmp_path) == {"fern#1": [1, 2], "fern#2": [1, 2]}


def test_files_without_metadata_in_two_folders_are_one_where_no_name_is_there_twice(tmp_path):
    save(tmp_path / "early" / "fern-000001.safetensors", kohya_tensors(1), {})
    save(tmp_path / "fern-000002.safetensors", kohya_tensors(2), {})
    save(tmp_path / "best" / "fern.safetensors", kohya_tensors(3), {})
    assert groups(tmp_path) == {"fern": [1, 2, 3]}
    oak = tmp_path / "oak"
    for step in (500, 1000):
        place = oak / f"checkpoint-{step}" / "pytorch_lora_weights.safetensors"
        save(place, peft_tensors(step), {})
    assert groups(oak) == {"oak": [1, 2]}


def mixed(folder, *, times=()):
    """Write epochs and steps without metadata, the times of writing in order of these stems."""
    stems = [*(f"fern-{n:06}" for n in (1, 2, 3)), *(f"fern-step{n:08}" for n in (10, 30))]
    for stem in stems:
        save(folder / f"{stem}.safetensors", kohya_tensors(1), {})
    for number, stem in enumerate(times or stems):
        moment = 1e9 + number * 60 * bool(times)
        os.utime(folder / f"{stem}.safetensors", (moment, moment))
    return stems


def test_epochs_and_steps_without_a_common_order_leave_the_epochs(tmp_path):
    mixed(tmp_path)
    assert [(name, epoch) for name, epoch, _ in keys(tmp_path)] == [
        (f"fern-{n:06}.safetensors", n) for n in (1, 2, 3)]  # fmt: skip
    _, told = usable_checkpoints(tmp_path)
    assert told == (unplaced(tmp_path),)
    assert told[0].startswith("fern-step00000010.safetensors and 1 more were left out")
    assert group_runs(tmp_path.iterdir())[0].unplaced == unplaced(tmp_path)
    assert readable_checkpoints(tmp_path)[1] == {}


def test_times_of_writing_that_rise_with_both_numbers_tell_the_order(tmp_path):
    order = ["fern-step00000010", "fern-000001", "fern-000002", "fern-step00000030", "fern-000003"]
    mixed(tmp_path, times=order)
    save(tmp_path / "fern.safetensors", kohya_tensors(1), {})
    found = [(name.removesuffix(".safetensors"), epoch) for name, epoch, _ in keys(tmp_path)]
    assert found == [(stem, n) for n, stem in enumerate([*order, "fern"], start=1)]
    assert unplaced(tmp_path) == ""


@pytest.mark.parametrize("swapped", [(0, 1), (3, 4)])
def test_times_that_contradict_a_number_tell_nothing(tmp_path, swapped):
    order = ["fern-000001", "fern-000002", "fern-000003", "fern-step00000010", "fern-step00000030"]
    one, other = swapped
    order[one], order[other] = order[other], order[one]
    mixed(tmp_path, times=[*order[2:], *order[:2]] if one else order)
    assert [epoch for _, epoch, _ in keys(tmp_path)] == [1, 2, 3]


def test_times_in_the_order_of_the_names_are_those_of_a_copy(tmp_path):
    mixed(tmp_path, times=sorted(mixed(tmp_path)))
    assert [epoch for _, epoch, _ in keys(tmp_path)] == [1, 2, 3]


def test_files_that_state_both_tell_how_the_others_lie(tmp_path):
    save(tmp_path / "fern-step00000010.safetensors", kohya_tensors(1), {})
    saved(tmp_path, "fern-000001", 1)
    save(tmp_path / "fern-000002.safetensors", kohya_tensors(2), {})
    saved(tmp_path, "fern-000003", 3)
    save(tmp_path / "fern-step00000070.safetensors", kohya_tensors(3), {})
    names = ["fern-step00000010", "fern-000001", "fern-000002", "fern-000003", "fern-step00000070"]
    assert [name.removesuffix(".safetensors") for name, _, _ in keys(tmp_path)] == names
    assert [epoch for _, epoch, _ in keys(tmp_path)] == [1, 2, 3, 4, 5]
    save(tmp_path / "fern-step00000050.safetensors", kohya_tensors(3), {})  # before epoch 2?
    for path in tmp_path.iterdir():
        os.utime(path, (1e9, 1e9))
    assert [epoch for _, epoch, _ in keys(tmp_path)] == [1, 2, 3]


def test_a_torn_epoch_does_not_hide_what_was_saved_at_steps(tmp_path):
    for step in (10, 20):
        save(tmp_path / f"fern-step{step:08}.safetensors", kohya_tensors(1), {})
    (tmp_path / "fern-000001.safetensors").write_bytes(b"torn")
    assert len(usable_checkpoints(tmp_path)[0]) == 2


@pytest.mark.parametrize(
    "told",
    [{"ss_steps": "-5"}, {"ss_steps": "0"}, {"ss_steps": 10**10}, {"ss_epoch": "9" * 23},
     {"ss_epoch": "-1"}, {"ss_epoch": "9" * 5000}],
)  # fmt: skip
def test_numbers_that_no_training_reaches_count_as_absent(tmp_path, told):
    saved(tmp_path, "fern-000007", 7, **told)
    step = 0 if "ss_steps" in told else 140
    assert keys(tmp_path) == [("fern-000007.safetensors", 7, step)]


def test_a_step_save_of_the_first_epoch_has_a_key_in_its_order(tmp_path):
    saved(tmp_path, "fern-step00000010", 0, ss_steps=10)
    for epoch in (1, 2):
        saved(tmp_path, f"fern-{epoch:06}", epoch)
    assert [(epoch, step) for _, epoch, step in keys(tmp_path)] == [(1, 10), (2, 20), (3, 40)]


def test_a_pipe_is_no_checkpoint(tmp_path):
    saved(tmp_path, "fern-000001", 1)
    os.mkfifo(tmp_path / "fern-000002.safetensors")
    assert [epoch for _, epoch, _ in keys(tmp_path)] == [1]
    assert (
        "no regular file"
        in readable_checkpoints(tmp_path / "fern-000002.safetensors")[1].popitem()[1]
    )
