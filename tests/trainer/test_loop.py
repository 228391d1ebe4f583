"""A training is whole, repeatable, stoppable, and never takes a broken number for a result."""

import csv
import errno
import math
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lorascope.errors import BadInputError, MissingInputError, StorageError, WeightError
from lorascope.io.checkpoints import list_checkpoints
from lorascope.io.dataset_file import read_dataset
from lorascope.io.images import read_image, resize_crop, write_png
from lorascope.io.lora_file import read_lora
from lorascope.io.train_log import read_log
from lorascope.models.base import load_base
from lorascope.records import seed_from
from tests import pipelines
from trainer import loop
from trainer.config import TrainConfig, read_config
from trainer.loop import lr_factor, snr_weights, train

STEPS = 3  # an epoch: 6 of 8 images are trained on, each once, two at a time


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the smallest base model: one attention block down, one in the middle, two up."""
    folder = tmp_path_factory.mktemp("base")
    pipeline = pipelines.sd1(folder)
    torch.manual_seed(0)
    pipeline.unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=[8, 16],
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    return pipelines.saved(pipeline, folder / "tiny")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of one colour each, captioned."""
    root = tmp_path_factory.mktemp("images")
    draw = np.random.default_rng(0)
    for n in range(8):
        colour = draw.integers(0, 256, 3, dtype=np.uint8)
        path = root / "1_hat" / f"{n:02}.png"
        write_png(path, np.broadcast_to(colour, (64, 64, 3)).copy())
        path.with_suffix(".txt").write_text(f"sks, red hat, photo, {n}")
    return root


@pytest.fixture
def config(base_folder: Path, images: Path) -> TrainConfig:
    return TrainConfig(
        base=str(base_folder),
        dataset=str(images),
        name="hat",
        trigger="sks",
        epochs=3,
        batch_size=2,
        rank=2,
        alpha=2.0,
        unet_lr=5e-3,
    )


def checkpoints(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run / "lora").iterdir())}


def stop_after(epoch: int) -> Callable[[int, Path], None]:
    """Press Ctrl-C when an epoch is saved."""

    def stop(done: int, _: Path) -> None:
        if done == epoch:
            raise KeyboardInterrupt

    return stop


