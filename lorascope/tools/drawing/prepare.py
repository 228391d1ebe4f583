"""A grid before a single picture is drawn: options are read, rows and columns laid out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lorascope.errors import BadInputError
from lorascope.io.checkpoints import Checkpoint, usable_checkpoints
from lorascope.io.dataset_file import Dataset, read_dataset
from lorascope.io.lora_file import read_lora
from lorascope.io.safetensors_file import read_header
from lorascope.io.train_settings import settings as settings_of
from lorascope.models.shots import SAMPLER_NAMES, UNIT
from lorascope.models.sources import MINIATURE
from lorascope.records import Inputs, Scalar
from lorascope.tools.drawing import axes as reading
from lorascope.tools.drawing import companions
from lorascope.tools.drawing.cells import Applied, Cell, drawing_size
from lorascope.tools.drawing.layout import Axes, Placed, columns, layers, place
from lorascope.tools.drawing.prompts import Prompt, choose_prompts, group_of, trigger_off

NO_EPOCH, LAST, ALL = "none", "last", "all"  # what --trigger-off takes beside epochs
MOST_CLIP_SKIP = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A grid before a single picture is drawn."""

    placed: tuple[Placed, ...]
    prompts: tuple[Prompt, ...]
    left_out: tuple[str, ...]  # checkpoints that cannot be read, in words

    @property
    def cells(self) -> list[Cell]:
        """Every picture of the grid, some perhaps at several places."""
        return [one.cell for one in self.placed]


def prepare(inputs: Inputs, asked: Mapping[str, Scalar]) -> Prepared:
    """Read the options and lay the grid out; nothing is opened but names and metadata."""
    dataset, name = read_dataset(inputs["dataset"]), str(inputs["base"])
    if not dataset.train:
        raise BadInputError(
            f"{inputs['dataset']} lists no training image.\nFix: make the run again from images."
        )
    sound, left_out = usable_checkpoints(inputs["lora"])
    chosen, torn = _chosen(str(asked["epochs"]), sound, left_out)
    off = _trigger_off(str(asked["trigger_off"]), [c.epoch for c in chosen])
    prompts = choose_prompts(str(asked["prompts"]), dataset, in_world=name == MINIATURE)
    axes = _axes(asked, name, dataset, sound)
    folder = str(asked["lora_dir"])
    told = [_asked(prompt, dataset, sound, folder) for prompt in prompts]
    if all(plain.text == prompt.text for prompt, plain, _ in told):
        off = ()  # nothing has a trigger to leave out
    rows, across = layers(axes, chosen, trigger_off=off), columns(axes, told)
    placed = place(rows, across, compiled=bool(asked["compile"]))
    return Prepared(placed=tuple(placed), prompts=prompts, left_out=(*left_out, *torn))


def _chosen(
    text: str, sound: Sequence[Checkpoint], left_out: Sequence[str]
) -> tuple[list[Checkpoint], list[str]]:
    """Read which epochs are meant, and leave out those whose file cannot be used, in words."""
    saved = {checkpoint.epoch: checkpoint for checkpoint in sound}
    try:
        meant = reading.epochs(text, list(saved))
    except BadInputError as error:
        raise BadInputError("\n".join([*left_out, str(error)])) from error
    usable, torn = [], []
    for checkpoint in (saved[epoch] for epoch in meant):
        try:
            read_lora(checkpoint.path)
            usable.append(checkpoint)
        except BadInputError as error:
            torn.append(f"Epoch {checkpoint.epoch} was left out: {error}")
    if meant and not usable:
        raise BadInputError("\n".join(torn))
    return usable, torn


