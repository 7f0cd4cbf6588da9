"""Beyond the sheet: importance-weighted bounds, linear VAEs, expectation-maximization, and inequalities."""

from __future__ import annotations

__all__ = ["importance_gaps"]

import itertools
import math

import torch
from torch import Tensor
from torch.distributions import Bernoulli

from latentia.divergences import jensen_shannon, kl, total_variation
from latentia.estimate import Estimate, exact
from latentia.models import fit_bernoulli_mixture
from latentia.objectives import IWAE, Progress
from latentia.objectives.objective import log_mean_exp
from latentia.theory.instances import (
    LOG_2,
    binary_digits,
    every_image,
    generator_of,
    normal,
    pairs,
    random_finite_model,
)
from latentia.theory.small_models import SHAPE, reached_by_bound
from latentia.theory.statement import Relations, at_least, at_most, converges, differ, equal, statement

# ── importance weights ──────────────────────────────────────────────────────────────────────────────────────────────

DRAWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def importance_gaps(seed: int, replicates: int = 5_000) -> tuple[list[Estimate], list[Estimate], float]:
    """How far the bound of K draws lies below log p(x), for K in `DRAWS`, where p(x) is known.

    The weights are wₖ = p(z|x)/q(z) at zₖ ~ q, of mean 1, with a posterior N(0, 1) and q = N(0.3, 1.2²).

    Returns:
        The gaps −E[log w̄ − (w̄ − 1)], whose second part has mean 0 and takes most of the noise away; the rises of the
        bound from each K to the next, on the same draws; and the variance of one weight.
    """
    posterior, q = normal(0.0, 1.0), normal(0.3, 1.2)
    noise = torch.randn(DRAWS[-1], replicates, dtype=torch.float64, generator=generator_of(seed))
    z = q.loc + q.scale * noise
    log_weight = posterior.log_prob(z) - q.log_prob(z)
    bounds = {k: log_mean_exp(log_weight[:k]) for k in DRAWS}
    gaps = [Estimate.mean(torch.expm1(b) - b, name=f"log p(x) − L_{k}") for k, b in bounds.items()]
    rises = [
        Estimate.mean(bounds[b] - bounds[a] - torch.expm1(bounds[b]) + torch.expm1(bounds[a]), name=f"L_{b} − L_{a}")
        for a, b in itertools.pairwise(DRAWS)
    ]
    # E_q[w²] − 1 = ∫ posterior²/q − 1, a Gaussian integral
    precision = 2 - 1 / 1.2**2
    shift = (0.3 / 1.2**2) ** 2 / precision + 0.3**2 / 1.2**2
    return gaps, rises, 1.2 / math.sqrt(precision) * math.exp(0.5 * shift) - 1


@statement(
    "beyond.iwae",
    "The importance-weighted bounds rise with K, and their gap to log p(x) falls like 1/K.",
    latex=r"L_K = E\left[\log \tfrac1K \sum_k w_k\right], \quad L_K \leq L_{K+1} \leq \log p(x), \quad "
    r"\log p(x) - L_K = \frac{\operatorname{Var} w}{2 K p(x)^2} + O(K^{-2})",
    source="Burda et al. 2016, theorem 1; Domke and Sheldon 2018, theorem 3",
)
def importance_weighted(seed: int) -> Relations:
    """Weights of known mean and variance; and the library's bound of a trained VAE against its exact log p(x)."""
    gaps, rises, variance = importance_gaps(seed)
    for rise in rises:
        yield at_least(rise, 0, note="rises")
        yield differ(rise, 0, note="strictly")
    sizes, values = DRAWS[4:], [gap.value for gap in gaps[4:]]
    yield converges(sizes, values, order=-1, tolerance=0.02, note=f"K = {sizes[0]} … {sizes[-1]}")
    last = gaps[-1]
    scaled = Estimate(2 * DRAWS[-1] * last.value, "2K × gap", 2 * DRAWS[-1] * (last.stderr or 0), last.n, unit="1")
    # What is left out is a few times Var w / K.
    yield equal(scaled, variance, tolerance=5 * variance / DRAWS[-1], note="Var w, up to O(1/K)")

    model, x = reached_by_bound(seed).model, binary_digits(20)
    truth = model.log_evidence(x, 0.1)
    before: Tensor | None = None
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for k in (1, 8, 64):
            repeated = [IWAE(k=k)(model.vae, x.view(-1, *SHAPE), Progress())["bound"] for _ in range(20)]
            bound = torch.stack(repeated)
            gap = Estimate.mean(truth - bound, name="log p(x) − L_K")
            yield at_least(gap, 0, note=f"trained VAE, K = {k}")
            if before is not None:
                rise = Estimate.mean((bound - before).mean(1), name="rise of L_K")
                yield at_least(rise, 0, note=f"trained VAE, to K = {k}")
            before = bound


