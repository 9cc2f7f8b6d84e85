"""The subcommands under the name that ``typer`` looks for, which writes docs/commands.md."""

from kahler_verify.cli.command import commands as app

__all__ = ["app"]
