"""Every network type is read as one form: scale x left (x) (up @ down)."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lorascope.errors import BadInputError
from lorascope.io.lora_file import lora_from_tensors, read_lora, write_lora
from lorascope.metrics.lowrank import dense

KEY = "lora_unet_mid_block_attentions_0_proj_in"
OUT, IN = 6, 8


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


def read(path: Path, metadata: dict[str, str] | None = None, **parts: np.ndarray):
    tensors = {f"{KEY}.{name.replace('__', '.')}": values for name, values in parts.items()}
    save_file(
        {k: np.ascontiguousarray(v) for k, v in tensors.items()}, path / "a.safetensors", metadata
    )
    return read_lora(path / "a.safetensors")


def number(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def loha(rank: int, *, columns: int = IN) -> dict[str, np.ndarray]:
    return {
        f"hada_w{side}_{end}": draw(*shape, seed=side)
        for side in (1, 2)
        for end, shape in (("a", (OUT, rank)), ("b", (rank, columns)))
    }


@pytest.mark.parametrize(("rank", "low"), [(1, True), (2, False), (5, False)])
def test_loha_is_its_two_products_times_each_other(tmp_path, rank, low):
    parts = loha(rank)
    module = read(tmp_path, **parts, alpha=number(0.5)).modules[KEY]
    wanted = (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
    np.testing.assert_allclose(dense(module.factors()), wanted * 0.5 / rank, rtol=1e-5, atol=1e-6)
    assert (module.kind, module.dim, module.scale) == ("LoHa", rank, 0.5 / rank)
    assert (module.down is not None) == low
    assert module.size == (OUT, IN)


def test_loha_stays_low_rank_where_that_is_smaller(tmp_path):
    parts = {name: draw(100, 3, seed=int(name[6])) for name in ("hada_w1_a", "hada_w2_a")}
    parts |= {name: draw(3, 400, seed=int(name[6])) for name in ("hada_w1_b", "hada_w2_b")}
    module = read(tmp_path, **parts).modules[KEY]
    assert module.rank == 9
    wanted = (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
    np.testing.assert_allclose(dense(module.factors()), wanted, rtol=1e-4, atol=1e-4)


def test_tucker_cores_are_folded_into_down(tmp_path):
    up, core, down = draw(OUT, 2, 1, 1), draw(2, 2, 3, 3), draw(2, IN, 1, 1)
    module = read(
        tmp_path, lora_up__weight=up, lora_mid__weight=core, lora_down__weight=down
    ).modules[KEY]
    wanted = np.einsum("mnkl,om,ni->oikl", core, up[..., 0, 0], down[..., 0, 0])
    assert (module.kind, module.down.shape) == ("LoCon", (2, IN, 3, 3))
    np.testing.assert_allclose(
        dense(module.factors()), wanted.reshape(OUT, -1), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("first", "second", "scale"),
    [
        ({"lokr_w1": draw(2, 4)}, {"lokr_w2": draw(3, 2)}, 1.0),  # whatever alpha says
        ({"lokr_w1": draw(2, 4)}, {"lokr_w2_a": draw(3, 2), "lokr_w2_b": draw(2, 2)}, 3.0),
        ({"lokr_w1_a": draw(2, 3), "lokr_w1_b": draw(3, 4)}, {"lokr_w2": draw(3, 2)}, 2.0),
    ],
)
def test_lokr_keeps_its_left_factor_and_is_scaled_only_where_a_factor_is_a_product(
    tmp_path, first, second, scale
):
    module = read(tmp_path, **first, **second, alpha=number(6.0)).modules[KEY]
    left = first.get("lokr_w1")
    left = first["lokr_w1_a"] @ first["lokr_w1_b"] if left is None else left
    right = second.get("lokr_w2")
    right = second["lokr_w2_a"] @ second["lokr_w2_b"] if right is None else right
    np.testing.assert_allclose(
        dense(module.factors(), left=module.left),
        scale * np.kron(left, right),
        rtol=1e-5,
        atol=1e-5,
    )
    assert (module.kind, module.scale, module.size) == ("LoKr", scale, (OUT, IN))


def test_peft_scales_even_two_whole_factors(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"alpha": 6, "r": 4}))
    module = read(tmp_path, lokr_w1=draw(2, 4), lokr_w2=draw(3, 2)).modules[KEY]
    assert module.scale == 1.5


def test_full_differences_norms_and_biases_are_modules_of_their_own(tmp_path):
    lora = read(tmp_path, diff=draw(OUT, IN, 3, 3), diff_b=draw(OUT), alpha=number(9.0))
    assert list(lora.modules) == [KEY, f"{KEY}.bias"]
    module = lora.modules[KEY]
    assert (module.kind, module.down, module.scale) == ("full", None, 1.0)
    assert (module.size, module.rank) == ((OUT, IN * 9), OUT)
    norm = read(tmp_path, w_norm=draw(4), b_norm=draw(4))
    assert [m.up.shape for m in norm.modules.values()] == [(4,), (4,)]


@pytest.mark.parametrize(
    ("part", "stored", "kept"),
    [
        ("dora_scale", (OUT, 1), (OUT, 1)),
        ("dora_scale", (1, IN), (1, IN)),
        ("lora_magnitude_vector", (OUT,), (OUT,)),
        ("lora_magnitude_vector__weight", (1, OUT, 1, 1), (OUT,)),  # PEFT's, of a convolution
    ],
)
def test_doras_magnitudes_are_kept_as_stored_and_pefts_are_of_the_rows(
    tmp_path, part, stored, kept
):
    lora = read(
        tmp_path,
        lora_up__weight=draw(OUT, 2),
        lora_down__weight=draw(2, IN),
        **{part: draw(*stored)},
    )
    module = lora.modules[KEY]
    assert module.kind == "DoRA"
    assert module.magnitude.shape == kept


def test_a_scalar_that_was_kept_apart_is_multiplied_in(tmp_path):
    up, down = draw(OUT, 2), draw(2, IN)
    module = read(tmp_path, lora_up__weight=up, lora_down__weight=down, scalar=number(0.5)).modules[
        KEY
    ]
    np.testing.assert_allclose(dense(module.factors()), 0.5 * up @ down, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("IA3", {"weight": (IN,), "on_input": ()}),
        ("OFT", {"oft_blocks": (3, 2, 2), "alpha": ()}),
        ("BOFT", {"oft_blocks": (2, 3, 2, 2), "rescale": (OUT, 1)}),
        ("GLoRA", {f"{end}__weight": (2, 2) for end in ("a1", "a2", "b1", "b2")}),
    ],
)
def test_what_needs_the_base_models_weight_is_kept_in_parts(tmp_path, kind, parts):
    lora = read(tmp_path, **{part: draw(*shape) for part, shape in parts.items()})
    assert (lora.modules, lora.unsupported) == ({}, ())
    bound = lora.bound[KEY]
    assert bound.kind == kind
    assert set(bound.parts) == {p.removesuffix("__weight") for p in parts} - {"alpha"}


def test_peft_patterns_name_single_layers(tmp_path):
    tensors = {
        f"base_model.model.{layer}.lora_{side}.weight": draw(4, 4)
        for layer in ("a.to_q", "a.to_k", "b.to_k")
        for side in "AB"
    }
    settings = {"lora_alpha": 8, "r": 4, "alpha_pattern": {"a.to_k": 2, "^b\\\\.to_k$": 12}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings).replace("\\\\\\\\", "\\\\"))
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    lora = read_lora(tmp_path / "adapter_model.safetensors")
    assert {name: m.scale for name, m in lora.modules.items()} == {
        "lora_unet_a_to_q": 2.0,
        "lora_unet_a_to_k": 0.5,
        "lora_unet_b_to_k": 3.0,
    }


@pytest.mark.parametrize(
    "settings",
    [
        *("[]", "{", "3", '{"lora_alpha": "big", "r": []}'),
        '{"lora_alpha": NaN, "alpha_pattern": 3}',
        '{"lora_alpha": 1' + "0" * 400 + "}",
        "[" * 100_000,
    ],
)
def test_settings_that_make_no_sense_are_passed_over(tmp_path, settings):
    (tmp_path / "adapter_config.json").write_text(settings)
    metadata = {"lora_adapter_metadata": settings}
    lora = read(tmp_path, metadata, lora_A__weight=draw(2, 4), lora_B__weight=draw(4, 2))
    assert lora.modules[KEY].scale == 1.0


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        (
            "lora_unet.down_blocks.0.attentions.0.proj_in",
            "lora_unet_down_blocks_0_attentions_0_proj_in",
        ),
        (
            "lora_te1.text_model.encoder.layers.0.mlp.fc1",
            "lora_te1_text_model_encoder_layers_0_mlp_fc1",
        ),
        ("lycoris_mid_block_attentions_0_proj_in", KEY),
        (
            "base_model.model.text_model.encoder.layers.0.mlp.fc1",
            "lora_te_text_model_encoder_layers_0_mlp_fc1",
        ),
        (
            "text_encoder.base_model.model.text_model.encoder.layers.0.mlp.fc1",
            "lora_te_text_model_encoder_layers_0_mlp_fc1",
        ),
        ("lora_unet_input_blocks_1_0_in_layers_0", "lora_unet_down_blocks_0_resnets_0_norm1"),
    ],
)
def test_onetrainers_and_lycoris_own_spellings_become_ours(tmp_path, spelling, name):
    tensors = {f"{spelling}.lora_down.weight": draw(2, 4), f"{spelling}.lora_up.weight": draw(4, 2)}
    save_file(tensors, tmp_path / "a.safetensors")
    assert list(read_lora(tmp_path / "a.safetensors").modules) == [name]


def test_bundled_embeddings_are_found_by_their_trigger(tmp_path):
    lora = read(tmp_path, lora_up__weight=draw(OUT, 2), lora_down__weight=draw(2, IN))
    tensors = {
        f"{KEY}.lora_up.weight": draw(OUT, 2),
        f"{KEY}.lora_down.weight": draw(2, IN),
        "bundle_emb.fern.string_to_param.*": draw(2, 8),
        "bundle_emb.moss.clip_l": draw(2, 8),
        "<s1>": draw(8),
    }
    save_file(tensors, tmp_path / "b.safetensors", {"<s1>": "<embed>"})
    lora = read_lora(tmp_path / "b.safetensors")
    assert set(lora.embeddings) == {"fern", "moss.clip_l", "<s1>"}
    assert (lora.unsupported, list(lora.modules)) == ((), [KEY])


def test_numbered_modules_are_read_under_their_numbers(tmp_path):
    tensors = {"unet:0:up": draw(8, 4), "unet:0:down": draw(4, 8), "text_encoder:3:up": draw(8, 4)}
    tensors["text_encoder:3:down"] = draw(4, 8)
    save_file(tensors, tmp_path / "a.safetensors", {"unet:0:rank": "4"})
    lora = read_lora(tmp_path / "a.safetensors")
    assert list(lora.modules) == ["text_encoder:3", "unet:0"]
    assert lora.modules["unet:0"].scale == 1.0


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"hada_w1_a": draw(OUT, 2)}, "has no hada_w1_b weights"),
        ({**loha(2), "hada_w2_a": draw(OUT, 3)}, "four factors"),
        ({**loha(2), "hada_t1": draw(2, 2)}, "no Tucker core"),
        ({"lokr_w1": draw(2)}, "no matrix"),
        ({"lokr_w1": draw(2, 2)}, "has no lokr_w2_a weights"),
        ({"lokr_w1": draw(2, 2), "lokr_w2_a": draw(3, 2), "lokr_w2_b": draw(3, 2)}, "not fit"),
        ({"lokr_w1": draw(2, 2), "lokr_w2": draw(3)}, r"lokr_w2 of \(3,\)"),
        ({"on_input": number(1)}, "has no weight weights"),
        ({"oft_blocks": draw(3, 2)}, "oft_blocks of"),
        ({"a1__weight": draw(3, 2)}, "has no a2 weights"),
        (
            {"diff": draw(3, 2), "lora_up__weight": draw(3, 2), "lora_down__weight": draw(2, 2)},
            "full",
        ),
        ({"lora_up__weight": draw(3, 2), "lora_down__weight": draw(2, 0)}, "without entries"),
        ({"lora_up__weight": draw(3, 2, 2, 2), "lora_down__weight": draw(2, 4)}, "do not fit"),
    ],
)
def test_half_modules_of_every_type_are_refused_by_name(tmp_path, parts, why):
    with pytest.raises(BadInputError, match=rf"{KEY} .*{why}"):
        read(tmp_path, **parts)


def test_a_small_file_cannot_fill_the_memory(tmp_path):
    wide = {
        f"hada_w{side}_{end}": np.zeros(shape, np.float32)
        for side in (1, 2)
        for end, shape in (("a", (30_000, 300)), ("b", (300, 30_000)))
    }
    with pytest.raises(BadInputError, match="more than any layer"):
        lora_from_tensors(tmp_path, {f"{KEY}.{k}": v for k, v in wide.items()}, {})


def test_tensors_from_elsewhere_make_a_lora(tmp_path):
    tensors = {f"{KEY}.lora_up.weight": draw(3, 2), f"{KEY}.lora_down.weight": draw(2, 4)}
    lora = lora_from_tensors(tmp_path / "old.pt", tensors, {"ss_epoch": "1"})
    assert (list(lora.modules), lora.metadata, lora.dtype) == ([KEY], {"ss_epoch": "1"}, "F32")
    with pytest.raises(BadInputError, match="no LoRA"):
        lora_from_tensors(tmp_path / "old.pt", {"weight": draw(2)}, {})


def test_loha_is_written_as_the_lora_that_it_equals(tmp_path):
    module = read(tmp_path, **loha(1), alpha=number(0.5)).modules[KEY]
    write_lora(tmp_path / "b.safetensors", [module], {}, dtype="F32")
    again = read_lora(tmp_path / "b.safetensors").modules[KEY]
    assert again.kind == "LoRA"
    np.testing.assert_allclose(dense(again.factors()), dense(module.factors()), rtol=1e-6)
