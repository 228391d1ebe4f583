"""What a prompt asks of a LoRA, told from the tags that the training captions show."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lorascope.io.captions import split_tags
from lorascope.io.dataset_file import Dataset
from lorascope.io.lora_tags import TAG, without_lora_tags
from lorascope.metrics import tags as tagging
from lorascope.tools.drawing.activation import activation_tags, has_tag, without_tags

WITH_TRIGGER = ("trigger", "caption", "edit", "unseen", "hard")
WITHOUT_TRIGGER = ("class", "unrelated")
SEVERAL = 3  # things never shown, in one prompt: a hard composition


@dataclass(frozen=True, slots=True)
class Prompt:
    """One column of the grid; what is None is as the grid's options say."""

    text: str
    group: str  # trigger, caption, edit, unseen, hard, class, unrelated
    split: str = ""  # train or held-out, where it is the caption of an image
    negative: str | None = None
    seed: int | None = None
    width: int | None = None  # px
    height: int | None = None
    steps: int | None = None  # sampling steps
    guidance: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Captions:
    """What a dataset's captions show, looked up once for many prompts."""

    triggers: tuple[str, ...]  # activation tags
    class_word: str
    shown: frozenset[str]  # every tag trained on but those
    splits: Mapping[frozenset[str], str]  # tags of a caption, to the side it lies on

    @classmethod
    def of(cls, dataset: Dataset) -> "Captions":
        """Read a dataset."""
        triggers = activation_tags(dataset)
        tags = {image.caption: split_tags(image.caption) for image in dataset.images}
        shown = {t for i in dataset.train for t in without_tags(tags[i.caption], triggers)}
        both = (*dataset.held_out, *dataset.train)  # on both sides: it was trained on
        return cls(
            triggers=triggers,
            class_word=dataset.class_word,
            shown=frozenset(shown),
            splits={frozenset(tags[i.caption]): i.split for i in both if tags[i.caption]},
        )

    def group(self, prompt: str) -> str:
        """Do as `group_of`."""
        tags = split_tags(without_lora_tags(prompt))
        others = without_tags(tags, self.triggers)
        if not tags:
            return "unrelated"
        if len(tags) == 1 and self.triggers and not others:
            return "trigger"
        if self.split(prompt):
            return "caption"
        if self.triggers and not has_tag(tags, self.triggers):
            known = self.shown.intersection(tags) or tagging.position(tags, self.class_word)
            return "class" if known else "unrelated"
        new = sum(tag not in self.shown for tag in others)
        return "hard" if new >= SEVERAL else "unseen" if new else "edit"

    def split(self, prompt: str) -> str:
        """Say which images have the prompt's tags for a caption: train, held-out or none."""
        return self.splits.get(frozenset(split_tags(without_lora_tags(prompt))), "")


def group_of(prompt: str, dataset: Dataset) -> str:
    """Tell what a prompt asks of the LoRA, from the tags that the training captions show.

    Parameters
    ----------
    prompt : str
        Tags of LoRAs in it do not count.
    dataset : Dataset

    Returns
    -------
    str
        trigger (an activation tag and nothing else), caption (a caption of the dataset), edit
        (known tags put together in a new way), unseen (with a tag that no caption has), hard (with
        three or more such), class (without any activation tag, with a known tag or the class
        word), unrelated (neither; also the empty prompt).
    """
    return Captions.of(dataset).group(prompt)


def trigger_off(prompt: Prompt, dataset: Dataset) -> Prompt:
    """Give the same prompt without any activation tag: what the LoRA does when it is not called.

    Parameters
    ----------
    prompt : Prompt
    dataset : Dataset

    Returns
    -------
    Prompt
        In the group class or unrelated; the activation tag alone becomes the class word, or the
        empty prompt where none is known. A prompt without one, or of a set without any, comes
        back as it is.
    """
    captions = Captions.of(dataset)
    tags = split_tags(without_lora_tags(prompt.text))
    if not has_tag(tags, captions.triggers):
        return prompt
    rest = ", ".join(without_tags(tags, captions.triggers)) or dataset.class_word
    group = captions.group(rest)
    loras = " ".join(found[0] for found in TAG.finditer(prompt.text))
    return replace(
        prompt,
        text=f"{rest} {loras}".strip(),
        group=group if group in WITHOUT_TRIGGER else "class",
        split="",
    )
