import itertools

import pytest
import torch

from latentia.distributions import Diagonal
from latentia.estimate import Estimate
from latentia.objectives import ELBO, BetaTC, Progress
from latentia.objectives.total_correlation import stratified_log_weights

from .linear_gaussian import LinearGaussian

UNIT = BetaTC(alpha=1, beta=1, gamma=1)


@pytest.mark.parametrize("data_size", [8, 100, 60_000])
def test_with_unit_weights_the_three_terms_are_the_drawn_rate(data_size):
    """So that the cost is −ELBO with a drawn KL, whatever the batch says of the aggregate."""
    model = LinearGaussian(Diagonal(), away=0.3)
    x = model.images(8)
    costs = []
    for objective in (UNIT, ELBO(kl="monte-carlo")):
        torch.manual_seed(0)
        terms = objective(model.vae, x, Progress(data_size=data_size))
        costs.append(terms["cost"].detach())
    torch.testing.assert_close(*costs, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("alpha", "beta", "gamma"), [(1, 6, 1), (0, 0, 0), (2, 3, 5)])
def test_the_cost_is_its_terms_with_their_weights(alpha, beta, gamma):
    model = LinearGaussian(Diagonal(), away=0.3)
    terms = BetaTC(alpha=alpha, beta=beta, gamma=gamma)(model.vae, model.images(8), Progress(data_size=50))
    expected = (
        terms["distortion"]
        + alpha * terms["mutual_information"]
        + beta * terms["total_correlation"]
        + gamma * terms["dimension_wise"]
    )
    torch.testing.assert_close(terms["cost"].detach(), expected)


def test_a_batch_of_all_images_has_the_exact_aggregate():
    model = LinearGaussian(Diagonal(), away=0.3)
    x = model.images(5)
    torch.manual_seed(0)
    terms = UNIT(model.vae, x, Progress(data_size=5))
    torch.manual_seed(0)
    q = model.vae.encode(x)
    z = q.rsample((1,))[0]
    joint = torch.stack([model.vae.encode(image[None]).log_prob(z) for image in x]).exp().mean(0).log()
    base = q.base_dist
    marginals = torch.stack([base.log_prob(z[i]).exp().mean(0).log().sum() for i in range(5)])
    torch.testing.assert_close(terms["mutual_information"], (q.log_prob(z) - joint).detach())
    torch.testing.assert_close(terms["total_correlation"], (joint - marginals).detach())
    torch.testing.assert_close(terms["dimension_wise"], (marginals - model.vae.prior.log_prob(z)).detach())


@pytest.mark.parametrize("batch", [2, 3, 6])
def test_over_all_batches_the_weights_give_the_aggregate_without_bias(batch):
    """For the image that z came from, the mean over every batch that holds it is the mean over the data set."""
    torch.manual_seed(0)
    densities = torch.rand(6, dtype=torch.float64)
    own = 0
    weights = stratified_log_weights(batch, 6).exp().double()
    estimates = [
        (weights[0] * densities[[own, *others]]).sum() for others in itertools.combinations(range(1, 6), batch - 1)
    ]
    assert torch.stack(estimates).mean().item() == pytest.approx(densities.mean().item(), rel=1e-6)


@pytest.mark.parametrize(("batch", "size"), [(1, 1), (2, 2), (4, 4), (4, 1000)])
def test_weights_are_positive_and_sum_to_one(batch, size):
    weights = stratified_log_weights(batch, size).exp()
    torch.testing.assert_close(weights.sum(1), torch.ones(batch))
    assert weights.diagonal().tolist() == pytest.approx([1 / size] * batch)


def test_total_correlation_is_that_of_a_known_gaussian():
    """Encoders as narrow as points spread over a correlated Gaussian: TC(z) = −½ log(1 − ρ²)."""
    model = LinearGaussian(Diagonal())
    torch.manual_seed(0)
    rho, n = 0.8, 2000
    with torch.no_grad():
        linear = model.vae.posterior.network[1]
        linear.weight.zero_()
        linear.bias.zero_()
        linear.weight[:2, :2] = torch.tensor([[1.0, 0.0], [rho, (1 - rho**2) ** 0.5]])
        linear.bias[2:] = -2.0  # a kernel of width 0.14 around each point
        x = torch.randn(n, 1, 1, 3, dtype=torch.float64)
        terms = UNIT(model.vae, x, Progress(data_size=n))
    estimate = Estimate.mean(terms["total_correlation"])
    kernel = torch.tensor(-4.0, dtype=torch.float64).exp()  # the aggregate has the kernel's variance on top
    truth = -0.5 * torch.log(1 - (rho / (1 + kernel)) ** 2).item()
    # Of n kernels the one around z itself weighs most: a bias of order 1/(n h²), here below 0.05 nats.
    assert abs(estimate.value - truth) < 5 * estimate.stderr + 0.05
    assert estimate.value > 0.3


def test_only_unit_weights_are_a_bound():
    assert UNIT.bounds_log_likelihood
    assert not BetaTC().bounds_log_likelihood
