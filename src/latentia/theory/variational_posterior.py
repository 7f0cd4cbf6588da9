"""Chapter 1 of the sheet, 1g to 1j: divergences in closed form, and the best q on a finite set."""

from __future__ import annotations

__all__: list[str] = []

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from latentia.divergences import kl
from latentia.estimate import Estimate, exact
from latentia.integration import integrate
from latentia.theory.instances import (
    LinearGaussian,
    every_image,
    generator_of,
    largest,
    random_finite_model,
    random_gaussian,
)
from latentia.theory.statement import Erratum, Relations, at_least, differ, equal, statement


def _bound_is_not_zero(seed: int) -> Relations:
    model = random_finite_model(3, 4, generator_of(seed))
    x = every_image(4)[:1]
    bound = exact(model.bound(x, model.posterior(x).probs).item(), "bound where q is the posterior")
    yield equal(bound, model.log_prob(x).item(), note="it is log p(x)")
    yield differ(bound, 0, note="and not 0")


@statement(
    "1g",
    "The divergence of a distribution from itself is zero, and so is its gradient: it is a minimum.",
    latex=r"D_{KL}(q_\phi, q_\phi) = 0, \quad \nabla_{\phi'} D_{KL}(q_\phi, q_{\phi'})|_{\phi' = \phi} = 0",
    source="sheet, 1g",
    erratum=Erratum(
        stated=r"q = q \Rightarrow \text{a perfect representation of our data, so the lower bound would be } 0",
        right=r"D_{KL}(q, p_\theta(z|x)) = 0 \Rightarrow \mathrm{ELBO}(q) = \log p_\theta(x) \neq 0",
        words="That a distribution equals itself says nothing about the data. If q is the posterior, the gap of the "
        "bound is 0, and the bound equals log p(x).",
        counter_example=_bound_is_not_zero,
    ),
)
def divergence_from_itself(seed: int) -> Relations:
    """Closed form, quadrature, and automatic differentiation in either argument."""
    generator = generator_of(seed)
    for dimension in (1, 2, 5):
        q = random_gaussian(dimension, generator)
        yield equal(kl.exact(q, q), 0, note=f"d = {dimension}")
        mean = q.mean.clone().requires_grad_()
        factor = q.scale_tril.clone().requires_grad_()
        moving = MultivariateNormal(mean, scale_tril=factor)
        for pair, name in (((q, moving), "second"), ((moving, q), "first")):
            gradients = torch.autograd.grad(kl_divergence(*pair), (mean, factor))
            size = largest(torch.cat([g.tril().flatten() if g.dim() > 1 else g for g in gradients]), "largest |∇KL|")
            yield equal(size, 0, note=f"d = {dimension}, {name} argument")
    yield equal(kl.quadrature(Normal(0.3, 0.7), Normal(0.3, 0.7)), 0, note="by quadrature")


# ── 1h: two Gaussians ───────────────────────────────────────────────────────────────────────────────────────────────


def _middle_line(_seed: int) -> Relations:
    mean_q, mean_p, variance = 0.8, -0.4, 0.49
    q = Normal(torch.tensor(mean_q, dtype=torch.float64), math.sqrt(variance))

    def integrand(z: Tensor) -> Tensor:
        inner = 2 * z * mean_q - mean_q**2 - 2 * z * mean_p + mean_p**2
        return q.log_prob(z).exp() * inner / (2 * variance)

    middle = integrate(integrand, [-math.inf, mean_q, math.inf], name="the sheet's middle line")
    truth = exact((mean_q - mean_p) ** 2 / (2 * variance), "KL")
    yield equal(middle, truth, note="with an integral against q and without the 1")
    yield differ(exact(1 + middle.value, "1 + …, as in the sheet"), truth)


