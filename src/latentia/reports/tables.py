"""Tables of estimates, of scores and of runs, for the terminal, notebooks and papers.

A `Table` holds plain text and lays it out for any width: where its columns do not fit, the detail columns move below
their rows, and columns that still do not fit follow in a second block. No word of a name or number is cut, and no text
of a user is taken for markup.
"""

from __future__ import annotations

__all__: list[str] = []

import csv
import html
import io
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from latentia.configuration import Component
from latentia.errors import RunError
from latentia.estimate import Estimate
from latentia.metrics import protocol_text
from latentia.recipes import Run
from latentia.reports.words import ASPECTS, DIVERGENCES, count_text, group_of, label_of, score_label, value_text
from latentia.theory import Relation, Verdict

Format = Literal["text", "markdown", "latex", "csv"]
REFERENCES = {"real_vs_real": "real images", "train_vs_test": "training images"}  # scored in the place of samples
FIRST_FIGURES = (
    "curves",
    "samples",
    "reconstructions",
    "decoded_plane",
    "latent_slices",
    "encoded_test_set",
    "interpolations",
)
HEAD = 18  # cells: longer column heads are folded
LEAST = 20  # cells: narrower terminals get lines of this length
NAMES = 28  # cells: a narrow terminal folds names that are longer
TECHNICAL = ("stderr_over", "seconds", "scores", "decoder_evaluations", "rounding", "bound_violations")
LONGEST_SETTING = 60  # characters; longer ones are in the JSON file and on the page
SIGNS = {"==": "=", "<=": "≤", ">=": "≥", "!=": "≠", "→": "→"}
REPRESENTATIVES = 6  # relations that stand for a statement, at most


@dataclass(frozen=True)
class Column:
    """One column: its head, whether it is aligned to the right, and whether it may move below its row."""

    head: str
    right: bool = False
    detail: bool = False
    faint: bool = False


