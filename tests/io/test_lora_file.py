import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.lora_file import LoraModule, read_lora, read_metadata, write_lora

KEY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def module(name: str = KEY, *, rank: int = 4, alpha: float = 2.0, seed: int = 0) -> LoraModule:
    return LoraModule(name, draw(rank, 6, seed=seed), draw(8, rank, seed=seed + 1), alpha)


def save(path: Path, tensors: dict[str, np.ndarray], **metadata: str) -> Path:
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path, metadata or None)
    return path


@pytest.mark.parametrize(("dtype", "close"), [("F32", 0.0), ("F16", 1e-3), ("BF16", 8e-3)])
def test_what_is_written_is_read_again(tmp_path, dtype, close):
    written = [module(), module(TEXT, rank=2, alpha=1.0, seed=5)]
    write_lora(tmp_path / "a.safetensors", written, {"ss_epoch": "3", "a": "ü"}, dtype=dtype)
    lora = read_lora(tmp_path / "a.safetensors")
    assert lora.dtype == dtype
    assert lora.metadata == {"ss_epoch": "3", "a": "ü"}
    assert list(lora.modules) == sorted([KEY, TEXT])
    assert lora.unsupported == ()
    for one in written:
        again = lora.modules[one.name]
        assert again.down.dtype == again.up.dtype == np.float32
        np.testing.assert_allclose(again.down, one.down, rtol=close, atol=close / 10)
        np.testing.assert_allclose(again.up, one.up, rtol=close, atol=close / 10)
        assert (again.rank, again.scale) == (one.rank, 0.5)
    assert read_metadata(tmp_path / "a.safetensors") == lora.metadata


def test_the_reference_library_reads_the_same_numbers(tmp_path):
    write_lora(tmp_path / "a.safetensors", [module()], {}, dtype="F16")
    theirs = load_file(tmp_path / "a.safetensors")
    assert set(theirs) == {f"{KEY}.{e}" for e in ("lora_down.weight", "lora_up.weight", "alpha")}
    np.testing.assert_array_equal(
        theirs[f"{KEY}.lora_down.weight"].astype(np.float32),
        read_lora(tmp_path / "a.safetensors").modules[KEY].down,
    )
    assert theirs[f"{KEY}.alpha"].shape == ()


def test_bfloat16_is_rounded_to_the_nearest_like_torch_does(tmp_path):
    torch = pytest.importorskip("torch")
    values = np.array(
        [[1.00390625, 1.01171875, 3e38, -3.4e38, np.inf, -np.inf, np.nan, 1e-40]], np.float32
    )
    wide = LoraModule(KEY, np.vstack([values, draw(1, 8)]), draw(3, 2), 1.0)
    write_lora(tmp_path / "a.safetensors", [wide], {}, dtype="BF16")
    wanted = torch.from_numpy(wide.down).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(read_lora(tmp_path / "a.safetensors").modules[KEY].down, wanted)


def test_the_same_content_gives_the_same_bytes(tmp_path):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    modules = [module(), module(TEXT)]
    write_lora(one, modules, {"a": "1", "b": "2"})
    write_lora(two, modules[::-1], {"b": "2", "a": "1"})
    assert one.read_bytes() == two.read_bytes()
    write_lora(two, [module(seed=9), module(TEXT)], {"b": "2", "a": "1"})
    assert one.read_bytes() != two.read_bytes()


@pytest.mark.parametrize("stored", [None, 0.0])
def test_absent_or_zero_alpha_means_alpha_is_the_rank(tmp_path, stored):
    tensors = {f"{KEY}.lora_down.weight": draw(4, 6), f"{KEY}.lora_up.weight": draw(8, 4)}
    if stored is not None:
        tensors[f"{KEY}.alpha"] = np.array(stored, np.float32)
    lora = read_lora(save(tmp_path / "a.safetensors", tensors))
    assert (lora.modules[KEY].alpha, lora.modules[KEY].scale) == (4.0, 1.0)


