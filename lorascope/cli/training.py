"""Commands that make a run of our own: demo, new, train."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lorascope.cli.shared import A_RUN
from lorascope.cli.surroundings import open_dashboard
from lorascope.cli.tool_commands import PRESETS, measure_all
from lorascope.errors import BadInputError


@click.command()
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
    measure_all(run, PRESETS["standard"])
    click.echo(report.as_text(verdict(run)))
    samples = Run(out).place("samples")
    click.echo(f"\nThe grid, to walk through: {samples / 'grid.html'}; as one picture: grid.png")
    if no_open:
        click.echo(f"The dashboard: lorascope dashboard {out}")
        return
    open_dashboard((out,), port=port, open_browser=True)


@click.command()
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


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=None, help="The run directory.")
def train(config: Path, out: Path | None) -> None:
    """Train a LoRA; every epoch is saved."""
    settings = importlib.import_module("trainer.config").read_config(config)
    out = out or Path("runs") / (settings.name or config.stem)
    run = _trainer()(settings, out)
    click.echo(f"Trained: {run.path}\nNext: lorascope diagnose {run.path}")


def _trainer() -> Callable[..., Any]:
    """Load the trainer: it is a package of its own, below the command line alone."""
    found: Callable[..., Any] = importlib.import_module("trainer.loop").train
    return found


def _demo() -> Any:
    """Load the demo's settings and its one function."""
    return importlib.import_module("lorascope.demo")
