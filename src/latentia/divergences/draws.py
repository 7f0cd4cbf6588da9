"""Monte Carlo means of functions of a distribution's draws, guarded against draws that floats cannot hold."""

from __future__ import annotations

__all__ = ["mean_over_draws", "stratified"]

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution

from latentia.errors import UnsupportedError
from latentia.estimate import Estimate
from latentia.integration import monte_carlo


def mean_over_draws(
    distribution: Distribution,
    function: Callable[[Tensor], Tensor],
    *,
    n: int,
    seed: int,
    name: str,
    estimator: str,
    unit: str = "nats",
) -> Estimate:
    """Mean of a function over n draws of a distribution, with its standard error.

    Raises:
        UnsupportedError: a draw overflows, or the function is NaN on one.
    """

    def draw(count: int) -> Tensor:
        x = distribution.sample(torch.Size((count,)))
        if not bool(torch.isfinite(x).all()):
            raise UnsupportedError(
                f"draws of {distribution} overflow float64, so nothing can be said about them by monte carlo"
            )
        values = function(x).double()
        if bool(torch.isnan(values).any()):
            raise UnsupportedError(f"{name}: the densities are not defined at a draw of {distribution}; use quadrature")
        return values

    mean = monte_carlo(draw, n, seed=seed, name=name, unit=unit)
    return Estimate(
        mean.value, name, mean.stderr, n, unit, method="monte carlo", settings={"seed": seed, "estimator": estimator}
    )


def stratified(first: Estimate, second: Estimate) -> Estimate:
    """Half the sum of two means over independent draws, half of them from each distribution."""
    stderr = None
    if first.stderr is not None and second.stderr is not None:
        stderr = 0.5 * math.hypot(first.stderr, second.stderr)
    n = (first.n or 0) + (second.n or 0)
    value = 0.5 * (first.value + second.value)
    return Estimate(value, first.name, stderr, n, first.unit, method=first.method, settings=first.settings)
