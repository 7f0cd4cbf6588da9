"""von Mises-Fisher posteriors on spheres, against mpmath, SciPy and closed forms."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import kl_divergence

from latentia.distributions import Diagonal, UniformSphere, VonMisesFisher, log_density, require_same_space
from latentia.distributions.sphere import SphereUniform, VonMisesFisherDistribution, bessel_ratio
from latentia.errors import ConfigurationError
from latentia.estimate import Estimate
from latentia.models import VAE

DIMENSIONS = [2, 3, 4, 5, 11, 40]
KAPPAS = [1e-9, 1e-3, 0.7, 15.9, 16.1, 90.0, 1500.0, 1e5, 1e7]
N = 40_000


def resultant(kappa, d):
    nu = mpmath.mpf(d) / 2 - 1
    return mpmath.besseli(nu + 1, kappa) / mpmath.besseli(nu, kappa)


def log_normalizer(kappa, d):
    nu = mpmath.mpf(d) / 2 - 1
    bessel = mpmath.log(mpmath.besseli(nu, kappa))
    return nu * mpmath.log(kappa) - mpmath.mpf(d) / 2 * mpmath.log(2 * mpmath.pi) - bessel


def vmf(kappa: float, d: int, requires_grad: bool = False) -> tuple[VonMisesFisherDistribution, Tensor, Tensor]:
    torch.manual_seed(d)
    direction = torch.randn(d, dtype=torch.float64, requires_grad=requires_grad)
    concentration = torch.tensor(kappa, dtype=torch.float64, requires_grad=requires_grad)
    mean = direction / direction.norm()
    return VonMisesFisherDistribution(mean, concentration), direction, concentration


@pytest.mark.parametrize("d", DIMENSIONS)
def test_bessel_functions_are_mpmaths(d):
    with mpmath.workdps(40):
        for kappa in KAPPAS:
            ratio, share, log_bessel = bessel_ratio(torch.tensor([kappa], dtype=torch.float64), d)
            given = mpmath.mpf(kappa)
            truth = resultant(given, d)
            nu = mpmath.mpf(d) / 2 - 1
            scaled = mpmath.log(mpmath.besseli(nu, given)) - nu * mpmath.log(given) - given
            assert ratio.item() == pytest.approx(float(truth), rel=1e-13)
            assert share.item() == pytest.approx(float(truth / given), rel=1e-13)
            assert log_bessel.item() == pytest.approx(float(scaled), rel=1e-13, abs=1e-13)


@pytest.mark.parametrize("d", DIMENSIONS)
def test_the_rate_and_its_gradient_are_mpmaths(d):
    for kappa in KAPPAS:
        q, _, concentration = vmf(kappa, d, requires_grad=True)
        prior = SphereUniform(torch.zeros(d, dtype=torch.float64))
        rate = kl_divergence(q, prior)
        (slope,) = torch.autograd.grad(rate, concentration)
        with mpmath.workdps(60):
            given = mpmath.mpf(kappa)
            log_area = mpmath.log(2 * mpmath.pi ** (mpmath.mpf(d) / 2) / mpmath.gamma(mpmath.mpf(d) / 2))
            truth = given * resultant(given, d) + log_normalizer(given, d) + log_area
            a = resultant(given, d)
            derivative = given * (1 - a**2 - (d - 1) * a / given)
        assert rate.item() == pytest.approx(float(truth), rel=1e-9, abs=1e-12)
        assert slope.item() == pytest.approx(float(derivative), rel=1e-4, abs=1e-15)


@pytest.mark.parametrize("d", [2, 3, 5, 11])
@pytest.mark.parametrize("kappa", [0.01, 2.0, 300.0])
def test_density_and_entropy_are_scipys(d, kappa):
    q, *_ = vmf(kappa, d)
    oracle = stats.vonmises_fisher(q.loc.numpy(), kappa)
    z = SphereUniform(torch.zeros(d, dtype=torch.float64)).sample(torch.Size([20]))
    np.testing.assert_allclose(q.log_prob(z).numpy(), oracle.logpdf(z.numpy()), atol=1e-8)
    assert q.entropy().item() == pytest.approx(float(oracle.entropy()), abs=1e-7)


@pytest.mark.parametrize("d", [2, 3, 4, 11])
@pytest.mark.parametrize("kappa", [1e-6, 1.0, 40.0, 1e6])
def test_draws_have_the_angle_of_the_density_and_the_known_moments(d, kappa):
    q, *_ = vmf(kappa, d)
    torch.manual_seed(1)
    z = q.sample(torch.Size([N]))
    assert (z.norm(dim=-1) - 1).abs().max() < 1e-9
    assert Estimate.mean(1 - z @ q.loc).agrees_with(1 - bessel_ratio(q.concentration, d)[0].item())
    direction = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64))[0][0]
    middle = (direction @ q.mean).item()
    assert Estimate.mean(z @ direction).agrees_with(middle)
    for axis in range(2):
        spread = (z[:, axis] - q.mean[axis]).square()
        assert Estimate.mean(spread).agrees_with(q.variance[axis].item())
    width = min(math.pi, 40 / math.sqrt(kappa) * math.sqrt(d))
    angle = np.linspace(0, width, 200_001)
    with np.errstate(divide="ignore"):
        log_density = (d - 2) * np.log(np.sin(angle)) if d > 2 else np.zeros_like(angle)
    density = np.exp(log_density - 2 * kappa * np.sin(angle / 2) ** 2 - np.nanmax(log_density[1:]))
    cumulative = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    drawn = 2 * np.arcsin(np.clip((z - q.loc).norm(dim=-1).numpy() / 2, 0, 1))
    found = stats.kstest(drawn[:5000], lambda a: np.interp(a, angle, cumulative / cumulative[-1]))
    assert found.pvalue > 1e-4


@pytest.mark.parametrize("d", [2, 3, 4, 11])
@pytest.mark.parametrize("kappa", [0.5, 8.0, 2000.0])
def test_draws_carry_the_gradient_of_an_expectation(d, kappa):
    """E[a·z + (b·z)²] = A a·μ + (A/κ)|b|² + (1 − d A/κ)(b·μ)², whose derivatives mpmath and autograd give."""
    torch.manual_seed(3)
    a, b = torch.randn(2, d, dtype=torch.float64)
    q, direction, concentration = vmf(kappa, d, requires_grad=True)
    rows = []
    for seed in range(50):
        torch.manual_seed(seed)
        z = q.rsample(torch.Size([400]))
        value = (z @ a + (z @ b).square()).mean()
        slopes = torch.autograd.grad(value, [concentration, direction], retain_graph=True)
        rows.append(torch.cat([slope.reshape(-1) for slope in slopes]))
    found = torch.stack(rows)

    def closed(given):
        ratio = resultant(given, d)
        mean = (q.loc.detach() @ a).item(), (q.loc.detach() @ b).item()
        return ratio * mean[0] + ratio / given * float(b @ b) + (1 - d * ratio / given) * mean[1] ** 2

    with mpmath.workdps(40):
        slope = float(mpmath.diff(closed, mpmath.mpf(kappa)))
    assert Estimate.mean(found[:, 0]).agrees_with(slope)
    mean = direction / direction.norm()
    ratio, share, _ = bessel_ratio(concentration.detach(), d)
    (truth,) = torch.autograd.grad(ratio * (mean @ a) + (1 - d * share) * (mean @ b).square(), direction)
    for axis in range(d):
        assert Estimate.mean(found[:, 1 + axis]).agrees_with(truth[axis].item())


def test_float32_draws_lie_on_the_sphere_and_in_the_support():
    direction = torch.nn.functional.normalize(torch.randn(50, 2), dim=-1)
    z = VonMisesFisherDistribution(direction, torch.full((50,), 1e-4)).sample(torch.Size([4000]))
    assert (z.norm(dim=-1) - 1).abs().max() < 1e-6
    assert torch.isfinite(log_density(SphereUniform(torch.zeros(2)), z)).all()


def test_float32_draws_of_narrow_posteriors_keep_their_density():
    q, *_ = vmf(1e5, 3)
    narrow = VonMisesFisherDistribution(q.loc.float(), q.concentration.float())
    torch.manual_seed(0)
    z = narrow.sample(torch.Size([1000]))
    assert (narrow.log_prob(z).double() - q.log_prob(z.double())).abs().max() < 0.2
    assert (narrow.log_prob(z).mean() + narrow.entropy()).abs() < 0.2


@pytest.mark.parametrize(
    ("posterior", "prior", "latent", "cure"),
    [
        (VonMisesFisher(), None, 3, "prior=sphere"),
        (Diagonal(), UniformSphere(), 3, "prior=normal, or posterior=von-mises-fisher"),
        (VonMisesFisher(), UniformSphere(), 1, "latent=2"),
    ],
    ids=["no sphere", "no posterior on it", "two points"],
)
def test_spaces_that_do_not_match_are_refused_with_the_cure(posterior, prior, latent, cure):
    with pytest.raises(ConfigurationError, match=cure):
        VAE(torch.nn.Identity(), torch.nn.Identity(), latent=latent, event_shape=(4,), posterior=posterior, prior=prior)


def test_the_sphere_matches_its_posterior():
    require_same_space(VonMisesFisher(), UniformSphere(), 2)  # raises if they differ
    assert VonMisesFisher().space(2) == UniformSphere().space(2) != "R^2"
