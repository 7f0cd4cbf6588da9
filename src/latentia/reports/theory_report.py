"""The page of `latentia verify --report`: every statement with its formula, both sides, verdict, errata and pictures.

It is one self-contained file: formulas are MathML made by latex2mathml, pictures are data URIs, and nothing is fetched.
"""

from __future__ import annotations

__all__: list[str] = []

import base64
import io
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from latentia.errors import ConfigurationError
from latentia.files import atomic_write
from latentia.reports.style import DPI, FAINT, PALETTE, SMALL, WIDTH, label_axes, new_figure
from latentia.reports.tables import SIGNS, difference_text, representatives, side_text
from latentia.theory import Relation, Verdict
from latentia.theory.beyond import DRAWS, importance_gaps
from latentia.theory.game_divergence import sliding
from latentia.theory.small_models import reached_by_bound, reached_directly
from latentia.theory.variational_bound import sample_sizes_by_dimension

CHAPTERS = {
    "1": "Variational auto-encoders (chapter 1 of the sheet)",
    "3": "Generative adversarial networks (chapter 3 of the sheet)",
    "beyond": "Beyond the sheet",
}


def require_formulas() -> None:
    """Check that formulas can be rendered, before any work.

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
    """Write `theory.html` into a folder, making it if needed, and return its path.

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
    figures = {item: (_data_uri(figure), caption) for item, (figure, caption) in theory_figures(seed, items).items()}
    templates = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(loader=templates, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"formula": lambda latex: Markup(formula(latex))}
    page = environment.get_template("theory.html").render(
        chapters=[(title, [v for v in verdicts if _chapter(v) == key]) for key, title in CHAPTERS.items()],
        verdicts=verdicts,
        figures=figures,
        rows=relation_rows,
        shown=representatives,
        seed=seed,
        version=version("latentia"),
        seconds=sum(verdict.seconds for verdict in verdicts),
        relations=sum(len(verdict.relations) + len(verdict.counter_examples) for verdict in verdicts),
    )
    path = folder / "theory.html"
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")  # a name may be no text
    return path


def relation_rows(relations: Sequence[Relation]) -> list[dict[str, object]]:
    """What a table shows of each relation: both sides, how far they are apart, and whether it holds."""
    return [
        {
            "name": relation.left.name or "left side",
            "left": side_text(relation.left),
            "sign": SIGNS[relation.sign],
            "right": side_text(relation.right),
            "right_name": relation.right.name,
            "difference": difference_text(relation),
            "method": relation.left.method,
            "note": relation.note,
            "holds": relation.holds,
        }
        for relation in relations
    ]


def theory_figures(seed: int, items: Collection[str]) -> Mapping[str, tuple[Figure, str]]:
    """The pictures of those items that have one, each with its caption."""
    known: dict[str, tuple[Callable[[int], Figure], str]] = {
        "1e": (
            plot_bound_and_likelihood,
            "Exact mean log p(x) of 200 digits against the number of decoder evaluations.",
        ),
        "1f": (plot_effective_sizes, "Effective sample size as a share of the draws: 784 pixels, linear-Gaussian."),
        "3e.sliding": (plot_sliding_uniforms, "Divergences between U[0,1] and U[a,a+1], and their slopes in a."),
        "beyond.iwae": (plot_importance_gap, "How far the bound of K draws lies below log p(x), with standard errors."),
    }
    return {item: (plot(seed), caption) for item, (plot, caption) in known.items() if item in items}


def plot_bound_and_likelihood(seed: int) -> Figure:
    """Item 1e: nats reached against decoder evaluations, by the bound and by quadrature without an encoder."""
    figure = new_figure(0.6 * WIDTH, 2.6)
    axes = figure.subplots()
    ways = ((reached_by_bound(seed), "by the bound"), (reached_directly(seed), "log p(x) itself"))
    for (reached, name), color in zip(ways, PALETTE, strict=False):
        spent, nats = zip(*reached.path, strict=True)
        axes.plot(spent, nats, "o-", color=color, label=name, lw=1.2, ms=3)
    axes.set_xscale("log")
    label_axes(axes, "Training by the bound and directly (1e)", "decoder evaluations", r"mean $\log\,p(x)$, nats")
    axes.legend(fontsize=SMALL, frameon=False)
    return figure


