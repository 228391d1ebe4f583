"""Prompts become the numbers that steer the UNet; of any length, with clip skip, batched.

Written here and not taken from diffusers' pipelines, because CLIP's text model changed its layout
(it has no ``text_model`` inside any more) and their clip skip breaks on that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lorascope.errors import BadInputError, ShapeError


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """What the UNet is told, for N images.

    Attributes
    ----------
    hidden : (N, 77 * k, D) float32 tensor
        One state per token; k chunks of 75 tokens, each with its own start and end.
    pooled : (N, P) float32 tensor or None
        One state per prompt; SDXL only.
    """

    hidden: Tensor
    pooled: Tensor | None = None

    def __len__(self) -> int:
        """Count the prompts."""
        return int(self.hidden.shape[0])

    def __getitem__(self, index: int | slice) -> "Conditioning":
        """Give one prompt (still with its batch axis) or a range of them."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(index)
            index %= len(self)
            index = slice(index, index + 1)
        return Conditioning(self.hidden[index], None if self.pooled is None else self.pooled[index])

    def take(self, indices: Sequence[int]) -> "Conditioning":
        """Give the prompts at these places, in this order, as often as they are named."""
        places = torch.as_tensor(list(indices), dtype=torch.long, device=self.hidden.device)
        pooled = None if self.pooled is None else self.pooled[places]
        return Conditioning(self.hidden[places], pooled)

    @staticmethod
    def cat(parts: Sequence["Conditioning"]) -> "Conditioning":
        """Put several batches into one.

        Raises
        ------
        ShapeError
            They have different numbers of tokens: encode such prompts in one call.
        """
        if len({part.hidden.shape[1:] for part in parts}) != 1:
            raise ShapeError(
                "Prompts of different lengths in tokens were encoded apart; encode them together."
            )
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return Conditioning(
            torch.cat([part.hidden for part in parts]), torch.cat(pooled) if pooled else None
        )


def token_ids(tokenizer: Any, prompt: str) -> list[int]:
    """Split a prompt into tokens, without start, end and padding, however long it is."""
    ids = tokenizer(prompt, add_special_tokens=False, truncation=False, verbose=False).input_ids
    return [int(i) for i in ids]


def chunk_count(tokenizers: Sequence[Any], prompt: str) -> int:
    """Count the chunks (of 75 tokens for CLIP) that a prompt needs; at least 1."""
    room = window(tokenizers[0]) - 2
    return max(-(-len(token_ids(tokenizer, prompt)) // room) or 1 for tokenizer in tokenizers)


def window(tokenizer: Any) -> int:
    """Give the length of one chunk with its start and end: 77 for CLIP."""
    return int(min(tokenizer.model_max_length, 77))


def encode(
    tokenizers: Sequence[Any],
    encoders: Sequence[Any],
    prompts: Sequence[str],
    *,
    clip_skip: int,
    chunks: int | None = None,
) -> Conditioning:
    """Encode prompts with one CLIP text encoder (SD 1.x, 2.x) or two (SDXL).

    Parameters
    ----------
    tokenizers, encoders : sequences of the same length
    prompts : sequence of str
        N of them.
    clip_skip : int
        Which layer, counted from the end; 1 is the model's own: the last one, with its final
        normalisation (SD 1.x, 2.x), or the last but one, without (SDXL).
    chunks : int, optional
        Pad to that many chunks; the longest prompt decides otherwise.

    Raises
    ------
    BadInputError
        The encoder has fewer layers than ``clip_skip`` asks for.
    """
    chunks = max([chunks or 1, *(chunk_count(tokenizers, prompt) for prompt in prompts)])
    two = len(encoders) > 1
    states, pooled = [], None
    for tokenizer, encoder in zip(tokenizers, encoders, strict=True):
        ids = torch.tensor(
            [_padded(tokenizer, prompt, chunks) for prompt in prompts], device=encoder.device
        )  # (N, chunks, 77)
        output = encoder(ids.flatten(0, 1), output_hidden_states=True)
        layers = output.hidden_states
        place = clip_skip + (1 if two else 0)
        if not 1 <= place < len(layers):
            raise BadInputError(
                f"clip skip {clip_skip} is out of range: this text encoder allows 1 to "
                f"{len(layers) - (2 if two else 1)}.\nFix: --clip-skip 1"
            )
        hidden = layers[-place] if two else _final_norm(encoder)(layers[-place])
        states.append(hidden.float().reshape(len(prompts), -1, hidden.shape[-1]))
        if two and hasattr(output, "text_embeds"):
            pooled = output.text_embeds.float().reshape(len(prompts), chunks, -1)[:, 0]
    return Conditioning(torch.cat(states, dim=-1), pooled)


def _padded(tokenizer: Any, prompt: str, chunks: int) -> list[list[int]]:
    """Lay a prompt's tokens out in chunks, each with start, end and padding."""
    ids, size = token_ids(tokenizer, prompt), window(tokenizer)
    rows = []
    for chunk in range(chunks):
        own = ids[chunk * (size - 2) : (chunk + 1) * (size - 2)]
        row = [tokenizer.bos_token_id, *own, tokenizer.eos_token_id]
        rows.append(row + [tokenizer.pad_token_id] * (size - len(row)))
    return rows


def _final_norm(encoder: Any) -> Any:
    """Find the final normalisation in either layout of CLIP's text model."""
    return getattr(encoder, "text_model", encoder).final_layer_norm
