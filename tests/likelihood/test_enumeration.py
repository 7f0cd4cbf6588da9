"""Models with discrete z, against plain loops over every code, SciPy's optimizer and counting."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import Tensor, nn

from latentia.distributions import CategoricalPosterior, CategoricalPrior
from latentia.errors import UnsupportedError
from latentia.estimate import Estimate
from latentia.likelihood import (
    annealed_log_likelihood,
    evaluate_bound,
    evaluate_likelihood,
    exact_log_likelihood,
    importance_log_likelihood,
)
from latentia.likelihood.enumeration import enumerate_posterior
from latentia.likelihood.importance import simulated_bounds
from latentia.models import VAE
from latentia.objectives import ELBO, IWAE, ExactLikelihood, Progress

PIXELS = 7


def code_vae(variables: int, values: int, seed: int = 0) -> VAE:
    """A model with sharp posteriors, in float64."""
    torch.manual_seed(seed)
    latent = variables * values
    encoder = nn.Sequential(nn.Linear(PIXELS, latent))
    decoder = nn.Sequential(nn.Linear(latent, 16), nn.Tanh(), nn.Linear(16, PIXELS))
    vae = VAE(
        encoder, decoder, latent=latent, event_shape=(PIXELS,), posterior=CategoricalPosterior(variables=variables),
        prior=CategoricalPrior(variables=variables, learned=True),
    ).double()  # fmt: skip
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(torch.randn_like(parameter))
    return vae.eval()


def data(n: int = 12) -> Tensor:
    return torch.bernoulli(
        torch.full((n, PIXELS), 0.5, dtype=torch.float64), generator=torch.Generator().manual_seed(1)
    )


def table(vae: VAE, x: Tensor, variables: int, values: int) -> np.ndarray:
    """log p(x, z) of every code, (N, M), by a loop."""
    rows = []
    with torch.no_grad():
        for code in itertools.product(range(values), repeat=variables):
            z = torch.cat([torch.eye(values, dtype=torch.float64)[value] for value in code])
            rows.append(vae.decode(z).log_prob(x) + vae.prior.log_prob(z))
    return torch.stack(rows, 1).numpy()


@pytest.mark.parametrize(("variables", "values"), [(1, 6), (3, 3)])
def test_everything_is_the_sum_over_all_codes(variables, values):
    vae, x = code_vae(variables, values), data()
    joint = table(vae, x, variables, values)
    truth = np.log(np.exp(joint).sum(1))
    found = exact_log_likelihood(vae, x)
    np.testing.assert_allclose(found.values, truth, atol=1e-10)
    posterior = np.exp(joint - truth[:, None])
    with torch.no_grad():
        q = np.exp(vae.encode(x).log_probs().numpy())  # pyright: ignore[reportAttributeAccessIssue]
    gap = (q * (np.log(q) - np.log(posterior))).sum(1)
    estimates = {estimate.name: estimate for estimate in evaluate_likelihood(vae, x).estimates}
    assert estimates["log_likelihood"].value == pytest.approx(truth.mean(), abs=1e-10)
    assert estimates["inference_gap"].value == pytest.approx(gap.mean(), abs=1e-8)
    assert estimates["elbo"].value == pytest.approx((truth - gap).mean(), abs=1e-8)
    assert estimates["posterior_entropy"].value == pytest.approx(
        -(posterior * np.log(posterior)).sum(1).mean(), abs=1e-8
    )
    aggregate = posterior.mean(0)
    information = (posterior * np.log(posterior / aggregate)).sum(1).mean()
    assert estimates["mutual_information"].value == pytest.approx(information, abs=1e-8)
    assert estimates["inference_gap"].kind == "exact"
    torch.manual_seed(0)
    sampled = next(e for e in evaluate_bound(vae, x, samples=2000) if e.name == "elbo")
    assert abs(sampled.value - estimates["elbo"].value) < 0.2


def test_with_one_variable_the_family_has_every_q_and_the_gap_is_all_amortization():
    estimates = {e.name: e for e in evaluate_likelihood(code_vae(1, 6), data()).estimates}
    assert estimates["approximation_gap"].value == 0
    assert estimates["amortization_gap"].value == pytest.approx(estimates["inference_gap"].value)
    assert estimates["approximation_gap"].kind == "exact"


def test_the_best_independent_q_is_scipys():
    """Minimize KL over the logits of two variables of three values, from many starts."""
    vae, x = code_vae(2, 3), data(4)
    joint = torch.from_numpy(table(vae, x, 2, 3))
    found = enumerate_posterior(vae, x).approximation_gap
    for row in range(4):
        target = joint[row].log_softmax(0).view(3, 3).numpy()

        def divergence(numbers, target=target):
            parts = [part - np.logaddexp.reduce(part) for part in numbers.reshape(2, 3)]
            log_q = parts[0][:, None] + parts[1]
            return float((np.exp(log_q) * (log_q - target)).sum())

        starts = np.random.default_rng(0).normal(size=(20, 6)) * 3
        best = min(optimize.minimize(divergence, start, method="BFGS").fun for start in starts)
        assert found[row].item() >= best - 1e-6  # an upper bound of the approximation gap
        assert found[row].item() == pytest.approx(best, abs=1e-4)


def test_the_multiplier_is_one_minus_log_p_wherever_the_ascent_starts():
    vae, x = code_vae(2, 3), data()
    found = enumerate_posterior(vae, x)
    multiplier, spread = found.multiplier()
    truth = 1 - np.log(np.exp(table(vae, x, 2, 3)).sum(1))
    np.testing.assert_allclose(multiplier, truth, atol=1e-9)
    assert spread.max() < 1e-9
    estimates = {e.name: e for e in found.estimates()}
    assert estimates["lagrange_multiplier"].value == pytest.approx(truth.mean(), abs=1e-9)


@pytest.mark.parametrize(("variables", "values"), [(1, 6), (3, 3)])
def test_simulated_bounds_enclose_log_p(variables, values):
    vae = code_vae(variables, values)
    lower, upper = simulated_bounds(vae, 400, draws=30, seed=3)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        z = vae.prior.sample(torch.Size([400]))
        x = vae.decode(z).sample()
    truth = torch.from_numpy(np.log(np.exp(table(vae, x, variables, values)).sum(1)))
    below, above = Estimate.mean(truth - lower), Estimate.mean(upper - truth)
    assert below.stderr is not None
    assert above.stderr is not None
    assert below.value > -5 * below.stderr
    assert above.value > -5 * above.stderr
    assert below.value + above.value > 0.01  # the bounds are apart, so that their order says something
    wide = simulated_bounds(vae, 400, draws=3, seed=3)
    assert (wide[1] - wide[0]).mean() > (upper - lower).mean()


@pytest.mark.parametrize("variables", [1, 3])
def test_gradients_by_enumeration_and_by_score_agree_and_differ_from_straight_through(variables):
    vae, x = code_vae(variables, 3), data()
    late = Progress(epoch=100)

    def gradient(objective, repetitions):
        rows, copies = [], x if repetitions == 1 else x.repeat(25, 1)
        for seed in range(repetitions):
            torch.manual_seed(seed)
            cost = objective(vae, copies, late)["cost"].mean()
            slopes = torch.autograd.grad(cost, list(vae.posterior.parameters()))
            rows.append(torch.cat([slope.flatten() for slope in slopes]))
        return torch.stack(rows)

    exact = gradient(ELBO(gradient="enumerated"), 1)[0]
    score = gradient(ELBO(gradient="score", samples=4), 60)
    z = (score.mean(0) - exact).abs() / (score.std(0) / math.sqrt(len(score))).clamp_min(1e-12)
    assert z.max() < 5
    relaxed = gradient(ELBO(gradient="straight-through", samples=4), 60)
    bias = (relaxed.mean(0) - exact).abs() / (relaxed.std(0) / math.sqrt(len(relaxed))).clamp_min(1e-12)
    assert bias.max() > 5  # the documented bias
    assert torch.nn.functional.cosine_similarity(relaxed.mean(0), exact, dim=0) > 0.5


def test_the_gradient_of_the_enumerated_bound_is_a_difference_quotient():
    vae, x = code_vae(2, 3), data()
    weight = next(vae.likelihood.parameters())
    objective = ELBO(gradient="enumerated")
    (slope,) = torch.autograd.grad(objective(vae, x, Progress())["cost"].mean(), weight)
    with torch.no_grad():
        weight[0, 0] += 1e-6
        up = objective(vae, x, Progress())["cost"].mean()
        weight[0, 0] -= 2e-6
        down = objective(vae, x, Progress())["cost"].mean()
    assert slope[0, 0].item() == pytest.approx((up - down).item() / 2e-6, abs=1e-6)


def test_exact_maximum_likelihood_is_the_sum():
    vae, x = code_vae(2, 3), data()
    terms = ExactLikelihood()(vae, x, Progress())
    truth = np.log(np.exp(table(vae, x, 2, 3)).sum(1))
    np.testing.assert_allclose(terms["bound"].detach(), truth, atol=1e-9)


@pytest.mark.parametrize(
    ("objective", "cure"),
    [
        (ELBO(), "gradient=enumerated"),
        (IWAE(), "gradient=enumerated"),
        (ELBO(gradient="enumerated", free_bits=1), "free_bits=0"),
    ],
    ids=str,
)
def test_objectives_that_need_more_are_refused(objective, cure):
    with pytest.raises(UnsupportedError, match=cure):
        objective(code_vae(1, 4), data(), Progress())


def test_methods_for_too_many_codes():
    vae, x = code_vae(20, 2), data()
    with pytest.raises(UnsupportedError, match="importance"):
        exact_log_likelihood(vae, x)
    with pytest.raises(UnsupportedError, match="gradient=score"):
        ELBO(gradient="enumerated")(vae, x, Progress())
    with pytest.raises(UnsupportedError, match="gradient=score"):
        ExactLikelihood()(vae, x, Progress())
    with pytest.raises(UnsupportedError, match="importance"):
        annealed_log_likelihood(vae, x)
    assert torch.isfinite(importance_log_likelihood(vae, x, 100).values).all()
    names = [estimate.name for estimate in evaluate_likelihood(vae, x, "importance", draws=50, simulated=5).estimates]
    assert "simulated_log_likelihood_upper" in names
