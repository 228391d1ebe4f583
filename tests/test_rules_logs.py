"""Rules on logs: a planted fault is named, a sound log is not, and no log ever ranks an epoch."""

import numpy as np
import pytest

from lorascope.io.event_file import Events, Series
from lorascope.records import Confidence, Evidence, Measured, Measurement, Row, Severity
from lorascope.rules.logs import DIVERGED, RULES_OF_LOGS
from lorascope.tools.logs import logged
from lorascope.tools.logs import reading as log_reading

STEPS = 2000
HELD_OUT: list[Row] = [
    {"epoch": 0, "step": 0, "file": "", "held_out": 0.0},
    {"epoch": 1, "step": 10, "file": "a", "held_out": -0.1},
]
SEVERITIES = {
    "LOG-NAN": Severity.ERROR,
    "LOG-DIVERGE": Severity.ERROR,
    "LOG-SPIKE": Severity.WARNING,
    "LOG-VAL-NOT-COMPARABLE": Severity.INFO,
    "SEL-LOG-ONLY": Severity.INFO,
}


@pytest.fixture
def seen_of(tmp_path, monkeypatch):
    """Give the evidence of a log with some tags, beside a held-out loss or without one."""

    def ask(tags, *, held_out=True):
        series = {
            tag: Series(
                tag=tag,
                steps=np.arange(1, len(values) + 1),
                times=np.arange(1.0, len(values) + 1),
                values=np.asarray(values, dtype=np.float64),
            )
            for tag, values in tags.items()
        }
        events = Events(series=series, files=(), damage=())
        monkeypatch.setattr(log_reading, "read_events", lambda _path: events)
        found = logged.describe_logs({"events": tmp_path}, [])
        tables = {**found.tables, **({"epochs": HELD_OUT} if held_out else {})}
        measured = Measured(numbers=found.numbers, tables=tables)
        return {"loss": Evidence(tool="loss", version=1, params={}, inputs={}, measured=measured)}

    return ask


def sound():
    rng = np.random.default_rng(3)
    return np.exp(-1 - 4 * rng.uniform(size=STEPS) + rng.normal(0, 0.3, size=STEPS))


def planted(code: str):
    """Tags with one fault, and whether anything was held out."""
    values = sound()
    if code == "LOG-NAN":
        values[1500:] = np.nan
    if code == "LOG-SPIKE":
        values[700] = 1e4
    if code == "LOG-DIVERGE":
        values[1500:] *= np.geomspace(1, 6, 500)
    tags = {"loss/current": values}
    if code == "LOG-VAL-NOT-COMPARABLE":
        tags["loss/validation/step_divergence"] = np.array([0.1, 0.2])
    return tags, code != "SEL-LOG-ONLY"


def findings(seen, rules=RULES_OF_LOGS):
    return [finding for rule in rules for finding in rule.judge(seen)]


each_rule = pytest.mark.parametrize("rule", RULES_OF_LOGS, ids=lambda rule: rule.code)


@each_rule
def test_a_planted_fault_is_named_and_no_other(rule, seen_of):
    tags, held_out = planted(rule.code)
    (finding,) = findings(seen_of(tags, held_out=held_out))
    assert finding.code == rule.code
    assert finding.severity is SEVERITIES[rule.code]
    assert finding.n > 0
    assert finding.numbers
    assert finding.fix
    assert finding.because


@each_rule
def test_with_its_rule_switched_off_a_fault_goes_unseen(rule, seen_of):
    tags, held_out = planted(rule.code)
    others = [one for one in RULES_OF_LOGS if one is not rule]
    assert findings(seen_of(tags, held_out=held_out), others) == []


def test_a_sound_log_beside_a_held_out_loss_is_no_finding(seen_of):
    assert findings(seen_of({"loss/current": sound()})) == []


@pytest.mark.parametrize("tables", [{}, {"epochs": HELD_OUT}], ids=["nothing", "held out"])
@each_rule
def test_evidence_without_a_log_is_no_finding(rule, tables):
    bare = Measured(numbers=(), tables=tables)
    evidence = Evidence(tool="loss", version=1, params={}, inputs={}, measured=bare)
    assert rule.judge({"loss": evidence}) == []


@each_rule
def test_every_rule_explains_itself(rule):
    assert all((rule.means, rule.evidence, rule.sure, rule.do))
    assert rule.listens == ("loss",)


def test_the_first_nan_is_the_subject_and_other_tags_are_counted(seen_of):
    late, early = sound(), sound()
    late[900:], early[400:] = np.nan, np.inf
    (finding,) = findings(seen_of({"loss/current": late, "loss/average": early}))
    assert finding.subject["tag"] == "loss/average"
    assert finding.subject["step"] == 401
    assert finding.numbers["values"] == 1100 + 1600
    assert "So is 1 other tag" in finding.text


def test_nan_in_a_log_without_a_loss_counts_too(seen_of):
    (finding,) = findings(seen_of({"norm/avg_key_norm": np.array([1.0, np.nan])}))
    assert (finding.code, finding.n) == ("LOG-NAN", 2)


def test_a_small_rise_is_no_divergence(seen_of):
    slow = 0.1 * (1 + 0.2 * np.linspace(0, 1, STEPS)) * np.exp(sound() / 20)
    seen = seen_of({"loss/current": slow})
    (row,) = [r for r in seen["loss"].table("log_events") if r["event"] == "diverging"]
    assert 0 < row["value"] < DIVERGED
    assert findings(seen) == []


def test_many_spikes_are_one_finding_that_names_the_first(seen_of):
    values = sound()
    values[[300, 600, 900, 1200, 1500]] = 1e4
    (finding,) = findings(seen_of({"loss/current": values}))
    assert finding.numbers["spikes"] == 5
    assert "step 301, 601, 901 and 2 more" in finding.text


def test_a_trap_that_no_validation_fell_into_is_not_reported(seen_of):
    assert findings(seen_of({"loss/current": sound(), "loss/average": sound()})) == []


def test_all_traps_are_one_finding(seen_of):
    tags = {
        "loss/current": sound(),
        "loss/average": sound(),
        "loss/validation/step_divergence": [0.1, 0.2],
        "loss/validation/step_average": [0.1, 0.2],
    }
    (finding,) = findings(seen_of(tags))
    assert finding.numbers["traps"] == 3
    assert "no generalisation gap" in finding.text


def test_a_log_alone_never_names_an_epoch_and_is_never_sure(seen_of):
    deep = sound()
    deep[800:1000] *= 0.05
    (finding,) = findings(seen_of({"loss/current": deep}, held_out=False))
    assert finding.code == "SEL-LOG-ONLY"
    assert finding.confidence is Confidence.LOW
    assert "epoch" not in finding.subject
    assert finding.numbers["dips_beyond_noise"] >= 1


def test_a_held_out_loss_of_the_base_model_alone_is_no_held_out_loss(seen_of):
    measured = Measured(
        numbers=(Measurement(name="log_steps", value=9, unit="steps", n=9),),
        tables={"epochs": [HELD_OUT[0], {**HELD_OUT[1], "held_out": None}]},
    )
    evidence = Evidence(tool="loss", version=1, params={}, inputs={}, measured=measured)
    assert [f.code for f in findings({"loss": evidence})] == ["SEL-LOG-ONLY"]
