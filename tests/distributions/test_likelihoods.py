import itertools
import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial.legendre import leggauss
from scipy import integrate
from scipy import stats as scipy_stats

from latentia.distributions import (
    Bernoulli,
    Conditional,
    ContinuousBernoulli,
    ContinuousBernoulliDistribution,
    DiscretizedLogisticMixture,
    Gaussian,
    GaussianLearnedScale,
    GaussianPerPixel,
    Likelihood,
)
from latentia.distributions.pixels import DiscretizedLogisticMixtureDistribution
from latentia.errors import ConfigurationError, DataError, UnsupportedError
from latentia.estimate import Estimate

FAMILIES = [
    Bernoulli(),
    ContinuousBernoulli(),
    Gaussian(scale=0.2),
    GaussianLearnedScale(initial_scale=0.4),
    GaussianPerPixel(),
    DiscretizedLogisticMixture(components=3),
]
IMAGE = (2, 3, 4)
LOGITS = [0.0, 1e-9, -1e-4, 0.01, -0.049, 0.051, 0.3, -2.0, 7.0, -19.9, 20.1, 60.0, -1e3, 1e4, -1e4]
families = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.type_name)
logits = pytest.mark.parametrize("logit", LOGITS)


def parameters(family, batch=(), shape=IMAGE, seed=0):
    torch.manual_seed(seed)
    return torch.randn(*batch, *family.parameter_shape(shape), dtype=torch.float64)


def distribution(family, batch=(), shape=IMAGE, seed=0):
    shared = family.shared_parameters(shape)
    return family.distribution(parameters(family, batch, shape, seed), None if shared is None else shared.double())


def one_pixel(family, seed=0):
    return distribution(family, shape=(1, 1, 1), seed=seed)


# ---- every likelihood ----


def test_every_likelihood_of_images_is_in_the_table():
    images = "latentia.distributions.likelihoods"
    shipped = {name for name, member in Likelihood.members().items() if member.__module__ == images}
    assert shipped == {family.type_name for family in FAMILIES}


@families
@pytest.mark.parametrize("batch", [(), (5,), (3, 5)], ids=str)
def test_shapes(family, batch):
    given = distribution(family, batch)
    assert (given.batch_shape, given.event_shape) == (torch.Size(batch), torch.Size(IMAGE))
    x = given.sample((7,))
    assert x.shape == (7, *batch, *IMAGE)
    assert given.log_prob(x).shape == (7, *batch)
    assert given.log_prob(x[0]).shape == batch
    assert given.mean.shape == (*batch, *IMAGE)
    assert not x.requires_grad


@families
def test_one_image_is_scored_by_many_distributions(family):
    given, x = distribution(family, (3, 5)), distribution(family, (5,), seed=1).sample()
    together = given.log_prob(x)
    for k in range(3):
        shared = family.shared_parameters(IMAGE)
        single = family.distribution(parameters(family, (3, 5))[k], None if shared is None else shared.double())
        torch.testing.assert_close(together[k], single.log_prob(x), rtol=1e-12, atol=1e-12)


@families
def test_expanding_repeats_the_distribution(family):
    given = distribution(family, (2,))
    x = given.sample()
    torch.testing.assert_close(given.expand((4, 2)).log_prob(x), given.log_prob(x).expand(4, 2))


@families
def test_the_mean_is_that_of_draws(family):
    given = distribution(family)
    draws, mean = given.sample((40_000,)).flatten(1), given.mean.flatten()
    for pixel in range(0, len(mean), 5):
        assert Estimate.mean(draws[:, pixel]).agrees_with(mean[pixel].item())


@families
def test_the_mean_negative_log_density_of_draws_is_the_entropy(family):
    """Draws follow the density, since the mean of −log p is the entropy, found here by integrating −p log p."""
    given = one_pixel(family)
    x = given.sample((100_000,))
    points, weights = support(family, given)
    log_p = given.log_prob(points)
    entropy = -(weights * torch.where(log_p > -700, log_p.exp() * log_p, 0.0)).sum()
    assert Estimate.mean(-given.log_prob(x)).agrees_with(entropy.item())


@families
@pytest.mark.parametrize("seed", range(3))
def test_probability_adds_up_to_one(family, seed):
    given = one_pixel(family, seed)
    points, weights = support(family, given)
    assert (weights * given.log_prob(points).exp()).sum().item() == pytest.approx(1, abs=1e-11)


