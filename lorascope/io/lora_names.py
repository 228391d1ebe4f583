"""Names of LoRA modules, as different trainers spell them, turned into one spelling.

Ours is the one of kohya's trainers over diffusers' layout, with ``text_model`` spelt out:
``lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k``,
``lora_te_text_model_encoder_layers_0_self_attn_q_proj`` (SDXL: ``lora_te1_``, ``lora_te2_``).
"""

import re
from collections.abc import Callable

DOWN, UP, MID, ALPHA = "down", "up", "mid", "alpha"
DORA_SCALE, MAGNITUDE = "dora_scale", "magnitude"  # LyCORIS' layout and PEFT's
UP_BIAS = "up_bias"
WEIGHT = "weight"  # IA3's only, where an `on_input` is beside it

ENDINGS = {
    "lora_down.weight": DOWN,
    "lora_up.weight": UP,
    "lora_A.weight": DOWN,
    "lora_B.weight": UP,
    "lora_A.default.weight": DOWN,
    "lora_B.default.weight": UP,
    "lora.down.weight": DOWN,
    "lora.up.weight": UP,
    "lora_linear_layer.down.weight": DOWN,
    "lora_linear_layer.up.weight": UP,
    "lora_mid.weight": MID,
    "lora_B.bias": UP_BIAS,
    "lora_B.default.bias": UP_BIAS,
    "dora_scale": DORA_SCALE,
    "lora_magnitude_vector": MAGNITUDE,
    "lora_magnitude_vector.weight": MAGNITUDE,
    "lora_magnitude_vector.default.weight": MAGNITUDE,
    **{
        part: part
        for part in (
            *(ALPHA, "scalar", "diff", "diff_b", "w_norm", "b_norm"),
            *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
            *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
            *("on_input", WEIGHT, "oft_blocks", "rescale"),
        )
    },
    **{f"{part}.weight": part for part in ("a1", "a2", "b1", "b2", "bm")},
}
LONGEST = 3  # names in the longest of the endings
ATTENTION_ENDING = re.compile(r"\.processor\.(to_[qkv]|to_out)_lora\.(down|up)\.weight$")
NUMBERED = re.compile(r"^((?:unet|text_encoder):\d+):(down|up)$")  # by place in the base model
OTHER_TYPES = {
    "T-LoRA": re.compile(r"\.(lambda_layer|[qp]_layer\.weight|base_[qp]\.weight|base_lambda)$"),
    "OFT of PEFT or OneTrainer": re.compile(r"\.(oft_[rR](\.weight)?|oft_diag)$"),
    "BOFT of PEFT": re.compile(r"\.boft_[Rs](\.weight)?$"),
    "IA3 of PEFT": re.compile(r"\.ia3_l(\.weight)?$"),
    "VeRA": re.compile(r"\.vera_lambda_[bd](\.weight)?$"),
    "replaced weight": re.compile(r"\.set_weight$"),
}
EMBEDDING = re.compile(r"^bundle_emb\.(.+?)(?:\.string_to_param\..*|\.emb_params)?$")
TEXT_MODEL = re.compile(r"^(text_model|encoder|embeddings)[._]")
ROOTS = {
    "unet.base_model.model.": "lora_unet",
    "text_encoder_2.base_model.model.": "lora_te2",
    "text_encoder.base_model.model.": "lora_te",
    "base_model.model.": "",  # a bare PEFT adapter: of a UNet or of a text encoder
    "unet.": "lora_unet",
    "text_encoder_2.": "lora_te2",
    "text_encoder.": "lora_te",
    "lycoris_": "lora_unet",  # LyCORIS wrapped around a bare UNet
}
LDM_LAYERS = {
    "in_layers_0": "norm1",
    "in_layers_2": "conv1",
    "emb_layers_1": "time_emb_proj",
    "out_layers_0": "norm2",
    "out_layers_3": "conv2",
    "skip_connection": "conv_shortcut",
}
LDM_PLAIN = {
    "input_blocks_0_0": "conv_in",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
    "out_0": "conv_norm_out",
    "out_2": "conv_out",
}
LDM_BLOCK = re.compile(r"^(input_blocks|output_blocks|middle_block)_(\d+)(?:_(\d+))?_(.+)$")