# ── the rate of a VAE, in two parts ─────────────────────────────────────────────────────────────────────────────────


@statement(
    "beyond.rate",
    "The mean rate is the mutual information of x and z, and the divergence of the aggregate posterior from the prior.",
    latex=r"E_x[D_{KL}(q(z|x), p(z))] = I_q(x; z) + D_{KL}(q(z), p(z)), \quad q(z) = E_x[q(z|x)]",
    source="Hoffman and Johnson 2016, eq. 3",
)
def rate_in_two_parts(seed: int) -> Relations:
    """Distributions on a finite set; and the posterior under the model's p(x), where the second part vanishes."""
    generator = generator_of(seed)
    for components, pixels in ((3, 4), (6, 5)):
        model = random_finite_model(components, pixels, generator)
        x = every_image(pixels)
        weight = model.log_prob(x).exp()
        prior = model.prior.probs
        guess = torch.rand(len(x), components, dtype=torch.float64, generator=generator)
        for name, q in (("random q", guess / guess.sum(-1, keepdim=True)), ("posterior", model.posterior(x).probs)):
            aggregate = weight @ q
            rate = weight @ (q * (q / prior).log()).sum(-1)
            information = (weight[:, None] * q * (q / aggregate).log()).sum()
            rest = (aggregate * (aggregate / prior).log()).sum()
            note = f"{name}, K = {components}"
            yield equal(exact(rate.item(), "mean rate", method="finite sum"), (information + rest).item(), note=note)
            if name == "posterior":
                yield equal(exact(rest.item(), "KL(q(z), p(z))", method="finite sum"), 0, note=note)


# ── expectation-maximization ────────────────────────────────────────────────────────────────────────────────────────


@statement(
    "beyond.em",
    "Expectation-maximization never lowers the log-likelihood: a mixture of Bernoullis on digits.",
    latex=r"\log p_{\theta_{t+1}}(x) \geq \log p_{\theta_t}(x)",
    source="Dempster, Laird and Rubin 1977, theorem 1; sheet, 1i and 1j for its E-step",
)
def em_never_falls(seed: int) -> Relations:
    """500 digits, 1 to 20 components; one component is fitted in closed form after one step."""
    x = binary_digits(500)
    for components in (1, 5, 20):
        fit = fit_bernoulli_mixture(x, components, steps=25, seed=seed)
        rises = [b - a for a, b in itertools.pairwise(fit.log_likelihoods)]
        left = exact(min(rises), "least rise of log p(x)", n=len(rises), method="EM")
        yield at_least(left, 0, note=f"K = {components}")
        yield at_least(exact(rises[0], "first rise", method="EM"), 0.1, note=f"K = {components}")
    mean = x.mean(0).clamp(1e-4, 1 - 1e-4)
    closed = Bernoulli(mean).log_prob(x).sum(-1).mean().item()
    one = fit_bernoulli_mixture(x, 1, steps=1, seed=seed).log_likelihoods[-1]
    yield equal(exact(one, "log p(x), K = 1", method="EM"), closed, note="one component: the pixels' means")


# ── inequalities between divergences ────────────────────────────────────────────────────────────────────────────────


