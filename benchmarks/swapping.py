"""Swapping LoRAs, and reading their spectra: ``python -m benchmarks.swapping``.

A UNet in the shape of SD 1.5 with random weights in bf16, and LoRA files of rank 32 for its 192
attention and feed-forward layers. A swap is reading a file and merging it; diffusers' unload and
load is timed in turn with it. After all swaps every weight must be, bit for bit, what a fresh copy
gives. Processor seconds on one thread: a busy machine makes a clock lie.
"""

import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging

from lorascope import storage
from lorascope.io.lora_file import LoraModule, read_lora, write_lora
from lorascope.metrics.lowrank import dense, spectra
from lorascope.models.base import Base
from lorascope.models.lora import Merger, module_names

RESULTS = Path(__file__).parent / "results" / "swapping.json"
RANK, FILES, SWAPS = 32, 3, 50
WIDE_TEXT = 768  # what cross attention of SD 1.5 reads
LAYERS = (".to_q", ".to_k", ".to_v", ".to_out.0", ".ff.net.0.proj", ".ff.net.2")
SAMPLE = 61  # every so many modules of the SDXL file, one goes through the full decomposition
SDXL = (  # part, width, transformer layers, blocks
    ("down_blocks_1", 640, 2, 2),
    ("down_blocks_2", 1280, 10, 2),
    ("mid_block", 1280, 10, 1),
    ("up_blocks_0", 1280, 10, 3),
    ("up_blocks_1", 640, 2, 3),
)
SDXL_TEXT = (("te1", 768, 12), ("te2", 1280, 32))


def random_unet(seed: int = 0) -> Any:
    """Make SD 1.5's UNet with small random weights in bf16, without drawing each of them."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=WIDE_TEXT)
    unet = unet.to(dtype=torch.bfloat16).to_empty(device="cpu").eval().requires_grad_(False)
    pool = torch.randn(2**20, generator=torch.Generator().manual_seed(seed)).bfloat16() * 0.02
    for values in unet.state_dict().values():
        flat = values.view(-1)
        for start in range(0, len(flat), len(pool)):
            piece = flat[start : start + len(pool)]
            piece.copy_(pool[: len(piece)])
    return unet


def bare_base(unet: Any) -> Base:
    """Make a base model of a UNet alone."""
    nothing: Any = None
    return Base(
        name="SD 1.5 shape", family="sd1", unet=unet, vae=nothing, text_encoders=[], tokenizers=[],
        noise=nothing, prediction_type="epsilon", device=torch.device("cpu"),
        compute_dtype=torch.bfloat16, latent_scale=0.18215, latent_shift=0.0, latent_channels=4,
        pixels_per_latent=8, size=512,
    )  # fmt: skip


def attention_layers(unet: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    """List kohya's names and shapes of the 192 layers that a LoRA usually adapts."""
    for path, layer in unet.named_modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d) and (
            (path.endswith(LAYERS) and "transformer_blocks" in path)
            or path.endswith(("proj_in", "proj_out"))
        ):
            yield f"lora_unet_{path.replace('.', '_')}", tuple(layer.weight.shape)


