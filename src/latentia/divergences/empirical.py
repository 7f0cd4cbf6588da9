r"""Wasserstein distances between samples: exact on the line and for small samples in Rᵈ; bounds and projections for the
rest.

    samples        on the line: exact, weighted, batched, differentiable, on any device
    assignment     in Rᵈ: exactly, by the best matching (equal sizes and weights) or a linear program (anything else)
    sliced         the mean of one-dimensional W_pᵖ over random directions, to the power 1/p; never above W_p
    max_sliced     the largest one-dimensional W_p found over directions; a lower bound on max-sliced W_p and so on W_p
    sinkhorn       entropic transport, with its plan rounded to a feasible one: an upper bound on W_p; the dual
                   potentials give the lower bound in `settings`
    bures          between Gaussians, in closed form

On the line both samples are sorted, and W_pᵖ = Σ Δu |xᵢ − yⱼ|ᵖ is a sum over the intervals of u on which neither
empirical quantile function jumps. Without weights the intervals and the indices i, j are the same for every row of a
batch, so only the two sorts depend on the data. Gradients pass through the sorted values and weights; where the order
is not unique, they are one subgradient.

Sources: Peyré and Cuturi 2019, remark 2.30; Bonneel et al. 2015 (sliced); Deshpande et al. 2019 (max-sliced); Cuturi
    2013 and
Altschuler et al. 2017 (Sinkhorn, rounding); Dowson and Landau 1982 (Gaussians).
"""

from __future__ import annotations

__all__ = ["assignment", "bures", "costs_along"]

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import scipy  # imports its parts when they are first used
import torch
from torch import Tensor
from torch.nn.functional import normalize

from latentia.divergences._integrals import exactly
from latentia.errors import DataError, UnsupportedError
from latentia.estimate import Estimate
from latentia.integration import RunningMean

LARGEST_ASSIGNMENT = 2000
_LARGEST_PROGRAM = 250_000
_BLOCK = 2**15  # numbers, 256 KiB in float64
_PROJECTED = 2**22  # numbers to project at a time

Sample = Tensor | np.ndarray


def name_of(order: int) -> str:
    """The name of W_order in estimates.

    Raises:
        ValueError: order is not 1 or 2.
    """
    if order not in (1, 2):
        raise ValueError(f"order is {order}; it must be 1 or 2")
    return f"wasserstein-{order}"


def samples(
    x: Sample, y: Sample, order: int = 1, x_weights: Sample | None = None, y_weights: Sample | None = None
) -> Tensor:
    """W_order between empirical distributions on the line.

    Args:
        x: one sample in each row, (..., n), numbers of any type.
        y: (..., m), with leading dimensions that broadcast with those of `x`; m may differ from n.
        order: 1 or 2.
        x_weights: weights that broadcast to `x`, at least 0, normalized here; equal if not given.
        y_weights: likewise for `y`.

    Returns:
        Distances (...); the gradient at distance 0 is 0. The type is the wider of the floating types of x and y,
        float32 at least; float64 if both hold integers or booleans.

    Raises:
        DataError: empty samples, values or weights that are not finite, negative weights, weights that are all 0, or
            shapes that do not broadcast.
    """
    name_of(order)
    x, y = _promoted(x, y)
    if x.dim() == 0 or y.dim() == 0 or x.shape[-1] == 0 or y.shape[-1] == 0:
        raise DataError(f"samples must not be empty; given shapes {tuple(x.shape)} and {tuple(y.shape)}")
    try:
        torch.broadcast_shapes(x.shape[:-1], y.shape[:-1])
    except RuntimeError:
        raise DataError(
            f"batches of samples must broadcast; given shapes {tuple(x.shape)} and {tuple(y.shape)}"
        ) from None
    if x_weights is None and y_weights is None:
        cost = _unweighted(x, y, order)
    else:
        cost = _weighted(x, y, order, x_weights, y_weights)
    return cost if order == 1 else _root(cost)