def _axes(
    asked: Mapping[str, Scalar], base: str, dataset: Dataset, own: Sequence[Checkpoint]
) -> Axes:
    text = {name: str(value) for name, value in asked.items()}
    number = reading.numbers
    found = reading.read_all(
        {
            "companions": lambda: _companions(text["loras"], own, text["lora_dir"]),
            "strengths": lambda: number("strengths", text["strengths"], example="0.8,1.2"),
            "text_strengths": lambda: (
                number("text-strengths", text["text_strengths"], example="0.5,1")
                if text["text_strengths"].strip()
                else ()
            ),
            "seeds": lambda: reading.seeds(text["seeds"]),
            "guidances": lambda: number("guidance", text["guidance"], example="5,7", least=0),
            "steps": lambda: reading.steps(text["steps"]),
            "samplers": lambda: reading.choices("sampler", text["sampler"], SAMPLER_NAMES),
            "sizes": lambda: _sizes(text["sizes"], dataset, base),
            "clip_skip": lambda: _clip_skip(int(asked["clip_skip"] or 0), own),
        }
    )
    others = [name for name in reading.texts(text["bases"]) if name]
    negatives = reading.texts(text["negatives"])
    return Axes(bases=tuple(dict.fromkeys([base, *others])), negatives=negatives, **found)


def _companions(
    text: str, own: Sequence[Checkpoint], folder: str
) -> tuple[tuple[Applied, ...], ...]:
    sets = [companions.asked_of(part, own, folder) for part in reading.texts(text)]
    if strange := next((one.text.strip() for one in sets if one.text.strip()), ""):
        raise BadInputError(f"Cannot read {strange!r} in --loras.\nFix: --loras '<lora:NAME:0.6>'")
    if any(one.own for one in sets):
        raise BadInputError(
            "--loras names this run's own LoRA, which the rows draw already.\n"
            "Fix: --strengths 0.6,1, or the tag in a prompt"
        )
    return tuple(dict.fromkeys(one.companions for one in sets))


def _sizes(text: str, dataset: Dataset, base: str) -> tuple[tuple[int, int], ...]:
    if text.strip():
        return reading.sizes(text, unit=UNIT)
    if all(dataset.resolution):
        return (drawing_size(dataset.resolution),)
    from lorascope.models.base import shared_base

    native = shared_base(base).size
    return ((native, native),)


def _clip_skip(asked: int, own: Sequence[Checkpoint]) -> int:
    """Take the text encoder's layer that was asked for, or else the one that was trained with."""
    if asked < 0 or asked > MOST_CLIP_SKIP:
        raise BadInputError(
            f"clip skip is {asked}, and must be from 1 to {MOST_CLIP_SKIP}.\nFix: --clip-skip 2"
        )
    if asked or not own:
        return asked or 1
    return settings_of(read_header(own[-1].path).metadata).clip_skip or 1


def _trigger_off(text: str, chosen: Sequence[int]) -> tuple[int, ...]:
    word = text.strip().lower()
    known = {NO_EPOCH: (), "": (), LAST: tuple(chosen[-1:]), ALL: tuple(chosen)}
    return known[word] if word in known else reading.epochs(text, chosen, option="trigger-off")


def _asked(
    prompt: Prompt, dataset: Dataset, own: Sequence[Checkpoint], folder: str
) -> tuple[Prompt, Prompt, companions.Asked]:
    """Give a prompt without tags, the same without the trigger, and what its tags ask for."""
    asked = companions.asked_of(prompt.text, own, folder)
    if asked.tags:
        prompt = replace(prompt, text=asked.text, group=group_of(asked.text, dataset))
    prompt = _drawable(prompt)
    return prompt, trigger_off(prompt, dataset), asked


def _drawable(prompt: Prompt) -> Prompt:
    """Check what a prompt sets itself; sides are cut to multiples of 8, as sd-scripts does it."""
    sides = [side for side in (prompt.width, prompt.height) if side is not None]
    if any(not UNIT <= side <= reading.LARGEST_SIDE for side in sides):
        raise BadInputError(
            f"The prompt {prompt.text[:60]!r} asks for {' x '.join(map(str, sides))} px.\n"
            f"Fix: sides from {UNIT} to {reading.LARGEST_SIDE} behind --w and --h"
        )
    if prompt.steps is not None and not 1 <= prompt.steps <= reading.MOST_STEPS:
        raise BadInputError(
            f"The prompt {prompt.text[:60]!r} asks for {prompt.steps} sampling steps.\n"
            f"Fix: 1 to {reading.MOST_STEPS} behind --s"
        )
    width, height = (s and s - s % UNIT for s in (prompt.width, prompt.height))
    return replace(prompt, width=width, height=height)
