"""Encoded texts, kept: each is encoded once for each state of the text encoders."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence

import torch

from lorascope.models.base import Base
from lorascope.models.lora import Lora, Merging, touches_text
from lorascope.models.prompts import Conditioning, chunk_count

KEPT = 512  # encoded texts; some 120 MiB for SD 1.x

Text = tuple[str, int, int]  # text, chunks, clip skip


class TextCache:
    """Encodes texts with a base model as it stands, each once.

    Texts go through the encoders one at a time, so that none depends on the others' number.

    Parameters
    ----------
    base : Base
        Its text encoders must not change while this is used.
    """

    def __init__(self, base: Base) -> None:
        self.base = base
        self._encoded: OrderedDict[Text, Conditioning] = OrderedDict()
        self._chunks: dict[str, int] = {}

    def chunks(self, text: str) -> int:
        """Count the chunks of tokens that a text needs."""
        if text not in self._chunks:
            self._chunks[text] = chunk_count(self.base.tokenizers, text)
        return self._chunks[text]

    @torch.no_grad()
    def of(self, texts: Sequence[Text]) -> Conditioning:
        """Give the conditions of texts of one length, in this order, as often as they are named."""
        parts = [self._one(text) for text in texts]
        while len(self._encoded) > KEPT:
            self._encoded.popitem(last=False)
        return Conditioning.cat(parts)

    def _one(self, text: Text) -> Conditioning:
        if text not in self._encoded:
            words, chunks, clip_skip = text
            self._encoded[text] = self.base.encode_prompts(
                [words], clip_skip=clip_skip, chunks=chunks
            )
        self._encoded.move_to_end(text)
        return self._encoded[text]


def texts_for(base: Base, loras: Sequence[Merging]) -> TextCache:
    """Give the texts as these LoRAs encode them, which are in the base model now.

    Parameters
    ----------
    base : Base
        Keeps them: a LoRA of the UNet alone shares the base model's own.
    loras : sequence of (lora, strength, text_strength)
        As for `lora.Merger.apply_all`.
    """
    state = []
    for lora, strength, text_strength in loras:
        text = strength if text_strength is None else text_strength
        if touches_text(lora, text):
            state.append((lora, text))
    known = _identity(state)
    if known is None:
        return TextCache(base)
    found = base.texts.get(known) or TextCache(base)
    if known:  # of LoRAs' texts only the latest are kept; the base model's own always
        base.texts = {key: texts for key, texts in base.texts.items() if not key}
    base.texts[known] = found
    return found


def _identity(state: Sequence[tuple[Lora, float]]) -> Hashable | None:
    """Tell these LoRAs from all others by their files; None where they are not on disk."""
    found = []
    for lora, strength in state:
        if not lora.path.is_file():
            return None
        seen = lora.path.stat()
        found.append((str(lora.path.resolve()), seen.st_size, seen.st_mtime_ns, strength))
    return tuple(found)
