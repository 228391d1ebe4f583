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
from lorascope.records import SCHEMA, Outcome, Tool

EXIT = {Outcome.PASS: 0, Outcome.WARN: 0, Outcome.FAIL: 1, Outcome.INCONCLUSIVE: 3}
BAD_INPUT = 2
STOPPED = 130  # as shells report Ctrl-C

TOOL_NAMES = ("loss", "grid", "heatmap", "tags", "vae", "weights")
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {"loss": {"strata": 8, "draws": 1}, "tags": {}, "vae": {}, "weights": {}},
    "standard": {
        "loss": {"strata": 10, "draws": 2},
        "grid": {},
        "heatmap": {},
        "tags": {},
        "vae": {},
        "weights": {},
    },
    "thorough": {
        "loss": {"strata": 20, "draws": 4, "train_images": 0},
        "grid": {"seeds": "1,2,3"},
        "heatmap": {},
        "tags": {},
        "vae": {},
        "weights": {},
    },
}

LOOKS_AT_FILES = ("weights",)  # tools that take LoRA files in place of a run

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
            click.echo(f"Error: {_safe(str(error))}", err=True)
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
            is_flag=isinstance(default, bool),
            help=helps.get(name, ""),
            show_default=default != "",
        )
        for name, default in defaults(tool).items()
    ]
    as_json = click.Option(["--json", "as_json"], is_flag=True, help="Print JSON for machines.")
    files = tool.name in LOOKS_AT_FILES
    path = click.Argument(
        ["runs"],
        type=click.Path(path_type=Path),
        nargs=-1,
        required=True,
        metavar="RUN|FILE.safetensors..." if files else "RUN",
    )
    presets = _preset_option(tool.name)

    @click.pass_context
    def call(ctx: click.Context, /, runs: tuple[Path, ...], as_json: bool, **params: Any) -> None:
        from lorascope import report
        from lorascope.run import Run

        if files and all(one.suffix.lower() == ".safetensors" for one in runs):
            click.echo(_of_files(tool, runs, as_json=as_json))
            return
        if len(runs) > 1:
            what = "one run, or LoRA files alone" if files else "one run"
            raise click.UsageError(f"lorascope {tool.name} takes {what}.")
        opened = Run(runs[0])
        if (preset := params.pop("preset", None)) is not None:
            params |= {
                name: value
                for name, value in PRESETS[preset][tool.name].items()
                if ctx.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE
            }
        if "prompts" in params:
            params["prompts"] = _prompts_text(params["prompts"])
        evidence = opened.measure(tool, **params)
        if as_json:
            click.echo(json.dumps(report.evidence_as_dict(evidence), indent=2))
            return
        click.echo(report.evidence_as_text(evidence))
        click.echo(f"Stored in {opened.evidence_file(evidence, 'json')}")

    about = f"{tool.asks} {ABOUT[tool.name]}"
    params = [path, *options, *presets, as_json]
    return click.Command(tool.name, help=about, callback=call, params=params)


def _of_files(tool: Tool, paths: tuple[Path, ...], *, as_json: bool) -> str:
    """Have a tool look at files that belong to no run; nothing is stored."""
    from lorascope import report
    from lorascope.records import Evidence
    from lorascope.run import digest

    module = importlib.import_module(f"lorascope.tools.{tool.name}")
    measured = module.look_at_files(paths)
    inputs = {str(path): digest(path) for path in paths}
    evidence = Evidence(
        tool=tool.name, version=tool.version, params={}, inputs=inputs, measured=measured
    )
    if as_json:
        return json.dumps(report.evidence_as_dict(evidence), indent=2)
    return _safe(report.evidence_as_text(evidence))


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
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run directory.")
@click.option("--name", default="", help="Which training, where the folder holds several.")
@click.option("--base", default="", help="The base model: name, folder or file.")
@click.option("--copy", is_flag=True, help="Copy the files instead of linking them.")
@AS_JSON
def ingest(folder: Path, out: Path, name: str, base: str, copy: bool, as_json: bool) -> None:
    """Make a run of what kohya_ss, OneTrainer, ai-toolkit or diffusers left behind.

    FOLDER is only read. Give the same command again to take over what is new since.
    """
    from lorascope.ingest import ingest as take_over

    done = take_over(folder, out, name=name, base=base, copy=copy, say=_remark)
    if as_json:
        click.echo(json.dumps(_ingested_as_dict(done), indent=2))
        return
    by = f" ({done.trainer})" if done.trainer else ""
    click.echo(_safe(f"{done.name}{by} -> {done.run.path}"))
    for found in done.found:
        click.echo(_safe(f"  {found.role:<9}{found.count:>5}  {found.text}"))
    for missing in done.missing:
        click.echo(_safe(f"  {missing.role:<9}    -  {missing.why}"))
    changed = f", {done.changed} changed" if done.changed else ""
    news = f"{done.new} new {'file' if done.new == 1 else 'files'}{changed}"
    click.echo(f"Taken over: {news}." if done.new or done.changed else "Nothing new since.")
    if done.missing:
        click.echo("To add what is missing:")
        for missing in done.missing:
            click.echo(_safe(f"  {missing.command}"))
    click.echo(_safe(f"Next: {done.next}"))


