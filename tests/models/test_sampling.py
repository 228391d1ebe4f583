import diffusers
import numpy as np
import pytest
import torch

from lorascope.errors import BadInputError, ShapeError
from lorascope.models import sampling
from lorascope.models.base import Base
from tests import pipelines

CLOSE = 1e-3  # kernels round by the size of a batch; another seed is a thousand times as far
PROMPTS = ["a cat", "a red hat, photo", "dog in castle"]
KINDS = {
    "dpm++2m": diffusers.DPMSolverMultistepScheduler,
    "ddim": diffusers.DDIMScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
    "euler_a": diffusers.EulerAncestralDiscreteScheduler,
}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    made = pipelines.sd1(tmp_path_factory.mktemp("sd1"))
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def base(pipeline) -> Base:
    return pipelines.base_of(pipeline)


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # in diffusers' own call
@pytest.mark.parametrize("sampler", sorted(KINDS))
def test_every_sampler_gives_what_the_diffusers_pipeline_gives(pipeline, base, sampler):
    ours = sampling.sample_latents(
        base, ["a red hat"], [7], steps=4, guidance=5.0, negative="dog", sampler=sampler
    )
    kept = pipeline.scheduler
    options = {"algorithm_type": "dpmsolver++"} if sampler == "dpm++2m" else {}
    pipeline.scheduler = KINDS[sampler].from_config(kept.config, **options)
    generator = torch.Generator("cpu").manual_seed(7)
    theirs = pipeline(
        "a red hat",
        negative_prompt="dog",
        generator=generator,
        num_inference_steps=4,
        guidance_scale=5.0,
        output_type="latent",
    ).images
    pipeline.scheduler = kept
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # in diffusers' own call
@pytest.mark.parametrize("kind", ["sd2", "sdxl"])
def test_the_other_families_agree_with_their_pipelines_too(tmp_path, kind):
    pipeline = getattr(pipelines, kind)(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    base = pipelines.base_of(pipeline)
    ours = sampling.sample_latents(
        base, ["a cat"], [3], steps=3, guidance=4.0, sampler="euler", width=64, height=96
    )
    pipeline.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    theirs = pipeline(
        "a cat",
        negative_prompt="",
        generator=torch.Generator("cpu").manual_seed(3),
        num_inference_steps=3,
        guidance_scale=4.0,
        width=64,
        height=96,
        output_type="latent",
    ).images
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sampler", ["dpm++2m", "euler_a"])
def test_an_image_does_not_depend_on_the_batch_it_is_in(base, sampler):
    together = sampling.sample_latents(base, PROMPTS, [1, 2, 3], steps=3, sampler=sampler)
    alone = torch.cat(
        [
            sampling.sample_latents(base, [prompt], [seed], steps=3, sampler=sampler)
            for prompt, seed in zip(PROMPTS, [1, 2, 3], strict=True)
        ]
    )
    pairs = sampling.sample_latents(base, PROMPTS, [1, 2, 3], steps=3, sampler=sampler, batch=2)
    torch.testing.assert_close(together, alone, atol=CLOSE, rtol=CLOSE)
    torch.testing.assert_close(pairs, alone, atol=CLOSE, rtol=CLOSE)


def test_a_long_prompt_in_the_batch_leaves_the_short_ones_alone(base):
    long = ", ".join(["red hat"] * 40)
    mixed = sampling.sample_latents(base, ["a cat", long, "a dog"], [1, 2, 3], steps=2)
    alone = sampling.sample_latents(base, ["a cat", "a dog"], [1, 3], steps=2)
    torch.testing.assert_close(mixed[[0, 2]], alone, atol=CLOSE, rtol=CLOSE)


def test_seeds_decide_and_repeat(base):
    one = sampling.sample_latents(base, ["a cat"] * 2, [5, 6], steps=2)
    again = sampling.sample_latents(base, ["a cat"] * 2, [5, 6], steps=2)
    assert torch.equal(one, again)
    assert (one[0] - one[1]).abs().max() > 0.1


def test_the_first_noise_is_the_seeds_own_on_the_cpu(base, monkeypatch):
    seen = []

    def watch(noisy, timesteps, cond, *, size=None):
        seen.append(noisy.clone())
        return torch.zeros_like(noisy)

    monkeypatch.setattr(base, "predict", watch)
    sampling.sample_latents(base, ["a cat"] * 2, [5, 9], steps=1, guidance=1.0, sampler="ddim")
    assert torch.equal(seen[0], torch.stack([noise(5, 4, 8, 8), noise(9, 4, 8, 8)]))


def test_guidance_one_takes_one_forward_and_ignores_the_negative_prompt(base):
    before = base.forwards
    plain = sampling.sample_latents(base, ["a cat"], [1], steps=3, guidance=1.0)
    assert base.forwards - before == 3
    other = sampling.sample_latents(base, ["a cat"], [1], steps=3, guidance=1.0, negative="dog")
    assert torch.equal(plain, other)
    before = base.forwards
    guided = sampling.sample_latents(base, ["a cat"], [1], steps=3, guidance=3.0)
    assert base.forwards - before == 6
    assert (guided - plain).abs().max() > 1e-3


def test_each_distinct_prompt_is_encoded_once(base, monkeypatch):
    encoded = []
    original = Base.encode_prompts

    def count(self, prompts, **options):
        encoded.extend(prompts)
        return original(self, prompts, **options)

    monkeypatch.setattr(Base, "encode_prompts", count)
    sampling.sample_latents(base, ["a cat", "a dog", "a cat", "a cat"], [1, 2, 3, 4], steps=1)
    assert sorted(encoded) == ["", "a cat", "a dog"]


def test_pictures_have_the_asked_size_and_progress_is_told(base):
    told = []
    pictures = sampling.sample(
        base,
        PROMPTS,
        [1, 2, 3],
        steps=2,
        width=64,
        height=96,
        batch=2,
        on_step=lambda done, total: told.append((done, total)),
    )
    assert pictures.shape == (3, 96, 64, 3)
    assert pictures.dtype == np.uint8
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"sampler": "magic"}, BadInputError, "dpm"),
        ({"steps": 0}, BadInputError, "at least 1"),
        ({"width": 60}, BadInputError, "multiples of 8"),
        ({"seeds": [1, 2]}, ShapeError, "1 prompts and 2 seeds"),
    ],
)
def test_what_cannot_be_drawn_is_refused(base, options, error, words):
    arguments = {"prompts": ["a cat"], "seeds": [1]} | options
    with pytest.raises(error, match=words):
        sampling.sample(base, **arguments)
