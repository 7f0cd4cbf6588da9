"""Categorical latent variables, against torch's OneHotCategorical and sums over all codes."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, OneHotCategorical, kl_divergence

from latentia.distributions import (
    CategoricalPosterior,
    CategoricalPrior,
    OneHotCodes,
    StandardNormal,
    require_same_space,
)
from latentia.errors import ConfigurationError, UnsupportedError
from latentia.estimate import Estimate

SHAPES = [(1, 5), (2, 3), (4, 2)]
each = pytest.mark.parametrize(("variables", "values"), SHAPES)


def logits(variables: int, values: int, batch: int = 3) -> Tensor:
    torch.manual_seed(variables)
    return 2 * torch.randn(batch, variables, values, dtype=torch.float64)


@each
def test_the_density_is_that_of_independent_one_hot_variables(variables, values):
    given = logits(variables, values)
    q, parts = OneHotCodes(given), OneHotCategorical(logits=given)
    z = q.sample(torch.Size([20]))
    assert z.shape == (20, 3, variables * values)
    assert q.support.check(z).all()
    assert not q.support.check(z + 0.1).any()
    torch.testing.assert_close(q.log_prob(z), parts.log_prob(z.unflatten(-1, (variables, values))).sum(-1))
    torch.testing.assert_close(q.entropy(), parts.entropy().sum(-1))
    torch.testing.assert_close(q.mean, parts.mean.flatten(-2))
    torch.testing.assert_close(q.variance, parts.variance.flatten(-2))
    other = OneHotCodes(logits(variables, values) * 0.3)
    torch.testing.assert_close(
        kl_divergence(q, other), kl_divergence(parts, OneHotCategorical(logits=other.logits)).sum(-1)
    )


@each
def test_enumeration_lists_every_code_once_with_its_probability(variables, values):
    q = OneHotCodes(logits(variables, values))
    codes = q.enumerate_support()
    index = codes.unflatten(-1, (variables, values)).argmax(-1).tolist()
    assert [tuple(code) for code in index] == list(itertools.product(range(values), repeat=variables))
    torch.testing.assert_close(q.log_probs(), q.log_prob(codes[:, None]).T)
    torch.testing.assert_close(q.log_probs().exp().sum(-1), torch.ones(3, dtype=torch.float64))
    best = codes[q.log_probs().argmax(-1)]
    assert torch.equal(q.mode, best)


@each
def test_draws_have_the_probabilities(variables, values):
    q = OneHotCodes(logits(variables, values, batch=1))
    for z in (q.sample(torch.Size([40_000])), q.straight_through(40_000, 0.7).detach()):
        for place in range(variables * values):
            assert Estimate.mean(z[:, 0, place]).agrees_with(q.mean[0, place].item())


def test_straight_through_draws_are_codes_with_the_gradient_of_the_relaxed_ones():
    given = logits(2, 3).requires_grad_()
    z = OneHotCodes(given).straight_through(6, 0.5)
    torch.testing.assert_close(z.detach().round(), z.detach(), rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad((z * torch.arange(6.0)).sum(), given)
    assert bool((gradient != 0).all())


def test_a_probability_of_zero_has_no_part_in_sums():
    sure = OneHotCodes(torch.tensor([[[0.0, -torch.inf]]], dtype=torch.float64))
    fair = OneHotCodes(torch.zeros(1, 1, 2, dtype=torch.float64))
    assert sure.entropy().item() == 0
    assert kl_divergence(sure, fair).item() == pytest.approx(Categorical(probs=torch.ones(2)).entropy().item())
    assert kl_divergence(fair, sure).item() == torch.inf


def test_too_many_codes_are_refused_with_what_serves():
    q = OneHotCodes(torch.zeros(20, 10))
    assert not q.has_enumerate_support
    with pytest.raises(UnsupportedError, match=r"objective.gradient=score objective.samples=4.*importance"):
        q.enumerate_support()


@pytest.mark.parametrize(
    ("posterior", "prior", "latent", "cure"),
    [
        (CategoricalPosterior(), StandardNormal(), 5, "prior=categorical"),
        (CategoricalPosterior(variables=2), CategoricalPrior(), 6, "prior=categorical prior.variables=2"),
        (CategoricalPosterior(variables=4), CategoricalPrior(variables=4), 10, "latent=8"),
        (CategoricalPosterior(), CategoricalPrior(), 1, "latent=2"),
    ],
    ids=["prior", "variables", "not divided", "one value"],
)
def test_spaces_that_do_not_match_are_refused_with_the_cure(posterior, prior, latent, cure):
    with pytest.raises(ConfigurationError, match=cure):
        require_same_space(posterior, prior, latent)
