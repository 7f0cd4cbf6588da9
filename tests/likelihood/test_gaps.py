import math

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Independent, Laplace, Normal, OneHotCategorical

from latentia.distributions import Diagonal, Fixed, Full
from latentia.errors import ConfigurationError, UnsupportedError
from latentia.likelihood import (
    LatentModel,
    evaluate_gaps,
    evaluate_likelihood,
    exact_posterior,
    refit_encoder,
)
from latentia.likelihood.gaps import gaussian_elbo
from latentia.models import VAE

from .known_models import FoldedModel, LinearGaussian, narrow_model, toy_images, toy_vae


@pytest.mark.parametrize("latent", [1, 2])
def test_linear_gaussian_posteriors_are_known(latent):
    linear = LinearGaussian(latent, pixels=6)
    posterior = exact_posterior(linear.model, linear.images, tolerance=1e-6)
    mean, covariance = linear.posterior()
    assert (posterior.mean - mean).abs().max() < 1e-6
    assert (posterior.covariance - covariance).abs().max() < 1e-8
    entropy = 0.5 * torch.logdet(2 * math.pi * math.e * covariance)
    assert (posterior.entropy - entropy).abs().max() < 1e-5
    trace, square = covariance.trace(), mean.square().sum(-1)
    rate = 0.5 * (trace + square - latent - torch.logdet(covariance))
    assert (posterior.rate - rate).abs().max() < 1e-5
    places, counts = posterior.modes
    assert counts.eq(1).all()
    assert (places - mean).abs().max() < 0.7 * covariance.diagonal().sqrt().max()  # a node away at most


def test_a_slice_integrates_to_one_and_has_the_mean_of_the_posterior():
    vae = toy_vae()
    posterior = exact_posterior(vae, toy_images(vae, 4), tolerance=1e-3)
    for image in range(4):
        one = posterior[image]
        weight = one.mass
        assert abs(weight.sum().item() - 1) < 1e-3
        assert ((weight[:, None] * one.z).sum(0) - posterior.mean[image]).abs().max() < 1e-2


def test_posteriors_of_which_none_ends_on_the_first_levels():
    model = narrow_model(0.01)
    torch.manual_seed(0)
    posterior = exact_posterior(model, model.decoder(torch.randn(3, 2)).sample())
    assert posterior.likelihood.details["level"].min() > 2
    assert (posterior.covariance - 1e-4 * torch.eye(2)).abs().max() < 1e-6


def test_an_exact_encoder_leaves_no_gap():
    linear = LinearGaussian(2)
    gaps = evaluate_gaps(linear.vae, linear.images.view(-1, 1, 1, 12), tolerance=1e-6)
    assert gaps.inference.abs().max() < 1e-6
    assert gaps.approximation.abs().max() < 1e-6
    assert 0 <= {e.name: e for e in gaps.estimates()}["approximation_gap"].value < 1e-6


def with_family(family, numbers):
    """The linear-Gaussian model with a wrong diagonal or fixed q: its best q has a closed form."""
    linear = LinearGaussian(2)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, numbers)).double()
    with torch.no_grad():
        encoder[1].weight.zero_()
        encoder[1].bias.fill_(-1.0)
    full = linear.vae
    vae = VAE(
        encoder,
        full.likelihood.network,
        latent=2,
        event_shape=(1, 1, 12),
        posterior=family,
        likelihood=full.likelihood.family,
    )
    return linear, vae.double().eval()


def test_the_best_diagonal_gaussian_is_the_mean_field_solution():
    linear, vae = with_family(Diagonal(), 4)
    mean, covariance = linear.posterior()
    gaps = evaluate_gaps(vae, linear.images.view(-1, 1, 1, 12), tolerance=1e-6)
    # KL(q, p) of the best diagonal q: its precisions are the diagonal of p's precision.
    precision = covariance.inverse()
    approximation = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
    assert (gaps.approximation - approximation).abs().max() < 1e-3
    assert (gaps.mean - mean).abs().max() < 0.05 * covariance.diagonal().sqrt().max()
    assert (gaps.inference - gaps.approximation - gaps.amortization).abs().max() < 1e-9
    assert (gaps.amortization > 0).all()


def test_the_best_gaussian_of_a_fixed_scale():
    linear, vae = with_family(Fixed(scale=0.05), 2)
    _, covariance = linear.posterior()
    gaps = evaluate_gaps(vae, linear.images.view(-1, 1, 1, 12), tolerance=1e-6)
    scale = 0.05**2
    approximation = 0.5 * (scale * covariance.inverse().trace() - 2 - 2 * math.log(scale) + torch.logdet(covariance))
    assert (gaps.approximation - approximation).abs().max() < 1e-3


