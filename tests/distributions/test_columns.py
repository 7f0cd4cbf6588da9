"""Likelihoods of vectors and signals: sums to one, SciPy's densities, missing values, standardization, refusals."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from latentia.distributions import (
    Bernoulli,
    Categorical,
    Gaussian,
    GaussianPerColumn,
    Group,
    LaplacePerColumn,
    LogNormal,
    Mixed,
    NegativeBinomial,
    Ordinal,
    Poisson,
    Standardization,
    StudentT,
    ZeroInflated,
)
from latentia.distributions.standardization import EncoderInput, StandardizedConditional, input_shape
from latentia.errors import ConfigurationError, DataError

REALS = [GaussianPerColumn(), LaplacePerColumn(), StudentT(initial_freedom=4.0), LogNormal()]
COUNTS = [Poisson(), NegativeBinomial(initial_shape=2.5), ZeroInflated(initial_shape=2.5), ZeroInflated(base="poisson")]
LABELS = [Categorical(categories=4), Ordinal(categories=4)]
EVENT = (3,)
named = {"ids": lambda family: f"{family.type_name}-{getattr(family, 'base', '')}"}


def distribution(family, batch=(), shape=EVENT, seed=0):
    torch.manual_seed(seed)
    numbers = torch.randn(*batch, *family.parameter_shape(shape), dtype=torch.float64)
    shared = family.shared_parameters(shape)
    return family.distribution(numbers, None if shared is None else shared.double(), len(shape))


@pytest.mark.parametrize("shape", [(3,), (2, 5)], ids=str)
@pytest.mark.parametrize("family", REALS + COUNTS + LABELS, **named)
def test_shapes_of_vectors_and_signals(family, shape):
    given = distribution(family, (5,), shape)
    assert (given.batch_shape, given.event_shape) == ((5,), shape)
    assert given.log_prob(given.sample((7,))).shape == (7, 5)
    assert given.expand(torch.Size([4, 5])).batch_shape == (4, 5)


@pytest.mark.parametrize("family", COUNTS + LABELS, **named)
def test_probabilities_sum_to_one(family):
    one = distribution(family, shape=(1,))
    levels = torch.arange(4 if family in LABELS else 3000, dtype=torch.float64)[:, None]
    assert one.log_prob(levels).exp().sum().item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("family", REALS + COUNTS, **named)
def test_mean_and_variance_are_those_of_draws(family):
    given = distribution(family)
    draws = given.sample((200_000,)).double()
    assert ((draws.mean(0) - given.mean).abs() < 6 * (given.variance / 200_000).sqrt()).all()
    assert ((draws.var(0) / given.variance - 1).abs() < 0.25).all()  # heavy tails


@pytest.mark.parametrize(
    ("family", "oracle"),
    [
        (GaussianPerColumn(initial_scale=0.7), lambda m: stats.norm(m, 0.7)),
        (LaplacePerColumn(initial_scale=0.7), lambda m: stats.laplace(m, 0.7)),
        (StudentT(initial_scale=0.7, initial_freedom=4.0), lambda m: stats.t(4.0, m, 0.7)),
        (LogNormal(initial_scale=0.7), lambda m: stats.lognorm(0.7, scale=np.exp(m))),
        (Poisson(), lambda m: stats.poisson(np.exp(m))),
        (NegativeBinomial(initial_shape=2.5), lambda m: stats.nbinom(2.5, 2.5 / (2.5 + np.exp(m)))),
    ],
    ids=lambda value: getattr(value, "type_name", ""),
)
def test_log_probabilities_are_those_of_scipy(family, oracle):
    locations, x = torch.linspace(-3, 3, 13, dtype=torch.float64), torch.tensor([1.0, 2.0, 7.0, 40.0]).double()
    shared = family.shared_parameters((13,))
    given = family.distribution(locations, None if shared is None else shared.double(), 1).base_dist
    ours = given.log_prob(x[:, None])
    score = oracle(locations.numpy())
    theirs = (score.logpmf if family.discrete else score.logpdf)(x[:, None].numpy())
    assert np.allclose(ours.numpy(), theirs, rtol=1e-6, atol=1e-6)


def test_ordinal_probabilities_are_differences_of_logistic_distributions():
    family = Ordinal(categories=5)
    thresholds = torch.special.logit(torch.arange(1, 5).double() / 5)  # where it starts: equal shares at η = 0
    eta = torch.tensor([0.0, 1.3, -40.0])
    given = family.distribution(eta[:, None].double(), family.shared_parameters((1,)).double(), 1)
    below = torch.cat([torch.zeros(3, 1), torch.sigmoid(thresholds - eta.double()[:, None]), torch.ones(3, 1)], 1)
    ours = torch.stack([given.log_prob(torch.full((3, 1), float(k))).exp() for k in range(5)], 1)
    assert torch.allclose(ours, below.diff(dim=1).double(), atol=1e-6)
    assert ours[0].tolist() == pytest.approx([0.2] * 5)


# ---- missing values ----


def mixed():
    return Mixed(
        groups=(
            Group(columns=(0, 3), likelihood=GaussianPerColumn()),
            Group(columns=(1,), likelihood=Categorical(categories=3)),
            Group(columns=(4, 2), likelihood=NegativeBinomial()),
        )
    )


X = torch.tensor([[0.5, 2.0, 7.0, -1.5, 0.0], [1.5, 0.0, 1.0, 3.0, 4.0]])


@pytest.mark.parametrize("standardize", [False, True])
def test_a_mixed_likelihood_is_the_sum_of_its_groups_and_leaves_out_what_is_missing(standardize):
    """Each entry alone: the others are NaN. The sum over entries is the whole; the density of one integrates to one."""
    family, standard = mixed(), Standardization((5,)) if standardize else None
    if standard is not None:
        standard.fit([X.repeat(3, 1) + torch.tensor([0.1, 0, 0, 0.2, 0])], family)
    torch.manual_seed(0)
    network = torch.nn.Linear(2, family.parameter_shape((5,))[0])
    likelihood = StandardizedConditional(network, family, standard, True, event_shape=(5,), condition_shape=(2,))
    given = likelihood(torch.randn(2, 2))
    parts = []
    for column in range(5):
        alone = torch.full_like(X, torch.nan)
        alone[:, column] = X[:, column]
        parts.append(given.log_prob(alone))
    assert torch.allclose(sum(parts), given.log_prob(X), atol=1e-5)
    assert given.log_prob(torch.full_like(X, torch.nan)).tolist() == [0.0, 0.0]
    line = torch.full((20_001, 1, 5), torch.nan)
    line[:, :, 0] = torch.linspace(-60, 60, 20_001)[:, None]
    assert torch.trapezoid(given.log_prob(line).exp(), dx=120 / 20_000, dim=0).tolist() == pytest.approx(
        [1, 1], abs=1e-4
    )
    assert given.sample().shape == given.mean.shape == (2, 5)


def test_the_encoder_sees_indicators_zeros_and_a_mask():
    family = mixed()
    assert input_shape(family, (5,), True) == (2 + 3 + 2 + 5,)
    x = X.clone()
    x[0, 1] = x[1, 0] = torch.nan
    seen = EncoderInput(torch.nn.Identity(), family, None, True)(x)
    assert seen[0, :7].tolist() == pytest.approx([0.5, -1.5, 0, 0, 0, 0.0, math.log(8)])
    assert seen[1, :7].tolist() == pytest.approx([0.0, 3.0, 1, 0, 0, math.log(5), math.log(2)])
    assert seen[:, 7:].tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]]


# ---- standardization ----


@pytest.mark.parametrize("family", REALS, **named)
def test_the_jacobian_is_counted(family):
    """In the user's units the density still integrates to one, and the mean is carried along."""
    torch.manual_seed(0)
    data = 50 + 20 * torch.rand(500, 2, dtype=torch.float64)
    standard = Standardization((2,)).double()
    standard.fit([data[:200], data[200:]], family)
    likelihood = StandardizedConditional(
        torch.nn.Linear(1, 2).double(), family, standard, False, event_shape=(2,), condition_shape=(1,)
    ).double()
    given = likelihood(torch.zeros(1, 1, dtype=torch.float64)).base_dist
    x = torch.linspace(1e-3, 2000, 400_001, dtype=torch.float64)[:, None, None].expand(-1, 1, 2)
    mass = torch.trapezoid(given.log_prob(x).exp(), x, dim=0).detach()
    assert mass.flatten().tolist() == pytest.approx([1, 1], abs=2e-3)
    moved = family.transform(data)
    assert torch.allclose(standard.center, moved.mean(0))
    assert torch.allclose(standard.spread, moved.std(0, correction=0))


