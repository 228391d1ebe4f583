"""What is trained is what is saved: other programs load exactly the live adapter."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lorascope.io.dataset_file import Dataset, DatasetImage
from lorascope.io.lora_file import read_lora, write_lora
from lorascope.models.base import Base
from lorascope.models.lora import module_names
from tests import pipelines
from trainer.config import TrainConfig
from trainer.network import Network, add_network, metadata

SHAPES = {"sd1": pipelines.sd1, "sd2": pipelines.sd2, "sdxl": pipelines.sdxl}


def config(**changed: object) -> TrainConfig:
    plain = {"rank": 3, "alpha": 1.5, "text_lr": 1e-4, "name": "fern", "trigger": "zyxfern"}
    return TrainConfig(base="tiny", dataset="images", **(plain | changed))


def disturb(network: Network) -> None:
    """Give every ``up`` values, as training would."""
    draw = torch.Generator().manual_seed(1)
    for weight in network.weights().values():
        weight.data = torch.randn(weight.shape, generator=draw) * 0.3


def answers(base: Base) -> list[torch.Tensor]:
    """What the text encoders and the UNet say to fixed questions."""
    with torch.no_grad():
        cond = base.encode_prompts(["sks cat", "a red hat"])
        draw = torch.Generator().manual_seed(0)
        noisy = torch.randn(2, base.latent_channels, 8, 8, generator=draw)
        return [cond.hidden, base.predict(noisy, torch.tensor([10, 800]), cond)]


def difference(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_new_network_changes_nothing(shape, tmp_path):
    plain = answers(pipelines.base_of(SHAPES[shape](tmp_path)))
    base = pipelines.base_of(SHAPES[shape](tmp_path))
    add_network(base, config())
    assert difference(answers(base), plain) == 0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("part", ["both", "unet", "text"])
def test_diffusers_loads_a_saved_network_without_any_difference(shape, part, tmp_path):
    base = pipelines.base_of(SHAPES[shape](tmp_path))
    plain = answers(base)
    lrs = {"both": {}, "unet": {"text_lr": 0}, "text": {"unet_lr": 0}}[part]
    network = add_network(base, config(**lrs))
    disturb(network)
    live = answers(base)
    write_lora(tmp_path / "fern.safetensors", network.modules(), {}, dtype="F32")

    other = SHAPES[shape](tmp_path)
    other.load_lora_weights(tmp_path, weight_name="fern.safetensors")
    assert difference(answers(pipelines.base_of(other)), live) == 0
    assert difference(plain, live) > 0.01  # the network does something


@pytest.mark.parametrize(
    ("shape", "roots"),
    [("sd1", {"lora_te", "lora_unet"}), ("sdxl", {"lora_te1", "lora_te2", "lora_unet"})],
)
def test_modules_are_named_as_everywhere(shape, roots, tmp_path):
    base = pipelines.base_of(SHAPES[shape](tmp_path))
    known = module_names(base)
    names = [module.name for module in add_network(base, config()).modules()]
    assert set(names) <= known.keys()
    assert len(names) == len(set(names))
    assert {"_".join(name.split("_")[:2]) for name in names} == roots
    ends = ("to_q", "to_k", "to_v", "to_out_0", "q_proj", "k_proj", "v_proj", "out_proj")
    assert all(name.endswith(ends) for name in names)
    assert all("text_model_encoder" in name for name in names if "unet" not in name)
    assert len(names) == sum(name.endswith(ends) for name in known)


def test_only_the_network_is_trained(tmp_path):
    base = pipelines.base_of(pipelines.sd1(tmp_path))
    network = add_network(base, config())
    trained = {
        id(p)
        for model in (base.unet, base.vae, *base.text_encoders)
        for p in model.parameters()
        if p.requires_grad
    }
    assert trained == {id(p) for p in network.weights().values()}


def test_a_part_with_learning_rate_0_gets_no_network(tmp_path):
    base = pipelines.base_of(pipelines.sd1(tmp_path))
    network = add_network(base, config(text_lr=0))
    assert not network.text
    assert [group["part"] for group in network.groups(1e-4, 0)] == ["unet"]


def test_the_start_depends_on_the_seed_and_leaves_global_randomness_alone(tmp_path):
    bases = [pipelines.base_of(pipelines.sd1(tmp_path)) for _ in range(3)]
    before = torch.get_rng_state()
    starts = []
    for base, seed in zip(bases, (0, 0, 1), strict=True):
        torch.rand(1)
        with torch.random.fork_rng():
            found = add_network(base, config(seed=seed)).modules()
        starts.append({module.name: module.down for module in found})
    torch.set_rng_state(before)
    network = add_network(pipelines.base_of(pipelines.sd1(tmp_path)), config(seed=0))
    assert all(np.array_equal(starts[0][k], starts[1][k]) for k in starts[0])
    assert not any(np.array_equal(starts[0][k], starts[2][k]) for k in starts[0])
    for module in network.modules():
        bound = module.down.shape[1] ** -0.5
        assert 0.5 * bound < np.abs(module.down).max() <= bound
        assert not module.up.any()


def test_adding_a_network_draws_nothing_from_the_global_generator(tmp_path):
    base = pipelines.base_of(pipelines.sd1(tmp_path))
    before = torch.get_rng_state()
    add_network(base, config())
    assert torch.equal(torch.get_rng_state(), before)


def image(file: str, caption: str, repeats: int, split: str = "train") -> DatasetImage:
    return DatasetImage(
        file=file,
        sha256="0" * 64,
        caption=caption,
        repeats=repeats,
        split=split,
        width=64,
        height=64,
    )


DATASET = Dataset(
    root=Path("images"),
    trigger="zyxfern",
    class_word="plant",
    resolution=(64, 64),
    images=(
        image("10_fern/a.png", "zyxfern, leaf", 10),
        image("10_fern/b.png", "zyxfern, pot, grün", 10),
        image("10_fern/c.png", "zyxfern, secret", 10, "held-out"),
        image("2_other/d.png", "", 2),
    ),
)


@pytest.mark.parametrize(
    ("shape", "version", "architecture", "prediction"),
    [
        ("sd1", "sd_v1", "stable-diffusion-v1/lora", "epsilon"),
        ("sd2", "sd_v2_v", "stable-diffusion-v2-768-v/lora", "v"),
        ("sdxl", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora", "epsilon"),
    ],
)
def test_other_programs_find_their_keys(shape, version, architecture, prediction, tmp_path):
    base = pipelines.base_of(SHAPES[shape](tmp_path))
    network = add_network(base, config())
    about = metadata(config(), DATASET, base, epoch=3, step=21, epoch_steps=7)
    write_lora(tmp_path / "fern.safetensors", network.modules(), about)
    read = read_lora(tmp_path / "fern.safetensors")
    assert read.dtype == "F16"
    expected = {
        "ss_network_dim": "3",
        "ss_network_alpha": "1.5",
        "ss_epoch": "3",
        "ss_steps": "21",
        "ss_num_epochs": "10",
        "ss_max_train_steps": "70",
        "ss_num_train_images": "22",
        "ss_unet_lr": "0.0001",
        "ss_output_name": "fern",
        "ss_seed": "0",
        "ss_base_model_version": version,
        "modelspec.architecture": architecture,
        "modelspec.prediction_type": prediction,
        "modelspec.trigger_phrase": "zyxfern",
        "modelspec.resolution": "64x64",
    }
    assert {key: read.metadata[key] for key in expected} == expected
    assert json.loads(read.metadata["ss_dataset_dirs"]) == {
        "10_fern": {"n_repeats": 10, "img_count": 2},
        "2_other": {"n_repeats": 2, "img_count": 1},
    }
    tags = json.loads(read.metadata["ss_tag_frequency"])
    assert tags == {"10_fern": {"zyxfern": 2, "leaf": 1, "pot": 1, "grün": 1}, "2_other": {}}
    assert "secret" not in str(read.metadata)
