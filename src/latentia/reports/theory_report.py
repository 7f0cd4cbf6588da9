"""The page of `latentia verify --report`: every statement with its formula, both sides and verdict, errata, pictures.

It is one self-contained file: formulas are MathML made by latex2mathml, pictures are data URIs, and nothing is fetched.
"""

from __future__ import annotations

__all__ = ["formula", "relation_rows", "require_formulas", "write_theory_report"]

import base64
import io
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from latentia.errors import ConfigurationError, RunError
from latentia.reports.style import DPI
from latentia.reports.theory_figures import theory_figures
from latentia.theory import Relation, Verdict

CHAPTERS = {
    "1": "Variational auto-encoders (chapter 1 of the notes)",
    "3": "Generative adversarial networks (chapter 3 of the notes)",
    "beyond": "Beyond the notes",
}


def require_formulas() -> None:
    """Refuse early where formulas cannot be rendered.

    Raises:
        ConfigurationError: if latex2mathml is not installed.
    """
    if find_spec("latex2mathml") is None:
        raise ConfigurationError("--report renders formulas with latex2mathml: pip install 'latentia[theory]'")


def formula(latex: str) -> str:
    """A formula as a MathML block."""
    from latex2mathml.converter import convert

    return convert(latex.replace(r"\log ", r"\log\, "), display="block")  # which sets no space after an operator


def write_theory_report(folder: Path, verdicts: Sequence[Verdict], seed: int) -> Path:
    """Write `theory.html` into a folder, making it if need be, and return its path.

    Args:
        folder: where it goes.
        verdicts: what to show, in this order.
        seed: that the statements were checked with, for the pictures.

    Raises:
        ConfigurationError: if latex2mathml is not installed.
        RunError: if the file cannot be written.
    """
    require_formulas()
    items = {verdict.statement.item for verdict in verdicts}
    drawn = theory_figures(seed, items)
    figures = {item: (_data_uri(figure), caption) for item, (figure, caption) in drawn.items()}
    templates = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(loader=templates, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"formula": lambda latex: Markup(formula(latex))}
    page = environment.get_template("theory.html").render(
        chapters=[(title, [v for v in verdicts if _chapter(v) == key]) for key, title in CHAPTERS.items()],
        verdicts=verdicts,
        figures=figures,
        rows=relation_rows,
        seed=seed,
        version=version("latentia"),
        seconds=sum(verdict.seconds for verdict in verdicts),
        relations=sum(len(verdict.relations) + len(verdict.counter_examples) for verdict in verdicts),
    )
    path = folder / "theory.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise RunError(f"could not write {path}: {error}") from error
    return path


def _chapter(verdict: Verdict) -> str:
    item = verdict.statement.item
    return "beyond" if item.startswith("beyond") else item[0]


def _side(estimate: object) -> str:
    return str(estimate).removeprefix("≥ ").removeprefix("≤ ")


def relation_rows(relations: Sequence[Relation]) -> list[dict[str, object]]:
    """What a table says of each relation: both sides, the difference and what is allowed, and whether it holds."""
    return [
        {
            "name": relation.left.name or "left",
            "left": _side(relation.left),
            "sign": {"==": "=", "<=": "≤", ">=": "≥", "!=": "≠", "→": "→"}[relation.sign],
            "right": _side(relation.right),
            "right_name": relation.right.name,
            "error": f"{relation.difference:.1e}",
            "allowed": f"{relation.slack:.1e}",
            "method": relation.left.method,
            "note": relation.note,
            "holds": relation.holds,
        }
        for relation in relations
    ]


def _data_uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
