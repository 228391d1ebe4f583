"""Every rule: a planted fault is named, no other is, and without the fault it keeps silent."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from lorascope import verdict as verdict_module
from lorascope.records import Measured, Measurement, Outcome
from lorascope.rules import RULES
from lorascope.rules.fit import best_epoch, scorecard
from lorascope.run import NOTHING
from lorascope.tools import ARTEFACTS, LOSS, STRESS, TAGS, WEIGHTS
from lorascope.verdict import standing, verdict
from tests.conftest import (
    ALIKE,
    CAPTURE,
    EPOCHS,
    HELD_OUT,
    U_CURVE,
    drawn_grid,
    held_out_curve,
    measure_all,
    measured_grid,
    sound_vae,
    store,
    write_checkpoint,
)
from tests.test_rules_weights import FAULTS as WEIGHT_FAULTS

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
    healthy(run, likeness=ALIKE, curve=U_CURVE, capture=[min(c, 0.3) for c in CAPTURE])


def plant_no_turn(run, _rng):
    level = {"p_falls": 0.01, "p_rises": 0.4, "turned": False, "lowest_epoch": 5, "lowest": -0.5}
    healthy(run, turns=[{"set": "held-out", "images": HELD_OUT, **level}])


def plant_leak(run, _rng):
    healthy(run, leaks=[{"image": "00.png", "other": "07.png", "distance": 0.02, "same": False}])


def plant_few_images(run, _rng):
    """Three held-out images, and captions that are known by heart from the third epoch on."""
    run.measure(WEIGHTS)
    run.measure(TAGS)
    drawn_grid(run, ALIKE, CALM)
    sound_vae(run)
    memory = [{"epoch": e, "caption_gap": g, "caption_gap_low": g - 0.01} for e, g in GAPS]
    usual = {"step": 10, "file": "fern.safetensors", "train": -0.2}
    epochs = [usual | {"epoch": e, "held_out": v} for e, v in enumerate([0.0, *HEALTHY])]
    numbers = (Measurement(name="images", value=3, unit="images", n=3),)
    store(run, LOSS, Measured(numbers=numbers, tables={"epochs": epochs, "memory": memory}))


def trajectories(**odd):
    """Fourteen training images that were learnt alike, and one that was not."""
    usual = {"split": "train", "last": -0.9, "base_log_loss": -3.0, "lowest_epoch": 7}
    rows = [
        usual | {"image": f"{i:02}.png", "gain": 1.0 + 0.01 * i, "rise": 0.01 * (i % 3)}
        for i in range(14)
    ]
    return [*rows, usual | {"image": "odd.png", "gain": 1.0, "rise": 0.0} | odd]


def plant_never_learned(run, _rng):
    healthy(run, trajectories=trajectories(gain=0.1))


def plant_learned_first(run, _rng):
    healthy(run, trajectories=trajectories(gain=2.5))


def plant_unlearned(run, _rng):
    healthy(run, trajectories=trajectories(rise=0.8, lowest_epoch=3))


def plant_event(kind, tag="loss/current"):
    """Let the log say one thing."""
    row = {"event": kind, "tag": tag, "step": 5, "epoch": 1, "value": 1.0, "threshold": 0.0}

    def do(run, _rng):
        healthy(run, log_events=[row | {"text": kind}])

    return do


def plant_log_alone(run, _rng):
    run.measure(WEIGHTS)
    run.measure(TAGS)
    drawn_grid(run, ALIKE, CALM)
    sound_vae(run)
    steps = Measurement(name="log_steps", value=9, unit="steps", n=9)
    store(run, LOSS, Measured(numbers=(steps,)))


GAPS = [(1, 0.01), (2, 0.03), (3, 0.09), (4, 0.2)]


def plant_capture(run, _rng):
    healthy(run, capture=[0.0] * (EPOCHS - 1) + [0.4])


def plant_overstrong(run, _rng):
    healthy(run)
    row = {"epoch": 5, "step": 50, "form": "sampled", "items": 6, "highest": 2.0}
    row |= {"saturation": 1.1, "saturation_high": 1.15, "headroom": 0.1}
    row |= {"best": 0.6, "best_high": 0.7, "lost": 0.5, "lost_low": 0.4}
    store(run, STRESS, Measured(numbers=(), tables={"strengths": [row]}))


def plant_saturated(run, _rng):
    healthy(run)
    row = {"row": 5, "kind": "lora", "epoch": 5, "strength": 1.0, "counted": 9}
    measured_grid(run, ARTEFACTS, {"spoilt": [1.0], "artefact_median": [6.0]}, [row])


def plant_in_pictures(fault):
    """Half of the last epoch's pictures hold what is in training images."""

    def do(run, _rng):
        usual = {"patch_share": 0.3, "source_share": 0.2, "second_share": 0.05}
        about = {"kind": "lora", "strength": 1.0, "asks": True, "source": "a.png"}
        cells = [
            {"cell": i, "row": e, "epoch": e, **about, "source_names": "a.png | b.png"}
            | {"file": f"samples/{i}.png"}
            | (fault if e == EPOCHS and i % 2 else usual)
            for e in (EPOCHS - 1, EPOCHS)
            for i in range(12)
        ]
        held_out = [{"image": f"{i}.png", **usual} for i in range(HELD_OUT)]
        healthy(run, copies={"cells": cells, "held_out": held_out})

    return do