def split_key(key: str) -> tuple[str, str] | None:
    """Split a tensor's key into the module's own spelling and the part it plays.

    Returns
    -------
    (str, str) or None
        The part is one of `ENDINGS`' values; None where the key ends like none of them.
    """
    if found := ATTENTION_ENDING.search(key):  # diffusers' first files: layers were processors
        layer = "to_out.0" if found[1] == "to_out" else found[1]
        return f"{key[: found.start()]}.{layer}", found[2]
    words = key.split(".")
    for count in range(min(LONGEST, len(words) - 1), 0, -1):
        if part := ENDINGS.get(".".join(words[-count:])):
            return ".".join(words[:-count]), part
    if found := NUMBERED.match(key):
        return found[1], found[2]
    return None


def other_type(key: str) -> tuple[str, str] | None:
    """Tell which network type that nobody here reads a key belongs to.

    Returns
    -------
    (str, str) or None
        The module's own spelling and the type; None for a key nobody here knows.
    """
    for kind, pattern in OTHER_TYPES.items():
        if found := pattern.search(key):
            return key[: found.start()], kind
    return None


def our_name(spelling: str, *, two_encoders: bool) -> str:
    """Turn a module's own spelling into ours.

    Parameters
    ----------
    spelling : str
        As the file has it, without the part's ending.
    two_encoders : bool
        The file has modules of two text encoders, so that the first one is ``te1``.
    """
    prefix, inner = "", spelling
    for root, known in ROOTS.items():
        if spelling.startswith(root):
            inner = spelling.removeprefix(root)
            prefix = known or ("lora_te" if TEXT_MODEL.match(inner) else "lora_unet")
            break
    if prefix == "lora_te" and two_encoders:
        prefix = "lora_te1"
    name = "_".join(filter(None, (prefix, inner))).replace(".", "_")
    if name.startswith("lora_unet_"):
        inner = name.removeprefix("lora_unet_")
        return f"lora_unet_{_from_ldm(inner) or inner}"
    return re.sub(
        r"^(lora_te[12]?_)(encoder|embeddings|final_layer_norm)_?", _with_text_model, name
    )


def dotted_name(spelling: str) -> str:
    """Give a module's path inside its own model, as PEFT's settings speak of it."""
    root = next((root for root in ROOTS if spelling.startswith(root)), "")
    return spelling.removeprefix(root)


def _with_text_model(found: re.Match[str]) -> str:
    return f"{found[1]}text_model_{found[0].removeprefix(found[1])}"


def _from_ldm(inner: str) -> str | None:
    """Translate SDXL's original layout into diffusers'; None where it is not that layout.

    Three entries make one block (two layers and what changes the size), as in SDXL's UNet.
    """
    if inner in LDM_PLAIN:
        return LDM_PLAIN[inner]
    if not (found := LDM_BLOCK.match(inner)):
        return None
    where, entry, layer, rest = found[1], int(found[2]), found[3], found[4]
    if where == "middle_block":
        return _middle(entry, f"{layer}_{rest}" if layer is not None else rest)
    if layer is None:
        return None
    return _SIDES[where](entry, int(layer), rest)


def _middle(entry: int, rest: str) -> str:
    if entry == 1:
        return f"mid_block_attentions_0_{rest}"
    return f"mid_block_resnets_{entry // 2}_{LDM_LAYERS.get(rest, rest)}"


def _down(entry: int, layer: int, rest: str) -> str:
    block, within = divmod(entry - 1, 3)
    if rest == "op":
        return f"down_blocks_{block}_downsamplers_0_conv"
    if layer == 1:
        return f"down_blocks_{block}_attentions_{within}_{rest}"
    return f"down_blocks_{block}_resnets_{within}_{LDM_LAYERS.get(rest, rest)}"


def _up(entry: int, layer: int, rest: str) -> str:
    block, within = divmod(entry, 3)
    if rest == "conv":
        return f"up_blocks_{block}_upsamplers_0_conv"
    if layer == 1:
        return f"up_blocks_{block}_attentions_{within}_{rest}"
    return f"up_blocks_{block}_resnets_{within}_{LDM_LAYERS.get(rest, rest)}"


_SIDES: dict[str, Callable[[int, int, str], str]] = {"input_blocks": _down, "output_blocks": _up}
