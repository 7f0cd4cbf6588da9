import math

import pytest
import torch
from scipy import stats
from torch import nn

from latentia.distributions import (
    Conditional,
    Diagonal,
    FlowPrior,
    Full,
    MixturePrior,
    Prior,
    StandardNormal,
    VampPrior,
)
from latentia.errors import UnsupportedError
from latentia.estimate import Estimate

IMAGE = (1, 2, 2)
PRIORS = [
    StandardNormal(),
    MixturePrior(components=3),
    VampPrior(components=4),
    FlowPrior(kind="maf", transforms=2, hidden=(8,)),
    FlowPrior(kind="nsf", transforms=2, hidden=(8,)),
]
priors = pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: prior.type_name + getattr(prior, "kind", ""))


def posterior(d, family=None):
    family = family or Diagonal()
    (numbers,) = family.parameter_shape((d,))
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, numbers))
    return Conditional(network, family, event_shape=(d,), condition_shape=IMAGE)


def built(prior, d, seed=0):
    """The prior's module away from its start, and the posterior that it may be made of, in float64."""
    torch.manual_seed(seed)
    module, q = prior.build(d, IMAGE).double(), posterior(d).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module, q


def grid(d, half, n):
    axis = torch.linspace(-half, half, n, dtype=torch.float64)
    points = torch.cartesian_prod(*[axis] * d).reshape(-1, d)
    return points, (axis[1] - axis[0]).item() ** d


def test_every_prior_of_the_library_is_in_the_table():
    own = [member() for member in Prior.members().values() if member.__module__.startswith("latentia.")]
    shipped = {prior.type_name for prior in own if prior.space(2) == "R^2"}
    assert shipped == {prior.type_name for prior in PRIORS}


@priors
@pytest.mark.parametrize("d", [1, 2, 5])
def test_shapes(prior, d):
    module, q = built(prior, d)
    distribution = module(q)
    assert (distribution.batch_shape, distribution.event_shape) == ((), (d,))
    z = distribution.sample((3, 4))
    assert z.shape == (3, 4, d)
    assert distribution.log_prob(z).shape == (3, 4)
    torch.testing.assert_close(distribution.log_prob(z)[1], distribution.log_prob(z[1]))
    assert not z.requires_grad


