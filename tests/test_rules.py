"""Every rule: a planted fault is named, no other is, and without the fault it keeps silent."""

import dataclasses
import json

import numpy as np
import pytest

from lorascope import verdict as verdict_module
from lorascope.records import Outcome
from lorascope.rules import RULES
from lorascope.rules.fit import best_epoch, scorecard
from lorascope.tools import TAGS, WEIGHTS
from lorascope.verdict import standing, verdict
from tests.conftest import (
    CAPTURE,
    EPOCHS,
    LIKENESS,
    U_CURVE,
    drawn_grid,
    held_out_curve,
    measure_all,
    sound_vae,
    write_checkpoint,
)

HEALTHY = [-0.1, -0.3, -0.45, -0.48, -0.5, -0.49, -0.48, -0.48]
CALM = [0.02] * EPOCHS
FALLING = [-0.05, -0.1, -0.15, -0.2, -0.25, -0.3, -0.35, -0.4]


def plant_nan(run, rng):
    def spoil(place, up, _down):
        if place == 1:
            up[0, 0] = np.nan

    write_checkpoint(run, EPOCHS, rng, spoil=spoil)
    healthy(run)


def plant_broken(run, _rng):
    file = run.place("lora") / f"fern-{EPOCHS:06}.safetensors"
    file.write_bytes(file.read_bytes()[:-40])
    healthy(run)


def plant_dead(run, rng):
    def spoil(place, up, _down):
        if place == 1:
            up[:] = 0

    write_checkpoint(run, EPOCHS, rng, spoil=spoil)
    healthy(run)


def plant_missing_tag(run, _rng):
    raw = json.loads(run.place("dataset").read_text())
    raw["images"][-1]["caption"] = "smile, forest"
    run.place("dataset").write_text(json.dumps(raw))
    healthy(run)


def plant_detail_loss(run, _rng):
    healthy(run, ssim=0.4, edges=0.5)


def plant_too_little(run, _rng):
    """Everything learnt is little, and the curve has come to rest: the learning rate is too low."""
    resting = [-0.01, -0.02, -0.03, -0.04, -0.05, -0.06, -0.07, -0.07]
    healthy(run, likeness=[0.05] * EPOCHS, curve=resting, gap=[0.0] * EPOCHS)


def plant_stopped_early(run, _rng):
    healthy(run, likeness=[0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16], curve=FALLING)


def plant_too_much(run, _rng):
    healthy(run, likeness=LIKENESS, curve=U_CURVE, capture=CAPTURE)


FAULTS = {
    "WGT-NAN": plant_nan,
    "WGT-BROKEN": plant_broken,
    "WGT-DEAD": plant_dead,
    "FIT-UNDER": plant_too_little,
    "FIT-UNDER-RUN": plant_stopped_early,
    "FIT-OVER": plant_too_much,
    "TAG-ACT-MISSING": plant_missing_tag,
    "VAE-DETAIL-LOSS": plant_detail_loss,
}


def healthy(run, *, likeness=LIKENESS, curve=HEALTHY, capture=CALM, gap=None, ssim=0.9, edges=0.95):
    run.measure(WEIGHTS)
    run.measure(TAGS)
    held_out_curve(run, curve, gap=gap)
    drawn_grid(run, likeness, capture)
    sound_vae(run, ssim=ssim, edges=edges)


def codes(run):
    return {finding.code for finding in verdict(run).findings}


each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)


@each_rule
def test_a_planted_fault_is_named_and_no_other(rule, tiny_run, rng):
    FAULTS[rule.code](tiny_run, rng)
    assert codes(tiny_run) == {rule.code}


@each_rule
def test_with_its_rule_switched_off_a_fault_goes_unseen(rule, tiny_run, rng, monkeypatch):
    FAULTS[rule.code](tiny_run, rng)
    others = tuple(one for one in RULES if one is not rule)
    monkeypatch.setattr(verdict_module, "RULES", others)
    assert rule.code not in codes(tiny_run)


def test_a_healthy_run_passes_without_a_finding(tiny_run):
    healthy(tiny_run)
    answer = verdict(tiny_run)
    assert (answer.outcome, answer.findings) == (Outcome.PASS, ())


@each_rule
def test_every_rule_explains_itself(rule):
    assert all([rule.means, rule.evidence, rule.sure, rule.do])
    assert rule.code == rule.code.upper()


def test_every_fault_that_can_be_planted_has_a_rule():
    assert set(FAULTS) == {rule.code for rule in RULES}


def test_a_finding_says_how_many_images_are_behind_it(tiny_run, rng):
    plant_missing_tag(tiny_run, rng)
    (finding,) = verdict(tiny_run).findings
    assert finding.n == 6
    assert finding.because


def test_epochs_are_called_underfit_usable_and_overfit_in_this_order(tiny_run):
    measure_all(tiny_run)
    fits = [e.fit for e in verdict(tiny_run).epochs]
    assert fits[0] == "underfit"
    assert fits[3] == "good"
    assert fits[-1] == "overfit"


def test_the_pick_lies_in_the_valley_of_the_held_out_loss(tiny_run):
    measure_all(tiny_run)
    best = verdict(tiny_run).best
    assert best is not None
    assert best.epoch in (3, 4, 5)
    assert best.epoch in best.set


def test_a_side_that_nobody_looked_at_is_never_ruled_out(tiny_run):
    """Without grid and training loss nothing speaks of likeness; the calls stand on less."""
    measure_all(tiny_run)
    card = scorecard(standing(tiny_run))
    blind = dataclasses.replace(card, scores=card.scores * np.nan)
    assert {blind.fit(i)[0] for i in range(EPOCHS)} == {"uncertain"}
    assert best_epoch(blind) is None


def test_what_is_learnt_by_heart_is_overfit_even_while_the_held_out_loss_rests(tiny_run):
    gap = [0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8, 0.9]
    tiny_run.measure(WEIGHTS)
    held_out_curve(tiny_run, HEALTHY, gap=gap)
    drawn_grid(tiny_run, LIKENESS, [0.0, 0.1, 0.2, 0.2, 0.3, 0.5, 0.7, 0.8])
    fits = [e.fit for e in verdict(tiny_run).epochs]
    assert fits[-1] == "overfit"
    assert "overfit" not in fits[:5]


def test_a_broken_epoch_is_never_the_pick(tiny_run, rng):
    def spoil(_place, up, _down):
        up[0, 0] = np.nan

    measure_all(tiny_run)
    best = verdict(tiny_run).best.epoch
    write_checkpoint(tiny_run, best, rng, spoil=spoil)
    measure_all(tiny_run)
    assert verdict(tiny_run).best.epoch != best


def test_without_held_out_images_there_is_no_pick(tiny_run):
    measure_all(tiny_run)
    seen = dict(standing(tiny_run))
    del seen["loss"]
    assert scorecard(seen) is None
