"""Attacks on what is built on log p(x), mutual information and gaps, and on the divergences between distributions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import optimize, stats
from scipy.special import betaln, digamma, gammaln, logsumexp
from torch import Tensor
from torch import distributions as td

from attack_case import (
    DOUBLE,
    Answer,
    Array,
    Case,
    LatentModel,
    Mixture,
    attack,
    distances,
    evaluate_gaps,
    exact_posterior,
    gaussian,
    log_uniform,
    mutual_information,
    pick,
    rotation,
    standard,
    tensor,
)
from attack_oracles import around, log_integral, log_normal

TOLERANCE = 0.01


# --- mutual information ---------------------------------------------------------------------------------------------


@attack("mutual-information")
def information(rng: np.random.Generator) -> Case:
    """Images whose posteriors are equal Gaussians along a line: one, equal ones, near and far ones; any prior scale."""
    d, count = int(rng.integers(1, 3)), int(pick(rng, 1, 2, 4, 12))
    spread, prior_scale = log_uniform(rng, 1e-3, 0.5), float(pick(rng, 1, 1, 1, 100, 0.01))
    distance = pick(rng, 0.0, log_uniform(rng, 0.1, 30), 3 / spread)
    place = np.sort(rng.normal(size=count)) * min(distance * spread, 3)  # in units of the prior's scale
    direction, offset = rotation(rng, d)[0], rng.normal(size=d) * pick(rng, 0, 0.5)
    mean = offset + place[:, None] * direction
    noise = spread / math.sqrt(1 - spread**2)
    x = mean * (1 + noise**2) * prior_scale  # the posterior's mean is x/(1 + noise²)
    # KL(N(mᵢ, s²) ‖ mixture) depends on the line alone; the rate is each posterior's KL to the prior.
    edges = np.unique(np.concatenate([around(float(p), spread, 40.0, 80) for p in place]))
    rate = float(np.mean(0.5 * (d * (spread**2 - 1 - math.log(spread**2)) + np.square(mean).sum(-1))))
    parts, error = [], 1e-9
    for p in place:

        def log_f(z: Array, p: float = float(p)) -> Array:
            mixture = logsumexp(log_normal(z, place, spread) - math.log(count), axis=-1)
            return _log_excess(log_normal(z[:, 0], p, spread), mixture)

        value, e = log_integral(log_f, [edges])
        parts.append(math.exp(value))
        error += e
    truth = {"mutual_information": float(np.mean(parts))}
    truth["aggregate_posterior_kl"] = rate - truth["mutual_information"]
    model = LatentModel(
        gaussian(lambda z: z, noise * prior_scale),
        td.Independent(td.Normal(torch.zeros(d, dtype=DOUBLE), torch.full((d,), prior_scale, dtype=DOUBLE)), 1),
    )

    def ask(seconds: float) -> list[Answer]:
        posterior = exact_posterior(model, tensor(x), TOLERANCE, require=False, seconds=seconds)
        answers = []
        for estimate in mutual_information(posterior, tensor(x)):
            kind = "random" if estimate.stderr else estimate.kind
            goal = truth[estimate.name]
            claim = estimate.error
            answers.append(Answer(estimate.name, estimate.value, claim, goal - error, goal + error, 0.1, kind))
            if estimate.name == "mutual_information":
                most = math.log(count) + 1e-9
                answers.append(Answer("0 <= I <= log N", estimate.value, claim, -1e-9, most, 0.1, kind))
        return answers

    return Case(ask, True, f"d={d} N={count} width={spread:.1e} prior scale={prior_scale} apart={distance:.1f} widths")


def _log_excess(log_p: Array, log_q: Array) -> Array:
    """log of p log(p/q) − p + q, which integrates to KL(p, q) and is nowhere negative."""
    with np.errstate(all="ignore"):
        ratio = log_p - log_q
        small = log_p + 2 * np.log(np.abs(ratio)) + np.log(0.5 - ratio / 6)
        middle = log_p + np.log(ratio + np.expm1(-ratio))
        large = log_q + np.log1p((ratio - 1) * np.exp(ratio))  # p far below q
        result = np.where(np.abs(ratio) < 1e-3, small, np.where(ratio < -30, large, middle))
        result = np.where(np.isneginf(log_p), log_q, result)
    # log q overflows only where p is nothing; infinite divergences are closed forms.
    return np.nan_to_num(result, nan=-np.inf, neginf=-np.inf, posinf=-np.inf)


# --- gaps -----------------------------------------------------------------------------------------------------------


def _encoder(place: Array, scale: Array) -> Any:
    """An encoder that knows the order of its images: it gives N(place, scale²) whatever they are."""
    m, s = tensor(place), tensor(scale)

    def encoder(x: Tensor) -> td.Distribution:
        return td.Independent(td.Normal(m[: len(x)], s[: len(x)]), 1)

    return encoder


def _gap_answers(gaps: Any, truth: list[dict[str, tuple[float, float]]]) -> list[Answer]:
    """Each gap beside its truth, the sum beside the total, and none below zero."""
    answers = []
    kind = gaps.posterior.likelihood.kind
    for row, goals in enumerate(truth):
        named = {
            "total": gaps.inference[row],
            "approximation": gaps.approximation[row],
            "amortization": gaps.amortization[row],
        }
        for name, value in named.items():
            low, high = goals.get(name, (0.0, math.inf))
            number = float(value)
            # The best q is searched for until a step gains less than 1e-5 nats.
            claim = float(gaps.errors.get("inference" if name == "total" else name)[row]) + 1e-3 * (name != "total")
            answers.append(
                Answer(f"{name} of image {row}", None if math.isnan(number) else number, claim, low, high, 0.1, kind)
            )
        rest = float(named["approximation"] + named["amortization"] - named["total"])
        if not math.isnan(rest):
            answers.append(Answer(f"sum of image {row}", rest, 1e-8, 0.0, 0.0, 0.1, kind))
    return answers


@attack("gaps-linear")
def gaps_linear(rng: np.random.Generator) -> Case:
    """Linear-Gaussian models with a wrong diagonal encoder: all three gaps are closed forms."""
    d, pixels = int(rng.integers(1, 4)), int(rng.integers(2, 6))
    noise = log_uniform(rng, 0.05, 1)
    weight = rng.normal(size=(pixels, d))
    x = rng.normal(size=(2, d)) @ weight.T + noise * rng.normal(size=(2, pixels))
    precision = np.eye(d) + weight.T @ weight / noise**2
    covariance = np.linalg.inv(precision)
    exact = x @ weight @ covariance / noise**2
    factor = rng.uniform(0.5, 2, size=(2, d))
    scale = np.sqrt(1 / np.diag(precision)) * factor
    place = exact + rng.normal(size=(2, d)) * scale * pick(rng, 0.3, 1, 3)
    least = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
    truth = []
    for m, s, e in zip(place, scale, exact, strict=True):
        total = 0.5 * (
            np.trace(precision @ np.diag(s**2))
            - d
            + (m - e) @ precision @ (m - e)
            - np.linalg.slogdet(precision)[1]
            - np.log(s**2).sum()
        )
        numbers = {"total": float(total), "approximation": float(least), "amortization": float(total - least)}
        truth.append({name: (v - 1e-8, v + 1e-8) for name, v in numbers.items()})
    w = tensor(weight)
    model = LatentModel(gaussian(lambda z: z @ w.T, noise), standard(d), _encoder(place, scale))

    def ask(seconds: float) -> list[Answer]:
        return _gap_answers(evaluate_gaps(model, tensor(x), TOLERANCE, require=False, seconds=seconds), truth)

    return Case(ask, d < 3 or noise > 0.2, f"d={d} noise={noise:.2f}")


@attack("gaps-modes")
def gaps_modes(rng: np.random.Generator) -> Case:
    """Posteriors of two modes, or of a wave's many, on the line: the best Gaussian is searched for from everywhere."""
    kind, noise = pick(rng, "square", "absolute", "wave"), log_uniform(rng, 0.02, 0.5)
    k = rng.uniform(3, 20)
    mean: Any = {
        "square": lambda z, _: z * z,
        "absolute": lambda z, _: abs(z),
        "wave": lambda z, sin: sin(k * z),
    }[kind]
    x = float(mean(np.array(rng.uniform(0.5, 2)), np.sin)) + noise * rng.normal()
    place, scale = pick(rng, 0.0, 1.0, rng.normal()), log_uniform(rng, 0.01, 1)

    def log_joint(z: Array) -> Array:
        return log_normal(z, 0.0, 1.0) + log_normal(x, mean(z, np.sin), noise)

    edges = np.linspace(-12, 12, 961)
    log_p, error = log_integral(lambda z: log_joint(z[:, 0]), [edges])
    unit, weight = np.polynomial.legendre.leggauss(24)
    panel = np.linspace(-9, 9, 37)
    nodes = (panel[:-1, None] + np.diff(panel)[:, None] * (unit + 1) / 2).ravel()
    share = (np.diff(panel)[:, None] * weight / 2).ravel() * np.exp(log_normal(nodes, 0.0, 1.0))

    def gap(m: float, s: float) -> float:
        """log p(x) less the bound of N(m, s²), by panels in its own frame."""
        return float(log_p - share @ (log_joint(m + s * nodes)) - math.log(s) - 0.5 * math.log(2 * math.pi * math.e))

    modes = np.linspace(-4, 4, 321)
    height = log_joint(modes)
    tops = modes[1:-1][(height[1:-1] >= height[:-2]) & (height[1:-1] >= height[2:])]
    tops = tops[np.argsort(-log_joint(tops))][:4]
    starts = [(m, s) for m in [*tops, 0.0] for s in (0.3 * noise, noise, 0.5)]
    best = min(
        optimize.minimize(lambda v: gap(v[0], math.exp(v[1])), [m, math.log(s)], method="Nelder-Mead").fun
        for m, s in starts
    )
    total = gap(float(place), scale)
    # A local climb may stop at a lower mode; its gap is then larger than the best, which the claim does not cover.
    truth = [
        {
            "total": (total - error - 1e-5, total + error + 1e-5),
            "approximation": (best - error - 1e-4, best + error + 1e-4),
            "amortization": (total - best - 1e-4, total - best + 1e-4),
        }
    ]
    encoder = _encoder(np.array([[float(place)]]), np.array([[scale]]))
    model = LatentModel(gaussian(lambda z: mean(z, torch.sin), noise), standard(1), encoder)

    def ask(seconds: float) -> list[Answer]:
        return _gap_answers(evaluate_gaps(model, tensor([[x]]), TOLERANCE, require=False, seconds=seconds), truth)

    return Case(ask, True, f"{kind} noise={noise:.2f} q=N({place:.1f},{scale:.2f}²)")


