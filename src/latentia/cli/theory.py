"""Commands about the theory: verify, distance."""

from __future__ import annotations

__all__: list[str] = []

from pathlib import Path
from typing import Annotated

import typer

from latentia.cli.runs import LIMIT, AsJSON, MaxBytes, Seed, TableFormat, print_results, require_format


def verify(
    items: Annotated[
        list[str] | None, typer.Argument(metavar="ITEM...", help="Items, such as 1c, 3e.sliding, 3, beyond.")
    ] = None,
    as_json: AsJSON = False,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a page with formulas and pictures to DIR/theory.html.")
    ] = None,
    seed: Seed = 0,
    table_format: TableFormat = "text",
) -> None:
    """Check every statement of the theory by running it, and show where the sheet is wrong.

    The exit code is 0 if all statements hold, and 1 if any does not.
    """
    from rich.console import Console

    from latentia import interface
    from latentia.estimate import estimates_to_json
    from latentia.reports.tables import Verdicts, print_errata, verdict_lines

    require_format(table_format)
    quiet = as_json or table_format != "text"
    console = Console(quiet=quiet)
    verdicts = Verdicts()
    for verdict in interface.run_checks(items or [], seed=seed, report=report):
        verdicts.append(verdict)
        for line in verdict_lines(verdict, console.width):
            console.print(line, soft_wrap=True)
    print_errata(verdicts, console)
    if as_json:
        typer.echo(estimates_to_json(estimate for verdict in verdicts for estimate in verdict.estimates()))
    elif quiet:
        typer.echo(verdicts.table().to_format(table_format))  # pyright: ignore[reportArgumentType]  (checked above)
    if quiet:
        for verdict in verdicts:
            if not verdict.holds:
                typer.echo(f"{verdict.statement.item} does not hold {verdict.failure}", err=True)
    if report is not None:
        typer.echo(f"wrote {report / 'theory.html'}", err=quiet)
    if not all(verdict.holds for verdict in verdicts):
        raise typer.Exit(1)


def distance(
    p: Annotated[str, typer.Argument(metavar="P", help='A distribution, such as "Normal(0,1)", or a file of samples.')],
    q: Annotated[str, typer.Argument(metavar="Q", help="Another distribution, or another file.")],
    as_json: AsJSON = False,
    table_format: TableFormat = "text",
    out: Annotated[
        Path | None, typer.Option(metavar="F.png", help="A picture of both with the optimal map between them.")
    ] = None,
    draws: Annotated[int, typer.Option(min=100, help="Draws for the Monte Carlo estimates.")] = 100_000,
    max_bytes: MaxBytes = LIMIT,
    seed: Seed = 0,
) -> None:
    """Every divergence between two distributions, or two samples, by every method that applies.

    Distributions are written as in "Uniform(0,1)" "Uniform(1/2,3/2)" or "Mixture(0.3*Normal(-2,1) + 0.7*Normal(2,.5))".
    Files of samples are .npy, .npz or .csv, one point a row.
    """
    from latentia import interface

    require_format(table_format)
    results = interface.distance(p, q, draws=draws, out=out, max_bytes=max_bytes, seed=seed)
    print_results(results, as_json, table_format)


COMMANDS = (verify, distance)
