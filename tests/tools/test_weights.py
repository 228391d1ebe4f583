"""The weights tool: planted sizes, planted faults."""

from pathlib import Path

import numpy as np
import pytest

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.lora_file import LoraModule, write_lora
from lorascope.tools.files.against_base import intruders
from lorascope.tools.weights import block_of, look_at_files, part_of, weights

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


def hidden(rows, *names):
    """Rows without the columns that speak of how the numbers are stored."""
    return [{k: v for k, v in row.items() if k not in names} for row in rows]


def assert_same_tables(one, other, *but):
    for table in ("epochs", "modules", "blocks", "encoders", "growth", "module_epochs"):
        rows, others = (hidden(m.tables[table], *but) for m in (one, other))
        assert len(rows) == len(others)
        for left, right in zip(rows, others, strict=True):
            assert left.keys() == right.keys()
            for key, value in left.items():
                if isinstance(value, float):
                    assert right[key] == pytest.approx(value, rel=1e-6, abs=1e-9), (table, key)
                else:
                    assert right[key] == value, (table, key)


STORED = ("zero_share", "subnormal_share", "underflow_share", "scale")


def rewritten(how, rng):
    """Give a function that writes the same update in another way: (up, down, alpha)."""

    def rescaled(up, down, alpha):
        factor = np.float32(2.0 ** rng.integers(-6, 6))
        return up * factor, down / factor, alpha

    def permuted(up, down, alpha):
        order = rng.permutation(down.shape[0])
        return up[:, order], down[order], alpha

    def folded(up, down, alpha):
        return up * np.float32(alpha / down.shape[0]), down, float(down.shape[0])

    def turned(up, down, alpha):
        turn = np.linalg.qr(rng.normal(size=(down.shape[0],) * 2))[0]
        flat, rest = up.reshape(len(up), -1), down.reshape(len(down), -1)
        return (
            (flat @ turn).astype(np.float32).reshape(up.shape),
            (turn.T @ rest).astype(np.float32).reshape(down.shape),
            alpha,
        )

    return {"rescaled": rescaled, "permuted": permuted, "folded": folded, "turned": turned}[how]


@pytest.mark.parametrize("how", ["rescaled", "permuted", "folded"])
@pytest.mark.parametrize("seed", range(3))
def test_another_way_to_write_the_same_updates_gives_the_same_tables(tmp_path, how, seed):
    rng = np.random.default_rng(seed)
    change = rewritten(how, rng)
    for epoch in (1, 2, 3):
        modules = factors(10 * seed + epoch)
        save(tmp_path / "one", epoch, modules)
        other = [
            LoraModule(name, *(lambda u, d, a: (d, u, a))(*change(up, down, 2.0)))
            for name, (up, down) in modules.items()
        ]
        about = {"ss_epoch": str(epoch), "ss_steps": str(epoch * 10), "ss_output_name": "fern"}
        write_lora(tmp_path / "other" / f"fern-{epoch:06d}.safetensors", other, about, dtype="F32")
    one, other = (weights({"lora": tmp_path / which}) for which in ("one", "other"))
    assert_same_tables(one, other, *STORED)


def test_turned_directions_change_sizes_by_rounding_only(tmp_path):
    change = rewritten("turned", np.random.default_rng(0))
    modules = factors(3)
    save(tmp_path / "one", 1, modules)
    save(tmp_path / "other", 1, {n: change(u, d, 2.0)[:2] for n, (u, d) in modules.items()})
    one, other = (weights({"lora": tmp_path / which}) for which in ("one", "other"))
    for row, same in zip(one.tables["modules"], other.tables["modules"], strict=True):
        for key in ("norm", "spectral_norm", "effective_rank", "stable_rank", "top_share"):
            assert same[key] == pytest.approx(row[key], rel=1e-5)


