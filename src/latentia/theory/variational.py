"""Chapter 1 of the notes: variational auto-encoders."""

from __future__ import annotations

__all__: list[str] = []

import math

import torch
from scipy import optimize
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Distribution,
    Independent,
    Laplace,
    MultivariateNormal,
    Normal,
    Uniform,
    kl_divergence,
)

from latentia.distributions import Diagonal, Fixed, Full
from latentia.divergences import kl, total_variation
from latentia.estimate import Estimate, exact
from latentia.integration import integrate
from latentia.theory.instances import LinearGaussian, binary_digits, every_image, random_finite_model, random_gaussian
from latentia.theory.small_vae import reached_by_bound, reached_directly
from latentia.theory.statement import (
    Erratum,
    Relations,
    at_least,
    at_most,
    differ,
    equal,
    statement,
)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _largest(values: Tensor, name: str, n: int | None = None) -> Estimate:
    """The largest absolute value, as a number known but for rounding."""
    return exact(values.abs().max().item(), name, n=n or values.numel())


# ── 1a: the likelihood ──────────────────────────────────────────────────────────────────────────────────────────────


def _grey_integral(seed: int) -> Relations:
    for logit in (-3.0, 0.5, 2.0):

        def density(x: Tensor, logit: float = logit) -> Tensor:
            return (x * logit - nn.functional.softplus(torch.tensor(logit, dtype=torch.float64))).exp()

        area = integrate(density, [0.0, 1.0], name="∫ ŷˣ(1−ŷ)¹⁻ˣ dx", unit="1")
        yield differ(area, 1, note=f"ŷ of logit {logit}")


@statement(
    "1a",
    "The product of Bernoulli probabilities sums to one over all 2^G binary images, also where ŷ is 0 or 1.",
    latex=r"\sum_{x \in \{0,1\}^G} \prod_{j=1}^G \hat y_j^{x_j} (1-\hat y_j)^{1-x_j} = 1",
    source="notes, 1a",
    erratum=Erratum(
        notes=r"p_\theta(x|z) = \prod_j \hat y_j^{x_j} (1-\hat y_j)^{1-x_j} \text{ for images } x",
        right=r"x_j \in \{0, 1\}; \quad \int_0^1 \hat y^x (1-\hat y)^{1-x} dx \neq 1 \text{ for grey pixels}",
        words="The formula is a law of binary pixels alone. For grey ones it is no density: it does not integrate to one. "
        "Binarise the images, or take the continuous Bernoulli law, which carries the missing constant.",
        counter_example=_grey_integral,
    ),
)
def bernoulli_sums_to_one(seed: int) -> Relations:
    """Sums over every image, from logits of ordinary and of enormous size."""
    generator = _generator(seed)
    for pixels, size in ((1, 1.0), (6, 3.0), (10, 3.0), (10, 1e4)):
        logits = size * torch.randn(pixels, dtype=torch.float64, generator=generator)
        law = Independent(Bernoulli(logits=logits), 1)
        total = law.log_prob(every_image(pixels)).exp().sum().item()
        yield equal(
            exact(total, "Σ p(x|z)", unit="1", method="sum over all images"),
            1,
            note=f"G = {pixels}, |logit| ~ {size:g}",
        )
    extreme = Bernoulli(logits=torch.tensor([1e4, -1e4], dtype=torch.float64))
    yield equal(
        extreme.log_prob(torch.tensor([1.0, 0.0], dtype=torch.float64)).sum().item(), 0, note="certain and right"
    )
    wrong = extreme.log_prob(torch.tensor([0.0, 1.0], dtype=torch.float64)).sum().item()
    yield equal(wrong, -2e4, note="certain and wrong: finite and exact")


# ── 1b: how many numbers the encoder emits ──────────────────────────────────────────────────────────────────────────


def _four_and_five(seed: int) -> Relations:
    for family in (Diagonal(), Full()):
        yield differ(exact(math.prod(family.parameter_shape((2,))), "numbers", unit="1"), 2, note=type(family).__name__)


