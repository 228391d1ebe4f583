"""The command line: one command per tool, made from the tool's own signature; the rest by hand.

Results go to stdout, progress and errors to stderr. Heavy imports wait until a command needs them,
so that ``lorascope --help`` answers at once.
"""

import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from lorascope import __version__
from lorascope.errors import BadInputError, LorascopeError, StorageError
from lorascope.records import Outcome, Tool

EXIT = {Outcome.PASS: 0, Outcome.WARN: 0, Outcome.FAIL: 1, Outcome.INCONCLUSIVE: 3}
BAD_INPUT = 2
STOPPED = 130  # as shells report Ctrl-C

TOOL_NAMES = ("loss", "grid", "heatmap", "tags", "vae", "weights")
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {"loss": {"strata": 8, "draws": 1}, "tags": {}, "vae": {}, "weights": {}},
    "standard": {"loss": {}, "grid": {}, "heatmap": {}, "tags": {}, "vae": {}, "weights": {}},
    "thorough": {
        "loss": {"strata": 20, "draws": 4},
        "grid": {"seeds": "1,2,3"},
        "heatmap": {},
        "tags": {},
        "vae": {},
        "weights": {},
    },
}

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
A_RUN = click.argument("run", type=click.Path(path_type=Path))


class Commands(click.Group):
    """Load tools only when asked for; turn our own errors into clean lines."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name every command, tools included."""
        return sorted([*super().list_commands(ctx), *TOOL_NAMES])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find a command; a tool's is made from its function."""
        if cmd_name in TOOL_NAMES:
            return command_for(_tool(cmd_name))
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without loading a single tool."""
        rows = [(name, ABOUT[name]) for name in TOOL_NAMES]
        rows += [(name, command.get_short_help_str(80)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(sorted(rows))

    def invoke(self, ctx: click.Context) -> Any:
        """Run, and print an expected failure without its traceback."""
        try:
            return super().invoke(ctx)
        except LorascopeError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(BAD_INPUT)
        except KeyboardInterrupt:
            again = " ".join(["lorascope", *sys.argv[1:]])
            click.echo(f"\nStopped. What is done is kept; to go on: {again}", err=True)
            ctx.exit(STOPPED)


ABOUT = {
    "loss": "Held-out loss of every saved epoch, and the dips of the log.",
    "grid": "The epoch x prompt grid, beside the base model.",
    "heatmap": "Where each tag acts: attention maps, LoRA beside base.",
    "tags": "Tag frequency, and captions without the activation tag.",
    "vae": "What the VAE loses of each image before any training.",
    "weights": "Norms, rank, dead and broken modules, epoch by epoch.",
}


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lorascope")
def cli() -> None:
    """Evaluate and troubleshoot trained Stable Diffusion LoRAs.

    A run directory holds a LoRA's checkpoints and all that was measured of them.
    To see everything on an embedded model: lorascope demo.
    """


def main() -> None:
    """Start the command line."""
    cli()


def command_for(tool: Tool) -> click.Command:
    """Build `lorascope TOOL RUN`: one option per keyword of the tool's function."""
    from lorascope.run import defaults

    helps = option_helps(tool)
    options: list[click.Parameter] = [
        click.Option(
            [f"--{name.replace('_', '-')}"],
            default=default,
            type=type(default),
            help=helps.get(name, ""),
            show_default=default != "",
        )
        for name, default in defaults(tool).items()
    ]
    as_json = click.Option(["--json", "as_json"], is_flag=True, help="Print JSON for machines.")
    path = click.Argument(["run"], type=click.Path(path_type=Path))

    def call(run: Path, as_json: bool, **params: Any) -> None:
        from lorascope import report
        from lorascope.run import Run

        opened = Run(run)
        if "prompts" in params:
            params["prompts"] = _prompts_text(params["prompts"])
        evidence = opened.measure(tool, **params)
        if as_json:
            click.echo(json.dumps(report.evidence_as_dict(evidence), indent=2))
            return
        click.echo(report.evidence_as_text(evidence))
        click.echo(f"Stored in {opened.evidence_file(evidence, 'json')}")

    about = f"{tool.asks} {ABOUT[tool.name]}"
    return click.Command(tool.name, help=about, callback=call, params=[path, *options, as_json])


