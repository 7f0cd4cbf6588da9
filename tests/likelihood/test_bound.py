import math

import pytest
import torch
from torch import nn

from latentia.distributions import DiscretizedLogisticMixture, Gaussian
from latentia.errors import DataError
from latentia.estimate import exact
from latentia.likelihood import evaluate_bound
from latentia.models import VAE


def model():
    """x = z + noise for three pixels and z ∈ R³, with a wrong encoder: every term has a closed form."""
    torch.manual_seed(0)
    encoder, decoder = (
        nn.Sequential(nn.Flatten(), nn.Linear(3, 6)),
        nn.Sequential(nn.Identity(), nn.Unflatten(1, (1, 1, 3))),
    )
    vae = VAE(encoder, decoder, latent=3, event_shape=(1, 1, 3), likelihood=Gaussian(scale=1.0)).double()
    with torch.no_grad():
        encoder[1].weight.copy_(torch.cat([0.4 * torch.eye(3), torch.zeros(3, 3)]))
        encoder[1].bias.copy_(torch.tensor([0.1, 0, 0, -0.3, -0.3, -0.3]))
    return vae


def test_closed_form():
    vae = model()
    x = 2**0.5 * torch.randn(3000, 1, 1, 3, dtype=torch.float64)
    flat = x.flatten(1)
    mean, scale = 0.4 * flat + torch.tensor([0.1, 0, 0]).double(), torch.tensor(-0.3).double().exp()
    rate = (0.5 * (mean**2 + scale**2 - 1) + 0.3).sum(1).mean().item()
    log_two_pi = torch.log(torch.tensor(2 * torch.pi, dtype=torch.float64))
    distortion = (0.5 * ((flat - mean) ** 2 + scale**2 + log_two_pi)).sum(1).mean().item()
    torch.manual_seed(1)
    elbo, its_rate, its_distortion = evaluate_bound(vae, x, samples=20, batch_size=700)
    # The closed forms are of the same images, and the standard errors are over images.
    assert abs(elbo.value + rate + distortion) < elbo.stderr
    assert abs(its_rate.value - rate) < its_rate.stderr
    assert abs(its_distortion.value - distortion) < its_distortion.stderr
    marginal = torch.distributions.Normal(0.0, 2**0.5).log_prob(flat).sum(1).mean().item()
    assert elbo.at_most(exact(marginal))
    assert elbo.value < marginal


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_names_kinds_and_settings(batch_size):
    elbo, rate, distortion = evaluate_bound(
        model(), torch.zeros(20, 1, 1, 3).double(), samples=3, batch_size=batch_size
    )
    assert [e.name for e in (elbo, rate, distortion)] == ["elbo", "rate", "distortion"]
    assert [e.kind for e in (elbo, rate, distortion)] == ["lower bound", "estimate", "estimate"]
    for estimate in (elbo, rate, distortion):
        assert (estimate.n, estimate.unit, estimate.method) == (20, "nats", "monte carlo")
        assert estimate.settings == {"samples": 3, "stderr_over": "images"}
        assert estimate.stderr > 0
    assert elbo.value == pytest.approx(-(rate.value + distortion.value), abs=1e-12)


def test_the_bound_of_more_draws_is_tighter_and_below_log_p():
    """Its bias is about −Var(w/p)/(2K) (Nowozin 2018), which falls by ten from K = 10 to 100."""
    torch.manual_seed(2)
    vae, x = model(), 2**0.5 * torch.randn(500, 1, 1, 3, dtype=torch.float64)
    truth = torch.distributions.Normal(0.0, 2**0.5).log_prob(x.flatten(1)).sum(1).mean().item()
    found = {k: {e.name: e for e in evaluate_bound(vae, x, samples=20, draws=k)} for k in (10, 100)}
    few, many = (truth - found[k]["iwae"].value for k in (10, 100))
    assert 0 < many < few < truth - found[10]["elbo"].value
    assert 5 < few / many < 20
    assert (found[10]["iwae"].kind, found[10]["iwae"].settings["draws"]) == ("lower bound", 10)


def test_images_of_another_shape_and_a_single_image():
    with pytest.raises(DataError, match="1, 1, 3"):
        evaluate_bound(model(), torch.zeros(2, 1, 3, 1).double())
    assert evaluate_bound(model(), torch.zeros(1, 1, 1, 3).double())[0].stderr is None


def test_eight_bit_pixels_have_bits_per_dimension():
    torch.manual_seed(0)
    shape, likelihood = (1, 8, 8), DiscretizedLogisticMixture(components=2)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    decoder = nn.Sequential(nn.Linear(2, likelihood.parameter_shape(shape)[0] * 64), nn.Unflatten(1, (-1, 8, 8)))
    vae = VAE(encoder, decoder, latent=2, event_shape=shape, likelihood=likelihood)
    images = torch.randint(0, 256, (6, *shape)) / 255
    found = {estimate.name: estimate for estimate in evaluate_bound(vae, images)}
    bits = found["bits_per_dimension"]
    assert bits.kind == "upper bound"
    assert bits.unit == "bits/dimension"
    assert bits.value == pytest.approx(-found["elbo"].value / (64 * math.log(2)))
