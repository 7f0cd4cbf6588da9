"""The statements about one trained model, checked on that model and a few images.

    log p(x) − ELBO = KL(q, p(z|x))        (1c)        KL(q, p(z)) in closed form and drawn            (1h)
    ELBO = L₁ ≤ L₁₀ ≤ L₁₀₀ ≤ log p(x)                  C(D*) = log 4 − 2 JSD,  C(D) ≥ C(D*)            (3d)

`checks_of` runs them like any statement. Where a model does not give the numbers, such as log p(x) for z of many
dimensions, the general statement is checked instead, on known distributions.
"""

from __future__ import annotations

__all__ = ["ModelCheck", "checks_of"]

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal
from torch.nn.functional import softplus

from latentia.data import ToyDistribution
from latentia.diagnostics import jensen_shannon_of_densities
from latentia.distributions import Bernoulli
from latentia.divergences import kl
from latentia.estimate import Estimate
from latentia.likelihood import exact_log_likelihood, log_importance_weights
from latentia.likelihood.gaps import gaussian_elbo
from latentia.likelihood.latent_model import LatentModel
from latentia.models import GAN, VAE
from latentia.theory.statement import Check, Relations, Statement, Verdict, at_least, at_most, equal, verify

IMAGES = 4
DRAWS = 2000
COUNTS = (1, 10, 100)  # draws of importance-weighted bounds; they divide DRAWS
WORDS = {
    "1a": "The likelihood of this model is the product of the probabilities of its pixels.",
    "1c.trained": "The gap of this model's bound is the divergence of its q(z|x) from the posterior.",
    "1h.any": "The closed form of KL(q(z|x), p(z)) for this encoder equals the mean over draws of q.",
    "beyond.iwae": "This model's importance-weighted bounds rise with K, and stay below log p(x).",
    "3a": "The cost of this discriminator is the same from logits and from probabilities.",
    "3d": "The best discriminator of this generator costs log 4 − 2 JSD, and this run's discriminator no less.",
    "3d.certificate": "This run's discriminator gives a lower bound: JSD ≥ log 2 − C/2.",
}
PLANE = 2  # dimensions of z up to which log p(x) takes no time


@dataclass(frozen=True)
class ModelCheck:
    """A verdict, and whether it is of this model (`own`) or of the statement in general."""

    verdict: Verdict
    own: bool


def checks_of(
    model: object, images: Tensor, *, toy: ToyDistribution | None = None, seed: int = 0
) -> Iterator[ModelCheck]:
    """Check the statements that apply to this model; none for a model that is neither a `VAE` nor a `GAN`.

    Args:
        model: trained, in evaluation mode.
        images: examples that it was not trained on, (N, *event_shape), as the likelihood scores them or as the
            discriminator takes them. A VAE is checked on the first few.
        toy: the distribution of the data, where it is known.
        seed: of the draws.
    """
    own: dict[str, Check] = {}
    general: list[str] = []
    if isinstance(model, VAE):
        own, general = _of_vae(model, images[:IMAGES])
    elif isinstance(model, GAN) and not model.classes and model.packing == 1:
        own, general = _of_gan(model, images, toy)
    for number, check in enumerate(_statements(own, general)):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            yield ModelCheck(next(verify([check], seed)), number < len(own))


def _statements(own: dict[str, Check], general: list[str]) -> Iterator[Statement]:
    from latentia.theory import statements

    by_item = {known.item: known for known in statements()}
    # An erratum concerns the sheet, not a model.
    yield from (replace(by_item[item], words=WORDS[item], check=check, erratum=None) for item, check in own.items())
    yield from (by_item[item] for item in general)


# ── Variational auto-encoders ───────────────────────────────────────────────────────────────────────────────────────