def test_two_modes_cost_log_two():
    """x = (|z₀|, z₁) + noise: each mode is Gaussian, and a Gaussian q covers one of them."""
    narrow, wide = 0.05, 0.3
    model = FoldedModel(narrow, wide, angle=0.0).model
    x = torch.tensor([[1.0, 0.2], [0.7, -0.3]], dtype=torch.float64)
    place, scale = torch.tensor([[0.1, 0.3]]).double(), torch.tensor([[0.5, 0.4]]).double()

    def encoder(x):
        return Independent(Normal(place.expand(len(x), 2), scale.expand(len(x), 2)), 1)

    gaps = evaluate_gaps(LatentModel(model.decoder, model.prior, encoder), x)
    assert (gaps.approximation - math.log(2)).abs().max() < 2e-3
    # E|z₀| of the encoder's q is the mean of a folded normal.
    m, s = place[0], scale[0]
    folded = s[0] * math.sqrt(2 / math.pi) * (-(m[0] ** 2) / (2 * s[0] ** 2)).exp() + m[0] * torch.erf(
        m[0] / s[0] / 2**0.5
    )
    square = m.square() + s.square()
    misfit = x.square() - 2 * x * torch.stack([folded, m[1]]) + square
    noise = torch.tensor([narrow, wide]).double()
    elbo = (-0.5 * misfit / noise.square() - noise.log() - 0.5 * square - 0.5 * math.log(2 * math.pi)).sum(1)
    elbo = elbo + (s.log() + 0.5).sum()
    truth = FoldedModel(narrow, wide, angle=0.0).truth(x) - elbo
    assert ((gaps.inference - truth).abs() < gaps.errors["inference"]).all()
    assert (gaps.errors["inference"] < 0.002 * truth).all()
    assert (gaps.inference - gaps.approximation - gaps.amortization).abs().max() < 1e-9


LINES = {  # mean of x given z, with its first two moments under N(m, s²)
    "wave": (
        lambda z: torch.sin(20 * z),
        lambda m, s: (math.sin(20 * m) * math.exp(-200 * s**2), 0.5 - 0.5 * math.cos(40 * m) * math.exp(-800 * s**2)),
    ),
    "square": (lambda z: z * z, lambda m, s: (m**2 + s**2, m**4 + 6 * m**2 * s**2 + 3 * s**4)),
    "kink": (
        abs,
        lambda m, s: (
            s * math.sqrt(2 / math.pi) * math.exp(-(m**2) / (2 * s**2)) + m * math.erf(m / s / 2**0.5),
            m**2 + s**2,
        ),
    ),
}


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize(("m", "s"), [(0.0, 1.0), (0.3, 0.01), (1.2, 0.314), (-0.5, 0.1)])
def test_the_bound_of_a_gaussian_is_within_its_error(name, m, s):
    mean, moments = LINES[name]
    noise, x = 0.03, 0.4
    prior = Independent(Normal(torch.zeros(1).double(), torch.ones(1).double()), 1)
    model = LatentModel(lambda z: Independent(Normal(mean(z), noise), 1), prior)
    one = torch.ones(1, 1, dtype=torch.float64)
    value, error = gaussian_elbo(model, x * one, m * one, s**2 * one[None])
    first, second = moments(m, s)
    truth = -0.5 * (x**2 - 2 * x * first + second) / noise**2 - math.log(noise) - 0.5 * math.log(2 * math.pi)
    truth += -0.5 * (m**2 + s**2) + math.log(s) + 0.5
    assert abs(value.item() - truth) <= error.item()
    assert error.item() < 0.05 + 2e-4 * abs(truth)


def test_an_encoder_without_an_answer_for_one_image_leaves_it_out():
    linear = LinearGaussian(2)
    model = linear.model

    def encoder(x):
        place = linear.posterior()[0][: len(x)].clone()
        place[1] = torch.nan
        return Independent(Normal(place, torch.full_like(place, 0.1), validate_args=False), 1, validate_args=False)

    gaps = evaluate_gaps(LatentModel(model.decoder, model.prior, encoder), linear.images[:4])
    assert gaps.finished.tolist() == [0, 2, 3]
    assert all(estimate.settings["not_reached"] == 1 and estimate.n == 3 for estimate in gaps.estimates())
    assert [estimate.kind for estimate in gaps.estimates()] == [
        "lower bound",
        "numerical",
        "upper bound",
        "lower bound",
    ]