@statement(
    "1h.equal",
    "Between Gaussians of one variance, KL = (μφ − μp)²/(2σ²).",
    latex=r"D_{KL}(N(\mu_\phi, \sigma^2), N(\mu_p, \sigma^2)) = \frac{(\mu_\phi - \mu_p)^2}{2\sigma^2}",
    source="sheet, 1h",
    erratum=Erratum(
        stated=r"= 1 + \sum_z \tfrac{1}{2\sigma^2}\left[2z\mu_\phi - \mu_\phi^2 - 2z\mu_p + \mu_p^2\right]",
        right=r"= \int q_\phi(z|x)\, \tfrac{1}{2\sigma^2}\left[2z\mu_\phi - \mu_\phi^2 - 2z\mu_p + \mu_p^2\right] dz",
        words="z is continuous, so the sum is an integral; the squares of z cancel and leave no 1; and q, which weighs "
        "the integrand, must stay. The first and the last line are right, where both variances are σ².",
        counter_example=_middle_line,
    ),
)
def equal_variances(seed: int) -> Relations:
    """A thousand random pairs in closed form; a few by quadrature and by Monte Carlo."""
    generator = generator_of(seed)
    a, b = (3 * torch.randn(1000, dtype=torch.float64, generator=generator) for _ in range(2))
    scale = torch.rand(1000, dtype=torch.float64, generator=generator) + 0.2
    formula = (a - b) ** 2 / (2 * scale**2)
    gap = (kl_divergence(Normal(a, scale), Normal(b, scale)) - formula) / formula.clamp(min=1)
    yield equal(largest(gap, "largest relative difference", unit="1"), 0, tolerance=1e-13, note="1000 random pairs")
    for i in range(3):
        p, q = Normal(a[i], scale[i]), Normal(b[i], scale[i])
        yield equal(kl.quadrature(p, q), formula[i].item(), note="by quadrature")
        yield equal(kl.monte_carlo(p, q, n=20_000, seed=seed), formula[i].item(), note="by Monte Carlo")


@statement(
    "1h.any",
    "Between any two Gaussians, with unequal, diagonal or full covariances, KL has the general closed form.",
    latex=r"D_{KL} = \tfrac12\left[\operatorname{tr}(\Sigma_p^{-1}\Sigma_q) "
    r"+ (\mu_p-\mu_q)^\top\Sigma_p^{-1}(\mu_p-\mu_q) - d + \log\tfrac{|\Sigma_p|}{|\Sigma_q|}\right]",
    source="sheet, 1h, beyond equal variances",
)
def any_gaussians(seed: int) -> Relations:
    """The general closed form against quadrature in one and two dimensions and Monte Carlo in more."""
    generator = generator_of(seed)
    for _ in range(3):
        mean, scale = torch.rand(2, 2, dtype=torch.float64, generator=generator) + 0.3
        q, p = Normal(mean[0], scale[0]), Normal(mean[1], scale[1])
        yield equal(kl.exact(q, p), kl.quadrature(q, p), note="unequal variances")
    q, p = random_gaussian(2, generator), random_gaussian(2, generator)
    yield equal(kl.exact(q, p), kl.quadrature(q, p), note="full covariance, the plane")
    for dimension in (3, 10):
        q, p = random_gaussian(dimension, generator), random_gaussian(dimension, generator)
        yield equal(kl.exact(q, p), kl.monte_carlo(q, p, n=50_000, seed=seed), note=f"full covariance, d = {dimension}")
        diagonal = Independent(Normal(p.mean, p.stddev), 1)
        yield equal(
            kl.exact(q, diagonal), kl.monte_carlo(q, diagonal, n=50_000, seed=seed), note="full against diagonal"
        )


