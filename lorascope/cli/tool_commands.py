"""One command per tool, made from its function: a keyword is an option, its docstring the help.

The names and the one-line texts stand here, so that the list of commands loads no tool.
"""

import importlib
import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from lorascope.cli import asking, grid_command
from lorascope.cli.asking import load_tool
from lorascope.cli.shared import safe
from lorascope.errors import LorascopeError, StorageError
from lorascope.records import Tool

TOOL_NAMES = (
    "loss", "grid", *asking.MEASURES, "stress", "heatmap", "tags", "vae", "weights"
)  # fmt: skip
ABOUT = {
    "loss": "Held-out loss of every saved epoch, and the dips of the log.",
    "grid": "The epoch x prompt grid, beside the base model.",
    "likeness": "How like the subject the pictures are, by features of the base model.",
    "adherence": "How well the pictures obey their prompts, by the base model's likelihood.",
    "diversity": "How far the pictures of one prompt differ, beside the base model's.",
    "drift": "What changes in pictures whose prompt lacks the trigger.",
    "copies": "Samples that repeat a training image, or are pieced together of several.",
    "artefacts": "Saturation, clipping, noise and blocks, beside the base model's pictures.",
    "stress": "Strength from 0 to 2: where pictures spoil, and where it works best.",
    "heatmap": "Where each tag acts: attention maps, LoRA beside base.",
    "tags": "Tag frequency, and captions without the activation tag.",
    "vae": "What the VAE loses of each image before any training.",
    "weights": "Norms, rank, dead and broken modules, epoch by epoch.",
}
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {"loss": {"strata": 8, "draws": 1}, "tags": {}, "vae": {}, "weights": {}},
    "standard": {
        "loss": {"strata": 10, "draws": 2},
        "grid": {},
        **{name: {} for name in asking.MEASURES},
        "stress": {},
        "heatmap": {},
        "tags": {},
        "vae": {},
        "weights": {},
    },
    "thorough": {
        "loss": {"strata": 20, "draws": 4, "train_images": 0},
        "grid": {"seeds": "1,2,3"},
        **{name: {} for name in asking.MEASURES},
        "stress": {"form": "both"},
        "heatmap": {},
        "tags": {},
        "vae": {},
        "weights": {},
    },
}
OF_THE_BEST = {"heatmap": "epoch", "stress": "epochs"}  # asked of the recommended epoch, last
NOTHING_BROKEN = "No rule found a file broken, dead or blown up; none can say that it is good."
LOOKS_AT_FILES = ("weights",)  # tools that take LoRA files in place of a run


def command_for(tool: Tool) -> click.Command:
    """Build `lorascope TOOL RUN`: one option per keyword of the tool's function."""
    files = tool.name in LOOKS_AT_FILES
    extras = [option.name for option in _extra_options(tool)]

    @click.pass_context
    def call(ctx: click.Context, /, runs: tuple[Path, ...], as_json: bool, **params: Any) -> None:
        from lorascope import report
        from lorascope.run import Run

        if files and _are_files(runs):
            click.echo(_of_files(tool, runs, as_json=as_json))
            return
        if len(runs) > 1:
            what = "one run, or LoRA files alone" if files else "one run"
            raise click.UsageError(f"lorascope {tool.name} takes {what}.")
        opened = Run(runs[0])
        extra = {name: params.pop(name) for name in extras}
        wanted = _params(ctx, tool.name, params)
        if tool.name == "grid":
            grid_command.call(opened, tool, wanted, as_json=as_json, **extra)
            return
        evidence = asking.ask(opened, tool, **extra, **wanted)
        if as_json:
            click.echo(json.dumps(report.evidence_as_dict(evidence), indent=2))
            return
        click.echo(report.evidence_as_text(evidence))
        if "pictures" in extra:
            click.echo(f"Pictures: {asking.said_of_pictures(opened, extra['pictures'])}")
        click.echo(f"Stored in {opened.evidence_file(evidence, 'json')}")

    path = click.Argument(
        ["runs"],
        type=click.Path(path_type=Path),
        nargs=-1,
        required=True,
        metavar="RUN|FOLDER|FILE.safetensors..." if files else "RUN",
    )
    as_json = click.Option(["--json", "as_json"], is_flag=True, help="Print JSON for machines.")
    return click.Command(
        tool.name,
        help=f"{tool.asks} {ABOUT[tool.name]}",
        callback=call,
        params=[path, *_options(tool), *_extra_options(tool), *_preset_option(tool.name), as_json],
    )


def _extra_options(tool: Tool) -> list[click.Option]:
    """Make the options of the command line alone: which pictures, and what else to do with them."""
    draws = tool.name == "grid"
    if not draws and "pictures" not in tool.reads:
        return []
    about = (
        "Whose: grid (the one that the verdict hears: asked with the fewest options), trainer "
        "(what another trainer drew), or the id of a grid's evidence."
    )
    option = click.Option(
        ["--pictures"], default=asking.GRID_PICTURES, show_default=True, help=about
    )
    return [option, *(grid_command.EXTRA if draws else [])]