def option_helps(tool: Tool) -> Mapping[str, str]:
    """Read what each option means from the docstring of the tool's function."""
    doc = inspect.getdoc(tool.measure) or ""
    found = re.findall(r"^(\w+) : .*\n((?:    .+\n?)+)", doc, re.M)
    return {name: " ".join(text.split()) for name, text in found}


def _tool(name: str) -> Tool:
    module = importlib.import_module(f"lorascope.tools.{name}")
    found: Tool = getattr(module, name.upper())
    return found


@cli.command()
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs/demo"), show_default=True
)
@click.option("--no-open", is_flag=True, help="Leave the dashboard closed at the end.")
@click.option("--port", type=int, default=None, help="Of the dashboard.")
def demo(out: Path, no_open: bool, port: int | None) -> None:
    """Draw a character, train, measure everything, open the dashboard."""
    from lorascope import report
    from lorascope.run import Run
    from lorascope.verdict import verdict

    run = _demo().make(out)
    _measure(run, PRESETS["standard"])
    click.echo(report.as_text(verdict(run)))
    click.echo(f"\nThe grid as one picture: {Run(out).place('samples') / 'grid.png'}")
    if no_open:
        click.echo(f"The dashboard: lorascope dashboard {out}")
        return
    _open_dashboard((out,), port=port, open_browser=True)


@cli.command()
@A_RUN
@click.option("--dataset", default="", help="The folder of training images.")
@click.option("--base", default="miniature", show_default=True, help="Name, folder or file.")
@click.option("--trigger", default="", help="The activation tag.")
def new(run: Path, dataset: str, base: str, trigger: str) -> None:
    """Write a commented training config for a new run."""
    config = importlib.import_module("trainer.config")
    file = run if run.suffix == ".toml" else run.with_name(f"{run.name}.toml")
    if file.exists():
        raise BadInputError(f"{file} is there already.\nFix: lorascope train {file}")
    about = {"base": base, "dataset": dataset or "PATH/OF/THE/IMAGES"}
    about |= {"name": file.stem, "trigger": trigger}
    suited = _demo().SETTINGS if base == "miniature" else {}
    settings = config.config_from({**suited, **about})
    config.write_config(file, settings)
    out = file.with_suffix("")
    click.echo(f"Written: {file}\nEdit it, then: lorascope train {file} --out {out}")


@cli.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=None, help="The run directory.")
def train(config: Path, out: Path | None) -> None:
    """Train a LoRA; every epoch is saved."""
    settings = importlib.import_module("trainer.config").read_config(config)
    out = out or Path("runs") / (settings.name or config.stem)
    run = _trainer()(settings, out)
    click.echo(f"Trained: {run.path}\nNext: lorascope diagnose {run.path}")


@cli.command()
@A_RUN
@click.option("--preset", type=click.Choice(list(PRESETS)), default="standard", show_default=True)
@AS_JSON
@click.pass_context
def diagnose(ctx: click.Context, run: Path, preset: str, as_json: bool) -> None:
    """Measure what is missing, print the verdict and why.

    Exit code 0: pass or warn, 1: fail, 2: bad input, 3: inconclusive.
    """
    from lorascope import report
    from lorascope.run import Run
    from lorascope.verdict import verdict

    opened = Run(run)
    _measure(opened, PRESETS[preset])
    answer = verdict(opened)
    text = json.dumps(report.as_dict(answer), indent=2) if as_json else report.as_text(answer)
    click.echo(text)
    ctx.exit(EXIT[answer.outcome])


@cli.command()
@A_RUN
@click.argument("epoch", type=int)
@click.option(
    "--to", type=click.Path(path_type=Path), required=True, help="The folder it is copied to."
)
def pick(run: Path, epoch: int, to: Path) -> None:
    """Copy the chosen checkpoint out under its own name, with the choice in its metadata."""
    from lorascope.io.checkpoints import list_checkpoints
    from lorascope.io.safetensors_file import copy_with_metadata
    from lorascope.run import Run
    from lorascope.verdict import verdict

    opened = Run(run)
    saved = {c.epoch: c.path for c in list_checkpoints(opened.input("lora"))}
    if epoch not in saved:
        raise BadInputError(
            f"{run} has no checkpoint of epoch {epoch}; it has {', '.join(map(str, saved))}.\n"
            f"Fix: lorascope pick {run} {max(saved, default=1)} --to {to}"
        )
    target = to / saved[epoch].name
    if target.exists():
        raise BadInputError(f"{target} is there already.\nFix: name another folder with --to.")
    best = verdict(opened).best
    choice = {
        "lorascope_pick": str(epoch),
        "lorascope_run": opened.name,
        "lorascope_best": str(best.epoch) if best else "",
        "lorascope_best_probability": str(best.probability) if best else "",
    }
    copy_with_metadata(saved[epoch], target, choice)
    click.echo(f"Copied: {target}")


