import pytest
import torch
from torch import nn

from latentia.distributions import Bernoulli, Gaussian
from latentia.errors import ConfigurationError, UnsupportedError
from latentia.estimate import Estimate
from latentia.likelihood import LatentModel, annealed_log_likelihood, bidirectional_monte_carlo, exact_log_likelihood

from .known_models import LinearGaussian, narrow_model, standard_normal, toy_vae


@pytest.mark.parametrize("start", ["prior", "encoder"])
def test_linear_gaussian(start):
    linear = LinearGaussian(3, pixels=6)
    images = linear.images.view(-1, 1, 1, 6)
    result = annealed_log_likelihood(linear.vae, images, temperatures=150, chains=32, start=start)
    # The mean of the weights is unbiased, so each image lies within its standard errors of the truth, where the weights
    # have no long tail: with 60 temperatures one seed in ten fails, with 150 none of ten comes beyond half of this.
    assert ((result.values - linear.truth).abs() < 5 * result.errors + 1e-5).all()
    assert result.kind == "lower bound"
    assert 0.5 < result.settings["acceptance"] < 0.9


def test_both_bounds_bracket_the_exact_value_in_the_plane():
    vae = toy_vae(sharpness=1.0)
    both = bidirectional_monte_carlo(vae, count=60, temperatures=60, chains=8)
    exact = exact_log_likelihood(vae, both.images, tolerance=1e-3)
    below, above = Estimate.mean(exact.values - both.lower), Estimate.mean(both.upper - exact.values)
    # Bounds hold in expectation: the mean differences are positive up to noise, and small.
    assert below.value > -5 * below.stderr
    assert above.value > -5 * above.stderr
    assert below.value + above.value < 0.5


def test_more_temperatures_close_the_gap():
    vae = toy_vae(latent=6, pixels=32)
    few, many = (bidirectional_monte_carlo(vae, 40, temperatures, chains=4).estimates()[2] for temperatures in (4, 60))
    assert few.value > 3 * many.value
    assert many.value < 1


@pytest.mark.parametrize("likelihood", [Gaussian(scale=0.2), Bernoulli()], ids=["gaussian", "bernoulli"])
def test_a_generator_with_an_observation_model(likelihood):
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 9), nn.Unflatten(1, (1, 3, 3)))
    model = LatentModel.from_generator(generator, likelihood, standard_normal(2), shape=(1, 3, 3))
    both = bidirectional_monte_carlo(model, count=30, temperatures=40, chains=8)
    exact = exact_log_likelihood(LatentModelWithoutCheck(model), both.images, tolerance=1e-3).values
    assert abs((both.lower - exact).mean()) < 0.3
    assert abs((both.upper - exact).mean()) < 0.3


def LatentModelWithoutCheck(model):
    """The same model without its family's check: draws of a Gaussian leave [0, 1]."""
    return LatentModel(model.decoder, model.prior)


def test_step_sizes_do_not_move_inside_the_estimating_chain():
    """An adapted step inside the chain biases its weights."""
    from latentia.likelihood.annealed import _Plan, _Walk

    vae = toy_vae()
    plan = _Plan(10, chains=4)
    subject, schedule = plan.subject(vae), plan.schedule
    torch.manual_seed(0)
    with torch.no_grad():
        walk = _Walk(subject, torch.ones(3, 1, 4, 4), 4, "prior")
        steps = walk.tune(schedule)
        kept = steps.clone()
        walk.forward(schedule, steps)
    assert steps.shape == (10, 3)
    assert torch.equal(steps, kept)


def test_refusals():
    model = narrow_model(0.1)
    x = model.decoder(torch.zeros(2, 2)).sample()
    with pytest.raises(UnsupportedError, match="start='prior'"):
        annealed_log_likelihood(model, x, start="encoder")
    with pytest.raises(ConfigurationError, match="temperatures"):
        annealed_log_likelihood(model, x, temperatures=0)
    with pytest.raises(UnsupportedError, match="time was up after 0 of 500"):
        annealed_log_likelihood(model, x, seconds=-1.0)