def support(family, given):
    """Points over all of one pixel's support with their weights: atoms, or nodes of a quadrature."""
    if isinstance(family, Bernoulli):
        points, weights = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.ones(2)
    elif isinstance(family, DiscretizedLogisticMixture):
        points, weights = torch.arange(256, dtype=torch.float64) / 255, torch.ones(256)
    else:
        nodes, node_weights = (torch.tensor(part) for part in leggauss(400))
        bounded = isinstance(family, ContinuousBernoulli)
        center = torch.tensor(0.5) if bounded else given.mean.squeeze()
        half = torch.tensor(0.5) if bounded else 12 * given.stddev.squeeze()
        points, weights = center + half * nodes, half * node_weights
    return points[:, None, None, None], weights


@families
def test_gradients_are_those_of_finite_differences(family):
    numbers = parameters(family, (2,)).requires_grad_()
    shared = family.shared_parameters(IMAGE)
    x = distribution(family, (2,), seed=3).sample()
    held = () if shared is None else (shared.double().requires_grad_(),)
    assert torch.autograd.gradcheck(lambda *given: family.distribution(*given).log_prob(x), (numbers, *held))


@families
@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_of_any_size_give_finite_densities_and_gradients(family, size, dtype):
    shared = family.shared_parameters(IMAGE)
    for x in (torch.zeros(IMAGE, dtype=dtype), torch.ones(IMAGE, dtype=dtype)):
        numbers = torch.full(family.parameter_shape(IMAGE), size, dtype=dtype, requires_grad=True)
        if isinstance(family, GaussianPerPixel):  # a Gaussian of scale e^(10^4) cannot be represented
            numbers = torch.cat([numbers[:2], torch.zeros(2, 3, 4, dtype=dtype)]).detach().requires_grad_()
        given = family.distribution(numbers, None if shared is None else shared.to(dtype))
        value = given.log_prob(x)
        (gradient,) = torch.autograd.grad(value, numbers)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()
        assert torch.isfinite(given.mean).all()
        draw = given.sample((100,))
        assert torch.isfinite(draw).all()


@families
def test_what_is_not_an_image_in_the_unit_interval_is_refused(family):
    for bad in (-0.01, 1.01, float("nan"), 255.0):
        images = torch.zeros(4, *IMAGE)
        images[2, 0, 1, 1] = bad
        with pytest.raises(DataError):
            family.check(images)


@families
def test_its_own_kind_of_images_is_let_pass(family):
    torch.manual_seed(0)
    binary = torch.bernoulli(torch.full((4, *IMAGE), 0.5))
    eight_bit = torch.randint(0, 256, (4, *IMAGE)).to(torch.uint8).float() / 255
    family.check(binary)
    if not isinstance(family, Bernoulli):
        family.check(eight_bit)
    if not family.discrete:
        family.check(torch.rand(4, *IMAGE))


@families
def test_discrete_ones_give_log_probabilities(family):
    given = distribution(family, (50,))
    assert bool((given.log_prob(given.sample()) <= 0).all()) or not family.discrete
    if not family.discrete:  # a density may be above one
        numbers = torch.full(family.parameter_shape(IMAGE), -8.0)
        narrow = family.distribution(numbers, torch.tensor(-2.0))
        assert narrow.log_prob(narrow.mean).item() > 0


# ---- the refusals name the cure -----------------------------------------------------------------------------------


def test_gray_pixels_under_a_bernoulli_are_refused_with_three_cures():
    with pytest.raises(DataError, match=r"data\.binarize=dynamic.*likelihood=continuous-bernoulli or gaussian"):
        Bernoulli().check(torch.full((1, 1, 2, 2), 0.5))


def test_pixels_between_levels_are_refused_under_a_discretized_likelihood():
    with pytest.raises(DataError, match=r"data\.binarize=none"):
        DiscretizedLogisticMixture().check(torch.full((1, 1, 2, 2), 0.5))


def test_undivided_bytes_are_refused_with_the_cure():
    with pytest.raises(DataError, match="divide 8-bit images by 255"):
        Gaussian().check(torch.full((1, 1, 2, 2), 17.0))


