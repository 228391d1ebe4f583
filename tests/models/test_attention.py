import sys
import types
import warnings

import numpy as np
import pytest
import torch

from lorascope.errors import BadInputError, MissingInputError
from lorascope.models import attention, sampling
from lorascope.models.attention import capture, token_positions
from tests import pipelines

PROMPT = "a photo, red hat, cat"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return pipelines.base_of(pipelines.sd1(tmp_path_factory.mktemp("sd1")))


class Explicit:
    """Attention written out, the oracle: keeps the conditional rows' probabilities."""

    def __init__(self, kept, grid, first):
        self.kept, self.grid, self.first = kept, grid, first

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *_args, **_options):
        def heads(x):
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        queries, keys = heads(attn.to_q(hidden_states)), heads(attn.to_k(encoder_hidden_states))
        shares = (queries @ keys.transpose(-1, -2) * attn.scale).softmax(-1)
        self.kept.append(shares[self.first :].permute(0, 3, 1, 2).unflatten(-1, self.grid))
        mixed = shares @ heads(attn.to_v(encoder_hidden_states))
        return attn.to_out[0](mixed.transpose(1, 2).flatten(-2))


def expected(base, prompts, seeds, tokens, *, height, width, **options):
    """Maps by the written-out attention: (N, T, h, w)."""
    guided = options.get("guidance", 5.0) != 1.0
    processors, kept, first = dict(base.unet.attn_processors), {}, len(prompts) if guided else 0
    changed = dict(processors)
    depth = {"down_blocks.0": 1, "down_blocks.1": 2, "down_blocks.2": 4}
    depth |= {"up_blocks.1": 4, "up_blocks.2": 2, "up_blocks.3": 1}
    for name in processors:
        if name.endswith("attn2.processor") and not name.startswith("mid"):
            factor = depth[".".join(name.split(".")[:2])]
            grid = (-(-height // 8 // factor), -(-width // 8 // factor))
            changed[name] = Explicit(kept.setdefault(name, []), grid, first)
    base.unet.set_attn_processor(changed)
    sampling.sample_latents(base, prompts, seeds, height=height, width=width, **options)
    base.unet.set_attn_processor(processors)
    layers = []
    for steps in kept.values():
        sums = torch.stack(steps).sum(0)  # N, 77, heads, h, w
        for head in range(sums.shape[2]):
            layers.append(
                torch.nn.functional.interpolate(
                    sums[:, :, head], size=(height // 8, width // 8), mode="bicubic"
                ).clamp(min=0)
            )
    return torch.stack(layers).mean(0)[:, tokens].numpy()


@pytest.mark.parametrize(
    ("height", "width", "guidance"), [(64, 64, 5.0), (64, 104, 5.0), (72, 40, 1.0)]
)
def test_maps_are_those_of_attention_written_out(base, height, width, guidance):
    options = {"height": height, "width": width, "guidance": guidance, "steps": 2}
    prompts, seeds, tokens = [PROMPT, "a dog, red hat, cat"], [1, 2], [2, 3, 5]
    wanted = expected(base, prompts, seeds, tokens, **options)
    with capture(base, tokens) as recorder:
        sampling.sample_latents(base, prompts, seeds, **options)
    for image in (0, 1):
        maps = recorder.maps(image)
        assert maps.dtype == np.float32
        assert maps.shape == (3, height // 8, width // 8)
        np.testing.assert_allclose(maps, wanted[image], atol=1e-4)
    assert np.abs(wanted[0] - wanted[1]).max() > 0.01
    assert np.abs(wanted[0][0] - wanted[0][1]).max() > 0.01


def test_maps_of_an_image_do_not_depend_on_the_batch_it_is_in(base):
    prompts = ["a cat", ", ".join(["red hat"] * 40), "a dog"]
    with capture(base, [[1, 2], [3], [2]]) as recorder:
        sampling.sample_latents(base, prompts, [1, 2, 3], steps=2, batch=2)
    with capture(base, [2]) as alone:
        sampling.sample_latents(base, ["a dog"], [3], steps=2)
    assert [len(recorder.maps(image)) for image in range(3)] == [2, 1, 1]
    np.testing.assert_allclose(recorder.maps(2), alone.maps(0), atol=1e-3)
    assert np.abs(recorder.maps(0)[1] - alone.maps(0)[0]).max() > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_pictures_are_the_same_to_the_bit_with_and_without_capture(base, dtype, guidance):
    base.compute_dtype = dtype
    options = {"steps": 2, "guidance": guidance}
    try:
        plain = sampling.sample_latents(base, [PROMPT] * 2, [1, 2], **options)
        with capture(base, [1, 2]):
            watched = sampling.sample_latents(base, [PROMPT] * 2, [1, 2], **options)
        after = sampling.sample_latents(base, [PROMPT] * 2, [1, 2], **options)
    finally:
        base.compute_dtype = torch.float32
    assert torch.equal(plain, watched)
    assert torch.equal(plain, after)


def test_nothing_is_left_behind_even_after_an_error(base):
    with pytest.raises(ZeroDivisionError), capture(base):
        raise ZeroDivisionError
    assert base.observer is None
    assert not any(
        layer._forward_hooks or layer._forward_pre_hooks for layer in base.unet.modules()
    )


def test_all_tokens_share_the_attention_of_every_step(base):
    with capture(base) as recorder:
        sampling.sample_latents(base, [PROMPT], [1], steps=3)
    maps = recorder.maps(0, min_grid=8)  # nothing is enlarged, so nothing is clamped
    assert maps.shape == (77, 8, 8)
    np.testing.assert_allclose(maps.sum(0), 3.0, atol=1e-3)


def test_the_middle_block_does_not_count(base):
    with capture(base, [1]) as recorder:
        sampling.sample_latents(base, [PROMPT], [1], steps=1)
    assert {place.layer.split(".")[0] for place in recorder._sums} == {"down_blocks", "up_blocks"}


@pytest.mark.parametrize(
    ("latent", "grids", "counted"),
    [(64, (64, 32, 16, 8), (64, 32, 16)), (16, (16, 8), (16, 8)), (128, (64, 32), (64, 32))],
)
def test_only_grids_finer_than_an_eighth_of_the_latent_count(base, latent, grids, counted):
    recorder = attention.Recorder(base, [0])
    recorder.latent = (latent, latent)
    for side in grids:
        place = attention._Place(f"layer {side}", 0)
        recorder._sums[place] = torch.full((1, 1, side, side), float(side))
    expected_mean = sum(counted) / len(counted)
    np.testing.assert_allclose(recorder.maps(0, size=(4, 4)), expected_mean, rtol=1e-5)
    everything = recorder.maps(0, size=(4, 4), min_grid=1)
    np.testing.assert_allclose(everything, sum(grids) / len(grids), rtol=1e-5)


def test_a_plain_forward_counts_every_row_as_an_image(base):
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    cond = base.encode_prompts(["a cat", "a dog"])
    with capture(base, [2]) as recorder, torch.no_grad():
        base.predict(latents, torch.tensor([500, 500]), cond)
    assert recorder.maps(0).shape == recorder.maps(1).shape == (1, 8, 8)
    assert not np.array_equal(recorder.maps(0), recorder.maps(1))


def test_asking_for_what_was_not_recorded_is_refused(base):
    with capture(base, [1]) as recorder, pytest.raises(MissingInputError, match="image 0"):
        recorder.maps(0)
    with capture(base), pytest.raises(BadInputError, match="already"), capture(base):
        pass


def test_positions_cover_all_pieces_of_a_tag_at_every_occurrence(base):
    assert token_positions(base, "red hat, cat", "cat") == [4]
    assert token_positions(base, "red hat, cat", "red hat") == [1, 2]
    assert token_positions(base, "cat, dog, cat", "cat") == [1, 5]
    unknown = token_positions(base, "cat, zq w, dog", "zq w")
    assert unknown == [3, 4, 5]  # the tokenizer spells out what it does not know: z, q and w
    assert token_positions(base, "cat, dog", "person") == []
    assert token_positions(base, "cat", "") == []


def test_a_whole_tag_is_not_looked_for_inside_another(base):
    assert token_positions(base, "red hat, hat, cat", "hat") == [4]
    assert token_positions(base, "a cat with red hat", "hat") == [5]
    assert token_positions(base, "A Cat, dog", " a cat ") == [1, 2]


def test_positions_go_on_counting_in_the_second_chunk(base):
    prompt = ", ".join(["red hat"] * 30 + ["cat"])
    (place,) = token_positions(base, prompt, "cat")
    assert place == 77 + 1 + (30 * 3 - 75)
    ids = base.tokenizers[0](prompt, add_special_tokens=False, verbose=False).input_ids
    assert len(ids) == 91


@pytest.fixture
def daam(monkeypatch):
    """The reference package; spaCy, which it names in a type only, is replaced by a stand-in."""
    if "spacy" not in sys.modules:
        spacy, tokens = types.ModuleType("spacy"), types.ModuleType("spacy.tokens")
        spacy.tokens, tokens.Token = tokens, object
        monkeypatch.setitem(sys.modules, "spacy", spacy)
        monkeypatch.setitem(sys.modules, "spacy.tokens", tokens)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("daam", exc_type=ImportError)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch.cuda.amp in the reference
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # in diffusers' own call
@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_maps_are_those_of_the_reference_package(tmp_path, daam, kind):
    pipeline = (
        pipelines.sd1(tmp_path, sample_size=64)
        if kind == "sd1"
        else pipelines.sdxl(tmp_path, sample_size=128)
    )
    pipeline.set_progress_bar_config(disable=True)
    base = pipelines.base_of(pipeline)
    prompt = "a photo of a cat with red hat"
    with torch.no_grad(), daam.trace(pipeline, data_dir=str(tmp_path)) as traced:
        pipeline(
            prompt,
            negative_prompt="",
            height=256,
            width=256,
            num_inference_steps=2,
            guidance_scale=5.0,
            generator=torch.Generator("cpu").manual_seed(0),
            output_type="latent",
        )
        wanted = traced.compute_global_heat_map().heat_maps.numpy()
    with capture(base, range(len(wanted))) as recorder:
        sampling.sample_latents(
            base,
            [prompt],
            [0],
            width=256,
            height=256,
            steps=2,
            sampler="ddim" if kind == "sd1" else "euler",
        )
    ours = recorder.maps(0, size=(64, 64), min_grid=9)  # it drops 8 x 8 grids at every size
    assert wanted.max() > 0.2
    assert wanted.std() > 0.01
    np.testing.assert_allclose(ours, wanted, atol=1e-4)
