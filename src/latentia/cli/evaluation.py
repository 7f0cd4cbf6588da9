"""Commands that measure runs."""

from __future__ import annotations

__all__ = ["add_to"]

import typer


def add_to(app: typer.Typer) -> None:
    """Give the application these commands."""