@dataclass(frozen=True)
class Table:
    """Columns and rows of plain text.

    Attributes:
        columns: in order; the first names the rows.
        rows: one text for each column.
        title: over the table.
        notes: below it, one line each.
        best: (row, column) of the cells in bold.
        groups: the heading that each row stands under; none if empty.
        estimates: the numbers, for CSV.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    title: str = ""
    notes: Sequence[str] = ()
    best: frozenset[tuple[int, int]] = frozenset()
    estimates: Sequence[Estimate] = field(default=(), repr=False)
    groups: Sequence[str] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.lines(options.max_width):
            line.rstrip()
            line.no_wrap, line.overflow = True, "ignore"
            yield line

    def __str__(self) -> str:
        return "\n".join(line.plain.rstrip() for line in self.lines(100))

    def _repr_html_(self) -> str:
        heads = "".join(f'<th style="text-align:{_side(c)}">{html.escape(c.head)}</th>' for c in self.columns)
        body = ""
        for i, row in enumerate(self.rows):
            if heading := self._heading(i):
                body += f'<tr><th colspan="{len(row)}" style="text-align:left">{html.escape(heading)}</th></tr>'
            cells = (
                f'<td style="text-align:{_side(c)}{";font-weight:bold" if (i, j) in self.best else ""}">'
                f"{html.escape(text)}</td>"
                for j, (c, text) in enumerate(zip(self.columns, row, strict=True))
            )
            body += f"<tr>{''.join(cells)}</tr>"
        notes = "".join(f"<p><small>{html.escape(note)}</small></p>" for note in self.notes)
        title = f"<caption>{html.escape(self.title)}</caption>" if self.title else ""
        return f"<table>{title}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>{notes}"

    def to_format(self, name: Format) -> str:
        """The table as text of 100 columns, as Markdown or LaTeX, or its estimates as CSV."""
        return {"text": self.__str__, "markdown": self._markdown, "latex": self._latex, "csv": self._csv}[name]()

    def lines(self, width: int) -> Iterator[Text]:
        """The table as lines of at most this many cells, and at least 20; only a single word can be longer."""
        width = max(width, LEAST)
        if self.title:
            yield from _wrapped(self.title, width, "bold")
        natural = [max([min(cell_len(c.head), HEAD), 1, *(cell_len(row[j]) for row in self.rows)])
                   for j, c in enumerate(self.columns)]  # fmt: skip
        shown = list(range(len(self.columns)))
        if sum(natural) + 2 * (len(shown) - 1) > width:
            shown = [j for j in shown if not self.columns[j].detail]
        below = [j for j in range(len(self.columns)) if j not in shown]
        candidates = range(natural[0], min(natural[0], NAMES) - 1, -1)
        first = min(candidates, key=lambda room: len(self._blocks(room, shown, natural, width)))
        blocks = self._blocks(first, shown, natural, width)
        first = min(first, max(width - max([natural[j] + 2 for j in shown[1:]], default=0), width // 3))
        for number, block in enumerate(blocks):
            if number:
                yield Text()
            yield from self._block(first, block, natural, width, below if number == len(blocks) - 1 else [])
        for note in self.notes:
            yield from _wrapped(note, width, "dim")

    def _blocks(self, first: int, shown: Sequence[int], natural: Sequence[int], width: int) -> list[list[int]]:
        """The columns after the first, in blocks that fit the width with a first column of this many cells."""
        blocks: list[list[int]] = [[]]
        for j in shown[1:]:
            if blocks[-1] and first + sum(natural[k] + 2 for k in [*blocks[-1], j]) > width:
                blocks.append([])
            blocks[-1].append(j)
        return blocks

    def _heading(self, i: int) -> str:
        """The heading before row i, where a group begins there."""
        begins = bool(self.groups) and (i == 0 or self.groups[i] != self.groups[i - 1])
        return self.groups[i] if begins else ""

    def _block(
        self, first: int, block: Sequence[int], natural: Sequence[int], width: int, below: Sequence[int]
    ) -> Iterator[Text]:
        def line(name: str, cells: Sequence[str], styles: Sequence[str], style: str) -> Text:
            text = Text(_padded(name, first), style=style)
            for j, cell, own in zip(block, cells, styles, strict=True):
                text.append("  ").append(_padded(cell, natural[j], self.columns[j].right), own)
            return text

        heads = [_folded(self.columns[j].head, natural[j]) for j in block]
        for number in range(max([len(head) for head in heads], default=1)):
            parts = [head[number].strip() if number < len(head) else "" for head in heads]
            yield line("" if number else self.columns[0].head, parts, ["bold"] * len(block), "bold")
        yield Text("─" * min(width, first + sum(natural[j] + 2 for j in block)), style="dim")
        shown = [i for i, row in enumerate(self.rows) if any(row[j] for j in block) or len(self.columns) == 1]
        for before, i in zip([None, *shown], shown, strict=False):
            row = self.rows[i]
            if self.groups and self.groups[i] and (before is None or self.groups[i] != self.groups[before]):
                yield Text(self.groups[i], style="italic")
            names = _folded(row[0], first)
            styles = ["bold" if (i, j) in self.best else "dim" if self.columns[j].faint else "" for j in block]
            for part in names[:-1]:
                yield Text(part, style="cyan")
            text = line("", [row[j] for j in block], styles, "")
            yield Text(_padded(names[-1], first), style="cyan").append_text(text[first:])
            details = "; ".join(row[j] for j in below if row[j])
            if details:
                yield from _wrapped(details, width, "dim", "    ")

    def _markdown(self) -> str:
        def line(cells: Iterable[str]) -> str:
            return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

        rule = "|".join("---:" if c.right else "---" for c in self.columns)
        rows = []
        for i, row in enumerate(self.rows):
            if heading := self._heading(i):
                rows.append([f"*{heading}*", *[""] * (len(row) - 1)])
            rows.append([f"**{text}**" if (i, j) in self.best else text for j, text in enumerate(row)])
        title = [f"**{self.title}**", ""] if self.title else []
        notes = ["", *self.notes] if self.notes else []
        return "\n".join([*title, line(c.head for c in self.columns), f"|{rule}|", *map(line, rows), *notes])

    def _latex(self) -> str:
        def line(cells: Iterable[str]) -> str:
            return f"{' & '.join(cells)} \\\\"

        rows = []
        for i, row in enumerate(self.rows):
            if heading := self._heading(i):
                rows.append([rf"\multicolumn{{{len(row)}}}{{l}}{{\textit{{{_tex(heading)}}}}}"])
            texts = [_tex(text) for text in row]
            rows.append([rf"\textbf{{{text}}}" if (i, j) in self.best else text for j, text in enumerate(texts)])
        kinds = "".join("r" if c.right else "l" for c in self.columns)
        head = line(_tex(c.head) for c in self.columns)
        lines = [rf"\begin{{tabular}}{{{kinds}}}", r"\hline", head, r"\hline", *map(line, rows), r"\hline"]
        comments = [f"% {' '.join(text.split())}" for text in (self.title, *self.notes) if text]
        return "\n".join([*comments, *lines, r"\end{tabular}"])

    def _csv(self) -> str:
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["name", "value", "stderr", "n", "unit", "kind", "method"])
        for e in self.estimates:
            numbers = [e.value, "" if e.stderr is None else e.stderr, "" if e.n is None else e.n]
            writer.writerow([_no_formula(e.name), *numbers, *map(_no_formula, (e.unit, e.kind, e.method))])
        return stream.getvalue().rstrip("\n")


class Results(list[Estimate]):
    """A list of estimates that shows itself as tables, in a terminal or a notebook.

    Attributes:
        tables: one or more, of the same estimates.
        warnings: what a reader must know, such as images that were not reached in time.
        files: what was written.
    """

    def __init__(
        self,
        estimates: Iterable[Estimate],
        tables: Sequence[Table],
        warnings: Sequence[str] = (),
        files: Sequence[Path] = (),
    ):
        super().__init__(estimates)
        self.tables, self.warnings, self.files = list(tables), list(warnings), list(files)

    def to_format(self, name: Format) -> str:
        """The tables one below another; see `Table.to_format`."""
        return "\n\n".join(table.to_format(name) for table in self.tables)

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>warning: {html.escape(text)}</p>" for text in self.warnings)
        return "".join(table._repr_html_() for table in self.tables) + notes

    def __str__(self) -> str:
        return "\n\n".join([*map(str, self.tables), *(f"warning: {text}" for text in self.warnings)])

    __repr__ = __str__


class Verdicts(list[Verdict]):
    """A list of verdicts that shows itself as a table."""

    def table(self) -> Table:
        """One row for each relation that represents a statement."""
        columns = [Column("item"), Column("verdict"), Column("relation"), Column("difference"), Column("statement")]
        rows = [
            [v.statement.item, "holds" if v.holds else "FAILS", relation_text(r), difference_text(r), v.statement.words]
            for v in self
            for r in representatives(v)
        ]
        estimates = [estimate for verdict in self for estimate in verdict.estimates()]
        return Table(columns, rows, verdict_count(self), estimates=estimates)

    def __repr__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def __str__(self) -> str:
        return "\n".join(line.plain for verdict in self for line in verdict_lines(verdict, 100))


def estimates_table(estimates: Iterable[Estimate], title: str = "") -> Table:
    """A table of estimates: name, value with its error, n, kind, method, settings; what all share is a note."""
    found = list(estimates)
    rows = [_cells(estimate) for estimate in found]
    shared = [name for name in ("method", "n", "settings") if len(rows) > 1 and len({row[name] for row in rows}) == 1]
    note = "; ".join(f"{name}: {rows[0][name]}" for name in shared if rows[0][name])
    columns = [column for name, column in _COLUMNS.items() if name not in shared]
    texts = [[row[name] for name in _COLUMNS if name not in shared] for row in rows]
    notes = [note] if note else []
    if any(estimate.settings.get("stderr_over") for estimate in found):
        notes.append("± is the standard error over the examples")
    return Table(columns, texts, title, notes, estimates=found)


_COLUMNS = {
    "name": Column("quantity"),
    "value": Column("value", right=True),
    "n": Column("n", right=True),
    "kind": Column("kind"),
    "method": Column("method", detail=True),
    "settings": Column("settings", detail=True, faint=True),
}


def _cells(estimate: Estimate) -> dict[str, str]:
    settings = {
        key: value
        for key, value in estimate.settings.items()
        if key not in TECHNICAL and not (isinstance(value, str) and len(value) > LONGEST_SETTING and key != "warning")
    }
    return {
        "name": label_of(estimate.name),
        "value": value_text(estimate),
        "n": "" if estimate.n is None else count_text(estimate.n),
        "kind": estimate.kind,
        "method": estimate.method,
        "settings": settings_text(settings),
    }


@dataclass(frozen=True)
class Scores:
    """Scores of samples.

    Attributes:
        rows: each score, with those of real images and of training images in the place of samples.
        protocols: one line for each way in which they were made.
    """

    rows: list[tuple[Estimate, Estimate | None, Estimate | None]]
    protocols: list[str]


def scores_of(estimates: Sequence[Estimate]) -> Scores | None:
    """The scores among estimates, with those of real images; None if any estimate has no protocol."""
    if not estimates or not all("protocol" in estimate.settings for estimate in estimates):
        return None
    by_name = {estimate.name: estimate for estimate in estimates}
    rows = [
        (estimate, by_name.get(f"{name}/real_vs_real"), by_name.get(f"{name}/train_vs_test"))
        for name, estimate in by_name.items()
        if name.rpartition("/")[2] not in REFERENCES
    ]
    rows.sort(key=lambda row: ASPECTS.index(group_of(row[0].name)))
    return Scores(rows, list(dict.fromkeys(protocol_text(estimate.settings["protocol"]) for estimate in estimates)))


def scores_table(estimates: Sequence[Estimate], title: str = "") -> Table:
    """A table of scores: each with those of real and of training images, and an arrow to the better direction."""
    scores = scores_of(estimates)
    if scores is None:
        raise ValueError("these estimates are not scores of samples: they have no protocol")
    present = [place for place in (1, 2) if any(row[place] is not None for row in scores.rows)]
    columns = [
        Column("score"),
        Column("samples", right=True),
        *(Column(list(REFERENCES.values())[place - 1], right=True, faint=True) for place in present),
    ]
    if all("real examples" in protocol for protocol in scores.protocols):  # of tables and signals
        columns = [replace(column, head=column.head.replace("images", "examples")) for column in columns]
    rows = []
    for row in scores.rows:
        cells = ["" if cell is None else value_text(cell, unit=False) for cell in (row[0], *(row[p] for p in present))]
        rows.append([score_label(row[0].name, row[0].unit), *cells])
    notes, groups = (
        score_notes(scores.protocols, [list(REFERENCES)[place - 1] for place in present]),
        [group_of(row[0].name) for row in scores.rows],
    )
    return Table(columns, rows, title, notes, estimates=list(estimates), groups=groups)


def score_notes(protocols: Sequence[str], references: Iterable[str]) -> list[str]:
    """What a reader of scores must know; `references` are the keys of `REFERENCES` that the table has."""
    notes = [*protocols, "± is one standard error; ↑ larger is better, ↓ smaller is better"]
    meaning = {"real_vs_real": "a perfect model scores like the real images",
               "train_vs_test": "one that has memorized its training images scores like those"}  # fmt: skip
    words = [meaning[key] for key in references]
    if all("real examples" in protocol for protocol in protocols):
        words = [text.replace("images", "examples") for text in words]
    return [*notes, "in the place of samples: " + ", ".join(words)] if words else notes


def verdict_lines(verdict: Verdict, width: int) -> Iterator[Text]:
    """A verdict as lines of at most `width` cells: the statement, and the relations that represent it."""
    mark, style = ("✓", "green") if verdict.holds else ("✗ FAILS", "bold red")
    lines = _wrapped(f"{verdict.statement.item}  {verdict.statement.words}", width - len(mark) - 1, "")
    for number, line in enumerate(lines):
        line.stylize("bold", 0, 0 if number else len(verdict.statement.item))
        yield Text(mark if not number else " " * len(mark), style=style).append(" ").append_text(line)
    if verdict.failure:
        yield from _wrapped(verdict.failure, width, "red", "    ")
    for relation in representatives(verdict):
        details = "; ".join(part for part in (relation.left.method, relation.note) if part)
        text = f"{relation_text(relation)}: {difference_text(relation)} ({details})"
        yield from _wrapped(text, width, "dim" if relation.holds else "red", "    ")


def erratum_lines(verdict: Verdict, width: int) -> Iterator[Text]:
    """An erratum of the sheet as lines of at most `width` cells, with the relations that show it."""
    erratum = verdict.statement.erratum
    if erratum is not None:
        yield from _wrapped(f"{verdict.statement.item}  {erratum.words}", width, "")
        for relation in verdict.counter_examples[:2]:
            note = f" ({relation.note})" if relation.note else ""
            yield from _wrapped(f"{relation_text(relation)}{note}", width, "dim", "    ")


def print_errata(verdicts: Sequence[Verdict], console: Console) -> None:
    """Print where the sheet is wrong, each with the relations that show it; then the count."""
    wrong = [verdict for verdict in verdicts if verdict.statement.erratum]
    if wrong:
        console.print(Text("\nErrata: where the sheet is wrong, with counter-examples as they were run", style="bold"))
    for verdict in wrong:
        for line in erratum_lines(verdict, console.width):
            console.print(line, soft_wrap=True)
    console.print(Text(f"\n{verdict_count(verdicts)}"))


def verdict_count(verdicts: Sequence[Verdict]) -> str:
    """How many statements hold, from how many relations, in what time."""
    relations = sum(len(verdict.relations) + len(verdict.counter_examples) for verdict in verdicts)
    seconds = sum(verdict.seconds for verdict in verdicts)
    held = sum(verdict.holds for verdict in verdicts)
    return f"{held} of {len(verdicts)} statements hold ({relations} relations, {seconds:.1f} s)"


def representatives(verdict: Verdict) -> list[Relation]:
    """The relations that stand for a verdict: those that fail; else the first of each quantity, equalities first."""
    every = [*verdict.relations, *verdict.counter_examples]
    failing = [relation for relation in every if not relation.holds]
    if failing:
        return failing[:REPRESENTATIVES]
    first: dict[str, Relation] = {}
    for relation in sorted(verdict.relations, key=lambda relation: relation.sign not in ("==", "→")):
        first.setdefault(relation.left.name, relation)
    chosen = {id(relation) for relation in first.values()}
    return [relation for relation in verdict.relations if id(relation) in chosen][:REPRESENTATIVES]


def relation_text(relation: Relation) -> str:
    """A relation on one line: both names, then both values, such as `JSD ≥ bound: 0.346574 nats ≥ 0.21 nats`."""
    sign = SIGNS[relation.sign]
    names = [DIVERGENCES.get(side.name, side.name) for side in (relation.left, relation.right)]
    if relation.sign == "→" or names[0] == names[1]:
        names.pop()  # a number, or the same quantity by another method
    name = f" {sign} ".join(part for part in names if part)
    return f"{name}{': ' if name else ''}{side_text(relation.left)} {sign} {side_text(relation.right)}"


def side_text(estimate: Estimate) -> str:
    """One side of a relation, without the sign of a bound, which would contradict the relation's sign."""
    return str(estimate).removeprefix("≥ ").removeprefix("≤ ")