@cli.group(invoke_without_command=False)
def add() -> None:
    """Add checkpoints, logs, images, samples or the base model to a run.

    A run is made where there is none: lorascope add lora NEWRUN FILE.safetensors
    """


COPY = click.option("--copy", is_flag=True, help="Copy the files instead of linking them.")
FILES = click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
A_PATH = click.argument("path", type=click.Path(path_type=Path))


@add.command("lora")
@A_RUN
@FILES
@COPY
@AS_JSON
def add_lora(run: Path, paths: tuple[Path, ...], copy: bool, as_json: bool) -> None:
    """Add checkpoints: .safetensors files, or a folder of them."""
    from lorascope.ingest import add_lora as call

    _added(call(run, paths, copy=copy, say=_remark), as_json)


@add.command("logs")
@A_RUN
@A_PATH
@AS_JSON
def add_logs(run: Path, path: Path, as_json: bool) -> None:
    """Add TensorBoard event files: one, or all below a folder."""
    from lorascope.ingest import add_logs as call

    _added(call(run, path, say=_remark), as_json)


@add.command("samples")
@A_RUN
@A_PATH
@COPY
@AS_JSON
def add_samples(run: Path, path: Path, copy: bool, as_json: bool) -> None:
    """Add sample pictures that were drawn while training."""
    from lorascope.ingest import add_samples as call

    _added(call(run, path, copy=copy, say=_remark), as_json)


@add.command("dataset")
@A_RUN
@A_PATH
@click.option(
    "--as",
    "split",
    type=click.Choice(["train", "held-out", "composition"]),
    default="train",
    show_default=True,
    help="Trained on; never trained on; or of a background or outfit never trained on.",
)
@click.option("--trigger", default="", help="The activation tag.")
@click.option("--class-word", default="", help="The plain noun for the subject.")
@click.option(
    "--resolution", type=click.IntRange(64, 4096), default=None, help="px, what training aimed at."
)
@AS_JSON
def add_dataset(
    run: Path,
    path: Path,
    split: Any,
    trigger: str,
    class_word: str,
    resolution: int | None,
    as_json: bool,
) -> None:
    """Add a folder of images: trained on, or held out."""
    from lorascope.ingest import add_dataset as call

    about = {"trigger": trigger, "class_word": class_word}
    opened, _ = call(run, path, split=split, resolution=resolution or 0, say=_remark, **about)
    _added(opened, as_json)


@add.command("base")
@A_RUN
@click.argument("name")
@AS_JSON
def add_base(run: Path, name: str, as_json: bool) -> None:
    """Say on which base model the LoRA was trained: name, folder or file."""
    from lorascope.ingest import add_base as call

    _added(call(run, name, say=_remark), as_json)


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


def _ingested_as_dict(done: Any) -> dict[str, Any]:
    """Write what became of a folder for machines."""
    return {
        "schema": SCHEMA,
        "run": str(done.run.path),
        "name": done.name,
        "trainer": done.trainer,
        "base": done.run.base,
        "found": [{"role": f.role, "count": f.count, "text": f.text} for f in done.found],
        "missing": [{"role": m.role, "why": m.why, "command": m.command} for m in done.missing],
        "notes": list(done.notes),
        "new": done.new,
        "changed": done.changed,
        "next": done.next,
    }


def _added(run: Any, as_json: bool) -> None:
    """Say what a run has now, and what to do next."""
    has = {role: run.has(role) for role in ("lora", "dataset", "base", "events", "drawn")}
    command = "diagnose" if has["lora"] else "add lora"
    following = f"lorascope {command} {run.shell}" + ("" if has["lora"] else " FILE")
    if as_json:
        click.echo(json.dumps({"schema": SCHEMA, "run": str(run.path), "has": has,
                               "next": following}, indent=2))  # fmt: skip
        return
    click.echo(_safe(f"Next: {following}"))


def _remark(text: str) -> None:
    """Say a line on stderr, clear of a running progress line."""
    start = "\r\x1b[K" if sys.stderr.isatty() else ""
    click.echo(start + _safe(text), err=True)


def _safe(text: str) -> str:
    """Take out of a text what foreign file names could do to a terminal."""
    plain = text.encode("utf-8", "backslashreplace").decode()
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in plain
    )


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
