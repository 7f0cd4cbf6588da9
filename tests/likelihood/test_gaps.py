import math

import pytest
import torch
from torch import nn

from latentia.distributions import Diagonal, Fixed, Full
from latentia.errors import ConfigurationError, UnsupportedError
from latentia.likelihood import (
    evaluate_gaps,
    evaluate_likelihood,
    exact_posterior,
    refit_encoder,
)
from latentia.models import VAE

from .known_models import LinearGaussian, narrow_model, toy_images, toy_vae


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
        image_shape=(1, 1, 12),
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


def test_a_richer_family_has_a_smaller_approximation_gap():
    base = toy_vae(sharpness=1.0)
    x = toy_images(base, 20)
    gaps = []
    for family, numbers in ((Fixed(scale=0.3), 2), (Diagonal(), 4), (Full(), 5)):
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, numbers))
        vae = VAE(encoder, base.likelihood.network, latent=2, image_shape=(1, 4, 4), posterior=family).eval()
        gaps.append(evaluate_gaps(vae, x).approximation.mean().item())
    assert gaps[0] > gaps[1] > gaps[2] > -0.01


def test_refitting_an_encoder_closes_the_amortization_gap():
    vae = toy_vae(sharpness=1.0)
    x = toy_images(vae, 100)
    before = evaluate_gaps(vae, x)
    for by in ("elbo", "posterior"):
        fitted = refit_encoder(vae, x, by=by, epochs=40, batch_size=50, lr=1e-2)
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


def test_gaps_need_a_gaussian_encoder():
    model = narrow_model(0.1)
    with pytest.raises(UnsupportedError, match="encoder"):
        evaluate_gaps(model, torch.zeros(2, 60).double())
