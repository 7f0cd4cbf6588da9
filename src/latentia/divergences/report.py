"""Every divergence between two distributions, or between two samples, in one table: what `latentia distance` prints."""

from __future__ import annotations

__all__ = ["distances"]

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import Tensor
from torch.distributions import Distribution

from latentia.distributions import Finite, parse_distribution
from latentia.divergences import empirical, wasserstein
from latentia.divergences._canonical import canonical_pair, dimension, is_discrete, separation
from latentia.divergences._integrals import exactly
from latentia.divergences.empirical import Sample
from latentia.divergences.f_divergence import FDivergence, jensen_shannon, kl, total_variation
from latentia.errors import ConfigurationError, UnsupportedError
from latentia.estimate import Estimate

_MOST_POINTS = 4096
_LARGEST_SINKHORN = 2**22  # pairs of points

Side = Distribution | Sample | str
Row = dict[str, Callable[[], Estimate]]


@dataclass
class DistanceTable:
    """Estimates in the order in which to print them, and the methods that do not apply.

    Attributes:
        first: the first distribution or sample, as read.
        second: the second one.
        estimates: named by divergence, such as `kl(P, Q)`; the best method first: exact, quadrature, enclosure, Monte
            Carlo.
        refused: (name, method, reason) for each method that does not apply.
    """

    first: Distribution | Tensor
    second: Distribution | Tensor
    estimates: list[Estimate] = field(default_factory=list)
    refused: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, name: str, methods: Row, swapped: bool = False) -> None:
        """Add the estimates that the methods give under a name, or the reasons why they do not apply.

        An answer that holds whatever the method, such as +∞ by lack of absolute continuity, is added once.

        Args:
            name: of the row.
            methods: what computes each estimate.
            swapped: whether the methods were given (Q, P), so that their messages name P what this table names Q.
        """
        for method, compute in methods.items():
            try:
                found = compute()
            except UnsupportedError as reason:
                text = re.sub(r"; use [\w.]+$", "", str(reason))  # the table has every other method
                self.refused.append((name, method, _swap(text) if swapped else text))
                continue
            settings = dict(found.settings)
            if swapped and "reason" in settings:
                settings["reason"] = _swap(settings["reason"])
            self.estimates.append(replace(found, name=name, settings=settings))
            if "reason" in settings or found.method == "equal distributions":
                break


def distances(first: Side, second: Side, *, n: int = 100_000, seed: int = 0) -> DistanceTable:
    """Every divergence between two distributions or between two samples, by every method that applies.

    Relative entropy, Jensen-Shannon divergence and total variation need densities, which samples do not give: between
    two empirical distributions without a common point they are infinite, log 2 and 1, whatever the distributions are.
    For samples they are in the table only if the samples have points in common, and then are those of the empirical
    distributions.

    Args:
        first: a distribution, an expression such as "Normal(0, 1)" (see `parse_distribution`), or a sample, (n,) or (n,
            d).
        second: another of the same kind.
        n: draws for the Monte Carlo estimates, at least 2.
        seed: of the draws and of the random projections.

    Raises:
        ConfigurationError: an expression that cannot be read, a distribution and a sample, a batch of distributions, or
            distributions over different spaces.
        DataError: empty samples, values that are not finite, different dimensions.
    """
    p, q = _read(first, "P"), _read(second, "Q")
    if isinstance(p, Distribution) and isinstance(q, Distribution):
        return _between_distributions(p, q, n, seed)
    if isinstance(p, Distribution) or isinstance(q, Distribution):
        kinds = ["a distribution" if isinstance(side, Distribution) else "a sample" for side in (p, q)]
        raise ConfigurationError(
            f"P is {kinds[0]} and Q is {kinds[1]}; give two distributions, or two files of samples"
        )
    return _between_samples(p, q, seed)