def random_file(path: Path, shapes: list[tuple[str, tuple[int, ...]]], seed: int) -> None:
    """Write a LoRA of rank 32 for these layers."""
    draw = np.random.default_rng(seed)

    def numbers(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return draw.normal(0.0, 0.05, shape).astype(np.float32)

    fall = np.exp(-np.arange(RANK) / 8).astype(np.float32)  # no LoRA uses its directions alike
    modules = []
    for name, (out, inner, *kernel) in shapes:
        ones = [1 for _ in kernel]
        up = (numbers(out, RANK) * fall).reshape(out, RANK, *ones)
        modules.append(LoraModule(name, numbers(RANK, inner, *kernel), up, RANK / 2))
    write_lora(path, modules, {})


def processor_seconds(call: Callable[[], object]) -> float:
    """Time one call on the processor's clock."""
    started = time.process_time()
    call()
    return time.process_time() - started


def swapping_rows(folder: Path) -> list[dict[str, object]]:
    """Time swaps between three files, ours and diffusers' in turn, and compare all bits."""
    unet = random_unet()
    shapes = list(attention_layers(unet))
    files = [folder / f"{number}.safetensors" for number in range(FILES)]
    for number, file in enumerate(files):
        random_file(file, shapes, number)
    base = bare_base(unet)
    merger = Merger(base)
    ours, theirs = _timed_swaps(merger, files)
    last = files[(SWAPS - 1) % FILES]
    fresh = bare_base(random_unet())
    Merger(fresh).apply(read_lora(last))
    equal = _same_bits(base, fresh)
    del fresh
    merger.restore()
    restored = _same_bits(base, bare_base(random_unet()))
    own, other = statistics.median(ours), statistics.median(theirs)
    return [
        {"what": f"swap, {len(shapes)} modules, rank {RANK}", "seconds": round(own, 3),
         "slowest": round(max(ours), 3), "diffusers": round(other, 3),
         "ratio": round(other / own, 2)},
        {"what": f"bits after {SWAPS} swaps", "equal_to_fresh": equal, "restored": restored},
    ]  # fmt: skip


def _timed_swaps(merger: Merger, files: list[Path]) -> tuple[list[float], list[float]]:
    pipeline = _diffusers_pipeline(random_unet())
    ours: list[float] = []
    theirs: list[float] = []
    merger.apply(read_lora(files[-1]))  # so that the base model's weights are copied already
    for turn in range(SWAPS):
        file = files[turn % FILES]
        ours.append(processor_seconds(partial(_swap, merger, file)))
        if turn % 5 == 0:
            theirs.append(processor_seconds(partial(_reload, pipeline, file)))
    return ours, theirs


def _swap(merger: Merger, file: Path) -> None:
    merger.apply(read_lora(file))


def weights_rows(folder: Path) -> list[dict[str, object]]:
    """Time all singular values of an SDXL file beside the full decomposition of a sample."""
    path = folder / "sdxl.safetensors"
    random_file(path, list(_sdxl_shapes()), seed=9)
    ours, full, error = [], 0.0, 0.0
    for _ in range(3):
        started = time.process_time(), time.perf_counter()
        modules = list(read_lora(path).modules.values())
        found = spectra([module.factors() for module in modules])
        ours.append((time.process_time() - started[0], time.perf_counter() - started[1]))
    own = statistics.median(seconds for seconds, _ in ours)
    sampled = range(0, len(modules), SAMPLE)
    entries = sum(_cost(modules[place].size) for place in sampled)
    for place in sampled:
        whole = dense(modules[place].factors()).astype(np.float32)
        started_one = time.process_time()
        values = np.linalg.svd(whole, compute_uv=False)[:RANK]
        full += time.process_time() - started_one
        exact = np.linalg.svd(whole.astype(np.float64), compute_uv=False)[:RANK]
        large = exact > 1e-3 * exact[0]
        error = max(error, float(np.abs(found[place][large] / exact[large] - 1).max()))
        assert len(values) == RANK
    whole_file = full * sum(_cost(m.size) for m in modules) / entries
    return [
        {"what": f"spectra of an SDXL file, {len(modules)} modules, rank {RANK}, reading included",
         "seconds": round(own, 3), "wall": round(statistics.median(w for _, w in ours), 3),
         "full_svd": round(whole_file, 1), "ratio": round(whole_file / own),
         "largest_relative_error": float(f"{error:.1e}")},
    ]  # fmt: skip


def _cost(size: tuple[int, int]) -> float:
    """Give the operations of a full decomposition, up to a factor."""
    return max(size) * min(size) ** 2


def _sdxl_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    for part, width, layers, blocks in SDXL:
        for block in range(blocks):
            start = f"lora_unet_{part}_attentions_{block}"
            for end in ("proj_in", "proj_out"):
                yield f"{start}_{end}", (width, width)
            for layer in range(layers):
                inner = f"{start}_transformer_blocks_{layer}"
                for attention, text in (("attn1", width), ("attn2", 2048)):
                    for end, reads in (("q", width), ("k", text), ("v", text), ("out_0", width)):
                        yield f"{inner}_{attention}_to_{end}", (width, reads)
                yield f"{inner}_ff_net_0_proj", (8 * width, width)
                yield f"{inner}_ff_net_2", (width, 4 * width)
    for encoder, width, layers in SDXL_TEXT:
        for layer in range(layers):
            start = f"lora_{encoder}_text_model_encoder_layers_{layer}"
            for end in ("q", "k", "v", "out"):
                yield f"{start}_self_attn_{end}_proj", (width, width)
            yield f"{start}_mlp_fc1", (4 * width, width)
            yield f"{start}_mlp_fc2", (width, 4 * width)


def _diffusers_pipeline(unet: Any) -> Any:
    """Make a pipeline that has nothing but a UNet: enough to load a LoRA into."""
    return StableDiffusionPipeline(
        vae=None, text_encoder=None, tokenizer=None, unet=unet, scheduler=None,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def _reload(pipeline: Any, file: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline.unload_lora_weights()
        pipeline.load_lora_weights(str(file.parent), weight_name=file.name)


def _same_bits(one: Base, other: Base) -> bool:
    twins = module_names(other)
    return all(
        torch.equal(layer.weight, twins[name].weight)  # type: ignore[arg-type]  # all have one
        for name, layer in module_names(one).items()
    )


@click.command()
@click.option("--threads", default=1, show_default=True)
def main(threads: int) -> None:
    """Time swaps and spectra, compare all bits, and write the table."""
    torch.set_num_threads(threads)
    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        rows = [*weights_rows(Path(folder)), *swapping_rows(Path(folder))]
    for row in rows:
        click.echo("  ".join(f"{key} {value}" for key, value in row.items()))
    found = {"threads": threads, "rows": rows}
    storage.write_text(RESULTS, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
