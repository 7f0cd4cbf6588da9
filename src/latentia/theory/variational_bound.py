"""Chapter 1 of the sheet (docs/theory), 1a to 1f: the likelihood, the encoder, and the bound with its gap.

    log p(x) = E_q[log p(x|z)] − KL(q, p(z)) + KL(q, p(z|x))

The first two terms are the bound. The last is the gap: at least 0, and 0 only where q is the posterior.
"""

from __future__ import annotations

__all__: list[str] = []

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Laplace, MultivariateNormal, Normal, Uniform, kl_divergence

from latentia.distributions import Bernoulli, Diagonal, Fixed, Full
from latentia.divergences import kl, total_variation
from latentia.estimate import Estimate, exact
from latentia.integration import integrate
from latentia.theory.instances import (
    LinearGaussian,
    binary_digits,
    every_image,
    generator_of,
    largest,
    random_finite_model,
    random_gaussian,
)
from latentia.theory.small_models import reached_by_bound, reached_directly
from latentia.theory.statement import Erratum, Relations, at_least, at_most, differ, equal, statement

# ── 1a: the likelihood ──────────────────────────────────────────────────────────────────────────────────────────────


def _gray_integral(_seed: int) -> Relations:
    for logit in (-3.0, 0.5, 2.0):

        def density(x: Tensor, logit: float = logit) -> Tensor:
            return (x * logit - nn.functional.softplus(torch.tensor(logit, dtype=torch.float64))).exp()

        area = integrate(density, [0.0, 1.0], name="∫ ŷˣ(1−ŷ)¹⁻ˣ dx", unit="1")
        yield differ(area, 1, note=f"ŷ of logit {logit}")


@statement(
    "1a",
    "The product of Bernoulli probabilities sums to one over all 2^G binary images, also where ŷ is 0 or 1.",
    latex=r"\sum_{x \in \{0,1\}^G} \prod_{j=1}^G \hat y_j^{x_j} (1-\hat y_j)^{1-x_j} = 1",
    source="sheet, 1a",
    erratum=Erratum(
        stated=r"p_\theta(x|z) = \prod_j \hat y_j^{x_j} (1-\hat y_j)^{1-x_j} \text{ for images } x",
        right=r"x_j \in \{0, 1\}; \quad \int_0^1 \hat y^x (1-\hat y)^{1-x} dx \neq 1 \text{ for gray pixels}",
        words="The formula is a distribution over binary pixels only. For gray ones it is not a density: it does not "
        "integrate to one. Binarize the images, or use the continuous Bernoulli distribution, which has the missing "
        "constant.",
        counter_example=_gray_integral,
    ),
)
def bernoulli_sums_to_one(seed: int) -> Relations:
    """Sums over all images, for logits of order 1 and of order 10⁴."""
    generator = generator_of(seed)
    for pixels, size in ((1, 1.0), (6, 3.0), (10, 3.0), (10, 1e4)):
        logits = size * torch.randn(1, 1, pixels, dtype=torch.float64, generator=generator)
        images = every_image(pixels).view(-1, 1, 1, pixels)
        total = Bernoulli().distribution(logits).log_prob(images).exp().sum().item()
        left = exact(total, "Σ p(x|z)", unit="1", method="sum over all images")
        yield equal(left, 1, note=f"G = {pixels}, |logit| ~ {size:g}")
    extreme = Bernoulli().distribution(torch.tensor([[[1e4, -1e4]]], dtype=torch.float64))
    for pixels, score, note in (([1.0, 0.0], 0.0, "certain and right"), ([0.0, 1.0], -2e4, "certain and wrong")):
        image = torch.tensor([[pixels]], dtype=torch.float64)
        yield equal(exact(extreme.log_prob(image).item(), "log p(x|z)"), score, note=f"{note}: finite and exact")


# ── 1b: how many numbers the encoder emits ──────────────────────────────────────────────────────────────────────────


