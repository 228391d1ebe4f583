"""What a picture says of itself is read by A1111 as it was meant, and by us without any loss."""

import json
import random
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lorascope import __version__
from lorascope.errors import BadInputError
from lorascope.io.images import write_png
from lorascope.io.infotext import (
    LoraUsed,
    read_chunks,
    read_infotext,
    write_chunks,
    write_infotext,
)
from lorascope.io.lora_tags import split_lora_tags

PLAIN = {
    "prompt": "zyxfern, smile",
    "negative": "blurry, low quality",
    "steps": 20,
    "sampler": "dpm++2m",
    "guidance": 7.0,
    "seed": 1,
    "width": 512,
    "height": 768,
    "model": "base",
    "model_hash": "45dee52b0a",
    "clip_skip": 2,
    "loras": (LoraUsed(name="fern", strength=0.8, text_strength=0.8, autov3="6d33ce8ab237"),),
}
NASTY = (
    "a, b: c",
    'says "hello, world"',
    '"quoted"',
    "back\\slash \\( \\) \\n \\\\",
    "two\nlines",
    "fern \N{HERB}, grün, シダ, é",
    "  spaces at both ends  ",
    "Negative prompt: not me",
    "a\nNegative prompt: not me\nb",
    "Steps: 20, Sampler: x, CFG scale: 1",
    "a\nSteps: 20, Sampler: x, CFG scale: 1, Size: 1x1",
    "\n\nafter empty lines\n",
    'tail", Seed: 9, Size: 9x9, x: "',
    "{a|b} [c:d:0.5] (e:1.2) <f>",
    "x} , Hashes: {y",
    "100% $1 \\1 \t tab",
    "",
)


def a1111(text):
    """Read as A1111 does: written from what is known of its format, sharing nothing with ours."""
    pair = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
    *lines, last = text.strip().split("\n")
    if len(pair.findall(last)) < 3:
        lines.append(last)
        last = ""
    prompt = negative = ""
    done = False
    for line in lines:
        line = line.strip()
        if line.startswith("Negative prompt:"):
            done, line = True, line[16:].strip()
        if done:
            negative += ("" if negative == "" else "\n") + line
        else:
            prompt += ("" if prompt == "" else "\n") + line
    found = {"Prompt": prompt, "Negative prompt": negative}
    for key, value in pair.findall(last):
        if value[:1] == '"' and value[-1:] == '"':
            value = json.loads(value)
        size = re.match(r"^(\d+)x(\d+)$", value)
        if size:
            found[f"{key}-1"], found[f"{key}-2"] = size.groups()
        else:
            found[key] = value
    return found


def same_to_clip(text):
    """Write white space as CLIP sees it: every run of it is one space, none at the ends."""
    return " ".join(text.replace("(Negative:1)", "Negative").split())


def as_typed(text):
    """Take tags away as A1111 does before it draws."""
    return re.sub(r"<(\w+):([^>]+)>", "", text)


def test_the_text_is_what_a1111_writes_field_by_field():
    assert write_infotext(**PLAIN) == (
        "zyxfern, smile <lora:fern:0.8>\n"
        "Negative prompt: blurry, low quality\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: SGM Uniform, CFG scale: 7, Seed: 1, "
        "Size: 512x768, Model hash: 45dee52b0a, Model: base, Clip skip: 2, RNG: CPU, "
        f'Lora hashes: "fern: 6d33ce8ab237", Version: lorascope {__version__}, '
        'Hashes: {"model": "45dee52b0a"}'
    )


def test_what_is_not_there_is_not_written():
    left = PLAIN | {"negative": "", "model_hash": None, "clip_skip": 1, "loras": ()}
    assert write_infotext(**left) == (
        "zyxfern, smile\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: SGM Uniform, CFG scale: 7, Seed: 1, "
        f"Size: 512x768, Model: base, RNG: CPU, Version: lorascope {__version__}"
    )
    assert a1111(write_infotext(**left | {"prompt": ""}))["Prompt"] == ""