def _promoted(*values: Sample) -> tuple[Tensor, ...]:
    """Tensors of one floating type: the widest of the given ones, float32 at least, float64 if none is floating."""
    tensors = [real_tensor(value, "samples") for value in values]
    floating = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
    dtype = torch.float32 if floating else torch.float64
    for other in floating:
        dtype = torch.promote_types(dtype, other)
    return tuple(tensor.to(dtype) for tensor in tensors)


def _root(cost: Tensor) -> Tensor:
    """√cost, whose gradient is 0, and not infinite, at 0."""
    positive = cost > 0
    return torch.where(positive, torch.where(positive, cost, torch.ones_like(cost)).sqrt(), torch.zeros_like(cost))


def _power(difference: Any, order: int) -> Any:
    return abs(difference) if order == 1 else difference * difference


def _unweighted(x: Tensor, y: Tensor, order: int) -> Tensor:
    tracked = torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)
    if x.device.type == "cpu" and not tracked:
        return torch.as_tensor(_in_arrays(x.detach().numpy(), y.detach().numpy(), order))
    xs, ys = x.sort(-1).values, y.sort(-1).values
    _check_ends(xs, ys, torch.isfinite)
    return _between_sorted(xs, ys, order, lambda lengths: torch.from_numpy(lengths).to(xs))