# --- divergences ----------------------------------------------------------------------------------------------------


class Line:
    """A distribution on the line: torch's for latentia, scipy's for the oracle, and a map of R onto its support."""

    def __init__(self, name: str, torch: td.Distribution, frozen: Any, support: tuple[float, float], center: float):
        self.name, self.torch, self.frozen, self.support, self.center = name, torch, frozen, support, center

    def logpdf(self, z: Array) -> Array:
        return self.frozen.logpdf(z)


class _Mixed:
    """A scipy mixture of two."""

    def __init__(self, weight: float, first: Any, second: Any):
        self.weight, self.first, self.second = weight, first, second

    def logpdf(self, z: Array) -> Array:
        return np.logaddexp(
            math.log1p(-self.weight) + self.first.logpdf(z), math.log(self.weight) + self.second.logpdf(z)
        )

    def cdf(self, z: Array) -> Array:
        return (1 - self.weight) * self.first.cdf(z) + self.weight * self.second.cdf(z)

    def sf(self, z: Array) -> Array:
        return (1 - self.weight) * self.first.sf(z) + self.weight * self.second.sf(z)


def _line(rng: np.random.Generator, kind: str) -> tuple[Line, dict[str, Any]]:
    f = lambda v: torch.tensor(float(v), dtype=DOUBLE)  # noqa: E731
    m, s = rng.normal() * pick(rng, 0.1, 1, 3), log_uniform(rng, 0.2, 5)
    a, b = log_uniform(rng, 0.3, 6, 2)
    nu = float(pick(rng, 1.01, 1.5, 2.01, 2.5, 4, 10))
    real, positive = (-math.inf, math.inf), (0.0, math.inf)
    t = min(s, 1.5)
    own = {"m": m, "s": s, "a": a, "b": b, "nu": nu}
    made = {
        "normal": lambda: (td.Normal(f(m), f(s)), stats.norm(m, s), real),
        "laplace": lambda: (td.Laplace(f(m), f(s)), stats.laplace(m, s), real),
        "cauchy": lambda: (td.Cauchy(f(m), f(s)), stats.cauchy(m, s), real),
        "student": lambda: (td.StudentT(f(nu), f(m), f(s)), stats.t(nu, m, s), real),
        "gumbel": lambda: (td.Gumbel(f(m), f(s)), stats.gumbel_r(m, s), real),
        "gamma": lambda: (td.Gamma(f(a), f(b)), stats.gamma(a, scale=1 / b), positive),
        "exponential": lambda: (td.Exponential(f(b)), stats.expon(scale=1 / b), positive),
        "log normal": lambda: (td.LogNormal(f(m), f(t)), stats.lognorm(t, scale=math.exp(m)), positive),
        "beta": lambda: (td.Beta(f(a), f(b)), stats.beta(a, b), (0.0, 1.0)),
    }  # fmt: skip
    if kind == "rare":  # a rare far component, which sampling seldom meets
        weight, far = log_uniform(rng, 1e-6, 0.1), rng.uniform(5, 60)
        mixture = Mixture(tensor([1 - weight, weight]), [td.Normal(f(0), f(1)), td.Normal(f(far), f(s))])
        own |= {"weight": weight, "far": far}
        return Line(
            f"rare({weight:.1e} at {far:.1f}±{s:.2f})",
            mixture,
            _Mixed(weight, stats.norm(0, 1), stats.norm(far, s)),
            real,
            0.0,
        ), own
    distribution, frozen, support = made[kind]()
    numbers = {
        "student": f"nu={nu},{m:.2f},{s:.2f}",
        "gamma": f"{a:.2f},{b:.2f}",
        "beta": f"{a:.2f},{b:.2f}",
        "exponential": f"{b:.2f}",
    }.get(kind, f"{m:.2f},{s:.2f}")
    return Line(f"{kind}({numbers})", distribution, frozen, support, float(frozen.median())), own


