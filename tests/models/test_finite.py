"""The finite-latent model: exact against enumeration, and EM that never decreases."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, Independent, Normal

from latentia.errors import DataError
from latentia.models import BernoulliMixture, FiniteLatentModel, fit_bernoulli_mixture


def random_mixture(components: int, pixels: int, seed: int) -> BernoulliMixture:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(components, generator=generator, dtype=torch.float64) + 0.1
    means = torch.rand(components, pixels, generator=generator, dtype=torch.float64).clamp(0.01, 0.99)
    return BernoulliMixture(weights / weights.sum(), means)


def every_image(pixels: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=pixels)), dtype=torch.float64)


@pytest.mark.parametrize(("components", "pixels", "seed"), [(1, 3, 0), (2, 6, 1), (5, 10, 2)])
def test_probabilities_of_all_images_sum_to_one(components: int, pixels: int, seed: int) -> None:
    model = random_mixture(components, pixels, seed)
    assert model.log_prob(every_image(pixels)).exp().sum().item() == pytest.approx(1.0, abs=1e-12)


def test_matrix_product_equals_the_distribution() -> None:
    model = random_mixture(4, 7, 3)
    x = every_image(7)
    distribution = FiniteLatentModel(model.prior, Independent(Bernoulli(probs=model.means), 1))
    torch.testing.assert_close(model.log_joint(x), distribution.log_joint(x), rtol=1e-12, atol=1e-12)


def test_bound_is_tight_at_the_posterior_and_below_elsewhere() -> None:
    model = random_mixture(4, 6, 4)
    x = every_image(6)
    posterior = model.posterior(x).probs
    torch.testing.assert_close(model.bound(x, posterior), model.log_prob(x), rtol=0, atol=1e-12)
    q = torch.rand(len(x), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(-1)
    slack = model.log_prob(x) - model.bound(x, q)
    divergence = (q * (q / posterior).log()).sum(-1)
    torch.testing.assert_close(slack, divergence, rtol=0, atol=1e-12)
    assert bool((slack > 0).all())


def test_bound_takes_a_q_with_zeros() -> None:
    model = random_mixture(3, 4, 5)
    x = every_image(4)
    q = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).expand(len(x), 3)
    torch.testing.assert_close(model.bound(x, q), model.log_joint(x)[:, 0])


def test_samples_come_from_the_distribution() -> None:
    torch.manual_seed(0)
    model = random_mixture(3, 2, 6)
    x = every_image(2)
    drawn = model.sample(40_000)
    counts = (drawn.unsqueeze(1) == x).all(-1).double().mean(0)
    p = model.log_prob(x).exp()
    assert bool(((counts - p).abs() < 5 * (p * (1 - p) / 40_000).sqrt()).all())


def test_em_never_decreases_on_digits() -> None:
    from latentia.data import Digits

    source = Digits(binarize="threshold")
    images = source.load().examples("train").x.flatten(1)
    fit = fit_bernoulli_mixture(images, components=20, steps=40)
    gains = torch.tensor(fit.log_likelihoods).diff()
    assert float(gains.min()) >= -1e-12
    assert fit.log_likelihoods[-1] > fit.log_likelihoods[0] + 5
    assert fit.model.prior.probs.sum().item() == pytest.approx(1)


def test_em_recovers_a_mixture_that_made_the_data() -> None:
    torch.manual_seed(1)
    means = torch.tensor([[0.9, 0.9, 0.9, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.9, 0.9, 0.9]], dtype=torch.float64)
    truth = BernoulliMixture(torch.tensor([0.3, 0.7], dtype=torch.float64), means)
    x = truth.sample(20_000).double()
    fit = fit_bernoulli_mixture(x, components=2, steps=100, seed=3)
    gain = (fit.model.log_prob(x) - truth.log_prob(x)).mean().item()
    assert 0 <= gain < 30 / len(x), "maximum likelihood beats the truth by about parameters/(2N)"


def test_refusals_name_the_cure() -> None:
    with pytest.raises(DataError, match="binarize"):
        fit_bernoulli_mixture(torch.full((5, 3), 0.5), components=2)
    with pytest.raises(DataError, match="at least as many"):
        fit_bernoulli_mixture(torch.zeros(2, 3), components=3)
    with pytest.raises(ValueError, match="one for each value"):
        FiniteLatentModel(Categorical(torch.ones(3)), Normal(torch.zeros(2), torch.ones(2)))
