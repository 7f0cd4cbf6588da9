"""Every divergence between two distributions, or two samples, in one list: what `latentia distance` prints.

Each divergence is given by each method that serves, the best first: exact, then quadrature, then Monte Carlo. What a
method cannot serve is left out of the list and kept, with its reason, in `Table.refused`.
"""

from __future__ import annotations

__all__ = [
    "Table",
    "all_divergences",
    "divergence_table",
    "optimal_map",
    "sample_divergences",
    "sample_table",
]

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from latentia.distributions.finite import Finite
from latentia.divergences import jensen_shannon, kl, total_variation, transport, wasserstein
from latentia.divergences.canonical import canonical_pair
from latentia.divergences.cumulative import cumulative
from latentia.divergences.supports import dimension, separation
from latentia.errors import UnsupportedError
from latentia.estimate import Estimate
from latentia.estimate import exact as exactly

_MOST_ATOMS = 4096
_LARGEST_SINKHORN = 2**22  # pairs of points


@dataclass
class Table:
    """Estimates in the order in which to print them, and what could not be had.

    Attributes:
        estimates: named by divergence, such as `kl(P, Q)`.
        refused: (name, method, reason) for each method that does not serve.
    """

    estimates: list[Estimate] = field(default_factory=list)
    refused: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, name: str, method: str, compute: Callable[[], Estimate]) -> None:
        """Take in what `compute` returns under a name, or the reason why it cannot serve."""
        try:
            self.estimates.append(replace(compute(), name=name))
        except UnsupportedError as reason:
            self.refused.append((name, method, str(reason)))


def divergence_table(p: Distribution, q: Distribution, *, n: int = 100_000, seed: int = 0) -> Table:
    """Every divergence between two distributions by every method, with what was refused and why."""
    canonical_pair(p, q)
    table = Table()
    transport_n = min(n, 100_000 if dimension(p) == 1 else 10_000)  # matching grows with the cube
    rows: list[tuple[str, dict[str, Callable[[], Estimate]]]] = []
    for name, first, second in (("kl(P, Q)", p, q), ("kl(Q, P)", q, p)):
        rows.append((name, _methods(kl, first, second, n, seed)))
        rows[-1][1]["non-negative monte carlo"] = lambda a=first, b=second: kl.monte_carlo_nonnegative(a, b, n, seed)
    rows.append(("jensen-shannon", _methods(jensen_shannon, p, q, n, seed)))
    rows.append(("total variation", _methods(total_variation, p, q, n, seed)))
    for order in (1, 2):
        methods: dict[str, Callable[[], Estimate]] = {
            "exact": lambda order=order: wasserstein.exact(p, q, order),
            "quadrature": lambda order=order: wasserstein.quadrature(p, q, order),
            "monte carlo": lambda order=order: wasserstein.monte_carlo(p, q, order, transport_n, seed),
        }
        rows.append((f"wasserstein-{order}", methods))
    for name, methods in rows:
        for method, compute in methods.items():
            before = len(table.estimates)
            table.add(name, method, compute)
            # An answer such as +∞ by lack of absolute continuity is every method's; it is printed once.
            if len(table.estimates) > before and method == "exact" and table.estimates[-1].settings.get("reason"):
                break
            if len(table.estimates) > before and table.estimates[-1].method == "equal distributions":
                break
    return table


def _methods(module: object, p: Distribution, q: Distribution, n: int, seed: int) -> dict[str, Callable[[], Estimate]]:
    divergence: type[kl] = module  # pyright: ignore
    return {
        "exact": lambda: divergence.exact(p, q),
        "quadrature": lambda: divergence.quadrature(p, q),
        "monte carlo": lambda: divergence.monte_carlo(p, q, n, seed),
    }


def all_divergences(p: Distribution, q: Distribution, *, n: int = 100_000, seed: int = 0) -> list[Estimate]:
    """Every divergence between two distributions: exact first where it serves, then quadrature, then Monte Carlo.

    Args:
        p: a distribution.
        q: another over the same space.
        n: draws for the Monte Carlo estimates.
        seed: of the draws.

    Raises:
        ConfigurationError: a batch of distributions, or distributions over different spaces.
    """
    return divergence_table(p, q, n=n, seed=seed).estimates


