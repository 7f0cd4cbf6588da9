"""torch's own `Independent` of `Normal` is the oracle: the same distributions in its operations."""

import copy
import math

import mpmath
import pytest
import torch
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, kl_divergence

from latentia.distributions import Diagonal, StandardNormal
from latentia.distributions.gaussians import DiagonalGaussian, StandardGaussian

DTYPES = [torch.float32, torch.float64]
BATCHES = [(), (3,), (4, 3)]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
batches = pytest.mark.parametrize("batch", BATCHES, ids=str)


def both(batch=(3,), d=5, dtype=torch.float64, seed=0):
    """Numbers with a gradient, our distribution of them and torch's."""
    torch.manual_seed(seed)
    numbers = (0.7 * torch.randn(*batch, 2 * d, dtype=dtype)).requires_grad_()
    mean, log_scale = numbers.chunk(2, -1)
    theirs = Independent(Normal(mean, log_scale.exp(), validate_args=False), 1, validate_args=False)
    return numbers, Diagonal().distribution(numbers), theirs


def standard(d=5, dtype=torch.float64):
    return StandardGaussian(torch.zeros(d, dtype=dtype)), Independent(Normal(torch.zeros(d, dtype=dtype), 1.0), 1)


def close(mine, torchs):
    """Equal to rounding: a few units in the last place, over sums of five terms and of gradients over draws."""
    assert mine.dtype == torchs.dtype
    rounding = 32 * torch.finfo(mine.dtype).eps
    torch.testing.assert_close(mine, torchs, rtol=rounding, atol=rounding)


def with_gradient(value, numbers):
    """A value and the gradient of a sum of it with uneven weights."""
    weights = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).view(value.shape)
    (gradient,) = torch.autograd.grad(value, numbers, weights, retain_graph=True)
    return value.detach(), gradient


@dtypes
@batches
def test_the_diagonal_distribution_is_torchs(batch, dtype):
    numbers, mine, theirs = both(batch, dtype=dtype)
    assert isinstance(mine, Independent)
    assert isinstance(mine.base_dist, Normal)
    assert (mine.batch_shape, mine.event_shape) == (theirs.batch_shape, theirs.event_shape) == (batch, (5,))
    assert mine.has_rsample
    z = torch.randn(*batch, 5, dtype=dtype)
    prior, torchs_prior = standard(dtype=dtype)
    for value, oracle in (
        (mine.log_prob(z), theirs.log_prob(z)),
        (mine.entropy(), theirs.entropy()),
        (kl_divergence(mine, prior), kl_divergence(theirs, torchs_prior)),
    ):
        assert value.shape == batch
        for part, torchs in zip(with_gradient(value, numbers), with_gradient(oracle, numbers), strict=True):
            close(part, torchs)
    for name in ("mean", "mode", "variance", "stddev"):
        assert torch.equal(getattr(mine, name), getattr(theirs, name))


@dtypes
@batches
@pytest.mark.parametrize("draws", [(), (1,), (3,), (2, 3)], ids=str)
def test_draws_are_those_of_torchs_distribution_for_the_same_seed(draws, batch, dtype):
    numbers, mine, theirs = both(batch, dtype=dtype)
    results = []
    for distribution in (mine, theirs):
        torch.manual_seed(7)
        results.append(with_gradient(distribution.rsample(torch.Size(draws)), numbers))
    for part, torchs in zip(*results, strict=True):
        close(part, torchs)
    samples = []
    for distribution in (mine, theirs):
        torch.manual_seed(8)
        samples.append(distribution.sample(torch.Size(draws)))
    assert torch.equal(*samples)
    assert not samples[0].requires_grad


def test_gradients_are_those_of_finite_differences_twice_over():
    numbers, _, _ = both((2,), 3)
    z, prior = torch.randn(4, 2, 3, dtype=torch.float64), standard(3)[0]

    def values(numbers):
        distribution = Diagonal().distribution(numbers)
        torch.manual_seed(1)
        return (
            distribution.log_prob(z),
            distribution.entropy(),
            kl_divergence(distribution, prior),
            distribution.rsample(torch.Size([2])),
        )

    assert torch.autograd.gradcheck(values, numbers)
    assert torch.autograd.gradgradcheck(values, numbers)


@dtypes
def test_many_draws_and_many_images_broadcast(dtype):
    _, mine, theirs = both((4, 1), dtype=dtype)
    z = torch.randn(6, 1, 3, 5, dtype=dtype)
    assert mine.log_prob(z).shape == (6, 4, 3)
    close(mine.log_prob(z), theirs.log_prob(z))


def test_expanding_repeats_the_distributions():
    numbers, mine, theirs = both((3,))
    wide, torchs = mine.expand(torch.Size([2, 3])), theirs.expand(torch.Size([2, 3]))
    assert type(wide) is DiagonalGaussian
    assert wide.batch_shape == (2, 3)
    prior, torchs_prior = standard()
    z = torch.randn(2, 3, 5, dtype=torch.float64)
    for value, oracle in (
        (wide.log_prob(z), torchs.log_prob(z)),
        (wide.entropy(), torchs.entropy()),
        (kl_divergence(wide, prior), kl_divergence(torchs, torchs_prior)),
    ):
        assert value.shape == (2, 3)
        for part, other in zip(with_gradient(value, numbers), with_gradient(oracle, numbers), strict=True):
            close(part, other)
    torch.manual_seed(2)
    z = wide.rsample(torch.Size([100_000]))
    covariance = ((z[:, 0] - z[:, 0].mean(0)) * (z[:, 1] - z[:, 1].mean(0))).mean(0)
    assert (covariance.abs() < 5 * wide.variance[0] / math.sqrt(len(z))).all()  # each copy draws for itself