@statement(
    "1b",
    "For z in the plane the encoder emits 2 numbers with a fixed scale, 4 with a learned diagonal one, 5 with a full one.",
    latex=r"\dim \mu + \dim \Sigma = 2,\; 2 + 2,\; 2 + 3",
    source="notes, 1b",
    erratum=Erratum(
        notes=r"\text{the output dimension of the encoder should be } 2",
        right=r"2 \text{ (fixed } \sigma),\quad 4 \text{ (diagonal } \Sigma),\quad 5 \text{ (full } \Sigma)",
        words="Two numbers are a mean. A learned scale has to be emitted as well.",
        counter_example=_four_and_five,
    ),
)
def numbers_emitted(seed: int) -> Relations:
    """Count, and check that the numbers reach a law with the right number of free parameters (rank of the map)."""
    point = torch.tensor([0.3, -0.2], dtype=torch.float64)
    for family, numbers in ((Fixed(), 2), (Diagonal(), 4), (Full(), 5)):
        emitted = torch.randn(numbers, dtype=torch.float64, generator=_generator(seed))
        yield equal(
            exact(math.prod(family.parameter_shape((2,))), "numbers", unit="1"), numbers, note=type(family).__name__
        )

        def moments(parameters: Tensor, family: Fixed | Diagonal | Full = family) -> Tensor:
            law = family.law(parameters.unsqueeze(0))
            full = law.covariance_matrix if isinstance(law, MultivariateNormal) else torch.diag_embed(law.variance)
            return torch.cat([law.mean.flatten(), full.flatten()])

        jacobian = torch.autograd.functional.jacobian(moments, emitted)
        rank = int(torch.linalg.matrix_rank(jacobian))  # pyright: ignore[reportArgumentType]
        yield equal(exact(rank, "free parameters", unit="1", n=len(point)), numbers, note=type(family).__name__)


# ── 1c: the bound and its slack ─────────────────────────────────────────────────────────────────────────────────────

BOUND = r"\log p_\theta(x) - \left( E_q[\log p_\theta(x|z)] - D_{KL}(q, p(z)) \right) = D_{KL}(q, p_\theta(z|x)) \geq 0"


@statement(
    "1c.linear",
    "The bound's slack is the divergence from the posterior: linear-Gaussian model, every term in closed form.",
    latex=BOUND,
    source="notes, 1c; Kingma and Welling 2014, eq. 1",
)
def slack_linear(seed: int) -> Relations:
    """Evidence, posterior and bound by three separate formulas."""
    generator = _generator(seed)
    for dimension, pixels, scale in ((1, 2, 1.0), (2, 5, 0.5), (3, 20, 0.3), (2, 3, 0.05)):
        model = LinearGaussian.random(dimension, pixels, scale, generator)
        x = model.evidence.mean + torch.randn(pixels, dtype=torch.float64, generator=generator)
        q = random_gaussian(dimension, generator)
        bound = model.expected_log_likelihood(x, q) - kl_divergence(q, model.prior)
        slack = model.evidence.log_prob(x) - bound
        divergence = kl_divergence(q, model.posterior(x))
        note = f"d = {dimension}, G = {pixels}, σ = {scale}"
        relative = 1e-8 * max(1.0, divergence.item())
        yield equal(exact(slack.item(), "log p(x) − ELBO"), divergence.item(), tolerance=relative, note=note)
        yield at_least(exact(slack.item(), "log p(x) − ELBO"), 0, note=note)


@statement(
    "1c.finite",
    "The bound's slack is the divergence from the posterior: latent variable on a finite set, every sum exact.",
    latex=BOUND,
    source="notes, 1c",
)
def slack_finite(seed: int) -> Relations:
    """Random mixtures of Bernoullis, every image, random q, some of them with zeros."""
    generator = _generator(seed)
    for components, pixels in ((2, 3), (5, 6), (9, 4)):
        model = random_finite_model(components, pixels, generator)
        x = every_image(pixels)
        q = torch.rand(len(x), components, dtype=torch.float64, generator=generator)
        q[:, 0] *= torch.rand(len(x), generator=generator) > 0.3
        q = q / q.sum(-1, keepdim=True)
        slack = model.log_prob(x) - model.bound(x, q)
        posterior = model.posterior(x).probs
        divergence = (torch.special.xlogy(q, q) - q * posterior.log()).sum(-1)
        gap = _largest(slack - divergence, "largest |slack − KL|")
        yield equal(gap, 0, tolerance=1e-10, note=f"K = {components}, {len(x)} images")
        yield at_least(exact(slack.min().item(), "smallest slack"), 0, tolerance=1e-10)


