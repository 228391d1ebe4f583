"""Rules on strength and artefacts: what is planted is named, what is healthy stays silent."""

import pytest

from lorascope.records import Confidence, Evidence, Measured
from lorascope.rules.strength import OVERSTRONG, SATURATED

RULES = (OVERSTRONG, SATURATED)


def evidence(tool, **tables):
    measured = Measured(numbers=(), tables=tables)
    return Evidence(tool=tool, version=1, params={}, inputs={}, measured=measured)


def stressed(**odd):
    """A healthy epoch, but for what is odd."""
    row = {
        "epoch": 6,
        "step": 60,
        "form": "sampled",
        "items": 6,
        "highest": 2.0,
        "saturation": 1.7,
        "saturation_low": 1.5,
        "saturation_high": 1.9,
        "saturation_open": False,
        "headroom": 0.7,
        "best": 1.0,
        "best_low": 0.9,
        "best_high": 1.1,
        "lost": 0.02,
        "lost_low": 0.0,
        "lost_high": 0.05,
    }
    return row | odd


def drawn(**odd):
    row = {
        "row": 1,
        "kind": "lora",
        "epoch": 6,
        "strength": 1.0,
        "pictures": 9,
        "counted": 9,
        "artefact_z": 1.0,
        "artefact_median": 0.8,
        "spoilt": 0.0,
    }
    return row | odd


def found(*, stress=None, artefacts=None):
    seen = {}
    if stress is not None:
        seen["stress"] = evidence("stress", strengths=stress)
    if artefacts is not None:
        seen["artefacts"] = evidence("artefacts", epochs=artefacts)
    judged = [r.judge(seen) for r in RULES if all(tool in seen for tool in r.uses)]
    return [finding for findings in judged for finding in findings]


SPOILT = {"spoilt": 0.9, "artefact_median": 6.0}
EARLY = {"saturation": 1.1, "saturation_low": 1.0, "saturation_high": 1.15, "headroom": 0.1}
PLANTED = [
    ({"stress": [stressed(**EARLY)]}, "WGT-OVERSTRONG"),
    ({"stress": [stressed(best=0.5, best_high=0.6, lost=0.6, lost_low=0.4)]}, "WGT-OVERSTRONG"),
    ({"stress": [stressed(form="x0", **EARLY)]}, "WGT-OVERSTRONG"),
    ({"artefacts": [drawn(**SPOILT)]}, "IMG-SATURATED"),
    ({"artefacts": [drawn(), drawn(epoch=7, **SPOILT), drawn(epoch=8, **SPOILT)]}, "IMG-SATURATED"),
]


@pytest.mark.parametrize(("given", "code"), PLANTED)
def test_a_planted_fault_is_named_once_and_no_other(given, code):
    (finding,) = found(**given)
    assert finding.code == code
    assert finding.n > 0
    assert finding.because
    assert finding.fix


@pytest.mark.parametrize(("given", "code"), PLANTED)
def test_with_its_rule_switched_off_a_fault_goes_unseen(given, code, monkeypatch):
    monkeypatch.setitem(globals(), "RULES", tuple(r for r in RULES if r.code != code))
    assert found(**given) == []


@pytest.mark.parametrize(
    "given",
    [
        {"stress": [stressed()], "artefacts": [drawn()]},
        {"stress": [stressed(saturation=None, best=None)]},
        {"stress": [stressed(saturation=1.3, best=0.85, lost=0.5)]},
        {"stress": [stressed(best=0.6)]},  # and hardly better there than at 1
        {"stress": []},
        {"artefacts": []},
        {"artefacts": [drawn(spoilt=0.4, artefact_median=2.5)]},
        {"artefacts": [drawn(strength=2.0, **SPOILT)]},  # nobody asked for that strength
        {"artefacts": [drawn(kind="base", epoch=0, **SPOILT)]},
        {"artefacts": [drawn(kind="trigger-off", **SPOILT)]},
        {"artefacts": [drawn(counted=2, **SPOILT)]},
        {"artefacts": [drawn(spoilt=None, artefact_median=None, counted=0)]},
    ],
)
def test_what_is_healthy_or_unknown_stays_silent(given):
    assert found(**given) == []


def test_what_was_drawn_speaks_before_what_was_guessed():
    rows = [stressed(form="x0", **EARLY), stressed()]
    assert found(stress=rows) == []
    assert found(stress=rows[::-1]) == []


def test_every_epoch_is_judged_by_itself():
    rows = [stressed(), stressed(epoch=9, **EARLY)]
    (finding,) = found(stress=rows)
    assert finding.subject == {"epoch": 9}


def test_drawn_pictures_and_a_whole_interval_make_it_surer():
    (sure,) = found(stress=[stressed(**EARLY)])
    (wide,) = found(stress=[stressed(**EARLY | {"saturation_high": 1.6})])
    (guessed,) = found(stress=[stressed(form="x0", **EARLY)])
    assert [f.confidence for f in (sure, wide, guessed)] == [
        Confidence.MEDIUM,
        Confidence.LOW,
        Confidence.LOW,
    ]
    assert "--form sampled" in guessed.command


def test_few_pictures_or_a_bare_majority_make_it_less_sure():
    (sure,) = found(artefacts=[drawn(**SPOILT)])
    (few,) = found(artefacts=[drawn(counted=4, **SPOILT)])
    (bare,) = found(artefacts=[drawn(**SPOILT | {"spoilt": 0.6})])
    assert (sure.confidence, few.confidence, bare.confidence) == ("medium", "low", "low")


def test_the_first_spoilt_epoch_is_named_and_the_others_counted():
    rows = [drawn(epoch=5), drawn(epoch=6, **SPOILT), drawn(epoch=7, **SPOILT)]
    (finding,) = found(artefacts=rows)
    assert finding.subject == {"epoch": 6}
    assert "1 later epoch" in finding.text


def test_a_lora_that_is_spoilt_at_every_strength_is_not_to_be_used_at_any():
    rows = [stressed(saturation=0.05, saturation_high=0.1, headroom=-0.95, best=0.0, best_high=0.0)]
    (finding,) = found(stress=rows)
    assert "earlier epoch" in finding.fix


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_every_rule_explains_itself(rule):
    assert all([rule.means, rule.evidence, rule.sure, rule.do])
