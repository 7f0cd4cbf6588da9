"""Pictures of the theory: sliding uniforms, sample sizes, importance-weighted bounds, bound and likelihood."""

from __future__ import annotations

__all__ = ["bound_and_likelihood", "effective_sizes", "importance_gap", "sliding_uniforms", "theory_figures"]

import math
from collections.abc import Callable, Collection, Mapping

import numpy as np
from matplotlib.figure import Figure

from latentia.reports.style import FAINT, PALETTE, SMALL, WIDTH, label_axes, new_figure
from latentia.theory.beyond import DRAWS, importance_gaps
from latentia.theory.game_divergence import sliding
from latentia.theory.small_vae import reached_by_bound, reached_directly
from latentia.theory.variational_bound import sample_sizes_by_dimension


def theory_figures(seed: int, items: Collection[str]) -> Mapping[str, tuple[Figure, str]]:
    """The pictures of those items that have one, each with its caption."""
    known: dict[str, tuple[Callable[[int], Figure], str]] = {
        "1e": (bound_and_likelihood, "Exact mean log p(x) of 200 digits against decoder evaluations spent."),
        "1f": (effective_sizes, "Effective sample size as a share of the draws: 784 pixels, linear-Gaussian."),
        "3e.sliding": (sliding_uniforms, "Divergences between U[0,1] and U[a,a+1], and their slopes by a."),
        "beyond.iwae": (importance_gap, "How far the bound of K draws lies below log p(x), with standard errors."),
    }
    return {item: (draw(seed), caption) for item, (draw, caption) in known.items() if item in items}


def bound_and_likelihood(seed: int) -> Figure:
    """Item 1e: nats reached against decoder evaluations, by the bound and by quadrature without an encoder."""
    figure = new_figure(0.6 * WIDTH, 2.6)
    axes = figure.subplots()
    ways = ((reached_by_bound(seed), "by the bound"), (reached_directly(seed), "log p(x) itself"))
    for (reached, name), color in zip(ways, PALETTE, strict=False):
        spent, nats = zip(*reached.path, strict=True)
        axes.plot(spent, nats, "o-", color=color, label=name, lw=1.2, ms=3)
    axes.set_xscale("log")
    label_axes(axes, "What a decoder evaluation buys (1e)", "decoder evaluations", r"mean $\log\,p(x)$, nats")
    axes.legend(fontsize=SMALL, frameon=False)
    return figure


def effective_sizes(seed: int) -> Figure:
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


def sliding_uniforms(_seed: int) -> Figure:
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
    values.annotate(
        "", (0.06, 2.9), (0.06, 2.45), arrowprops={"arrowstyle": "->", "color": PALETTE[5], "lw": 1.2}
    )  # fmt: skip
    values.text(0.14, 2.6, r"KL $= +\infty$ for every $a > 0$", fontsize=SMALL, color=PALETTE[5])
    values.text(2.5, math.log(2) + 0.06, r"$\log\,2$", fontsize=SMALL, ha="right", color=FAINT)
    values.legend(fontsize=SMALL, frameon=False, loc="center left")
    slopes.set_ylim(-0.1, 1.25)
    slopes.text(2.5, 0.06, "JSD tells the generator nothing", fontsize=SMALL, ha="right", color=PALETTE[0])
    label_axes(values, "U[0,1] against U[a,a+1] (3e)", "a", "divergence")
    label_axes(slopes, "Slope by a (KL has none)", "a", "derivative")
    return figure


def importance_gap(seed: int) -> Figure:
    """The gap of the importance-weighted bound against K, beside its limit Var w / 2K."""
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