# ---- Bernoulli ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixels", [1, 3, 8])
def test_bernoulli_sums_to_one_over_all_images(pixels):
    images = torch.tensor([*itertools.product([0.0, 1.0], repeat=pixels)], dtype=torch.float64)
    given = distribution(Bernoulli(), shape=(1, 1, pixels))
    assert given.log_prob(images.reshape(-1, 1, 1, pixels)).exp().sum().item() == pytest.approx(1, abs=1e-13)


@logits
@pytest.mark.parametrize("x", [0.0, 1.0])
def test_bernoulli_is_exact_at_every_logit(logit, x):
    given = Bernoulli().distribution(torch.full((1, 1, 1), logit, dtype=torch.float64))
    mpmath.mp.dps = 50
    oracle = -mpmath.log1p(mpmath.exp(-mpmath.mpf(logit) if x else mpmath.mpf(logit)))
    value = given.log_prob(torch.full((1, 1, 1), x, dtype=torch.float64)).item()
    assert value == pytest.approx(float(oracle), rel=0, abs=2**-52 * max(1, abs(logit)))  # one rounding of the logit


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("batch", [(), (5,), (3, 5)], ids=str)
def test_bernoulli_is_torchs_distribution_of_the_same_pixels(batch, dtype):
    logits = parameters(Bernoulli(), batch).to(dtype).requires_grad_()
    mine, x = (
        Bernoulli().distribution(logits),
        torch.rand(5, *IMAGE, dtype=dtype),
    )  # torch's distribution scores gray pixels too
    theirs = torch.distributions.Independent(torch.distributions.Bernoulli(logits=logits, validate_args=False), 3)
    results = []
    for distribution_of_pixels in (mine, theirs):
        value = distribution_of_pixels.log_prob(x)
        results.append((value.detach(), *torch.autograd.grad(value.square().sum(), logits)))
    assert results[0][0].shape == (*batch[:-1], 5)
    for part, torchs in zip(*results, strict=True):
        torch.testing.assert_close(part, torchs, rtol=16 * torch.finfo(dtype).eps, atol=16 * torch.finfo(dtype).eps)
    assert type(mine) is type(mine.expand(torch.Size([2, *batch])))
    assert torch.equal(mine.mean, theirs.mean)
    assert torch.equal(mine.variance, theirs.variance)
    assert torch.equal(mine.entropy(), theirs.entropy())


# ---- continuous Bernoulli -----------------------------------------------------------------------------------------


def oracle_normalizer(logit):
    mpmath.mp.dps = 60
    size = abs(mpmath.mpf(logit))
    return mpmath.log(size / mpmath.tanh(size / 2)) if size else mpmath.log(2)


def oracle_log_density(logit, x):
    return mpmath.mpf(x) * mpmath.mpf(logit) - mpmath.log1p(mpmath.exp(mpmath.mpf(logit))) + oracle_normalizer(logit)


def oracle_mean(logit):
    mpmath.mp.dps = 60
    size = mpmath.mpf(logit)
    return 1 / (1 - mpmath.exp(-size)) - 1 / size if size else mpmath.mpf(0.5)


@logits
@pytest.mark.parametrize("x", [0.0, 0.125, 0.5, 1.0])
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float64, 2e-14), (torch.float32, 1e-6)], ids=str)
def test_continuous_bernoulli_is_exact_at_every_logit(logit, x, dtype, rounding):
    logits = torch.tensor(logit, dtype=dtype)
    value = ContinuousBernoulliDistribution(logits).log_prob(torch.tensor(x, dtype=dtype)).item()
    oracle = float(oracle_log_density(logits.item(), x))
    assert value == pytest.approx(oracle, rel=rounding, abs=rounding)


@logits
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float64, 1e-13), (torch.float32, 3e-6)], ids=str)
def test_continuous_bernoulli_mean_and_its_slope_are_exact(logit, dtype, rounding):
    logits = torch.tensor(logit, dtype=dtype, requires_grad=True)
    mean = ContinuousBernoulliDistribution(logits).mean
    assert mean.item() == pytest.approx(float(oracle_mean(logits.item())), abs=rounding)
    if dtype == torch.float64:  # the slope of the mean is the variance
        (slope,) = torch.autograd.grad(mean, logits)
        half = abs(mpmath.mpf(logit)) / 2
        variance = mpmath.mpf(1) / 12 if half == 0 else 1 / (4 * half**2) - 1 / (4 * mpmath.sinh(half) ** 2)
        assert slope.item() == pytest.approx(float(variance), abs=1e-11)