PAIRS = (
    ("normal", "normal"), ("normal", "laplace"), ("student", "normal"), ("normal", "student"), ("cauchy", "cauchy"),
    ("student", "cauchy"), ("laplace", "laplace"), ("gumbel", "normal"), ("rare", "normal"), ("normal", "rare"),
    ("gamma", "gamma"), ("exponential", "gamma"), ("exponential", "exponential"), ("log normal", "log normal"),
    ("log normal", "gamma"), ("gamma", "log normal"), ("beta", "beta"),
)  # fmt: skip


def _known_kl(first: str, second: str, p: dict[str, Any], q: dict[str, Any]) -> float | None:
    """KL in closed form, where there is one; +∞ where a tail makes it so."""
    if first == second == "normal" or first == second == "log normal":
        s, t = (min(v["s"], 1.5) if first == "log normal" else v["s"] for v in (p, q))
        return math.log(t / s) + (s**2 + (p["m"] - q["m"]) ** 2) / (2 * t**2) - 0.5
    if (first, second) == ("student", "normal"):
        nu = p["nu"]
        if nu <= 2:
            return math.inf
        log_norm = gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * math.log(nu * math.pi) - math.log(p["s"])
        minus_entropy = log_norm - (nu + 1) / 2 * (digamma((nu + 1) / 2) - digamma(nu / 2))
        second_moment = p["s"] ** 2 * nu / (nu - 2) + (p["m"] - q["m"]) ** 2
        return minus_entropy + 0.5 * math.log(2 * math.pi * q["s"] ** 2) + second_moment / (2 * q["s"] ** 2)
    if first == second == "cauchy":
        return math.log(((p["s"] + q["s"]) ** 2 + (p["m"] - q["m"]) ** 2) / (4 * p["s"] * q["s"]))
    if first == second == "laplace":
        gap = abs(p["m"] - q["m"])
        return math.log(q["s"] / p["s"]) + (p["s"] * math.exp(-gap / p["s"]) + gap) / q["s"] - 1
    if {first, second} <= {"gamma", "exponential"}:
        a, c = (1.0 if kind == "exponential" else v["a"] for kind, v in ((first, p), (second, q)))
        return (
            (a - c) * digamma(a) - gammaln(a) + gammaln(c) + c * math.log(p["b"] / q["b"]) + a * (q["b"] / p["b"] - 1)
        )
    if first == second == "beta":
        a, b, c, d = p["a"], p["b"], q["a"], q["b"]
        both = digamma(a + b)
        return betaln(c, d) - betaln(a, b) + (a - c) * (digamma(a) - both) + (b - d) * (digamma(b) - both)
    if first == "log normal" and second == "gamma":
        s = min(p["s"], 1.5)
        log_p = -p["m"] - 0.5 * math.log(2 * math.pi * math.e) - math.log(s)
        mean = math.exp(p["m"] + s**2 / 2)
        return log_p - q["a"] * math.log(q["b"]) + gammaln(q["a"]) - (q["a"] - 1) * p["m"] + q["b"] * mean
    if (first, second) == ("normal", "gumbel"):
        s, t, gap = p["s"], q["s"], (p["m"] - q["m"]) / q["s"]
        return -0.5 * math.log(2 * math.pi * math.e) + math.log(t / s) + gap + math.exp(-gap + 0.5 * (s / t) ** 2)
    if first in ("student", "cauchy") and second in ("normal", "rare"):
        return math.inf
    return None


