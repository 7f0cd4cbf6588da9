"""log p(x) for z on spheres, in a model whose posterior is a von Mises-Fisher distribution.

With x = W z + s ε, WᵀW = c I and z uniform on the sphere, p(z|x) ∝ exp(k·z), k = Wᵀx/s², so that everything is known.
"""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from latentia.distributions.sphere import SphereUniform, VonMisesFisherDistribution
from latentia.errors import UnsupportedError
from latentia.likelihood import (
    LatentModel,
    annealed_log_likelihood,
    evaluate_likelihood,
    exact_log_likelihood,
    exact_posterior,
    importance_log_likelihood,
)

PIXELS, LENGTH = 7, 1.3


class SphereModel:
    def __init__(self, d: int, scale: float, images: int = 6):
        torch.manual_seed(d)
        self.d, self.scale = d, scale
        self.weight = LENGTH * torch.linalg.qr(torch.randn(PIXELS, d, dtype=torch.float64))[0]
        self.prior = SphereUniform(torch.zeros(d, dtype=torch.float64))
        z = self.prior.sample(torch.Size([images]))
        # where the chart has its edges: the poles and the cut of the angle
        z[0], z[1] = torch.eye(d).double()[0], torch.eye(d).double()[-1]
        self.images = z @ self.weight.T + scale * torch.randn(images, PIXELS, dtype=torch.float64)
        self.pull = self.images @ self.weight / scale**2

    def decoder(self, z: Tensor) -> Distribution:
        mean = z.double() @ self.weight.T
        return Independent(Normal(mean, torch.full_like(mean, self.scale)), 1)

    def encoder(self, x: Tensor) -> Distribution:
        pull = x.double() @ self.weight / self.scale**2
        length = pull.norm(dim=-1)
        return VonMisesFisherDistribution(pull / length[:, None], 0.5 * length)  # wider than p(z|x)

    @property
    def posterior(self) -> VonMisesFisherDistribution:
        length = self.pull.norm(dim=-1)
        return VonMisesFisherDistribution(self.pull / length[:, None], length)

    @property
    def truth(self) -> Tensor:
        values = []
        with mpmath.workdps(40):
            for x, pull in zip(self.images, self.pull, strict=True):
                k, nu = mpmath.mpf(pull.norm().item()), mpmath.mpf(self.d) / 2 - 1
                half = mpmath.mpf(self.d) / 2
                log_mean = half * mpmath.log(2 * mpmath.pi) + mpmath.log(mpmath.besseli(nu, k)) - nu * mpmath.log(k)
                log_mean -= mpmath.log(2 * mpmath.pi**half / mpmath.gamma(half))
                constant = -0.5 * (float(x @ x) + LENGTH**2) / self.scale**2
                values.append(float(log_mean) + constant - PIXELS * math.log(self.scale * math.sqrt(2 * math.pi)))
        return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(("d", "scale"), [(2, 0.5), (2, 0.01), (3, 0.5), (3, 0.03)])
def test_log_p_on_the_sphere_is_exact_within_its_certificate(d, scale):
    known = SphereModel(d, scale)
    found = exact_log_likelihood(LatentModel(known.decoder, known.prior), known.images, tolerance=1e-4)
    assert (found.errors <= 1e-4).all()
    assert ((found.values - known.truth).abs() <= found.errors).all()
    assert found.estimates()[0].kind == "numerical"


@pytest.mark.parametrize("d", [2, 3])
def test_the_posterior_on_the_sphere_is_known(d):
    known = SphereModel(d, 0.2)
    posterior = exact_posterior(LatentModel(known.decoder, known.prior), known.images, tolerance=1e-5)
    torch.testing.assert_close(posterior.mean, known.posterior.mean, rtol=0, atol=1e-4)
    torch.testing.assert_close(posterior.entropy, known.posterior.entropy(), rtol=0, atol=1e-3)
    torch.testing.assert_close(posterior.rate, kl_divergence(known.posterior, known.prior), rtol=0, atol=1e-3)
    variance = posterior.covariance.diagonal(0, -2, -1)
    torch.testing.assert_close(variance, known.posterior.variance, rtol=0, atol=1e-4)
    assert (posterior.modes[1] >= 1).all()


def test_an_evaluation_on_the_sphere_has_the_known_gap():
    known = SphereModel(3, 0.3, images=40)
    model = LatentModel(known.decoder, known.prior, known.encoder)
    found = {estimate.name: estimate for estimate in evaluate_likelihood(model, known.images).estimates}
    q = known.encoder(known.images)
    z = q.sample(torch.Size([20_000]))
    truth = (q.log_prob(z) - known.posterior.log_prob(z)).mean().item()
    assert abs(found["inference_gap"].value - truth) < 0.02
    assert found["mutual_information"].value > 0


def test_importance_sampling_agrees_and_what_moves_through_space_is_refused():
    known = SphereModel(3, 0.3)
    model = LatentModel(known.decoder, known.prior, known.encoder)
    found = importance_log_likelihood(model, known.images, 4000)
    assert ((found.values - known.truth).abs() < 5 * found.errors + 1e-3).all()
    with pytest.raises(UnsupportedError, match="method='exact'"):
        annealed_log_likelihood(model, known.images)


def test_a_sphere_that_no_grid_serves_is_refused_with_what_serves():
    known = SphereModel(4, 0.5)
    with pytest.raises(UnsupportedError, match="method='importance'"):
        exact_log_likelihood(LatentModel(known.decoder, known.prior), known.images)
    with pytest.raises(UnsupportedError):
        exact_log_likelihood(LatentModel(known.decoder, known.prior), known.images, certificate="proven")
