"""Rules on weights alone: each planted fault is named, a training as it should be stays silent."""

import numpy as np
import pytest

from lorascope.io.lora_file import LoraModule, write_lora
from lorascope.records import Evidence, Measured, Severity
from lorascope.rules import broken
from lorascope.rules import weights as rules
from lorascope.rules.fit import scorecard
from lorascope.tools.weights import WEIGHTS, weights

EPOCHS = 10
CAP = 0.2  # on the norm of each module; most reach it in the second half
SHAPES = {
    **{f"lora_unet_mid_block_attentions_0_transformer_blocks_{i}_attn1_to_q": (40, 30, 1.0 + i / 5)
       for i in range(9)},
    **{f"lora_te_text_model_encoder_layers_{i}_self_attn_q_proj": (24, 24, 0.4) for i in range(3)},
}  # fmt: skip
RULES = (
    rules.UNDERFLOW,
    rules.STALE,
    rules.BLOWUP,
    rules.OSCILLATE,
    rules.TE_HEAVY,
    rules.MAXNORM,
    rules.RANK_UNUSED,
    broken.NAN,
    broken.DEAD,
    broken.BROKEN,
)


def trained(folder, *, rank=8, alpha=None, change=None, metadata=None, dtype="F16", epochs=EPOCHS):
    """Save a training: `up` walks from 0 with a drift and noise, `down` stays near its start.

    ``change(epoch, name, up, down)`` may change one module of one epoch, and what follows on it.
    """
    rng = np.random.default_rng(0)
    state = {}
    for name, (out, inner, size) in SHAPES.items():
        spread = 0.5 ** np.arange(rank)  # a few directions carry most, as training leaves them
        if rank >= 32:
            spread = np.maximum(0.97 ** np.arange(rank), 0.1)
        drift = rng.normal(size=(out, rank)) * spread * 0.01 * size
        down = rng.normal(size=(rank, inner)) / np.sqrt(inner)
        state[name] = (np.zeros((out, rank)), down, drift)
    for epoch in range(1, epochs + 1):
        modules = []
        for name, (up, down, drift) in state.items():
            noise = rng.normal(size=up.shape) * np.abs(drift).mean()
            up += drift * (1 - 0.5 * epoch / epochs) + noise
            if change is not None:
                change(epoch, name, up, down)
            modules.append(
                LoraModule(
                    name, down.astype(np.float32), up.astype(np.float32), alpha or float(rank)
                )
            )
        about = {"ss_epoch": str(epoch), "ss_steps": str(epoch * 100), **(metadata or {})}
        write_lora(folder / f"fern-{epoch:06}.safetensors", modules, about, dtype=dtype)
    return folder


def evidence(folder):
    return Evidence(
        tool=WEIGHTS.name,
        version=WEIGHTS.version,
        params={},
        inputs={},
        measured=weights({"lora": folder}),
    )


def findings(folder):
    seen = {"weights": evidence(folder)}
    return [finding for rule in RULES for finding in rule.judge(seen)]


def codes(folder):
    return {finding.code for finding in findings(folder)}