def _emitted(family: Fixed | Diagonal | Full) -> Estimate:
    return exact(math.prod(family.parameter_shape((2,))), "numbers emitted", unit="1", method="count")


def _four_and_five(_seed: int) -> Relations:
    for family in (Diagonal(), Full()):
        yield differ(_emitted(family), 2, note=type(family).__name__)


@statement(
    "1b",
    "For z in the plane the encoder emits 2 numbers with a fixed scale, 4 with a diagonal one, 5 with a full one.",
    latex=r"\dim \mu + \dim \Sigma = 2,\; 2 + 2,\; 2 + 3",
    source="sheet, 1b",
    erratum=Erratum(
        stated=r"\text{the output dimension of the encoder should be } 2",
        right=r"2 \text{ (fixed } \sigma),\quad 4 \text{ (diagonal } \Sigma),\quad 5 \text{ (full } \Sigma)",
        words="Two numbers give the mean. A learned scale must be emitted as well.",
        counter_example=_four_and_five,
    ),
)
def numbers_emitted(seed: int) -> Relations:
    """Count, and check the number of free parameters of the distribution (rank of the map)."""
    for family, numbers in ((Fixed(), 2), (Diagonal(), 4), (Full(), 5)):
        parameters = torch.randn(numbers, dtype=torch.float64, generator=generator_of(seed))
        yield equal(_emitted(family), numbers, note=type(family).__name__)

        def moments(parameters: Tensor, family: Fixed | Diagonal | Full = family) -> Tensor:
            distribution = family.distribution(parameters.unsqueeze(0))
            full = (
                distribution.covariance_matrix
                if isinstance(distribution, MultivariateNormal)
                else torch.diag_embed(distribution.variance)
            )
            return torch.cat([distribution.mean.flatten(), full.flatten()])

        leaf = parameters.requires_grad_()
        jacobian = torch.stack([torch.autograd.grad(m, leaf, retain_graph=True)[0] for m in moments(leaf)])
        rank = exact(int(torch.linalg.matrix_rank(jacobian)), "free parameters", unit="1", method="rank")
        yield equal(rank, numbers, note=type(family).__name__)


# ── 1c: the bound and its gap ──────────────────────────────────────────────────────────────────────────────────────

BOUND = r"\log p_\theta(x) - \left( E_q[\log p_\theta(x|z)] - D_{KL}(q, p(z)) \right) = D_{KL}(q, p_\theta(z|x)) \geq 0"


@statement(
    "1c.linear",
    "The gap of the bound is the divergence from the posterior: linear-Gaussian model, every term in closed form.",
    latex=BOUND,
    source="sheet, 1c; Kingma and Welling 2014, eq. 1",
)
def slack_linear(seed: int) -> Relations:
    """Evidence, posterior and bound by three separate formulas."""
    generator = generator_of(seed)
    for dimension, pixels, scale in ((1, 2, 1.0), (2, 5, 0.5), (3, 20, 0.3), (2, 3, 0.05)):
        model = LinearGaussian.random(dimension, pixels, scale, generator)
        x = model.evidence.mean + torch.randn(pixels, dtype=torch.float64, generator=generator)
        q = random_gaussian(dimension, generator)
        bound = model.expected_log_likelihood(x, q) - kl_divergence(q, model.prior)
        slack = model.evidence.log_prob(x) - bound
        divergence = kl_divergence(q, model.posterior(x))
        note = f"d = {dimension}, G = {pixels}, σ = {scale}"
        yield equal(exact(slack.item(), "log p(x) − ELBO"), divergence.item(), tolerance=1e-8, note=note)
        yield at_least(exact(slack.item(), "log p(x) − ELBO"), 0, note=note)