@logits
def test_the_score_of_a_continuous_bernoulli_is_x_less_its_mean(logit):
    logits = torch.tensor(logit, dtype=torch.float64, requires_grad=True)
    (score,) = torch.autograd.grad(ContinuousBernoulliDistribution(logits).log_prob(torch.tensor(0.25)), logits)
    assert score.item() == pytest.approx(0.25 - float(oracle_mean(logit)), abs=1e-11)


@logits
def test_continuous_bernoulli_integrates_to_one(logit):
    given = ContinuousBernoulliDistribution(torch.tensor(logit, dtype=torch.float64))

    def density(x):
        return given.log_prob(torch.tensor(x, dtype=torch.float64)).exp().item()

    width = min(0.5, 40 / max(abs(logit), 1))  # where the mass lies
    edges = [0, width, 1] if logit <= 0 else [0, 1 - width, 1]
    total = sum(integrate.quad(density, a, b, epsabs=1e-12, epsrel=1e-12)[0] for a, b in itertools.pairwise(edges))
    assert total == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("logit", [0.0, 0.01, -0.049, 0.3, -2.0, 7.0, 60.0, -1e4])
def test_continuous_bernoulli_draws_follow_the_distribution_function(logit):
    torch.manual_seed(0)
    x = ContinuousBernoulliDistribution(torch.tensor(logit, dtype=torch.float64)).sample((400_000,))

    def distribution(x):  # (e^{lx} − 1)/(e^l − 1)
        mpmath.mp.dps = 40
        return float(mpmath.expm1(mpmath.mpf(logit) * x) / mpmath.expm1(mpmath.mpf(logit))) if logit else x

    for q in (0.01, 0.1, 0.5, 0.9, 0.99):
        at = 1 + math.log(q) / logit if logit > 5 else math.log(q) / logit if logit < -5 else q
        assert Estimate.mean((x <= at).double()).agrees_with(distribution(at))
    assert Estimate.mean(x).agrees_with(float(oracle_mean(logit)))
    assert x.min() >= 0
    assert x.max() <= 1


