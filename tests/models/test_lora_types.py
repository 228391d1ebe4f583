"""Every network type is merged as the library that makes it computes it."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lorascope.errors import BadInputError
from lorascope.io.lora_file import BaseBoundModule, LoraFile, LoraModule, read_lora, write_lora
from lorascope.metrics import lowrank
from lorascope.models.lora import LoraMismatchError, Merger, delta, merged, parameters
from tests import pipelines

LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
NORM = "lora_unet_down_blocks_0_resnets_0_norm1"
ALGORITHMS = {  # LyCORIS' settings, and what we call the modules of such a file
    "lora": ({"algo": "lora"}, {"LoRA", "LoCon"}),
    "dylora": ({"algo": "dylora", "block_size": 1}, {"LoRA", "LoCon"}),
    "rank-stabilised": ({"algo": "lora", "rs_lora": True}, {"LoRA", "LoCon"}),
    "tucker": ({"algo": "lora", "use_tucker": True}, {"LoRA", "LoCon"}),
    "scalar": ({"algo": "lora", "use_scalar": True}, {"LoRA", "LoCon"}),
    "norms": ({"algo": "lora", "train_norm": True}, {"LoRA", "LoCon", "full"}),
    "dora": ({"algo": "lora", "dora_wd": True}, {"DoRA"}),
    "dora of columns": ({"algo": "lora", "dora_wd": True, "wd_on_output": False}, {"DoRA"}),
    "loha": ({"algo": "loha"}, {"LoHa"}),
    "loha, tucker": ({"algo": "loha", "use_tucker": True}, {"LoHa"}),
    "loha, dora": ({"algo": "loha", "dora_wd": True}, {"LoHa"}),
    "lokr": ({"algo": "lokr", "linear_dim": 1, "factor": 2}, {"LoKr"}),
    "lokr, both": ({"algo": "lokr", "linear_dim": 1, "decompose_both": True}, {"LoKr"}),
    "lokr, whole": ({"algo": "lokr", "full_matrix": True}, {"LoKr"}),
    "lokr, tucker": (
        {"algo": "lokr", "linear_dim": 1, "factor": 2, "use_tucker": True},
        {"LoKr"},
    ),
    "lokr, dora": ({"algo": "lokr", "dora_wd": True}, {"LoKr"}),
    "full": ({"algo": "full"}, {"full"}),
    "ia3": ({"algo": "ia3"}, {"IA3"}),
    "diag-oft": ({"algo": "diag-oft"}, {"OFT"}),
    "diag-oft, limited": ({"algo": "diag-oft", "constraint": 0.005}, {"OFT"}),
    "diag-oft, rescaled": ({"algo": "diag-oft", "rescaled": True}, {"OFT"}),
    "boft": ({"algo": "boft", "linear_dim": 4}, {"BOFT"}),
    "boft, rescaled": ({"algo": "boft", "linear_dim": 4, "rescaled": True}, {"BOFT"}),
    "glora": ({"algo": "glora"}, {"GLoRA"}),
}
# Where LyCORIS' way from strength 0 to 1 is as straight as ours (BOFT's is bent in both).
HALF = ("lora", "tucker", "loha", "lokr", "full", "norms", "ia3", "diag-oft", "boft", "glora")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return pipelines.base_of(pipelines.sd1(tmp_path_factory.mktemp("sd1")))


@pytest.fixture
def base(shared):
    yield shared
    Merger(shared).restore()


@torch.no_grad()
def forward(base, unet=None) -> torch.Tensor:
    base = base if unet is None else dataclasses.replace(base, unet=unet, originals={})
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return base.predict(latents, torch.tensor([500]), base.encode_prompts(["a red hat"]))


def everything(base) -> dict[str, torch.Tensor]:
    return {name: getattr(*target).detach().clone() for name, target in parameters(base).items()}


def wrapped(unet, *, strength: float = 1.0, seed: int = 0, **settings):
    """Wrap LyCORIS around a UNet, with random numbers in all that it can train."""
    lycoris = pytest.importorskip("lycoris")
    presets = pytest.importorskip("lycoris.config").PRESET
    presets["tiny"] = {
        "enable_conv": True,
        "target_module": ["Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D"],
        "target_name": [],
        "lora_prefix": "lora_unet",
    }
    settings = {"linear_dim": 2, "linear_alpha": 1.5, **settings}
    network = lycoris.create_lycoris(unet, strength, preset="tiny", **settings)
    network.apply_to()
    generator = torch.Generator().manual_seed(seed)
    spread = 0.05 if settings["algo"] in ("full", "ia3", "diag-oft", "boft") else 0.3
    with torch.no_grad():
        for values in network.parameters():
            values.add_(torch.randn(values.shape, generator=generator) * spread)
    return network.eval()


def saved(network, path: Path) -> Path:
    save_file({k: v.detach().clone().contiguous() for k, v in network.state_dict().items()}, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "strength"),
    [*((name, 1.0) for name in ALGORITHMS), *((name, 0.5) for name in HALF)],
)
def test_a_merge_is_what_lycoris_computes_of_the_same_file(
    tmp_path, base, algorithm, strength, monkeypatch
):
    monkeypatch.setattr("random.randint", lambda least, most: most)  # DyLoRA draws its rank
    settings, kinds = ALGORITHMS[algorithm]
    plain = forward(base)
    unet = copy.deepcopy(base.unet)
    network = wrapped(unet, strength=strength, **settings)
    wanted = forward(base, unet)
    lora = read_lora(saved(network, tmp_path / "lora.safetensors"))
    assert {m.kind for m in lora.modules.values()} | {m.kind for m in lora.bound.values()} == kinds
    assert lora.unsupported == ()
    before = everything(base)
    with merged(base, lora, strength=strength):
        got = forward(base)
    effect = float((wanted - plain).abs().max())
    assert effect > 0.01
    torch.testing.assert_close(got, wanted, atol=1e-4 * effect + 2e-5, rtol=0)
    after = everything(base)
    assert all(torch.equal(after[name], before[name]) for name in before)


TARGETS = r".*(attn2\.to_k|attn1\.to_out\.0|ff\.net\.0\.proj|resnets\.0\.conv1|proj_in)"
PEFT = {
    "LoraConfig": {"r": 2, "lora_alpha": 3},
    "LoraConfig, rank-stabilised": {"r": 4, "lora_alpha": 3, "use_rslora": True},
    "LoraConfig, patterns": {
        "r": 2,
        "lora_alpha": 3,
        "rank_pattern": {"attn2.to_k": 4},
        "alpha_pattern": {"attn2.to_k": 5, "mid_block.attentions.0.proj_in": 1},
    },
    "LoraConfig, DoRA": {"r": 2, "lora_alpha": 3, "use_dora": True},
    "LoraConfig, bias": {"r": 2, "lora_alpha": 3, "lora_bias": True, "target_modules": ["proj_in"]},
    "LoHaConfig": {"r": 2, "alpha": 3},
    "LoHaConfig, Tucker": {"r": 2, "alpha": 3, "use_effective_conv2d": True},
    "LoKrConfig": {"r": 1, "alpha": 3, "decompose_factor": 2},
    "LoKrConfig, whole": {"r": 8, "alpha": 3},
    "LoKrConfig, Tucker": {
        "r": 1,
        "alpha": 3,
        "use_effective_conv2d": True,
        "decompose_both": True,
    },
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*have invalid shape")  # PEFT takes its own biases for shards
@pytest.mark.parametrize("made", PEFT)
def test_a_merge_is_what_peft_computes_of_the_same_folder(tmp_path, base, made):
    import peft

    settings = {"target_modules": TARGETS, **PEFT[made]}
    config = getattr(peft, made.partition(",")[0])(**settings)
    plain = forward(base)
    model = peft.get_peft_model(copy.deepcopy(base.unet), config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for values in model.parameters():
            if values.requires_grad:
                values.add_(torch.randn(values.shape, generator=generator) * 0.3)
    wanted = forward(base, model)
    model.save_pretrained(tmp_path)
    lora = read_lora(tmp_path / "adapter_model.safetensors")
    assert lora.unsupported == ()
    with merged(base, lora):
        got = forward(base)
    effect = float((wanted - plain).abs().max())
    assert effect > 0.01
    torch.testing.assert_close(got, wanted, atol=1e-4 * effect + 2e-5, rtol=0)


def lora_of(*modules, unsupported=()) -> LoraFile:
    return LoraFile(
        path=Path("some.safetensors"),
        metadata={},
        modules={m.name: m for m in modules if isinstance(m, LoraModule)},
        dtype="F32",
        unsupported=unsupported,
        bound={m.name: m for m in modules if isinstance(m, BaseBoundModule)},
    )


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def glora(a1: tuple[int, int], a2: tuple[int, int]) -> dict[str, np.ndarray]:
    return {"a1": draw(*a1), "a2": draw(*a2), "b1": draw(8, 2), "b2": draw(2, 16)}


def one_of_each() -> list[LoraModule | BaseBoundModule]:
    """Make a module of every kind for a weight of (8, 16)."""
    return [
        LoraModule(LAYER, draw(2, 16), draw(8, 2), 1.0),
        LoraModule(LAYER, draw(2, 8), draw(4, 2), 1.0, kind="LoKr", left=draw(2, 2)),
        LoraModule(LAYER, None, draw(4, 8), 1.0, kind="LoKr", left=draw(2, 2), dim=1),
        LoraModule(LAYER, None, draw(8, 16), 1.0, kind="full"),
        LoraModule(LAYER, draw(2, 16), draw(8, 2), 1.0, kind="DoRA", magnitude=draw(8, 1)),
        LoraModule(LAYER, draw(2, 16), draw(8, 2), 1.0, kind="DoRA", magnitude=draw(1, 16)),
        BaseBoundModule(
            LAYER, "IA3", {"weight": draw(16), "on_input": np.ones((), np.float32)}, 0.0
        ),
        BaseBoundModule(LAYER, "OFT", {"oft_blocks": draw(4, 2, 2)}, 0.0),
        BaseBoundModule(LAYER, "BOFT", {"oft_blocks": draw(3, 4, 2, 2)}, 0.0),
        BaseBoundModule(LAYER, "GLoRA", glora((16, 2), (2, 16)), 1.0),
    ]


@pytest.mark.parametrize("place", range(len(one_of_each())))
def test_every_kind_leaves_no_bit_behind_and_strength_zero_is_nothing(base, place):
    lora = lora_of(one_of_each()[place])
    before, merger = everything(base), Merger(base)
    merger.apply(lora, strength=0.0)
    assert all(torch.equal(now, before[name]) for name, now in everything(base).items())
    merger.apply(lora)
    changed = [n for n, now in everything(base).items() if not torch.equal(now, before[n])]
    assert changed == [LAYER]
    first = everything(base)[LAYER]
    merger.apply(lora, strength=3.0)
    merger.apply(lora)
    assert torch.equal(everything(base)[LAYER], first)
    merger.restore()
    assert all(torch.equal(now, before[name]) for name, now in everything(base).items())


@pytest.mark.parametrize("place", range(6))
def test_delta_is_the_update_itself_and_at_half_strength_half_of_it(base, place):
    module = one_of_each()[place]
    weight = everything(base)[LAYER]
    whole = delta(module, weight)
    torch.testing.assert_close(delta(module, weight, strength=0.5), whole / 2)
    if module.magnitude is None:
        wanted = torch.from_numpy(lowrank.dense(module.factors(), left=module.left)).float()
        torch.testing.assert_close(whole, wanted, atol=1e-5, rtol=1e-5)
    else:
        axis = 1 if module.magnitude.shape[0] == 8 else 0
        norms = torch.linalg.vector_norm(weight + whole, dim=axis)
        torch.testing.assert_close(norms, torch.from_numpy(np.abs(module.magnitude)).flatten())
    assert not delta(module, weight, strength=0.0).any()


def test_a_half_precision_merge_is_the_exact_sum_rounded_once(tmp_path):
    base = pipelines.base_of(pipelines.sd1(tmp_path))
    base.unet.to(torch.bfloat16)
    module = one_of_each()[0]
    weight = everything(base)[LAYER]
    Merger(base).apply(lora_of(module), strength=0.3)
    exact = weight.double() + 0.3 * torch.from_numpy(lowrank.dense(module.factors()))
    assert torch.equal(everything(base)[LAYER], exact.to(torch.bfloat16))


def test_a_weight_merged_in_pieces_of_rows_is_merged_whole(base, monkeypatch):
    monkeypatch.setattr("lorascope.models.updates.PIECE", 50)  # three of eight rows at once
    module, before = one_of_each()[0], everything(base)[LAYER]
    Merger(base).apply(lora_of(module))
    torch.testing.assert_close(everything(base)[LAYER], before + delta(module, before))


def test_the_order_of_weights_in_memory_does_not_matter(tmp_path):
    base = pipelines.base_of(pipelines.sd1(tmp_path))
    name = "lora_unet_down_blocks_0_resnets_0_conv1"
    low = LoraModule(name, draw(2, 8, 3, 3), draw(8, 2, 1, 1), 1.0)
    for module in (low, LoraModule(name, None, draw(8, 8, 3, 3), 1.0, kind="full")):
        Merger(base).apply(lora_of(module))
        wanted = everything(base)[name]
        Merger(base).restore()
        other = pipelines.base_of(pipelines.sd1(tmp_path))
        other.unet.to(memory_format=torch.channels_last)
        Merger(other).apply(lora_of(module))
        assert torch.equal(everything(other)[name], wanted)


def test_norms_and_biases_are_changed_and_come_back(base):
    before = everything(base)
    scale = LoraModule(NORM, None, np.full(8, 0.25, np.float32), 1.0, kind="full")
    bias = LoraModule(f"{NORM}.bias", None, np.full(8, -0.5, np.float32), 1.0, kind="full")
    merger = Merger(base)
    merger.apply(lora_of(scale, bias), strength=2.0)
    now = everything(base)
    torch.testing.assert_close(now[NORM], before[NORM] + 0.5)
    torch.testing.assert_close(now[f"{NORM}.bias"], before[f"{NORM}.bias"] - 1.0)
    merger.apply(lora_of(scale))
    assert torch.equal(everything(base)[f"{NORM}.bias"], before[f"{NORM}.bias"])
    merger.restore()
    assert all(torch.equal(after, before[name]) for name, after in everything(base).items())


@pytest.mark.parametrize(
    "module",
    [
        LoraModule(LAYER, None, draw(8, 15), 1.0, kind="full"),
        LoraModule(LAYER, draw(2, 4), draw(4, 2), 1.0, kind="LoKr", left=draw(2, 2)),
        LoraModule(LAYER, draw(2, 16), draw(8, 2), 1.0, kind="DoRA", magnitude=draw(16)),
        LoraModule(LAYER, draw(2, 16, 3, 3), draw(8, 2, 1, 1), 1.0),
        BaseBoundModule(LAYER, "IA3", {"weight": draw(16), "on_input": np.zeros(1)}, 0.0),
        BaseBoundModule(LAYER, "OFT", {"oft_blocks": draw(3, 2, 2)}, 0.0),
        BaseBoundModule(LAYER, "BOFT", {"oft_blocks": draw(4, 4, 2, 2)}, 0.0),
        BaseBoundModule(LAYER, "GLoRA", glora((16, 2), (3, 16)), 1.0),
    ],
    ids=lambda m: f"{m.kind}",
)
def test_modules_of_other_sizes_are_refused_and_nothing_changes(base, module):
    before = everything(base)
    good = LoraModule(f"{LAYER.removesuffix('k')}v", draw(2, 16), draw(8, 2), 1.0)
    with pytest.raises(LoraMismatchError, match=f"other sizes: {LAYER} is "):
        Merger(base).apply(lora_of(good, module))
    assert all(torch.equal(now, before[name]) for name, now in everything(base).items())


def test_what_cannot_be_merged_is_refused_by_name(base, tmp_path):
    module = one_of_each()[0]
    with pytest.raises(BadInputError, match=r"such as lora_x \(T-LoRA\)"):
        Merger(base).apply(lora_of(module, unsupported=("lora_x (T-LoRA)",)))
    strange = BaseBoundModule(LAYER, "HRA", {}, 0.0)
    with pytest.raises(BadInputError, match=rf"{LAYER} \(HRA\)"):
        Merger(base).apply(lora_of(strange))
    save_file(
        {"unet:0:up": torch.ones(8, 2), "unet:0:down": torch.ones(2, 16)},
        tmp_path / "a.safetensors",
    )
    with pytest.raises(BadInputError, match=r"numbers its modules \(unet:0\)"):
        Merger(base).apply(read_lora(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("place", range(6))
def test_what_is_written_again_in_kohyas_keys_makes_the_same_merge(base, tmp_path, place):
    module = one_of_each()[place]
    write_lora(tmp_path / "a.safetensors", [module], {}, dtype="F32")
    again = read_lora(tmp_path / "a.safetensors").modules[LAYER]
    weight = everything(base)[LAYER]
    torch.testing.assert_close(delta(again, weight), delta(module, weight))