def test_spectra_are_those_of_the_full_matrices(tmp_path):
    save(tmp_path, 1, factors(0))
    matrices = full(factors(0))
    for row in weights({"lora": tmp_path}).tables["modules"]:
        sigma = np.linalg.svd(matrices[row["module"]], compute_uv=False)
        energy = sigma**2 / (sigma**2).sum()
        energy = energy[energy > 1e-12]
        assert row["spectral_norm"] == pytest.approx(sigma[0])
        assert row["stable_rank"] == pytest.approx((sigma**2).sum() / sigma[0] ** 2)
        assert row["top_share"] == pytest.approx(energy[0])
        assert row["energy_rank"] == pytest.approx(np.exp(-(energy * np.log(energy)).sum()))


def test_growth_by_block_adds_up_to_the_whole(tmp_path):
    for e in (1, 2):
        save(tmp_path, e, factors(e))
    found = weights({"lora": tmp_path})
    for row in found.tables["epochs"]:
        parts = [r for r in found.tables["growth"] if r["epoch"] == row["epoch"]]
        assert {r["block"] for r in parts} == {"down 1", "up 0", "text encoder"}
        assert sum(r["norm"] ** 2 for r in parts) == pytest.approx(row["norm"] ** 2)
        assert sum(r["share"] for r in parts) == pytest.approx(1)
    assert {r["encoder"] for r in found.tables["encoders"]} == {"U-Net", "text encoder"}


@pytest.mark.parametrize(("alpha", "share"), [(4.0, 0.0), (1e-6, 1.0)])
def test_what_folding_alpha_would_lose_is_counted(tmp_path, alpha, share):
    small = {name: (up * np.float32(0.01), down) for name, (up, down) in factors(0).items()}
    save(tmp_path, 1, small, alpha=alpha, dtype="F16")
    found = weights({"lora": tmp_path})
    assert number(found, "underflow_share") == pytest.approx(share)
    assert number(found, "zero_share") == 0.0


def test_numbers_below_half_precisions_full_one_are_counted_apart_from_zeros(tmp_path):
    modules = factors(0)
    modules[UNET][0][:] = np.float32(1e-6)
    modules[TEXT][0][0] = 0.0
    save(tmp_path, 1, modules)
    entries = sum(u.size + d.size for u, d in modules.values())
    found = weights({"lora": tmp_path})
    assert number(found, "subnormal_share") == pytest.approx(modules[UNET][0].size / entries)
    assert number(found, "zero_share") == pytest.approx(4 / entries)


def many(count, size_of, *, seed=0):
    rng = np.random.default_rng(seed)
    modules = {}
    for place in range(count):
        up, down = rng.normal(size=(12, 4)), rng.normal(size=(4, 12))
        up *= size_of(place) / np.linalg.norm(0.5 * up @ down)
        name = f"lora_unet_down_blocks_{place % 3}_attentions_0_transformer_blocks_{place}_to_q"
        modules[name] = (up.astype(np.float32), down.astype(np.float32))
    return modules


def test_a_cap_on_the_norms_is_found_where_nobody_wrote_it_down(tmp_path):
    save(tmp_path, 1, many(20, lambda i: min(1.0, 0.5 + i / 20)))
    found = weights({"lora": tmp_path})
    assert number(found, "max_norm") == pytest.approx(1.0, rel=1e-4)
    assert number(found, "at_cap_share") == pytest.approx(0.5)
    assert any("not written down" in doubt for doubt in found.caveats)


def test_norms_that_merely_lie_near_each_other_are_no_cap(tmp_path):
    save(tmp_path, 1, many(40, lambda i: 1.0 + 0.02 * np.sin(7 * i)))
    assert "max_norm" not in {m.name for m in weights({"lora": tmp_path}).numbers}


def test_one_module_far_from_the_others_is_an_outlier(tmp_path):
    save(tmp_path, 1, many(20, lambda i: 60.0 if i == 7 else 1.0 + i / 20))
    found = weights({"lora": tmp_path})
    assert number(found, "outlier_modules") == 1
    far = max(found.tables["modules"], key=lambda r: r["outlier"])
    assert "_7_" in far["module"]


def test_a_torn_file_is_listed_and_does_not_hide_the_others(tmp_path):
    for e in (1, 2, 3):
        save(tmp_path, e, factors(e))
    half = tmp_path / "fern-000002.safetensors"
    half.write_bytes(half.read_bytes()[:-50])
    found = weights({"lora": tmp_path})
    assert [r["epoch"] for r in found.tables["epochs"]] == [1, 3]
    assert [(r["epoch"], r["file"]) for r in found.tables["broken"]] == [(2, half.name)]


