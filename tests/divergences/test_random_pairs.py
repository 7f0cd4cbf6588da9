"""Random pairs on the line: every method agrees with mpmath within the error that it states."""

import math
import random

import mpmath as mp
import pytest
import torch
from torch import distributions as td

from latentia.divergences import jensen_shannon, kl
from latentia.errors import UnsupportedError


def t(x):
    return torch.tensor(x, dtype=torch.float64)


class Side:
    """A distribution with its log-density in mpmath, its support, and a location and scale for the oracle's knots."""

    def __init__(self, made, log_density, support, location, scale):
        self.made, self.log_density, self.support = made, log_density, support
        self.location, self.scale = location, scale

    def at(self, x):
        if not self.support[0] < x < self.support[1]:
            return mp.mpf(0), -mp.inf
        log = self.log_density(x)
        return (mp.exp(log) if log > -3000 else mp.mpf(0)), log


def loc_scale(rng):
    return rng.uniform(-3, 3), math.exp(rng.uniform(-3, 3))


def normal(rng):
    m, s = loc_scale(rng)
    constant = mp.log(s) + mp.log(2 * mp.pi) / 2
    return Side(td.Normal(t(m), t(s)), lambda x: -(((x - m) / s) ** 2) / 2 - constant, (-mp.inf, mp.inf), m, s)


def laplace(rng):
    m, s = loc_scale(rng)
    return Side(td.Laplace(t(m), t(s)), lambda x: -abs(x - m) / s - mp.log(2 * s), (-mp.inf, mp.inf), m, s)


def student(rng):
    m, s = loc_scale(rng)
    v = mp.mpf(math.exp(rng.uniform(-0.5, 3)))
    constant = mp.loggamma((v + 1) / 2) - mp.loggamma(v / 2) - mp.log(v * mp.pi) / 2 - mp.log(s)
    made = td.StudentT(t(float(v)), t(m), t(s))
    return Side(made, lambda x: constant - (v + 1) / 2 * mp.log1p(((x - m) / s) ** 2 / v), (-mp.inf, mp.inf), m, s)


def gumbel(rng):
    m, s = loc_scale(rng)

    def log_density(x):
        z = (x - m) / s
        return -z - mp.exp(min(-z, mp.mpf(900))) - mp.log(s)

    return Side(td.Gumbel(t(m), t(s)), log_density, (-mp.inf, mp.inf), m, s)


def exponential(rng):
    r = math.exp(rng.uniform(-3, 3))
    return Side(td.Exponential(t(r)), lambda x: mp.log(r) - r * x, (0, mp.inf), 1 / r, 1 / r)


def gamma(rng):
    a, r = math.exp(rng.uniform(0, 5)), math.exp(rng.uniform(-3, 3))
    constant = a * mp.log(r) - mp.loggamma(a)
    made = td.Gamma(t(a), t(r))
    return Side(made, lambda x: constant + (a - 1) * mp.log(x) - r * x, (0, mp.inf), a / r, math.sqrt(a) / r)


def half_normal(rng):
    s = math.exp(rng.uniform(-3, 3))
    constant = mp.log(2 / mp.mpf(s)) - mp.log(2 * mp.pi) / 2
    return Side(td.HalfNormal(t(s)), lambda x: -((x / s) ** 2) / 2 + constant, (0, mp.inf), s, s)


def pair(rng):
    families = rng.choice([(normal, laplace, student, gumbel), (exponential, gamma, half_normal)])
    return rng.choice(families)(rng), rng.choice(families)(rng)


def kl_terms(a, log_a, b, log_b):
    return a * (log_a - log_b) if a > 0 else mp.mpf(0)


def jsd_terms(a, log_a, b, log_b):
    middle = (a + b) / 2
    return sum(part * mp.log(part / middle) / 2 for part in (a, b) if part > 0)


def oracle(terms, p, q):
    low, high = p.support
    knots = {side.location + k * side.scale for side in (p, q) for k in (-40, -12, -5, -2, -0.5, 0, 0.5, 2, 5, 12, 40)}
    inner = sorted(knot for knot in knots if low < knot < high)

    def integrand(x):
        return terms(*p.at(x), *q.at(x))

    pieces = [(integrand, [inner[0] if low == -mp.inf else low, *inner])]
    # Tails on a logarithmic scale, where a power becomes an exponential.
    sides = [(inner[-1], 1)] + [(inner[0], -1)] * (low == -mp.inf)
    for edge, sign in sides:
        pieces.append((lambda y, e=edge, s=sign: integrand(e + s * mp.expm1(y)) * mp.e**y, [0, 2, 6, 15, 40, 120, 400]))
    results = [mp.quad(function, points, error=True, maxdegree=6) for function, points in pieces]
    return float(sum(value for value, _ in results)), float(sum(error for _, error in results))


def check(seed):
    mp.mp.dps = 18
    p, q = pair(random.Random(seed))
    checked = 0
    for divergence, terms in ((kl, kl_terms), (jensen_shannon, jsd_terms)):
        found = {}
        for method in ("exact", "quadrature", "enclosure", "monte_carlo"):
            try:
                found[method] = getattr(divergence, method)(p.made, q.made)
            except UnsupportedError as reason:
                found[method] = reason
        served = [each for each in found.values() if not isinstance(each, UnsupportedError) and each.value < math.inf]
        truth, doubt = oracle(terms, p, q) if served else (0.0, 0.0)
        for each in served:
            allowed = each.error + 6 * (each.stderr or 0.0) + 10 * doubt + 1e-12 * max(1.0, abs(truth))
            assert abs(each.value - truth) <= allowed, (p.made, q.made, each, truth)
        checked += len(served)
    return checked


@pytest.mark.parametrize("seed", range(8))
def test_a_few_pairs(seed):
    assert check(seed) >= 2


@pytest.mark.slow
def test_many_pairs():
    assert sum(check(seed) for seed in range(100, 400)) > 1200