@pytest.mark.parametrize("logit", [1e-3, -0.049, 0.051, 0.5, -3.0])
def test_the_path_of_a_draw_moves_its_mean_by_the_variance(logit):
    torch.manual_seed(0)
    logits = torch.full((200_000,), logit, dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(ContinuousBernoulliDistribution(logits).rsample().sum(), logits)
    half = abs(logit) / 2
    variance = 1 / 12 - logit**2 / 240 if half < 0.01 else 1 / (4 * half**2) - 1 / (4 * float(mpmath.sinh(half)) ** 2)
    assert Estimate.mean(slopes).agrees_with(variance)


@given(st.floats(0, 0.3))
def test_small_and_large_logits_meet_without_a_step(logit):
    """Across the seam of series and closed form nothing jumps: both sides follow the oracle."""
    both = torch.tensor([logit, -logit], dtype=torch.float64)
    given = ContinuousBernoulliDistribution(both)
    assert given.log_normalizer().tolist() == pytest.approx([float(oracle_normalizer(logit))] * 2, abs=1e-14)
    assert given.mean[0].item() + given.mean[1].item() == pytest.approx(1, abs=1e-15)


@logits
def test_continuous_bernoulli_variance_entropy_and_quantiles(logit):
    given = ContinuousBernoulliDistribution(torch.tensor(logit, dtype=torch.float64))
    half = abs(mpmath.mpf(logit)) / 2
    mpmath.mp.dps = 50
    variance = mpmath.mpf(1) / 12 if half == 0 else 1 / (4 * half**2) - 1 / (4 * mpmath.sinh(half) ** 2)
    assert given.variance.item() == pytest.approx(float(variance), rel=1e-9)
    assert given.entropy().item() == pytest.approx(float(-oracle_log_density(logit, oracle_mean(logit))), abs=1e-11)
    u = torch.tensor([1e-9, 0.1, 0.5, 0.9], dtype=torch.float64)
    torch.testing.assert_close(given.cdf(given.icdf(u)), u, rtol=1e-6, atol=1e-11)
    assert given.cdf(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist() == [0, 1]


def test_torchs_own_continuous_bernoulli_is_refused_in_a_decoder():
    class Wrong(Likelihood):
        def distribution(self, parameters, shared=None, event_dims=3):
            return torch.distributions.Independent(
                torch.distributions.ContinuousBernoulli(logits=parameters), event_dims
            )

    decoder = Conditional(torch.nn.Linear(2, 4), Wrong(), event_shape=(1, 2, 2), condition_shape=(2,))
    with pytest.raises(ConfigurationError, match="ContinuousBernoulliDistribution"):
        decoder(torch.zeros(3, 2))


# ---- Gaussians ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES[2:5], ids=lambda family: family.type_name)
def test_gaussian_densities_are_scipys(family):
    given, x = distribution(family, (4,)), torch.rand(4, *IMAGE, dtype=torch.float64)
    oracle = scipy_stats.norm(given.mean.numpy(), given.stddev.numpy()).logpdf(x.numpy())
    torch.testing.assert_close(given.log_prob(x), torch.tensor(oracle).sum((1, 2, 3)), rtol=1e-12, atol=1e-10)


def test_gaussian_scales_are_those_asked_for():
    assert (distribution(Gaussian(scale=0.2)).stddev == 0.2).all()
    torch.testing.assert_close(
        distribution(GaussianLearnedScale(initial_scale=0.4)).stddev, torch.full(IMAGE, 0.4).double()
    )
    numbers = torch.cat([torch.zeros(2, 3, 4), torch.full((2, 3, 4), -1e4)])
    torch.testing.assert_close(
        GaussianPerPixel(smallest_scale=0.01).distribution(numbers).stddev, torch.full(IMAGE, 0.01)
    )


def test_a_learned_scale_without_its_parameter_is_an_error():
    with pytest.raises(ValueError, match="shared log-scale"):
        GaussianLearnedScale().distribution(torch.zeros(IMAGE))


# ---- discretized logistic mixture ---------------------------------------------------------------------------------


def oracle_level(level, weights, means, log_scales):
    """log of the mixture's increase over the cell of a level; digits enough for differences of e^−1000."""
    mpmath.mp.dps = 600
    total = mpmath.mpf(0)
    for weight, mean, log_scale in zip(weights, means, log_scales, strict=True):
        scale = mpmath.exp(max(mpmath.mpf(log_scale), mpmath.mpf(-7)))

        def cumulative(v, mean=mean, scale=scale):
            return 1 / (1 + mpmath.exp(-(v - mpmath.mpf(mean)) / scale))

        upper = cumulative(mpmath.mpf(2 * level + 1) / 255 - 1) if level < 255 else mpmath.mpf(1)
        lower = cumulative(mpmath.mpf(2 * level - 1) / 255 - 1) if level > 0 else mpmath.mpf(0)
        total += mpmath.mpf(weight) * (upper - lower)
    return mpmath.log(total)


@pytest.mark.parametrize(
    ("means", "log_scales"),
    [
        ([0.1, -0.5], [-2.0, -4.0]),
        ([1.3, -1.2], [-6.0, -7.5]),
        ([0.0, 0.9], [3.0, 12.0]),
        ([-30.0, 40.0], [0.0, 0.5]),
    ],
    ids=str,
)
@pytest.mark.parametrize("level", [0, 1, 17, 127, 128, 254, 255])
def test_every_level_has_its_cells_probability(level, means, log_scales):
    weights = [0.3, 0.7]
    numbers = torch.tensor([*map(math.log, weights), *means, *log_scales], dtype=torch.float64)
    given = DiscretizedLogisticMixtureDistribution(numbers[:, None, None], 2)
    value = given.log_prob(torch.full((1, 1, 1), level / 255, dtype=torch.float64)).item()
    assert value == pytest.approx(float(oracle_level(level, weights, means, log_scales)), rel=1e-12, abs=1e-10)


@pytest.mark.parametrize("log_scale", [-1e4, -7.0, -3.0, 0.0, 5.0, 30.0, 1e4])
@pytest.mark.parametrize("mean", [-1e4, -1.5, 0.0, 0.3, 1e4])
def test_levels_sum_to_one_whatever_the_numbers(mean, log_scale):
    numbers = torch.tensor([0.0, mean, log_scale], dtype=torch.float64).reshape(3, 1, 1)
    levels = (torch.arange(256, dtype=torch.float64) / 255).reshape(-1, 1, 1, 1)
    assert DiscretizedLogisticMixtureDistribution(numbers, 1).log_prob(levels).exp().sum().item() == pytest.approx(
        1, abs=1e-11
    )


def test_a_very_wide_logistic_keeps_its_tiny_probabilities():
    numbers = torch.tensor([0.0, 0.0, 1e4], dtype=torch.float64).reshape(3, 1, 1).requires_grad_()
    value = DiscretizedLogisticMixtureDistribution(numbers, 1).log_prob(
        torch.full((1, 1, 1), 17 / 255, dtype=torch.float64)
    )
    assert value.item() == pytest.approx(float(mpmath.log(2) - mpmath.log(255) - 1e4 - 2 * mpmath.log(2)), rel=1e-13)
    (gradient,) = torch.autograd.grad(value, numbers)
    assert gradient.flatten().tolist() == [0, 0, -1]


def test_compilers_trace_the_sampling_of_a_logistic_mixture_whole():
    validates = torch.distributions.Distribution._validate_args  # torch's compiler switches it off
    try:
        draw = torch.compile(
            lambda numbers: DiscretizedLogisticMixtureDistribution(numbers, 2).sample((3,)),
            backend="aot_eager",
            fullgraph=True,
        )
        assert draw(torch.randn(4, 6, 2, 2)).shape == (3, 4, 1, 2, 2)
    finally:
        torch.distributions.Distribution.set_default_validate_args(validates)
        torch._dynamo.reset()


def test_channels_share_their_component():
    """Two components, black and white: both channels are of one of them, so they are always equal."""
    numbers = torch.tensor([0.0, 0.0, -2, -2, 2, 2, -7, -7, -7, -7]).reshape(10, 1, 1)
    given = DiscretizedLogisticMixtureDistribution(numbers, 2)
    assert given.event_shape == (2, 1, 1)
    x = given.sample((1000,)).squeeze()
    assert torch.equal(x[:, 0], x[:, 1])
    assert Estimate.mean(x[:, 0]).agrees_with(0.5)
    torch.testing.assert_close(given.log_prob(torch.ones(2, 1, 1)), torch.tensor(0.5).log())
    assert given.log_prob(torch.tensor([0.0, 1.0]).reshape(2, 1, 1)).item() < -1000


def test_variance_and_entropy_of_a_logistic_mixture_are_sums_over_levels():
    given = distribution(DiscretizedLogisticMixture(components=3), (4,), shape=(1, 1, 1))
    levels = (torch.arange(256, dtype=torch.float64) / 255).reshape(-1, 1, 1, 1, 1)
    p = given.log_prob(levels).exp()
    mean = (p * levels[..., 0, 0, 0]).sum(0)
    torch.testing.assert_close(given.variance.flatten(), (p * (levels[..., 0, 0, 0] - mean).square()).sum(0))
    torch.testing.assert_close(given.entropy(), torch.special.entr(p).sum(0))
    with pytest.raises(UnsupportedError, match="average"):
        distribution(DiscretizedLogisticMixture(components=3)).entropy()


def test_draws_are_levels_and_bits_are_counted_per_dimension():
    given = distribution(DiscretizedLogisticMixture(components=3), (20,))
    x = given.sample()
    torch.testing.assert_close(x * 255, (x * 255).round())
    expected = -given.log_prob(x) / torch.log(torch.tensor(2.0, dtype=torch.float64)) / 24
    torch.testing.assert_close(given.bits_per_dimension(x), expected)


def test_float32_agrees_with_float64_on_trained_looking_numbers():
    torch.manual_seed(0)
    numbers = torch.randn(8, 15, 4, 4) * torch.tensor([1.0] * 5 + [0.5] * 5 + [2.0] * 5)[:, None, None]
    numbers[:, 10:] -= 3
    x = DiscretizedLogisticMixtureDistribution(numbers, 5).sample()
    single = DiscretizedLogisticMixtureDistribution(numbers, 5).log_prob(x)
    double = DiscretizedLogisticMixtureDistribution(numbers.double(), 5).log_prob((x.double() * 255).round() / 255)
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-3)