@statement(
    "1c.finite",
    "The gap of the bound is the divergence from the posterior: latent variable on a finite set, every sum exact.",
    latex=BOUND,
    source="sheet, 1c",
)
def slack_finite(seed: int) -> Relations:
    """Random mixtures of Bernoullis, every image, random q, some of them with zeros."""
    generator = generator_of(seed)
    for components, pixels in ((2, 3), (5, 6), (9, 4)):
        model = random_finite_model(components, pixels, generator)
        x = every_image(pixels)
        q = torch.rand(len(x), components, dtype=torch.float64, generator=generator)
        q[:, 0] *= torch.rand(len(x), generator=generator) > 0.3
        q = q / q.sum(-1, keepdim=True)
        slack = model.log_prob(x) - model.bound(x, q)
        posterior = model.posterior(x).probs
        divergence = (torch.special.xlogy(q, q) - q * posterior.log()).sum(-1)
        gap = largest(slack - divergence, "largest |slack − KL|")
        yield equal(gap, 0, tolerance=1e-10, note=f"K = {components}, {len(x)} images")
        yield at_least(exact(slack.min().item(), "smallest slack"), 0, tolerance=1e-10)


@statement(
    "1c.trained",
    "The gap of the bound is the divergence from the posterior: a VAE trained on digits, by quadrature over the plane.",
    latex=BOUND,
    source="sheet, 1c",
)
def slack_trained(seed: int) -> Relations:
    """Evidence, bound and divergence on separate grids; halving the spacing estimates the error of each."""
    model = reached_by_bound(seed).model
    x = binary_digits(8)
    integrals = (model.log_evidence, model.bound, model.divergence_from_posterior)
    spacings = ((0.12, 0.06), (0.5, 0.25), (0.1, 0.05))
    values = []
    for integral, (coarse, fine) in zip(integrals, spacings, strict=True):
        value = integral(x, fine)
        values.append((value, 1e-9 + (value - integral(x, coarse)).abs()))
    (evidence, error), (bound, bound_error), (divergence, divergence_error) = values
    # An integral that does not converge would agree with anything.
    worst = largest(error + bound_error + divergence_error, "largest error of the three integrals")
    yield at_most(worst, 1e-5, note="halving the spacings")
    for i in range(len(x)):
        slack = Estimate(
            (evidence - bound)[i].item(),
            "log p(x) − ELBO",
            kind="numerical",
            method="quadrature",
            settings={"error": (error + bound_error)[i].item()},
        )
        about = {"error": divergence_error[i].item()}
        right = Estimate(divergence[i].item(), "KL(q, p(z|x))", kind="numerical", method="quadrature", settings=about)
        yield equal(slack, right, note=f"image {i}")
        yield at_least(slack, 0, note=f"image {i}")


# ── 1d, 1g: what a divergence is ────────────────────────────────────────────────────────────────────────────────────


def _distributions(seed: int) -> list[tuple[str, Distribution, Distribution]]:
    generator = generator_of(seed)
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
    "The KL divergence is non-negative, zero for equal distributions and for no others, and not symmetric.",
    latex=r"D_{KL}(p, q) \geq 2\,\mathrm{TV}(p, q)^2, \quad D_{KL}(p, q) = 0 \iff p = q, "
    r"\quad D_{KL}(p,q) \neq D_{KL}(q,p)",
    source="sheet, 1d; Pinsker's inequality for `only then`",
)
def divergence_properties(seed: int) -> Relations:
    """Pinsker's bound is positive whenever the distributions differ, so a zero divergence means equal distributions."""
    for name, p, q in _distributions(seed):
        forward = kl.quadrature(p, q)
        yield at_least(forward, 0, note=name)
        distance = total_variation.quadrature(p, q).value
        yield at_least(forward, 2 * distance**2, note=f"{name}: Pinsker")
        if name == "normals of one scale":
            yield equal(forward, kl.quadrature(q, p), note=f"{name}: symmetric by accident")
        else:
            yield differ(forward, kl.quadrature(q, p), note=f"{name}: not symmetric")
        yield equal(kl.quadrature(p, p), 0, note=f"{name}: with itself")


# ── 1e, 1f: the bound, the likelihood, and what the encoder is for ──────────────────────────────────────────────────