def difference_text(relation: Relation) -> str:
    """How far the sides are apart, in words that fit the sign: a difference and its limit, or a margin."""
    difference, limit = relation.difference, f"{relation.slack:.1e}".replace("-", "−")
    if relation.sign in ("<=", ">="):
        if difference <= relation.slack:
            return f"equal within {limit}"
        above = relation.left.value > relation.right.value
        return f"{'greater' if above else 'less'} by {_short_number(difference)}"
    if relation.sign == "!=":
        return f"differ by {_short_number(difference)}, more than {limit}"
    if difference == 0:
        return "equal"
    return f"differ by {difference:.1e}, allowed {limit}".replace("-", "−")


def _short_number(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:.3g}".replace("-", "−") if value < 1000 else count_text(value)


def distance_table(estimates: Sequence[Estimate], refused: Sequence[tuple[str, str, str]], title: str) -> Table:
    """Divergences by method, and below what has no value by a method, with the reason."""
    columns = [
        Column("divergence"),
        Column("value", right=True),
        Column("error", right=True),
        Column("kind"),
        Column("method", detail=True),
    ]
    rows = []
    for estimate in estimates:
        error = f"≤ {estimate.error:.1e}" if estimate.error else ""
        if estimate.stderr:
            error = f"± {estimate.stderr:.1e}"
        method = ", ".join(
            str(part)
            for part in (estimate.method, *(estimate.settings.get(key) for key in ("reason", "estimator", "warning")))
            if part
        )
        unit = "" if estimate.unit == "1" else f" {estimate.unit}"
        infinite = estimate.value in (float("inf"), float("-inf"))
        value = ("+∞" if estimate.value > 0 else "−∞") if infinite else f"{_rounded(estimate):.10g}{unit}"
        error = error.replace("inf", "∞").replace("-", "−")
        rows.append([label_of(estimate.name), value.replace("-", "−"), error, estimate.kind, method])
    without = dict.fromkeys(name for name, _, reason in refused if "no closed form" in reason)
    notes = [f"no closed form: {', '.join(map(label_of, without))}"] if without else []
    notes += [
        f"{label_of(name)}, {method}: {reason}" for name, method, reason in refused if "no closed form" not in reason
    ]
    return Table(columns, rows, title, notes, estimates=list(estimates))


