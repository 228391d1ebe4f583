"""The command line: one command per tool, made from the tool's own signature; the rest by hand.

Results go to stdout, progress and errors to stderr. Heavy imports wait until a command needs them,
so that ``lorascope --help`` answers at once.
"""

import sys

try:
    from lorascope.cli.answers import diagnose, explain, pick, rules
    from lorascope.cli.foreign import add, ingest
    from lorascope.cli.group import STOPPED, cli
    from lorascope.cli.surroundings import dashboard, doctor
    from lorascope.cli.tool_commands import ABOUT, PRESETS, TOOL_NAMES, command_for, option_helps
    from lorascope.cli.training import demo, new, train
except KeyboardInterrupt:  # Ctrl-C before there is a command that could answer it
    print("\nStopped.", file=sys.stderr)
    raise SystemExit(130) from None

__all__ = ["ABOUT", "PRESETS", "TOOL_NAMES", "cli", "command_for", "main", "option_helps"]

for command in (demo, new, train, ingest, add, diagnose, pick, rules, explain, dashboard, doctor):
    cli.add_command(command)


def main() -> None:
    """Start the command line."""
    try:
        cli()
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        sys.exit(STOPPED)
