import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal

from latentia.data import Digits
from latentia.distributions import (
    Bernoulli,
    ContinuousBernoulli,
    Diagonal,
    DiscretizedLogisticMixture,
    Family,
    Fixed,
    FlowPrior,
    Full,
    Gaussian,
    GaussianLearnedScale,
    GaussianPerPixel,
    MixturePrior,
    StandardNormal,
    VampPrior,
)
from latentia.errors import ConfigurationError, DataError, UnsupportedError
from latentia.estimate import Estimate
from latentia.likelihood import LatentModel, evaluate_bound, exact_log_likelihood
from latentia.models import VAE
from latentia.objectives import ELBO, Progress

IMAGE = (1, 4, 5)
PARTS = [
    (posterior, likelihood, prior)
    for posterior in (Fixed(), Diagonal(), Full())
    for likelihood, prior in [
        (Bernoulli(), StandardNormal()),
        (ContinuousBernoulli(), MixturePrior(components=3)),
        (Gaussian(), VampPrior(components=3)),
        (GaussianLearnedScale(), FlowPrior(kind="maf", transforms=1, hidden=(4,))),
        (GaussianPerPixel(), StandardNormal()),
        (DiscretizedLogisticMixture(components=2), StandardNormal()),
    ]
]
any_parts = pytest.mark.parametrize("parts", PARTS, ids=lambda parts: "-".join(part.type_name for part in parts))


def build(parts, latent=2):
    posterior, likelihood, prior = parts
    torch.manual_seed(0)
    (numbers,) = posterior.parameter_shape((latent,))
    emitted = torch.Size(likelihood.parameter_shape(IMAGE))
    return VAE(
        nn.Sequential(nn.Flatten(), nn.Linear(20, numbers)),
        nn.Sequential(nn.Linear(latent, emitted.numel()), nn.Unflatten(1, emitted)),
        latent=latent, event_shape=IMAGE, posterior=posterior, likelihood=likelihood, prior=prior,
    )  # fmt: skip


def some_images(n, seed=1):
    torch.manual_seed(seed)
    return torch.bernoulli(torch.full((n, *IMAGE), 0.5))


@any_parts
def test_shapes(parts):
    vae, x = build(parts), some_images(6)
    q, prior = vae.encode(x), vae.prior
    assert (q.batch_shape, q.event_shape) == ((6,), (2,))
    assert (prior.batch_shape, prior.event_shape) == ((), (2,))
    for z in (q.sample(), q.sample((3,)), q.sample((3, 2))):
        p = vae.decode(z)
        assert (p.batch_shape, p.event_shape) == (z.shape[:-1], IMAGE)
        assert vae.log_joint(x, z).shape == z.shape[:-1]
    assert vae.elbo(x).shape == (6,)
    assert vae.elbo(x, samples=4).shape == (6,)
    assert vae.reconstruct(x).shape == (6, *IMAGE)
    assert vae.sample(5).shape == (5, *IMAGE)
    assert vae.sample(5, mean=True).shape == (5, *IMAGE)


@any_parts
def test_the_joint_is_likelihood_and_prior_draw_by_draw(parts):
    vae, x = build(parts), some_images(4)
    z = torch.randn(3, 4, 2)
    joint = vae.log_joint(x, z)
    for k in range(3):
        for b in range(4):
            expected = vae.decode(z[k, b]).log_prob(x[b]) + vae.prior.log_prob(z[k, b])
            torch.testing.assert_close(joint[k, b], expected, rtol=1e-4, atol=1e-4)


@any_parts
def test_state_holds_the_whole_model(parts):
    vae, x = build(parts), some_images(4)
    other = build(parts)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    other.load_state_dict(vae.state_dict())
    bounds = []
    for model in (vae, other):
        torch.manual_seed(0)
        bounds.append(model.elbo(x))
    assert torch.equal(*bounds)


@any_parts
def test_only_the_bound_has_a_gradient(parts):
    vae, x = build(parts), some_images(4)
    assert not vae.sample(3).requires_grad
    assert not vae.sample(3, mean=True).requires_grad
    assert not vae.reconstruct(x).requires_grad
    vae.elbo(x).sum().backward()
    assert all(parameter.grad is not None for parameter in vae.parameters())


def test_its_bound_is_that_of_the_objective_in_the_mean():
    vae = build(PARTS[6])
    x = some_images(1).repeat(4000, 1, 1, 1)
    with torch.no_grad():
        drawn = Estimate.mean(vae.elbo(x, samples=2))
        closed = Estimate.mean(ELBO()(vae, x, Progress())["bound"])
    assert drawn.agrees_with(closed)


