"""A run in the terminal: what was set, how training ended, what was measured, where the pictures are."""

from __future__ import annotations

__all__ = ["estimates_table", "show_run"]

from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from latentia.estimate import Estimate
from latentia.recipes import Run
from latentia.reports.changes import changed_settings
from latentia.reports.facts import estimates_by_file, figures_of, last_records, settings_text


def estimates_table(estimates: Iterable[Estimate], title: str = "") -> Table:
    """A table of estimates: name, value with its error, kind, method, number of draws or images, settings.

    What is the same for all of them stands once, under the table.
    """
    rows = [_cells(estimate) for estimate in estimates]
    shared = [name for name in ("method", "n", "settings") if len(rows) > 1 and len({row[name] for row in rows}) == 1]
    caption = "; ".join(f"{name}: {rows[0][name]}" for name in shared if rows[0][name])
    table = Table(
        title=title or None,
        title_justify="left",
        caption=Text(caption) if caption else None,
        caption_justify="left",
        header_style="bold",
    )
    columns = [name for name in ("name", "value", "kind", "method", "n", "settings") if name not in shared]
    for name in columns:
        table.add_column(name, **_COLUMNS.get(name, {}))
    for row in rows:
        table.add_row(*(Text(row[name]) for name in columns))
    return table


_COLUMNS: Mapping[str, dict[str, Any]] = {
    "name": {"style": "cyan", "no_wrap": True},
    "value": {"justify": "right", "no_wrap": True},
    "n": {"justify": "right"},
    "settings": {"style": "dim", "overflow": "fold"},
}


def _cells(estimate: Estimate) -> dict[str, str]:
    return {
        "name": estimate.name,
        "value": str(estimate),
        "kind": estimate.kind,
        "method": estimate.method,
        "n": "" if estimate.n is None else str(estimate.n),
        "settings": settings_text(estimate.settings),
    }


def show_run(run: Run, console: Console) -> None:
    """Print a run: first the settings that differ from the defaults, then the others, the last records, estimates and
    pictures."""
    console.print(Text.assemble(("run ", "dim"), (str(run.path), "bold")))
    console.print(_recipe_tree(run))
    latest = last_records(run.records)
    if latest:
        console.print(_records_table(latest))
    for name, estimates in estimates_by_file(run).items():
        console.print(estimates_table(estimates, f"evaluation/{name}.json"))
    figures = figures_of(run)
    if figures:
        console.print(Text("pictures", style="bold"))
        for path in figures:
            console.print(Text(f"  {path}"), soft_wrap=True)


def _recipe_tree(run: Run) -> Tree:
    recipe = run.recipe.to_mapping()
    changed = changed_settings(run.recipe)
    tree = Tree(Text.assemble(("recipe ", "bold"), (run.recipe.type_name, "bold cyan")))
    if changed:
        branch = tree.add(Text("set", style="bold"))
        for key, value in changed.items():
            branch.add(Text(f"{key}: {_inline(value)}", style="yellow"))
    branch = tree.add(Text("whole", style="dim"))
    parts = {key: value for key, value in recipe.items() if isinstance(value, Mapping)}
    plain = {key: value for key, value in recipe.items() if key not in parts and key != "type"}
    branch.add(Text(", ".join(f"{key}: {_inline(value)}" for key, value in plain.items()), style="dim"))
    for key, value in parts.items():
        branch.add(Text(f"{key}: {_inline(value)}", style="dim"))
    return tree


def _inline(value: Any) -> str:
    """A value as YAML on one line; a component as its name and settings."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{key}: {_inline(item)}" for key, item in value.items() if key != "type")
        name = str(value.get("type", ""))
        return f"{name} {{{inner}}}" if inner else name
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def _records_table(latest: Mapping[str, Mapping[str, Any]]) -> Table:
    first = next(iter(latest.values()))
    table = Table(
        title=f"last records (step {first['step']}, epoch {first['epoch']:g})",
        title_justify="left",
        header_style="bold",
    )
    table.add_column("name", style="cyan")
    table.add_column("value", justify="right")
    table.add_column("epoch", justify="right")
    for name, record in latest.items():
        shown = Estimate(record["value"], stderr=record.get("stderr"), unit="1")
        table.add_row(Text(name), Text(str(shown)), Text(f"{record['epoch']:g}"))
    return table
