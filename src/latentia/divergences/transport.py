r"""Optimal transport between samples in Rᵈ: exact for small ones, and estimates that say what they are.

* `assignment`: W_p exactly, by the best matching (equal sizes, equal weights) or a linear program (anything else).
* `sliced`: the mean of one-dimensional W_p^p over random directions. Never above W_p.
* `max_sliced`: the greatest one-dimensional W_p found over directions. A lower bound on max-sliced W_p, and so on W_p.
* `sinkhorn`: entropic transport, its plan rounded to a feasible one. An upper bound on W_p; the dual potentials give
  the lower bound in `settings`.

Source: Bonneel et al. 2015 (sliced); Deshpande et al. 2019 (max-sliced); Cuturi 2013, Altschuler et al. 2017.
"""

from __future__ import annotations

__all__ = ["LARGEST_ASSIGNMENT", "assignment", "fitted_gaussians", "max_sliced", "sample_of", "sinkhorn", "sliced"]

import math

import numpy as np
import scipy  # its parts are slow to import; it does that when they are first used
import torch
from torch import Tensor
from torch.nn.functional import normalize

from latentia.divergences.line import bures
from latentia.divergences.samples import samples
from latentia.errors import DataError, UnsupportedError
from latentia.estimate import Estimate
from latentia.estimate import exact as exactly
from latentia.integration import RunningMean

LARGEST_ASSIGNMENT = 2000
_LARGEST_PROGRAM = 250_000


def sample_of(values: Tensor | np.ndarray, name: str) -> Tensor:
    """A sample as float64 (n, d) on the CPU; (n,) becomes (n, 1).

    Raises:
        DataError: it is empty, not of that shape, or holds values that are not finite.
    """
    sample = torch.as_tensor(values).detach().double().cpu()
    sample = sample[:, None] if sample.dim() == 1 else sample
    if sample.dim() != 2 or 0 in sample.shape:
        raise DataError(f"the sample {name} must be n >= 1 points, (n,) or (n, d); it has shape {tuple(sample.shape)}")
    bad = int((~torch.isfinite(sample)).any(-1).sum())
    if bad:
        raise DataError(f"the sample {name} has {bad} points of {len(sample)} that are not finite (NaN or infinite)")
    return sample


