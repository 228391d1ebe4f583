import diffusers
import numpy as np
import pytest
import torch

from lorascope.errors import BadInputError, ShapeError
from lorascope.models import sampling
from lorascope.models.attention import capture
from lorascope.models.base import Base, Conditioning, load_base
from lorascope.models.preparing import lowered
from lorascope.models.shots import Shot
from lorascope.models.texts import TextCache
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


def shot(prompt: str, seed: int, **changes) -> Shot:
    plain = {"width": 64, "height": 64, "steps": 3}
    return Shot(prompt=prompt, seed=seed, **(plain | changes))


def drawn(base: Base, shots: list[Shot], **options) -> list[torch.Tensor]:
    """Latents of the shots, in their order."""
    found = {}
    for places, latents in sampling.draw_shots(base, shots, **options):
        found |= dict(zip(places, latents, strict=True))
    return [found[place] for place in range(len(shots))]


MIXED = [  # alone, each of them is another picture
    shot("a cat", 1),
    shot("a cat", 1, guidance=7.5),
    shot("a cat", 1, guidance=1.0),
    shot("a cat", 2, negative="dog"),
    shot("a dog", 3, steps=2),
    shot("a cat", 1, sampler="euler_a"),
    shot("a cat", 1, height=96),
    shot(", ".join(["red hat"] * 40), 4),
    shot("a cat", 1, clip_skip=2),
]


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


def test_shots_of_all_kinds_share_what_batches_they_can(base):
    together = drawn(base, MIXED)
    for one, latents in zip(MIXED, together, strict=True):
        options = {k: getattr(one, k) for k in ("steps", "guidance", "negative", "sampler")}
        alone = sampling.sample_latents(
            base, [one.prompt], [one.seed], width=64, height=one.height, clip_skip=one.clip_skip,
            **options,
        )  # fmt: skip
        torch.testing.assert_close(latents, alone[0], atol=CLOSE, rtol=CLOSE)
    same_size = [latents for latents in together if latents.shape[1] == 8]
    apart = [(a - b).abs().max() for i, a in enumerate(same_size) for b in same_size[:i]]
    assert min(apart) > 0.01
    places = [places for places, _ in sampling.draw_shots(base, MIXED)]
    assert sorted(places) == [[0, 1, 3], [2], [4], [5], [6], [7], [8]]


def test_a_batch_without_guidance_costs_half(base):
    before = base.forwards
    drawn(base, [shot("a cat", 1), shot("a cat", 2, guidance=1.0), shot("a dog", 3, guidance=1.0)])
    assert base.forwards - before == 3 * 2 + 3 * 2


