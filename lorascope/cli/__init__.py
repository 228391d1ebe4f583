"""The command line: one command per tool, made from the tool's own signature; the rest by hand.

Results go to stdout, progress and errors to stderr. Heavy imports wait until a command needs them,
so that ``lorascope --help`` answers at once.
"""

from lorascope.cli.answers import diagnose, explain, pick, rules
from lorascope.cli.foreign import add, ingest
from lorascope.cli.group import cli
from lorascope.cli.surroundings import dashboard, doctor
from lorascope.cli.tool_commands import ABOUT, PRESETS, TOOL_NAMES, command_for, option_helps
from lorascope.cli.training import demo, new, train

__all__ = ["ABOUT", "PRESETS", "TOOL_NAMES", "cli", "command_for", "main", "option_helps"]

for command in (demo, new, train, ingest, add, diagnose, pick, rules, explain, dashboard, doctor):
    cli.add_command(command)


def main() -> None:
    """Start the command line."""
    cli()
