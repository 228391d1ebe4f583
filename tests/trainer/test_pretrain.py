"""Training the miniature: the optimiser, the schedule, and the whole command in small."""

import subprocess
import sys

import pytest
import torch

from lorascope.models.base import load_base
from lorascope.models.sampling import sample
from trainer.pretrain import autoencoder, diffusion, tokenizer
from trainer.pretrain.muon import Muon, orthogonalised
from trainer.pretrain.workers import flat_then_cosine


@pytest.mark.parametrize("shape", [(3, 20, 60), (2, 60, 20)])
def test_orthogonalising_brings_every_singular_value_near_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(matrices))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_orthogonalising_keeps_directions_and_forgets_size():
    matrices = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(0))
    same = orthogonalised(1024 * matrices)  # a power of two: no other rounding
    torch.testing.assert_close(orthogonalised(matrices), same, atol=0.02, rtol=0.02)


def test_muon_solves_a_small_problem_and_goes_on_from_its_state():
    torch.manual_seed(0)
    wanted, weight = torch.randn(16, 4, 3, 3), torch.zeros(16, 4, 3, 3, requires_grad=True)
    muon = Muon([weight], weight_decay=0.0)
    first = None
    for _ in range(300):
        loss = (weight - wanted).square().mean()
        first = first or loss.item()
        (weight.grad,) = torch.autograd.grad(loss, weight)
        muon.step(0.02)
    assert loss.item() < 0.1 * first
    other = Muon([weight])
    other.load(muon.state())
    torch.testing.assert_close(other.state()[0], muon.state()[0])


@pytest.mark.parametrize(
    ("share", "step", "wanted"), [(0, 0, 0.1), (0.2, 9, 1.0), (0.5, 99, 1.0), (1.0, 99, 0.04)]
)
def test_the_learning_rate_rises_stays_and_falls(share, step, wanted):
    found = flat_then_cosine(share, step, warmup=10, flat=0.5, floor=0.04)
    assert found == pytest.approx(wanted)


def test_the_same_parts_are_built_every_time(tmp_path):
    words = tokenizer.build(tmp_path)
    one, other = diffusion.build(words), diffusion.build(words)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in one.items()}
    total = sum(sizes.values()) + sum(p.numel() for p in autoencoder.build().parameters())
    assert total < 12_000_000


def test_an_activation_tag_that_nobody_has_seen_splits_into_pieces(tmp_path):
    words = tokenizer.build(tmp_path)
    assert words.tokenize("blonde hair") == ["blonde</w>", "hair</w>"]
    assert len(words.tokenize("zyxfern")) > 1
    assert (tmp_path / "merges.txt").exists()


@pytest.mark.slow
def test_one_command_rebuilds_a_pipeline_and_a_second_start_leaves_it(tmp_path):
    command = [
        sys.executable, "-m", "trainer.pretrain", "--work", str(tmp_path / "work"),
        "--out", str(tmp_path / "base"), "--vae-minutes", "0.02", "--diffusion-minutes", "0.02",
        "--drawings", "512",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    base = load_base(str(tmp_path / "base"))
    assert sample(base, ["pink hair, smile"], [1], steps=2).shape == (1, 128, 128, 3)
    weights = tmp_path / "work" / "diffusion.pt"
    before = weights.stat().st_mtime_ns
    subprocess.run(command, check=True, capture_output=True)
    assert weights.stat().st_mtime_ns == before