def _rounded(estimate: Estimate) -> float:
    """The value to one hundredth of its standard error, where it has a finite one."""
    if not estimate.stderr or math.isinf(estimate.stderr):
        return estimate.value
    return round(estimate.value, 2 - math.floor(math.log10(estimate.stderr)))


def print_run(run: Run, console: Console) -> None:
    """Print a run: settings that differ from the defaults, the others, last records, estimates and pictures."""
    console.print(Text.assemble(("run ", "dim"), (str(run.path), "bold")), soft_wrap=True)
    console.print(Text.assemble(("status ", "dim"), run.status), soft_wrap=True)
    console.print(Text.assemble(("recipe ", "bold"), (run.recipe.type_name, "bold cyan")))
    with suppress(RunError):
        if note := run.directory.changes_of_recipe():
            console.print(Text(f"warning: {note}", style="yellow"), soft_wrap=True)
    changed = changed_settings(run.recipe)
    for key, value in changed.items():
        console.print(Text(f"  {key}={_inline(value)}", style="yellow"))
    if not changed:
        console.print(Text("  every setting is the default"))
    for line in _other_settings(run.recipe, console.width):
        console.print(Text(line, style="dim"), soft_wrap=True)
    latest = last_records(run.records)
    if latest:
        first = next(iter(latest.values()))
        rows = [[label_of(name), _record_text(record), f"{record['epoch']:g}"] for name, record in latest.items()]
        columns = [Column("quantity"), Column("value", right=True), Column("epoch", right=True)]
        console.print(Table(columns, rows, f"last records of training (step {first['step']})"))
    for table in saved_results(run).tables:
        console.print(table)
    figures = figures_of(run)
    if figures:
        console.print(Text("pictures", style="bold"))
        for path in figures:
            console.print(Text(f"  {path}"), soft_wrap=True)