def plant_underflow(folder):
    def shrink(_epoch, _name, up, _down):
        up[: len(up) // 3] *= 1e-9

    trained(folder, change=shrink)


def plant_stale(folder):
    kept = {}

    def stop(epoch, name, up, _down):
        if epoch in (6, 7):
            up[:] = kept[name]
        kept[name] = up.copy()

    trained(folder, change=stop)


def plant_blowup(folder):
    def burst(epoch, _name, up, _down):
        if epoch >= 8:
            up *= 6.0

    trained(folder, change=burst)


def plant_runaway(folder):
    def hotter(_epoch, _name, up, _down):
        up *= 1.7  # each epoch on top of the one before

    trained(folder, change=hotter)


def plant_swinging(folder):
    first = {}

    def swing(epoch, name, up, _down):
        if epoch == 1:
            first[name] = up.copy()
        up[:] = first[name] * (1.5 if epoch % 2 else 1.0) + 0.05 * up

    trained(folder, change=swing)


def plant_heavy_text(folder):
    def more_text(epoch, name, up, _down):
        if epoch == 1 and name.startswith("lora_te"):
            up *= 200.0

    trained(folder, change=more_text, metadata={"ss_unet_lr": "1e-4", "ss_text_encoder_lr": "1e-4"})


def plant_cap(folder):
    def clamp(_epoch, _name, up, down):
        up *= min(1.0, CAP / np.linalg.norm(up @ down))

    trained(folder, change=clamp, metadata={"ss_scale_weight_norms": str(CAP)})


def plant_unwritten_cap(folder):
    def clamp(_epoch, _name, up, down):
        up *= min(1.0, CAP / np.linalg.norm(up @ down))

    trained(folder, change=clamp)


def plant_unused_rank(folder):
    def narrow(_epoch, _name, up, _down):
        up[:, 2:] *= 0.01

    trained(folder, rank=64, change=narrow)


def plant_nan(folder):
    def spoil(epoch, name, up, _down):
        if epoch == EPOCHS and name == next(iter(SHAPES)):
            up[0, 0] = np.nan

    trained(folder, change=spoil)


def plant_dead(folder):
    def never(_epoch, name, up, _down):
        if name.startswith("lora_te"):
            up[:] = 0.0

    trained(folder, change=never)


def plant_torn(folder):
    trained(folder)
    file = folder / f"fern-{EPOCHS:06}.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


FAULTS = [
    (plant_underflow, rules.UNDERFLOW),
    (plant_stale, rules.STALE),
    (plant_blowup, rules.BLOWUP),
    (plant_runaway, rules.BLOWUP),
    (plant_swinging, rules.OSCILLATE),
    (plant_heavy_text, rules.TE_HEAVY),
    (plant_cap, rules.MAXNORM),
    (plant_unwritten_cap, rules.MAXNORM),
    (plant_unused_rank, rules.RANK_UNUSED),
    (plant_nan, broken.NAN),
    (plant_dead, broken.DEAD),
    (plant_torn, broken.BROKEN),
]
each_fault = pytest.mark.parametrize(
    ("plant", "rule"), FAULTS, ids=[plant.__name__.removeprefix("plant_") for plant, _ in FAULTS]
)


@each_fault
def test_a_planted_fault_is_named_and_no_other(plant, rule, tmp_path):
    plant(tmp_path)
    found = findings(tmp_path)
    assert {finding.code for finding in found} == {rule.code}
    text = " ".join(finding.text for finding in found).lower()
    assert not any(word in text for word in (" good", "overfit", "overtrained", "underfit"))


@each_fault
def test_with_its_rule_switched_off_a_fault_goes_unseen(plant, rule, tmp_path, monkeypatch):
    plant(tmp_path)
    others = tuple(one for one in RULES if one is not rule)
    monkeypatch.setitem(globals(), "RULES", others)
    assert codes(tmp_path) == set()


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 10, 30])
@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_a_training_as_it_should_be_stays_silent(epochs, dtype, tmp_path):
    trained(tmp_path, epochs=epochs, dtype=dtype)
    assert codes(tmp_path) == set()


def test_a_large_rank_that_is_used_stays_silent(tmp_path):
    trained(tmp_path, rank=24)
    assert codes(tmp_path) == set()


@pytest.mark.parametrize("seed", range(5))
def test_a_walk_without_any_direction_is_not_called_swinging(seed, tmp_path):
    rng = np.random.default_rng(seed)

    def wander(_epoch, _name, up, _down):
        up += rng.normal(size=up.shape) * 0.02

    trained(tmp_path, change=wander, epochs=25)
    assert codes(tmp_path) == set()


@pytest.mark.parametrize("slow", [1, 2, 3, 4])
def test_a_slow_start_as_of_warm_up_or_prodigy_is_not_called_a_blow_up(slow, tmp_path):
    last = {}

    def start(epoch, name, up, _down):
        before = last.get(name, np.zeros_like(up))
        up[:] = before + (up - before) * (1e-3 if epoch <= slow else 1.0)
        last[name] = up.copy()

    trained(tmp_path, change=start, epochs=12)
    assert codes(tmp_path) == set()


