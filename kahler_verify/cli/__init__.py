"""The ``kahler-verify`` command: a module for each subcommand."""

from kahler_verify.cli.command import app, commands

__all__ = ["app", "commands"]