@statement(
    "1c.trained",
    "The bound's slack is the divergence from the posterior: a VAE trained on digits, by quadrature over the plane.",
    latex=BOUND,
    source="notes, 1c",
)
def slack_trained(seed: int) -> Relations:
    """Evidence on a grid over z; bound and slack on grids of their own, laid by q."""
    model = reached_by_bound(seed).model
    x = binary_digits(8)
    evidence, finer = model.log_evidence(x, 0.05), model.log_evidence(x, 0.025)
    bound, slack = model.bound_and_slack(x, 0.25)
    bound_finer, slack_finer = model.bound_and_slack(x, 0.125)
    for i in range(len(x)):
        moved = max(abs((a - b)[i].item()) for a, b in ((evidence, finer), (bound, bound_finer), (slack, slack_finer)))
        settings = {"error": max(1e-9, 3 * moved), "spacing": 0.025}
        left = Estimate((finer - bound_finer)[i].item(), "log p(x) − ELBO", method="quadrature", settings=settings)
        right = Estimate(slack_finer[i].item(), "KL(q, p(z|x))", method="quadrature", settings=settings)
        yield equal(left, right, note=f"image {i}")
        yield at_least(left, 0, note=f"image {i}")


# ── 1d, 1g: what a divergence is ────────────────────────────────────────────────────────────────────────────────────


def _laws(seed: int) -> list[tuple[str, Distribution, Distribution]]:
    generator = _generator(seed)
    a, b = (torch.randn(2, dtype=torch.float64, generator=generator) for _ in range(2))
    r, s = (0.3 + torch.rand(2, dtype=torch.float64, generator=generator) for _ in range(2))
    return [
        ("normals", Normal(a[0], r[0]), Normal(b[0], s[0])),
        ("normals of one scale", Normal(a[1], r[1]), Normal(b[1], r[1])),
        ("Laplace against normal", Laplace(a[0], r[0]), Normal(b[0], s[0])),
        ("nested uniforms", Uniform(a[0], a[0] + r[0]), Uniform(a[0] - s[0], a[0] + r[0] + s[1])),
        ("Gaussians in the plane", random_gaussian(2, generator), random_gaussian(2, generator)),
    ]


@statement(
    "1d",
    "The KL divergence is non-negative, zero for equal laws and for no others, and not symmetric.",
    latex=r"D_{KL}(p, q) \geq 2\,\mathrm{TV}(p, q)^2, \quad D_{KL}(p, q) = 0 \iff p = q, \quad D_{KL}(p,q) \neq D_{KL}(q,p)",
    source="notes, 1d; Pinsker's inequality for `only then`",
)
def divergence_properties(seed: int) -> Relations:
    """Pinsker's bound is positive whenever the laws differ, so a zero divergence means equal laws."""
    for name, p, q in _laws(seed):
        forward = kl.quadrature(p, q)
        yield at_least(forward, 0, note=name)
        distance = total_variation.quadrature(p, q).value
        yield at_least(forward, 2 * distance**2, note=f"{name}: Pinsker")
        yield (
            differ(forward, kl.quadrature(q, p), note=f"{name}: not symmetric")
            if name != "normals of one scale"
            else (equal(forward, kl.quadrature(q, p), note=f"{name}: symmetric by accident"))
        )
        yield equal(kl.quadrature(p, p), 0, note=f"{name}: with itself")


@statement(
    "1g",
    "The divergence of a law from itself is zero, and so is its gradient: it is a minimum.",
    latex=r"D_{KL}(q_\phi, q_\phi) = 0, \quad \nabla_{\phi'} D_{KL}(q_\phi, q_{\phi'})|_{\phi' = \phi} = 0",
    source="notes, 1g",
)
def divergence_from_itself(seed: int) -> Relations:
    """Closed form, quadrature, and automatic differentiation in either argument."""
    generator = _generator(seed)
    for dimension in (1, 2, 5):
        q = random_gaussian(dimension, generator)
        yield equal(kl.exact(q, q), 0, note=f"d = {dimension}")
        mean = q.mean.clone().requires_grad_()
        factor = q.scale_tril.clone().requires_grad_()
        moving = MultivariateNormal(mean, scale_tril=factor)
        for pair, name in (((q, moving), "second"), ((moving, q), "first")):
            gradients = torch.autograd.grad(kl_divergence(*pair), (mean, factor))
            size = _largest(torch.cat([g.tril().flatten() if g.dim() > 1 else g for g in gradients]), "largest |∇KL|")
            yield equal(size, 0, note=f"d = {dimension}, {name} argument")
    yield equal(kl.quadrature(Normal(0.3, 0.7), Normal(0.3, 0.7)), 0, note="by quadrature")


