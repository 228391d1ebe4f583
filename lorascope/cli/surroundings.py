"""Commands around the runs: the dashboard, and what this machine has."""

import importlib
import json
from pathlib import Path

import click

from lorascope.cli.shared import AS_JSON


@click.command()
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
    open_dashboard(found, port=port, address=address, open_browser=not no_open)


@click.command()
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


def open_dashboard(
    runs: tuple[Path, ...], *, port: int | None, open_browser: bool, address: str = "127.0.0.1"
) -> None:
    """Start the dashboard and wait until it is closed; its exit code becomes ours."""
    launch = importlib.import_module("dashboards.launch").launch
    code = launch(runs, port=port, address=address, open_browser=open_browser)
    if code:
        raise SystemExit(code)
