"""Commands that answer: diagnose, pick, and the findings with their explanations."""

import difflib
import json
from pathlib import Path

import click

from lorascope.cli.shared import A_RUN, AS_JSON
from lorascope.cli.tool_commands import PRESETS, measure_all
from lorascope.errors import BadInputError
from lorascope.records import Outcome

EXIT = {Outcome.PASS: 0, Outcome.WARN: 0, Outcome.FAIL: 1, Outcome.INCONCLUSIVE: 3}


@click.command()
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
    failed = measure_all(opened, PRESETS[preset])
    answer = verdict(opened, failed=failed)
    text = json.dumps(report.as_dict(answer), indent=2) if as_json else report.as_text(answer)
    click.echo(text)
    ctx.exit(EXIT[answer.outcome])


@click.command()
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


@click.command()
@AS_JSON
def rules(as_json: bool) -> None:
    """List every finding the program can make."""
    from lorascope.rules import RULES

    if as_json:
        listed = [{"code": r.code, "uses": list(r.uses), "means": r.means} for r in RULES]
        click.echo(json.dumps(listed, indent=2))
        return
    formatter = click.HelpFormatter(width=100)
    formatter.write_dl([(r.code, f"{r.means.split('. ')[0].rstrip('.')}.") for r in RULES])
    click.echo(formatter.getvalue().rstrip())


@click.command()
@click.argument("code")
def explain(code: str) -> None:
    """Explain one finding: meaning, evidence, confidence, remedy."""
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
