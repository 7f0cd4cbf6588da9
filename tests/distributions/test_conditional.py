import pytest
import torch
from torch import nn

from latentia.distributions import (
    Bernoulli,
    Conditional,
    ContinuousBernoulli,
    Diagonal,
    DiscretizedLogisticMixture,
    Fixed,
    Full,
    Gaussian,
    GaussianLearnedScale,
    GaussianPerPixel,
)
from latentia.distributions.conditional import distributions_in_float32
from latentia.errors import ConfigurationError, DataError

IMAGE = (2, 3, 5)
LIKELIHOODS = [
    Bernoulli(),
    ContinuousBernoulli(),
    Gaussian(),
    GaussianLearnedScale(),
    GaussianPerPixel(),
    DiscretizedLogisticMixture(components=3),
]
FAMILIES = [(family, IMAGE) for family in LIKELIHOODS] + [(family, (4,)) for family in (Fixed(), Diagonal(), Full())]


def conditional(family, event_shape, condition=(3,)):
    numbers = torch.Size(family.parameter_shape(event_shape))
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(torch.Size(condition).numel(), numbers.numel()), nn.Unflatten(1, numbers)
    )
    return Conditional(network, family, event_shape=event_shape, condition_shape=condition).double()


@pytest.mark.parametrize("batch", [(), (5,), (4, 5), (2, 1, 5)], ids=str)
@pytest.mark.parametrize(("family", "event_shape"), FAMILIES, ids=lambda part: getattr(part, "type_name", str(part)))
def test_any_leading_dimensions_give_distributions_of_that_batch(family, event_shape, batch):
    torch.manual_seed(0)
    distribution = conditional(family, event_shape)(torch.randn(*batch, 3, dtype=torch.float64))
    assert distribution.batch_shape == batch
    assert distribution.event_shape == event_shape
    draw = distribution.sample((7,))
    assert draw.shape == (7, *batch, *event_shape)
    assert distribution.log_prob(draw).shape == (7, *batch)
    assert distribution.mean.shape == (*batch, *event_shape)


@pytest.mark.parametrize(("family", "event_shape"), FAMILIES, ids=lambda part: getattr(part, "type_name", str(part)))
def test_each_of_many_distributions_is_that_of_its_own_condition(family, event_shape):
    torch.manual_seed(1)
    given = conditional(family, event_shape)
    conditions = torch.randn(4, 5, 3, dtype=torch.float64)
    x = given(conditions).sample()
    together = given(conditions).log_prob(x)
    for k in range(4):
        torch.testing.assert_close(given(conditions[k]).log_prob(x[k]), together[k], rtol=1e-12, atol=1e-12)
        for b in range(5):
            torch.testing.assert_close(given(conditions[k, b]).log_prob(x[k, b]), together[k, b])


def test_images_as_conditions_keep_their_shape_before_the_network():
    seen = []

    class Look(nn.Module):
        def forward(self, x):
            seen.append(tuple(x.shape))
            return x.flatten(1)[:, :4]

    q = Conditional(Look(), Diagonal(), event_shape=(2,), condition_shape=IMAGE)
    assert q(torch.rand(4, 5, *IMAGE)).batch_shape == (4, 5)
    assert q(torch.rand(5, *IMAGE)).batch_shape == (5,)
    assert seen == [(20, *IMAGE), (5, *IMAGE)]


def test_a_network_of_the_wrong_size_is_refused_with_both_sizes():
    q = Conditional(nn.Linear(3, 4), Full(), event_shape=(2,), condition_shape=(3,))
    with pytest.raises(ConfigurationError, match=r"Linear gives \(4,\) numbers .* Full over \(2,\) needs \(5,\)"):
        q(torch.zeros(6, 3))


@pytest.mark.parametrize("shape", [(6, 4), (3, 6), (), (6, 2, 28)], ids=str)
def test_conditions_of_another_shape_are_refused(shape):
    q = Conditional(nn.Linear(3, 4), Diagonal(), event_shape=(2,), condition_shape=(3,))
    with pytest.raises(DataError, match=r"examples must have shape \(3,\)"):
        q(torch.zeros(shape))


def test_stopped_distributions_are_equal_and_carry_no_gradient():
    torch.manual_seed(0)
    given = conditional(GaussianLearnedScale(), IMAGE)
    numbers = given.emit(torch.randn(2, 3, dtype=torch.float64))
    x = torch.rand(2, *IMAGE, dtype=torch.float64)
    stopped = given.stopped(numbers).log_prob(x)
    assert not stopped.requires_grad
    torch.testing.assert_close(stopped, given.family.distribution(numbers, given.shared).log_prob(x))


def test_a_shared_parameter_is_learned_and_saved():
    given = conditional(GaussianLearnedScale(initial_scale=0.5), IMAGE)
    assert "shared" in given.state_dict()
    given(torch.zeros(2, 3, dtype=torch.float64)).log_prob(torch.rand(2, *IMAGE, dtype=torch.float64)).sum().backward()
    assert given.shared is not None
    assert given.shared.grad is not None
    assert given.shared.grad.abs() > 1e-3
    assert given.shared.exp().item() == pytest.approx(0.5)


def test_half_precision_networks_give_float32_distributions():
    q = Conditional(nn.Linear(3, 4).bfloat16(), Diagonal(), event_shape=(2,), condition_shape=(3,))
    assert q(torch.zeros(5, 3, dtype=torch.bfloat16)).mean.dtype == torch.float32


def test_under_autocast_the_network_alone_leaves_float32():
    torch.manual_seed(0)
    seen = []

    class Watched(nn.Linear):
        def forward(self, x):
            numbers = super().forward(x)
            seen.append(numbers.dtype)
            return numbers

    q = Conditional(Watched(3, 5), Full(), event_shape=(2,), condition_shape=(3,))
    x, a = torch.randn(6, 3), torch.randn(64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        with distributions_in_float32(x.device):
            numbers = q.emit(x)
            distribution = q.family.distribution(numbers)
            torch.manual_seed(1)
            draw, covariance = distribution.rsample(), distribution.covariance_matrix
            assert (a @ a).dtype == torch.float32
        assert (a @ a).dtype == torch.bfloat16
        assert q.emit(x).dtype == torch.float32
    torch.manual_seed(1)
    plain = q.family.distribution(numbers)
    assert seen == [torch.bfloat16, torch.bfloat16]
    assert torch.equal(draw, plain.rsample())
    assert torch.equal(covariance, plain.covariance_matrix)
    q.emit(x)
    assert seen[-1] == torch.float32


def test_without_autocast_the_block_changes_nothing():
    q = Conditional(nn.Linear(3, 4), Diagonal(), event_shape=(2,), condition_shape=(3,))
    x = torch.randn(6, 3)
    with distributions_in_float32(x.device):
        inside = q.emit(x)
    assert torch.equal(inside, q.emit(x))
