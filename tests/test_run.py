"""The run directory: evidence is asked once, kept whole, and never torn."""

import dataclasses
import functools
import math

import numpy as np
import pytest

from lorascope.errors import BadInputError, MissingInputError, RecordError
from lorascope.records import Measured, Measurement, Tool
from lorascope.run import Run, digest

ROWS = (
    {"epoch": 1, "share": 0.5, "note": 'a, "quoted"\nline', "good": True, "gap": None, "no": None},
    {"epoch": 2, "share": 1.0, "note": "", "good": False, "gap": 3.5, "no": None},
)


def asks(inputs, *, size: int = 3, name: str = "") -> Measured:
    """Answer with rows, an array and a number.

    Parameters
    ----------
    size : int
        Of the array.
    name : str
        Nothing.
    """
    return Measured(
        numbers=(Measurement(name="size", value=size, unit="1", n=2, interval=(1.0, 4.0)),),
        tables={"rows": ROWS},
        arrays={"values": np.arange(size, dtype=np.float32)},
        caveats=("A doubt.",),
    )


ASKS = Tool(name="asks", asks="Well?", reads=("lora",), measure=asks)


def never(*_args, **_options):
    pytest.fail("measured twice")


def test_evidence_comes_back_as_it_was_measured(tiny_run):
    evidence = tiny_run.measure(ASKS)
    found = tiny_run.latest("asks")
    assert found.measured.numbers == evidence.measured.numbers
    assert found.measured.tables["rows"] == list(ROWS)
    assert found.measured.caveats == ("A doubt.",)
    np.testing.assert_array_equal(found.measured.arrays["values"], [0, 1, 2])


def test_the_same_question_is_answered_from_disk(tiny_run):
    tiny_run.measure(ASKS)
    again = dataclasses.replace(ASKS, measure=functools.wraps(asks)(never))
    assert tiny_run.measure(again)["size"].value == 3


def test_another_option_is_another_question(tiny_run):
    tiny_run.measure(ASKS)
    tiny_run.measure(ASKS, size=5)
    assert len(tiny_run.all("asks")) == 2


def test_other_bytes_are_another_question(tiny_run):
    tiny_run.measure(ASKS)
    file = tiny_run.place("lora") / "fern-000001.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    tiny_run.measure(ASKS)
    assert len(tiny_run.all("asks")) == 2
    assert len(tiny_run.current(ASKS)) == 1


@pytest.mark.parametrize("ending", ["json", "rows.csv", "npz"])
def test_torn_evidence_is_made_again(tiny_run, ending):
    evidence = tiny_run.measure(ASKS)
    file = tiny_run.evidence_file(evidence, ending)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 3])
    assert tiny_run.latest("asks") is None
    assert tiny_run.measure(ASKS).measured.tables["rows"]
    assert file.read_bytes() == whole


def test_a_missing_table_makes_the_evidence_be_made_again(tiny_run):
    evidence = tiny_run.measure(ASKS)
    tiny_run.evidence_file(evidence, "rows.csv").unlink()
    assert tiny_run.latest("asks") is None


def test_a_folder_that_is_no_run_is_refused_with_a_way_on(tmp_path):
    with pytest.raises(MissingInputError, match="is not a run") as raised:
        Run(tmp_path)
    assert "Fix:" in str(raised.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}'])
def test_a_damaged_run_is_named(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(BadInputError, match="damaged"):
        Run(tmp_path)


def test_a_run_from_a_newer_program_is_refused(empty_run):
    file = empty_run.path / "run.json"
    file.write_text(file.read_text().replace('"schema": 1', '"schema": 99'))
    with pytest.raises(BadInputError, match="newer program"):
        Run(empty_run.path)


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "holiday.txt").write_text("beach")
    with pytest.raises(BadInputError, match="is not a run"):
        Run.create(tmp_path, base="miniature", base_digest="0")
    assert [p.name for p in tmp_path.iterdir()] == ["holiday.txt"]


def test_a_run_on_another_base_model_is_not_taken_over(empty_run):
    with pytest.raises(BadInputError, match="not on other"):
        Run.create(empty_run.path, base="other", base_digest="1" * 64)


def test_what_a_run_lacks_is_named_with_the_place_looked_at(empty_run):
    with pytest.raises(MissingInputError, match=r"has no dataset: looked for .*dataset\.json"):
        empty_run.input("dataset")


def test_a_folders_digest_knows_names_and_bytes_but_not_partial_files(tmp_path):
    (tmp_path / "a").write_text("1")
    first = digest(tmp_path)
    (tmp_path / ".partial-x").write_text("2")
    assert digest(tmp_path) == first
    (tmp_path / "a").rename(tmp_path / "b")
    assert digest(tmp_path) != first


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_nobody_could_use_is_refused(value):
    with pytest.raises(RecordError, match="leave out"):
        Measurement(name="loss", value=value, unit="1", n=1)


def test_a_run_on_an_unknown_base_model_has_none_until_it_is_told(tmp_path):
    run = Run.create(tmp_path / "fern", base="", base_digest="", origin={"folder": "/there"})
    assert not run.has("base")
    with pytest.raises(MissingInputError, match=r"lorascope add base .*fern PATH"):
        run.input("base")
    run.set_base("miniature", "1" * 64)
    again = Run(run.path)
    assert again.has("base")
    assert (again.base, again.origin["folder"]) == ("miniature", "/there")


def test_evidence_from_before_the_base_model_was_known_is_not_current(tmp_path, tiny_run):
    needs = dataclasses.replace(ASKS, reads=("lora", "base"))
    tiny_run.set_base("miniature", "1" * 64)
    tiny_run.measure(needs)
    assert len(tiny_run.current(needs)) == 1
    tiny_run.set_base("other", "2" * 64)
    assert tiny_run.current(needs) == []
    tiny_run.set_base("", "")
    assert tiny_run.current(needs) == []


@pytest.mark.parametrize(("role", "command"), [("events", "logs"), ("dataset", "dataset")])
def test_a_missing_role_is_told_with_the_command_that_adds_it(empty_run, role, command):
    with pytest.raises(MissingInputError, match=f"Fix: lorascope add {command} "):
        empty_run.input(role)


def test_a_run_from_before_runs_had_an_origin_opens(empty_run):
    assert empty_run.origin == {}
    assert empty_run.has("base")