def test_the_likelihood_of_a_two_pixel_model_by_quadrature_is_above_its_bound():
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(1, 2), nn.Unflatten(1, (1, 1, 2)))
    vae = VAE(nn.Sequential(nn.Flatten(), nn.Linear(2, 2)), decoder, latent=1, event_shape=(1, 1, 2))
    z = torch.linspace(-9, 9, 2001)[:, None]
    images = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]]).reshape(4, 1, 1, 2)
    with torch.no_grad():
        joint = vae.log_joint(images, z[:, None].expand(-1, 4, -1))
        log_p = joint.double().logsumexp(0) + math.log(18 / 2000)
        assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-5)
        for image in range(4):
            bound = Estimate.mean(vae.elbo(images[image : image + 1].expand(4000, -1, -1, -1)))
            assert bound.at_most(log_p[image].item())
        frequency = vae.sample(20_000).flatten(1) @ torch.tensor([2.0, 1.0])
        for image in range(4):
            assert Estimate.mean((frequency == image).double()).agrees_with(log_p[image].exp().item())


def test_defaults_are_diagonal_posterior_bernoulli_likelihood_normal_prior():
    vae = VAE(nn.Linear(1, 4), nn.Linear(2, 20), latent=2, event_shape=IMAGE)
    assert vae.posterior.family == Diagonal()
    assert vae.likelihood.family == Bernoulli()
    assert vae.prior.log_prob(torch.zeros(2)).item() == pytest.approx(-math.log(2 * math.pi))


def test_a_model_of_a_user_s_modules_trains():
    images = Digits(binarize="threshold").load().train.x[:256].float().div(255).round()
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    decoder = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.Unflatten(1, (1, 8, 8)))
    vae = VAE(encoder, decoder, latent=2, event_shape=(1, 8, 8))
    optimizer = torch.optim.Adam(vae.parameters(), lr=3e-3)
    torch.manual_seed(0)
    before = Estimate.mean(vae.elbo(images))
    for _ in range(150):
        optimizer.zero_grad()
        (-vae.elbo(images).mean()).backward()
        optimizer.step()
    assert not Estimate.mean(vae.elbo(images)).at_most(before.value + 10)


def test_moving_the_model_moves_all_of_it():
    vae = build(PARTS[0]).double()
    assert vae.elbo(some_images(3).double()).dtype == torch.float64
    assert vae.sample(3).dtype == torch.float64


class Pathless(Family):
    def parameter_shape(self, event_shape):
        return Diagonal().parameter_shape(event_shape)

    def distribution(self, parameters, shared=None, event_dims=1):
        base = Normal(parameters.chunk(2, -1)[0], 1.0)
        base.has_rsample = False
        return Independent(base, 1)


def test_a_posterior_without_rsample_bounds_but_does_not_train():
    vae, x = build(PARTS[6]), some_images(4)
    vae.posterior.family = Pathless()
    with pytest.raises(UnsupportedError, match="gradient='score'"):
        vae.elbo(x)
    with torch.no_grad():
        assert torch.isfinite(vae.elbo(x)).all()


def test_parts_that_do_not_fit_are_refused():
    vae = VAE(nn.Sequential(nn.Flatten(), nn.Linear(20, 2)), nn.Linear(2, 7), latent=2, event_shape=IMAGE)
    with pytest.raises(ConfigurationError, match=r"needs \(4,\)"):
        vae.encode(some_images(3))
    with pytest.raises(ConfigurationError, match=r"needs \(1, 4, 5\)"):
        vae.decode(torch.zeros(3, 2))
    with pytest.raises(DataError, match=r"must have shape \(1, 4, 5\)"):
        vae.encode(torch.zeros(3, 1, 8, 8))


ANY_RANK = [Bernoulli(), ContinuousBernoulli(), Gaussian(), GaussianLearnedScale(), GaussianPerPixel()]


@pytest.mark.parametrize("likelihood", ANY_RANK, ids=lambda family: family.type_name)
def test_events_of_any_rank_are_scored_one_by_one(likelihood):
    """log p(x|z) is summed over the event only: the same pixels score the same in events of rank 1, 2, 3 and 4."""
    torch.manual_seed(0)
    x, z = torch.bernoulli(torch.full((6, 12), 0.5)), torch.randn(6, 2)
    factor = math.prod(likelihood.parameter_shape((12,))) // 12
    network = nn.Linear(2, 12 * factor)
    scores = []
    for shape in [(12,), (1, 12), (3, 4), (1, 3, 4), (1, 2, 2, 3)]:
        decoder = nn.Sequential(network, nn.Unflatten(1, likelihood.parameter_shape(shape)))
        vae = VAE(nn.Flatten(), decoder, latent=2, event_shape=shape, likelihood=likelihood)
        distribution = vae.decode(z)
        assert (distribution.batch_shape, distribution.event_shape) == ((6,), shape)
        assert vae.decode(torch.randn(5, 6, 2)).log_prob(x.view(6, *shape)).shape == (5, 6)
        if factor == 1:
            scores.append(distribution.log_prob(x.view(6, *shape)))
    for other in scores[1:]:
        torch.testing.assert_close(other, scores[0])


