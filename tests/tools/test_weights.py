"""The weights tool: planted sizes, planted faults."""

import numpy as np
import pytest

from lorascope.errors import MissingInputError
from lorascope.io.lora_file import LoraModule, write_lora
from lorascope.tools.weights import block_of, part_of, weights

UNET = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
CONV = "lora_unet_up_blocks_0_resnets_0_conv1"
TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
SHAPES = {UNET: ((16, 4), (4, 12)), CONV: ((8, 4, 1, 1), (4, 6, 3, 3)), TEXT: ((10, 4), (4, 10))}


def factors(seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return {
        name: (rng.normal(size=up).astype(np.float32), rng.normal(size=down).astype(np.float32))
        for name, (up, down) in SHAPES.items()
    }


def save(folder, epoch, modules, *, alpha=2.0, dtype="F32"):
    write_lora(
        folder / f"fern-{epoch:06d}.safetensors",
        [LoraModule(name, down, up, alpha) for name, (up, down) in modules.items()],
        {"ss_epoch": str(epoch), "ss_steps": str(epoch * 10), "ss_output_name": "fern"},
        dtype=dtype,
    )


def full(modules, *, scale=0.5):
    return {
        name: scale * up.reshape(len(up), -1).astype(float) @ down.reshape(len(down), -1)
        for name, (up, down) in modules.items()
    }


def number(measured, name):
    return next(m.value for m in measured.numbers if m.name == name)


def test_sizes_are_those_of_the_full_matrices(tmp_path):
    save(tmp_path, 1, factors(0))
    found = weights({"lora": tmp_path})
    matrices = full(factors(0))
    for row in found.tables["modules"]:
        assert row["norm"] == pytest.approx(np.linalg.norm(matrices[row["module"]]))
    total = np.sqrt(sum((m**2).sum() for m in matrices.values()))
    assert number(found, "norm") == pytest.approx(total)
    assert number(found, "text_encoder_share") == pytest.approx(
        (matrices[TEXT] ** 2).sum() / total**2
    )
    assert sum(r["share"] for r in found.tables["blocks"]) == pytest.approx(1)


def test_the_way_the_weights_went_is_that_of_the_full_matrices(tmp_path):
    epochs = [factors(e) for e in range(3)]
    for e, modules in enumerate(epochs, 1):
        save(tmp_path, e, modules)
    rows = weights({"lora": tmp_path}).tables["epochs"]
    flat = [np.concatenate([m.ravel() for m in full(e).values()]) for e in epochs]
    moves = [flat[0], flat[1] - flat[0], flat[2] - flat[1]]
    for row, move in zip(rows, moves, strict=True):
        assert row["update_norm"] == pytest.approx(np.linalg.norm(move))
    for row, one, other in zip(rows[1:], moves[1:], moves, strict=False):
        cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert row["update_cosine"] == pytest.approx(cosine)
    assert rows[0]["update_cosine"] is None
    assert rows[2]["growth"] == pytest.approx(np.linalg.norm(flat[2]) / np.linalg.norm(flat[1]))


def test_a_straight_way_has_cosine_and_efficiency_one(tmp_path):
    for e in (1, 2, 3):
        save(tmp_path, e, {n: (np.float32(e) * u, d) for n, (u, d) in factors(0).items()})
    found = weights({"lora": tmp_path})
    assert number(found, "update_cosine") == pytest.approx(1)
    assert number(found, "path_efficiency") == pytest.approx(1)


@pytest.mark.parametrize("gauge", [0.125, 8.0])
def test_moving_size_between_up_and_down_changes_nothing(tmp_path, gauge):
    for which, factor in (("plain", 1.0), ("moved", gauge)):
        save(
            tmp_path / which,
            1,
            {
                n: (u * np.float32(factor), d / np.float32(factor))
                for n, (u, d) in factors(0).items()
            },
        )
    plain, moved = (weights({"lora": tmp_path / w}) for w in ("plain", "moved"))
    for one, other in zip(plain.tables["modules"], moved.tables["modules"], strict=True):
        assert other["norm"] == pytest.approx(one["norm"])
        assert other["effective_rank"] == pytest.approx(one["effective_rank"])


def test_the_same_update_saved_twice_is_noticed_even_in_another_gauge(tmp_path):
    save(tmp_path, 1, factors(0))
    save(tmp_path, 2, factors(0))
    save(tmp_path, 3, {n: (u * 4, d / 4) for n, (u, d) in factors(0).items()})
    save(tmp_path, 4, factors(1))
    found = weights({"lora": tmp_path})
    assert [r["identical_to_previous"] for r in found.tables["epochs"]] == [
        False,
        True,
        True,
        False,
    ]
    assert number(found, "identical_files") == 2


def test_a_dead_module_is_counted_and_has_no_rank(tmp_path):
    modules = factors(0)
    modules[TEXT] = (np.zeros_like(modules[TEXT][0]), modules[TEXT][1])
    save(tmp_path, 1, modules)
    found = weights({"lora": tmp_path})
    assert number(found, "dead_modules") == 1
    row = next(r for r in found.tables["modules"] if r["module"] == TEXT)
    assert (row["dead"], row["norm"], row["effective_rank"]) == (True, 0, None)


def test_a_module_with_nan_is_counted_and_left_out(tmp_path):
    modules = factors(0)
    modules[UNET][0][3, 2] = np.nan
    save(tmp_path, 1, factors(0))
    save(tmp_path, 2, modules)
    found = weights({"lora": tmp_path})
    assert [r["nan_modules"] for r in found.tables["epochs"]] == [0, 1]
    rest = [m for name, m in full(factors(0)).items() if name != UNET]
    assert number(found, "norm") == pytest.approx(np.sqrt(sum((m**2).sum() for m in rest)))


def test_a_lora_of_nan_only_still_gets_an_answer(tmp_path):
    save(tmp_path, 1, {n: (u * np.nan, d) for n, (u, d) in factors(0).items()})
    found = weights({"lora": tmp_path})
    assert number(found, "nan_modules") == 3
    assert found.tables["epochs"][0]["norm"] is None


def test_numbers_that_half_precision_swallowed_are_counted(tmp_path):
    modules = factors(0)
    modules[UNET][0][:8] *= np.float32(1e-9)
    save(tmp_path, 1, modules, dtype="F16")
    found = weights({"lora": tmp_path})
    entries = sum(u.size + d.size for u, d in modules.values())
    assert number(found, "zero_share") == pytest.approx(32 / entries)
    assert found.tables["epochs"][0]["dtype"] == "F16"


@pytest.mark.parametrize(
    ("module", "block", "part"),
    [
        (UNET, "down 1", "key"),
        (CONV, "up 0", "convolution"),
        (TEXT, "text encoder", "query"),
        ("lora_te2_text_model_encoder_layers_3_mlp_fc1", "text encoder 2", "feed-forward"),
        ("lora_unet_mid_block_attentions_0_proj_in", "mid", "projection"),
    ],
)
def test_modules_are_sorted_by_stage_and_part(module, block, part):
    assert (block_of(module), part_of(module)) == (block, part)


def test_a_folder_without_checkpoints_is_refused(tmp_path):
    with pytest.raises(MissingInputError, match="no checkpoint"):
        weights({"lora": tmp_path})
