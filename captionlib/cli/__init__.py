"""The `captionlib` command."""

from captionlib.cli.commands import main

__all__ = ["main"]
