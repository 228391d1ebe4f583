"""LoRAs by name: the run's own, and others that are drawn with it."""

import numpy as np
import pytest

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.checkpoints import Checkpoint
from lorascope.io.lora_file import LoraModule, write_lora
from lorascope.run import digest
from lorascope.tools.drawing.cells import Applied
from lorascope.tools.drawing.companions import asked_of, named_digests, said


def lora(path, name=""):
    ones = np.ones((2, 4), np.float32), np.ones((4, 2), np.float32)
    metadata = {"ss_output_name": name} if name else {}
    write_lora(path, [LoraModule("lora_unet_a", *ones, 2.0)], metadata)
    return path


@pytest.fixture
def own(tmp_path):
    return [
        Checkpoint(lora(tmp_path / "run" / f"fern-{e:06}.safetensors", "Fern"), e, e)
        for e in (1, 2)
    ]


@pytest.fixture
def folder(tmp_path):
    for name in ("style", "deep/pose", "a.b"):
        lora(tmp_path / "others" / f"{name}.safetensors")
    lora(tmp_path / "others" / "hash123.safetensors", "Watercolour")
    return str(tmp_path / "others")


def test_a_tag_with_the_name_of_the_run_scales_whatever_epoch_is_drawn(own):
    for name in ("fern-000002", "Fern", "FERN"):
        found = asked_of(f"a cat <lora:{name}:0.5:0.8>", own, "")
        assert (found.strength, found.text_strength, found.companions) == (0.8, 0.5, ())
        assert found.text == "a cat "
        assert found.tags == f"<lora:{name}:0.5:0.8>"


def test_other_loras_are_found_by_file_and_by_the_name_of_their_training(own, folder, tmp_path):
    for name, file in (
        ("style", "style"),
        ("Pose", "deep/pose"),
        ("a.b", "a.b"),
        ("watercolour", "hash123"),
    ):
        found = asked_of(f"<lora:{name}:0.6>", own, folder)
        path = tmp_path / "others" / f"{file}.safetensors"
        assert found.companions == (Applied(path=path, strength=0.6, text_strength=0.6),)
        assert (found.strength, found.text_strength) == (1.0, 1.0)


def test_companions_are_written_as_they_are_typed(own, folder):
    found = asked_of("<lora:style:0.5:0.8><lora:pose>", own, folder)
    assert said(found.companions) == "<lora:style:0.5:0.8> <lora:pose:1>"


def test_a_text_without_tags_is_left_as_it_is(own):
    found = asked_of("a < b, (c:1.2)", own, "")
    assert (found.text, found.tags, found.companions) == ("a < b, (c:1.2)", "", ())


def test_a_name_is_never_a_path(own, folder, tmp_path):
    lora(tmp_path / "secret.safetensors")
    for name in ("../secret", str(tmp_path / "secret").replace(":", ""), "deep/pose"):
        with pytest.raises(MissingInputError, match="Fix:"):
            asked_of(f"<lora:{name}:1>", own, folder)


def test_without_a_folder_a_strange_name_says_how_to_give_one(own):
    with pytest.raises(MissingInputError, match="Fix: --lora-dir FOLDER"):
        asked_of("<lora:style:1>", own, "")
    with pytest.raises(MissingInputError, match="is no folder"):
        asked_of("<lora:style:1>", own, "nowhere")


def test_two_files_of_one_name_are_told_apart_by_the_user(own, folder, tmp_path):
    lora(tmp_path / "others" / "copy" / "style.safetensors")
    with pytest.raises(BadInputError, match="Fix: rename"):
        asked_of("<lora:style:1>", own, folder)


def test_a_part_of_a_dylora_is_refused(own):
    with pytest.raises(BadInputError, match="DyLoRA"):
        asked_of("<lora:fern:1:1:4>", own, "")


def test_files_that_are_named_belong_to_the_question(folder, tmp_path):
    text = "cat <lora:style:0.6>|<lora:fern:1>"
    path = tmp_path / "others" / "style.safetensors"
    assert named_digests(text, folder) == {"lora style": digest(path)}
    lora(path, "again")
    assert named_digests(text, folder) == {"lora style": digest(path)}
    assert named_digests(text, "") == {}