def _options(tool: Tool) -> list[click.Option]:
    """Make an option of each keyword of a tool's function."""
    from lorascope.run import defaults

    helps = option_helps(tool)
    return [
        click.Option(
            [f"--{name.replace('_', '-')}"],
            default=default,
            type=type(default),
            is_flag=isinstance(default, bool),
            help=helps.get(name, ""),
            show_default=default != "",
        )
        for name, default in defaults(tool).items()
    ]


def _params(ctx: click.Context, tool: str, given: dict[str, Any]) -> dict[str, Any]:
    """Put together what is asked of a tool: a preset sets what was not given."""
    params = dict(given)
    if (preset := params.pop("preset", None)) is not None:
        params |= {
            name: value
            for name, value in PRESETS[preset][tool].items()
            if ctx.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE
        }
    if "prompts" in params:
        params["prompts"] = _prompts_text(params["prompts"])
    return params


def _are_files(paths: tuple[Path, ...]) -> bool:
    """Tell LoRA files, or one folder of them, from a run."""
    from lorascope.io.checkpoints import ENDING
    from lorascope.run import BUNDLE

    if all(path.suffix.lower() == ENDING for path in paths):
        return True
    (folder, *others) = paths
    if others or not folder.is_dir() or (folder / BUNDLE).exists():
        return False
    return bool(_files_in(folder)) or any(
        path.suffix.lower() == ENDING for path in folder.iterdir()
    )


def _files_in(folder: Path) -> list[Path]:
    from lorascope.io.checkpoints import list_checkpoints

    return [checkpoint.path for checkpoint in list_checkpoints(folder)]


def _of_files(tool: Tool, paths: tuple[Path, ...], *, as_json: bool) -> str:
    """Have a tool look at files that belong to no run, and judge them; nothing is stored."""
    from lorascope import report
    from lorascope.records import Evidence
    from lorascope.run import digest
    from lorascope.verdict import judge

    module = importlib.import_module(f"lorascope.tools.{tool.name}")
    measured = module.look_at_files(paths)
    files = [file for path in paths for file in (_files_in(path) if path.is_dir() else [path])]
    inputs = {str(file): digest(file) for file in files}
    evidence = Evidence(
        tool=tool.name, version=tool.version, params={}, inputs=inputs, measured=measured
    )
    findings = judge({tool.name: evidence})
    if as_json:
        found = [asdict(finding) for finding in report.by_weight(findings)]
        return json.dumps(report.evidence_as_dict(evidence) | {"findings": found}, indent=2)
    said = report.findings_as_text(findings) or NOTHING_BROKEN
    return safe(f"{report.evidence_as_text(evidence)}\n\n{said}")


def _preset_option(tool: str) -> list[click.Parameter]:
    """Make ``--preset`` for a tool of which some preset asks other options than its own."""
    if not any(chosen.get(tool) for chosen in PRESETS.values()):
        return []
    names = [name for name, chosen in PRESETS.items() if tool in chosen]
    about = "Sets the other options; one that you give yourself counts first."
    return [click.Option(["--preset"], type=click.Choice(names), default=None, help=about)]


def option_helps(tool: Tool) -> Mapping[str, str]:
    """Read what each option means from the docstring of the tool's function."""
    doc = inspect.getdoc(tool.measure) or ""
    found = re.findall(r"^(\w+) : .*\n((?:    .+\n?)+)", doc, re.M)
    return {name: " ".join(text.split()) for name, text in found}


def _prompts_text(prompts: str) -> str:
    """Read prompts from the file that is named; other text is prompts already.

    The text, not the path, becomes part of the question: an edited file is another question.
    """
    try:
        if not Path(prompts).is_file():
            return prompts
    except OSError:  # too long for a path
        return prompts
    from lorascope.tools.drawing.prompts import prompts_text

    return prompts_text(Path(prompts))


def measure_all(run: Any, wanted: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Ask every tool of a preset; what is stored already is not measured again.

    Heatmaps and stress come last: they are made of the epoch that the rest recommends.

    Returns
    -------
    dict
        Of the tools that could not answer: what stood in their way.
    """
    from lorascope.verdict import verdict

    failed: dict[str, str] = {}
    answers: dict[str, Any] = {}
    pictures = asking.GRID_PICTURES
    for name in sorted(wanted, key=lambda name: name in OF_THE_BEST):
        params = dict(wanted[name])
        if name in OF_THE_BEST and (best := verdict(run).best) is not None:
            params |= {OF_THE_BEST[name]: best.epoch if name == "heatmap" else str(best.epoch)}
        try:
            answers[name] = asking.ask(run, load_tool(name), pictures=pictures, **params)
            pictures = answers[name].id if name == "grid" else pictures
        except StorageError:
            raise
        except LorascopeError as error:  # one question without an answer does not end the others
            failed[name] = str(error)
            click.echo(f"{name} could not be measured: {safe(str(error))}", err=True)
    if "grid" in answers:
        measured = {name: answers[name] for name in asking.MEASURES if name in answers}
        grid_command.write_page(run, answers["grid"], measured)
    return failed