def _of_vae(vae: VAE, x: Tensor) -> tuple[dict[str, Check], list[str]]:
    subject = LatentModel.from_model(vae)
    subject = subject.in_float64() or subject
    checks: dict[str, Check] = {}
    general: list[str] = []
    if isinstance(vae.likelihood.family, Bernoulli):
        checks["1a"] = lambda _seed: _likelihood_formula(vae, x)
    plane = vae.latent <= PLANE
    gaussian = _is_gaussian(_encode(subject, x[:1]))
    if plane and gaussian:
        checks["1c.trained"] = lambda _seed: _inference_gap(subject, x)
    else:
        general.append("1c.linear")
    if gaussian and _is_gaussian(subject.prior):
        checks["1h.any"] = lambda _seed: _closed_form(subject, x)
    checks["beyond.iwae"] = lambda _seed: _rising_bounds(subject, x, exact=plane)
    return checks, general


def _is_gaussian(distribution: Distribution) -> bool:
    return isinstance(distribution, MultivariateNormal) or (
        isinstance(distribution, Independent) and isinstance(distribution.base_dist, Normal)
    )


def _encode(model: LatentModel, x: Tensor) -> Any:
    assert model.encoder is not None
    return model.encoder(x.to(model.device, model.dtype))


def _likelihood_formula(vae: VAE, x: Tensor) -> Relations:
    """log p(x|z) as the likelihood scores it, and Σ log of the probability that each pixel is as it is."""
    z = vae.encode(x).mean
    scored = vae.decode(z).log_prob(x)
    logits = vae.likelihood.emit(z).double().reshape(x.shape)
    direct = torch.where(x > 0.5, logits, -logits).sigmoid().log().flatten(1).sum(-1)
    rounding = torch.finfo(scored.dtype).eps * x[0].numel()
    for i in range(len(x)):
        value = scored[i].item()
        settings = {"error": rounding * (1 + abs(value))}
        left = Estimate(value, "log p(x|z)", method="as in training", settings=settings)
        right = Estimate(direct[i].item(), "Σ x log ŷ + (1−x) log(1−ŷ)", method="float64", settings={})
        yield equal(left, right, note=f"image {i}, z = E_q z")


def _inference_gap(model: LatentModel, x: Tensor) -> Relations:
    """log p(x) and the bound by quadrature, KL(q, p(z|x)) by draws of q."""
    found = exact_log_likelihood(model, x, tolerance=1e-3)
    q = _encode(model, x)
    mean = q.mean.double()
    covariance = q.covariance_matrix if isinstance(q, MultivariateNormal) else torch.diag_embed(q.variance)
    bound, numerical = gaussian_elbo(model, x, mean, covariance.double(), tolerance=1e-4)
    log_weights = log_importance_weights(model, x, DRAWS)  # (N, DRAWS)
    for i in range(len(x)):
        error = found.errors[i].item() + numerical[i].item()
        gap = found.values[i].item() - bound[i].item()
        settings = {"error": error}
        left = Estimate(gap, "log p(x) − ELBO", kind="numerical", method="quadrature", settings=settings)
        # log q − log p(z|x), with the posterior p(x, z)/p(x)
        divergences = found.values[i] - log_weights[i]
        yield equal(left, Estimate.mean(divergences, name="KL(q, p(z|x))"), note=f"image {i}")
        yield at_least(left, 0, note=f"image {i}")


def _closed_form(model: LatentModel, x: Tensor) -> Relations:
    q = _encode(model, x)
    z = q.sample(torch.Size([DRAWS]))
    drawn = q.log_prob(z) - model.prior.log_prob(z)
    for i in range(len(x)):
        one = _encode(model, x[i : i + 1])
        distribution = (
            MultivariateNormal(one.mean[0], scale_tril=one.scale_tril[0])
            if isinstance(one, MultivariateNormal)
            else Independent(Normal(one.mean[0], one.stddev[0]), 1)
        )
        closed = kl.exact(distribution, model.prior).named("KL(q, p(z)), closed form")
        yield equal(closed, Estimate.mean(drawn[:, i], name="drawn"), note=f"image {i}")


