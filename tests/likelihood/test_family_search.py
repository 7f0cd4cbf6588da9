"""Gaps of posteriors that are not Gaussian, in a model whose exact posterior is known."""

from __future__ import annotations

import pytest
import torch

from latentia.distributions import FlowPosterior, MixturePosterior
from latentia.likelihood import LatentModel, evaluate_gaps

from ..objectives.linear_gaussian import LinearGaussian


def model_of(known: LinearGaussian) -> LatentModel:
    """Without the family, which takes values in [0, 1] alone."""
    return LatentModel(known.vae.decode, known.vae.prior, known.vae.encode, source=known.vae)


FAMILIES = [FlowPosterior(transforms=1, context=4, hidden=(16,)), MixturePosterior(components=2)]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.type_name)
def test_the_gap_is_the_divergence_from_the_known_posterior_and_the_best_q_closes_it(family, monkeypatch):
    monkeypatch.setattr("latentia.likelihood.family_search.TOGETHER_STEPS", 150)  # enough for Gaussian posteriors
    monkeypatch.setattr("latentia.likelihood.family_search.AGAIN_ABOVE", -1.0)  # the image with the largest gap, always
    monkeypatch.setattr("latentia.likelihood.family_search.AGAIN_STEPS", 50)
    known = LinearGaussian(family, away=0.3, orthogonal=True)
    x = known.images(3)
    before = {name: value.clone() for name, value in known.vae.state_dict().items()}
    gaps = evaluate_gaps(model_of(known), x, tolerance=1e-4)
    axis = torch.linspace(-10, 10, 201, dtype=torch.float64)
    z, area = torch.cartesian_prod(axis, axis), float(axis[1] - axis[0]) ** 2
    exact = known.exact_posterior(x)
    with torch.no_grad():
        log_q = known.vae.encode(x).log_prob(z[:, None])
    truth = (log_q.exp() * (log_q - exact.log_prob(z[:, None]))).sum(0) * area
    assert ((gaps.inference - truth).abs() < 5 * gaps.errors["inference"]).all()
    assert (truth > 0.05).any()  # there was a gap to close
    assert gaps.approximation.max() < 0.02
    assert (gaps.approximation > -5 * gaps.errors["approximation"]).all()  # no q is better than p(z|x)
    assert all(torch.equal(value, before[name]) for name, value in known.vae.state_dict().items())
    torch.testing.assert_close(gaps.inference, gaps.approximation + gaps.amortization)
    names = {estimate.name: estimate for estimate in gaps.estimates()}
    assert names["approximation_gap"].kind == "upper bound"
    assert names["inference_gap"].kind == "estimate"
    best = gaps.best(0)
    assert best.log_prob(z[:3, None]).shape == (3, 1)


def test_the_search_repeats_itself_and_leaves_the_random_state():
    known = LinearGaussian(FAMILIES[1], away=0.3)
    x = known.images(2)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = evaluate_gaps(model_of(known), x)
    assert torch.equal(before, torch.get_rng_state())
    torch.testing.assert_close(evaluate_gaps(model_of(known), x).inference, first.inference, rtol=0, atol=0)