def _pair(x: Tensor | np.ndarray, y: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
    first, second = sample_of(x, "x"), sample_of(y, "y")
    if first.shape[1] != second.shape[1]:
        raise DataError(f"the samples lie in different dimensions: x in {first.shape[1]}, y in {second.shape[1]}")
    return first, second


def _probabilities(weights: Tensor | None, n: int, name: str) -> Tensor:
    if weights is None:
        return torch.full((n,), 1 / n, dtype=torch.float64)
    given = torch.as_tensor(weights).detach().double().cpu()
    if given.shape != (n,) or not bool(torch.isfinite(given).all()) or bool((given < 0).any()) or given.sum() <= 0:
        raise DataError(f"the weights of {name} must be {n} finite numbers, at least 0 and not all 0")
    return given / given.sum()


def _name(order: int) -> str:
    if order not in (1, 2):
        raise ValueError(f"order is {order}; it must be 1 or 2")
    return f"wasserstein-{order}"


def _costs(x: Tensor, y: Tensor, order: int) -> Tensor:
    distance = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return distance if order == 1 else distance.square()


def assignment(
    x: Tensor | np.ndarray,
    y: Tensor | np.ndarray,
    order: int = 1,
    x_weights: Tensor | None = None,
    y_weights: Tensor | None = None,
) -> Estimate:
    """W_order between the empirical distributions of two small samples, exactly.

    Args:
        x: (n,) or (n, d).
        y: (m,) or (m, d).
        order: 1 or 2.
        x_weights: (n,), normalized here; equal if not given.
        y_weights: (m,).

    Raises:
        UnsupportedError: more than 2 000 points a side (n = m), or n·m above 250 000 in the linear program.
        DataError: empty samples, values that are not finite, different dimensions.
    """
    name = _name(order)
    first, second = _pair(x, y)
    n, m = len(first), len(second)
    plain = n == m and x_weights is None and y_weights is None
    if (plain and n > LARGEST_ASSIGNMENT) or (not plain and n * m > _LARGEST_PROGRAM):
        raise UnsupportedError(
            f"exact assignment of {n} to {m} points is too large (at most {LARGEST_ASSIGNMENT} a side, or "
            f"n·m = {_LARGEST_PROGRAM} where sizes differ); use transport.sliced, or transport.sinkhorn to bound it"
        )
    cost = _costs(first, second, order)
    if plain:
        value = cost[scipy.optimize.linear_sum_assignment(cost.numpy())].mean().item()
        return exactly(value ** (1 / order), name, n=n, unit="1", method="assignment")
    a, b = _probabilities(x_weights, n, "x"), _probabilities(y_weights, m, "y")
    # Row sums and column sums of the plan; one of the n + m equations follows from the others.
    rows = scipy.sparse.kron(scipy.sparse.eye(n), np.ones((1, m)))
    columns = scipy.sparse.kron(np.ones((1, n)), scipy.sparse.eye(m))
    equations = scipy.sparse.vstack([rows, columns]).tocsr()[:-1]
    found = scipy.optimize.linprog(
        cost.numpy().ravel(), A_eq=equations, b_eq=torch.cat([a, b])[:-1].numpy(), method="highs"
    )
    if not found.success:
        raise UnsupportedError(f"the linear program failed ({found.message}); use transport.sinkhorn for bounds")
    settings = {"error": 1e-9 * max(1.0, cost.max().item())}
    return exactly(max(0.0, found.fun) ** (1 / order), name, n=n, unit="1", method="linear program", settings=settings)


def _project(x: Tensor, y: Tensor, directions: Tensor, order: int) -> Tensor:
    """One-dimensional W_order^order along each unit direction, (L,)."""
    return samples(directions @ x.T, directions @ y.T, order) ** order


def sliced(
    x: Tensor | np.ndarray, y: Tensor | np.ndarray, order: int = 1, *, projections: int = 256, seed: int = 0
) -> Estimate:
    """Sliced W_order: (mean over random directions of W_order^order)^(1/order), with its standard error."""
    name = "sliced " + _name(order)
    first, second = _pair(x, y)
    generator = torch.Generator().manual_seed(seed)
    mean, block = RunningMean(), max(1, 2**22 // (len(first) + len(second)))
    for start in range(0, projections, block):
        shape = (min(block, projections - start), first.shape[1])
        directions = normalize(torch.randn(shape, generator=generator, dtype=torch.float64), dim=-1)
        mean.add(_project(first, second, directions, order))
    value = mean.mean.item() ** (1 / order)
    stderr = mean.stderr.item() if order == 1 else mean.stderr.item() / (2 * value) if value > 0 else 0.0
    settings = {"projections": projections, "seed": seed}
    return Estimate(value, name, stderr, len(first), "1", method="random projections", settings=settings)


def max_sliced(
    x: Tensor | np.ndarray,
    y: Tensor | np.ndarray,
    order: int = 1,
    *,
    starts: int = 16,
    steps: int = 100,
    seed: int = 0,
) -> Estimate:
    """The greatest W_order along one direction that gradient ascent finds: a lower bound on max-sliced W_order."""
    name = "max-sliced " + _name(order)
    first, second = _pair(x, y)
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(starts, first.shape[1], generator=generator, dtype=torch.float64)
    directions[0] = first.mean(0) - second.mean(0) + 1e-9 * directions[0]
    directions = normalize(directions, dim=-1).requires_grad_()
    optimizer = torch.optim.Adam([directions], lr=0.1)
    best = 0.0
    for step in range(steps + 1):
        with torch.enable_grad():
            costs = _project(first, second, normalize(directions, dim=-1), order)
        best = max(best, costs.max().item())
        if step < steps:
            optimizer.zero_grad()
            (-costs.sum()).backward()
            optimizer.step()
    settings = {"starts": starts, "steps": steps, "seed": seed}
    return Estimate(
        best ** (1 / order),
        name,
        n=len(first),
        unit="1",
        kind="lower bound",
        method="gradient ascent",
        settings=settings,
    )


def sinkhorn(
    x: Tensor | np.ndarray,
    y: Tensor | np.ndarray,
    order: int = 1,
    *,
    epsilon: float = 0.02,
    iterations: int = 500,
    tolerance: float = 1e-6,
) -> Estimate:
    """W_order bracketed by entropic transport: the cost of a feasible plan above, the dual value below.

    Args:
        x: (n,) or (n, d), equally weighted.
        y: (m,) or (m, d).
        order: 1 or 2.
        epsilon: strength of the entropy, as a share of the mean cost. Smaller is tighter and slower.
        iterations: the most sweeps to make.
        tolerance: the error of the plan's margins (total variation) at which to stop.

    Returns:
        An upper bound on W_order, with a lower one in `settings["lower bound"]` and the sweeps made in `"iterations"`.
    """
    name = _name(order)
    first, second = _pair(x, y)
    n, m = len(first), len(second)
    if n * m > 2**26:
        raise UnsupportedError(
            f"sinkhorn needs the table of {n} × {m} costs, more than 2^26 entries; use transport.sliced"
        )
    cost = _costs(first, second, order)
    scale = epsilon * max(cost.mean().item(), 1e-300)
    log_a, log_b = -math.log(n), -math.log(m)
    f, g = torch.zeros(n, dtype=torch.float64), torch.zeros(m, dtype=torch.float64)
    done = 0
    for done in range(1, iterations + 1):
        f = -scale * torch.logsumexp((g - cost) / scale + log_b, 1)
        # The columns are right after the next line, so the rows' error is that of the plan.
        g = -scale * torch.logsumexp((f[:, None] - cost) / scale + log_a, 0)
        if done % 10 == 0 or done == iterations:
            plan = ((f[:, None] + g - cost) / scale + log_a + log_b).exp()
            if (plan.sum(1) - 1 / n).abs().sum().item() < 2 * tolerance:
                break
    plan = ((f[:, None] + g - cost) / scale + log_a + log_b).exp()
    # Round to a feasible plan: shrink the rows and columns that are too heavy, and spread what is missing.
    plan = plan * (1 / n / plan.sum(1)).clamp(max=1)[:, None]
    plan = plan * (1 / m / plan.sum(0)).clamp(max=1)
    rows, columns = 1 / n - plan.sum(1), 1 / m - plan.sum(0)
    missing = rows.sum()
    upper = (plan * cost).sum() + (rows @ cost @ columns / missing if missing > 1e-300 else 0.0)
    lower = f.mean() + (cost - f[:, None]).amin(0).mean()  # g replaced by the best one for this f is feasible
    settings = {"lower bound": max(0.0, lower.item()) ** (1 / order), "epsilon": epsilon, "iterations": done}
    return Estimate(
        upper.clamp_min(0).item() ** (1 / order),
        name,
        n=n,
        unit="1",
        kind="upper bound",
        method="sinkhorn, rounded",
        settings=settings,
    )


def fitted_gaussians(x: Tensor | np.ndarray, y: Tensor | np.ndarray) -> Estimate:
    """W₂ between the Gaussians with the samples' means and covariances: a lower bound on W₂ between the samples.

    It is zero for unlike samples with equal moments. Source: Gelbrich 1990; with features of images it is the Fréchet
    distance of Heusel et al. 2017, unsquared.
    """
    first, second = _pair(x, y)
    moments = [(s.mean(0), torch.atleast_2d(torch.cov(s.T, correction=0))) for s in (first, second)]
    value = math.sqrt(bures(*moments[0], *moments[1]))
    return Estimate(value, "wasserstein-2", n=len(first), unit="1", kind="lower bound", method="fitted gaussians")
