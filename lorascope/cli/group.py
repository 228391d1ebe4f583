"""The group of all commands: how they are found and listed, and how a failure is said."""

import shlex
import sys
from typing import Any

import click

from lorascope import __version__
from lorascope.cli.asking import load_tool
from lorascope.cli.shared import safe
from lorascope.cli.tool_commands import ABOUT, TOOL_NAMES, command_for
from lorascope.errors import LorascopeError

BAD_INPUT = 2
STOPPED = 130  # as shells report Ctrl-C


class Commands(click.Group):
    """Load tools only when asked for; turn our own errors into clean lines."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name every command, tools included."""
        return sorted([*super().list_commands(ctx), *TOOL_NAMES])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find a command; a tool's is made from its function."""
        if cmd_name in TOOL_NAMES:
            return command_for(load_tool(cmd_name))
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
            click.echo(f"Error: {safe(str(error))}", err=True)
            ctx.exit(BAD_INPUT)
        except KeyboardInterrupt:
            again = shlex.join(["lorascope", *sys.argv[1:]])
            click.echo(f"\nStopped. What is done is kept; to go on: {safe(again)}", err=True)
            ctx.exit(STOPPED)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lorascope")
def cli() -> None:
    """Evaluate and troubleshoot trained Stable Diffusion LoRAs.

    A run directory holds a LoRA's checkpoints and all that was measured of them.
    To see everything on an embedded model: lorascope demo.
    """
