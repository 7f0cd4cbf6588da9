"""Mutual information and the aggregate posterior, against Gauss-Hermite rules and a regular grid."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal

from latentia.likelihood import LatentModel, aggregate_log_ratio, exact_posterior, information, mutual_information

from .known_models import LinearGaussian, toy_images, toy_vae

NODES, WEIGHTS = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(180))
SETS = {  # posterior means in units of the prior's scale, the posteriors' common scale in such units, the prior's scale
    "one": ([0.3], 0.1, 1.0),
    "one, wide prior": ([0.3], 0.004, 100.0),
    "equal": ([0.5] * 4, 0.1, 1.0),
    "far apart": ([-1.5, -0.5, 0.5, 1.5], 0.002, 1.0),
    "narrow, narrow prior": (np.linspace(-1, 1, 12), 0.0023, 0.01),
    "overlapping": ([-0.5, -0.2, 0.1, 0.3, 0.7], 0.2, 1.0),
    "overlapping, wide prior": ([-0.5, -0.2, 0.1, 0.3, 0.7], 0.2, 100.0),
}


def equal_posteriors(places, scale, prior_scale):
    """A model on the line, x = z + noise, and images whose posteriors are N(place, scale²) in units of the prior's."""
    noise = scale / math.sqrt(1 - scale**2)
    prior = Independent(Normal(torch.zeros(1).double(), torch.full((1,), prior_scale).double()), 1)

    def decoder(z):
        return Independent(Normal(z.double(), torch.full_like(z.double(), noise * prior_scale)), 1)

    x = torch.as_tensor(places, dtype=torch.float64)[:, None] * (1 + noise**2) * prior_scale
    return LatentModel(decoder, prior), x


def known(places, scale):
    """I and KL(p̄, p) by a Gauss-Hermite rule for each image."""
    m = torch.as_tensor(places, dtype=torch.float64)
    z = m[:, None] + scale * NODES  # (N, M)
    log_p = Normal(m[:, None, None], scale).log_prob(z)  # (N of density, N of draw, M)
    gain = log_p.diagonal(dim1=0, dim2=1).T - log_p.logsumexp(0) + math.log(len(m))
    information = ((gain * WEIGHTS).sum(-1) / WEIGHTS.sum()).mean().item()
    rate = (0.5 * (scale**2 - 1 + m.square()) - math.log(scale)).mean().item()
    return information, rate - information


@pytest.mark.parametrize("name", SETS)
def test_gaussian_posteriors(name):
    places, scale, prior_scale = SETS[name]
    model, x = equal_posteriors(places, scale, prior_scale)
    found = mutual_information(exact_posterior(model, x, tolerance=1e-3), x)
    for estimate, truth in zip(found, known(places, scale), strict=True):
        assert abs(estimate.value - truth) < estimate.error + 1e-6
        assert estimate.error < 0.02
        assert estimate.kind == "numerical"
    assert found[0].value <= math.log(len(x)) + 1e-12
    assert found[0].value >= -found[0].error


def test_one_image_has_no_information():
    model, x = equal_posteriors([0.3], 0.1, 1.0)
    assert abs(mutual_information(exact_posterior(model, x), x)[0].value) < 1e-12


@pytest.mark.parametrize("name", ["far apart", "overlapping"])
def test_draws_agree_with_the_truth_within_their_standard_errors(name, monkeypatch):
    monkeypatch.setattr(information, "PRODUCTS", 0)
    places, scale, prior_scale = SETS[name]
    model, x = equal_posteriors(places, scale, prior_scale)
    posterior = exact_posterior(model, x, tolerance=1e-3)
    found = mutual_information(posterior, x)
    for estimate, truth in zip(found, known(places, scale), strict=True):
        assert estimate.stderr is not None
        assert abs(estimate.value - truth) < 5 * estimate.stderr + estimate.error
        assert (estimate.kind, estimate.settings["stderr_over"]) == ("estimate", "draws")
    assert found[0].value + found[1].value == pytest.approx(posterior.rate.mean().item(), abs=1e-9)


def test_a_decoder_in_the_plane_against_a_regular_grid():
    vae = toy_vae(sharpness=3.0).double()
    x = toy_images(vae, 15).double()
    axis = torch.linspace(-5.1, 5.1, 341, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        table = torch.stack([vae.decode(z).log_prob(one) for one in x])  # (15, M)
    prior = vae.prior.log_prob(z) + 2 * math.log(0.03)
    log_posterior = table + prior - (table + prior).logsumexp(1, keepdim=True)
    aggregate = log_posterior.logsumexp(0) - math.log(15)
    divergence = (aggregate.exp() * (aggregate - prior)).sum().item()
    rate = (log_posterior.exp() * (log_posterior - prior)).sum(1).mean().item()
    posterior = exact_posterior(vae, x)
    found = mutual_information(posterior, x)
    assert abs(found[0].value - (rate - divergence)) < found[0].error
    assert abs(found[1].value - divergence) < found[1].error
    some = torch.arange(0, len(z), 1001)
    assert (aggregate_log_ratio(posterior, x, z[some]) - (aggregate - prior)[some]).abs().max() < 0.01


def test_a_linear_gaussian_channel():
    linear = LinearGaussian(1, pixels=6)
    x = torch.from_numpy(linear.x)
    posterior = exact_posterior(linear.model, x, tolerance=1e-3)
    found, aggregate = mutual_information(posterior, x)
    # x is nearly drawn from the model: I(x; z) is that of the channel, and the aggregate posterior is the prior but for
    # the noise of 400 images.
    _, covariance = linear.posterior()
    assert abs(found.value + 0.5 * math.log(covariance.item())) < 5 / math.sqrt(400) + found.error
    assert 0 < aggregate.value < 0.2
