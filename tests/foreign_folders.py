"""Folders as other trainers leave them behind, written key by key from what is known of each."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from lorascope.io.images import write_png

SITES = [
    f"{side}_blocks_{n}_attentions_0_transformer_blocks_0_attn2_to_{part}"
    for side, n in (("down", 0), ("up", 1))
    for part in ("k", "v")
]
STARTED = datetime(2024, 5, 1, 12, 0, 0).timestamp()


def kohya_tensors(seed: int, rank: int = 4) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    tensors = {}
    for site in SITES:
        name = f"lora_unet_{site}"
        tensors[f"{name}.lora_down.weight"] = draw.normal(size=(rank, 768)).astype(np.float16)
        up = draw.normal(size=(320, rank)) * 0.01 * (seed + 1)
        tensors[f"{name}.lora_up.weight"] = up.astype(np.float16)
        tensors[f"{name}.alpha"] = np.array(rank / 2, np.float16)
    return tensors


def peft_tensors(seed: int, rank: int = 4) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    site = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    return {
        f"{site}.lora_A.weight": draw.normal(size=(rank, 768)).astype(np.float32),
        f"{site}.lora_B.weight": draw.normal(size=(320, rank)).astype(np.float32),
    }


def save(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), path, metadata=dict(metadata) or None)
    return path


def picture(path: Path, seed: int = 0, side: int = 16) -> Path:
    draw = np.random.default_rng(seed)
    write_png(path, draw.integers(0, 256, (side, side, 3), dtype=np.uint8))
    return path


def events(folder: Path, tags: Sequence[str], *, start: float, steps: int = 5) -> Path:
    """Write an event file with TensorBoard's own writer, begun at a time."""
    from torch.utils.tensorboard import SummaryWriter

    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.iterdir())
    with SummaryWriter(str(folder)) as writer:
        for step in range(1, steps + 1):
            for tag in tags:
                writer.add_scalar(tag, 1 / step, step, walltime=start + step)
    made = next(iter(set(folder.iterdir()) - before))
    return made.rename(folder / f"events.out.tfevents.{int(start)}.host.1.0")


def pickled_tensors(seed: int, dtype: str) -> dict[str, np.ndarray]:
    """Give kohya's tensors with values that need as many bits as a type has."""
    import torch

    types = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
    draw = np.random.default_rng(seed)
    return {
        name: torch.tensor(draw.normal(size=values.shape)).to(types[dtype]).float().numpy()
        for name, values in kohya_tensors(seed).items()
    }


def pickled(
    path: Path,
    seed: int,
    *,
    dtype: str = "F16",
    zipped: bool = True,
    start: str = "",
    peft: bool = False,
) -> Path:
    """Write a LoRA as kohya's ``save_model_as = "ckpt"`` does, or something else by its keys."""
    import torch

    types = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
    path.parent.mkdir(parents=True, exist_ok=True)
    held = peft_tensors(seed) if peft else pickled_tensors(seed, dtype)
    tensors = {
        f"{start}{name[-9:] if start else name}": torch.from_numpy(values).to(types[dtype])
        for name, values in held.items()
    }
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    return path


class Touching:
    """On loading by plain pickle, makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


def dangerous(path: Path, makes: Path) -> Path:
    """Write a pickle that looks like a LoRA and would make a file when it is loaded."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({f"lora_unet_{SITES[0]}.lora_up.weight": Touching(makes)}, path)
    return path


def kohya_metadata(epoch: int, **changed: object) -> dict[str, str]:
    told: dict[str, object] = {
        "ss_session_id": 4711,
        "ss_training_started_at": STARTED,
        "ss_training_finished_at": STARTED + 60 * epoch,
        "ss_output_name": "fern",
        "ss_sd_scripts_commit_hash": "48d368fa",
        "ss_seed": 42,
        "ss_steps": 20 * epoch,
        "ss_epoch": epoch,
        "ss_num_epochs": 4,
        "ss_max_train_steps": 80,
        "ss_num_batches_per_epoch": 20,
        "ss_num_train_images": 20,
        "ss_learning_rate": 0.0001,
        "ss_unet_lr": 0.0001,
        "ss_text_encoder_lr": 5e-05,
        "ss_optimizer": "bitsandbytes.optim.adamw.AdamW8bit(weight_decay=0.1)",
        "ss_lr_scheduler": "cosine_with_restarts",
        "ss_lr_warmup_steps": 0,
        "ss_max_grad_norm": 1.0,
        "ss_network_module": "networks.lora",
        "ss_network_dim": 4,
        "ss_network_alpha": "2.0",
        "ss_base_model_version": "sd_v1",
        "ss_v2": False,
        "ss_clip_skip": 2,
        "ss_min_snr_gamma": 5.0,
        "ss_noise_offset": None,
        "ss_batch_size_per_device": 1,
        "ss_resolution": "(512, 512)",
        "ss_shuffle_caption": True,
        "ss_keep_tokens": 1,
        "ss_sd_model_name": "anylora.safetensors",
        "ss_dataset_dirs": json.dumps({"10_zyxfern plant": {"n_repeats": 10, "img_count": 2}}),
        "ss_tag_frequency": json.dumps({"10_zyxfern plant": {"zyxfern": 2, "pot": 1}}),
        "modelspec.resolution": "512x512",
    }
    return {key: str(value) for key, value in {**told, **changed}.items()}