def test_civitai_finds_every_hash_as_json_without_quotes():
    loras = [LoraUsed(name=n, autov2=f"{i}" * 10) for i, n in enumerate(("a b", 'c:,{}"d\\'))]
    text = write_infotext(**PLAIN | {"loras": loras})
    found = re.search(r", Hashes:\s*({[^}]+})", text)  # as that site looks for it
    assert json.loads(found[1]) == {
        "model": "45dee52b0a",
        "LORA:a b": "0" * 10,
        "LORA:c_d": "1" * 10,
    }


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("place", ["prompt", "negative", "model", "extra", "lora"])
def test_a1111_reads_every_value_whatever_another_one_holds(place, text):
    settings = dict(PLAIN)
    if place == "extra":
        settings["extras"] = {"LoRA note": text}
    elif place == "lora":
        settings["loras"] = [LoraUsed(name=text or "x", autov3="6d33ce8ab237", autov2="0123456789")]
    else:
        settings[place] = text
    read = a1111(write_infotext(**settings))
    assert same_to_clip(as_typed(read["Prompt"])) == same_to_clip(settings["prompt"])
    assert same_to_clip(read["Negative prompt"]) == same_to_clip(settings["negative"])
    assert read["Model"] == settings["model"]
    assert read.get("LoRA note", "") == settings.get("extras", {}).get("LoRA note", "")
    assert (read["Steps"], read["Seed"], read["CFG scale"]) == ("20", "1", "7")
    assert (read["Size-1"], read["Size-2"], read["Clip skip"]) == ("512", "768", "2")
    assert read["Version"] == f"lorascope {__version__}"
    assert read["Lora hashes"].endswith(": 6d33ce8ab237")


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("place", ["prompt", "negative", "model", "sampler", "lora"])
def test_our_own_text_loses_nothing_at_all(place, text):
    settings = dict(PLAIN) | {"extras": {"LoRA note": text, "real": 0.1, "whole": 3}}
    if place == "lora":
        settings["loras"] = (LoraUsed(name=text, strength=-0.1, text_strength=1e-7),)
    else:
        settings[place] = text
    assert read_chunks(write_chunks(**settings)) == settings


def test_names_and_prompts_of_any_signs_leave_the_numbers_alone():
    draw = random.Random(0)
    signs = [*',: "\\\n}{<>=-x', "Steps: 1", "Negative prompt:", "Size: 1x1", "Hashes: {"]
    for _ in range(1500):
        prompt, negative, model, name, note = (
            "".join(draw.choices(signs, k=draw.randrange(9))) for _ in range(5)
        )
        settings = PLAIN | {"prompt": prompt, "negative": negative, "model": model}
        settings |= {"loras": (LoraUsed(name=name, autov2="12"),), "extras": {"note": note}}
        text = write_infotext(**settings)
        read = a1111(text)
        assert (read["Steps"], read["Seed"], read["Size-1"]) == ("20", "1", "512"), text
        assert same_to_clip(read["Negative prompt"]) == same_to_clip(negative), text
        ours = read_infotext(text)
        assert (ours.parameters["Model"], ours.parameters["note"]) == (model, note), text
        assert (ours.prompt, ours.negative) == (read["Prompt"], read["Negative prompt"]), text


def test_a_line_that_would_begin_the_negative_prompt_stands_behind_the_one_before():
    prompt = "a fern\nNegative prompt: moss\nb"
    read = a1111(write_infotext(**PLAIN | {"prompt": prompt, "loras": ()}))
    assert read["Prompt"] == "a fern Negative prompt: moss\nb"
    read = a1111(write_infotext(**PLAIN | {"prompt": "Negative prompt: moss", "loras": ()}))
    assert read["Prompt"] == "(Negative:1) prompt: moss"
    assert read["Negative prompt"] == "blurry, low quality"


def test_the_tags_in_the_text_are_those_that_were_applied():
    loras = (
        LoraUsed(name="fern v1.2 (b)", strength=0.6, text_strength=1.0),
        LoraUsed(name="style", strength=-0.5, text_strength=-0.5),
    )
    prompt, tags = split_lora_tags(read_infotext(write_infotext(**PLAIN | {"loras": loras})).prompt)
    assert prompt.strip() == "zyxfern, smile"
    assert [(t.name, t.strength, t.text_strength) for t in tags] == [
        (lora.name, lora.strength, lora.text_strength) for lora in loras
    ]