def _bound_of_gaussian(model: LinearGaussian, x: Tensor, q: MultivariateNormal) -> Tensor:
    return model.expected_log_likelihood(x, q) - kl_divergence(q, model.prior)


def _same_optimum(seed: int) -> Relations:
    """Where the family of q holds the posterior, the bound's optimum over q is log p(x) for every θ."""
    generator = generator_of(seed)
    model = LinearGaussian.random(2, 5, 0.5, generator)
    x = model.evidence.mean + torch.randn(5, dtype=torch.float64, generator=generator)
    best = _bound_of_gaussian(model, x, model.posterior(x))
    yield equal(exact(best.item(), "greatest bound"), model.evidence.log_prob(x).item(), tolerance=1e-9)


@statement(
    "1e",
    "Maximizing the bound and maximizing log p(x) differ: the second reaches more nats, for more evaluations.",
    latex=r"\max_\theta \log p_\theta(x) \;\geq\; \log p_{\theta'}(x), "
    r"\quad \theta' = \operatorname{argmax}_{\theta} \max_\phi \mathrm{ELBO}(\theta, \phi)",
    source="sheet, 1e",
    erratum=Erratum(
        stated=r"\text{they will not be the same because log p(x) is more computationally expensive}",
        right=r"\operatorname{argmax}_\theta \left[\log p_\theta(x) - \min_\phi D_{KL}(q_\phi, p_\theta(z|x))\right]"
        r" \neq \operatorname{argmax}_\theta \log p_\theta(x) "
        r"\text{ where } \min_\phi D_{KL} \text{ varies with } \theta",
        words="Cost is not a reason for two maxima to differ. They differ because the gap KL(q, p(z|x)) depends on θ: "
        "the bound prefers decoders whose posteriors the encoder can match. Where the encoder's family contains the "
        "posterior, as in a linear model, the two maxima are equal, whatever they cost.",
        counter_example=_same_optimum,
    ),
)
def bound_against_likelihood(seed: int) -> Relations:
    """Two decoders of one shape and one start, as many steps: by the bound, and by quadrature with no encoder."""
    by_bound, direct = reached_by_bound(seed), reached_directly(seed)
    x = binary_digits(200)
    gain = direct.model.log_evidence(x, 0.1) - by_bound.model.log_evidence(x, 0.1)
    left = Estimate.mean(gain, name="log p(x), direct − by the bound", settings={"stderr_over": "images"})
    yield at_least(left, 0, note="in the end: exact log p(x) of the training images")
    yield differ(left, 0, note="the two optima differ")
    nats, spent = "log p(x), direct", "decoder evaluations, direct"
    for (cost, reached), (direct_cost, direct_reached) in zip(by_bound.path, direct.path, strict=True):
        note = f"after as many steps as {cost} evaluations are by the bound"
        yield at_least(Estimate(direct_reached, nats, kind="numerical", method="quadrature"), reached, note=note)
        yield at_least(exact(direct_cost, spent, unit="1", method="count"), cost, note=note)


def _better_is_higher(seed: int) -> Relations:
    model = LinearGaussian.random(2, 5, 0.5, generator_of(seed))
    x = model.evidence.mean
    good, poor = (_bound_of_gaussian(model, x, q).item() for q in (model.posterior(x), model.prior))
    left = exact(good, "bound of the better q")
    yield differ(left, exact(poor, "bound of the poorer q"))
    yield at_least(left, exact(poor, "bound of the poorer q"), note="the better q has the higher bound")


