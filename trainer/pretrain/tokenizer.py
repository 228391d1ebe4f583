"""The miniature's own byte-pair vocabulary, in CLIP's layout."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from lorascope import storage
from lorascope.miniature import world

VOCABULARY = 768  # at most; the tagged world needs fewer
CAPTIONS = 6000
START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
SPLIT = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
USUAL = "solo 1girl 1boy avatar portrait looking at viewer masterpiece best quality"


def build(folder: Path) -> CLIPTokenizer:
    """Learn the merges from captions of the tagged world and write the tokenizer's folder.

    Activation tags that nobody has seen split into letters and short pieces, as they do in real
    models: the corpus holds every letter, and no activation tag.
    """
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=WORD_END, continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=2,
        end_of_word_suffix=WORD_END,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    vocabulary = dict(learned["vocab"])
    for symbol in [s + end for s in alphabet for end in ("", WORD_END)] + [START, END]:
        vocabulary.setdefault(symbol, len(vocabulary))
    merges = [tuple(m.split(" ") if isinstance(m, str) else m) for m in learned["merges"]]
    clip = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)
    clip.save_pretrained(folder)
    write_classic_files(folder, vocabulary, merges)
    return clip


def write_classic_files(
    folder: Path, vocabulary: dict[str, int], merges: list[tuple[str, ...]]
) -> None:
    """Write ``vocab.json`` and ``merges.txt`` too: transformers 5 leaves them out."""
    storage.write_text(folder / "vocab.json", json.dumps(vocabulary, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(m) for m in merges)]
    storage.write_text(folder / "merges.txt", "\n".join(lines) + "\n")


def _corpus() -> Iterator[str]:
    rng = random.Random(5)
    for _ in range(CAPTIONS):
        yield world.caption(world.sample_avatar(rng), rng, drop=0.1, empty=0)
    for _ in range(300):
        yield USUAL
    for _ in range(200):
        yield " ".join("abcdefghijklmnopqrstuvwxyz0123456789,.()_-:")
