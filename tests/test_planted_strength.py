"""A LoRA trained at twenty times its learning rate, beside a healthy one, told apart by two tools.

The trainings are real and small; `benchmarks/stress.py` does the same with several seeds.
"""

import pytest

from benchmarks import stress as planted
from lorascope.io.images import read_image

pytestmark = pytest.mark.slow

SEED = 0


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Train both and ask both tools about the last epoch of each."""
    work = tmp_path_factory.mktemp("planted")
    found = {}
    for kind in ("healthy", "twenty"):
        run = planted.plant(work, kind, SEED)
        stressed, looked = planted.ask(run, epochs=str(planted.EPOCHS), strengths="0,0.5,1,1.5")
        found[kind] = run, stressed, looked
    return found


def derived(stressed, form):
    return next(row for row in stressed.tables["strengths"] if row["form"] == form)


def test_at_strength_1_every_picture_of_the_hot_lora_is_spoilt_and_none_of_the_healthy(asked):
    pictures = {
        kind: planted.of_pictures(looked)["largest"] for kind, (*_, looked) in asked.items()
    }
    assert len(pictures["healthy"]) == len(pictures["twenty"]) == 6
    assert min(pictures["twenty"]) > 3
    assert max(pictures["healthy"]) < 3


@pytest.mark.parametrize("form", ["sampled", "x0"])
def test_the_hot_lora_saturates_below_1_and_the_healthy_one_well_above(asked, form):
    hot, healthy = (derived(asked[kind][1], form)["saturation"] for kind in ("twenty", "healthy"))
    assert hot < 1
    assert healthy is None or healthy > 1.2


def test_the_healthy_lora_works_best_near_1_and_the_hot_one_nowhere(asked):
    assert derived(asked["healthy"][1], "x0")["best"] == pytest.approx(1, abs=0.25)
    assert derived(asked["healthy"][1], "x0")["break_even"] is None
    assert derived(asked["twenty"][1], "x0")["break_even"] < 0.5


def test_the_rules_name_the_hot_lora_and_stay_silent_on_the_healthy_one(asked):
    fired = {
        kind: planted.judged(stressed, looked) for kind, (_, stressed, looked) in asked.items()
    }
    assert fired == {"healthy": set(), "twenty": {"IMG-SATURATED", "WGT-OVERSTRONG"}}


def test_with_its_rules_switched_off_the_hot_lora_goes_unseen(asked, monkeypatch):
    for rule in ("OVERSTRONG", "SATURATED"):
        silent = planted.rules.Rule(
            code=rule, uses=(), judge=lambda _: [], means="", evidence="", sure="", do=""
        )
        monkeypatch.setattr(planted.rules, rule, silent)
    assert planted.judged(*asked["twenty"][1:]) == set()


def test_the_sheet_shows_every_strength(asked):
    run, stressed, _ = asked["healthy"]
    sheet = read_image(run.place("samples") / "stress.png")
    assert sheet.shape[0] > 4 * 128
    assert {row["strength"] for row in stressed.tables["cells"]} == {0.0, 0.5, 1.0, 1.5}
