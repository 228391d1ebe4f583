"""Options as people write them: what they mean, and what is said where they mean nothing."""

import pytest

from lorascope.errors import BadInputError
from lorascope.tools.drawing import axes


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
        ("last", (8,)),
        ("first,6,last", (1, 6, 8)),
    ],
)
def test_epochs_are_read_as_people_write_them(text, meant):
    assert axes.epochs(text, [1, 2, 4, 6, 7, 8]) == meant


@pytest.mark.parametrize("text", ["two", "1,,2", ",", "-3", "4-", "4-2", "1-2-3", "1.5", "3", "9"])
def test_epochs_that_mean_nothing_get_one_clear_message(text):
    with pytest.raises(BadInputError) as caught:
        axes.epochs(text, [1, 2, 4])
    assert len(str(caught.value).splitlines()) == 2
    assert "Fix: --epochs" in str(caught.value)


def test_a_missing_epoch_is_answered_with_those_that_are_there():
    with pytest.raises(BadInputError, match=r"there are 1-3, 7\.\nFix: --epochs 1-3,7"):
        axes.epochs("5", [1, 2, 3, 7])


@pytest.mark.parametrize(
    ("text", "meant"), [("1", (1,)), ("3,1,3", (3, 1)), ("1-4", (1, 2, 3, 4)), ("7,0-1", (7, 0, 1))]
)
def test_seeds_keep_their_order_and_count_once(text, meant):
    assert axes.seeds(text) == meant


@pytest.mark.parametrize("text", ["", "1,-2", "1.5", "a", "1-99999999", "5-1", str(2**63), "¹"])
def test_seeds_that_are_none_are_refused(text):
    with pytest.raises(BadInputError, match="Fix: --seeds"):
        axes.seeds(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("512x768", ((512, 768),)),
        ("512", ((512, 512),)),
        ("64x64, 64X128,64x64", ((64, 64), (64, 128))),
    ],
)
def test_sizes_are_width_by_height(text, meant):
    assert axes.sizes(text, unit=8) == meant


@pytest.mark.parametrize(
    ("text", "fix"),
    [("500x512", "496x512"), ("0x8", "8x8"), ("99999x64", "4096x64"), ("512xx", "512x768")],
)
def test_a_size_that_cannot_be_drawn_is_answered_with_one_that_can(text, fix):
    with pytest.raises(BadInputError, match=f"Fix: --sizes {fix}"):
        axes.sizes(text, unit=8)


def test_numbers_are_finite_and_not_below_the_least():
    assert axes.numbers("guidance", "5, 7.5,5", example="5") == (5.0, 7.5)
    for wrong in ("", "strong", "nan", "1,inf", "-1"):
        with pytest.raises(BadInputError, match="Fix: --guidance 5"):
            axes.numbers("guidance", wrong, example="5", least=0)


def test_sampling_steps_are_whole_and_at_most_a_thousand():
    assert axes.steps("20,30") == (20, 30)
    for wrong in ("0", "1001", "2.5", "many"):
        with pytest.raises(BadInputError, match="Fix: --steps"):
            axes.steps(wrong)


def test_a_name_that_is_not_known_is_answered_with_those_that_are():
    assert axes.choices("sampler", "ddim,euler,ddim", ("ddim", "euler")) == ("ddim", "euler")
    with pytest.raises(BadInputError, match=r"'magic' is no sampler\.\nFix: .*ddim, euler"):
        axes.choices("sampler", "magic", ("ddim", "euler"))


def test_texts_have_bars_between_them_and_may_be_empty():
    assert axes.texts("blurry, bad | | blurry, bad") == ("blurry, bad", "")
    assert axes.texts("") == ("",)


def test_numbers_are_written_as_spans():
    assert axes.spans([7, 1, 2, 3, 3]) == "1-3, 7"
    assert axes.spans([]) == ""


def test_all_that_cannot_be_read_is_named_at_once():
    readers = {"steps": lambda: axes.steps("0"), "seeds": lambda: axes.seeds("x")}
    with pytest.raises(BadInputError, match=r"(?s)steps is 0.*'x' in --seeds"):
        axes.read_all(readers)
    assert axes.read_all({"steps": lambda: axes.steps("4")}) == {"steps": (4,)}