def test_the_standard_distribution_is_torchs():
    mine, theirs = standard()
    assert (mine.batch_shape, mine.event_shape) == ((), (5,))
    z = torch.randn(4, 3, 5, dtype=torch.float64).requires_grad_()
    for part, torchs in zip(with_gradient(mine.log_prob(z), z), with_gradient(theirs.log_prob(z), z), strict=True):
        close(part, torchs)
    close(mine.entropy(), theirs.entropy())
    wide = mine.expand(torch.Size([3]))
    assert wide.batch_shape == (3,)
    close(wide.log_prob(z.detach()), theirs.log_prob(z.detach()))
    for distribution in (mine, theirs):
        torch.manual_seed(3)
        z = distribution.sample(torch.Size([2])) if distribution is mine else distribution.sample(torch.Size([2])) - z
    assert not z.any()


def test_other_partners_have_torchs_divergence():
    _, mine, theirs = both((3,))
    _, other, torchs_other = both((3,), seed=1)
    full = MultivariateNormal(torch.ones(5).double(), 2 * torch.eye(5).double())
    prior, torchs_prior = standard()
    close(kl_divergence(mine, other), kl_divergence(theirs, torchs_other))
    close(kl_divergence(mine, torchs_prior), kl_divergence(theirs, torchs_prior))
    close(kl_divergence(prior, other), kl_divergence(torchs_prior, torchs_other))
    close(kl_divergence(mine, prior.expand(torch.Size([3]))), kl_divergence(theirs, torchs_prior))
    close(kl_divergence(mine, full), kl_divergence(theirs, full))
    close(kl_divergence(full, mine), kl_divergence(full, theirs))
    assert kl_divergence(prior, prior).item() == 0


@pytest.mark.parametrize(("mean", "log_scale"), [(0.0, 0.0), (1e-3, 1e-3), (3.0, -5.0), (-0.01, -12.0), (40.0, 3.0)])
def test_the_rate_in_float32_against_many_digits(mean, log_scale):
    numbers = torch.tensor([mean, log_scale])
    exact = [mpmath.mpf(number) for number in numbers.tolist()]
    truth = float((mpmath.exp(2 * exact[1]) + exact[0] ** 2 - 1 - 2 * exact[1]) / 2)
    rate = kl_divergence(Diagonal().distribution(numbers), standard(1, torch.float32)[0]).item()
    largest = max(1.0, mean**2, abs(log_scale), math.exp(2 * log_scale))  # the terms are subtracted from each other
    assert abs(rate - truth) < 4 * torch.finfo(torch.float32).eps * largest


def test_a_distribution_too_narrow_for_its_square_still_has_a_density():
    distribution = Diagonal().distribution(torch.tensor([0.0, -60.0]))  # σ² = e⁻¹²⁰ is 0 in float32
    assert distribution.log_prob(torch.zeros(1)).item() == pytest.approx(60 - 0.5 * math.log(2 * math.pi))


def test_the_prior_goes_where_its_module_goes():
    module = StandardNormal().build(3, (1, 8, 8))
    assert module() is module()
    assert module().mean.dtype == torch.float32
    assert not module.state_dict()
    twin = copy.deepcopy(module).double()
    for one, dtype in ((module, torch.float32), (twin, torch.float64)):
        distribution = one()
        assert distribution.base_dist.loc is one.mean
        assert {distribution.mean.dtype, distribution.stddev.dtype, distribution.sample().dtype} == {dtype}
    assert module.to("meta")().stddev.device.type == "meta"


@pytest.fixture
def compiler():
    """torch's compiler, which switches off the validation of all of torch's distributions when first called."""
    validates = Distribution._validate_args
    yield torch.compile
    Distribution.set_default_validate_args(validates)
    torch._dynamo.reset()


@pytest.mark.parametrize("draws", [(), (2,)], ids=str)
def test_compilers_follow_the_distributions_whole(draws, compiler):
    prior, family = StandardNormal().build(3, (1, 8, 8)), Diagonal()

    def values(numbers, z):
        distribution = family.distribution(numbers)
        drawn = distribution.rsample(torch.Size(draws))
        return (
            drawn,
            distribution.log_prob(z),
            distribution.entropy(),
            kl_divergence(distribution, prior()),
            prior().log_prob(drawn),
        )

    numbers, z = torch.randn(4, 6, requires_grad=True), torch.randn(4, 3)
    torch.manual_seed(0)
    plain = values(numbers, z)
    torch.manual_seed(0)
    traced = compiler(values, backend="aot_eager", fullgraph=True)(numbers, z)
    for one, other in zip(plain, traced, strict=True):
        close(one.detach(), other.detach())
        close(*(torch.autograd.grad(value.sum(), numbers, retain_graph=True)[0] for value in (one, other)))