@pytest.mark.parametrize("seed", range(3))
def test_a_walk_of_many_epochs_gets_nowhere_and_is_still_not_called_swinging(seed, tmp_path):
    rng = np.random.default_rng(seed)
    last = {}

    def wander(epoch, name, up, _down):
        before = last.get(name, np.zeros_like(up))
        up[:] = before + rng.normal(size=up.shape) * 0.02
        last[name] = up.copy()

    trained(tmp_path, change=wander, epochs=40)
    assert evidence(tmp_path)["path_efficiency"].value < rules.EFFICIENCY
    assert codes(tmp_path) == set()


def test_a_cap_that_bends_the_way_is_not_called_swinging(tmp_path):
    rng = np.random.default_rng(0)
    last = {}

    def around(epoch, name, up, down):
        before = last.get(name, np.zeros_like(up))
        up[:] = before + rng.normal(size=up.shape) * 0.01
        up *= min(1.0, CAP / np.linalg.norm(up @ down))
        last[name] = up.copy()

    trained(tmp_path, change=around, epochs=60, metadata={"ss_scale_weight_norms": str(CAP)})
    efficiency = evidence(tmp_path)["path_efficiency"].value
    assert efficiency < rules.OF_CHANCE / np.sqrt(60)
    assert codes(tmp_path) == {"WGT-MAXNORM-SATURATED"}


def test_a_small_scale_that_nobody_folded_is_a_warning_only(tmp_path):
    def tiny(epoch, _name, up, _down):
        if epoch == 1:
            up *= 1e-3
        up *= 0.01

    trained(tmp_path, change=tiny, alpha=0.001)
    (finding,) = [f for f in findings(tmp_path) if f.code == "WGT-UNDERFLOW"]
    assert finding.severity is Severity.WARNING
    assert "folded" in finding.text


@pytest.mark.parametrize(
    ("rates", "silent"),
    [
        ({"ss_unet_lr": "1e-4", "ss_text_encoder_lr": "5e-5"}, True),
        ({"ss_unet_lr": "1e-4", "ss_text_encoder_lr": "1e-4"}, False),
        ({}, False),
    ],
)
def test_a_text_encoder_that_learnt_more_slowly_is_not_called_heavy(rates, silent, tmp_path):
    def more_text(epoch, name, up, _down):
        if epoch == 1 and name.startswith("lora_te"):
            up *= 200.0

    trained(tmp_path, change=more_text, metadata=rates)
    assert codes(tmp_path) == (set() if silent else {"WGT-TE-HEAVY"})


def test_stale_epochs_are_reported_as_one_stretch_with_each_epoch_named(tmp_path):
    plant_stale(tmp_path)
    (finding,) = findings(tmp_path)
    assert finding.subject["epochs"] == "6, 7"
    assert finding.subject["epoch"] == 6
    assert finding.severity is Severity.ERROR


def test_a_blow_up_names_the_epoch_where_it_began(tmp_path):
    plant_blowup(tmp_path)
    (finding,) = findings(tmp_path)
    assert finding.subject["epoch"] == 8


def test_weights_alone_judge_no_epoch(tmp_path):
    plant_stale(tmp_path)
    assert scorecard({"weights": evidence(tmp_path)}) is None


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_every_rule_explains_itself(rule):
    assert all([rule.means, rule.evidence, rule.sure, rule.do])
    assert rule.uses == ("weights",)


def test_evidence_of_an_older_program_makes_no_rule_stumble():
    bare = {"epoch": 1, "file": "a", "modules": 3, "identical_to_previous": False}
    for tables in ({}, {"epochs": []}, {"epochs": [bare] * 6, "modules": [{"module": "x"}]}):
        old = Evidence(
            tool="weights",
            version=1,
            params={},
            inputs={},
            measured=Measured(numbers=(), tables=tables),
        )
        assert [f for rule in RULES for f in rule.judge({"weights": old})] == []