def test_network_types_that_are_no_plain_lora_are_measured_and_named(tmp_path):
    from lorascope.io import safetensors_file

    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(3, 3)), rng.normal(size=(4, 5))
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    tensors = {f"{name}.lokr_w1": left, f"{name}.lokr_w2": right, f"{name}.alpha": np.array(1.0)}
    tensors = {key: value.astype(np.float32) for key, value in tensors.items()}
    safetensors_file.write(tmp_path / "a.safetensors", tensors, {}, dtype="F32")
    found = weights({"lora": tmp_path})
    (row,) = found.tables["modules"]
    assert row["kind"] == "LoKr"
    assert row["norm"] == pytest.approx(np.linalg.norm(np.kron(left, right)), rel=1e-5)
    assert "zero_share" not in {m.name for m in found.numbers}
    assert any("LoKr" in doubt for doubt in found.caveats)


def test_a_module_bound_to_the_base_model_is_listed_without_a_size(tmp_path):
    from lorascope.io import safetensors_file

    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    ia3 = {f"{name}.weight": np.ones((8, 1), np.float32), f"{name}.on_input": np.zeros(1)}
    tensors = {key: value.astype(np.float32) for key, value in ia3.items()}
    safetensors_file.write(tmp_path / "a.safetensors", tensors, {}, dtype="F32")
    found = weights({"lora": tmp_path})
    (row,) = found.tables["modules"]
    assert (row["kind"], row["norm"], row["nan"]) == ("IA3", None, False)
    assert any("listed without a size" in doubt for doubt in found.caveats)


def test_bare_files_get_the_same_tables_and_what_they_say_of_themselves(tmp_path):
    save(tmp_path, 1, factors(1))
    save(tmp_path, 2, factors(2), alpha=3.0)
    paths = sorted(tmp_path.glob("*.safetensors"))
    run, bare = weights({"lora": tmp_path}), look_at_files(paths)
    assert_same_tables(run, bare)
    assert {r["file"] for r in bare.tables["hashes"]} == {p.name for p in paths}
    assert {r["key"] for r in bare.tables["metadata"]} == {"name", "epoch", "step"}
    differ = [(r["key"], r["file"][-13:-12], r["value"]) for r in bare.tables["differences"]]
    assert differ == [
        ("step", "1", "10"),
        ("step", "2", "20"),
        ("epoch", "1", "1"),
        ("epoch", "2", "2"),
    ]
    assert_same_tables(run, look_at_files([tmp_path]))


def test_a_single_bare_file_has_no_differences(tmp_path):
    save(tmp_path, 1, factors(1))
    found = look_at_files([tmp_path / "fern-000001.safetensors"])
    assert "differences" not in found.tables
    assert len(found.tables["epochs"]) == 1


def test_files_of_different_layers_are_not_compared_with_each_other(tmp_path):
    save(tmp_path, 1, factors(1))
    modules = factors(2)
    del modules[TEXT]
    save(tmp_path, 2, modules)
    rows = look_at_files(sorted(tmp_path.glob("*.safetensors"))).tables["epochs"]
    assert rows[1]["update_norm"] is None
    assert rows[1]["identical_to_previous"] is False


def test_files_are_followed_in_the_order_given(tmp_path):
    for e in (1, 2):
        save(tmp_path, e, factors(e))
    paths = sorted(tmp_path.glob("*.safetensors"), reverse=True)
    rows = look_at_files(paths).tables["epochs"]
    assert [r["file"] for r in rows] == [p.name for p in paths]
    assert [(r["epoch"], r["step"]) for r in rows] == [(1, 0), (2, 0)]


def test_bare_files_that_cannot_be_opened_are_refused_with_the_reason(tmp_path):
    with pytest.raises(MissingInputError, match="does not exist"):
        look_at_files([tmp_path / "none.safetensors"])
    with pytest.raises(MissingInputError, match="no LoRA"):
        look_at_files([tmp_path])
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"\x00" * 100)
    with pytest.raises(BadInputError, match="Fix:"):
        look_at_files([bad])


