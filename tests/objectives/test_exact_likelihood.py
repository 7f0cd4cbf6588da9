import pytest
import torch
from torch import nn

from latentia.distributions import GaussianLearnedScale
from latentia.errors import UnsupportedError
from latentia.estimate import Estimate
from latentia.likelihood import exact_log_likelihood
from latentia.models import VAE
from latentia.objectives import ExactLikelihood, Progress


def tiny(likelihood=None, latent=2):
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(9, 2 * latent))
    decoder = nn.Sequential(nn.Linear(latent, 16), nn.Tanh(), nn.Linear(16, 9), nn.Unflatten(1, (1, 3, 3)))
    return VAE(encoder, decoder, latent=latent, event_shape=(1, 3, 3), likelihood=likelihood)


@pytest.mark.parametrize("likelihood", [None, GaussianLearnedScale()], ids=["bernoulli", "learned scale"])
@pytest.mark.parametrize("latent", [1, 2])
def test_it_is_log_p_of_x(likelihood, latent):
    vae = tiny(likelihood, latent)
    x = vae.sample(20) if likelihood is None else torch.rand(20, 1, 3, 3)
    terms = ExactLikelihood(spacing=0.1, extent=6)(vae, x, Progress())
    exact = exact_log_likelihood(vae, x, tolerance=1e-3)
    assert (terms["bound"] - exact.values).abs().max() < 2e-3
    assert torch.equal(terms["cost"].detach(), -terms["bound"])


@pytest.mark.parametrize("likelihood", [None, GaussianLearnedScale()], ids=["bernoulli", "learned scale"])
def test_its_gradient_is_that_of_log_p(likelihood):
    vae = tiny(likelihood).double()
    x = (torch.rand(5, 1, 3, 3) < 0.5).double()
    objective = ExactLikelihood(spacing=0.2, extent=5, least_weight=0.0)
    torch.manual_seed(1)
    objective(vae, x, Progress())["cost"].sum().backward()
    own = {name: p.grad.clone() for name, p in vae.named_parameters() if p.grad is not None}
    vae.zero_grad()
    torch.manual_seed(1)
    z = objective._lattice(2, x)
    (-(vae.decode(z).log_prob(x[:, None]) + vae.prior.log_prob(z)).logsumexp(-1)).sum().backward()
    wanted = {name: p.grad for name, p in vae.named_parameters() if p.grad is not None}
    assert own.keys() == wanted.keys()
    assert all(torch.allclose(own[name], wanted[name], rtol=1e-9, atol=1e-12) for name in own)
    assert not any(name.startswith("posterior") for name in own)


def test_a_coarse_lattice_is_a_lower_bound_in_expectation():
    vae = tiny()
    with torch.no_grad():
        vae.likelihood.network[2].weight.mul_(30)
    x = vae.sample(30)
    exact = exact_log_likelihood(vae, x, tolerance=1e-3).values
    with torch.no_grad():
        terms = [ExactLikelihood(spacing=1.5, extent=7.5)(vae, x, Progress())["bound"] for _ in range(200)]
    unbiased = (torch.stack(terms).double() - exact).exp()  # of p(x) itself, over the random shift
    for image in range(30):
        assert Estimate.mean(unbiased[:, image]).agrees_with(1.0)
    slack = exact - torch.stack(terms).double().mean(0)
    assert slack.mean() > 0.01


def test_training_with_no_encoder_raises_the_exact_likelihood():
    vae = tiny()
    torch.manual_seed(3)
    x = (torch.rand(200, 1, 3, 3) < torch.linspace(0.05, 0.95, 9).view(1, 3, 3)).float()
    before = exact_log_likelihood(vae, x).values.mean()
    optimizer = torch.optim.Adam(vae.likelihood.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        ExactLikelihood(spacing=0.3)(vae, x, Progress())["cost"].mean().backward()
        optimizer.step()
    assert exact_log_likelihood(vae, x).values.mean() > before + 1


def test_three_dimensions_are_refused():
    with pytest.raises(UnsupportedError, match="iwae"):
        ExactLikelihood()(tiny(latent=3), torch.zeros(2, 1, 3, 3), Progress())
