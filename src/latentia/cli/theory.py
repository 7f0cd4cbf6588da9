"""Commands of the theory: verify, distance."""

from __future__ import annotations

__all__ = ["add_to"]

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console
    from rich.table import Table
    from torch.distributions import Distribution

    from latentia.theory import Verdict

SAMPLE_FILES = (".npy", ".npz", ".csv")


def add_to(app: typer.Typer) -> None:
    """Give the application these commands."""
    app.command()(verify)
    app.command()(distance)


def verify(
    items: Annotated[
        list[str] | None, typer.Argument(metavar="[ITEM]...", help="Items, such as 1c, 3e.sliding, 3, beyond.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a list of estimates and nothing else.")] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a page with formulas and pictures to DIR/theory.html.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random instances.")] = 0,
) -> None:
    """Check every statement of the sheet by running it, and show where the sheet errs.

    The exit code is 0 if all statements hold, and 1 if any does not.
    """
    from latentia.estimate import estimates_to_json
    from latentia.theory import choose, statements
    from latentia.theory import verify as check

    chosen = choose(statements(), items or [])
    if report is not None:
        from latentia.reports.theory_report import require_formulas

        require_formulas()
    verdicts: list[Verdict] = []
    if json:
        verdicts.extend(check(chosen, seed))
        typer.echo(estimates_to_json(estimate for verdict in verdicts for estimate in verdict.estimates()))
        for verdict in verdicts:
            if not verdict.holds:
                typer.echo(f"{verdict.statement.item} does not hold {verdict.failure}", err=True)
    else:
        console = _console()
        console.print(_header())
        for verdict in check(chosen, seed):
            verdicts.append(verdict)
            console.print(_row(verdict))
        _print_errata(console, verdicts)
    if report is not None:
        from latentia.reports.theory_report import write_theory_report

        typer.echo(f"wrote {write_theory_report(report, verdicts, seed)}", err=json)
    if not all(verdict.holds for verdict in verdicts):
        raise typer.Exit(1)