@statement(
    "1h.symbolic",
    "The derivation with integrals, done symbolically, ends in the sheet's last line.",
    latex=r"\int q \log\frac{q}{p}\,dz = \log\frac{\sigma_p}{\sigma_q} "
    r"+ \frac{\sigma_q^2 + (\mu_q-\mu_p)^2}{2\sigma_p^2} - \tfrac12",
    source="sheet, 1h",
)
def symbolic_derivation(_seed: int) -> Relations:
    """Sympy integrates q log(q/p) over the line and simplifies; both differences are the number 0."""
    import sympy

    t, mean_q, mean_p = sympy.symbols("t mu_q mu_p", real=True)
    scale_q, scale_p = sympy.symbols("sigma_q sigma_p", positive=True)
    z = mean_q + scale_q * t  # so that q(z) dz is the standard normal distribution of t

    def log_density(mean: sympy.Expr, scale: sympy.Expr) -> sympy.Expr:
        return -((z - mean) ** 2) / (2 * scale**2) - sympy.log(scale) - sympy.log(2 * sympy.pi) / 2

    log_ratio = sympy.expand(log_density(mean_q, scale_q) - log_density(mean_p, scale_p))
    distribution = sympy.exp(-(t**2) / 2) / sympy.sqrt(2 * sympy.pi)
    integral = sympy.integrate(sympy.expand(distribution * log_ratio), (t, -sympy.oo, sympy.oo))
    general = (
        sympy.log(scale_p / scale_q) + (scale_q**2 + (mean_q - mean_p) ** 2) / (2 * scale_p**2) - sympy.Rational(1, 2)
    )
    difference = sympy.simplify(sympy.expand_log(integral - general, force=True))
    yield equal(exact(float(difference), "∫ − general form", method="symbolic"), 0)
    last = general.subs(scale_p, scale_q) - (mean_q - mean_p) ** 2 / (2 * scale_q**2)
    yield equal(exact(float(sympy.simplify(last)), "general form at equal variances − last line", method="symbolic"), 0)


# ── 1i, 1j: the optimal posterior on a finite set ───────────────────────────────────────────────────────────────────


Vector = NDArray[np.float64]


def _greatest_bound(log_joint: Vector, start: Vector, total: float = 1.0) -> tuple[Vector, float]:
    """Maximize the bound over q with Σq = total by projected gradient, knowing nothing of Bayes: q and the bound.

    The gradient is projected onto Σ dq = 0, lengths being measured by Σ dq²/q, so that a step never leaves the simplex
    through a corner. It goes at most half way to an edge.
    """
    q = total * start / start.sum()
    for _ in range(1000):
        gradient = log_joint - np.log(q) - 1
        # The bound is concave, so what any q may gain is at most what its tangent plane gains at the best corner.
        if total * gradient.max() - gradient @ q < 1e-11:
            break
        excess = gradient - gradient @ q / q.sum()
        q = q + q * excess * min(1.0, 0.5 / np.abs(excess).max())
    return q, float(q @ (log_joint - np.log(q)))


