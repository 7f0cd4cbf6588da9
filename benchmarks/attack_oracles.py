"""Integrals that know nothing of latentia: what `attack.py` compares its answers with.

Three routes, each with a statement of its error: closed forms in 40 digits (mpmath), exact sums over the pieces of
a piecewise linear decoder (error functions), and adaptive Gauss-Legendre panels on the line and in the plane that
start from edges which the caller places at every feature of the integrand.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import mpmath
import numpy as np
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray
from scipy.special import log_ndtr, logsumexp

Array = NDArray[np.float64]

ORDERS = {1: 16, 2: 8}  # Gauss-Legendre nodes along each axis of a panel
POINTS_AT_ONCE = 200_000
MOST_PANELS = 60_000  # past it the error is what it is
RUGGED, DEPTH = 4.0, 25.0  # nats: a panel that varies by more and might come this near to the best one is split


def log_normal(x: Array | float, mean: Array | float, sd: Array | float) -> Array:
    """log N(x; mean, sd²), elementwise."""
    return -0.5 * np.square((np.asarray(x) - mean) / sd) - np.log(sd) - 0.5 * math.log(2 * math.pi)


def log_normal_between(a: Array | float, b: Array | float) -> Array:
    """log of Φ(b) − Φ(a) for a ≤ b, without cancellation in either tail."""
    a, b = np.broadcast_arrays(np.asarray(a, dtype=float), np.asarray(b, dtype=float))
    flip = a > 0
    a, b = np.where(flip, -b, a), np.where(flip, -a, b)
    with np.errstate(divide="ignore", invalid="ignore"):
        result = log_ndtr(b) + np.log(-np.expm1(log_ndtr(a) - log_ndtr(b)))
        narrow = (b - a) * (np.abs(a) + np.abs(b) + 1) < 1e-6  # then the density at the middle is exact enough
        result = np.where(narrow, log_normal((a + b) / 2, 0.0, 1.0) + np.log(b - a), result)
    return np.where(b > a, result, -np.inf)


def log_multivariate_normal(x: Array, mean: Array, parts: Sequence[Array], noise: float) -> float:
    """log N(x; mean, Σ A Aᵀ + noise² I), in 40 digits.

    Args:
        x: (P,).
        mean: (P,).
        parts: matrices A, (P, k).
        noise: standard deviation.
    """
    with mpmath.workdps(40):
        covariance = mpmath.eye(len(x)) * mpmath.mpf(float(noise)) ** 2
        for part in parts:
            a = mpmath.matrix(part.tolist())
            covariance += a * a.T
        lower = mpmath.cholesky(covariance)
        rest = mpmath.matrix([mpmath.mpf(float(u)) - mpmath.mpf(float(v)) for u, v in zip(x, mean, strict=True)])
        solved = mpmath.lu_solve(lower, rest)
        log_det = 2 * sum(mpmath.log(lower[i, i]) for i in range(len(x)))
        return float(-(sum(v * v for v in solved) + log_det + len(x) * mpmath.log(2 * mpmath.pi)) / 2)


def log_piecewise(
    breaks: Array,
    intercept: Array,
    slope: Array,
    scale: Array,
    x: Array,
    prior: tuple[float, float] = (0.0, 1.0),
    support: tuple[float, float] = (-math.inf, math.inf),
) -> float:
    """log ∫ N(z; m, τ²) Πⱼ N(xⱼ; αₖⱼ + βₖⱼ z, σₖⱼ²) dz, where k is the piece that z lies in.

    Args:
        breaks: ends between the pieces, rising, (K − 1,).
        intercept: α, (K, P).
        slope: β, (K, P).
        scale: σ, (K, P).
        x: (P,).
        prior: m and τ.
        support: between which the integral runs.
    """
    mean, sd = prior
    low = np.clip(np.concatenate([[-np.inf], breaks]), *support)
    high = np.clip(np.concatenate([breaks, [np.inf]]), *support)
    precision = sd**-2 + (slope / scale**2 * slope).sum(-1)
    center = (mean / sd**2 + (slope / scale**2 * (x - intercept)).sum(-1)) / precision
    peak = log_normal(center, mean, sd) + log_normal(x, intercept + slope * center[:, None], scale).sum(-1)
    root = np.sqrt(precision)
    mass = log_normal_between((low - center) * root, (high - center) * root)
    return float(logsumexp(peak + 0.5 * np.log(2 * math.pi / precision) + mass))


def relu_pieces(layers: Sequence[tuple[Array, Array]], leak: float, outer: float = 60.0) -> tuple[Array, Array, Array]:
    """Breaks, intercepts and slopes of a (leaky) ReLU network of one input: see `log_piecewise`.

    Args:
        layers: weight (out, in) and bias (out,) of each linear layer; an activation follows each but the last.
        leak: slope below zero.
        outer: kinks are found in ±outer; the first and the last piece go on beyond.
    """
    points = np.array([-outer, outer])
    for depth in range(1, len(layers)):
        value = _relu_forward(layers[:depth], leak, points)[0]
        left, right = value[:-1], value[1:]
        i, j = np.nonzero(left * right < 0)
        share = left[i, j] / (left[i, j] - right[i, j])
        points = np.unique(np.concatenate([points, points[i] + share * (points[i + 1] - points[i])]))
    value, slope = _relu_forward(layers, leak, (points[:-1] + points[1:]) / 2)
    return points[1:-1], value - slope * ((points[:-1] + points[1:]) / 2)[:, None], slope


def _relu_forward(layers: Sequence[tuple[Array, Array]], leak: float, z: Array) -> tuple[Array, Array]:
    """Numbers before the last layer's activation, and their derivatives, both (M, out)."""
    value, slope = z[:, None], np.ones((len(z), 1))
    for number, (weight, bias) in enumerate(layers):
        if number:
            gain = np.where(value > 0, 1.0, leak)
            value, slope = gain * value, gain * slope
        value, slope = value @ weight.T + bias, slope @ weight.T
    return value, slope


