"""The errors that users see. Each message says what is wrong and names the cure.

Every one is also a `ValueError` (or `OSError`), so that code without an import of latentia can catch it;
the command line catches `LatentiaError` alone and prints its message without a traceback.
"""

from __future__ import annotations

__all__ = [
    "ConfigurationError",
    "DataError",
    "Interrupted",
    "LatentiaError",
    "RunError",
    "UnsupportedError",
    "counted",
    "first_line",
    "how_to_go_on",
    "nearest",
    "require_count",
]

import difflib
import shlex
from collections.abc import Iterable
from pathlib import Path


class LatentiaError(Exception):
    """Base of all errors whose message is meant for a person."""

    def _render_traceback_(self) -> list[str]:
        """What IPython and Jupyter show in place of a traceback."""
        return [f"error: {self}"]


class ConfigurationError(LatentiaError, ValueError):
    """An invalid recipe, option or distribution: `problems` holds one (key, message) pair for each fault."""

    def __init__(self, problems: Iterable[tuple[str, str]] | str):
        self.problems = [("", problems)] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(f"{key}: {text}" if key else text for key, text in self.problems))


class DataError(LatentiaError, ValueError):
    """Data that is missing, damaged, of the wrong shape, or that the chosen likelihood cannot score."""


class RunError(LatentiaError, ValueError):
    """A run directory that cannot be used: already there, damaged, of another recipe, or with values not finite."""


class Interrupted(RunError):
    """A run that was asked to stop by Ctrl-C or SIGTERM, and has saved where it is."""


class UnsupportedError(LatentiaError, ValueError):
    """An exact method that does not apply here; the message names a method that does."""


def counted(count: int, noun: str) -> str:
    """A number with its noun: `1 image`, `2 images`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def first_line(error: BaseException) -> str:
    """The first line of another library's message, at most 160 characters and without its full stop; else its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:160].rstrip(".")


def how_to_go_on(path: Path | str) -> str:
    """The cure of a run that has stopped: the command that resumes it, as a shell takes it."""
    return f"go on with `latentia resume {shlex.quote(str(path))}`"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ' Did you mean …?' for the nearest known word, or a list of what is known.

    Examples:
        >>> nearest("epoch", ["epochs", "seed"])
        'Did you mean epochs?'
    """
    known = sorted(known)
    lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.6)
    return f"Did you mean {lower[close[0]]}?" if close else f"Known: {', '.join(known)}."


def require_count(key: str, n: object, least: int = 1) -> None:
    """Check that a number of things is a whole number, and large enough.

    Raises:
        ConfigurationError: naming the key, what is needed and what was given.
    """
    if not isinstance(n, int) or isinstance(n, bool):
        raise ConfigurationError([(key, f"give a whole number (given: {n!r})")])
    if n < least:
        raise ConfigurationError([(key, f"give at least {least} (given: {n})")])