def saved_results(run: Run) -> Results:
    """What the evaluations of a run wrote: one table for each file."""
    files = run.directory.evaluations()
    tables = [
        (scores_table if scores_of(estimates) else estimates_table)(estimates, f"evaluation/{name}.json")
        for name, estimates in files.items()
    ]
    return Results([estimate for estimates in files.values() for estimate in estimates], tables)


def _other_settings(recipe: Component, width: int) -> Iterator[str]:
    """All settings on lines of at most `width` cells, broken between settings."""
    mapping = recipe.to_mapping()
    parts = {key: value for key, value in mapping.items() if isinstance(value, Mapping)}
    plain = {key: value for key, value in mapping.items() if key not in parts and key != "type"}
    yield "all settings"
    for text in (
        ", ".join(f"{key}: {_inline(value)}" for key, value in plain.items()),
        *(f"{key}: {_inline(value)}" for key, value in parts.items()),
    ):
        glued = re.sub(r"(?<=:) ", "\N{NO-BREAK SPACE}", text)  # a key and its value stay on one line
        for number, line in enumerate(_wrapped(glued, width - 4, "")):
            yield ("    " if number else "  ") + line.plain.replace("\N{NO-BREAK SPACE}", " ")


def _record_text(record: Mapping[str, Any]) -> str:
    return str(Estimate(record["value"], stderr=record.get("stderr"), unit="1"))