def test_intruders_are_the_new_directions_of_the_full_decomposition():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(40, 60))
    assert intruders(weight, np.zeros_like(weight)) == {"0.3": 0, "0.5": 0, "0.7": 0}
    left, right = rng.normal(size=(40, 2)), rng.normal(size=(2, 60))
    update = left @ right
    own = np.linalg.svd(weight)[0]
    changed = np.linalg.svd(weight + update)[0][:, :10]
    nearest = np.abs(own.T @ changed).max(axis=0)
    expected = {str(e): int((nearest < e).sum()) for e in (0.3, 0.5, 0.7)}
    assert intruders(weight, update) == expected
    assert expected["0.7"] > 0


@pytest.mark.parametrize("shape", [(60, 40), (12, 9), (40, 40)])
def test_intruders_are_counted_in_matrices_of_any_shape(shape):
    rng = np.random.default_rng(1)
    weight = rng.normal(size=shape)
    big = 50 * np.outer(rng.normal(size=shape[0]), rng.normal(size=shape[1]))
    own = np.linalg.svd(weight, full_matrices=False)[0]
    changed = np.linalg.svd(weight + big)[0][:, : min(10, *shape)]
    nearest = np.abs(own.T @ changed).max(axis=0)
    expected = {str(e): int((nearest < e).sum()) for e in (0.3, 0.5, 0.7)}
    assert intruders(weight, big) == expected


def test_relative_sizes_without_a_base_model_are_refused(tmp_path):
    save(tmp_path, 1, factors(0))
    with pytest.raises(MissingInputError, match="lorascope add base"):
        weights({"lora": tmp_path}, relative=True)


@pytest.mark.slow
def test_relative_sizes_are_those_of_update_and_weight(tmp_path):
    from lorascope.models.base import load_base
    from lorascope.models.lora import module_names

    base = load_base("miniature", device="cpu")
    layers = module_names(base)
    names = [name for name in layers if "attn1_to_q" in name][:4]
    rng = np.random.default_rng(0)
    planted = {}
    for name in names:
        out, inner = layers[name].weight.shape[:2]
        up, down = (rng.normal(size=s).astype(np.float32) for s in ((out, 4), (4, inner)))
        planted[name] = (up, down)
    save(tmp_path, 1, planted)
    found = weights({"lora": tmp_path, "base": Path("miniature")}, relative=True)
    for row in found.tables["relative"]:
        weight = layers[row["module"]].weight.detach().float().numpy()
        update = full(planted)[row["module"]]
        ratio = np.linalg.norm(update) / np.linalg.norm(weight)
        assert row["relative_norm"] == pytest.approx(ratio, rel=1e-5)
        cosine = (update * weight).sum() / np.linalg.norm(update) / np.linalg.norm(weight)
        assert row["base_cosine"] == pytest.approx(cosine, abs=1e-6)
        assert row["intruders_7"] > 0
    stranger = {"lora_unet_down_blocks_9_to_q": planted[names[0]]}
    save(tmp_path / "other", 1, stranger)
    with pytest.raises(BadInputError, match="does not fit"):
        weights({"lora": tmp_path / "other", "base": Path("miniature")}, relative=True)


def test_files_of_several_trainings_are_not_compared_with_each_other(tmp_path):
    rng = np.random.default_rng(3)
    for name in ("fern", "moss"):
        modules = [
            LoraModule(
                "lora_unet_mid_block_0_to_q",
                rng.normal(size=(4, 12)).astype(np.float32),
                rng.normal(size=(16, 4)).astype(np.float32),
                4.0,
            )
        ]
        write_lora(tmp_path / f"{name}.safetensors", modules, {"ss_output_name": name})
    found = look_at_files(sorted(tmp_path.iterdir()))
    assert [row["update_norm"] for row in found.tables["epochs"]] == [None, None]
    assert any("not of one training" in caveat for caveat in found.caveats)
    assert not {"path_efficiency", "late_slope"} & {m.name for m in found.numbers}