def test_a_richer_family_has_a_smaller_approximation_gap():
    base = toy_vae(sharpness=1.0)
    x = toy_images(base, 20)
    gaps = []
    for family, numbers in ((Fixed(scale=0.3), 2), (Diagonal(), 4), (Full(), 5)):
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, numbers))
        vae = VAE(encoder, base.likelihood.network, latent=2, event_shape=(1, 4, 4), posterior=family).eval()
        gaps.append(evaluate_gaps(vae, x).approximation.mean().item())
    assert gaps[0] > gaps[1] > gaps[2] > -0.01


def test_refitting_an_encoder_closes_the_amortization_gap():
    vae = toy_vae(sharpness=1.0)
    x = toy_images(vae, 40)
    before = evaluate_gaps(vae, x)
    for by in ("elbo", "posterior"):
        fitted = refit_encoder(vae, x, by=by, epochs=40, batch_size=20, lr=1e-2)
        after = evaluate_gaps(fitted, x)
        assert after.amortization.mean() < 0.3 * before.amortization.mean()
        # The decoder is the same to the last bit.
        ours = fitted.likelihood.state_dict()
        assert all(torch.equal(ours[name], value) for name, value in vae.likelihood.state_dict().items())
    assert all(parameter.requires_grad for parameter in fitted.parameters())


def test_evaluate_likelihood_by_every_method():
    vae = toy_vae(sharpness=0.5)
    x = toy_images(vae, 20)
    exact = evaluate_likelihood(vae, x, gaps=10)
    names = [e.name for e in exact.estimates]
    wanted = {"log_likelihood", "posterior_entropy", "mutual_information", "active_units", "amortization_gap", "elbo"}
    assert wanted <= set(names)
    assert len(names) == len(set(names))
    assert all(e.kind != "exact" for e in exact.estimates)
    assert exact.arrays["log_likelihood"].shape == (20,)
    assert exact.arrays["gap_inference"].shape == (10,)
    importance = evaluate_likelihood(vae, x, "importance", draws=200)
    annealed = evaluate_likelihood(vae, x, "annealed", temperatures=20, chains=4, simulated=10)
    truth = exact.estimates[0].value
    for found in (importance, annealed):
        assert found.estimates[0].name == "log_likelihood"
        assert found.estimates[0].kind == "lower bound"
        assert found.estimates[0].value < truth + 0.1
        assert found.arrays["stderr"].shape == (20,)
    assert annealed.estimates[-1].name == "bidirectional_gap"
    with pytest.raises(ConfigurationError, match="Did you mean exact"):
        evaluate_likelihood(vae, x, "exakt")


def test_a_gap_that_cannot_be_split_is_sampled():
    linear = LinearGaussian(1, pixels=6)
    model, scale = linear.model, linear.posterior()[1].sqrt().item()
    places = {tuple(x.tolist()): z for x, z in zip(linear.images, linear.posterior()[0], strict=True)}

    def encoder(x):
        place = torch.stack([places[tuple(one.tolist())] for one in x])
        return Independent(Laplace(place, torch.full_like(place, scale)), 1)

    found = evaluate_likelihood(LatentModel(model.decoder, model.prior, encoder), linear.images)
    gap = next(estimate for estimate in found.estimates if estimate.name == "inference_gap")
    # KL of a Laplace distribution to the normal distribution of the same center and scale
    truth = 0.5 * math.log(2 * math.pi) - math.log(2) - 1 + 1
    assert abs(gap.value - truth) < 5 * gap.stderr + gap.error
    assert "Conditional" in gap.settings["not_split"]


def test_a_finite_set_of_codes_is_summed():
    model = LatentModel(
        lambda z: Independent(Bernoulli(logits=z @ torch.tensor([[0.0] * 3, [1.0] * 3, [2.0] * 3])), 1),
        OneHotCategorical(torch.ones(3)),
    )
    x = torch.tensor([[1.0, 1.0, 0.0]])
    chance = torch.tensor([0.0, 1.0, 2.0]).double().sigmoid()
    truth = (chance**2 * (1 - chance)).mean().log().item()
    assert evaluate_likelihood(model, x).estimates[0].value == pytest.approx(truth, abs=1e-6)


def test_gaps_need_a_gaussian_encoder():
    model = narrow_model(0.1)
    with pytest.raises(UnsupportedError, match="encoder"):
        evaluate_gaps(model, torch.zeros(2, 60).double())