@statement(
    "beyond.pinsker",
    "Total variation is bounded by relative entropy, twice over, and by the Jensen-Shannon divergence on either side.",
    latex=r"\mathrm{TV} \leq \sqrt{\tfrac12 D_{KL}}, \quad \mathrm{TV} \leq \sqrt{1 - e^{-D_{KL}}}, \quad "
    r"\tfrac12 \mathrm{TV}^2 \leq \mathrm{JSD} \leq \log 2 \cdot \mathrm{TV}",
    source="Pinsker 1964; Bretagnolle and Huber 1979; Lin 1991, theorem 3",
)
def pinsker(seed: int) -> Relations:
    """Pairs on the line by quadrature; Bernoulli distributions, where the first bound becomes sharp in the limit."""
    for name, p, q in pairs(seed):
        distance = total_variation.quadrature(p, q)
        nats, jsd = kl.quadrature(p, q), jensen_shannon.quadrature(p, q)
        yield at_most(distance, math.sqrt(nats.value / 2), note=f"{name}: Pinsker")
        yield at_most(distance, math.sqrt(-math.expm1(-nats.value)), note=f"{name}: Bretagnolle and Huber")
        yield at_most(jsd, LOG_2 * distance.value, note=name)
        yield at_least(jsd, distance.value**2 / 2, note=name)
    ratios, sizes = [], (0.2, 0.1, 0.05, 0.025)
    for size in sizes:
        p, q = (Bernoulli(torch.tensor(0.5 + s * size, dtype=torch.float64)) for s in (1, -1))
        ratios.append(kl.exact(p, q).value / (2 * total_variation.exact(p, q).value ** 2) - 1)
    yield converges(sizes, ratios, order=2, tolerance=0.1, note="KL/(2 TV²) − 1 as the distributions meet")


@statement(
    "beyond.jsd",
    "Between N(0,1) and N(μ,1), JSD is 0.030311, 0.111421, 0.336831, 0.632720 nats at μ = 0.5, 1, 2, 4.",
    latex=r"\mathrm{JSD}(N(0,1), N(\mu,1)) = 0.030311,\; 0.111421,\; 0.336831,\; 0.632720",
    source="an integral without closed form",
)
def jsd_of_gaussians(seed: int) -> Relations:
    """By quadrature to the printed digits, by Monte Carlo, and as the mutual information of x and its distribution."""
    for mu, printed in ((0.5, 0.030311), (1.0, 0.111421), (2.0, 0.336831), (4.0, 0.632720)):
        p, q = normal(0.0, 1.0), normal(mu, 1.0)
        value = jensen_shannon.quadrature(p, q)
        yield equal(value, exact(printed, "printed to six digits"), tolerance=5e-7, note=f"μ = {mu:g}")
        yield equal(jensen_shannon.monte_carlo(p, q, n=50_000, seed=seed), value, note=f"μ = {mu:g}, by Monte Carlo")
        x, label = _labeled_draws(mu, seed)
        log_ratio = q.log_prob(x) - p.log_prob(x)
        surprise = LOG_2 - torch.nn.functional.softplus(torch.where(label, -log_ratio, log_ratio))
        information = Estimate.mean(surprise, name="I(x; which distribution)")
        yield equal(information, value, note=f"μ = {mu:g}, as mutual information")


def _labeled_draws(mu: float, seed: int) -> tuple[Tensor, Tensor]:
    generator = generator_of(seed + 1)
    label = torch.rand(50_000, generator=generator) < 0.5
    return torch.randn(50_000, dtype=torch.float64, generator=generator) + mu * label, label


# ── gradients through draws ─────────────────────────────────────────────────────────────────────────────────────────


@statement(
    "beyond.gradient",
    "The reparametrized and the score-function gradients of an expectation have one mean.",
    latex=r"\nabla_\phi E_{q_\phi}[f(z)] = E_\epsilon[\nabla_\phi f(\mu + \sigma\epsilon)] "
    r"= E_{q_\phi}[f(z) \nabla_\phi \log q_\phi(z)]",
    source="Kingma and Welling 2014, section 2.4; Williams 1992",
)
def two_gradients(seed: int) -> Relations:
    """f(z) = −(z² − 1)², whose expectation under N(μ, σ²) is a polynomial; by μ and by σ."""
    generator = generator_of(seed)
    for mu, sigma in ((0.4, 0.5), (-1.0, 0.8)):
        noise = torch.randn(100_000, dtype=torch.float64, generator=generator)
        z = mu + sigma * noise
        slope, value = -4 * z * (z**2 - 1), -((z**2 - 1) ** 2)
        # E[z⁴] = μ⁴ + 6μ²σ² + 3σ⁴ and E[z²] = μ² + σ²
        truth = (-(4 * mu**3 + 12 * mu * sigma**2) + 4 * mu, -(12 * mu**2 * sigma + 12 * sigma**3) + 4 * sigma)
        by_path = (slope, slope * noise)
        by_score = (value * noise / sigma, value * (noise**2 - 1) / sigma)
        for name, right, path, score in zip(("μ", "σ"), truth, by_path, by_score, strict=True):
            for way, terms in (("path", path), ("score", score)):
                yield equal(Estimate.mean(terms, name=f"d/d{name}, by {way}"), right, note=f"N({mu}, {sigma}²)")
