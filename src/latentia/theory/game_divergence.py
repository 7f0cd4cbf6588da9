"""Chapter 3 of the sheet, 3d and 3e: what the generator minimizes, and three uniform distributions.

min_D C(D) = log 4 − 2 JSD(p_data, p_G)
"""

from __future__ import annotations

__all__ = ["sliding"]

import itertools
import math

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from latentia.distributions.mixtures import Mixture
from latentia.divergences import jensen_shannon, kl, wasserstein
from latentia.estimate import Estimate, exact
from latentia.integration import regular_grid
from latentia.objectives import Minimax, NonSaturating
from latentia.theory.instances import LOG_2, LOG_4, cost_of, generator_of, largest, pairs, random_gaussian, uniform
from latentia.theory.statement import Erratum, Relations, at_least, at_most, differ, equal, statement

# ── 3d: what the generator then minimizes ───────────────────────────────────────────────────────────────────────────


@statement(
    "3d",
    "At D* the cost is log 4 − 2 JSD(p_data, p_G): at most log 4, with equality only for p_G = p_data.",
    latex=r"\min_D C = -2\,\mathrm{JSD}(p_{data}, p_G) + \log 4, \quad p_G^* = p_{data}",
    source="sheet, 3d; Goodfellow et al. 2014, theorem 1",
)
def cost_at_the_best(seed: int) -> Relations:
    """Pairs on the line and in the plane; the two sides are separate integrals."""
    for name, p, q in pairs(seed):

        def best(x: Tensor, p: Distribution = p, q: Distribution = q) -> Tensor:
            return p.log_prob(x) - q.log_prob(x)

        divergence = jensen_shannon.quadrature(p, q)
        right = _identity(divergence)
        yield equal(cost_of(best, p, q, "C(D*)"), right, note=name)
        middle = Mixture(torch.tensor([0.5, 0.5], dtype=torch.float64), [p, q])
        from_p, from_q = kl.quadrature(p, middle), kl.quadrature(q, middle)
        error = {"error": (from_p.error + from_q.error) / 2}
        half = Estimate((from_p.value + from_q.value) / 2, "½ KL(p, M) + ½ KL(q, M)", settings=error)
        yield equal(half, divergence, note=f"{name}: JSD as the sheet defines it")
        same = cost_of(lambda x: torch.zeros_like(x), p, p, "C(½), p_G = p_data")
        yield equal(same, LOG_4, note=name)
        yield at_most(right, LOG_4, note=f"{name}: the generator can do no better than log 4")
        yield differ(right, LOG_4, note=f"{name}: and does worse, as p_G is not p_data")
    generator = generator_of(seed)
    first, second = random_gaussian(2, generator), random_gaussian(2, generator)
    cost = _cost_in_the_plane(first, second)
    yield equal(cost, _identity(jensen_shannon.quadrature(first, second)), note="plane")
    yield at_most(exact(cost.error, "error of C(D*)"), 1e-6, note="plane: halving the spacing")
    drawn = jensen_shannon.monte_carlo(first, second, n=50_000, seed=seed)
    yield equal(drawn, jensen_shannon.quadrature(first, second), note="plane, by Monte Carlo")


def _identity(divergence: Estimate) -> Estimate:
    settings = {"error": 2 * divergence.error}
    return Estimate(
        LOG_4 - 2 * divergence.value, "log 4 − 2 JSD", kind="numerical", method="quadrature", settings=settings
    )


def _cost_in_the_plane(p: MultivariateNormal, q: MultivariateNormal) -> Estimate:
    """C(D*) by the trapezoid rule; halving the spacing moves it by its error."""
    values = []
    for spacing in (0.12, 0.06):
        total = 0.0
        for x, log_weight in regular_grid((-14.0, -14.0), (14.0, 14.0), spacing).blocks():
            log_p, log_q = p.log_prob(x), q.log_prob(x)
            t, silent = log_p - log_q, torch.zeros(1, dtype=torch.float64)
            real, fake = (Minimax().discriminator(*pair) - LOG_2 for pair in ((t, silent), (silent, t)))
            total += ((log_p.exp() * real + log_q.exp() * fake) * log_weight.exp()).sum().item()
        values.append(total)
    error = {"error": 1e-10 + abs(values[1] - values[0])}
    return Estimate(values[1], "C(D*)", kind="numerical", method="quadrature", settings=error)