def test_a_training_leaves_a_whole_run(config, tmp_path):
    seen = []
    run = train(config, tmp_path / "run", on_epoch=lambda *args: seen.append(args))
    found = list_checkpoints(run.place("lora"))
    assert [(c.path.name, c.epoch, c.step) for c in found] == [
        (f"hat-{e:06}.safetensors", e, e * STEPS) for e in (1, 2, 3)
    ]
    assert seen == [(c.epoch, c.path) for c in found]
    assert read_config(run.place("config")) == config
    dataset = read_dataset(run.place("dataset"))
    assert (len(dataset.train), len(dataset.held_out)) == (6, 2)
    rows = read_log(run.place("log"))
    assert [(r.step, r.epoch) for r in rows] == [(s, (s + 2) // 3) for s in range(1, 10)]
    assert not list(run.path.rglob(".partial-*"))
    assert not run.place("state").joinpath("state.pt").exists()
    assert run.base == config.base
    with run.place("log").open() as log:
        assert next(csv.reader(log)) == ["step", "epoch", "loss", "lr_unet", "lr_text"]


def test_the_weights_move_and_stay_numbers(config, tmp_path):
    train(config, tmp_path / "run")
    first, last = (read_lora(tmp_path / f"run/lora/hat-{e:06}.safetensors") for e in (1, 3))
    for name, module in last.modules.items():
        assert np.isfinite(module.up).all() and module.up.any(), name
        assert not np.array_equal(module.up, first.modules[name].up), name


def test_training_lowers_the_loss_of_what_it_trains_on(config, tmp_path):
    """Same seed, so the noise of step s is the same with and without learning."""
    learning = replace(config, epochs=10, scheduler="constant", batch_size=8, held_out=0)
    losses = {}
    for rate in (2e-2, 1e-12):
        run = train(replace(learning, unet_lr=rate), tmp_path / str(rate))
        losses[rate] = [row.loss for row in read_log(run.place("log"))]
    assert losses[2e-2][0] == losses[1e-12][0]
    assert all(
        moved < still for moved, still in zip(losses[2e-2][4:], losses[1e-12][4:], strict=True)
    )


def test_the_first_loss_is_the_one_the_formula_gives(config, tmp_path):
    """Computed anew from the pictures; the network starts at 0, so the base answers alone."""
    run = train(replace(config, epochs=1, batch_size=1, min_snr_gamma=2.0), tmp_path / "run")
    dataset = read_dataset(run.place("dataset"))
    order = list(range(6))
    draw = random.Random(seed_from(0, "order", 1))
    draw.shuffle(order)
    batches = [[m] for m in order]
    draw.shuffle(batches)
    image = dataset.train[batches[0][0]]
    base = load_base(config.base)
    latent = base.encode_images(resize_crop(read_image(dataset.path(image)), 64, 64)[None])
    noise = torch.randn(
        latent.shape, generator=torch.Generator().manual_seed(seed_from(0, "noise", 1))
    )
    draw_t = torch.Generator().manual_seed(seed_from(0, "timesteps", 1))
    t = torch.randint(0, 1000, (1,), generator=draw_t)
    kept = float(base.noise.alphas_cumprod[t])
    with torch.no_grad():
        cond = base.encode_prompts([image.caption])
        noisy = kept**0.5 * latent + (1 - kept) ** 0.5 * noise
        error = float(((base.predict(noisy, t, cond) - noise) ** 2).mean())
    snr = kept / (1 - kept)
    expected = error * min(snr, 2.0) / snr
    # bfloat16 keeps eight bits, and the two ways need not round alike on any number of threads
    assert read_log(run.place("log"))[0].loss == pytest.approx(expected, rel=2**-8)


def test_the_same_settings_give_the_same_bytes(config, tmp_path):
    train(config, tmp_path / "one")
    np.random.seed(5), torch.manual_seed(5), random.seed(5)
    train(config, tmp_path / "two")
    assert checkpoints(tmp_path / "one") == checkpoints(tmp_path / "two")
    train(replace(config, seed=1), tmp_path / "three")
    assert checkpoints(tmp_path / "one") != checkpoints(tmp_path / "three")


def test_saving_more_often_changes_nothing(config, tmp_path):
    train(config, tmp_path / "one")
    train(replace(config, save_every_epochs=2), tmp_path / "two")
    often, seldom = checkpoints(tmp_path / "one"), checkpoints(tmp_path / "two")
    assert list(seldom) == ["hat-000002.safetensors", "hat-000003.safetensors"]
    assert seldom == {name: often[name] for name in seldom}


def test_global_randomness_is_neither_used_nor_moved(config, tmp_path):
    states = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].copy()
    train(replace(config, shuffle_tags=True, caption_dropout=0.5, text_lr=1e-3), tmp_path / "run")
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert np.array_equal(np.random.get_state()[1], states[2])


@pytest.mark.parametrize("text", [{}, {"text_lr": 1e-3, "shuffle_tags": True}])
def test_a_stopped_training_goes_on_as_if_never_stopped(config, tmp_path, capsys, text):
    config = replace(config, warmup_steps=3, **text)
    train(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "stopped", on_epoch=stop_after(1))
    assert "Saved up to epoch 1" in capsys.readouterr().err
    assert list(checkpoints(tmp_path / "stopped")) == ["hat-000001.safetensors"]
    torch.rand(7)
    train(config, tmp_path / "stopped")
    assert "going on after epoch 1 (step 3)" in capsys.readouterr().err
    assert checkpoints(tmp_path / "stopped") == checkpoints(tmp_path / "whole")
    logs = [(tmp_path / name / "train/log.csv").read_bytes() for name in ("whole", "stopped")]
    assert logs[0] == logs[1]


def test_steps_after_the_saved_epoch_are_done_again_and_logged_once(config, tmp_path, monkeypatch):
    real = loop.batch_loss

    def killed(job, batch, texts, step):
        if step == 5:
            raise KeyboardInterrupt
        return real(job, batch, texts, step)

    monkeypatch.setattr(loop, "batch_loss", killed)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run")
    assert len(read_log(tmp_path / "run/train/log.csv")) == 4
    monkeypatch.undo()
    train(config, tmp_path / "run")
    assert [r.step for r in read_log(tmp_path / "run/train/log.csv")] == list(range(1, 10))


def test_a_finished_training_is_left_as_it_is(config, tmp_path, capsys):
    train(config, tmp_path / "run")
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*") if p.is_file()}
    train(config, tmp_path / "run")
    assert "trained already" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*") if p.is_file()} == times


def test_a_damaged_state_is_refused_by_name(config, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", on_epoch=stop_after(1))
    state = tmp_path / "run/train/state/state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(BadInputError, match=r"state\.pt is damaged.*\n.*delete it"):
        train(config, tmp_path / "run")
    state.unlink()
    train(config, tmp_path / "run")
    assert len(checkpoints(tmp_path / "run")) == 3


def test_another_training_in_the_same_run_is_refused_with_the_reason(config, tmp_path, images):
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", on_epoch=stop_after(1))
    before = checkpoints(tmp_path / "run")
    with pytest.raises(BadInputError, match="another training: epochs 3, now 4; rank 2, now 3"):
        train(replace(config, epochs=4, rank=3), tmp_path / "run")
    caption = images / "1_hat" / "00.txt"
    text = caption.read_text()
    caption.write_text("other")
    with pytest.raises(BadInputError, match="the images or their captions"):
        train(config, tmp_path / "run")
    caption.write_text(text)
    assert checkpoints(tmp_path / "run") == before


def test_a_second_training_in_a_run_keeps_the_split(config, tmp_path, monkeypatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "batch_loss", killed)
    held_out = []
    for seed in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            train(replace(config, seed=seed), tmp_path / "run")
        known = read_dataset(tmp_path / "run/train/dataset.json")
        held_out.append({image.file for image in known.held_out})
    assert len(held_out[0]) == 2
    assert held_out[0] == held_out[1]


def test_held_out_images_are_never_opened_for_training(config, tmp_path, monkeypatch):
    trained = set()
    real = loop.batch_loss

    def watched(job, batch, texts, step):
        trained.update(job.images[m].image.file for m in batch.members)
        return real(job, batch, texts, step)

    monkeypatch.setattr(loop, "batch_loss", watched)
    run = train(config, tmp_path / "run")
    dataset = read_dataset(run.place("dataset"))
    assert trained == {image.file for image in dataset.train}
    assert not trained & {image.file for image in dataset.held_out}


def test_a_loss_that_is_no_number_stops_at_once_and_keeps_what_is_saved(
    config, tmp_path, monkeypatch
):
    real = loop.batch_loss

    def broken(job, batch, texts, step):
        return real(job, batch, texts, step) * (math.nan if step == 5 else 1)

    monkeypatch.setattr(loop, "batch_loss", broken)
    with pytest.raises(WeightError) as caught:
        train(config, tmp_path / "run")
    assert "stopped at step 5 (epoch 2)" in str(caught.value)
    assert "Saved up to epoch 1" in str(caught.value)
    assert "lower unet_lr (to 0.00125)" in str(caught.value)
    assert list(checkpoints(tmp_path / "run")) == ["hat-000001.safetensors"]
    assert len(read_log(tmp_path / "run/train/log.csv")) == 4


def test_a_gradient_that_is_no_number_stops_as_well(config, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "clip", lambda *_: math.inf)
    with pytest.raises(WeightError, match=r"step 1 .*No epoch was saved yet"):
        train(config, tmp_path / "run")


def test_a_weight_that_is_no_number_is_never_saved(config, tmp_path, monkeypatch):
    real = loop.batch_loss

    def poisoned(job, batch, texts, step):
        loss = real(job, batch, texts, step)
        if step == STEPS:
            next(iter(job.network.weights().values())).data[0, 0] = math.nan
        return loss

    monkeypatch.setattr(loop, "batch_loss", poisoned)
    with pytest.raises(WeightError, match="the end of epoch 1"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run/lora").exists()


def test_a_full_disk_keeps_what_is_saved_and_the_same_call_goes_on(config, tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    train(config, tmp_path / "whole")
    with pytest.raises(StorageError, match="disk is full"):
        train(config, tmp_path / "run", on_epoch=lambda *_: monkeypatch.setattr(os, "fsync", full))
    assert list(checkpoints(tmp_path / "run")) == ["hat-000001.safetensors"]
    monkeypatch.undo()
    train(config, tmp_path / "run")
    assert checkpoints(tmp_path / "run") == checkpoints(tmp_path / "whole")


def test_tensorboard_reads_the_curves(config, tmp_path):
    run = train(replace(config, text_lr=1e-3, epochs=2), tmp_path / "run")
    board = EventAccumulator(str(run.place("board")))
    board.Reload()
    tags = ["loss/current", "loss/average", "lr/unet", "lr/textencoder"]
    assert sorted(board.Tags()["scalars"]) == sorted(tags)
    rows = read_log(run.place("log"))
    for tag, values in (
        ("loss/current", [r.loss for r in rows]),
        ("lr/unet", [r.lr_unet for r in rows]),
        ("lr/textencoder", [r.lr_text for r in rows]),
        ("loss/average", [np.mean([r.loss for r in rows if r.epoch == e]) for e in (1, 2)]),
    ):
        assert [e.value for e in board.Scalars(tag)] == pytest.approx(values, rel=1e-5)
    assert [e.step for e in board.Scalars("loss/average")] == [3, 6]


def test_a_bad_image_is_named_and_training_goes_on(config, tmp_path, images, capsys):
    folder = tmp_path / "images" / "1_hat"
    folder.mkdir(parents=True)
    for path in (images / "1_hat").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    torn = folder / "03.png"
    torn.write_bytes(torn.read_bytes()[:60])
    run = train(replace(config, dataset=str(folder.parent), epochs=1), tmp_path / "run")
    assert "skipped" in (said := capsys.readouterr().err) and "03.png" in said
    assert len(read_dataset(run.place("dataset")).images) == 7


def test_an_unusable_dataset_is_refused_before_anything_is_written(config, tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(BadInputError, match="no images"):
        train(replace(config, dataset=str(tmp_path / "images")), tmp_path / "run")
    with pytest.raises(MissingInputError):
        train(replace(config, dataset=str(tmp_path / "nowhere")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_with_other_things_in_it_is_not_touched(config, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(BadInputError, match="not a run"):
        train(config, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_run_names_the_files_where_the_settings_do_not(config, tmp_path):
    train(replace(config, name="", epochs=1), tmp_path / "fern")
    assert list(checkpoints(tmp_path / "fern")) == ["fern-000001.safetensors"]


def test_both_text_encoders_of_sdxl_are_trained(config, tmp_path):
    base = pipelines.saved(pipelines.sdxl(tmp_path), tmp_path / "sdxl")
    sdxl = replace(config, base=str(base), epochs=1, text_lr=1e-3)
    run = train(sdxl, tmp_path / "run")
    modules = read_lora(run.place("lora") / "hat-000001.safetensors").modules.values()
    moved = {m.name.split("_")[1] for m in modules if m.up.any()}
    assert moved == {"unet", "te1", "te2"}


def test_min_snr_gives_the_weights_of_the_paper(base_folder):
    base = load_base(str(base_folder))
    steps = torch.tensor([0, 300, 999])
    snr = base.noise.alphas_cumprod[steps] / (1 - base.noise.alphas_cumprod[steps])
    weights = snr_weights(base, steps, 5.0)
    assert weights[0] == pytest.approx(5 / float(snr[0]))
    assert weights[2] == 1
    assert torch.equal(snr_weights(base, steps, 0), torch.ones(3))
    base.prediction_type = "v_prediction"
    assert snr_weights(base, steps, 5.0)[2] == pytest.approx(float(snr[2] / (snr[2] + 1)))


def test_learning_rates_rise_in_equal_parts_and_fall_as_a_cosine():
    rates = [lr_factor("cosine", 4, step, 14) for step in range(1, 15)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[9] == pytest.approx(0.5)
    assert 0 < rates[-1] < 0.03
    assert {lr_factor("constant", 0, step, 14) for step in range(1, 15)} == {1.0}


def test_a_log_line_of_every_epoch_goes_to_stderr_and_nothing_to_stdout(config, tmp_path, capsys):
    train(config, tmp_path / "run")
    said = capsys.readouterr()
    assert said.out == ""
    assert [line[:15] for line in said.err.splitlines() if line.startswith("epoch")] == [
        f"epoch {e}/3: loss" for e in (1, 2, 3)
    ]
