"""KL divergences between known densities and models, against closed forms of Gaussians."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal, kl_divergence

from latentia import VAERecipe
from latentia.data import Checkerboard, Dirac, Mixture1D, Moons, Ring
from latentia.distributions import GaussianLearnedScale
from latentia.errors import UnsupportedError
from latentia.likelihood import LatentModel, divergences_from_known
from latentia.likelihood.known_density import _components, _integrated, _nodes, _sampled
from latentia.models import VAE
from latentia.networks import MLP


def linear_vae(scale=0.7):
    """A VAE of the plane whose p(x) is N(b, W Wᵀ + scale² 1)."""
    torch.manual_seed(0)
    vae = VAE(
        torch.nn.Linear(2, 4),
        torch.nn.Linear(2, 2),
        latent=2,
        event_shape=(2,),
        likelihood=GaussianLearnedScale(initial_scale=scale),
    ).eval()
    weight, bias = vae.likelihood.network.weight.detach(), vae.likelihood.network.bias.detach()
    return vae, MultivariateNormal(bias, weight @ weight.T + scale**2 * torch.eye(2))


def gaussian(center=(0.3, -0.5), scale=0.6):
    component = Independent(Normal(torch.tensor([center]), scale * torch.ones(1, 2)), 1)
    plain = MultivariateNormal(torch.tensor(center), scale**2 * torch.eye(2))
    return MixtureSameFamily(Categorical(torch.ones(1)), component), plain


def test_both_directions_are_those_of_gaussians():
    (vae, model), (data, plain) = linear_vae(), gaussian()
    found = divergences_from_known(data, vae)
    for estimate, truth in zip(found, (kl_divergence(plain, model), kl_divergence(model, plain)), strict=True):
        assert estimate.kind == "numerical"
        assert abs(estimate.value - truth.item()) < min(0.01, estimate.settings["error"] + 1e-6)


@pytest.mark.parametrize(
    ("latent", "likelihood", "prior"),
    [
        (1, "gaussian-learned", "normal"),
        (2, "gaussian-per-column", {"type": "mixture", "components": 3}),
    ],
)
def test_the_integral_over_the_model_is_the_mean_over_its_draws(latent, likelihood, prior):
    """A decoder with kinks; draws of the model are an estimate that does not use the grid of x."""
    recipe = VAERecipe(
        data=Moons(), latent=latent, network=MLP(hidden=(16,)), likelihood=likelihood, prior=prior, seed=3
    )
    torch.manual_seed(3)
    vae = recipe.build(recipe.data.load().schema).eval()
    with torch.no_grad():
        for weights in vae.likelihood.network.parameters():
            weights.mul_(3)
    data = Moons(sigma=0.5).distribution()
    integral = _integrated(LatentModel.from_model(vae), *_components(data), 60)
    torch.manual_seed(4)
    mean = _sampled(LatentModel.from_model(vae), data, 100, 60)
    assert (integral.kind, mean.kind) == ("numerical", "estimate")
    assert abs(integral.value - mean.value) < 5 * mean.stderr


def test_points_on_the_line_are_integrated_too():
    vae = VAE(
        torch.nn.Linear(1, 2),
        torch.nn.Linear(1, 1),
        latent=1,
        event_shape=(1,),
        likelihood=GaussianLearnedScale(initial_scale=0.5),
    ).eval()
    weight, bias = vae.likelihood.network.weight.item(), vae.likelihood.network.bias.item()
    model, data = Normal(bias, math.hypot(weight, 0.5)), Mixture1D(means=(0.2,), sigmas=(0.7,), weights=(1.0,))
    backward = divergences_from_known(data.distribution(), vae)[1]
    truth = kl_divergence(model, Normal(0.2, 0.7)).item()
    assert backward.value == pytest.approx(truth, abs=1e-5)
    assert backward.kind == "numerical"


def test_heavy_tails_are_sampled():
    """A grid would leave out tails that the data's density makes count."""
    recipe = VAERecipe(data=Moons(), network=MLP(hidden=(4,)), likelihood="student-t")
    vae = recipe.build(recipe.data.load().schema).eval()
    assert _integrated(LatentModel.from_model(vae), *_components(Moons().distribution()), 60) is None


def test_three_latent_dimensions_are_sampled():
    torch.manual_seed(0)
    likelihood = GaussianLearnedScale(initial_scale=0.7)
    vae = VAE(torch.nn.Linear(2, 6), torch.nn.Linear(3, 2), latent=3, event_shape=(2,), likelihood=likelihood).eval()
    weight, bias = vae.likelihood.network.weight.detach(), vae.likelihood.network.bias.detach()
    model = MultivariateNormal(bias, weight @ weight.T + 0.49 * torch.eye(2))
    data, plain = gaussian()
    mean = _integrated(LatentModel.from_model(vae), *_components(data), 60) or _sampled(
        LatentModel.from_model(vae), data, 50, 60
    )
    assert mean.kind == "estimate"
    assert abs(mean.value - kl_divergence(model, plain).item()) < 5 * mean.stderr


@pytest.mark.parametrize(("toy", "order"), [(Ring(), 5), (Checkerboard(), 4)])
def test_nodes_integrate_moments_of_the_data(toy, order):
    """Means of 1, x₀², and x₀² x₁² by the rule are those of many draws."""
    data = toy.distribution()
    x, weights = _nodes(*_components(data), order)
    torch.manual_seed(0)
    draws = data.sample((200_000,)).double()
    assert weights.sum().item() == pytest.approx(1)
    for function in (lambda x: x[:, 0].square(), lambda x: x.square().prod(1)):
        values = function(draws)
        assert abs((weights * function(x)).sum() - values.mean()) < 5 * values.std() / math.sqrt(len(draws))


def test_the_integral_over_a_checkerboard_is_the_mean_over_its_points():
    """The model has mass where the data have none, so that the second divergence is infinite."""
    vae, model = linear_vae()
    data = Checkerboard().distribution()
    forward, backward = divergences_from_known(data, vae, draws=20)
    assert (backward.value, backward.kind, backward.stderr) == (math.inf, "exact", None)
    torch.manual_seed(0)
    x = data.sample((100_000,))
    terms = (-math.log(8) - model.log_prob(x)).double()  # eight squares of side 1
    assert abs(forward.value - terms.mean().item()) < 5 * terms.std().item() / math.sqrt(len(x))


def test_a_point_mass_is_refused():
    with pytest.raises(UnsupportedError, match="likelihood='exact'"):
        divergences_from_known(Dirac(point=(0.0, 1.0)).distribution(), linear_vae()[0])