def kohya(root: Path, *, name: str = "fern", epochs: int = 4) -> Path:
    """Write what kohya_ss leaves: ``model/`` beside ``img/`` and ``log/``, a state, samples."""
    model = root / "model"
    for epoch in range(1, epochs + 1):
        stem = name if epoch == epochs else f"{name}-{epoch:06}"
        about = kohya_metadata(epoch, ss_output_name=name, ss_num_epochs=epochs)
        save(model / f"{stem}.safetensors", kohya_tensors(epoch), about)
        for index in range(2):
            taken = f"202405011200{epoch:02}"
            picture(model / "sample" / f"{name}_e{epoch:06}_{index:02}_{taken}_{7 + index}.png")
    save(model / f"{name}-000002-state" / "model.safetensors", kohya_tensors(2), {})
    (model / f"{name}-000002-state" / "optimizer.bin").write_bytes(b"x" * 64)
    (model / "sample" / "prompt.txt").write_text(
        "zyxfern, in a pot --n blurry --w 512 --h 768 --d 7 --l 7.5 --s 20\n"
        "# a remark\n"
        "a cat --d 8\n"
    )
    config = {
        "LoRA_type": "Standard",
        "output_name": name,
        "network_dim": 4,
        "network_alpha": 2,
        "learning_rate": 0.0001,
        "lr_scheduler": "cosine_with_restarts",
        "epoch": epochs,
        "save_every_n_epochs": 1,
        "max_resolution": "512,512",
        "train_data_dir": str(root / "img"),
        "logging_dir": str(root / "log"),
        "pretrained_model_name_or_path": str(root / "nowhere" / "anylora.safetensors"),
        "noise_offset": 0.0357,
        "huggingface_token": "hf_secret",
    }
    (model / f"{name}_20240501-115900.json").write_text(json.dumps(config))
    for number in range(2):
        image = picture(root / "img" / "10_zyxfern plant" / f"{number}.png", seed=number, side=64)
        image.with_suffix(".txt").write_text("zyxfern, pot")
    log = root / "log" / "20240501120005" / "network_train"
    events(log, ["loss/current", "loss/average", "lr/unet"], start=STARTED + 5)
    other = root / "log" / "20230101120005" / "network_train"
    events(other, ["loss/current"], start=STARTED - 400 * 86400)
    return model


def onetrainer(root: Path) -> Path:
    """Write a workspace of OneTrainer's, and the last model beside its saves."""
    work = root / "moss workspace"
    for epoch in range(1, 4):
        name = f"2024-05-01_12-0{epoch}-00-save-{20 * epoch}-{epoch}-0.safetensors"
        about = {"ot_branch": "master", "ot_revision": "abc", "modelspec.date": "2024-05-01"}
        save(work / "save" / name, kohya_tensors(epoch), about)
        for index, prompt in enumerate(("zyxmoss on a stone", "a cat")):
            folder = work / "samples" / f"{index} - {prompt}"
            stem = f"2024-05-01_12-0{epoch}-01-training-sample-{20 * epoch}-{epoch}-0"
            picture(folder / f"{stem}.png", seed=epoch)
    picture(work / "samples" / "0 - zyxmoss on a stone" /
            "2024-05-01_12-00-01-training-sample-0-0-0.png")  # fmt: skip
    backup = work / "backup" / "2024-05-01_12-03-30-backup-60-3-0"
    save(backup / "lora" / "lora.safetensors", kohya_tensors(3), {})
    (backup / "meta.json").write_text('{"train_progress": {}}')
    for number in range(3):
        picture(root / "stones" / f"{number}.png", seed=number, side=64)
    config = {
        "__version": 6,
        "training_method": "LORA",
        "model_type": "STABLE_DIFFUSION_15",
        "workspace_dir": str(work),
        "save_filename_prefix": "",
        "base_model_name": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "output_model_destination": "models/moss.safetensors",
        "lora_rank": 4,
        "lora_alpha": 2.0,
        "learning_rate": 0.0003,
        "learning_rate_scheduler": "CONSTANT",
        "learning_rate_warmup_steps": 200,
        "epochs": 3,
        "batch_size": 1,
        "resolution": "512",
        "concepts": [
            {"name": "stones", "path": str(root / "stones"), "enabled": True, "type": "STANDARD"}
        ],
        "samples": [
            {"prompt": "zyxmoss on a stone", "negative_prompt": "", "seed": 42, "width": 512,
             "height": 512},
            {"prompt": "a cat", "negative_prompt": "dog", "seed": 43, "width": 512, "height": 512},
        ],
    }  # fmt: skip
    place = work / "config" / "2024-05-01_12-00-00.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps(config))
    tags = ["loss/train_step", "smooth_loss/train_step", "lr/unet"]
    events(work / "tensorboard" / "2024-05-01_12-00-00", tags, start=STARTED)
    return work