@cli.command()
@AS_JSON
def rules(as_json: bool) -> None:
    """List every finding the program can make."""
    from lorascope.rules import RULES

    if as_json:
        listed = [{"code": r.code, "uses": list(r.uses), "means": r.means} for r in RULES]
        click.echo(json.dumps(listed, indent=2))
        return
    for rule in RULES:
        click.echo(f"{rule.code:<18}{rule.means.split('. ')[0].rstrip('.')}.")


@cli.command()
@click.argument("code")
def explain(code: str) -> None:
    """Explain one finding: meaning, evidence, confidence, remedy."""
    import difflib

    from lorascope.rules import RULES

    known = {rule.code: rule for rule in RULES}
    rule = known.get(code.upper())
    if rule is None:
        near = difflib.get_close_matches(code.upper(), known, 1)
        hint = f"Did you mean {near[0]}?" if near else "See: lorascope rules"
        raise BadInputError(f"There is no finding {code}. {hint}")
    click.echo(f"{rule.code}\n{rule.means}\n")
    click.echo(f"Evidence: {rule.evidence}\nHow sure: {rule.sure}\nWhat to do: {rule.do}")
    click.echo(f"Measured by: {', '.join(f'lorascope {tool} RUN' for tool in rule.listens)}")


@cli.command()
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.option("--port", type=int, default=None, help="[default: the first free one from 8501]")
@click.option("--address", default="127.0.0.1", show_default=True, help="Whom to answer.")
@click.option("--no-open", is_flag=True, help="Do not open a browser.")
def dashboard(runs: tuple[Path, ...], port: int | None, address: str, no_open: bool) -> None:
    """Open the dashboard on runs; without any, on all below runs/."""
    from lorascope.run import Run

    found = runs or tuple(sorted(p.parent for p in Path("runs").glob("*/run.json")))
    for path in found:
        Run(path)
    _open_dashboard(found, port=port, address=address, open_browser=not no_open)


@cli.command()
@AS_JSON
def doctor(as_json: bool) -> None:
    """Show versions, device, memory, and the base models at hand."""
    from lorascope.doctor import look

    found = look()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        click.echo(f"{name:<24}{value}")


def _prompts_text(prompts: str) -> str:
    """Read prompts from the file that is named; other text is prompts already.

    The text, not the path, becomes part of the question: an edited file is another question.
    """
    try:
        if not Path(prompts).is_file():
            return prompts
    except OSError:  # too long for a path
        return prompts
    fix = "Fix: --prompts FILE, a text file with one prompt a line."
    try:
        text = Path(prompts).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"Cannot read prompts from {prompts}: {error}.\n{fix}") from error
    if not text.strip():
        raise BadInputError(f"{prompts} holds no prompt.\n{fix}")
    return text


def _measure(run: Any, wanted: Mapping[str, Mapping[str, Any]]) -> None:
    """Ask every tool of a preset; what is stored already is not measured again.

    Heatmaps come last: they are made of the epoch that the rest recommends.
    """
    from lorascope.verdict import verdict

    for name in sorted(wanted, key=lambda name: name == "heatmap"):
        params = dict(wanted[name])
        if name == "heatmap" and (best := verdict(run).best) is not None:
            params["epoch"] = best.epoch
        try:
            run.measure(_tool(name), **params)
        except StorageError:
            raise
        except LorascopeError as error:  # one question without an answer does not end the others
            click.echo(f"{name} could not be measured: {error}", err=True)


def _trainer() -> Callable[..., Any]:
    """Load the trainer: it is a package of its own, below the command line alone."""
    found: Callable[..., Any] = importlib.import_module("trainer.loop").train
    return found


def _demo() -> Any:
    """Load the demo's settings and its one function."""
    return importlib.import_module("lorascope.demo")


def _open_dashboard(
    runs: tuple[Path, ...], *, port: int | None, open_browser: bool, address: str = "127.0.0.1"
) -> None:
    launch = importlib.import_module("dashboards.launch").launch
    code = launch(runs, port=port, address=address, open_browser=open_browser)
    if code:
        raise SystemExit(code)