FAULTS = {
    "FIT-CLASS-CAPTURE": plant_capture,
    "WGT-OVERSTRONG": plant_overstrong,
    "IMG-SATURATED": plant_saturated,
    "IMG-COPY": plant_in_pictures({"patch_share": 0.8, "source_share": 0.78, "second_share": 0.0}),
    "IMG-COLLAGE": plant_in_pictures(
        {"patch_share": 0.8, "source_share": 0.44, "second_share": 0.36}
    ),
    "LOG-NAN": plant_event("nan"),
    "LOG-SPIKE": plant_event("spike"),
    "LOG-DIVERGE": plant_event("diverging"),
    "LOG-VAL-NOT-COMPARABLE": plant_event("trap", "loss/validation/step_divergence"),
    "SEL-LOG-ONLY": plant_log_alone,
    "SEL-NO-TURN": plant_no_turn,
    "SET-LEAK": plant_leak,
    "FIT-UNCERTAIN": plant_few_images,
    "IMG-NEVER-LEARNED": plant_never_learned,
    "IMG-LEARNED-FIRST": plant_learned_first,
    "IMG-UNLEARNED": plant_unlearned,
    "WGT-NAN": plant_nan,
    "WGT-BROKEN": plant_broken,
    "WGT-DEAD": plant_dead,
    "FIT-UNDER": plant_too_little,
    "FIT-UNDER-RUN": plant_stopped_early,
    "FIT-OVER": plant_too_much,
    "TAG-ACT-MISSING": plant_missing_tag,
    "VAE-DETAIL-LOSS": plant_detail_loss,
}


def healthy(
    run,
    *,
    likeness=ALIKE,
    curve=HEALTHY,
    capture=CALM,
    gap=None,
    ssim=0.9,
    edges=0.95,
    copies=NOTHING,
    **more,
):
    run.measure(WEIGHTS)
    run.measure(TAGS)
    held_out_curve(run, curve, gap=gap, more=more)
    drawn_grid(run, likeness, capture, copies=copies)
    sound_vae(run, ssim=ssim, edges=edges)


def among_files(plant):
    """Plant a fault of the files in a run that has all other evidence."""

    def do(run, _rng):
        shutil.rmtree(run.place("lora"))
        run.place("lora").mkdir()
        plant(run.place("lora"))
        healthy(run)

    return do


FAULTS |= {r.code: among_files(p) for p, r in WEIGHT_FAULTS if r.code not in FAULTS}


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
    drawn_grid(tiny_run, ALIKE, [0.0, 0.1, 0.2, 0.2, 0.3, 0.5, 0.7, 0.8])
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


@pytest.mark.parametrize(
    ("lowest", "p_falls", "said"),
    [(8, None, "may lie beyond"), (7, None, "too few epochs"), (4, 0.01, "keeps level")],
)
def test_why_no_turn_was_seen_is_said(tiny_run, lowest, p_falls, said):
    row = {"p_falls": p_falls, "p_rises": 0.4, "turned": False, "lowest": -0.5}
    healthy(tiny_run, turns=[row | {"set": "held-out", "images": 6, "lowest_epoch": lowest}])
    (finding,) = (f for f in verdict(tiny_run).findings if f.code == "SEL-NO-TURN")
    assert said in finding.text
