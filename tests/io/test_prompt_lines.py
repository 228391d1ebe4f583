"""A prompt written as a line reads back as it was, whatever signs are in it."""

import random

import pytest

from lorascope.errors import BadInputError
from lorascope.io.prompt_lines import PromptLine, read_prompt_lines, write_prompt_line


def texts(lines):
    return [line.text for line in read_prompt_lines(lines)]


def test_a_line_carries_what_sd_scripts_writes_behind_a_prompt():
    line = "zyxfern, red hat --n blurry, bad --w 512 --h 768 --d 1 --s 20 --l 7.5"
    told = PromptLine(
        text="zyxfern, red hat",
        negative="blurry, bad",
        width=512,
        height=768,
        seed=1,
        steps=20,
        guidance=7.5,
    )
    assert read_prompt_lines(line) == (told,)
    assert write_prompt_line(told) == line


def test_bars_and_line_breaks_part_prompts_and_remarks_do_not_count():
    assert texts("# a | b\r\nfern|moss\n\n | # c\n  ivy  ") == ["fern", "moss", "# c", "ivy"]


def test_a_remark_that_is_one_word_belongs_to_the_next_prompt_alone():
    lines = read_prompt_lines("# edit\nfern|moss\n# hard (train)\nivy\n# two words\noak\nelm")
    assert [line.group for line in lines] == ["edit", "", "hard", "", ""]


def test_a_backslash_takes_the_meaning_away():
    assert texts(r"a\|b | \#c | \@d | e \--w 5 | f\ng") == ["a|b", "#c", "@d", "e --w 5", "f\ng"]


@pytest.mark.parametrize(
    "text", [r"fern \(plant\)", r"a\b", "x \\", "a -- b", "a --w-h b", "a@b#c"]
)
def test_what_means_nothing_needs_no_backslash(text):
    assert texts(text) == [text]
    assert write_prompt_line(PromptLine(text=text)) == text


def test_the_empty_prompt_and_an_empty_negative_prompt_can_be_said():
    empty = PromptLine(text="", negative="", width=8)
    assert write_prompt_line(empty) == "@empty --n --w 8"
    assert read_prompt_lines("@empty --n --w 8") == (empty,)
    assert read_prompt_lines("@train --s 4")[0].word
    assert not read_prompt_lines(r"\@train")[0].word


def test_any_prompt_is_read_back_as_it_was_written():
    draw = random.Random(0)
    signs = ["\\", "|", "#", "@", "--", "--w", "--n", " ", "n", "\n", " 5", "a", ",", "@empty"]
    for _ in range(2000):
        text, negative = ("".join(draw.choices(signs, k=draw.randrange(7))).strip() for _ in "ab")
        line = PromptLine(
            text=text,
            negative=draw.choice([None, negative]),
            width=draw.choice([None, 64]),
            guidance=draw.choice([None, 0.1]),
        )
        written = write_prompt_line(line)
        assert "\n" not in written
        assert read_prompt_lines(written) == (line,), written
        assert read_prompt_lines(f"{written} | {written}") == (line, line), written


@pytest.mark.parametrize(
    "line",
    [
        "fern --w many",
        "fern --w 0",
        "fern --h -8",
        "fern --d -1",
        "fern --s 0",
        "fern --s 1.5",
        "fern --l nan",
        "fern --l -1",
        "fern --d 99999999999999999999",
        "fern --ar 16:9",
    ],
)
def test_an_option_that_cannot_be_is_refused_with_its_prompt(line):
    with pytest.raises(BadInputError, match="fern") as caught:
        read_prompt_lines(line)
    assert len(str(caught.value).splitlines()) == 2


def test_options_of_other_models_are_passed_over():
    assert read_prompt_lines("fern --ss euler_a --g 3.5 --fs 1.15") == (PromptLine(text="fern"),)