# ── 1e, 1f: the bound, the likelihood, and what the encoder is for ──────────────────────────────────────────────────


def _reached_evidence(model_seed: int) -> tuple[Tensor, Tensor]:
    x = binary_digits(200)
    return (
        reached_by_bound(model_seed).model.log_evidence(x, 0.05),
        reached_directly(model_seed).model.log_evidence(x, 0.05),
    )


@statement(
    "1e",
    "Maximising the bound and maximising log p(x) are not the same: the second reaches more nats, for more evaluations.",
    latex=r"\max_\theta \log p_\theta(x) \;\geq\; \log p_{\theta'}(x), \quad \theta' = \arg\max_{\theta} \max_\phi \mathrm{ELBO}(\theta, \phi)",
    source="notes, 1e",
)
def bound_against_likelihood(seed: int) -> Relations:
    """Two decoders of one shape and one start, as many steps: by the bound, and by quadrature with no encoder."""
    by_bound, direct = _reached_evidence(seed)
    gain = Estimate.mean(direct - by_bound, name="log p(x), direct − by the bound", settings={"stderr_over": "images"})
    yield at_least(gain, 0, note="exact log p(x) of the training images")
    yield differ(gain, 0, note="the two optima differ")
    spent = [reached(seed).decoder_evaluations for reached in (reached_by_bound, reached_directly)]
    yield at_least(
        exact(spent[1], "decoder evaluations, direct", unit="1"),
        exact(spent[0], "by the bound", unit="1"),
        note="and it costs more",
    )


def _better_is_higher(seed: int) -> Relations:
    generator = _generator(seed)
    model = LinearGaussian.random(2, 5, 0.5, generator)
    x = model.evidence.mean
    good, poor = model.posterior(x), model.prior
    bounds = [(model.expected_log_likelihood(x, q) - kl_divergence(q, model.prior)).item() for q in (good, poor)]
    yield differ(
        exact(min(bounds), "bound of the poorer q"),
        exact(bounds[0], "bound of the better q"),
        note="the better q has the higher bound",
    )


@statement(
    "1f",
    "The encoder is a proposal: its effective sample size stays, where that of the prior falls with the dimension of z.",
    latex=r"\mathrm{ESS} = \frac{(\sum_k w_k)^2}{K \sum_k w_k^2}, \quad w_k = \frac{p(x, z_k)}{q(z_k|x)}",
    source="notes, 1f",
    erratum=Erratum(
        notes=r"\text{a better encoder allows us to reduce our lower bound}",
        right=r"\mathrm{ELBO}(q) = \log p(x) - D_{KL}(q, p(z|x)) \text{ rises as } q \text{ improves}",
        words="A better encoder raises the bound towards log p(x), which does not move. And it is not there for sampling, "
        "which needs the decoder alone: it makes the bound tractable, by proposing the few z that matter.",
        counter_example=_better_is_higher,
    ),
)
def effective_sample_sizes(seed: int) -> Relations:
    """Linear-Gaussian models of growing d; the encoder is the best diagonal Gaussian, not the posterior itself."""
    generator = _generator(seed)
    draws, before = 4000, 1.0
    for dimension in (1, 2, 4, 8, 16):
        model = LinearGaussian.random(dimension, 32, 1.0, generator)
        x = model.evidence.mean + model.weights @ torch.randn(dimension, dtype=torch.float64, generator=generator)
        posterior = model.posterior(x)
        precision = torch.linalg.inv(posterior.covariance_matrix).diagonal()
        encoder = Independent(Normal(posterior.mean, precision.rsqrt()), 1)
        sizes = {}
        for name, proposal in (("prior", model.prior), ("encoder", encoder)):
            noise = torch.randn(draws, dimension, dtype=torch.float64, generator=generator)
            z = proposal.mean + proposal.stddev * noise
            log_weight = model.log_likelihood(x, z) + model.prior.log_prob(z) - proposal.log_prob(z)
            weight = log_weight.softmax(0)
            sizes[name] = 1 / (draws * weight.square().sum().item())
        of_encoder = exact(sizes["encoder"], "ESS/K, encoder", unit="1", n=draws, method="monte carlo")
        yield at_least(of_encoder, exact(sizes["prior"], "ESS/K, prior", unit="1", n=draws), note=f"d = {dimension}")
        yield at_most(
            exact(sizes["prior"], "ESS/K, prior", unit="1", n=draws),
            before,
            note=f"d = {dimension}, against the last d",
        )
        before = sizes["prior"]