def _effective_share(posterior: MultivariateNormal, proposal: MultivariateNormal) -> Estimate:
    """ESS/K for large K, E_q[w]²/E_q[w²] = 1/∫ p(z|x)²/q(z) dz: a Gaussian integral.

    0 where it diverges: the weights then have infinite variance, and more draws do not help.
    """
    precision, other = posterior.precision_matrix, proposal.precision_matrix
    inner, shift = 2 * precision - other, posterior.mean - proposal.mean
    if not bool((torch.linalg.eigvalsh(inner) > 0).all()):
        return exact(0, "ESS/K", unit="1")
    # ∫ = |Λ| / (|Λq|^½ |2Λ − Λq|^½) · exp(δᵀ [Λq + Λq (2Λ − Λq)⁻¹ Λq] δ / 2)
    bent = other @ shift
    square = shift @ bent + bent @ torch.linalg.solve(inner, bent)
    log_integral = precision.logdet() - 0.5 * (other.logdet() + inner.logdet()) + 0.5 * square
    return exact((-log_integral).exp().item(), "ESS/K", unit="1")


def _drawn_share(posterior: MultivariateNormal, proposal: MultivariateNormal, seed: int) -> Estimate:
    """The same from draws of the posterior: 1/E_p[p(z|x)/q(z)]."""
    noise = torch.randn(200_000, len(posterior.mean), dtype=torch.float64, generator=generator_of(seed))
    z = posterior.mean + noise @ posterior.scale_tril.T
    mean = Estimate.mean((posterior.log_prob(z) - proposal.log_prob(z)).exp())
    return Estimate(1 / mean.value, "ESS/K", (mean.stderr or 0) / mean.value**2, mean.n, "1", method="monte carlo")


@statement(
    "1f",
    "As a proposal, the encoder keeps its effective sample size; that of the prior falls fast with the dimension of z.",
    latex=r"\mathrm{ESS} = \frac{(\sum_k w_k)^2}{\sum_k w_k^2} \approx \frac{K}{1 + \chi^2(p(z|x), q)},"
    r" \quad w_k = \frac{p(x, z_k)}{q(z_k|x)}",
    source="sheet, 1f; Kong 1992",
    erratum=Erratum(
        stated=r"\text{a better encoder allows us to reduce our lower bound}",
        right=r"\mathrm{ELBO}(q) = \log p(x) - D_{KL}(q, p(z|x)) \text{ rises as } q \text{ improves}",
        words="A better encoder raises the bound toward log p(x), which stays fixed. Sampling needs the decoder alone; "
        "the encoder makes the bound tractable, because it proposes the few z with posterior mass.",
        counter_example=_better_is_higher,
    ),
)
def effective_sample_sizes(seed: int) -> Relations:
    """Linear-Gaussian models of growing d; the encoder is the best diagonal Gaussian, not the posterior itself."""
    for dimension, (prior, encoder) in sample_sizes_by_dimension(seed).items():
        note = f"d = {dimension}"
        yield at_least(encoder.named("ESS/K, encoder"), prior.named("prior"), note=note)
        yield at_least(encoder.named("ESS/K, encoder"), 0.2, note=note)
        yield at_most(prior.named("ESS/K, prior"), 0.5**dimension, note=f"{note}: at most 2^−d")
    model, x = _pixels_of(1, seed)
    posterior = model.posterior(x)
    yield equal(
        _effective_share(posterior, model.prior), _drawn_share(posterior, model.prior, seed), note="drawn, d = 1"
    )


def sample_sizes_by_dimension(seed: int) -> dict[int, tuple[Estimate, Estimate]]:
    """ESS/K of the prior and of the best diagonal Gaussian as proposals, for z of 1 to 16 dimensions."""
    sizes = {}
    for dimension in (1, 2, 4, 8, 16):
        model, x = _pixels_of(dimension, seed)
        posterior = model.posterior(x)
        encoder = MultivariateNormal(posterior.mean, torch.diag(1 / posterior.precision_matrix.diagonal()))
        sizes[dimension] = (_effective_share(posterior, model.prior), _effective_share(posterior, encoder))
    return sizes


def _pixels_of(dimension: int, seed: int) -> tuple[LinearGaussian, Tensor]:
    """A model with as many pixels as an MNIST image, and one image of it."""
    generator = generator_of(seed)
    model = LinearGaussian.random(dimension, 784, 4.0, generator)
    return model, model.evidence.mean + model.weights @ torch.randn(dimension, dtype=torch.float64, generator=generator)
