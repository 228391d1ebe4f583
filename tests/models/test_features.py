"""The base model's own features: any family, any size, only as far as is needed."""

import dataclasses

import numpy as np
import pytest
import torch

from lorascope.models.features import answer_of
from lorascope.tools.pictures.own_encoders import BaseEncoder, LatentEncoder
from tests import pipelines

FAMILIES = {"sd1": (pipelines.sd1, 1), "sd2": (pipelines.sd2, 1), "sdxl": (pipelines.sdxl, 1)}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    return {name: pipelines.base_of(make(folder / name)) for name, (make, _) in FAMILIES.items()}


@pytest.fixture
def pictures(rng):
    return [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(3)]


def encoder(base, **options):
    return BaseEncoder(base=base, digest="0" * 64, **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_asked_at_its_middle_block(bases, pictures, family):
    base, place = bases[family], FAMILIES[family][1]
    found = encoder(base).images(pictures)
    channels = base.unet.config.block_out_channels[::-1][place]
    assert found.shape == (3, 2 * channels)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert np.ptp(found, axis=0).max() > 0


def test_what_comes_after_the_block_is_not_run(bases, pictures):
    unet, later = bases["sd1"].unet, []
    handle = unet.up_blocks[2].register_forward_hook(lambda *_: later.append(1))
    try:
        encoder(bases["sd1"]).images(pictures)
        assert later == []
        encoder(bases["sd1"], block=2).images(pictures)
        assert later
    finally:
        handle.remove()


def test_stopping_early_changes_nothing(bases, pictures):
    base, kept = bases["sd2"], []
    latents = base.encode_images(np.stack(pictures))
    ask = (latents, torch.full((3,), 261), base.encode_prompts([""]).take([0, 0, 0]))
    block = base.unet.up_blocks[1]
    handle = block.register_forward_hook(lambda _b, _i, output: kept.append(output.clone()))
    with torch.no_grad():
        base.predict(*ask)
        handle.remove()
        stopped = answer_of(block, lambda: base.predict(*ask))
        assert torch.equal(stopped, kept[0])
        assert torch.isfinite(base.predict(*ask)).all()  # nothing is left behind


def test_no_hook_is_left_behind_even_by_a_failure(bases):
    block = bases["sd1"].unet.up_blocks[1]

    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        answer_of(block, fail)
    with pytest.raises(RuntimeError, match="own forward"):
        answer_of(block, lambda: None)
    assert not block._forward_hooks


@pytest.mark.parametrize("make", [encoder, lambda b: LatentEncoder(base=b, digest="0" * 64)])
def test_company_does_not_matter(bases, pictures, make):
    together = make(bases["sd1"]).images(pictures)
    alone = np.concatenate([make(bases["sd1"]).images([picture]) for picture in pictures])
    assert together == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("make", [encoder, lambda b: LatentEncoder(base=b, digest="0" * 64)])
@pytest.mark.parametrize("size", [(64, 96), (200, 130), (20, 30), (900, 300)])
def test_any_size_gives_features_of_one_length(bases, pictures, rng, make, size):
    other = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    found = make(bases["sd1"]).images([pictures[0], other, pictures[1]])
    assert np.isfinite(found).all()
    assert found[[0, 2]] == pytest.approx(make(bases["sd1"]).images(pictures[:2]), abs=1e-4)


def test_the_same_seed_gives_the_same_and_another_gives_other_features(bases, pictures):
    first = encoder(bases["sd1"]).images(pictures)
    assert np.array_equal(encoder(bases["sd1"]).images(pictures), first)
    assert not np.allclose(encoder(bases["sd1"], seed=1).images(pictures), first)


def test_noises_are_averaged(bases, pictures):
    base = bases["sd1"]

    def far(noises):
        found = [encoder(base, noises=noises, seed=s).images(pictures) for s in (1, 2)]
        return np.abs(found[0] - found[1]).mean()

    assert far(8) < 0.7 * far(1)


def test_the_name_says_all_that_decides_the_numbers(bases):
    usual = encoder(bases["sd1"])
    others = [
        dataclasses.replace(usual, **change)
        for change in (
            {"digest": "1" * 64},
            {"timestep": 0.5},
            {"block": 2},
            {"noises": 9},
            {"levels": (1, 2)},
            {"seed": 3},
        )
    ]
    assert len({e.name for e in (usual, *others)}) == 7
    assert dataclasses.replace(usual, block=1).name == usual.name


def test_the_random_state_of_others_is_left_alone(bases, pictures):
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    encoder(bases["sd1"]).images(pictures)
    assert torch.equal(torch.rand(3), wanted)