def test_nan_is_read_as_it_is(tmp_path):
    broken = module()
    broken.up[0, 0] = np.nan
    write_lora(tmp_path / "a.safetensors", [broken], {})
    assert np.isnan(read_lora(tmp_path / "a.safetensors").modules[KEY].up[0, 0])


def test_convolutions_keep_their_kernel(tmp_path):
    conv = LoraModule("lora_unet_conv_in", draw(2, 4, 3, 3), draw(8, 2, 1, 1), 2.0)
    write_lora(tmp_path / "a.safetensors", [conv], {})
    again = read_lora(tmp_path / "a.safetensors").modules["lora_unet_conv_in"]
    assert (again.down.shape, again.up.shape) == ((2, 4, 3, 3), (8, 2, 1, 1))


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("lora_te_encoder_layers_0_self_attn_q_proj.lora_{}.weight", TEXT),
        ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_{}.weight", KEY),
        ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora.{}.weight", KEY),
        (
            "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor."
            "to_k_lora.{}.weight",
            KEY,
        ),
        (
            "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k."
            "lora_{}.weight",
            KEY,
        ),
        ("text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_{}.weight", TEXT),
        (
            "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_{}.weight",
            "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k",
        ),
        (
            "lora_unet_middle_block_1_transformer_blocks_9_ff_net_2.lora_{}.weight",
            "lora_unet_mid_block_attentions_0_transformer_blocks_9_ff_net_2",
        ),
        (
            "lora_unet_output_blocks_5_1_proj_out.lora_{}.weight",
            "lora_unet_up_blocks_1_attentions_2_proj_out",
        ),
        (
            "lora_unet_output_blocks_6_0_skip_connection.lora_{}.weight",
            "lora_unet_up_blocks_2_resnets_0_conv_shortcut",
        ),
        (
            "lora_unet_output_blocks_2_2_conv.lora_{}.weight",
            "lora_unet_up_blocks_0_upsamplers_0_conv",
        ),
        (
            "lora_unet_input_blocks_3_0_op.lora_{}.weight",
            "lora_unet_down_blocks_0_downsamplers_0_conv",
        ),
        (
            "lora_unet_middle_block_2_out_layers_3.lora_{}.weight",
            "lora_unet_mid_block_resnets_1_conv2",
        ),
        ("lora_unet_input_blocks_0_0.lora_{}.weight", "lora_unet_conv_in"),
    ],
)
def test_every_trainers_spelling_becomes_ours(tmp_path, spelling, name):
    peft = ".lora_{}" in spelling and not spelling.startswith("lora_")
    down, up = ("A", "B") if peft else ("down", "up")
    tensors = {spelling.format(down): draw(2, 6), spelling.format(up): draw(8, 2)}
    lora = read_lora(save(tmp_path / "a.safetensors", tensors))
    assert list(lora.modules) == [name]
    assert lora.modules[name].down.shape == (2, 6)


def test_two_text_encoders_in_diffusers_spelling_are_numbered(tmp_path):
    place = "text_model.encoder.layers.0.mlp.fc1"
    tensors = {
        f"{root}.{place}.lora_{side}.weight": draw(2, 2)
        for root in ("text_encoder", "text_encoder_2")
        for side in "AB"
    }
    lora = read_lora(save(tmp_path / "a.safetensors", tensors))
    tail = "text_model_encoder_layers_0_mlp_fc1"
    assert list(lora.modules) == [f"lora_te1_{tail}", f"lora_te2_{tail}"]


def test_alpha_comes_from_the_settings_that_diffusers_and_peft_keep_apart(tmp_path):
    tensors = {f"unet.mid_block.attn.to_k.lora_{side}.weight": draw(4, 4) for side in "AB"}
    settings = json.dumps({"unet.lora_alpha": 2, "unet.r": 4})
    lora = read_lora(save(tmp_path / "a.safetensors", tensors, lora_adapter_metadata=settings))
    assert lora.modules["lora_unet_mid_block_attn_to_k"].scale == 0.5
    (tmp_path / "peft").mkdir()
    beside = {"lora_alpha": 8, "r": 4, "use_rslora": True}
    (tmp_path / "peft" / "adapter_config.json").write_text(json.dumps(beside))
    lora = read_lora(save(tmp_path / "peft" / "adapter_model.safetensors", tensors))
    assert lora.modules["lora_unet_mid_block_attn_to_k"].scale == 4.0  # 8 / sqrt(4)


