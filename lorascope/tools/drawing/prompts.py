"""The prompts of a grid: those that were asked for, or some that suit the dataset."""

from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path

from lorascope.errors import BadInputError
from lorascope.io.dataset_file import Dataset
from lorascope.io.foreign.prompts import SamplePrompt, read_sample_prompts
from lorascope.io.prompt_lines import PromptLine, read_prompt_lines, write_prompt_line
from lorascope.tools.drawing.activation import activation_tags
from lorascope.tools.drawing.prompt_groups import (
    WITH_TRIGGER,
    WITHOUT_TRIGGER,
    Captions,
    Prompt,
    group_of,
    trigger_off,
)
from lorascope.tools.drawing.prompt_making import (
    UNRELATED,
    make_prompts,
    tag_prompts,
    training_prompts,
    without_trigger,
)

__all__ = [
    "UNRELATED",
    "WITHOUT_TRIGGER",
    "WITH_TRIGGER",
    "Prompt",
    "activation_tags",
    "as_lines",
    "choose_prompts",
    "group_of",
    "prompts_text",
    "trigger_off",
    "without_trigger",
]

WORDS = {
    "@auto": "some that suit the dataset",
    "@train": "every distinct caption trained on",
    "@held-out": "every distinct caption held out of training",
    "@tags": "every activation tag by itself",
}
FILES = (".txt", ".toml", ".json")
FIX = "Fix: --prompts FILE, a text file with one prompt a line."
BY_REMARK = ("edit", "unseen", "hard")  # groups that a text alone does not always tell apart
HEAD = (
    "# One prompt a line, with --n NEGATIVE --w WIDTH --h HEIGHT --d SEED --s STEPS --l GUIDANCE\n"
    "# behind it where wanted. A remark right above one says what the prompt is for.\n"
)


def choose_prompts(text: str, dataset: Dataset, *, in_world: bool) -> tuple[Prompt, ...]:
    r"""Read the prompts that were asked for, or make some that suit the dataset.

    Parameters
    ----------
    text : str
        Prompts with a bar or a line break between them; empty lines and lines with # at the
        beginning do not count. May be empty. Never opened as a file. A prompt is one of

        - plain text, with options of sd-scripts behind it: ``--n`` negative prompt, ``--w``
          width, ``--h`` height, ``--d`` seed, ``--s`` sampling steps, ``--l`` guidance;
        - ``@auto``: those that are made where the text is empty;
        - ``@train``: every distinct training caption;
        - ``@held-out``: every distinct held-out caption;
        - ``@tags``: every activation tag by itself;
        - ``@empty``: the empty prompt.

        ``\|``, ``\#``, ``\@`` and ``\--`` are those signs themselves.
    dataset : Dataset
    in_world : bool
        The base model knows the miniature's drawn world only.

    Returns
    -------
    tuple of Prompt
        None twice.

    Raises
    ------
    BadInputError
        There is no prompt, a word or an option is not known, or the text is a single name of a
        file (``.txt``, ``.toml``, ``.json``).
    """
    if not text.strip():
        return make_prompts(dataset, in_world=in_world)
    if not {"|", "\n"} & set(text) and text.strip().lower().endswith(FILES):
        raise BadInputError(
            f"{text.strip()} looks like a file of prompts, and no such file was read.\n"
            "Fix: --prompts FILE with one prompt a line, or prompts with a bar between them."
        )
    captions = Captions.of(dataset)
    found: dict[tuple[object, ...], Prompt] = {}
    for line in read_prompt_lines(text):
        for prompt in _meant(line, captions, dataset, in_world=in_world):
            asked = replace(
                prompt,
                negative=line.negative,
                seed=line.seed,
                width=line.width,
                height=line.height,
                steps=line.steps,
                guidance=line.guidance,
            )
            found.setdefault((asked.text, *astuple(asked)[3:]), asked)
    if not found:
        raise BadInputError("There is no prompt.\nFix: --prompts FILE with one prompt a line.")
    return tuple(found.values())


