import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from lorascope.errors import BadInputError
from lorascope.io.lora_file import BaseBoundModule, LoraFile, LoraModule, read_lora, write_lora
from lorascope.models.lora import (
    LoraMismatchError,
    Merger,
    architecture,
    delta,
    merged,
    merged_all,
    module_names,
    touches_text,
)
from lorascope.models.texts import texts_for
from tests import pipelines

DOWN = "lora_unet_down_blocks_0_"
ATTENTION = f"{DOWN}attentions_0_transformer_blocks_0_attn2_to_k"
TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
SIDES = ("q", "k", "v", "out")
LAYERS = {  # one of every shape that a LoRA can have
    "sd1": [
        ATTENTION,
        f"{DOWN}attentions_0_transformer_blocks_0_attn1_to_out_0",
        f"{DOWN}attentions_0_transformer_blocks_0_ff_net_0_proj",
        f"{DOWN}attentions_0_proj_in",  # convolution 1 x 1
        f"{DOWN}resnets_0_conv1",  # convolution 3 x 3
        f"{DOWN}downsamplers_0_conv",
        "lora_unet_mid_block_resnets_1_time_emb_proj",
        # all four of a layer: of a file with fewer, diffusers 0.42 drops the rest without an error
        *(f"lora_te_text_model_encoder_layers_0_self_attn_{x}_proj" for x in SIDES),
        "lora_te_text_model_encoder_layers_1_mlp_fc2",
    ],
    "sdxl": [
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k",
        "lora_unet_up_blocks_0_attentions_1_transformer_blocks_1_attn1_to_out_0",
        "lora_unet_mid_block_attentions_0_proj_in",
        "lora_unet_up_blocks_0_resnets_0_conv_shortcut",
        *(f"lora_te1_text_model_encoder_layers_1_self_attn_{x}_proj" for x in SIDES),
        "lora_te1_text_model_encoder_layers_1_mlp_fc1",
        *(f"lora_te2_text_model_encoder_layers_0_self_attn_{x}_proj" for x in SIDES),
    ],
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return pipelines.base_of(pipelines.sd1(tmp_path_factory.mktemp("sd1")))


@pytest.fixture
def base(shared):
    yield shared
    Merger(shared).restore()


def lora_of(modules, path="some.safetensors", *, unsupported=(), metadata=None) -> LoraFile:
    return LoraFile(Path(path), metadata or {}, {m.name: m for m in modules}, "F32", unsupported)


@torch.no_grad()
def forward(base) -> torch.Tensor:
    """Text encoders and UNet, once."""
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return base.predict(latents, torch.tensor([500]), base.encode_prompts(["a red hat"]))


def weights(base) -> dict[str, torch.Tensor]:
    return {name: layer.weight.detach().clone() for name, layer in module_names(base).items()}


@pytest.mark.parametrize("kind", sorted(LAYERS))
def test_a_merge_is_what_diffusers_makes_of_the_same_file(tmp_path, kind):
    make = getattr(pipelines, kind)
    base, pipeline = pipelines.base_of(make(tmp_path / "ours")), make(tmp_path / "theirs")
    write_lora(
        tmp_path / "lora.safetensors",
        pipelines.random_modules(base, LAYERS[kind], rank=2, alpha=1.5),
        {},
        dtype="F32",
    )
    pipeline.load_lora_weights(str(tmp_path), weight_name="lora.safetensors")
    plain = forward(base)
    wanted = forward(pipelines.base_of(pipeline))
    with merged(base, read_lora(tmp_path / "lora.safetensors")):
        torch.testing.assert_close(forward(base), wanted, atol=1e-5, rtol=0)
    assert (wanted - plain).abs().max() > 0.05


@pytest.mark.parametrize("kind", sorted(LAYERS))
def test_diffusers_sees_every_module_of_a_written_file(tmp_path, kind):
    pipeline = getattr(pipelines, kind)(tmp_path / "base")
    base = pipelines.base_of(pipeline)
    modules = pipelines.random_modules(base, LAYERS[kind], rank=2, alpha=1.5)
    targets = weights(base)
    write_lora(tmp_path / "lora.safetensors", modules, {}, dtype="F32")
    pipeline.load_lora_weights(str(tmp_path), weight_name="lora.safetensors")
    pipeline.fuse_lora()
    fused = {
        name.removesuffix("_base_layer"): layer.weight
        for name, layer in module_names(base).items()
        if "_lora_A_" not in name and "_lora_B_" not in name
    }
    for module in modules:
        delta = module.scale * module.up.reshape(len(module.up), -1) @ module.down.reshape(2, -1)
        wanted = targets[module.name] + torch.from_numpy(delta).reshape(targets[module.name].shape)
        torch.testing.assert_close(fused[module.name], wanted, atol=1e-6, rtol=1e-5)


def test_a_merge_adds_strength_times_scale_times_up_at_down(base):
    before = weights(base)
    module = LoraModule(
        ATTENTION,
        np.eye(2, 16, dtype=np.float32),
        np.arange(16, dtype=np.float32).reshape(8, 2),
        alpha=4.0,
    )
    Merger(base).apply(lora_of([module]), strength=0.5)
    wanted = torch.zeros(8, 16)
    wanted[:, :2] = torch.arange(16.0).reshape(8, 2)
    torch.testing.assert_close(weights(base)[ATTENTION], before[ATTENTION] + wanted)


def test_restoring_gives_back_every_bit_after_many_swaps(base):
    before = weights(base)
    merger = Merger(base)
    loras = [lora_of(pipelines.random_modules(base, LAYERS["sd1"], seed=s)) for s in range(3)]
    for turn in range(6):
        merger.apply(loras[turn % 3], strength=0.3 + turn)
    changed = [n for n, w in weights(base).items() if not torch.equal(w, before[n])]
    assert sorted(changed) == sorted(LAYERS["sd1"])
    merger.restore()
    after = weights(base)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_swap_leaves_no_trace_of_the_lora_before(base):
    one, two = (
        lora_of(pipelines.random_modules(base, names, seed=seed))
        for seed, names in enumerate([LAYERS["sd1"][:4], LAYERS["sd1"][3:]])
    )
    Merger(base).apply(two)
    direct = weights(base)
    Merger(base).apply(one, strength=7.0)
    Merger(base).apply(two)
    swapped = weights(base)
    assert all(torch.equal(direct[name], swapped[name]) for name in direct)


def test_strength_zero_is_the_base_model_and_text_has_a_strength_of_its_own(base):
    before = weights(base)
    lora = lora_of(pipelines.random_modules(base, [ATTENTION, TEXT]))
    merger = Merger(base)
    merger.apply(lora, strength=0.0)
    assert torch.equal(weights(base)[ATTENTION], before[ATTENTION])
    merger.apply(lora, strength=1.0, text_strength=0.0)
    now = weights(base)
    assert torch.equal(now[TEXT], before[TEXT])
    assert not torch.equal(now[ATTENTION], before[ATTENTION])
    merger.apply(lora, strength=1.0)
    assert not torch.equal(weights(base)[TEXT], before[TEXT])


def test_the_base_model_comes_back_after_an_error_inside(base):
    before = weights(base)[ATTENTION]
    lora = lora_of(pipelines.random_modules(base, [ATTENTION]))
    with pytest.raises(ZeroDivisionError), merged(base, lora):
        assert not torch.equal(weights(base)[ATTENTION], before)
        raise ZeroDivisionError
    assert torch.equal(weights(base)[ATTENTION], before)


def test_names_spell_text_model_out_in_either_layout(tmp_path, base):
    assert TEXT in module_names(base)
    wide = pipelines.base_of(pipelines.sdxl(tmp_path / "sdxl"))
    assert not hasattr(wide.text_encoders[0], "text_model")
    assert hasattr(wide.text_encoders[1], "text_model")
    for number in (1, 2):
        name = f"lora_te{number}_text_model_encoder_layers_0_mlp_fc1"
        assert name in module_names(wide)


def test_a_lora_of_another_architecture_is_refused_with_both_named(base):
    wide = LoraModule(ATTENTION, np.zeros((2, 2048), np.float32), np.zeros((8, 2), np.float32), 2.0)
    before = weights(base)
    fitting = pipelines.random_modules(base, [TEXT])
    with pytest.raises(LoraMismatchError) as raised:
        Merger(base).apply(lora_of([*fitting, wide], "wide.safetensors"))
    assert "wide.safetensors" in str(raised.value)
    assert "SDXL" in str(raised.value)
    assert "SD 1.x" in str(raised.value)
    after = weights(base)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_lora_of_other_sizes_or_layers_is_refused_by_name(base):
    (module,) = pipelines.random_modules(base, [ATTENTION])
    small = LoraModule(ATTENTION, module.down[:, :-1], module.up, 1.0)
    with pytest.raises(LoraMismatchError, match=r"other sizes.*\(8, 16\)"):
        Merger(base).apply(lora_of([small]))
    stranger = LoraModule(f"{ATTENTION}_more", module.down, module.up, 1.0)
    with pytest.raises(LoraMismatchError, match="lacks 1 of its 1 modules"):
        Merger(base).apply(lora_of([stranger]))


def test_other_network_types_are_refused_in_one_message(base):
    lora = lora_of([], unsupported=("lora_unet_a (LoHa)", "lora_unet_b (LoHa)"))
    with pytest.raises(BadInputError, match=r"2 modules .* lora_unet_a \(LoHa\)"):
        Merger(base).apply(lora)


@pytest.mark.parametrize(
    ("width", "metadata", "answer"),
    [
        (768, {}, "SD 1.x"),
        (1024, {}, "SD 2.x"),
        (2048, {}, "SDXL"),
        (160, {"ss_base_model_version": "sdxl_base_v1-0"}, "SDXL"),
        (160, {}, ""),
    ],
)
def test_the_architecture_shows_in_the_width_of_the_text(width, metadata, answer):
    module = LoraModule(
        ATTENTION, np.zeros((2, width), np.float32), np.zeros((8, 2), np.float32), 2.0
    )
    assert architecture(lora_of([module], metadata=metadata)) == answer


def files_of(base, folder, count, names=LAYERS["sd1"]):
    for number in range(count):
        modules = pipelines.random_modules(base, names, seed=number)
        write_lora(folder / f"{number}.safetensors", modules, {})
    return [folder / f"{number}.safetensors" for number in range(count)]


def test_an_epoch_after_fifty_swaps_is_the_epoch_loaded_fresh_to_the_bit(tmp_path, base):
    files = files_of(base, tmp_path, 4)
    merger = Merger(base)
    for turn in range(50):
        file, strength = files[turn % 4], (1.0, 0.6, 1.4, 0.0)[turn // 4 % 4]
        merger.apply(read_lora(file), strength=strength, text_strength=strength / 2)
    merger.apply(read_lora(files[2]))
    swapped = weights(base)
    fresh = pipelines.base_of(pipelines.sd1(tmp_path / "fresh"))
    Merger(fresh).apply(read_lora(files[2]))
    assert all(torch.equal(weight, swapped[name]) for name, weight in weights(fresh).items())


def test_several_loras_add_up_from_the_base_model(base):
    before = weights(base)
    one, two = (
        lora_of(pipelines.random_modules(base, names, seed=seed))
        for seed, names in enumerate([LAYERS["sd1"][:5], LAYERS["sd1"][3:]])
    )
    merger = Merger(base)
    merger.apply_all([(one, 0.5, None), (two, 2.0, -1.0)])
    now = weights(base)
    for name, weight in before.items():
        wanted = weight.clone()
        if name in one.modules:
            wanted += delta(one.modules[name], weight, strength=0.5)
        if name in two.modules:
            factor = 2.0 if name.startswith("lora_unet") else -1.0
            wanted += delta(two.modules[name], weight, strength=factor)
        torch.testing.assert_close(now[name], wanted, atol=1e-6, rtol=1e-6)
    merger.apply_all([(two, 2.0, -1.0), (one, 0.5, None)])
    for name, weight in weights(base).items():
        torch.testing.assert_close(now[name], weight, atol=1e-6, rtol=1e-6)
    merger.apply_all([])
    assert all(torch.equal(weight, before[name]) for name, weight in weights(base).items())


def test_one_of_several_is_merged_as_if_it_were_alone(base):
    one, two = (
        lora_of(pipelines.random_modules(base, LAYERS["sd1"], seed=seed)) for seed in (0, 1)
    )
    Merger(base).apply(one, strength=0.7)
    alone = weights(base)
    with merged_all(base, [(one, 0.7, None), (two, 0.0, None)]):
        assert all(torch.equal(weight, alone[name]) for name, weight in weights(base).items())


@pytest.mark.parametrize("loras", [0, 2])
def test_no_lora_and_strengths_of_zero_are_the_base_model_to_the_bit(base, loras):
    before = weights(base)
    several = [
        (lora_of(pipelines.random_modules(base, LAYERS["sd1"], seed=seed)), 0.0, 0.0)
        for seed in range(loras)
    ]
    Merger(base).apply(lora_of(pipelines.random_modules(base, LAYERS["sd1"], seed=9)))
    with merged_all(base, several):
        assert not base.merged
        assert all(torch.equal(weight, before[name]) for name, weight in weights(base).items())


def test_weights_that_both_loras_touch_are_written_once_and_others_not_at_all(base, monkeypatch):
    one, two = (
        lora_of(pipelines.random_modules(base, names, seed=seed))
        for seed, names in enumerate([LAYERS["sd1"][:4], LAYERS["sd1"][3:6]])
    )
    merger = Merger(base)
    merger.apply(one)
    versions = {name: layer.weight._version for name, layer in module_names(base).items()}
    merger.apply(two)
    written = {
        name: layer.weight._version - versions[name] for name, layer in module_names(base).items()
    }
    assert {name for name, times in written.items() if times} == set(LAYERS["sd1"][:6])
    assert set(written.values()) == {0, 1}
    merger.apply_all([])
    versions = {name: layer.weight._version for name, layer in module_names(base).items()}
    merger.apply_all([])
    assert versions == {name: layer.weight._version for name, layer in module_names(base).items()}


def test_updates_that_depend_on_the_weight_are_computed_from_the_base_model(base):
    plain, other = pipelines.random_modules(base, [ATTENTION] * 2)
    norms = np.linspace(1, 2, 8, dtype=np.float32).reshape(8, 1)
    dora = dataclasses.replace(other, magnitude=norms)
    ia3 = BaseBoundModule(
        ATTENTION,
        "IA3",
        {"weight": np.linspace(-1, 1, 8, dtype=np.float32), "on_input": np.zeros(1, np.float32)},
        0.0,
    )
    before = weights(base)[ATTENTION]
    wanted = before.clone()
    loras = []
    for module, strength in ((plain, 0.5), (dora, 0.8), (ia3, 1.5)):
        wanted += delta(module, before, strength=strength)
        bound = {ATTENTION: module} if module is ia3 else {}
        lora = dataclasses.replace(lora_of([] if bound else [module]), bound=bound)
        loras.append((lora, strength, None))
    for order in (loras, loras[::-1]):
        with merged_all(base, order):
            torch.testing.assert_close(weights(base)[ATTENTION], wanted, atol=1e-6, rtol=1e-5)
    assert torch.equal(weights(base)[ATTENTION], before)


def test_of_several_loras_one_that_does_not_fit_stops_all(base):
    fitting, (module,) = (pipelines.random_modules(base, [name]) for name in (TEXT, ATTENTION))
    small = LoraModule(ATTENTION, module.down[:, :-1], module.up, 1.0)
    Merger(base).apply(lora_of(fitting))
    before = weights(base)
    with (
        pytest.raises(LoraMismatchError),
        merged_all(base, [(lora_of([module]), 1.0, None), (lora_of([small]), 1.0, None)]),
    ):
        raise AssertionError("it fits")
    assert all(torch.equal(weight, before[name]) for name, weight in weights(base).items())


def test_encoded_texts_are_shared_by_what_leaves_the_text_encoders_alone(tmp_path, base):
    unet_file, text_file = tmp_path / "unet" / "0.safetensors", tmp_path / "text" / "0.safetensors"
    for file, name in ((unet_file, ATTENTION), (text_file, TEXT)):
        file.parent.mkdir()
        files_of(base, file.parent, 1, [name])
    unet, text = read_lora(unet_file), read_lora(text_file)
    assert not touches_text(unet)
    assert touches_text(text)
    assert not touches_text(text, 0.0)
    own = texts_for(base, [])
    assert texts_for(base, [(unet, 1.0, None)]) is own
    assert texts_for(base, [(text, 1.0, 0.0)]) is own
    changed = texts_for(base, [(text, 1.0, None)])
    assert changed is not own
    assert texts_for(base, [(unet, 0.5, None), (read_lora(text_file), 0.2, 1.0)]) is changed
    assert texts_for(base, [(text, 0.5, None)]) is not changed
    files_of(base, text_file.parent, 1, [TEXT, ATTENTION])
    assert texts_for(base, [(read_lora(text_file), 1.0, None)]) is not changed
    assert texts_for(base, []) is own
    assert len(base.texts) == 2
    unknown = lora_of(pipelines.random_modules(base, [TEXT]))
    assert texts_for(base, [(unknown, 1.0, None)]) is not texts_for(base, [(unknown, 1.0, None)])
