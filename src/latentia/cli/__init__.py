"""The command line: commands parse, call `latentia.interface` and print; each imports what it needs."""

from latentia.cli.app import app, main

__all__ = ["app", "main"]
