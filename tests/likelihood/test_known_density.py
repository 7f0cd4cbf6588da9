"""KL divergences between known densities and models, against closed forms of Gaussians."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal, kl_divergence

from latentia.data import Checkerboard, Dirac, Ring
from latentia.distributions import GaussianLearnedScale
from latentia.errors import UnsupportedError
from latentia.likelihood import divergences_from_known
from latentia.likelihood.known_density import _components, _nodes
from latentia.models import VAE


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
    torch.manual_seed(1)
    forward, backward = divergences_from_known(data, vae, draws=400)
    assert (forward.kind, backward.kind) == ("numerical", "estimate")
    truth = kl_divergence(plain, model).item()
    assert abs(forward.value - truth) < min(0.01, forward.settings["error"])
    assert abs(backward.value - kl_divergence(model, plain).item()) < 5 * backward.stderr


def test_mass_outside_of_the_data_makes_the_second_infinite():
    vae, _ = linear_vae()
    _, backward = divergences_from_known(Checkerboard().distribution(), vae, draws=20)
    assert (backward.value, backward.kind, backward.stderr) == (math.inf, "exact", None)


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


def test_a_point_mass_is_refused():
    with pytest.raises(UnsupportedError, match="likelihood='exact'"):
        divergences_from_known(Dirac(point=(0.0, 1.0)).distribution(), linear_vae()[0])