# The trapezoid rule on a smooth, decaying density is exact but for rounding. A flow's density has kinks, where the
# rule's error falls with a power of the step: halving the step shows by how much it may be off.
@priors
@pytest.mark.parametrize(("d", "half", "n"), [(1, 14.0, 4001), (2, 9.0, 181)])
def test_density_integrates_to_one(prior, d, half, n):
    module, q = built(prior, d)
    with torch.no_grad():
        totals = []
        for points in (n, (n + 1) // 2):
            z, cell = grid(d, half, points)
            totals.append(module(q).log_prob(z).exp().sum().item() * cell)
    fine, coarse = totals
    smooth = getattr(prior, "kind", "") == ""
    assert abs(fine - 1) < (1e-9 if smooth else 1e-9 + abs(fine - coarse))
    assert abs(fine - coarse) < 0.02


@priors
def test_draws_follow_the_density(prior):
    """Mean and square of every coordinate, and the entropy, of draws against those found on a grid."""
    module, q = built(prior, 2)
    with torch.no_grad():
        distribution = module(q)
        points, cell = grid(2, 9.0, 181)
        log_p = distribution.log_prob(points)
        mass = log_p.exp() * cell
        z = distribution.sample((20_000,))
        for j in range(2):
            assert Estimate.mean(z[:, j]).agrees_with((mass * points[:, j]).sum().item())
            assert Estimate.mean(z[:, j] ** 2).agrees_with((mass * points[:, j] ** 2).sum().item())
        entropy = -(mass * torch.where(mass > 0, log_p, 0.0)).sum().item()
        assert Estimate.mean(-distribution.log_prob(z)).agrees_with(entropy)


@priors
def test_the_gradient_reaches_every_parameter(prior):
    module, q = built(prior, 2)
    torch.manual_seed(1)
    log_p = module(q).log_prob(torch.randn(500, 2, dtype=torch.float64))
    assert log_p.requires_grad == bool([*module.parameters()])
    if log_p.requires_grad:
        log_p.mean().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 1e-9, name


@priors
def test_the_same_seed_builds_the_same_prior_and_the_state_holds_all_of_it(prior):
    z = torch.randn(7, 2)
    modules = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        modules.append(prior.build(2, IMAGE))
    first, same, other = modules
    q = posterior(2)
    torch.testing.assert_close(first(q).log_prob(z), same(q).log_prob(z), rtol=0, atol=0)
    other.load_state_dict(first.state_dict())
    assert torch.equal(first(q).log_prob(z), other(q).log_prob(z))


def test_standard_normal_is_scipys_and_has_no_parameters():
    module, _ = built(StandardNormal(), 3)
    z = torch.randn(5, 3, dtype=torch.float64)
    oracle = stats.norm.logpdf(z.numpy()).sum(-1)
    torch.testing.assert_close(module(None).log_prob(z), torch.tensor(oracle))
    assert not [*module.parameters()]
    assert not module.state_dict()


def test_a_mixture_is_the_sum_of_its_components():
    module, q = built(MixturePrior(components=3), 2)
    z = torch.randn(5, 2, dtype=torch.float64)
    density = sum(
        weight * stats.multivariate_normal(mean, torch.diag(scale**2).numpy()).pdf(z.numpy())
        for weight, mean, scale in zip(
            module.logits.softmax(0).tolist(), module.means.tolist(), module.log_scales.exp().detach(), strict=True
        )
    )
    torch.testing.assert_close(module(q).log_prob(z).detach(), torch.tensor(density).log())


def test_a_mixture_starts_with_the_given_width():
    torch.manual_seed(0)
    module = MixturePrior(components=4000, spread=3.0).build(2, IMAGE)
    assert Estimate.mean(module.means.square()).agrees_with(9.0)


@pytest.mark.parametrize("family", [Diagonal(), Full()], ids=lambda family: family.type_name)
def test_a_vamp_prior_is_made_of_posteriors(family):
    torch.manual_seed(0)
    module, q = VampPrior(components=4).build(2, IMAGE).double(), posterior(2, family).double()
    z = torch.randn(5, 2, dtype=torch.float64)
    with torch.no_grad():
        module.logits.copy_(torch.tensor([0.0, 1.0, -1.0, 0.5]))
        images = module.pseudo_inputs.sigmoid()
        assert ((images > 0) & (images < 1)).all()
        parts = torch.stack([q(image).log_prob(z) for image in images])
        expected = torch.logsumexp(parts + module.logits.log_softmax(0)[:, None], 0)
        torch.testing.assert_close(module(q).log_prob(z), expected)
    module(q).log_prob(z).sum().backward()  # the encoder is in the prior too
    assert all(parameter.grad is not None for parameter in q.parameters())


def test_a_vamp_prior_without_a_posterior_is_an_error():
    with pytest.raises(ValueError, match="mixture of posteriors"):
        VampPrior().build(2, IMAGE)(None)


@pytest.mark.parametrize("fields", [{"components": 0}, {"spread": 0.0}, {"spread": -1}], ids=str)
def test_settings_out_of_range_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        MixturePrior(**fields)


def test_flows_bend():
    """A flow away from its start is not Gaussian: its log-density is not quadratic."""
    for kind in ("maf", "nsf"):
        module, q = built(FlowPrior(kind=kind, transforms=2, hidden=(8,)), 2)
        line = torch.stack([torch.linspace(-2, 2, 9), torch.linspace(-1, 1, 9)], 1).double()
        third = torch.diff(module(q).log_prob(line), n=3).abs().max().item()
        assert third > 1e-3, kind
        assert math.isfinite(third)


def test_a_flow_leaves_the_validation_of_torch_s_distributions_switched_on():
    FlowPrior(transforms=1, hidden=(4,)).build(2, (1, 8, 8))
    with pytest.raises(ValueError, match="scale"):
        torch.distributions.Normal(0.0, -1.0)


@pytest.mark.parametrize("kind", ["maf", "nsf"])
def test_flow_priors_have_a_support_and_say_that_moments_are_missing(kind):
    module, q = built(FlowPrior(kind=kind, transforms=1, hidden=(8,)), 2)
    flow = module(q)
    assert flow.support.check(torch.zeros(3, 2)).tolist() == [True] * 3
    for moment in ("mean", "variance"):
        with pytest.raises(UnsupportedError, match="sample"):
            getattr(flow, moment)


@priors
@pytest.mark.parametrize("family", [Diagonal(), Full()], ids=["diagonal", "full"])
def test_bfloat16_modules_give_densities(prior, family):
    module, q = prior.build(2, IMAGE).bfloat16(), posterior(2, family).bfloat16()
    with torch.no_grad():
        assert torch.isfinite(module(q).log_prob(module(q).sample((3,)))).all()