@pytest.mark.parametrize(
    ("data", "cure"),
    [
        (torch.ones(5, 2), r"a, b: all training values are equal.*data\.drop"),
        (torch.tensor([[1.0, torch.nan], [2.0, torch.nan]]), r"b: all training values are missing.*data\.drop"),
        (torch.tensor([[0.0, 1e9], [1.0, 1e9 + 1]], dtype=torch.float64), "b: values around 1e.09.*subtract"),
        (
            torch.tensor([[0.0, 1e30], [1.0, -1e30]], dtype=torch.float64),
            "b: the standard deviation is 1e.30",
        ),
        (torch.tensor([[0.0, 1e-30], [1.0, -1e-30]], dtype=torch.float64), "b: the standard deviation .*another unit"),
    ],
)
def test_columns_that_cannot_be_standardized_are_refused_by_name(data, cure):
    with pytest.raises(DataError, match=cure):
        Standardization((2,)).fit([data], GaussianPerColumn(), ["a", "b"])


# ---- the refusals name a likelihood that serves ----


@pytest.mark.parametrize(
    ("family", "x", "cure"),
    [
        (Poisson(), [[-1.0]], "gaussian-per-column or student-t"),
        (NegativeBinomial(), [[0.5]], "log-normal"),
        (Poisson(), [[torch.inf]], "finite"),
        (LogNormal(), [[0.0]], "gaussian-per-column or student-t"),
        (Categorical(categories=3), [[3.0]], r"likelihood\.categories=4"),
        (Ordinal(categories=3), [[0.5]], "gaussian-per-column"),
        (Bernoulli(), [[0.5]], "gaussian-per-column.*negative-binomial"),
        (GaussianPerColumn(), [[-torch.inf]], "NaN"),
        (Gaussian(), [[torch.inf]], "NaN"),
        (mixed(), [[0.0, 5.0, 1.0, 0.0, 1.0]], "columns 1: .*from 0 to 2"),
    ],
)
def test_values_outside_the_support_are_refused(family, x, cure):
    with pytest.raises(DataError, match=cure):
        family.check(torch.tensor(x))


@pytest.mark.parametrize(
    ("groups", "cure"),
    [
        ([(["a"], "poisson")], "no group has b; put each"),
        ([(["a", "b"], "poisson"), (["b"], "poisson")], "in two groups"),
        ([(["a", "c"], "poisson")], "no column c; the columns are a, b"),
    ],
)
def test_groups_that_do_not_cover_the_columns_once_are_refused(groups, cure):
    family = Mixed(groups=[{"columns": columns, "likelihood": likelihood} for columns, likelihood in groups])
    with pytest.raises(ConfigurationError, match=cure):
        family.numbered(["a", "b"])


def test_categories_must_be_known():
    with pytest.raises(ConfigurationError, match=r"likelihood\.categories"):
        Categorical().parameter_shape((2,))