def as_lines(prompts: Sequence[Prompt]) -> str:
    """Write prompts as a file to be edited, each under a remark that names its group.

    `choose_prompts` reads the same prompts back, with the same dataset. A remark does not make a
    prompt what it is not: only among edit, unseen and hard, or class and unrelated, it decides.
    """
    blocks = [
        f"# {prompt.group}{f' ({prompt.split})' if prompt.split else ''}\n{_written(prompt)}\n"
        for prompt in prompts
    ]
    return "\n".join([HEAD, *blocks])


def prompts_text(path: Path) -> str:
    """Read a file of prompts as text that `choose_prompts` understands.

    Parameters
    ----------
    path : Path
        A text file with one prompt a line, which is given as it stands, or the ``.toml`` or
        ``.json`` that sd-scripts and OneTrainer keep their sample prompts in.

    Raises
    ------
    BadInputError
        It cannot be read, or holds no prompt.
    """
    if path.suffix.lower() in (".toml", ".json"):
        try:
            samples = [sample for sample in read_sample_prompts(path) if sample.enabled]
        except BadInputError as error:
            raise BadInputError(f"{error}\n{FIX}") from error
        text = "\n".join(write_prompt_line(_line_of(sample)) for sample in samples)
    else:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInputError(f"Cannot read prompts from {path}: {error}.\n{FIX}") from error
    if not text.strip():
        raise BadInputError(f"{path} holds no prompt.\n{FIX}")
    return text


def _meant(
    line: PromptLine, captions: Captions, dataset: Dataset, *, in_world: bool
) -> tuple[Prompt, ...]:
    """Give the prompts that a line stands for."""
    if not line.word:
        return (Prompt(line.text, _group(line, captions), captions.split(line.text)),)
    if line.text == "@auto":
        return make_prompts(dataset, in_world=in_world)
    if line.text == "@tags":
        found = tag_prompts(dataset)
    elif line.text in ("@train", "@held-out"):
        found = training_prompts(dataset, line.text.removeprefix("@"))
    else:
        words = "\n".join(f"  {word:10} {meaning}" for word, meaning in WORDS.items())
        raise BadInputError(
            f"{line.text} is no word for prompts; these are:\n{words}\n"
            f"Fix: one of them, or \\{line.text} where it is plain text."
        )
    if not found:
        raise BadInputError(
            f"{line.text} ({WORDS[line.text]}): the dataset has none.\nFix: --prompts @auto"
        )
    return found


def _group(line: PromptLine, captions: Captions) -> str:
    """Tell a prompt's group: what its text shows, and, where that leaves a choice, its remark."""
    told = captions.group(line.text)
    kin: tuple[str, ...] = WITHOUT_TRIGGER if told in WITHOUT_TRIGGER else ()
    if told in BY_REMARK:
        kin = BY_REMARK if captions.triggers else (*BY_REMARK, *WITHOUT_TRIGGER)
    return line.group if line.group in kin else told


def _line_of(sample: SamplePrompt) -> PromptLine:
    """Give a sample prompt as a line; a seed of -1, or a size of 0, says nothing."""
    return PromptLine(
        text=sample.prompt,
        negative=sample.negative or None,
        seed=_at_least(0, sample.seed),
        width=_at_least(1, sample.width),
        height=_at_least(1, sample.height),
        steps=_at_least(1, sample.steps),
        guidance=None if (sample.guidance or 0) < 0 else sample.guidance,
    )


def _at_least(least: int, value: int | None) -> int | None:
    return value if value is not None and value >= least else None


def _written(prompt: Prompt) -> str:
    return write_prompt_line(
        PromptLine(
            text=prompt.text,
            negative=prompt.negative,
            seed=prompt.seed,
            width=prompt.width,
            height=prompt.height,
            steps=prompt.steps,
            guidance=prompt.guidance,
        )
    )