def distance(
    p: Annotated[str, typer.Argument(metavar="P", help='A distribution, such as "Normal(0,1)", or a file of samples.')],
    q: Annotated[str, typer.Argument(metavar="Q", help="Another distribution, or another file.")],
    json: Annotated[bool, typer.Option("--json", help="Print a list of estimates and nothing else.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="F.png", help="Draw the two distributions and the optimal map between them.")
    ] = None,
    n: Annotated[int, typer.Option(min=100, help="Draws for the Monte Carlo estimates.")] = 100_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
) -> None:
    """Every divergence between two distributions, or two samples, by every method that serves.

    Distributions are written as in `"Uniform(0,1)" "Uniform(1/2,3/2)"` or `"Mixture(0.3*Normal(-2,1) + 0.7*Normal(2,.5))"`.
    Files of samples are .npy, .npz or .csv, one point a row.
    """
    from latentia.divergences import divergence_table, sample_table
    from latentia.errors import ConfigurationError
    from latentia.estimate import estimates_to_json

    if out is not None and out.suffix != ".png":
        raise ConfigurationError(f"--out {out} must end in .png")
    files = [_is_file(text) for text in (p, q)]
    if files[0] != files[1]:
        raise ConfigurationError(
            f"{p!r} is {'a file' if files[0] else 'a distribution'} and {q!r} is {'a file' if files[1] else 'a distribution'}; "
            "give two distributions, or two files of samples"
        )
    if files[0]:
        first, second = _read_sample(Path(p)), _read_sample(Path(q))
        table = sample_table(first, second, seed=seed)
    else:
        first, second = _distribution(p, "P"), _distribution(q, "Q")
        table = divergence_table(first, second, n=n, seed=seed)
    if json:
        typer.echo(estimates_to_json(table.estimates))
    else:
        console = _console()
        console.print(_distances(table.estimates, f"P = {p}, Q = {q}"))
        _print_refused(console, table.refused)
    if out is not None:
        from latentia.reports.point_figures import plot_distributions, plot_two_samples
        from latentia.reports.style import save_figure

        plot = plot_two_samples if files[0] else plot_distributions
        typer.echo(f"wrote {save_figure(plot(first, second, (p, q)), out)}", err=json)  # pyright: ignore


WIDE = 150  # columns of a table that goes to a file or a pipe


def _console() -> Console:
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


def _columns(headed: bool) -> Table:
    """The columns of `verify`, of fixed widths, so that rows printed one by one stand under one header."""
    from rich.table import Table

    table = Table(box=None, show_header=headed, padding=(0, 1), pad_edge=False, expand=True)
    table.add_column("item", width=18, style="bold")
    table.add_column("statement", ratio=1)
    table.add_column("left", width=20, justify="right")
    table.add_column("", width=2, justify="center")
    table.add_column("right", width=20, justify="right")
    table.add_column("error (allowed)", width=17)
    table.add_column("method", width=13)
    table.add_column("verdict", width=7)
    return table


def _header() -> Table:
    return _columns(headed=True)


def _row(verdict: Verdict) -> Table:
    """A statement with the relation that shows it: the first that fails, or the equality nearest to failing."""
    from rich.markup import escape

    table = _columns(headed=False)
    shown = verdict.tightest
    mark = "[green]holds[/green]" if verdict.holds else "[red]FAILS[/red]"
    words = escape(verdict.statement.words)
    if verdict.failure:
        words += f" [red]{escape(verdict.failure)}[/red]"
    if shown is None:
        table.add_row(verdict.statement.item, words, "", "", "", "", "", mark)
        return table
    number = len(verdict.relations) + len(verdict.counter_examples)
    what = ", ".join(part for part in (shown.left.name, shown.note) if part)
    words += f" [dim]Of {number} relations: {escape(what)}[/dim]"
    error = f"{shown.difference:.1e} ({shown.slack:.1e})"
    sides = [_side(shown.left), shown.sign, _side(shown.right)]
    table.add_row(verdict.statement.item, words, *sides, error, shown.left.method, mark)
    return table


def _side(estimate: object) -> str:
    return str(estimate).removeprefix("≥ ").removeprefix("≤ ")


def _print_errata(console: Console, verdicts: list[Verdict]) -> None:
    """What the sheet states wrongly, each with the relation that shows it; then the count."""
    from rich.markup import escape

    wrong = [verdict for verdict in verdicts if verdict.statement.erratum]
    if wrong:
        console.print("\n[bold]Errata: where the sheet errs, and a counter-example that ran[/bold]")
    for verdict in wrong:
        erratum = verdict.statement.erratum
        assert erratum is not None
        console.print(f"[bold]{verdict.statement.item}[/bold]  {escape(erratum.words)}", highlight=False)
        for relation in verdict.counter_examples[:2]:
            name = relation.left.name or "left"
            line = f"{name} = {_side(relation.left)} {relation.sign} {_side(relation.right)} {relation.right.name}"
            note = f"  ({relation.note})" if relation.note else ""
            console.print(f"      [dim]{escape(line.rstrip())}{escape(note)}[/dim]", highlight=False)
    held = sum(verdict.holds for verdict in verdicts)
    seconds = sum(verdict.seconds for verdict in verdicts)
    relations = sum(len(verdict.relations) + len(verdict.counter_examples) for verdict in verdicts)
    console.print(
        f"\n{held} of {len(verdicts)} statements hold, by {relations} relations in {seconds:.1f} s", highlight=False
    )


def _distances(estimates: list, title: str) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left")
    for name in ("divergence", "value", "error", "kind", "method"):
        table.add_column(name, justify="right" if name in ("value", "error") else "left")
    for estimate in estimates:
        if estimate.stderr:
            error = f"± {estimate.stderr:.1e}"
        else:
            error = f"≤ {estimate.error:.1e}" if estimate.error else ""
        reason = estimate.settings.get("reason", "")
        method = estimate.method + (f": {reason}" if reason else "")
        if "estimator" in estimate.settings:
            method += f", {estimate.settings['estimator']}"
        unit = "" if estimate.unit == "1" else f" {estimate.unit}"
        infinite = estimate.value in (float("inf"), float("-inf"))
        value = "+∞" if infinite else f"{estimate.value:.10g}{unit}"
        table.add_row(escape(estimate.name), value, error, estimate.kind, escape(method))
    return table


def _print_refused(console: Console, refused: list[tuple[str, str, str]]) -> None:
    """What is not in the table: closed forms that there are none of, in one line, and any other reason in its own."""
    from rich.markup import escape

    without = dict.fromkeys(name for name, _, reason in refused if "no closed form" in reason)
    if without:
        console.print(f"[dim]no closed form: {escape(', '.join(without))}[/dim]", highlight=False)
    for name, method, reason in refused:
        if "no closed form" not in reason:
            console.print(f"[dim]{escape(f'{name}, {method}: {reason}')}[/dim]", highlight=False)


def _is_file(text: str) -> bool:
    return Path(text).suffix in SAMPLE_FILES and "(" not in text


def _distribution(text: str, name: str) -> Distribution:
    from latentia.distributions.parsing import parse_distribution
    from latentia.errors import ConfigurationError

    try:
        return parse_distribution(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from None


def _all_numbers(line: str) -> bool:
    try:
        return bool([float(cell) for cell in line.split(",")])
    except ValueError:
        return False


def _read_sample(path: Path) -> np.ndarray:
    """The points in a file, one a row.

    Raises:
        DataError: if there is no such file, or it holds no numbers, or several arrays.
    """
    import numpy as np

    from latentia.errors import DataError

    if not path.is_file():
        raise DataError(f"there is no file {path}")
    try:
        if path.suffix == ".csv":
            with path.open(encoding="utf-8") as lines:
                first = lines.readline()
            rows = np.loadtxt(path, delimiter=",", skiprows=int(not _all_numbers(first)), dtype=float, ndmin=2)
            return rows[:, 0] if rows.shape[1] == 1 else rows
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded.astype(float)
        names = list(loaded)
        if len(names) != 1:
            raise DataError(f"{path} holds the arrays {', '.join(names)}; keep the samples in a file of their own")
        return loaded[names[0]].astype(float)
    except DataError:
        raise
    except (OSError, ValueError, TypeError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read samples from {path}: {error}") from None