# ── 1h: two Gaussians ───────────────────────────────────────────────────────────────────────────────────────────────


def _middle_line(seed: int) -> Relations:
    mean_q, mean_p, variance = 0.8, -0.4, 0.49
    q = Normal(torch.tensor(mean_q, dtype=torch.float64), math.sqrt(variance))

    def integrand(z: Tensor) -> Tensor:
        inner = 2 * z * mean_q - mean_q**2 - 2 * z * mean_p + mean_p**2
        return q.log_prob(z).exp() * inner / (2 * variance)

    middle = integrate(integrand, [-math.inf, mean_q, math.inf], name="the notes' middle line")
    truth = exact((mean_q - mean_p) ** 2 / (2 * variance), "KL")
    yield equal(middle, truth, note="with an integral against q and without the 1")
    yield differ(exact(1 + middle.value, "1 + …, as the notes have it"), truth)


@statement(
    "1h.equal",
    "Between Gaussians of one variance, KL = (μφ − μp)²/(2σ²).",
    latex=r"D_{KL}(N(\mu_\phi, \sigma^2), N(\mu_p, \sigma^2)) = \frac{(\mu_\phi - \mu_p)^2}{2\sigma^2}",
    source="notes, 1h",
    erratum=Erratum(
        notes=r"= 1 + \sum_z \tfrac{1}{2\sigma^2}\left[2z\mu_\phi - \mu_\phi^2 - 2z\mu_p + \mu_p^2\right]",
        right=r"= \int q_\phi(z|x)\, \tfrac{1}{2\sigma^2}\left[2z\mu_\phi - \mu_\phi^2 - 2z\mu_p + \mu_p^2\right] dz",
        words="z is continuous, so the sum is an integral; the squares of z cancel and leave no 1; and q, which weighs the "
        "integrand, must stay. The first and the last line are right.",
        counter_example=_middle_line,
    ),
)
def equal_variances(seed: int) -> Relations:
    """A thousand random pairs in closed form; a few by quadrature and by Monte Carlo."""
    generator = _generator(seed)
    a, b = (3 * torch.randn(1000, dtype=torch.float64, generator=generator) for _ in range(2))
    scale = torch.rand(1000, dtype=torch.float64, generator=generator) + 0.2
    formula = (a - b) ** 2 / (2 * scale**2)
    gap = (kl_divergence(Normal(a, scale), Normal(b, scale)) - formula) / formula.clamp(min=1)
    yield equal(_largest(gap, "largest relative difference"), 0, tolerance=1e-13, note="1000 random pairs")
    for i in range(3):
        p, q = Normal(a[i], scale[i]), Normal(b[i], scale[i])
        yield equal(kl.quadrature(p, q), formula[i].item(), note="by quadrature")
        yield equal(kl.monte_carlo(p, q, n=20_000, seed=seed), formula[i].item(), note="by Monte Carlo")


@statement(
    "1h.any",
    "Between any two Gaussians, with unequal, diagonal or full covariances, KL has the general closed form.",
    latex=r"D_{KL} = \tfrac12\left[\operatorname{tr}(\Sigma_p^{-1}\Sigma_q) + (\mu_p-\mu_q)^\top\Sigma_p^{-1}(\mu_p-\mu_q) - d + \log\tfrac{|\Sigma_p|}{|\Sigma_q|}\right]",
    source="notes, 1h, beyond equal variances",
)
def any_gaussians(seed: int) -> Relations:
    """The general closed form against quadrature in one and two dimensions and Monte Carlo in more."""
    generator = _generator(seed)
    for _ in range(3):
        q, p = (Normal(*(torch.rand(2, dtype=torch.float64, generator=generator) + 0.3)) for _ in range(2))
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
    "The derivation with integrals, done symbolically, ends in the notes' last line.",
    latex=r"\int q \log\frac{q}{p}\,dz = \log\frac{\sigma_p}{\sigma_q} + \frac{\sigma_q^2 + (\mu_q-\mu_p)^2}{2\sigma_p^2} - \tfrac12",
    source="notes, 1h",
)
def symbolic_derivation(seed: int) -> Relations:
    """Sympy integrates q log(q/p) over the line and simplifies; both differences are the number 0."""
    import sympy

    z, mean_q, mean_p = sympy.symbols("z mu_q mu_p", real=True)
    scale_q, scale_p = sympy.symbols("sigma_q sigma_p", positive=True)
    q = sympy.exp(-((z - mean_q) ** 2) / (2 * scale_q**2)) / (sympy.sqrt(2 * sympy.pi) * scale_q)
    log_ratio = (
        sympy.log(scale_p / scale_q) - (z - mean_q) ** 2 / (2 * scale_q**2) + (z - mean_p) ** 2 / (2 * scale_p**2)
    )
    integral = sympy.integrate(sympy.expand(q * log_ratio), (z, -sympy.oo, sympy.oo))
    general = (
        sympy.log(scale_p / scale_q) + (scale_q**2 + (mean_q - mean_p) ** 2) / (2 * scale_p**2) - sympy.Rational(1, 2)
    )
    difference = sympy.simplify(sympy.expand_log(integral - general, force=True))
    yield equal(exact(float(difference), "∫ − general form", method="symbolic"), 0)
    last = general.subs(scale_p, scale_q) - (mean_q - mean_p) ** 2 / (2 * scale_q**2)
    yield equal(exact(float(sympy.simplify(last)), "general form at equal variances − last line", method="symbolic"), 0)