def _inline(value: Any) -> str:
    """A value as YAML on one line; a component as its name and settings."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{key}: {_inline(item)}" for key, item in value.items() if key != "type")
        name = str(value.get("type", ""))
        return f"{name} {{{inner}}}" if inner else name
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def changed_settings(recipe: Component) -> dict[str, Any]:
    """Dotted keys and plain values that turn the defaults into this recipe, as one would type them.

    A component of another type than the default's has its name, followed by what differs from that type's defaults:
    `{"objective": "iwae", "objective.k": 50}`.
    """
    changed: dict[str, Any] = {}
    for name, about in type(recipe).model_fields.items():
        if about.exclude:  # data given in Python, which are no text
            continue
        value, key = getattr(recipe, name), about.alias or name
        default = None if about.is_required() else about.get_default(call_default_factory=True)
        if not about.is_required() and value == default:
            continue
        if not isinstance(value, Component):
            changed[key] = recipe.to_mapping()[key]
            continue
        if about.is_required() or type(value) is not type(default):
            changed[key] = value.type_name
        changed.update({f"{key}.{inner}": part for inner, part in changed_settings(value).items()})
    return changed


def figures_of(run: Run) -> list[Path]:
    """The run's pictures, the most informative first, the others by name with their numbers in order."""

    def place(path: Path) -> tuple[Any, ...]:
        first = FIRST_FIGURES.index(path.stem) if path.stem in FIRST_FIGURES else len(FIRST_FIGURES)
        parts = re.split(r"(\d+)", path.stem)
        return (first, [(int(part), "") if part.isdigit() else (-1, part) for part in parts])

    return sorted((p for p in run.directory.figures.glob("*.png") if not p.name.startswith(".")), key=place)