def sample_table(x: Tensor | np.ndarray, y: Tensor | np.ndarray, *, seed: int = 0) -> Table:
    """Every distance between two samples that says something about the distributions they come from.

    Relative entropy, Jensen-Shannon divergence and total variation need densities, which samples do not give: between
    two empirical distributions without a common point they are infinite, log 2 and 1, whatever the distributions. They are in the list
    only for samples that have points in common, and then are those of the empirical distributions.

    Args:
        x: (n,) or (n, d).
        y: (m,) or (m, d).
        seed: of the random projections.

    Raises:
        DataError: empty samples, values that are not finite, different dimensions.
    """
    first, second = transport.sample_of(x, "x"), transport.sample_of(y, "y")
    table = Table()
    for order in (1, 2):
        name = f"wasserstein-{order}"
        if first.shape[1] == second.shape[1] == 1:
            table.add(name, "exact", lambda order=order: _on_the_line(first, second, order))
            continue
        table.add(name, "exact", lambda order=order: transport.assignment(first, second, order))
        table.add(name, "sinkhorn", lambda order=order: _sinkhorn(first, second, order))
        sliced = f"sliced wasserstein-{order}"
        table.add(sliced, "projections", lambda order=order: transport.sliced(first, second, order, seed=seed))
        largest = f"max-sliced wasserstein-{order}"
        table.add(largest, "ascent", lambda order=order: transport.max_sliced(first, second, order, seed=seed))
    table.add("wasserstein-2", "fitted gaussians", lambda: transport.fitted_gaussians(first, second))
    p, q = (Finite(sample if sample.shape[1] > 1 else sample[:, 0]) for sample in (first, second))
    if min(len(p.points), len(q.points)) <= _MOST_ATOMS and separation(p, q) is None:
        rows: list[tuple[str, Callable[[], Estimate]]] = [
            ("kl(P, Q)", lambda: kl.exact(p, q)),
            ("kl(Q, P)", lambda: kl.exact(q, p)),
            ("jensen-shannon", lambda: jensen_shannon.exact(p, q)),
            ("total variation", lambda: total_variation.exact(p, q)),
        ]
        for name, compute in rows:
            table.add(f"{name} of the empirical distributions", "exact", compute)
    else:
        table.refused.append(("kl, jensen-shannon, total variation", "exact", "the samples have no point in common"))
    return table


def sample_divergences(x: Tensor | np.ndarray, y: Tensor | np.ndarray, *, seed: int = 0) -> list[Estimate]:
    """The estimates of `sample_table`."""
    return sample_table(x, y, seed=seed).estimates


def _on_the_line(x: Tensor, y: Tensor, order: int) -> Estimate:
    value = wasserstein.samples(x[:, 0], y[:, 0], order).item()
    return exactly(value, n=len(x), unit="1", method="sorted samples")


def optimal_map(p: Distribution, q: Distribution, points: int = 101) -> tuple[Tensor, Tensor]:
    """The optimal coupling of two distributions on the line, for a picture: x and y of equal quantiles.

    Args:
        p: a distribution on the line.
        q: another.
        points: how many quantiles, spread evenly over (0, 1).

    Returns:
        x = F⁻¹(u) and y = G⁻¹(u), each (points,), both rising.

    Raises:
        UnsupportedError: distributions that are not on the line.
    """
    p, q = canonical_pair(p, q)
    first, second = cumulative(p), cumulative(q)
    u = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    return first.quantile(u), second.quantile(u)


def _sinkhorn(first: Tensor, second: Tensor, order: int) -> Estimate:
    """Sinkhorn's bounds where they take seconds; a table should not keep its reader waiting for minutes."""
    if len(first) * len(second) > _LARGEST_SINKHORN:
        raise UnsupportedError(
            f"bounds by sinkhorn for {len(first)} × {len(second)} points take minutes; call transport.sinkhorn, or "
            "give at most 2 000 points a side"
        )
    return transport.sinkhorn(first, second, order)