def _between_distributions(p: Distribution, q: Distribution, n: int, seed: int) -> DistanceTable:
    canonical_pair(p, q)
    table = DistanceTable(p, q)

    def row(divergence: FDivergence, a: Distribution, b: Distribution) -> Row:
        methods: Row = {"exact": lambda: divergence.exact(a, b), "quadrature": lambda: divergence.quadrature(a, b)}
        if dimension(a) == 1 and not is_discrete(a):
            methods["enclosure"] = lambda: divergence.enclosure(a, b)
        methods["monte carlo"] = lambda: divergence.monte_carlo(a, b, n, seed)
        return methods

    for name, a, b in (("kl(P, Q)", p, q), ("kl(Q, P)", q, p)):
        methods = row(kl, a, b)
        methods["non-negative monte carlo"] = lambda a=a, b=b: kl.monte_carlo_nonnegative(a, b, n, seed)
        table.add(name, methods, swapped=a is not p)
    for divergence in (jensen_shannon, total_variation):
        table.add(divergence.name, row(divergence, p, q))
    matched = min(n, 100_000 if dimension(p) == 1 else 10_000)  # the cost of matching grows with the cube
    for order in (1, 2):
        methods: Row = {
            "exact": lambda order=order: wasserstein.exact(p, q, order),
            "quadrature": lambda order=order: wasserstein.quadrature(p, q, order),
            "monte carlo": lambda order=order: wasserstein.monte_carlo(p, q, order, matched, seed),
        }
        table.add(f"wasserstein-{order}", methods)
    return table


def _between_samples(first: Tensor, second: Tensor, seed: int) -> DistanceTable:
    first, second = empirical.sample_of(first, "P"), empirical.sample_of(second, "Q")
    table = DistanceTable(first, second)
    for order in (1, 2):
        name = f"wasserstein-{order}"
        if first.shape[1] == second.shape[1] == 1:
            table.add(name, {"exact": lambda order=order: _on_the_line(first, second, order)})
            continue
        exact: Row = {
            "exact": lambda order=order: empirical.assignment(first, second, order),
            "sinkhorn": lambda order=order: _sinkhorn(first, second, order),
        }
        table.add(name, exact)
        sliced: Row = {"projections": lambda order=order: empirical.sliced(first, second, order, seed=seed)}
        table.add(f"sliced {name}", sliced)
        largest: Row = {"ascent": lambda order=order: empirical.max_sliced(first, second, order, seed=seed)}
        table.add(f"max-sliced {name}", largest)
    table.add("wasserstein-2", {"fitted gaussians": lambda: empirical.fitted_gaussians(first, second)})
    p, q = (Finite(sample if sample.shape[1] > 1 else sample[:, 0]) for sample in (first, second))
    if min(len(p.points), len(q.points)) > _MOST_POINTS or separation(p, q) is not None:
        table.refused.append(("kl, jensen-shannon, total variation", "exact", "the samples have no point in common"))
        return table
    suffix = "of the empirical distributions"
    table.add(f"kl(P, Q) {suffix}", {"exact": lambda: kl.exact(p, q)})
    table.add(f"kl(Q, P) {suffix}", {"exact": lambda: kl.exact(q, p)}, swapped=True)
    table.add(f"jensen-shannon {suffix}", {"exact": lambda: jensen_shannon.exact(p, q)})
    table.add(f"total variation {suffix}", {"exact": lambda: total_variation.exact(p, q)})
    return table


def _swap(text: str) -> str:
    """A message about (Q, P) in terms of (P, Q)."""
    return re.sub(r"\b[PQpq]\b(?!\()", lambda letter: letter.group().translate(str.maketrans("PQpq", "QPqp")), text)


def _on_the_line(x: Tensor, y: Tensor, order: int) -> Estimate:
    value = empirical.samples(x[:, 0], y[:, 0], order).item()
    return exactly(value, f"wasserstein-{order}", n=len(x), unit="1", method="sorted samples")


def _sinkhorn(first: Tensor, second: Tensor, order: int) -> Estimate:
    """Sinkhorn's bounds where they take seconds."""
    if len(first) * len(second) > _LARGEST_SINKHORN:
        raise UnsupportedError(
            f"bounds by sinkhorn for {len(first)} × {len(second)} points take minutes; call empirical.sinkhorn, or "
            "give at most 2 000 points a side"
        )
    return empirical.sinkhorn(first, second, order)


def _read(side: Side, name: str) -> Distribution | Tensor:
    if isinstance(side, Distribution):
        return side
    if not isinstance(side, str):
        return empirical.real_tensor(side, f"the values of the sample {name}")
    try:
        return parse_distribution(side)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from None