# ── 1i, 1j: the optimal posterior on a finite set ───────────────────────────────────────────────────────────────────


@statement(
    "1i",
    "On a finite set, maximising the bound over q with Σq = 1 gives q ∝ p(x|zᵢ)p(zᵢ), with multiplier λ = 1 − log p(x).",
    latex=r"q(z_i|x) = \frac{p(x|z_i)p(z_i)}{\sum_j p(x|z_j)p(z_j)}, \quad \lambda = 1 - \log p_\theta(x)",
    source="notes, 1i",
)
def optimal_posterior(seed: int) -> Relations:
    """A constrained optimiser (sequential least squares) that knows nothing of Bayes, from random starts."""
    generator = _generator(seed)
    for components in (2, 4, 7):
        model = random_finite_model(components, 6, generator)
        x = every_image(6)[torch.randint(64, (1,), generator=generator)]
        log_joint = model.log_joint(x)[0].numpy()
        for _ in range(2):
            start = torch.rand(components, dtype=torch.float64, generator=generator)
            found = optimize.minimize(
                lambda q, log_joint=log_joint: float((q * (_log(q) - log_joint)).sum()),
                (start / start.sum()).numpy(),
                jac=lambda q, log_joint=log_joint: _log(q) + 1 - log_joint,
                bounds=[(1e-12, 1)] * components,
                constraints={"type": "eq", "fun": lambda q: q.sum() - 1, "jac": lambda q: q * 0 + 1},
                method="SLSQP",
                options={"ftol": 1e-15, "maxiter": 500},
            )
            q = torch.from_numpy(found.x)
            note = f"K = {components}"
            yield equal(
                _largest(q - model.posterior(x).probs[0], "largest |q − posterior|"), 0, tolerance=1e-5, note=note
            )
            yield equal(exact(-found.fun, "bound at the optimum"), model.log_prob(x).item(), tolerance=1e-9, note=note)
            # Stationarity of the Lagrangian: log p(x, zᵢ) − log qᵢ − 1 + λ = 0 for every i.
            multiplier = float((found.x * (_log(found.x) + 1 - log_joint)).sum())
            yield equal(exact(multiplier, "λ"), 1 - model.log_prob(x).item(), tolerance=1e-8, note=note)


@statement(
    "1j",
    "That q is the posterior p(z|x): the bound is tight there and nowhere else; on a grid over R² it is the exact E-step.",
    latex=r"q(z_i|x) = p_\theta(z_i|x) \iff \mathrm{ELBO}(q) = \log p_\theta(x)",
    source="notes, 1j",
)
def posterior_by_bayes(seed: int) -> Relations:
    """By counting simulated pairs (z, x), by the bound, and on a grid against the linear-Gaussian closed form."""
    generator = _generator(seed)
    model = random_finite_model(3, 3, generator)
    x = every_image(3)
    tight = model.bound(x, model.posterior(x).probs) - model.log_prob(x)
    yield equal(_largest(tight, "largest |ELBO − log p(x)|"), 0, note="bound at the posterior")
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
        _largest(gap, "largest |E z on the grid − closed form|"), 0, tolerance=1e-9, note="E-step on a grid over R²"
    )


def _log(q: object) -> object:
    import numpy as np

    return np.log(np.maximum(q, 1e-300))  # pyright: ignore[reportArgumentType, reportCallIssue]