@statement(
    "1i",
    "On a finite set, the q with Σq = 1 that maximizes the bound is ∝ p(x|zᵢ)p(zᵢ), with multiplier λ = 1 − log p(x).",
    latex=r"q(z_i|x) = \frac{p(x|z_i)p(z_i)}{\sum_j p(x|z_j)p(z_j)}, \quad \lambda = 1 - \log p_\theta(x)",
    source="sheet, 1i",
)
def optimal_posterior(seed: int) -> Relations:
    """Two optimizers that know nothing of Bayes, from random starts; λ from stationarity and as a shadow price."""
    generator = generator_of(seed)
    for components in (2, 4, 7):
        model = random_finite_model(components, 6, generator)
        x = every_image(6)[torch.randint(64, (1,), generator=generator)]
        log_joint, truth = model.log_joint(x)[0].numpy(), model.log_prob(x).item()
        posterior = model.posterior(x).probs[0].numpy()
        for optimizer, maximize in (("projected gradient", _greatest_bound), ("SLSQP", _by_least_squares)):
            start = torch.rand(components, dtype=torch.float64, generator=generator).numpy()
            q, bound = maximize(log_joint, start / start.sum())
            note = f"K = {components}, {optimizer}"
            # The bound lacks KL(q, posterior) ≥ ½ |q − posterior|₁² of log p(x): 1e-9 nats are 4.5e-5 in q.
            distance = exact(float(np.abs(q - posterior).sum()), "Σ |q − posterior|", unit="1", method=optimizer)
            yield equal(distance, 0, tolerance=4.5e-5, note=note)
            yield equal(exact(bound, "greatest bound", method=optimizer), truth, tolerance=1e-9, note=note)
        # Stationarity of the Lagrangian, log p(x, zᵢ) − log qᵢ − 1 + λ = 0, where q does not all but leave out zᵢ.
        multipliers = (1 + np.log(q) - log_joint)[q > 1e-2]
        for multiplier in multipliers:
            yield equal(
                exact(float(multiplier), "λ, by stationarity"), 1 - truth, tolerance=1e-2, note=f"K = {components}"
            )
        # With Σq = c the maximum V(c) has V′(1) = −λ; the central difference is off by h²/6 · V‴ = h²/6.
        h = 1e-3
        above, below = (_greatest_bound(log_joint, posterior[::-1].copy(), 1 + s)[1] for s in (h, -h))
        price = Estimate(-(above - below) / (2 * h), "λ, as a price", method="difference", settings={"error": h**2})
        yield equal(price, 1 - truth, note=f"K = {components}")


def _by_least_squares(log_joint: Vector, start: Vector) -> tuple[Vector, float]:
    """Sequential least squares, from scipy."""
    found = optimize.minimize(
        lambda q: float(q @ (np.log(q) - log_joint)),
        start,
        jac=lambda q: np.log(q) + 1 - log_joint,
        bounds=[(1e-12, 1)] * len(start),
        constraints={"type": "eq", "fun": lambda q: q.sum() - 1, "jac": lambda q: q * 0 + 1},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return found.x, -float(found.fun)


@statement(
    "1j",
    "That q is the posterior p(z|x): the bound is tight there alone; on a grid over R² it is the exact E-step.",
    latex=r"q(z_i|x) = p_\theta(z_i|x) \iff \mathrm{ELBO}(q) = \log p_\theta(x)",
    source="sheet, 1j",
)
def posterior_by_bayes(seed: int) -> Relations:
    """By counting simulated pairs (z, x), by the bound, and on a grid against the linear-Gaussian closed form."""
    generator = generator_of(seed)
    model = random_finite_model(3, 3, generator)
    x = every_image(3)
    tight = model.bound(x, model.posterior(x).probs) - model.log_prob(x)
    yield equal(largest(tight, "largest |ELBO − log p(x)|"), 0, note="bound at the posterior")
    elsewhere = torch.full((len(x), 3), 1 / 3, dtype=torch.float64)
    yield at_least(exact((model.log_prob(x) - model.bound(x, elsewhere)).min().item(), "slack elsewhere"), 1e-6)
    z = torch.multinomial(model.prior.probs, 200_000, replacement=True, generator=generator)
    drawn = (torch.rand(len(z), 3, dtype=torch.float64, generator=generator) < model.means[z]).double()
    is_first = (drawn == x[5]).all(-1)
    share = (z[is_first] == 0).double()
    counted = Estimate.mean(share, name="share of z₁ among draws of x", unit="1")
    yield equal(counted, model.posterior(x[5:6]).probs[0, 0].item(), note="counting")

    linear = LinearGaussian.random(2, 4, 0.7, generator)
    image = linear.evidence.mean + 1
    axis = torch.linspace(-7, 7, 561, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    weight = (linear.log_likelihood(image, points) + linear.prior.log_prob(points)).softmax(0)
    gap = weight @ points - linear.posterior(image).mean
    yield equal(
        largest(gap, "largest |E z on the grid − closed form|"), 0, tolerance=1e-9, note="E-step on a grid over R²"
    )