@statement(
    "3d.flow",
    "Gradient flow of p_G against the best discriminator reaches p_data, for either generator cost.",
    latex=r"\frac{d}{dt} p_G(x) = -p_G(x)\left(\log(1 - D^*(x)) - E_{p_G}[\log(1 - D^*)]\right) \to p_G = p_{data}",
    source="sheet, 3d; Goodfellow et al. 2014, proposition 2",
)
def flow_to_the_data(seed: int) -> Relations:
    """On a finite set, from random starts and from a start that all but misses most points."""
    generator = generator_of(seed)
    for points, narrow in ((3, False), (10, False), (10, True)):
        target = torch.rand(points, dtype=torch.float64, generator=generator) + 0.02
        target = target / target.sum()
        start = torch.rand(points, dtype=torch.float64, generator=generator)
        if narrow:
            start = torch.where(torch.arange(points) == 0, 1.0, 1e-6).double()
        for loss in (Minimax(), NonSaturating()):
            distribution, costs = start / start.sum(), []
            for _ in range(400):
                costs.append(float(loss.least_cost(target, distribution)))
                per_point = loss.generator(None, loss.optimal_logit(target.log(), distribution.log()))
                distribution = distribution * (-0.1 * per_point).exp()  # Euler's step of the flow in log p_G
                distribution = distribution / distribution.sum()
            note = f"{points} points, {loss.type_name}" + (", from nearly one point" if narrow else "")
            yield equal(
                largest(distribution - target, "largest |p_G − p_data|", unit="1"), 0, tolerance=1e-6, note=note
            )
            falls = exact(min(b - a for a, b in itertools.pairwise(costs)), "least rise of min_D C")
            yield at_least(falls, 0, note=f"{note}: the cost never falls")
            yield equal(exact(costs[-1], "min_D C in the end"), LOG_4, tolerance=1e-10, note=note)


@statement(
    "3d.certificate",
    "Any discriminator gives a lower bound: JSD ≥ log 2 − C(D)/2, with equality at D*.",
    latex=r"\mathrm{JSD}(p_{data}, p_G) \geq \log 2 - \tfrac12 C(D) \quad \text{for every } D",
    source="from 3d: C(D) ≥ C(D*)",
)
def certificate(seed: int) -> Relations:
    """Random discriminators, on pairs near and far."""
    generator = generator_of(seed)
    for name, p, q in pairs(seed):
        truth = jensen_shannon.quadrature(p, q)
        for _ in range(3):
            c = torch.randn(3, dtype=torch.float64, generator=generator)
            cost = cost_of(lambda x, c=c: c[0] + c[1] * torch.tanh(x) + c[2] * torch.cos(x), p, q)
            yield at_least(truth, _certified(cost), note=name)
        best = cost_of(lambda x, p=p, q=q: p.log_prob(x) - q.log_prob(x), p, q)
        yield equal(_certified(best), truth, note=f"{name}: D*")


def _certified(cost: Estimate) -> Estimate:
    settings = {"error": cost.error / 2}
    return Estimate(LOG_2 - cost.value / 2, "log 2 − C/2", kind="lower bound", method="quadrature", settings=settings)


# ── 3e: three uniforms ──────────────────────────────────────────────────────────────────────────────────────────────


def _only_one_way_round(_seed: int) -> Relations:
    narrow = uniform(0, 0.5)
    forward = kl.exact(narrow, uniform(0)).named("KL(U[0,½], U[0,1])")
    yield equal(forward, LOG_2, note="finite, though the second distribution has mass where the first has none")
    yield equal(kl.exact(uniform(0), narrow).named("KL(U[0,1], U[0,½])"), math.inf, note="the other way round")
    yield equal(kl.exact(uniform(0), uniform(0.5)).named("KL(P₁, P₂)"), math.inf, note="+∞ is an answer")