def _in_arrays(x: np.ndarray, y: np.ndarray, order: int) -> np.ndarray:
    """The same without gradients. numpy sorts in a third of the time of torch, which sorts the indices too.

    Rows are sorted in blocks that fit the cache, which halves the time of one large pass.
    """
    lead = np.broadcast_shapes(x.shape[:-1], y.shape[:-1])
    rows = x.shape[:-1] == y.shape[:-1] == lead and len(lead) > 0
    step = max(1, _BLOCK // (x.shape[-1] + y.shape[-1])) if rows else 1
    x_rows, y_rows = (values.reshape(-1, values.shape[-1]) if rows else values[None] for values in (x, y))
    costs = []
    for start in range(0, max(1, len(x_rows)), step):
        xs, ys = (np.sort(values[start : start + step], axis=-1) for values in (x_rows, y_rows))
        _check_ends(xs, ys, np.isfinite)
        costs.append(_between_sorted(xs, ys, order, lambda lengths: lengths.astype(x.dtype)))
    return np.concatenate(costs).reshape(lead)


def _check_ends(xs: Any, ys: Any, is_finite: Callable[[Any], Any]) -> None:
    """After sorting, a value that is not finite is at an end (NaN at the last)."""
    for name, values in (("x", xs), ("y", ys)):
        if not bool((is_finite(values[..., 0]) & is_finite(values[..., -1])).all()):
            raise DataError(f"the sample {name} has values that are not finite (NaN or infinite)")


def _between_sorted(xs: Any, ys: Any, order: int, as_weights: Callable[[np.ndarray], Any]) -> Any:
    """W_order^order between sorted samples, for arrays and for tensors."""
    n, m = xs.shape[-1], ys.shape[-1]
    if n % m == 0 or m % n == 0:
        # Each point of the smaller sample is matched with the same number of points of the larger one.
        small = min(n, m)
        rows, columns = ((*values.shape[:-1], small, values.shape[-1] // small) for values in (xs, ys))
        return _power(xs.reshape(rows) - ys.reshape(columns), order).mean((-2, -1))
    i, j, lengths = _intervals(n, m)
    return (_power(xs[..., i] - ys[..., j], order) * as_weights(lengths)).sum(-1)


@lru_cache(maxsize=16)
def _intervals(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices into samples of n and m points, and lengths, of the intervals of u without a jump of either."""
    common = math.gcd(n, m)
    # In units of 1/lcm(n, m) the knots are integers, so that rounding neither loses nor doubles a knot.
    knots = np.union1d(np.arange(n + 1) * (m // common), np.arange(m + 1) * (n // common))
    return knots[:-1] // (m // common), knots[:-1] // (n // common), np.diff(knots) / knots[-1]


def _sorted_with_weights(values: Tensor, weights: Sample | None, name: str) -> tuple[Tensor, Tensor]:
    """Sorted values and the cumulative weights along them, ending in 1."""
    if not bool(torch.isfinite(values).all()):
        raise DataError(f"the sample {name} has values that are not finite (NaN or infinite)")
    ordered, order = values.sort(-1)
    weights = torch.ones_like(values) if weights is None else torch.as_tensor(weights).to(values)
    try:
        weights = weights.expand_as(values)
    except RuntimeError:
        raise DataError(
            f"the weights of the sample {name} have shape {tuple(weights.shape)}, the sample {tuple(values.shape)}; "
            "give one weight for each value"
        ) from None
    total = weights.sum(-1, keepdim=True)
    if not bool((torch.isfinite(weights) & (weights >= 0)).all() and (total > 0).all()):
        raise DataError(f"the weights of the sample {name} must be finite, at least 0 and not all 0")
    return ordered, (weights / total).gather(-1, order).cumsum(-1)


def _weighted(x: Tensor, y: Tensor, order: int, x_weights: Sample | None, y_weights: Sample | None) -> Tensor:
    lead = torch.broadcast_shapes(x.shape[:-1], y.shape[:-1])
    xs, x_knots = _sorted_with_weights(x.expand(*lead, -1), x_weights, "x")
    ys, y_knots = _sorted_with_weights(y.expand(*lead, -1), y_weights, "y")
    inner = torch.cat([x_knots[..., :-1], y_knots[..., :-1]], -1).sort(-1).values.clamp(0, 1)
    ends = inner.new_zeros(*lead, 1)
    knots = torch.cat([ends, inner, ends + 1], -1)
    lengths = knots.diff(dim=-1)
    middle = (knots[..., 1:] + knots[..., :-1]).detach() / 2
    i, j = (
        torch.searchsorted(cumulative.detach().contiguous(), middle).clamp(max=cumulative.shape[-1] - 1)
        for cumulative in (x_knots, y_knots)
    )
    return (_power(xs.gather(-1, i) - ys.gather(-1, j), order) * lengths).sum(-1)


def real_tensor(values: Any, name: str) -> Tensor:
    """Numbers as a tensor of their type.

    Raises:
        DataError: text, objects, complex numbers, or an array with masked values.
    """
    if np.ma.is_masked(values):
        raise DataError(f"{name} must be real numbers, and some of these are masked; leave these out")
    try:
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        kind = getattr(values, "dtype", type(values).__name__)
        raise DataError(f"{name} must be real numbers, and these are {kind}; give an array of floats") from None
    if tensor.is_complex() or tensor.layout != torch.strided:
        kind = "complex" if tensor.is_complex() else "sparse"
        raise DataError(f"{name} must be real numbers, and these are {kind}; give an array of floats")
    return tensor


def sample_of(values: Sample, name: str) -> Tensor:
    """A sample as float64 (n, d) on the CPU; (n,) becomes (n, 1).

    Raises:
        DataError: it is empty, not of that shape, or holds values that are not finite.
    """
    sample = real_tensor(values, f"the values of the sample {name}").detach().double().cpu()
    sample = sample[:, None] if sample.dim() == 1 else sample
    if sample.dim() != 2 or 0 in sample.shape:
        raise DataError(f"the sample {name} must be n >= 1 points, (n,) or (n, d); it has shape {tuple(sample.shape)}")
    bad = int((~torch.isfinite(sample)).any(-1).sum())
    if bad:
        raise DataError(f"the sample {name} has {bad} points of {len(sample)} that are not finite (NaN or infinite)")
    return sample


def _pair(x: Sample, y: Sample) -> tuple[Tensor, Tensor]:
    first, second = sample_of(x, "x"), sample_of(y, "y")
    if first.shape[1] != second.shape[1]:
        raise DataError(f"the samples lie in different dimensions: x in {first.shape[1]}, y in {second.shape[1]}")
    return first, second


def _probabilities(weights: Sample | None, n: int, name: str) -> Tensor:
    if weights is None:
        return torch.full((n,), 1 / n, dtype=torch.float64)
    given = real_tensor(weights, f"the weights of {name}").detach().double().cpu()
    if given.shape != (n,) or not bool(torch.isfinite(given).all()) or bool((given < 0).any()) or given.sum() <= 0:
        raise DataError(f"the weights of {name} must be {n} finite numbers, at least 0 and not all 0")
    return given / given.sum()


def _costs(x: Tensor, y: Tensor, order: int) -> Tensor:
    distance = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return distance if order == 1 else distance.square()


def assignment(
    x: Sample,
    y: Sample,
    order: int = 1,
    x_weights: Sample | None = None,
    y_weights: Sample | None = None,
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
    name = name_of(order)
    first, second = _pair(x, y)
    n, m = len(first), len(second)
    plain = n == m and x_weights is None and y_weights is None
    if (plain and n > LARGEST_ASSIGNMENT) or (not plain and n * m > _LARGEST_PROGRAM):
        raise UnsupportedError(
            f"exact assignment of {n} to {m} points is too large (at most {LARGEST_ASSIGNMENT} a side, or "
            f"n·m = {_LARGEST_PROGRAM} where sizes differ); use empirical.sliced, or empirical.sinkhorn to bound it"
        )
    cost = _costs(first, second, order)
    if not bool(torch.isfinite(cost).all()):
        raise UnsupportedError("the costs between samples overflow float64; rescale both samples")
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
        raise UnsupportedError(f"the linear program failed ({found.message}); use empirical.sinkhorn for bounds")
    settings = {"error": 1e-9 * max(1.0, cost.max().item())}
    return exactly(max(0.0, found.fun) ** (1 / order), name, n=n, unit="1", method="linear program", settings=settings)


def costs_along(x: Tensor, y: Tensor, directions: Tensor, order: int) -> Tensor:
    """One-dimensional W_order^order of samples (n, d) and (m, d) along unit directions (L, d): (L,)."""
    step = max(1, _PROJECTED // (len(x) + len(y)))
    parts = [
        samples((x @ some.T).T.contiguous(), (y @ some.T).T.contiguous(), order) ** order
        for some in directions.split(step)
    ]
    return torch.cat(parts)


def sliced(x: Sample, y: Sample, order: int = 1, *, projections: int = 256, seed: int = 0) -> Estimate:
    """Sliced W_order: (mean over random directions of W_order^order)^(1/order), with its standard error."""
    name = "sliced " + name_of(order)
    first, second = _pair(x, y)
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(projections, first.shape[1], generator=generator, dtype=torch.float64)
    mean = RunningMean().add(costs_along(first, second, normalize(directions, dim=-1), order))
    value = mean.mean.item() ** (1 / order)
    stderr = mean.stderr.item() if order == 1 else mean.stderr.item() / (2 * value) if value > 0 else 0.0
    settings = {"projections": projections, "seed": seed}
    return Estimate(value, name, stderr, len(first), "1", method="random projections", settings=settings)


def max_sliced(
    x: Sample,
    y: Sample,
    order: int = 1,
    *,
    starts: int = 16,
    steps: int = 100,
    seed: int = 0,
) -> Estimate:
    """The largest W_order along one direction that gradient ascent finds: a lower bound on max-sliced W_order."""
    name = "max-sliced " + name_of(order)
    first, second = _pair(x, y)
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(starts, first.shape[1], generator=generator, dtype=torch.float64)
    directions[0] = first.mean(0) - second.mean(0) + 1e-9 * directions[0]
    directions = normalize(directions, dim=-1).requires_grad_()
    optimizer = torch.optim.Adam([directions], lr=0.1)
    best = 0.0
    for step in range(steps + 1):
        with torch.enable_grad():
            costs = costs_along(first, second, normalize(directions, dim=-1), order)
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
    x: Sample,
    y: Sample,
    order: int = 1,
    *,
    epsilon: float = 0.02,
    iterations: int = 500,
    tolerance: float = 1e-6,
) -> Estimate:
    """Bounds on W_order by entropic transport: the cost of a feasible plan above, the dual value below.

    Args:
        x: (n,) or (n, d), equally weighted.
        y: (m,) or (m, d).
        order: 1 or 2.
        epsilon: strength of the entropy, relative to the mean cost. Smaller is tighter and slower.
        iterations: the largest number of sweeps.
        tolerance: the error of the plan's margins (total variation) at which to stop.

    Returns:
        An upper bound on W_order; `settings` has the lower one in `"lower bound"` and the number of sweeps in
        `"iterations"`.
    """
    name = name_of(order)
    first, second = _pair(x, y)
    n, m = len(first), len(second)
    if n * m > 2**26:
        raise UnsupportedError(
            f"sinkhorn needs the table of {n} × {m} costs, more than 2^26 entries; use empirical.sliced"
        )
    cost = _costs(first, second, order)
    scale = epsilon * max(cost.mean().item(), 1e-300)
    log_a, log_b = -math.log(n), -math.log(m)
    f, g = torch.zeros(n, dtype=torch.float64), torch.zeros(m, dtype=torch.float64)
    done = 0
    for done in range(1, iterations + 1):
        f = -scale * torch.logsumexp((g - cost) / scale + log_b, 1)
        # After the next line the columns are right, so the error of the rows is that of the plan.
        g = -scale * torch.logsumexp((f[:, None] - cost) / scale + log_a, 0)
        if done % 10 == 0 or done == iterations:
            plan = ((f[:, None] + g - cost) / scale + log_a + log_b).exp()
            if (plan.sum(1) - 1 / n).abs().sum().item() < 2 * tolerance:
                break
    plan = ((f[:, None] + g - cost) / scale + log_a + log_b).exp()
    # Round to a feasible plan: shrink the rows and columns that are too heavy, and spread the missing mass.
    plan = plan * (1 / n / plan.sum(1)).clamp(max=1)[:, None]
    plan = plan * (1 / m / plan.sum(0)).clamp(max=1)
    rows, columns = 1 / n - plan.sum(1), 1 / m - plan.sum(0)
    missing = rows.sum()
    upper = (plan * cost).sum() + (rows @ cost @ columns / missing if missing > 1e-300 else 0.0)
    lower = f.mean() + (cost - f[:, None]).amin(0).mean()  # with the best g for this f, the pair is feasible
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


def bures(shift: Tensor, first: Tensor, second: Tensor) -> float:
    """W₂² between Gaussians, |δ|² + tr(A + B − 2 (A^½ B A^½)^½), from factors of their covariances.

    The trace of the root is the sum of the singular values of LᵀM for A = L Lᵀ and B = M Mᵀ, so no condition number is
    squared. With features of images it is the Fréchet distance of Heusel et al. 2017.

    Args:
        shift: difference of the means, (d,).
        first: L, (d, r) for any r.
        second: M, (d, s).
    """
    cross = torch.linalg.svdvals(first.T @ second).sum()
    spread = first.square().sum() + second.square().sum() - 2 * cross
    return (shift.square().sum() + spread.clamp_min(0)).item()


def fitted_gaussians(x: Sample, y: Sample) -> Estimate:
    """W₂ between the Gaussians with the samples' means and covariances: a lower bound on W₂ between the samples.

    It is zero for different samples with equal moments. Source: Gelbrich 1990.
    """
    first, second = _pair(x, y)
    # R of a QR decomposition has RᵀR = XᵀX, so that no covariance is formed.
    factors = [torch.linalg.qr(part - part.mean(0), mode="r").R.T / math.sqrt(len(part)) for part in (first, second)]
    value = math.sqrt(bures(first.mean(0) - second.mean(0), *factors))
    return Estimate(value, "wasserstein-2", n=len(first), unit="1", kind="lower bound", method="fitted gaussians")
