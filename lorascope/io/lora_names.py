"""Names of LoRA modules, as different trainers spell them, turned into one spelling.

Ours is the one of kohya's trainers over diffusers' layout, with ``text_model`` spelt out:
``lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k``,
``lora_te_text_model_encoder_layers_0_self_attn_q_proj`` (SDXL: ``lora_te1_``, ``lora_te2_``).
"""

import re
from collections.abc import Callable

DOWN, UP, ALPHA = "down", "up", "alpha"

ENDINGS = {
    ".lora_down.weight": DOWN,
    ".lora_up.weight": UP,
    ".alpha": ALPHA,
    ".lora_A.weight": DOWN,
    ".lora_B.weight": UP,
    ".lora_A.default.weight": DOWN,
    ".lora_B.default.weight": UP,
    ".lora.down.weight": DOWN,
    ".lora.up.weight": UP,
    ".lora_linear_layer.down.weight": DOWN,
    ".lora_linear_layer.up.weight": UP,
}
ATTENTION_ENDING = re.compile(r"\.processor\.(to_[qkv]|to_out)_lora\.(down|up)\.weight$")
OTHER_TYPES = {
    "LoHa": re.compile(r"\.hada_(w[12]_[ab]|t[12])$"),
    "LoKr": re.compile(r"\.lokr_(w[12](_[ab])?|t2)$"),
    "DoRA": re.compile(r"\.(dora_scale|lora_magnitude_vector(\.weight)?)$"),
    "LoCon with a Tucker core": re.compile(r"\.lora_mid\.weight$"),
    "OFT": re.compile(r"\.(oft_blocks|oft_diag|rescale)$"),
    "GLoRA": re.compile(r"\.([ab][12]\.weight|bm\.weight)$"),
    "IA3": re.compile(r"\.on_input$"),
    "full difference": re.compile(r"\.(diff|diff_b|w_norm|b_norm)$"),
    "textual inversion": re.compile(r"^(bundle_emb|emb)\..*$"),
}
ROOTS = {
    "base_model.model.": "lora_unet",  # a bare PEFT adapter of a UNet
    "unet.base_model.model.": "lora_unet",
    "unet.": "lora_unet",
    "text_encoder_2.": "lora_te2",
    "text_encoder.": "lora_te",
}
LDM_LAYERS = {
    "in_layers_2": "conv1",
    "emb_layers_1": "time_emb_proj",
    "out_layers_3": "conv2",
    "skip_connection": "conv_shortcut",
}
LDM_PLAIN = {
    "input_blocks_0_0": "conv_in",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
    "out_2": "conv_out",
}
LDM_BLOCK = re.compile(r"^(input_blocks|output_blocks|middle_block)_(\d+)(?:_(\d+))?_(.+)$")


def split_key(key: str) -> tuple[str, str] | None:
    """Split a tensor's key into the module's own spelling and the part it plays.

    Returns
    -------
    (str, str) or None
        The part is ``down``, ``up`` or ``alpha``; None where the key is none of the three.
    """
    for ending, part in ENDINGS.items():
        if key.endswith(ending):
            return key.removesuffix(ending), part
    if found := ATTENTION_ENDING.search(key):
        layer = "to_out.0" if found[1] == "to_out" else found[1]
        return f"{key[: found.start()]}.{layer}", DOWN if found[2] == "down" else UP
    return None


def other_type(key: str) -> tuple[str, str] | None:
    """Tell which other network type a key belongs to.

    Returns
    -------
    (str, str) or None
        The module's own spelling and the type; None for a key nobody here knows.
    """
    for kind, pattern in OTHER_TYPES.items():
        if found := pattern.search(key):
            return (key[: found.start()] or key), kind
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
    name = spelling
    for root, prefix in ROOTS.items():
        if spelling.startswith(root):
            prefix = "lora_te1" if prefix == "lora_te" and two_encoders else prefix
            name = f"{prefix}_{spelling.removeprefix(root)}"
            break
    name = name.replace(".", "_")
    if name.startswith("lora_unet_"):
        inner = name.removeprefix("lora_unet_")
        return f"lora_unet_{_from_ldm(inner) or inner}"
    return re.sub(r"^(lora_te[12]?_)(encoder|embeddings)_", r"\1text_model_\2_", name)


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