def test_a_text_of_a1111_itself_is_read_in_order():
    text = (
        "a fern\nin two lines <lora:x:0.4>\n"
        "Negative prompt: bad\nworse\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 965400086, "
        'Size: 512x512, Model hash: 45dee52b0a, Model: "a, b", Denoising strength: 0.7, '
        'Lora hashes: "x: 6d33ce8ab237, y: 0123456789ab", Version: v1.10.1, '
        'Hashes: {"model": "45dee52b0a", "LORA:x": "abc"}, Civitai resources: none'
    )
    read = read_infotext(text)
    assert read.prompt == "a fern\nin two lines <lora:x:0.4>"
    assert read.negative == "bad\nworse"
    assert list(read.parameters)[:4] == ["Steps", "Sampler", "Schedule type", "CFG scale"]
    assert read.parameters["Model"] == "a, b"
    assert read.parameters["Lora hashes"] == "x: 6d33ce8ab237, y: 0123456789ab"
    assert json.loads(read.parameters["Hashes"]) == {"model": "45dee52b0a", "LORA:x": "abc"}
    assert read.parameters["Civitai resources"] == "none"
    assert "LORA" not in read.parameters


@pytest.mark.parametrize("text", ["", "\n", "a fern", "Steps: 20, Seed: 1", "Negative prompt:"])
def test_a_text_without_three_values_is_a_prompt(text):
    read = read_infotext(text)
    assert read.parameters == {}
    assert read.prompt == ("" if text.startswith("Negative") else text.strip())


def test_a_long_line_of_words_is_read_at_once():
    assert read_infotext("word " * 20_000).parameters == {}


def test_another_value_may_not_take_a_name_that_a1111_knows_or_cannot_read():
    for name in ("Seed", "x", "a:b", "a,b", "", "Version"):
        with pytest.raises(BadInputError, match="cannot be called"):
            write_infotext(**PLAIN | {"extras": {name: 1}})


def test_a_picture_of_another_program_has_no_text_of_ours():
    assert read_chunks({"parameters": write_infotext(**PLAIN)}) is None


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        "null",
        '{"schema": 1}',
        '{"schema": 2}',
        json.dumps(PLAIN | {"schema": 1, "loras": [], "seed": "1"}),
        json.dumps(PLAIN | {"schema": 1, "loras": [{}]}),
    ],
)
def test_a_damaged_text_of_ours_is_refused(damage):
    with pytest.raises(BadInputError, match="Fix:"):
        read_chunks({"lorascope": damage})


@pytest.mark.parametrize("prompt", ["plain", "grün", "シダ \N{HERB}", "a\nb", "\udc80 name"])
def test_pillow_gives_both_texts_back(tmp_path, prompt):
    chunks = write_chunks(**PLAIN | {"prompt": prompt})
    write_png(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8), text=chunks)
    with Image.open(tmp_path / "a.png") as opened:
        opened.load()
        assert opened.info["parameters"] == chunks["parameters"]
        assert read_chunks(opened.info)["prompt"] == prompt


# A1111's noise levels by the name of its schedule, from timesteps over the levels of training.
def levels(count):
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    kept = np.cumprod(1 - betas)
    trained = ((1 - kept) / kept) ** 0.5

    def at(timesteps):
        return np.exp(np.interp(timesteps, np.arange(1000), np.log(trained)))

    low, high = trained[0] ** (1 / 7), trained[-1] ** (1 / 7)
    return {
        "Uniform": at(np.linspace(999, 0, count)),
        "SGM Uniform": at(np.linspace(999, 0, count + 1)[:-1]),
        "Simple": trained[[-1 - int(i * 1000 / count) for i in range(count)]],
        "DDIM": trained[1 :: 1000 // count][:count][::-1],
        "Karras": (high + np.linspace(0, 1, count) * (low - high)) ** 7,
    }


@pytest.mark.slow
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("sampler", ["dpm++2m", "euler", "euler_a"])
@pytest.mark.parametrize("count", [10, 20, 25])
def test_the_schedule_that_is_named_is_the_one_that_is_nearest(sampler, spacing, count):
    from diffusers import DDPMScheduler

    from lorascope.models.sampling import make_scheduler

    noise = DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing=spacing,
        steps_offset=1,
    )
    ours = make_scheduler(SimpleNamespace(noise=noise), sampler, count).sigmas.numpy()[:-1]
    apart = {name: np.abs(np.log(ours / those)).max() for name, those in levels(count).items()}
    text = write_infotext(**PLAIN | {"sampler": sampler, "steps": count, "spacing": spacing})
    named = read_infotext(text).parameters["Schedule type"]
    assert apart[named] <= min(apart.values()) + 0.01
    if (sampler, spacing) != ("dpm++2m", "leading"):
        assert apart[named] < 0.02
    assert apart["Karras"] > 0.2


def test_ddim_has_no_name_for_its_schedule():
    text = write_infotext(**PLAIN | {"sampler": "ddim"})
    assert "Sampler: DDIM, CFG scale: 7" in text