@pytest.mark.parametrize(
    ("ending", "kind"),
    [("lambda_layer", "T-LoRA"), ("oft_R.weight", "OFT of PEFT or OneTrainer"), ("odd", "unknown")],
)
def test_what_nobody_knows_is_listed_and_the_rest_is_read(tmp_path, ending, kind):
    tensors = {
        f"{TEXT}.lora_down.weight": draw(2, 6),
        f"{TEXT}.lora_up.weight": draw(8, 2),
        f"{KEY}.{ending}": draw(2, 2),
    }
    if kind == "T-LoRA":
        tensors[f"{KEY}.alpha"] = np.array(1.0, np.float32)
    lora = read_lora(save(tmp_path / "a.safetensors", tensors))
    assert list(lora.modules) == [TEXT]
    assert len(lora.unsupported) == 1
    assert lora.unsupported[0].startswith(KEY)
    assert lora.unsupported[0].endswith(f"({kind})")


def test_half_a_module_is_refused(tmp_path):
    tensors = {f"{KEY}.lora_down.weight": draw(2, 6)}
    with pytest.raises(BadInputError, match=f"{KEY} has no up weights"):
        read_lora(save(tmp_path / "a.safetensors", tensors))
    tensors[f"{KEY}.lora_up.weight"] = draw(8, 3)
    with pytest.raises(BadInputError, match="do not fit together"):
        read_lora(save(tmp_path / "a.safetensors", tensors))


@pytest.mark.parametrize("kept", [0.0, 0.02, 0.3, 0.999])
def test_a_truncated_file_is_refused_with_one_message(tmp_path, kept):
    path = tmp_path / "a.safetensors"
    write_lora(path, [module(), module(TEXT)], {"ss_epoch": "1"})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(BadInputError, match=r"a\.safetensors .*(cut short|empty|no safetensors)"):
        read_lora(path)


@pytest.mark.parametrize(
    "content",
    [b"hello, world: this is text", b"\xff" * 64, (64).to_bytes(8, "little") + b"{]" * 32],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(BadInputError, match="no safetensors file"):
        read_lora(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["a.pt", "a.ckpt", "a.bin", "renamed.safetensors"])
def test_pickles_are_never_opened(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(BadInputError, match="pickle"):
        read_lora(tmp_path / name)


def test_a_base_model_and_a_missing_file_are_told_apart(tmp_path):
    save(tmp_path / "model.safetensors", {"model.diffusion_model.out.2.weight": draw(2, 2)})
    with pytest.raises(BadInputError, match="whole Stable Diffusion model"):
        read_lora(tmp_path / "model.safetensors")
    with pytest.raises(MissingInputError, match="does not exist"):
        read_lora(tmp_path / "none.safetensors")
    with pytest.raises(MissingInputError, match="is a folder"):
        read_lora(tmp_path)


def test_numbers_that_numpy_cannot_hold_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    write_lora(path, [module()], {}, dtype="F32")
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"F8X"'))
    with pytest.raises(BadInputError, match="F8X"):
        read_lora(path)


def test_writing_refuses_what_would_be_lost(tmp_path):
    with pytest.raises(BadInputError, match="Two modules"):
        write_lora(tmp_path / "a.safetensors", [module(), module()], {})
    with pytest.raises(BadInputError, match="F64"):
        write_lora(tmp_path / "a.safetensors", [module()], {}, dtype="F64")
    assert list(tmp_path.iterdir()) == []


def test_a_header_whose_length_looks_like_a_pickle_is_still_read(tmp_path):
    import json

    from lorascope.io.safetensors_file import read_header

    header = b"{}".ljust(0x0280)  # its length begins with a pickle's first two bytes
    path = tmp_path / "lora.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert json.loads(header) == {}
    assert read_header(path).entries == {}