def test_batches_are_given_as_they_are_drawn_and_refused_before_any_is(base):
    told = []
    batches = sampling.draw_shots(
        base, [shot("a cat", seed) for seed in range(5)], batch=2,
        on_step=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    places, latents = next(batches)
    assert (places, tuple(latents.shape), told[-1]) == ([0, 1], (2, 4, 8, 8), (3, 9))
    assert [places for places, _ in batches] == [[2, 3], [4]]
    assert told == [(step, 9) for step in range(1, 10)]
    with pytest.raises(BadInputError, match="no sampler"):
        sampling.draw_shots(base, [shot("a cat", 1), shot("a cat", 1, sampler="magic")])
    assert list(sampling.draw_shots(base, [])) == []


def test_texts_are_kept_from_call_to_call_and_encoded_by_themselves(base, monkeypatch):
    encoded = []
    original = Base.encode_prompts

    def count(self, prompts, **options):
        encoded.append(tuple(prompts))
        return original(self, prompts, **options)

    monkeypatch.setattr(Base, "encode_prompts", count)
    texts = TextCache(base)
    first = drawn(base, [shot("a cat", 1), shot("a dog", 2)], texts=texts)
    assert sorted(encoded) == [("",), ("a cat",), ("a dog",)]
    again = drawn(base, [shot("a dog", 2), shot("a cat", 1)], texts=texts)
    assert len(encoded) == 3
    torch.testing.assert_close(again[1], first[0], atol=CLOSE, rtol=CLOSE)
    drawn(base, [shot("a cat", 1, clip_skip=2)], texts=texts)
    assert encoded[3:] == [("",), ("a cat",)]


def test_a_full_cache_forgets_what_was_longest_unused(base, monkeypatch):
    monkeypatch.setattr("lorascope.models.texts.KEPT", 2)
    texts = TextCache(base)
    wanted = texts.of([(word, 1, 1) for word in ("cat", "dog", "hat", "cat")])
    assert wanted.hidden.shape == (4, 77, 16)
    assert torch.equal(wanted.hidden[0], wanted.hidden[3])
    assert [text for text, _, _ in texts._encoded] == ["hat", "cat"]


def test_a_steady_drawing_is_the_same_to_the_bit_in_any_company(base):
    shots = [shot(PROMPTS[i % 3], i, guidance=3.0 + i % 2) for i in range(11)]
    all_of_them = drawn(base, shots, steady=True)
    for several in ([7], [10, 2], [9, 1, 5], [3, 2, 1, 0, 8]):
        few = drawn(base, [shots[i] for i in several], steady=True, batch=16)
        assert all(torch.equal(few[k], all_of_them[i]) for k, i in enumerate(several))


def test_every_forward_of_a_steady_drawing_has_one_shape(base, monkeypatch):
    rows = []
    original = Base.predict

    def watch(self, noisy, timesteps, cond, **options):
        rows.append((len(noisy), len(timesteps), len(cond)))
        return original(self, noisy, timesteps, cond, **options)

    monkeypatch.setattr(Base, "predict", watch)
    drawn(base, [shot("a cat", seed) for seed in range(5)], steady=True)
    assert set(rows) == {(8, 8, 8)}
    assert len(rows) == 2 * 3


@pytest.mark.parametrize(("device", "rows"), [("cpu", 10), ("meta", 8)])
def test_drawing_is_steady_where_kernels_round_by_the_number_of_rows(pipeline, device, rows):
    base = pipelines.base_of(pipeline)
    base.device = torch.device(device)
    seen = []

    def stop(noisy, *_arguments, **_options):
        seen.append(len(noisy))
        raise KeyboardInterrupt

    base.predict = stop
    base.encode_prompts = lambda texts, **_: Conditioning(torch.zeros(1, 77, 16, device=device))
    with pytest.raises(KeyboardInterrupt):
        drawn(base, [shot("a cat", seed) for seed in range(5)])
    assert seen == [rows]


def test_attention_of_repeated_rows_is_not_counted(base):
    shots = [shot("red hat", seed) for seed in range(3)]
    maps = []
    for options in ({"steady": True}, {"batch": 1}):
        with capture(base, tokens=[1, 2]) as recorder:
            drawn(base, shots, **options)
        maps.append(np.stack([recorder.maps(image, size=(8, 8)) for image in range(3)]))
    np.testing.assert_allclose(*maps, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 4, 16])
def test_on_a_processor_in_bfloat16_no_picture_depends_on_its_company(batch):
    base = load_base("miniature", dtype="bf16", device="cpu")
    prompts = [f"{colour} hair, smile, sky" for colour in ("pink", "blue", "red", "white", "black")]
    shots = [
        shot(prompt, seed, width=base.size, height=base.size)
        for seed in range(4) for prompt in prompts
    ]  # fmt: skip
    order = np.random.default_rng(batch).permutation(len(shots))
    plain = torch.stack(drawn(base, shots))
    other = torch.stack(drawn(base, [shots[i] for i in order], batch=batch))
    assert torch.equal(other, plain[order])
    assert (base.decode(other) == base.decode(plain)[order]).all()


def test_lowering_the_weights_once_changes_no_bit(pipeline):
    base = pipelines.base_of(pipeline)
    base.compute_dtype = torch.bfloat16
    own = dict(base.unet.named_parameters())
    latents, cond = torch.randn(3, 4, 8, 8), base.encode_prompts(PROMPTS)
    with torch.no_grad():
        plain = base.predict(latents, torch.tensor([10, 500, 900]), cond)
        with lowered(base):
            assert base.unet.conv_in.weight.dtype == torch.bfloat16
            assert base.unet.conv_norm_out.weight.dtype == torch.float32
            low = base.predict(latents, torch.tensor([10, 500, 900]), cond)
    assert torch.equal(plain, low)
    assert all(own[name] is weight for name, weight in base.unet.named_parameters())
    with lowered(base):  # where gradients are wanted, the weights stay
        assert base.unet.conv_in.weight.dtype == torch.float32


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