def ai_toolkit(root: Path) -> Path:
    """Write a job folder of ai-toolkit's."""
    job = root / "output" / "ivy_v1"
    software = json.dumps({"name": "ai-toolkit", "repo": "https://github.com/ostris/ai-toolkit"})
    for step in (250, 500, 750):
        stem = "ivy_v1" if step == 750 else f"ivy_v1_{step:09}"
        about = {
            "software": software,
            "training_info": json.dumps({"step": step, "epoch": step // 50}),
            "ss_output_name": "ivy_v1",
            "ss_base_model_version": "sd_1.5",
            "name": "ivy_v1",
            "format": "pt",
        }
        save(job / f"{stem}.safetensors", kohya_tensors(step // 250), about)
    for step in (0, 250, 500, 750):
        for index in range(2):
            picture(job / "samples" / f"17145600{step // 10:02}{index:03}__{step:09}_{index}.jpg")
    (job / "optimizer.pt").write_bytes(b"x" * 64)
    for number in range(2):
        picture(root / "ivy images" / f"{number}.png", seed=number, side=64)
    (job / "config.yaml").write_text(
        "job: extension\n"
        "config:\n"
        "  name: ivy_v1\n"
        "  process:\n"
        "  - type: sd_trainer\n"
        "    training_folder: output\n"
        "    trigger_word: zyxivy\n"
        "    network: {type: lora, linear: 4, linear_alpha: 2}\n"
        "    datasets:\n"
        f"    - folder_path: {json.dumps(str(root / 'ivy images'))}\n"
        "      caption_dropout_rate: 0.05\n"
        "      resolution: [512]\n"
        "    train: {batch_size: 1, steps: 750, lr: 1e-4, optimizer: adamw8bit}\n"
        "    model: {name_or_path: stable-diffusion-v1-5/stable-diffusion-v1-5}\n"
        "    sample:\n"
        "      width: 512\n"
        "      height: 512\n"
        "      prompts: ['[trigger] on a wall', 'a cat --d 5']\n"
        "      neg: blurry\n"
        "      seed: 42\n"
        "      walk_seed: true\n"
    )
    return job


def diffusers(root: Path) -> Path:
    """Write an output folder of a diffusers example script."""
    out = root / "oak-lora"
    for step in (500, 1000):
        place = out / f"checkpoint-{step}"
        save(place / "pytorch_lora_weights.safetensors", peft_tensors(step), {"format": "pt"})
        (place / "optimizer.bin").write_bytes(b"x" * 64)
    save(out / "pytorch_lora_weights.safetensors", peft_tensors(1000), {"format": "pt"})
    (out / "image_0.png").write_bytes(picture(root / "tmp.png").read_bytes())
    (root / "tmp.png").unlink()
    for number in range(2):
        picture(root / "oaks" / f"{number}.png", seed=number, side=64)
    log = out / "logs" / "dreambooth-lora"
    events(log, ["loss", "lr"], start=STARTED)
    place = log / "1714557600.1" / "hparams.yml"
    place.parent.mkdir(parents=True)
    place.write_text(
        "pretrained_model_name_or_path: stable-diffusion-v1-5/stable-diffusion-v1-5\n"
        f"instance_data_dir: {json.dumps(str(root / 'oaks'))}\n"
        "instance_prompt: a photo of zyxoak tree\n"
        "output_dir: oak-lora\n"
        "rank: 4\n"
        "learning_rate: 0.0001\n"
        "lr_scheduler: constant\n"
        "resolution: 512\n"
        "seed: null\n"
    )
    return out