def _known_w1(first: str, second: str, p: dict[str, Any], q: dict[str, Any]) -> float | None:
    """W₁ where panels cannot give it: shifts, and infinite ones."""
    heavy = {first, second} & {"cauchy"}
    if heavy and first == second and p["s"] == q["s"]:
        return abs(p["m"] - q["m"])
    return math.inf if heavy else None


def _panels(p: Line, q: Line, far: list[float]) -> tuple[Callable[[Array], tuple[Array, Array]], list[Array]]:
    """A map t → (z, log dz/dt) of R onto the support, by sinh, exp or the logistic function, and edges in t."""
    t = np.concatenate([np.linspace(-700, 700, 700), np.linspace(-12, 12, 600)])
    low, high = p.support
    if math.isfinite(high):
        return (lambda t: (1 / (1 + np.exp(-t)), -np.logaddexp(0, t) - np.logaddexp(0, -t))), [t]
    if math.isfinite(low):
        return (lambda t: (np.exp(t), t)), [t]
    places = [float(np.arcsinh(2 * (c - p.center))) for c in (p.center, q.center, *far)]
    t = np.concatenate([t[np.abs(t) < 340], *[around(c, 0.05) for c in places]])  # z² stays finite
    return (lambda t: (p.center + 0.5 * np.sinh(t), np.logaddexp(t, -t) - math.log(4))), [t]


