"""Commands that take over what others made: ingest a folder, add one more piece to a run."""

import json
from pathlib import Path
from typing import Any

import click

from lorascope.cli.shared import A_RUN, AS_JSON, remark, safe
from lorascope.records import SCHEMA

COPY = click.option("--copy", is_flag=True, help="Copy the files instead of linking them.")
FILES = click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
A_PATH = click.argument("path", type=click.Path(path_type=Path))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run directory.")
@click.option("--name", default="", help="Which training, where the folder holds several.")
@click.option("--base", default="", help="The base model: name, folder or file.")
@COPY
@AS_JSON
def ingest(folder: Path, out: Path, name: str, base: str, copy: bool, as_json: bool) -> None:
    """Make a run of what kohya_ss, OneTrainer, ai-toolkit or diffusers left behind.

    FOLDER is only read. Give the same command again to take over what is new since.
    """
    from lorascope.ingest import ingest as take_over

    done = take_over(folder, out, name=name, base=base, copy=copy, say=remark)
    if as_json:
        click.echo(json.dumps(_ingested_as_dict(done), indent=2))
        return
    by = f" ({done.trainer})" if done.trainer else ""
    click.echo(safe(f"{done.name}{by} -> {done.run.path}"))
    for found in done.found:
        click.echo(safe(f"  {found.role:<9}{found.count:>5}  {found.text}"))
    for missing in done.missing:
        click.echo(safe(f"  {missing.role:<9}    -  {missing.why}"))
    changed = f", {done.changed} changed" if done.changed else ""
    news = f"{done.new} new {'file' if done.new == 1 else 'files'}{changed}"
    click.echo(f"Taken over: {news}." if done.new or done.changed else "Nothing new since.")
    if done.missing:
        click.echo("To add what is missing:")
        for missing in done.missing:
            click.echo(safe(f"  {missing.command}"))
    click.echo(safe(f"Next: {done.next}"))


@click.group()
def add() -> None:
    """Add checkpoints, logs, images, samples or the base model to a run.

    A run is made where there is none: lorascope add lora NEWRUN FILE.safetensors
    """


@add.command("lora")
@A_RUN
@FILES
@COPY
@click.option(
    "--allow-pickle",
    is_flag=True,
    help="Convert .pt, .ckpt, .pth and .bin files that are named; nothing in them is run.",
)
@AS_JSON
def add_lora(
    run: Path, paths: tuple[Path, ...], copy: bool, allow_pickle: bool, as_json: bool
) -> None:
    """Add checkpoints: .safetensors files, or a folder of them."""
    from lorascope.ingest import add_lora as call

    _added(call(run, paths, copy=copy, allow_pickle=allow_pickle, say=remark), as_json)


@add.command("logs")
@A_RUN
@A_PATH
@AS_JSON
def add_logs(run: Path, path: Path, as_json: bool) -> None:
    """Add TensorBoard event files: one, or all below a folder."""
    from lorascope.ingest import add_logs as call

    _added(call(run, path, say=remark), as_json)


@add.command("samples")
@A_RUN
@A_PATH
@COPY
@AS_JSON
def add_samples(run: Path, path: Path, copy: bool, as_json: bool) -> None:
    """Add sample pictures that were drawn while training."""
    from lorascope.ingest import add_samples as call

    _added(call(run, path, copy=copy, say=remark), as_json)


@add.command("dataset")
@A_RUN
@A_PATH
@click.option(
    "--as",
    "split",
    type=click.Choice(["train", "held-out", "composition"]),
    default=None,
    help="New images are trained on (as without it), never trained on, or of a background or "
    "outfit never trained on. Images of the run keep their side.",
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
    """Add a folder of images, trained on or held out, or find those again that were moved."""
    from lorascope.ingest import add_dataset as call

    about = {"trigger": trigger, "class_word": class_word}
    opened, _ = call(run, path, split=split, resolution=resolution or 0, say=remark, **about)
    _added(opened, as_json)


@add.command("base")
@A_RUN
@click.argument("name")
@AS_JSON
def add_base(run: Path, name: str, as_json: bool) -> None:
    """Say on which base model the LoRA was trained: name, folder or file."""
    from lorascope.ingest import add_base as call

    _added(call(run, name, say=remark), as_json)


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
    click.echo(safe(f"Next: {following}"))
