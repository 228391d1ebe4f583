"""What trainers write into a LoRA's metadata, in our words: their key, our key, how it is read.

Every value is text in the file. A name or a hash stays text whatever it looks like: ``61e20719`` is
no number.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any

Value = str | int | float | bool | None | tuple[int, int] | list[Any] | dict[str, Any]
Reader = Callable[[str], Value]
Words = dict[str, tuple[str, Reader]]

LONGEST_JSON = 4_000_000  # characters, of all values of one file together; as objects 30 times that
LONGEST_NUMBER = 24  # characters; more is a code or a trap
LONGEST_CALL = 4_000  # characters of an optimiser's free text that are looked at
SIZE = re.compile(r"^[(\[]?\s*(\d{1,6})\s*[,xX]\s*(\d{1,6})\s*[)\]]?$")
CALL = re.compile(r"^([\w.]{1,200})\s*(?:\((.*)\))?$", re.S)
ARGUMENT = re.compile(r"(\w{1,80})\s*=\s*(.*?)(?=,\s*\w{1,80}\s*=|$)", re.S)
NOTHING = ("", "None", "null", "nan", "NaN")


def plain(text: str) -> Value:
    """Read a text as it stands; what stands for nothing becomes None."""
    return None if text.strip() in NOTHING else text


def scalar(text: str) -> Value:
    """Read a number, True or False, or None; anything else stays text.

    Returns
    -------
    int, float, bool, str or None
        A float is finite.
    """
    bare = text.strip()
    if bare in NOTHING:
        return None
    if bare.lower() in ("true", "false"):
        return bare.lower() == "true"
    if len(bare) > LONGEST_NUMBER:
        return text
    for read in (int, float):
        try:
            number = read(bare)
        except ValueError:
            continue
        return number if math.isfinite(number) else text
    return text


def size(text: str) -> Value:
    """Read ``(512, 768)``, ``512x768`` or ``512`` as width and height; else as `scalar`."""
    bare = text.strip()
    if found := SIZE.match(bare):
        return int(found[1]), int(found[2])
    side = scalar(bare)
    return (side, side) if isinstance(side, int) and not isinstance(side, bool) else side


def structure(text: str) -> Value:
    """Read JSON; what is damaged, too deep or too long stays text."""
    bare = text.strip()
    if bare in NOTHING:
        return None
    if len(bare) > LONGEST_JSON:
        return text
    try:
        found: Value = json.loads(bare, parse_constant=lambda _name: None)
    except (ValueError, RecursionError):
        return text
    return found


def rates(text: str) -> Value:
    """Read one learning rate, or the list of them that SDXL has."""
    found = structure(text) if text.strip().startswith("[") else scalar(text)
    if isinstance(found, list):
        return ", ".join(str(rate) for rate in found)[:LONGEST_NUMBER]
    return found


def call(text: str) -> tuple[str, dict[str, str]]:
    """Split ``torch.optim.adamw.AdamW(weight_decay=0.1,betas=0.9,0.99)`` into name and arguments.

    Returns
    -------
    name : str
        The last part of the dotted name; the whole text where it is no call.
    arguments : dict of str to str
    """
    short = text.strip()[:LONGEST_CALL]
    found = CALL.match(short)
    if not found:
        return short, {}
    arguments = {name: value.strip() for name, value in ARGUMENT.findall(found[2] or "")}
    return found[1].rpartition(".")[2], arguments


RUN: Words = {
    "ss_output_name": ("name", plain),
    "ss_session_id": ("session", plain),
    "ss_training_started_at": ("started", scalar),
    "ss_training_finished_at": ("finished", scalar),
    "ss_training_comment": ("comment", plain),
    "ss_sd_scripts_commit_hash": ("trainer_version", plain),
    "ss_seed": ("seed", scalar),
    "ss_steps": ("step", scalar),
    "ss_epoch": ("epoch", scalar),
    "ss_num_epochs": ("epochs", scalar),
    "ss_max_train_steps": ("steps", scalar),
    "ss_num_batches_per_epoch": ("steps_per_epoch", scalar),
    "ss_num_train_images": ("train_images", scalar),
    "ss_num_reg_images": ("regularisation_images", scalar),
    "ss_num_validation_images": ("held_out_images", scalar),
}
LEARNING: Words = {
    "ss_learning_rate": ("learning_rate", scalar),
    "ss_unet_lr": ("unet_lr", scalar),
    "ss_text_encoder_lr": ("text_lr", rates),
    "ss_optimizer": ("optimizer", plain),
    "ss_lr_scheduler": ("scheduler", plain),
    "ss_lr_warmup_steps": ("warmup_steps", scalar),
    "ss_lr_scheduler_num_cycles": ("scheduler_cycles", scalar),
    "ss_lr_scheduler_power": ("scheduler_power", scalar),
    "ss_max_grad_norm": ("max_grad_norm", scalar),
    "ss_gradient_checkpointing": ("gradient_checkpointing", scalar),
    "ss_gradient_accumulation_steps": ("gradient_accumulation", scalar),
    "ss_mixed_precision": ("mixed_precision", plain),
    "ss_full_fp16": ("full_fp16", scalar),
    "ss_full_bf16": ("full_bf16", scalar),
    "ss_fp8_base": ("fp8_base", scalar),
    "ss_fp8_base_unet": ("fp8_base_unet", scalar),
    "ss_lowram": ("low_memory", scalar),
    "ss_batch_size_per_device": ("batch_size", scalar),
    "ss_total_batch_size": ("total_batch_size", scalar),
}
NETWORK: Words = {
    "ss_network_module": ("network_module", plain),
    "ss_network_dim": ("rank", scalar),
    "ss_network_alpha": ("alpha", scalar),
    "ss_network_dropout": ("dropout", scalar),
    "ss_network_args": ("network_args", structure),
    "ss_scale_weight_norms": ("max_norm", scalar),
    "ss_base_model_version": ("base_version", plain),
    "ss_v2": ("sd2", scalar),
    "ss_clip_skip": ("clip_skip", scalar),
    "ss_max_token_length": ("max_tokens", scalar),
}
LOSS: Words = {
    "ss_min_snr_gamma": ("min_snr_gamma", scalar),
    "ss_debiased_estimation": ("debiased_loss", scalar),
    "ss_loss_type": ("loss_type", plain),
    "ss_huber_schedule": ("huber_schedule", plain),
    "ss_huber_c": ("huber_c", scalar),
    "ss_huber_scale": ("huber_scale", scalar),
    "ss_prior_loss_weight": ("prior_loss_weight", scalar),
    "ss_zero_terminal_snr": ("zero_terminal_snr", scalar),
    "ss_noise_offset": ("noise_offset", scalar),
    "ss_noise_offset_random_strength": ("noise_offset_random", scalar),
    "ss_adaptive_noise_scale": ("adaptive_noise_scale", scalar),
    "ss_multires_noise_iterations": ("pyramid_noise_levels", scalar),
    "ss_multires_noise_discount": ("pyramid_noise_discount", scalar),
    "ss_ip_noise_gamma": ("input_noise_gamma", scalar),
    "ss_ip_noise_gamma_random_strength": ("input_noise_random", scalar),
}
IMAGES: Words = {
    "ss_resolution": ("resolution", size),
    "ss_enable_bucket": ("buckets", scalar),
    "ss_bucket_no_upscale": ("buckets_no_upscale", scalar),
    "ss_min_bucket_reso": ("bucket_min", scalar),
    "ss_max_bucket_reso": ("bucket_max", scalar),
    "ss_bucket_info": ("bucket_counts", structure),
    "ss_color_aug": ("colour_augmentation", scalar),
    "ss_flip_aug": ("flip_augmentation", scalar),
    "ss_random_crop": ("random_crop", scalar),
    "ss_face_crop_aug_range": ("face_crop", plain),
    "ss_cache_latents": ("cache_latents", scalar),
    "ss_resize_interpolation": ("resize_interpolation", plain),
    "ss_shuffle_caption": ("shuffle_tags", scalar),
    "ss_keep_tokens": ("keep_tags", scalar),
    "ss_caption_dropout_rate": ("caption_dropout", scalar),
    "ss_caption_dropout_every_n_epochs": ("caption_dropout_every_epochs", scalar),
    "ss_caption_tag_dropout_rate": ("tag_dropout", scalar),
    "ss_dataset_dirs": ("dataset_folders", structure),
    "ss_reg_dataset_dirs": ("regularisation_folders", structure),
    "ss_tag_frequency": ("tags", structure),
    "ss_datasets": ("datasets", structure),
    "ss_validation_seed": ("validation_seed", scalar),
    "ss_validation_split": ("validation_split", scalar),
    "ss_max_validation_steps": ("validation_steps", scalar),
    "ss_validate_every_n_epochs": ("validate_every_epochs", scalar),
    "ss_validate_every_n_steps": ("validate_every_steps", scalar),
}
MODELS: Words = {
    "ss_sd_model_name": ("base_model", plain),
    "ss_base_model": ("base_model_stated", plain),
    "ss_sd_model_hash": ("base_legacy", plain),
    "ss_new_sd_model_hash": ("base_sha256", plain),
    "ss_vae_name": ("vae", plain),
    "ss_vae_hash": ("vae_legacy", plain),
    "ss_new_vae_hash": ("vae_sha256", plain),
    "sshs_model_hash": ("stated_model_hash", plain),
    "sshs_legacy_hash": ("stated_legacy_hash", plain),
}
SPEC: Words = {
    "modelspec.sai_model_spec": ("spec_version", plain),
    "modelspec.architecture": ("architecture", plain),
    "modelspec.implementation": ("implementation", plain),
    "modelspec.implementation_version": ("implementation_version", plain),
    "modelspec.title": ("title", plain),
    "modelspec.date": ("date", plain),
    "modelspec.resolution": ("stated_resolution", size),
    "modelspec.prediction_type": ("prediction_type", plain),
    "modelspec.encoder_layer": ("encoder_layer", scalar),
    "modelspec.timestep_range": ("timestep_range", plain),
    "modelspec.author": ("author", plain),
    "modelspec.description": ("description", plain),
    "modelspec.license": ("license", plain),
    "modelspec.tags": ("keywords", plain),
    "modelspec.trigger_phrase": ("trigger", plain),
    "modelspec.usage_hint": ("usage_hint", plain),
    "modelspec.thumbnail": ("thumbnail", plain),
    "modelspec.merged_from": ("merged_from", plain),
    "modelspec.preprocessor": ("preprocessor", plain),
    "modelspec.is_negative_embedding": ("negative_embedding", scalar),
    "modelspec.hash_sha256": ("stated_sha256", plain),
    "modelspec.unet_dtype": ("unet_dtype", plain),
    "modelspec.vae_dtype": ("vae_dtype", plain),
    "modelspec.comment": ("spec_comment", plain),
}
OTHERS: Words = {
    "software": ("software", structure),  # ai-toolkit
    "training_info": ("training_info", structure),
    "trained_words": ("trained_words", plain),  # SimpleTuner
    "ot_branch": ("onetrainer_branch", plain),
    "ot_revision": ("onetrainer_revision", plain),
    "ot_config": ("onetrainer_config", structure),
    "lora_adapter_metadata": ("peft", structure),  # diffusers
    "format": ("format", plain),
}
WORDS: Words = RUN | LEARNING | NETWORK | LOSS | IMAGES | MODELS | SPEC | OTHERS
VOLATILE = (  # differ between any two files, and say nothing about how they were trained
    "session",
    "started",
    "finished",
    "date",
    "thumbnail",
    "stated_model_hash",
    "stated_legacy_hash",
    "stated_sha256",
)