@statement(
    "3e",
    "For U[0,1] against U[½,3⁄2] and U[1,2]: KL is +∞, JSD is ½ log 2 and log 2, W₁ is ½ and 1.",
    latex=r"D_{KL} = +\infty, +\infty; \quad \mathrm{JSD} = \tfrac12 \log 2, \log 2; \quad W_1 = \tfrac12, 1",
    source="sheet, 3e",
    erratum=Erratum(
        stated=r"D_{KL} \text{ is undefined, since } P_1(x) = 0 \text{ or } P_2(x) = 0 \text{ while the other is not}",
        right=r"D_{KL}(P_1, P_2) = +\infty \text{ where } P_1 \text{ has mass and } P_2 \text{ none}; "
        r"\quad 0 \log 0 = 0 \text{ where } P_1 \text{ has none}",
        words="By the usual convention the value is +∞. Only one of the two cases makes it so: mass of the first "
        "distribution where the second has none. The other way round contributes 0 log 0 = 0, as KL(U[0,½], U[0,1]) = "
        "log 2 shows.",
        counter_example=_only_one_way_round,
    ),
)
def three_uniforms(_seed: int) -> Relations:
    """Exact values, each divergence both ways round."""
    first, second, third = uniform(0), uniform(0.5), uniform(1)
    pairs = ((second, LOG_2 / 2, 0.5, "P₁, P₂"), (third, LOG_2, 1.0, "P₁, P₃"))
    for backward in (False, True):
        for other, jsd, w1, names in pairs:
            p, q = (other, first) if backward else (first, other)
            pair = ", ".join(reversed(names.split(", "))) if backward else names
            yield equal(kl.exact(p, q).named(f"KL({pair})"), math.inf, note="mass where the second has none")
            yield equal(jensen_shannon.exact(p, q).named(f"JSD({pair})"), jsd)
            yield equal(wasserstein.exact(p, q).named(f"W₁({pair})"), w1)
    for other, jsd, w1, note in pairs:
        yield equal(wasserstein.quadrature(first, other), w1, note=f"{note}, by quadrature")
        yield equal(jensen_shannon.monte_carlo(first, other, n=20_000), jsd, note=f"{note}, by Monte Carlo")


@statement(
    "3e.sliding",
    "As U[a, a+1] moves away, JSD stays at log 2 with derivative 0 for a ≥ 1; W₁ = a keeps derivative 1.",
    latex=r"\mathrm{JSD}(a) = \min(a, 1) \log 2, \quad W_1(a) = a, \quad D_{KL}(a) = +\infty \; (a > 0)",
    source="sheet, 3e; Arjovsky et al. 2017, example 1",
)
def sliding_uniforms(_seed: int) -> Relations:
    """Values on a range of a, and slopes as central differences, which are exact on straight lines."""
    for a, jsd, _slope_of_jsd, w1, _slope_of_w1 in sliding((0.25, 0.75, 1.5, 3.0, 100.0)):
        note, inside = f"a = {a:g}", a < 1
        yield equal(exact(jsd, "JSD", method="finite sum"), min(a, 1) * LOG_2, note=note)
        yield equal(exact(w1, "W₁", unit="1", method="finite sum"), a, note=note)
        yield equal(kl.exact(uniform(0), uniform(a)), math.inf, note=note)
        slope = exact(_slope_of_jsd, "dJSD/da", method="central difference")
        yield equal(slope, LOG_2 if inside else 0, tolerance=1e-9, note=note)
        yield equal(exact(_slope_of_w1, "dW₁/da", unit="1", method="central difference"), 1, tolerance=1e-9, note=note)
    # W₁ between samples is differentiable, and its gradient moves every point the same way.
    quantiles = (torch.arange(100, dtype=torch.float64) + 0.5) / 100
    shift = torch.tensor(2.5, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(wasserstein.samples(quantiles, quantiles + shift), shift)
    yield equal(exact(slope.item(), "dW₁/da of samples", unit="1", method="differentiation"), 1, note="a = 2.5")


def sliding(places: tuple[float, ...]) -> list[tuple[float, float, float, float, float]]:
    """For each a: JSD and its slope, W₁ and its slope, between U[0, 1] and U[a, a+1]."""
    h, rows = 1e-3, []
    for a in places:
        jsd = [jensen_shannon.exact(uniform(0), uniform(a + s)).value for s in (-h, 0, h)]
        w1 = [wasserstein.exact(uniform(0), uniform(a + s)).value for s in (-h, 0, h)]
        rows.append((a, jsd[1], (jsd[2] - jsd[0]) / (2 * h), w1[1], (w1[2] - w1[0]) / (2 * h)))
    return rows
