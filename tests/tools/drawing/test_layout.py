"""The plan of a grid: rows, columns, and what every cell is compared with."""

import pytest

from lorascope.io.checkpoints import Checkpoint
from lorascope.models.shots import Shot
from lorascope.tools.drawing import cells as naming
from lorascope.tools.drawing.cells import Applied, Weights, make_cell
from lorascope.tools.drawing.companions import Asked
from lorascope.tools.drawing.layout import Axes, columns, layers, place
from lorascope.tools.drawing.prompts import Prompt

PROMPT, OFF = Prompt("sks, hat", "edit"), Prompt("hat", "class")


@pytest.fixture(autouse=True)
def any_file(monkeypatch):
    """Files and base models are known by their names alone."""
    monkeypatch.setattr(naming, "digest", lambda path: path.name)
    monkeypatch.setattr(naming, "base_digest", lambda name: name)


def axes(**more):
    usual = {
        "bases": ("base",),
        "companions": ((),),
        "strengths": (1.0,),
        "text_strengths": (),
        "seeds": (1,),
        "negatives": ("",),
        "guidances": (5.0,),
        "steps": (20,),
        "samplers": ("ddim",),
        "sizes": ((64, 64),),
        "clip_skip": 1,
    }
    return Axes(**usual | more)


@pytest.fixture
def saved(tmp_path):
    return [Checkpoint(tmp_path / f"fern-{e}.safetensors", e, 10 * e) for e in (1, 2)]


def prompts(*pairs, **asked):
    return [(p, off, Asked(text=p.text, **asked)) for p, off in pairs or [(PROMPT, OFF)]]


def shot(**more):
    return Shot(**{"prompt": "cat", "seed": 1, "width": 64, "height": 64} | more)


def test_the_base_model_comes_first_and_the_trigger_is_left_out_last(saved):
    rows = layers(axes(), saved, trigger_off=(2,))
    assert [(row.kind, row.epoch, row.strength) for row in rows] == [
        ("base", 0, 0.0),
        ("lora", 1, 1.0),
        ("lora", 2, 1.0),
        ("trigger-off", 0, 0.0),
        ("trigger-off", 2, 1.0),
    ]


def test_strengths_of_both_networks_are_crossed_and_zero_is_the_base_model(saved):
    rows = layers(axes(strengths=(0.0, 0.5), text_strengths=(0.0, 1.0)), saved[:1], trigger_off=())
    assert [(r.strength, r.text_strength) for r in rows[1:]] == [(0.0, 1.0), (0.5, 0.0), (0.5, 1.0)]
    assert len(layers(axes(strengths=(0.0, 1.0)), saved, trigger_off=())) == 3


def test_the_trigger_is_left_out_at_the_strength_most_people_use(saved):
    rows = layers(axes(strengths=(0.4, 1.1, 2.0)), saved, trigger_off=(1,))
    assert (rows[-1].strength, rows[-1].text_strength) == (1.1, 1.1)


def test_every_base_model_and_every_set_of_companions_has_rows_of_its_own(saved, tmp_path):
    style = (Applied(path=tmp_path / "style.safetensors", strength=0.6),)
    rows = layers(axes(bases=("a", "b"), companions=((), style)), saved, trigger_off=())
    assert len(rows) == 2 * 2 * 3
    assert [row.base for row in rows if not row.epoch] == ["a", "a", "b", "b"]


def test_columns_are_every_combination_of_what_was_asked():
    found = columns(axes(seeds=(1, 2), guidances=(1.0, 5.0), steps=(10, 20)), prompts())
    assert len(found) == 8
    assert len({column.shot for column in found}) == 8


def test_a_prompt_that_sets_something_itself_is_not_multiplied_by_it():
    own = Prompt("sks", "trigger", negative="bad", seed=7, width=96, height=32, steps=5, guidance=1)
    found = columns(axes(seeds=(1, 2), negatives=("", "ugly")), prompts((own, OFF), (PROMPT, OFF)))
    assert len(found) == 1 + 4
    expected = {"negative": "bad", "seed": 7, "width": 96, "height": 32, "steps": 5, "guidance": 1}
    assert {name: getattr(found[0].shot, name) for name in expected} == expected


def test_every_cell_knows_what_the_base_model_drew_of_its_prompt_and_noise(saved):
    rows = layers(axes(), saved, trigger_off=(2,))
    placed = place(rows, columns(axes(seeds=(1, 2)), prompts()))
    for number, one in enumerate(placed):
        baseline = placed[one.baseline]
        assert not baseline.layer.epoch
        assert baseline.cell.shot == one.cell.shot
        assert (baseline is one) == (not one.layer.epoch)
        assert one.row * 2 + one.across == number
    assert placed[-1].cell.shot.prompt == "hat"
    assert placed[-1].prompt.group == "class"


def test_a_prompt_without_the_trigger_is_drawn_once_for_both_rows(saved):
    rows = layers(axes(), saved, trigger_off=(2,))
    placed = place(rows, columns(axes(), prompts((OFF, OFF))))
    assert placed[2].cell.name == placed[4].cell.name
    assert placed[0].cell.name == placed[3].cell.name


def test_a_tag_in_the_prompt_multiplies_the_strength_and_companions_stay_in_the_baseline(
    saved, tmp_path
):
    style = Applied(path=tmp_path / "style.safetensors", strength=0.6, text_strength=0.6)
    across = columns(axes(), prompts(strength=0.5, text_strength=0.25, companions=(style,)))
    base, drawn = place(layers(axes(strengths=(2.0,)), saved[:1], trigger_off=()), across)
    assert base.cell.weights.loras == (style,)
    own = Applied(path=saved[0].path, strength=1.0, text_strength=0.5)
    assert drawn.cell.weights.loras == (style, own)


def test_a_cell_is_named_by_all_that_decides_the_picture(tmp_path):
    lora = Applied(path=tmp_path / "a", strength=1.0, text_strength=1.0)
    weights = Weights(base="base", loras=(lora,))
    others = [
        (Weights(base="other", loras=(lora,)), shot()),
        (Weights(base="base"), shot()),
        (Weights(base="base", loras=(Applied(path=tmp_path / "b"),)), shot()),
        (Weights(base="base", loras=(Applied(path=lora.path, strength=0.5),)), shot()),
        (Weights(base="base", loras=(Applied(path=lora.path, text_strength=0.5),)), shot()),
        (Weights(base="base", loras=(lora, lora)), shot()),
        *(
            (weights, shot(**{name: value}))
            for name, value in {
                "prompt": "dog",
                "seed": 2,
                "width": 72,
                "height": 72,
                "negative": "bad",
                "steps": 21,
                "guidance": 5.5,
                "sampler": "ddim",
                "clip_skip": 2,
            }.items()
        ),
    ]
    names = [make_cell(weights, shot()).name, *(make_cell(*other).name for other in others)]
    assert len(set(names)) == len(names)
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in names)


def test_a_cell_does_not_care_where_its_files_lie_nor_for_a_lora_at_strength_zero(tmp_path):
    near, far = (
        Weights(base="base", loras=(Applied(path=tmp_path / folder / "a"),)) for folder in "xy"
    )
    assert make_cell(near, shot()).name == make_cell(far, shot()).name
    idle = Applied(path=tmp_path / "a", strength=0.0, text_strength=0.0)
    plain = make_cell(Weights(base="base"), shot())
    assert make_cell(Weights(base="base", loras=(idle,)), shot()) == plain
