"""The application, its commands, and what a user sees when something is wrong."""

from __future__ import annotations

__all__: list[str] = []

import re
import sys
import warnings
from typing import Annotated, Any

import typer

from latentia.cli import INTERRUPTED, evaluation, runs, theory

WRONG = 2
_UsageError: Any = typer.BadParameter.__base__  # typer has its own copy of click, or uses click itself

app = typer.Typer(
    name="latentia",
    help="A laboratory for latent-variable generative models: train, evaluate, and verify the theory.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (runs, evaluation, theory):
    for command in module.COMMANDS:
        app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("latentia"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A laboratory for latent-variable generative models: train, evaluate, and verify the theory."""


def run() -> None:
    """Run the command that was typed; exits with its code."""
    from latentia.errors import Interrupted, LatentiaError

    shown = warnings.showwarning
    warnings.showwarning = _print_warning
    try:
        code = app(standalone_mode=False)
    except LatentiaError as error:
        _print_error(str(error))
        code = INTERRUPTED if isinstance(error, Interrupted) else WRONG
    except _UsageError as error:
        if error.format_message().strip():  # empty where no command was typed: the help is shown then
            _print_error(_usage(error))
        code = WRONG
    except (KeyboardInterrupt, typer.Abort):
        _print_error("interrupted")
        code = INTERRUPTED
    except BrokenPipeError:
        code = 1  # the reader of our output has gone
    except MemoryError:
        _print_error("there is not enough memory; use fewer examples, or a smaller model")
        code = WRONG
    except RuntimeError as error:
        if not re.search("allocate memory|out of memory", str(error), re.IGNORECASE):  # as torch words it
            raise
        _print_error("there is not enough memory; use fewer examples, or a smaller model")
        code = WRONG
    except OSError as error:
        _print_error(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        code = WRONG
    finally:
        warnings.showwarning = shown
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: Any) -> str:
    """A wrong call on one line, with the spelling that is right."""
    message = " ".join(error.format_message().split())
    option, given = str(getattr(error, "option_name", "")), sys.argv[1:2]
    if given == ["train"] and "o such option" in message:
        words = [*sys.argv[2:], ""]
        at = next((i for i, word in enumerate(words) if word.startswith(option)), len(words) - 1)
        option, _, value = words[at].partition("=")
        value = value or "".join(words[at + 1 : at + 2]) or "VALUE"
        key = option.lstrip("-").replace("-", "_")
        return f"{message.rstrip('.')}. Write settings as {key}={value}; `latentia train vae --keys` lists them"
    known = {command.callback.__name__ for command in app.registered_commands if command.callback}
    sentence = message if message.endswith(("?", "!", ".")) else f"{message}."
    return f"{sentence} See `latentia {' '.join([*(word for word in given if word in known), ''])}--help`"


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning on one line, without its place in the source."""
    typer.secho(f"warning: {' '.join(str(message).split())}", fg="yellow", err=True)


def _print_error(message: str) -> None:
    lines = message.splitlines() or [""]
    typer.secho(f"error: {lines[0]}", fg="red", err=True)
    for line in lines[1:]:
        typer.secho(f"       {line}", fg="red", err=True)