def last_records(records: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The last record of every name whose value is a number, in order of first appearance."""
    return {str(record["name"]): record for record in records if not math.isnan(record["value"])}


def settings_text(settings: Mapping[str, Any]) -> str:
    """Settings of an estimate on one line: `samples 10, spacing 0.025`."""
    return ", ".join(f"{key} {_short(value)}" for key, value in settings.items())


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_short(part) for part in value) + "]"
    return str(value)


def _side(column: Column) -> str:
    return "right" if column.right else "left"


def _padded(text: str, width: int, right: bool = False) -> str:
    space = " " * max(0, width - cell_len(text))
    return space + text if right else text + space


def _wrapped(text: str, width: int, style: str, indent: str = "") -> Iterator[Text]:
    """Lines of at most `width` cells, broken between words alone."""
    width = max(width, LEAST)
    lines = textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False,
                          break_long_words=False)  # fmt: skip
    for line in lines:
        yield Text(line, style=style)


def _folded(name: str, width: int) -> list[str]:
    """A row's name on one or more lines, broken after a space, slash, comma, colon or underscore where possible."""
    lines = [""]
    for piece in re.findall(r"[^ /,:_]*(?: [↑↓])?[ /,:_]?", name):
        if lines[-1] and cell_len(lines[-1] + piece.rstrip()) > width:
            lines.append("  ")
        lines[-1] += piece
        while cell_len(lines[-1].rstrip()) > width:  # one word that is longer than the column
            lines[-1:] = [lines[-1][:width], "  " + lines[-1][width:]]
    return [line.rstrip() for line in lines]


def _tex(text: str) -> str:
    """Text with LaTeX's own characters written out, and the signs that tables use as mathematics."""
    special = {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$", "≥": r"$\geq$",
        "≤": r"$\leq$", "∞": r"$\infty$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "|": r"$|$", "<": "$<$",
        ">": "$>$",
    }  # fmt: skip
    return "".join(special.get(c, c) for c in text)


def _no_formula(text: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
