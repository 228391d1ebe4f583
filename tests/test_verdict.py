"""The verdict: what counts, what is missing, and what it says."""

import json

from lorascope import report
from lorascope.records import Fit, Measured, Outcome
from lorascope.tools import GRID, LOSS, WEIGHTS
from lorascope.verdict import standing, verdict
from tests.conftest import (
    EPOCHS,
    drawn_grid,
    held_out_curve,
    measure_all,
    store,
    write_checkpoint,
)

CONTRACT = {
    "schema",
    "run",
    "tier",
    "outcome",
    "summary",
    "best",
    "epochs",
    "findings",
    "not_measured",
}


def test_a_gap_is_never_a_pass(empty_run):
    answer = verdict(empty_run)
    assert answer.outcome is Outcome.INCONCLUSIVE
    assert {gap.tool for gap in answer.not_measured} == {"loss", "grid", "tags", "vae", "weights"}


def test_every_gap_names_the_command_that_closes_it(empty_run):
    said = {gap.tool: gap.command for gap in verdict(empty_run).not_measured}
    for tool, command in said.items():
        missing = "dataset" if tool in ("tags", "vae") else "lora"
        assert command == f"lorascope add {missing} {empty_run.path} PATH"


def test_what_is_there_and_was_not_measured_has_its_own_command(tiny_run):
    said = {gap.tool: gap.command for gap in verdict(tiny_run).not_measured}
    assert said == {tool: f"lorascope {tool} {tiny_run.path}" for tool in said}


def test_an_overtrained_tail_is_a_warning_with_an_epoch_to_take(tiny_run):
    measure_all(tiny_run)
    answer = verdict(tiny_run)
    assert answer.outcome is Outcome.WARN
    assert answer.best is not None
    assert f"Epoch {answer.best.epoch} is the one to take" in answer.summary


def test_the_json_is_the_contract(tiny_run):
    measure_all(tiny_run)
    said = json.loads(json.dumps(report.as_dict(verdict(tiny_run))))
    assert set(said) == CONTRACT
    assert set(said["best"]) == {
        "epoch", "step", "probability", "set", "strength", "likeness_first", "flexibility_first"
    }  # fmt: skip
    assert {"epoch", "step", "file", "fit", "probability"} <= set(said["epochs"][0])
    parts = "code severity confidence subject numbers n text fix command".split()
    assert set(parts) <= set(said["findings"][0])


def test_evidence_about_other_files_does_not_count(tiny_run, rng):
    tiny_run.measure(WEIGHTS)
    assert "weights" in standing(tiny_run)
    write_checkpoint(tiny_run, EPOCHS + 1, rng)
    assert "weights" not in standing(tiny_run)


def test_an_answer_about_some_epochs_does_not_replace_the_one_about_all(tiny_run):
    import dataclasses
    import functools

    from lorascope.records import Measured

    measure_all(tiny_run)
    before = standing(tiny_run)["grid"]

    @functools.wraps(GRID.measure)
    def narrow(*_args, **_options):
        return Measured(numbers=())

    tiny_run.measure(dataclasses.replace(GRID, measure=narrow, holds=None), epochs="2")
    assert len(tiny_run.all("grid")) == 2
    assert standing(tiny_run)["grid"].id == before.id


def test_the_text_names_epochs_with_their_shapes_and_the_pick_with_a_star(tiny_run):
    measure_all(tiny_run)
    text = report.as_text(verdict(tiny_run))
    assert "1▽" in text
    assert f"{EPOCHS}△" in text
    assert "★" in text
    assert max(len(line) for line in text.splitlines()) <= 200


def test_a_verdict_is_a_pure_function_of_the_evidence(tiny_run):
    measure_all(tiny_run)
    assert verdict(tiny_run) == verdict(tiny_run)


def test_a_rule_is_shown_only_the_evidence_that_it_declares(tiny_run, monkeypatch):
    import dataclasses

    from lorascope import verdict as module

    measure_all(tiny_run)
    shown = {}

    def listening(rule):
        return dataclasses.replace(
            rule, judge=lambda seen: shown.update({rule.code: set(seen)}) or ()
        )

    monkeypatch.setattr(module, "RULES", tuple(map(listening, module.RULES)))
    module.verdict(tiny_run)
    assert shown["TAG-ACT-MISSING"] == {"tags"}
    assert shown["FIT-OVER"] == {"loss", "likeness", "drift", "copies"}


def test_a_log_alone_is_no_answer_about_epochs(tiny_run):
    rows = [{"step": 1, "epoch": 1, "loss": 0.1}]
    store(tiny_run, LOSS, Measured(numbers=(), tables={"log": rows}))
    answer = verdict(tiny_run)
    assert (answer.tier, answer.outcome, answer.best) == ("B", Outcome.INCONCLUSIVE, None)
    (gap,) = (gap for gap in answer.not_measured if gap.tool == "loss")
    assert gap.command == f"lorascope loss {tiny_run.path}"


def test_fewer_than_four_held_out_images_recommend_nothing_and_say_so(tiny_run):
    epochs = [{"epoch": e, "step": e, "file": "", "held_out": -0.1 * e} for e in range(4)]
    images = [
        {"epoch": e, "image": f"{i}.png", "split": "held-out", "value": -0.1 * e}
        for e in range(1, 4)
        for i in range(3)
    ]
    store(tiny_run, LOSS, Measured(numbers=(), tables={"epochs": epochs, "images": images}))
    answer = verdict(tiny_run)
    assert answer.best is None
    assert "fewer than four images" in answer.summary
    assert {e.fit for e in answer.epochs} == {Fit.UNCERTAIN}


def test_one_checkpoint_is_no_choice(tiny_run):
    for file in sorted(tiny_run.place("lora").iterdir())[1:]:
        file.unlink()
    held_out_curve(tiny_run, [-0.4])
    drawn_grid(tiny_run, [0.9], [0.0])
    answer = verdict(tiny_run)
    assert answer.best is None
    assert "There is one checkpoint: nothing to choose from." in answer.summary


def test_what_stood_in_the_way_of_a_tool_is_said_of_its_gap(tiny_run):
    failed = {"loss": "000.png is gone.\nFix: lorascope add dataset R NEW", "vae": "no room"}
    gaps = {gap.tool: gap for gap in verdict(tiny_run, failed=failed).not_measured}
    assert (gaps["loss"].why, gaps["loss"].command) == (
        "000.png is gone.",
        "lorascope add dataset R NEW",
    )
    assert (gaps["vae"].why, gaps["vae"].command) == ("no room", f"lorascope vae {tiny_run.path}")
