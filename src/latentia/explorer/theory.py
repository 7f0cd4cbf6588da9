"""The statements as the page shows them: words, formula, both sides as `verify` computed them, erratum.

Checking all statements takes a minute, so their results are kept in `theory.json`, with the version that they are of:

    python -m latentia.explorer.theory
"""

from __future__ import annotations

__all__: list[str] = []

import json
import re
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from latentia.files import atomic_write
from latentia.reports.tables import representatives
from latentia.reports.theory_report import CHAPTERS, formula, relation_rows, require_formulas
from latentia.theory import Relation, Verdict, statements, verify

SAVED = "theory.json"


@cache
def saved_statements() -> dict[str, Any]:
    """The content of `theory.json`: the version, the seed, and the chapters with their statements."""
    return json.loads(files("latentia.explorer").joinpath(SAVED).read_text(encoding="utf-8"))


def statement_of(verdict: Verdict) -> dict[str, Any]:
    """What the page shows of a verdict."""
    statement, erratum = verdict.statement, verdict.statement.erratum
    return {
        "item": statement.item,
        "words": statement.words,
        "latex": statement.latex,
        "formula": _markup(statement.latex),
        "source": statement.source,
        "holds": verdict.holds,
        "relations": len(verdict.relations),
        "rows": _rows(representatives(verdict)),
        "erratum": None
        if erratum is None
        else {
            "stated": _markup(erratum.stated),
            "right": _markup(erratum.right),
            "words": erratum.words,
            "rows": _rows(verdict.counter_examples[:2]),
        },
    }


def _rows(relations: Sequence[Relation]) -> list[dict[str, Any]]:
    shown = ("name", "left", "sign", "right", "right_name", "difference", "note", "holds")
    return [
        {key: row[key] for key in shown} | {"kind": f"{relation.left.kind}, {relation.left.method}".strip(", ")}
        for relation, row in zip(relations, relation_rows(relations), strict=True)
    ]


def _markup(latex: str) -> str:
    """MathML, without the attributes that every browser assumes."""
    return re.sub(r' (?:xmlns|stretchy|form|fence|separator|mathvariant="normal")="[^"]*"', "", formula(latex))


def main() -> None:
    """Check every statement and write `theory.json`."""
    require_formulas()
    found = [(verdict.statement.item, statement_of(verdict)) for verdict in verify(statements(), 0)]
    chapters = [
        {"title": title, "statements": [about for item, about in found if item.startswith(key)]}
        for key, title in CHAPTERS.items()
    ]
    with atomic_write(Path(__file__).with_name(SAVED)) as temporary:
        content = {"version": version("latentia"), "seed": 0, "chapters": chapters}
        temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
