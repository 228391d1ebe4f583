"""LoRAs in a prompt are read as A1111 reads them; what would be drawn otherwise is refused."""

import random

import pytest

from lorascope.errors import BadInputError
from lorascope.io.lora_tags import LoraTag, plain, split_lora_tags, tag_name, write_lora_tag


@pytest.mark.parametrize(
    ("tag", "meant"),
    [
        ("<lora:fern:0.8>", LoraTag("fern", 0.8, 0.8)),
        ("<lora:fern>", LoraTag("fern", 1.0, 1.0)),
        ("<lora:fern:0.5:0.8>", LoraTag("fern", 0.5, 0.8)),
        ("<lora:fern:0.5:0.8:4>", LoraTag("fern", 0.5, 0.8, 4)),
        ("<lora:fern:te=0.5>", LoraTag("fern", 0.5, 0.5)),
        ("<lora:fern:unet=0.8>", LoraTag("fern", 1.0, 0.8)),
        ("<lora:fern:te=0.5:unet=0.8:dyn=4>", LoraTag("fern", 0.5, 0.8, 4)),
        ("<lora:fern:unet=0.8:te=0.5>", LoraTag("fern", 0.5, 0.8)),
        ("<lora:fern:1:unet=0>", LoraTag("fern", 1.0, 0.0)),
        ("<lora:fern:1:1:te=0.2>", LoraTag("fern", 0.2, 1.0)),
        ("<lora:fern:-1.5>", LoraTag("fern", -1.5, -1.5)),
        ("<lora:fern: 1 :2e-1>", LoraTag("fern", 1.0, 0.2)),
        ("<LoRA:fern:1>", LoraTag("fern")),
        ("<lyco:fern:1>", LoraTag("fern")),
        ("<lora:a fern v1.2 (b) [c], d:1>", LoraTag("a fern v1.2 (b) [c], d")),
        ("<lora:a<b:1>", LoraTag("a<b")),
        ("<lora:シダ:1>", LoraTag("シダ")),
    ],
)
def test_a_tag_is_read_as_it_is_meant(tag, meant):
    assert split_lora_tags(tag) == ("", (meant,))


def test_the_tags_are_taken_out_and_nothing_else_is_changed():
    prompt = "  zyx, <lora:a:1> smile ,<lora:b:0.5><lora:a:2>,\n\ta  "
    text, tags = split_lora_tags(prompt)
    assert text == "  zyx,  smile ,,\n\ta  "
    assert [(tag.name, tag.strength) for tag in tags] == [("a", 1), ("b", 0.5), ("a", 2)]


@pytest.mark.parametrize(
    "text", ["", "a <b> c", "1 < 2 and 3 > 2", "<3:heart>", "lora:x:1", "<loramine:x>", "(a:1.2)"]
)
def test_what_is_no_tag_stays(text):
    assert split_lora_tags(text) == (text, ())


@pytest.mark.parametrize(
    ("tag", "named"),
    [
        ("<lora:>", "no whole tag"),
        ("<lora>", "no whole tag"),
        ("a <lora:fern:1", "no whole tag"),
        ("<lora: :1>", "names no LoRA"),
        ("<lora::1>", "names no LoRA"),
        ("<lora:fern:strong>", "'strong' is no strength"),
        ("<lora:fern:>", "'' is no strength"),
        ("<lora:fern:1:>", "'' is no strength"),
        ("<lora:fern:nan>", "'nan' is no strength"),
        ("<lora:fern:inf>", "'inf' is no strength"),
        ("<lora:fern:te=x>", "'x' is no strength"),
        ("<lora:fern:1:1:many>", "'many' is no rank"),
        ("<lora:fern:dyn=-1>", "'-1' is no rank"),
        ("<lora:fern:1:lbw=OUTALL>", r"by block or step \(lbw=\)"),
        ("<lora:fern:1:in=0.5>", r"by block or step \(in=\)"),
        ("<lora:fern:1:MID=0.5>", r"by block or step \(mid=\)"),
        ("<lora:fern:1:out=1>", r"by block or step \(out=\)"),
        ("<lora:fern:1:step=5-10>", r"by block or step \(step=\)"),
        ("<lora:fern:1:1,0,0,0,1>", "by block or step"),
        ("<lora:fern:0.8@0.2>", "by block or step"),
        ("<lora:fern:1:1:4:1>", "by block or step"),
        ("<lora:fern:1:unt=1>", "'unt' is none of te, unet, dyn"),
        ("<hypernet:fern:1>", "hypernetwork"),
    ],
)
def test_what_cannot_be_drawn_as_meant_is_refused_in_two_lines(tag, named):
    with pytest.raises(BadInputError, match=named) as caught:
        split_lora_tags(f"zyx {tag}")
    assert len(str(caught.value).splitlines()) == 2
    assert "Fix:" in str(caught.value)


@pytest.mark.parametrize(
    ("tag", "written"),
    [
        (LoraTag("fern"), "<lora:fern:1>"),
        (LoraTag("fern", 0.8, 0.8), "<lora:fern:0.8>"),
        (LoraTag("fern", 1.0, 0.8), "<lora:fern:1:0.8>"),
        (LoraTag("fern", 1.0, 1.0, 4), "<lora:fern:1:1:4>"),
        (LoraTag("fern", 1e-7, -10.0), "<lora:fern:0.0000001:-10>"),
        (LoraTag("a:b>c=d"), "<lora:a_b_c_d:1>"),
    ],
)
def test_a_tag_is_written_in_its_shortest_form(tag, written):
    assert write_lora_tag(tag) == written


def test_what_is_written_is_read_back():
    draw = random.Random(0)
    for _ in range(500):
        name = "".join(draw.choices('ab .,()[]<|#@"\\シ:>=\n', k=draw.randint(1, 8))) + "x"
        tag = LoraTag(tag_name(name), draw.uniform(-2, 2), draw.uniform(-2, 2), draw.choice([None]))
        assert split_lora_tags(f"a {write_lora_tag(tag)}") == ("a ", (tag,))


@pytest.mark.parametrize("number", [0, 1, 10, 100, 0.1, 1e-9, -2.5, 1e15, 0.30000000000000004])
def test_a_number_is_written_without_an_exponent_and_reads_back(number):
    assert float(plain(number)) == number
    assert "e" not in plain(number)
    assert not plain(number).endswith((".0", "."))