def _rising_bounds(model: LatentModel, x: Tensor, *, exact: bool) -> Relations:
    """Means over the images of importance-weighted bounds, each from its own draws."""
    bounds = []
    for count in COUNTS:
        groups = log_importance_weights(model, x, DRAWS).reshape(len(x), -1, count).logsumexp(-1) - math.log(count)
        bounds.append(Estimate.mean(groups.mean(0), name=f"bound, K = {count}"))
    for lower, higher in pairwise(bounds):
        yield at_most(lower, higher, note=f"mean of {len(x)} images")
    if exact:
        found = exact_log_likelihood(model, x, tolerance=1e-3)
        settings = {"error": found.errors.mean().item()}
        value = found.values.mean().item()
        truth = Estimate(value, "log p(x)", kind="numerical", method="quadrature", settings=settings)
        yield at_most(bounds[-1], truth, note=f"mean of {len(x)} images")


# ── Generative adversarial networks ─────────────────────────────────────────────────────────────────────────────────


def _of_gan(gan: GAN, real: Tensor, toy: ToyDistribution | None) -> tuple[dict[str, Check], list[str]]:
    known = toy is not None and gan.has_density
    checks: dict[str, Check] = {
        "3a": lambda _seed: _cost_formula(gan, real),
        "3d.certificate": lambda _seed: _certificate(gan, real, toy if known else None),
    }
    if known and toy is not None:
        checks["3d"] = lambda _seed: _best_cost(gan, real, toy)
        return checks, []
    return checks, ["3d"]


def _cost(real: Tensor, fake: Tensor, name: str) -> Estimate:
    """C = E_p softplus(−t) + E_q softplus(t), of logits, with its standard error."""
    parts = [Estimate.mean(softplus(t.double())) for t in (-real, fake)]
    error = math.hypot(*(part.stderr or 0.0 for part in parts))
    return Estimate(sum(part.value for part in parts), name, error, len(real), method="monte carlo")


def _cost_formula(gan: GAN, real: Tensor) -> Relations:
    """From probabilities, −E_p log D − E_q log(1 − D), and from logits."""
    logits, faked = gan.discriminate(real).double(), gan.discriminate(gan.sample(len(real))).double()
    value = -(logits.sigmoid().log().mean() + (-faked).sigmoid().log().mean()).item()
    left = Estimate(value, "−E log D − E log(1 − D)", n=len(real), method="from probabilities")
    cost = _cost(logits, faked, "C, of logits")
    yield equal(left, replace(cost, stderr=None), note="the same examples")


def _certificate(gan: GAN, real: Tensor, toy: ToyDistribution | None) -> Relations:
    """The bound by this run's discriminator, against JSD where it is known and against its largest value, log 2."""
    cost = _cost(gan.discriminate(real), gan.discriminate(gan.sample(len(real))), "C")
    certified = Estimate(
        math.log(2) - cost.value / 2, "log 2 − C/2", (cost.stderr or 0.0) / 2, cost.n, kind="lower bound"
    )
    yield at_most(certified, math.log(2), note="JSD ≤ log 2 for any two distributions")
    if toy is not None:
        yield at_most(certified, _divergence(gan, real, toy), note="this discriminator, and both densities")


def _best_cost(gan: GAN, real: Tensor, toy: ToyDistribution) -> Relations:
    """D* from both densities: its cost on fresh draws, and log 4 − 2 JSD."""
    distribution = toy.distribution()

    def best(x: Tensor) -> Tensor:
        return distribution.log_prob(x) - gan.log_prob(x)

    points, fake = distribution.sample(torch.Size([len(real)])), gan.sample(len(real))
    cost = _cost(best(points), best(fake), "C(D*)")
    divergence = _divergence(gan, real, toy)
    value = math.log(4) - 2 * divergence.value
    yield equal(cost, Estimate(value, "log 4 − 2 JSD", 2 * (divergence.stderr or 0.0)), note="separate draws")
    own = _cost(gan.discriminate(real), gan.discriminate(gan.sample(len(real))), "C(D)")
    yield at_least(own, cost, note="no discriminator costs less than D*")


def _divergence(gan: GAN, real: Tensor, toy: ToyDistribution) -> Estimate:
    log_p: Callable[[Tensor], Tensor] = toy.distribution().log_prob
    return jensen_shannon_of_densities(log_p, gan.log_prob, real, gan.sample(len(real)), name="JSD")