def plot_effective_sizes(seed: int) -> Figure:
    """Item 1f: ESS/K of the prior and of the encoder as proposals, by the dimension of z."""
    sizes = sample_sizes_by_dimension(seed)
    figure = new_figure(0.6 * WIDTH, 2.6)
    axes = figure.subplots()
    for index, name in enumerate(("prior", "encoder (best diagonal Gaussian)")):
        shares = [pair[index].value for pair in sizes.values()]
        axes.plot(list(sizes), shares, "o-", color=PALETTE[index], label=name, lw=1.2, ms=3)
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(sizes), [str(d) for d in sizes])
    axes.set_yscale("log")
    label_axes(axes, "Prior and encoder as proposals (1f)", "dimension of z", "ESS / K")
    axes.legend(fontsize=SMALL, frameon=False)
    return figure


def plot_sliding_uniforms(_seed: int) -> Figure:
    """Item 3e: KL, JSD and W₁ as the second uniform slides away, and the slope of each."""
    rows = np.asarray(sliding(tuple(np.linspace(0.0125, 2.5, 100).tolist())))
    figure = new_figure(WIDTH, 2.5)
    values, slopes = figure.subplots(1, 2)
    a = rows[:, 0]
    for axes, jsd, w1 in ((values, rows[:, 1], rows[:, 3]), (slopes, rows[:, 2], rows[:, 4])):
        axes.plot(a, jsd, color=PALETTE[0], lw=1.4, label="JSD, nats")
        axes.plot(a, w1, color=PALETTE[1], lw=1.4, label=r"$W_1$")
        axes.axhline(math.log(2), color=FAINT, lw=0.6, ls=":")
    values.set_ylim(-0.1, 2.9)
    arrow = {"arrowstyle": "->", "color": PALETTE[5], "lw": 1.2}
    values.annotate("", (0.06, 2.9), (0.06, 2.45), arrowprops=arrow)
    values.text(0.14, 2.6, r"KL $= +\infty$ for every $a > 0$", fontsize=SMALL, color=PALETTE[5])
    values.text(2.5, math.log(2) + 0.06, r"$\log\,2$", fontsize=SMALL, ha="right", color=FAINT)
    values.legend(fontsize=SMALL, frameon=False, loc="center left")
    slopes.set_ylim(-0.1, 1.25)
    slopes.text(2.5, 0.06, "JSD gives the generator no gradient", fontsize=SMALL, ha="right", color=PALETTE[0])
    label_axes(values, "U[0,1] against U[a,a+1] (3e)", "a", "divergence")
    label_axes(slopes, "Slope in a (KL has none)", "a", "derivative")
    return figure


def plot_importance_gap(seed: int) -> Figure:
    """The gap of the importance-weighted bound against K, with its limit Var w / 2K."""
    gaps, _, variance = importance_gaps(seed)
    draws = np.asarray(DRAWS, dtype=float)
    figure = new_figure(0.6 * WIDTH, 2.6)
    axes = figure.subplots()
    errors = [gap.stderr or 0.0 for gap in gaps]
    values = [gap.value for gap in gaps]
    axes.errorbar(draws, values, errors, fmt="o", ms=3, color=PALETTE[0], label="measured", elinewidth=1, capsize=2)
    axes.plot(draws, variance / (2 * draws), color=FAINT, lw=1, label=r"Var $w\,/\,2K$")
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(DRAWS), [str(k) for k in DRAWS])
    axes.set_yscale("log")
    label_axes(axes, "Gap of the importance-weighted bound", "K", r"$\log\,p(x) - L_K$, nats")
    axes.legend(fontsize=SMALL, frameon=False)
    return figure


def _chapter(verdict: Verdict) -> str:
    item = verdict.statement.item
    return "beyond" if item.startswith("beyond") else item[0]


def _data_uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