@attack("divergences")
def divergences(rng: np.random.Generator) -> Case:
    """Every row of the table of two distributions on the line: closed forms, panels in a variable that tames tails."""
    first, second = pick(rng, *PAIRS)
    (p, own), (q, other) = _line(rng, first), _line(rng, second)
    mapped, edges = _panels(p, q, [v["far"] for v in (own, other) if "far" in v])
    beta = first == "beta"

    def densities(t: Array) -> tuple[Array, Array, Array]:
        """log p, log q and log dz/dt at t."""
        t = t[:, 0]
        z, jacobian = mapped(t)
        if beta:
            low, high = -np.logaddexp(0, -t), -np.logaddexp(0, t)
            return (
                (own["a"] - 1) * low + (own["b"] - 1) * high - betaln(own["a"], own["b"]),
                (other["a"] - 1) * low + (other["b"] - 1) * high - betaln(other["a"], other["b"]),
                jacobian,
            )
        with np.errstate(all="ignore"):
            return (
                np.nan_to_num(p.logpdf(z), nan=-np.inf, posinf=700, neginf=-np.inf),
                np.nan_to_num(q.logpdf(z), nan=-np.inf, posinf=700, neginf=-np.inf),
                jacobian,
            )

    def kl(t: Array, swap: bool) -> Array:
        a, b, jacobian = densities(t)
        return _log_excess(b, a) + jacobian if swap else _log_excess(a, b) + jacobian

    def js(t: Array) -> Array:
        a, b, jacobian = densities(t)
        m = np.logaddexp(a, b) - math.log(2)
        return np.logaddexp(_log_excess(a, m), _log_excess(b, m)) - math.log(2) + jacobian

    def tv(t: Array) -> Array:
        a, b, jacobian = densities(t)
        high, low = np.maximum(a, b), np.minimum(a, b)
        with np.errstate(all="ignore"):
            return np.nan_to_num(
                high + np.log(-np.expm1(low - high)) - math.log(2) + jacobian, nan=-np.inf, neginf=-np.inf
            )

    def w1(t: Array) -> Array:
        z, jacobian = mapped(t[:, 0])
        with np.errstate(all="ignore"):
            upper = np.abs(p.frozen.sf(z) - q.frozen.sf(z))
            lower = np.abs(p.frozen.cdf(z) - q.frozen.cdf(z))
            gap = np.where(z > p.center, upper, lower)
            return np.nan_to_num(np.log(gap) + jacobian, nan=-np.inf, neginf=-np.inf)

    truth: dict[str, tuple[float, float]] = {}

    def record(name: str, known: float | None, integrand: Any) -> None:
        if known is not None:
            truth[name] = (known, 1e-9 * (1 + abs(known)) if math.isfinite(known) else 0.0)
            return
        value, error = log_integral(integrand, edges, 1e-9)
        if math.isfinite(value):
            truth[name] = (math.exp(value), (error + 1e-7) * math.exp(value) + 1e-9)

    record("kl(P, Q)", _known_kl(first, second, own, other), lambda t: kl(t, False))
    record("kl(Q, P)", _known_kl(second, first, other, own), lambda t: kl(t, True))
    record("jensen-shannon", None, js)
    record("total variation", None, tv)
    record("wasserstein-1", _known_w1(first, second, own, other), w1)
    if math.isfinite(truth.get("wasserstein-1", (math.inf, 0.0))[0]):
        # The panels end at `far`. Beyond it a tail z^−ν adds z S(z)/(ν − 1) on each side.
        far = 0.5 * math.sinh(min(edges[0].max(), 345.0))
        tails = [2 * far * side.frozen.sf(far) / (o["nu"] - 1) for side, o in ((p, own), (q, other))]
        value, error = truth["wasserstein-1"]
        truth["wasserstein-1"] = (value + abs(tails[0] - tails[1]), error)
    if first == second == "normal":
        truth["wasserstein-2"] = (math.hypot(own["m"] - other["m"], own["s"] - other["s"]), 1e-12)
    no_variance = any(k == "cauchy" or (k == "student" and v["nu"] <= 2) for k, v in ((first, own), (second, other)))
    if no_variance and first != second:
        truth["wasserstein-2"] = (math.inf, 0.0)

    def ask(_: float) -> list[Answer]:
        answers = []
        for row in distances(p.torch, q.torch, n=20_000, seed=int(own["m"] * 1e6) % 1000).estimates:
            if row.name not in truth:
                continue
            goal, error = truth[row.name]
            low, high = goal - error, goal + error
            low = -math.inf if row.kind == "lower bound" else low  # a bound is right on one side
            high = math.inf if row.kind == "upper bound" else high
            kind = row.kind if row.stderr is None else "random"
            claim = row.error + 5 * (row.stderr or 0.0)
            answers.append(Answer(f"{row.name} by {row.method}", row.value, claim, low, high, math.inf, kind))
        return answers

    return Case(ask, True, f"{p.name} | {q.name}")