@pytest.mark.parametrize("n", [1, 500])
def test_the_bound_of_a_vector_is_that_of_each_example(n: int):
    torch.manual_seed(0)
    encoder, decoder = nn.Sequential(nn.Flatten(), nn.Linear(100, 4)), nn.Linear(2, 100)
    vae = VAE(encoder, decoder, latent=2, event_shape=(1, 100), likelihood=Gaussian())
    x = torch.rand(n, 1, 100)
    assert vae.elbo(x).shape == (n,)
    with torch.no_grad():
        z = torch.randn(n, 2)
        expected = torch.distributions.Normal(decoder(z), 0.1).log_prob(x[:, 0]).sum(1)
        torch.testing.assert_close(vae.decode(z).log_prob(x), expected)


def test_a_mixture_of_images_needs_images():
    with pytest.raises(ConfigurationError, match="likelihood=gaussian"):
        VAE(nn.Flatten(), nn.Linear(2, 9), latent=2, event_shape=(9,), likelihood=DiscretizedLogisticMixture())


def test_gray_images_under_a_bernoulli_likelihood_are_refused():
    vae, gray = build(PARTS[0]), torch.full((4, *IMAGE), 0.5)
    for score in (vae.elbo, lambda x: evaluate_bound(vae, x)):
        with pytest.raises(DataError, match="binarize"):
            score(gray)
    vae.elbo(some_images(4))  # the first step of a training loop is checked, later ones do not wait for the device
    assert vae.elbo(gray).requires_grad
    with torch.no_grad(), pytest.raises(DataError, match="binarize"):
        vae.elbo(gray)


WRONG = {
    "examples that the encoder does not take": (
        lambda encoder, decoder: VAE(encoder, decoder, latent=2, event_shape=(1, 5, 5)).elbo(torch.ones(3, 1, 5, 5)),
        "does not take a batch of shape \\(3, 1, 5, 5\\)",
    ),
    "a list": (
        lambda encoder, decoder: VAE(encoder, decoder, latent=2, event_shape=IMAGE).encode([[1.0]]),
        "must be a tensor",
    ),
    "a function": (
        lambda encoder, decoder: VAE(encoder, lambda z: decoder(z), latent=2, event_shape=IMAGE),
        "forward",
    ),
    "a negative number": (
        lambda encoder, decoder: VAE(encoder, decoder, latent=2, event_shape=IMAGE).sample(-1),
        "n: give at least 0",
    ),
    "a decoder without a distribution": (
        lambda _, decoder: exact_log_likelihood(
            LatentModel(decoder, Independent(Normal(torch.zeros(2), torch.ones(2)), 1)), torch.ones(3, *IMAGE)
        ),
        "such as Independent",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_parts_of_a_user_that_do_not_fit_get_the_cure(case):
    call, cure = WRONG[case]
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(20, 4))
    decoder = nn.Sequential(nn.Linear(2, 20), nn.Unflatten(1, IMAGE))
    with pytest.raises((ConfigurationError, DataError), match=cure):
        call(encoder, decoder)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float64])
def test_binary_images_of_any_type_have_one_bound(dtype):
    vae = build(PARTS[0])
    images = (some_images(4) > 0.5).to(dtype)
    vae = vae.double() if dtype == torch.float64 else vae
    torch.manual_seed(0)
    bound = vae.elbo(images)
    torch.manual_seed(0)
    assert torch.equal(bound, vae.elbo(images.to(bound.dtype)))
    assert torch.equal(vae.encode(images.double()).mean, vae.encode(images).mean)


def test_arrays_of_numpy_give_back_arrays():
    vae = build(PARTS[0])
    images = (some_images(4) > 0.5).float()
    for array in (images.numpy(), images.double().numpy(), images.bool().numpy()):
        assert torch.equal(vae.encode(array).mean, vae.encode(images).mean)
        again = vae.reconstruct(array)
        torch.manual_seed(0)
        bound = vae.elbo(array, samples=3)
        torch.manual_seed(0)
        assert isinstance(again, np.ndarray)
        assert np.array_equal(again, vae.reconstruct(images).numpy())
        assert np.array_equal(bound, vae.elbo(images, samples=3).detach().numpy())
    assert vae.encode(np.ma.masked_equal(images.numpy(), 1)).mean.isnan().any()  # a masked value is missing