def around(place: float, scale: float, reach: float = 40.0, steps: int = 40) -> Array:
    """Edges at `place` and on both sides of it, from scale/4 out to reach · scale, dense at the middle."""
    steps_out = scale * np.geomspace(0.25, reach, steps)
    return np.concatenate([place - steps_out[::-1], [place], place + steps_out])


def log_integral(
    log_f: Callable[[Array], Array], edges: Sequence[Array], relative: float = 1e-10
) -> tuple[float, float]:
    """log ∫ exp log_f over a box, by panels that are halved until they agree with their halves.

    Args:
        log_f: points (M, d) → (M,), −inf where the integrand is zero.
        edges: for each axis, the ends of the first panels. They must be placed at jumps, and densely near features.
        relative: error wanted, as a share of the integral.

    Returns:
        The logarithm, and a bound on its error: the differences between the last panels and their halves, and the
        rounding of `log_f`. The halves are more accurate than that by orders of magnitude where f is smooth.
    """
    dimension = len(edges)
    nodes, weights = leggauss(ORDERS[dimension])
    inner = np.array(list(itertools.product((nodes + 1) / 2, repeat=dimension)))
    share = np.log([math.prod(w) for w in itertools.product(weights / 2, repeat=dimension)])
    corners = np.array(list(itertools.product((0.0, 0.5), repeat=dimension)))

    def panels(low: Array, side: Array) -> tuple[Array, Array, Array]:
        """Log integral, highest node and lowest node of each panel."""
        step = max(1, POINTS_AT_ONCE // len(inner))
        found = []
        for start in range(0, len(low), step):
            rows = slice(start, start + step)
            z = low[rows, None] + side[rows, None] * inner
            value = log_f(z.reshape(-1, dimension)).reshape(-1, len(inner))
            integral = logsumexp(value + share, axis=-1) + np.log(side[rows]).sum(-1)
            found.append((integral, value.max(-1), value.min(-1)))
        integral, top, bottom = (np.concatenate(part) for part in zip(*found, strict=True))
        return integral, top, bottom

    edges = [np.unique(axis) for axis in edges]
    low = np.array(list(itertools.product(*[axis[:-1] for axis in edges])))
    side = np.array(list(itertools.product(*[np.diff(axis) for axis in edges])))
    whole, _, _ = panels(low, side)
    done, errors, best, count = [-np.inf], [0.0], -np.inf, len(low)
    while len(low):
        parts_low = (low[:, None] + side[:, None] * corners).reshape(-1, dimension)
        parts_side = np.repeat(side / 2, len(corners), axis=0)
        parts, top, bottom = panels(parts_low, parts_side)
        top, bottom = top.reshape(-1, len(corners)).max(-1), bottom.reshape(-1, len(corners)).min(-1)
        fine = logsumexp(parts.reshape(-1, len(corners)), axis=-1)
        best = max(best, float(top.max()))
        total = logsumexp([*done, logsumexp(fine)])
        if total == -np.inf:
            return -math.inf, 0.0
        off = np.abs(np.exp(fine - total) - np.exp(whole - total))
        with np.errstate(invalid="ignore"):
            spread = top - np.maximum(bottom, top - 1e3)
            rugged = (spread > RUGGED) & (top + spread > best - DEPTH) & (top > best - 700)
        split = (off > relative / max(count, 100)) | rugged
        count += (len(corners) - 1) * int(split.sum())
        split &= (side / np.maximum(np.abs(low), 1e-300)).max(-1) > 1e-13
        if count > MOST_PANELS:
            split[:] = False
        done.append(float(logsumexp(fine[~split])) if (~split).any() else -np.inf)
        errors.append(float(off[~split].sum()))
        chosen = np.repeat(split, len(corners))
        low, side, whole = parts_low[chosen], parts_side[chosen], parts[chosen]
    return float(logsumexp(done)), sum(errors) + 4e-16 * abs(best) + 1e-13
