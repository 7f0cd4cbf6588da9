import copy
import math

import pytest
import torch
from scipy.stats import genpareto
from torch import nn
from torch.distributions import Independent, Normal

from latentia.errors import ConfigurationError, UnsupportedError
from latentia.integration.pareto import fit_generalized_pareto, pareto_k
from latentia.likelihood import (
    LatentModel,
    annealed_log_likelihood,
    evaluate_bound,
    exact_log_likelihood,
    importance_log_likelihood,
)
from latentia.models import VAE

from .known_models import LinearGaussian, narrow_model, toy_images, toy_vae


@pytest.mark.parametrize("shape", [-0.3, 0.2, 0.5, 0.8, 1.2])
def test_the_pareto_fit_recovers_what_scipy_drew(shape):
    y = torch.from_numpy(genpareto.rvs(shape, scale=2.0, size=(200, 500), random_state=1)).sort(-1).values
    k, scale = fit_generalized_pareto(y)
    # The fit's bias is of the order of its variance, 1/M, which 200 repetitions do not resolve.
    assert abs(k.mean() - shape) < 5 * k.std() / math.sqrt(200) + 1 / 500
    assert abs(scale.mean() - 2) < 5 * scale.std() / math.sqrt(200) + 4 / 500


def test_the_shape_of_importance_weights_of_known_tail():
    """Weights u^(−k) have a Pareto tail of shape k exactly."""
    torch.manual_seed(0)
    u = torch.rand(50, 5000, dtype=torch.float64)
    for k in (0.3, 0.7, 1.0):
        found = pareto_k(-k * u.log())
        drawn = (213 * k + 5) / 223  # ten pseudo-observations at ½ and a tail of 213
        assert abs(found.mean() - drawn) < 5 * found.std() / math.sqrt(50) + 0.01


def test_the_shape_of_equal_weights_and_of_few_draws():
    assert pareto_k(torch.zeros(3, 100)).eq(-torch.inf).all()
    assert pareto_k(torch.randn(3, 20)).eq(torch.inf).all()


def test_an_exact_proposal_is_exact():
    linear = LinearGaussian(5)
    result = importance_log_likelihood(linear.vae, linear.images.view(-1, 1, 1, 12), draws=50)
    assert (result.values - linear.truth).abs().max() < 1e-9
    assert result.details["effective_sample_size"].sub(50).abs().max() < 1e-6
    assert "warning" not in result.settings


def test_the_prior_as_proposal_agrees_with_quadrature():
    vae = toy_vae(sharpness=0.3)
    x = toy_images(vae, 20)
    truth = exact_log_likelihood(vae, x, tolerance=1e-3)
    result = importance_log_likelihood(vae, x, draws=4000, proposal="prior")
    assert ((result.values - truth.values).abs() < 5 * result.errors + 1e-3).all()


def test_the_bound_rises_with_the_draws():
    vae = toy_vae()
    x = toy_images(vae, 100)
    truth = exact_log_likelihood(vae, x, tolerance=1e-3).values.mean().item()
    gaps = []
    for draws in (1, 10, 100, 1000):
        values = [importance_log_likelihood(vae, x, draws, proposal="prior", seed=s).values.mean() for s in range(5)]
        gaps.append(truth - torch.stack(values).mean().item())
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 10 * gaps[-1] > 0


def test_a_proposal_that_misses_the_posterior_gives_a_warning():
    model = narrow_model(0.01)
    x = model.decoder(torch.zeros(5, 2)).sample()
    result = importance_log_likelihood(model, x, draws=1000, proposal="prior")
    assert "cannot be trusted" in result.settings["warning"]
    assert "method='exact'" in result.settings["warning"]
    assert (result.details["pareto_k"] > 0.7).all()
    assert result.estimates()[0].settings["warning"]


def test_the_defensive_mixture_bounds_the_weights():
    """A wrong encoder: the estimate is right with draws of the prior and off by nats without them."""
    vae = toy_vae(sharpness=0.3)
    with torch.no_grad():
        vae.posterior.network[-1].bias[:2] += 3
        vae.posterior.network[-1].bias[2:] -= 2
    x = toy_images(vae, 20)
    truth = exact_log_likelihood(vae, x, tolerance=1e-3).values
    alone = importance_log_likelihood(vae, x, draws=2000)
    helped = importance_log_likelihood(vae, x, draws=2000, defensive=0.5)
    assert (alone.values - truth).abs().mean() > 1
    assert ((helped.values - truth).abs() < 5 * helped.errors + 1e-3).all()


def test_the_bootstrap_is_the_standard_error_over_images():
    vae = toy_vae()
    result = importance_log_likelihood(vae, toy_images(vae, 200), draws=20, proposal="prior")
    assert abs(result.settings["bootstrap_stderr"] / result.estimates()[0].stderr - 1) < 5 / math.sqrt(2 * 1000)


def test_the_seed_fixes_the_draws_and_not_the_callers_generator():
    vae = toy_vae()
    x = toy_images(vae, 5)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = importance_log_likelihood(vae, x, draws=10, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.values, importance_log_likelihood(vae, x, draws=10, seed=3).values)
    assert not torch.equal(first.values, importance_log_likelihood(vae, x, draws=10, seed=4).values)


def test_one_draw_does_not_show_its_error():
    vae = toy_vae()
    result = importance_log_likelihood(vae, toy_images(vae, 5), draws=1)
    assert result.errors.eq(torch.inf).all()
    assert "unknown" in result.settings["warning"]
    assert result.estimates()[0].stderr > 0  # over the images


def test_a_model_in_training_mode_is_evaluated_and_left_as_it_was():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    decoder = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Linear(8, 16), nn.Unflatten(1, (1, 4, 4)))
    vae = VAE(encoder, decoder, latent=2, event_shape=(1, 4, 4))
    x = torch.bernoulli(torch.full((6, 1, 4, 4), 0.5))
    wanted = importance_log_likelihood(vae.eval(), x, draws=20).values
    before = copy.deepcopy(vae.train().state_dict())
    assert torch.equal(importance_log_likelihood(vae, x, draws=20).values, wanted)
    annealed_log_likelihood(vae, x, temperatures=3, start="encoder")
    evaluate_bound(vae, x)
    assert all(module.training for module in vae.modules())
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())


@pytest.mark.parametrize("validate", [False, True])
def test_an_encoder_without_an_answer(validate):
    model = narrow_model(0.1)

    def encoder(x):
        place = x[:, :2].clone()
        place[0] = torch.nan
        return Independent(Normal(place, torch.ones_like(place), validate_args=validate), 1, validate_args=False)

    subject = LatentModel(model.decoder, model.prior, encoder)
    x = model.decoder(torch.zeros(5, 2)).sample()
    for method in (importance_log_likelihood, lambda *a: annealed_log_likelihood(*a, start="encoder")):
        with pytest.raises(UnsupportedError, match="proposal='prior'"):
            method(subject, x)


def test_refusals():
    model = narrow_model(0.1)
    x = model.decoder(torch.zeros(5, 2)).sample()
    with pytest.raises(UnsupportedError, match="proposal='prior'"):
        importance_log_likelihood(model, x)
    with pytest.raises(ConfigurationError, match="defensive"):
        importance_log_likelihood(model, x, proposal="prior", defensive=1.0)
    with pytest.raises(UnsupportedError, match="of 5 images were done"):
        importance_log_likelihood(model, x, proposal="prior", seconds=-1.0)
