"""The application, its groups of commands, and what a user sees when something is wrong."""

from __future__ import annotations

__all__ = ["app", "main"]

import sys
from typing import Annotated

import typer

from latentia.cli import evaluation, runs, scoring, theory

INTERRUPTED = 130  # what a shell expects after Ctrl-C

app = typer.Typer(
    name="latentia",
    help="A laboratory for latent-variable generative models: train, measure, and verify the theory.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (runs, evaluation, scoring, theory):
    group.add_to(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("latentia"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """A laboratory for latent-variable generative models: train, measure, and verify the theory."""


def main() -> None:
    """Entry point of the `latentia` command: one clear message for each error, and no traceback."""
    from latentia.errors import LatentiaError

    try:
        app()
    except LatentiaError as error:
        _complain(str(error))
        sys.exit(INTERRUPTED if type(error).__name__ == "Interrupted" else 2)
    except KeyboardInterrupt:
        _complain("interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(1)  # whoever read our output has gone


def _complain(message: str) -> None:
    lines = message.splitlines() or [""]
    typer.secho(f"error: {lines[0]}", fg="red", err=True)
    for line in lines[1:]:
        typer.secho(f"       {line}", fg="red", err=True)
