"""The base model's likelihood of texts: known answers, batches, shared noise."""

import numpy as np
import pytest
import torch

from lorascope.models.likelihood import Likelihood, predict_in_halves
from tests import pipelines

LONG = "cat " * 80  # two chunks of tokens


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return pipelines.base_of(pipelines.sd1(tmp_path_factory.mktemp("words")))


@pytest.fixture
def latents():
    drawn = torch.Generator().manual_seed(0)
    return [torch.randn((4, *size), generator=drawn) for size in ((8, 8), (8, 8), (16, 8))]


TEXTS = (("", "a red cat"), ("", "dog", "castle"), ("a red cat",))


def test_a_loss_is_the_mean_square_error_of_the_prediction(base, latents):
    asker = Likelihood(base, timesteps=(100, 600), seed=3)
    found = asker.losses(latents, TEXTS)
    assert [rows.shape for rows in found] == [(2, 2), (3, 2), (1, 2)]
    noise = asker._noise_of((4, 8, 8))
    for k, at in enumerate((100, 600)):
        times = torch.tensor([at])
        clean, drawn = latents[1][None], noise[k : k + 1]
        with torch.no_grad():
            cond = base.encode_prompts(["castle"])
            said = base.predict(base.add_noise(clean, drawn, times), times, cond)
        wanted = float((said - drawn).square().mean())
        assert found[1][2, k] == pytest.approx(wanted, rel=1e-4)


def test_velocity_is_compared_with_velocity(tmp_path, latents):
    base = pipelines.base_of(pipelines.sd2(tmp_path))
    asker = Likelihood(base, timesteps=(400,))
    found = asker.losses(latents[:1], [["cat"]])
    drawn, times = asker._noise_of((4, 8, 8)), torch.tensor([400])
    with torch.no_grad():
        noisy = base.add_noise(latents[0][None], drawn, times)
        said = base.predict(noisy, times, base.encode_prompts(["cat"]))
    wanted = said - base.noise.get_velocity(latents[0][None], drawn, times)
    assert found[0][0, 0] == pytest.approx(float(wanted.square().mean()), rel=1e-4)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_the_batch_has_no_influence_beyond_rounding(base, latents, batch):
    usual = Likelihood(base, timesteps=(100, 600)).losses(latents, TEXTS)
    other = Likelihood(base, timesteps=(100, 600), batch=batch).losses(latents, TEXTS)
    for one, two in zip(usual, other, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4)


def test_a_picture_is_answered_alike_whoever_is_asked_with_it(base, latents):
    asker = Likelihood(base, timesteps=(100, 600))
    together = asker.losses(latents, [("", "cat"), ("", LONG), ("dog",)])
    alone = asker.losses(latents[:1], [("", "cat")])
    np.testing.assert_allclose(together[0], alone[0], rtol=1e-4)


def test_texts_and_pictures_meet_the_same_noise(base, latents):
    asker = Likelihood(base, timesteps=(100, 600))
    twice = asker.losses([latents[0], latents[0]], [("cat", "cat"), ("cat",)])
    np.testing.assert_allclose(twice[0][0], twice[0][1], rtol=1e-4)
    np.testing.assert_allclose(twice[0][0], twice[1][0], rtol=1e-4)


def test_the_seed_decides_the_noise(base, latents):
    def ask(seed):
        return Likelihood(base, timesteps=(100,), seed=seed).losses(latents[:1], [("cat",)])[0]

    np.testing.assert_array_equal(ask(1), ask(1))
    assert not np.allclose(ask(1), ask(2), rtol=1e-3)


def test_each_text_is_encoded_once(base, latents, monkeypatch):
    seen = []
    usual = type(base).encode_prompts

    def watched(self, prompts, **options):
        seen.extend(prompts)
        return usual(self, prompts, **options)

    monkeypatch.setattr(type(base), "encode_prompts", watched)
    asker = Likelihood(base, timesteps=(100, 600), batch=2)
    for _ in range(2):
        asker.losses(latents, TEXTS)
    assert sorted(seen) == ["", "a red cat", "castle", "dog"]


def test_a_text_and_none_are_padded_alike(base, latents, monkeypatch):
    seen = []
    usual = type(base).predict

    def watched(self, noisy, at, cond):
        seen.append((len(noisy), cond.hidden.shape[1]))
        return usual(self, noisy, at, cond)

    monkeypatch.setattr(type(base), "predict", watched)
    asker = Likelihood(base, timesteps=(100,))
    asker.losses(latents[:2], [("", LONG), ("", "cat")])
    asker.losses(latents[:1], [("",)], chunks=[2])
    assert seen == [(2, 2 * 77), (2, 77), (1, 2 * 77)]


def test_the_caller_is_told_how_many_forwards_were_done(base, latents):
    done = []
    before = base.forwards
    Likelihood(base, timesteps=(100, 600), batch=4).losses(latents, TEXTS, on_batch=done.append)
    assert sum(done) == base.forwards - before == 12
    assert max(done) <= 4


def test_no_picture_is_no_answer(base):
    assert Likelihood(base, timesteps=(100,)).losses([], []) == []


def test_a_batch_without_room_is_asked_in_halves(base, latents, monkeypatch):
    cond = base.encode_prompts(["cat", "dog", "castle", ""])
    noisy, at = torch.stack([latents[0]] * 4), torch.full((4,), 100)
    with torch.no_grad():
        whole = base.predict(noisy, at, cond)
    usual, sizes = type(base).predict, []

    def small(self, noisy, *rest):
        if len(noisy) > 1:
            raise torch.OutOfMemoryError
        sizes.append(len(noisy))
        return usual(self, noisy, *rest)

    monkeypatch.setattr(type(base), "predict", small)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    with torch.no_grad():
        halves = predict_in_halves(base, noisy, at, cond)
    assert sizes == [1, 1, 1, 1]
    np.testing.assert_allclose(halves.numpy(), whole.numpy(), atol=1e-4)
