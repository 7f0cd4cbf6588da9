import math
import time

import numpy as np
import pytest
import torch
from scipy.integrate import dblquad, quad
from torch import nn
from torch.distributions import Bernoulli, Categorical, Independent, MixtureSameFamily, Normal

from latentia.distributions import Conditional, FlowPrior, GaussianPerPixel, MixturePrior, VampPrior
from latentia.errors import ConfigurationError, DataError, UnsupportedError
from latentia.likelihood import LatentModel, exact_log_likelihood
from latentia.likelihood.lattice import Lattice
from latentia.likelihood.refinement import Integrand, refine
from latentia.models import VAE

from .known_models import (
    FoldedModel,
    LinearGaussian,
    conditional,
    kinked_vae,
    narrow_model,
    standard_normal,
    toy_images,
    toy_vae,
)


@pytest.mark.parametrize("latent", [1, 2, 3])
def test_linear_gaussian_equals_probabilistic_pca(latent):
    linear = LinearGaussian(latent, pixels=6)
    result = exact_log_likelihood(linear.model, linear.images[:8], tolerance=5e-7)
    assert (result.values - linear.truth[:8]).abs().max() < 1e-6
    assert (result.errors < 5e-7).all()


@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-3])
def test_no_error_exceeds_its_certificate(tolerance):
    for scale in (0.3, 0.03, 0.005):  # down to posteriors twenty times narrower than the first grid
        model = narrow_model(scale)
        torch.manual_seed(3)
        z = torch.randn(8, 2, dtype=torch.float64)
        x = model.decoder(z).sample()
        # The exact marginal: pixels outside the plane of A are noise, those inside have variance 1 + σ².
        sigma = scale / math.sqrt(1 - scale**2)
        torch.manual_seed(0)
        basis = torch.linalg.qr(torch.randn(60, 2, dtype=torch.float64))[0]
        inside = x @ basis
        outside = x.square().sum(-1) - inside.square().sum(-1)
        truth = Normal(0.0, math.sqrt(1 + sigma**2)).log_prob(inside).sum(-1)
        truth = truth - 0.5 * outside / sigma**2 - 58 * math.log(sigma * math.sqrt(2 * math.pi))
        result = exact_log_likelihood(model, x, tolerance=tolerance, precision="float64")
        assert ((result.values - truth).abs() <= result.errors + 1e-9).all()


@pytest.mark.parametrize(("narrow", "wide"), [(0.002, 0.002), (0.002, 0.1), (0.05, 0.05)])
def test_narrow_ridges_with_two_modes_kinks_and_far_mass(narrow, wide):
    folded = FoldedModel(narrow, wide)
    x = torch.tensor([[0.5, 0.2], [0.0, 1.0], [narrow, -1.0], [0.9113, 0.0], [6.5, -0.3]], dtype=torch.float64)
    result = exact_log_likelihood(folded.model, x, tolerance=1e-3)
    assert (result.errors < 1e-3).all()
    assert ((result.values - folded.truth(x)).abs() <= result.errors).all()


@pytest.mark.parametrize("sharpness", [0.3, 2.0])
def test_kinked_decoders_keep_within_their_certificates(sharpness):
    vae = kinked_vae(sharpness=sharpness)
    x = toy_images(vae, 12)
    result = exact_log_likelihood(vae, x, tolerance=1e-2)
    finer = exact_log_likelihood(vae, x, tolerance=1e-3)
    assert ((result.values - finer.values).abs() <= result.errors + finer.errors).all()


def joint_in_numpy(vae, image):
    """p(x, z) of a toy VAE as a function of numbers, thirty times faster than a module for one z."""
    first, last = vae.likelihood.network[0], vae.likelihood.network[2]
    w1, b1, w2, b2 = (p.detach().double().numpy() for p in (first.weight, first.bias, last.weight, last.bias))
    sign = 1 - 2 * image.flatten().double().numpy()

    def joint(*z):
        logits = w2 @ np.tanh(w1 @ np.array(z) + b1) + b2
        log_p = -np.logaddexp(0, sign * logits).sum() - 0.5 * np.dot(z, z) - 0.5 * len(z) * math.log(2 * math.pi)
        return math.exp(log_p)

    return joint


def test_plane_equals_scipy_dblquad():
    vae = toy_vae(sharpness=0.5)
    x = toy_images(vae, 2)
    result = exact_log_likelihood(vae, x, tolerance=1e-5)
    for image, value in zip(x, result.values, strict=True):
        truth, _ = dblquad(joint_in_numpy(vae, image), -6, 6, -6, 6, epsabs=1e-14, epsrel=1e-6)
        assert abs(math.log(truth) - value) < 2e-5


def test_line_equals_scipy_quad():
    vae = toy_vae(latent=1)
    x = toy_images(vae, 5)
    result = exact_log_likelihood(vae, x, tolerance=1e-6)
    for image, value in zip(x, result.values, strict=True):
        truth, _ = quad(joint_in_numpy(vae, image), -8, 8, limit=400, epsabs=1e-14, epsrel=1e-9)
        assert abs(math.log(truth) - value) < 2e-6


def test_finite_latent_space_equals_enumeration():
    torch.manual_seed(0)
    points = torch.randn(7, 2, dtype=torch.float64)

    class Finite(Categorical):
        """A distribution on the seven points, as far as enumeration needs one."""

        event_shape = torch.Size([2])
        has_enumerate_support = True

        def enumerate_support(self, expand=True):
            return points

        def log_prob(self, value):
            return self.logits

        def sample(self, sample_shape=torch.Size()):
            return points[super().sample(sample_shape)]

    weights = torch.rand(7, dtype=torch.float64)
    prior = Finite(probs=weights / weights.sum(), validate_args=False)
    logits = nn.Linear(2, 9).double()
    model = LatentModel(lambda z: Independent(Bernoulli(logits=logits(z.double())), 1), prior)
    x = (torch.rand(30, 9) < 0.5).double()
    result = exact_log_likelihood(model, x)
    with torch.no_grad():
        by_hand = (model.decoder(points).log_prob(x[:, None]).exp() * prior.probs).sum(-1).log()
    assert result.method == "enumeration"
    assert (result.values - by_hand).abs().max() < 1e-10


def test_bernoulli_likelihoods_sum_to_one_over_all_images():
    vae = toy_vae(pixels=8)
    every = torch.tensor([[i >> j & 1 for j in range(8)] for i in range(256)]).float().view(-1, 1, 4, 2)
    result = exact_log_likelihood(vae, every, tolerance=1e-4)
    assert abs(result.values.exp().sum().item() - 1) < 1e-4


@pytest.mark.parametrize(
    "prior", [MixturePrior(components=3, spread=2.0), VampPrior(components=3), FlowPrior(transforms=1)]
)
def test_every_prior_of_ours_serves(prior):
    torch.manual_seed(2)
    base = toy_vae()
    vae = VAE(base.posterior.network, base.likelihood.network, latent=2, event_shape=(1, 4, 4), prior=prior).eval()
    every = (torch.rand(200, 1, 4, 4) < 0.5).float()
    result = exact_log_likelihood(vae, every, tolerance=0.02)
    log_weight = []
    with torch.no_grad():
        torch.manual_seed(5)
        z = vae.prior.sample(torch.Size([20_000]))
        log_weight = vae.decode(z).log_prob(every[:5, None])
    value = log_weight.double().logsumexp(-1) - math.log(20_000)
    weights = (log_weight.double() - value[:, None]).exp()
    stderr = weights.std(-1) / math.sqrt(20_000)
    assert ((value - result.values[:5]).abs() < 5 * stderr + 0.02).all()


def test_a_likelihood_without_a_matrix_product_is_scored_by_its_own_distribution():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 8), nn.Unflatten(1, (2, 2, 2)))
    decoder = Conditional(network, GaussianPerPixel(), event_shape=(1, 2, 2), condition_shape=(2,))
    model = LatentModel(decoder, standard_normal(2))
    torch.manual_seed(1)
    with torch.no_grad():
        x = decoder(torch.randn(4, 2)).sample()
        result = exact_log_likelihood(model, x, tolerance=1e-2)
        log_p = decoder(torch.randn(20_000, 2)).log_prob(x[:, None]).double()
    value = log_p.logsumexp(-1) - math.log(20_000)
    stderr = (log_p - value[:, None]).exp().std(-1) / math.sqrt(20_000)
    assert ((value - result.values).abs() < 5 * stderr + result.errors).all()


def test_mass_far_outside_the_prior_is_found():
    """The image asks for z near 9, where the prior has next to nothing: only the rings see it."""

    def decoder(z):
        mean = torch.cat([z, z], -1).double()
        return Independent(Normal(mean, torch.full_like(mean, 0.05)), 1)

    model = LatentModel(decoder, standard_normal(2))
    x = torch.tensor([[9.0, -7.0, 9.0, -7.0]], dtype=torch.float64)
    covariance = 1 + 0.05**2 / 2
    truth = (-0.5 * 130 / covariance - math.log(2 * math.pi * covariance)) - 2 * math.log(0.05 * math.sqrt(4 * math.pi))
    result = exact_log_likelihood(model, x, tolerance=1e-3, precision="float64")
    assert abs(result.values.item() - truth) <= result.errors.item() + 1e-9


def test_the_error_falls_with_the_tolerance_and_the_cost_rises():
    vae = toy_vae(sharpness=6)
    x = toy_images(vae, 20)
    loose, tight = exact_log_likelihood(vae, x, tolerance=0.1), exact_log_likelihood(vae, x, tolerance=1e-4)
    assert ((loose.values - tight.values).abs() <= loose.errors + tight.errors).all()
    assert loose.settings["decoder_evaluations"] < tight.settings["decoder_evaluations"]


def test_estimates_carry_the_certificate():
    vae = toy_vae()
    (estimate,) = exact_log_likelihood(vae, toy_images(vae, 50)).estimates()
    assert (estimate.kind, estimate.n, estimate.unit) == ("numerical", 50, "nats")
    assert 0 < estimate.error <= estimate.settings["worst_error"] <= 0.01
    assert estimate.settings["stderr_over"] == "images"


def test_what_cannot_be_done_is_refused_with_the_cure():
    with pytest.raises(UnsupportedError, match=r"importance.*annealed"):
        exact_log_likelihood(toy_vae(latent=5), torch.zeros(2, 1, 4, 4))
    with pytest.raises(DataError, match="Binarize"):
        exact_log_likelihood(toy_vae(), torch.full((2, 1, 4, 4), 0.5))
    with pytest.raises(DataError, match="shape"):
        exact_log_likelihood(toy_vae(), torch.zeros(2, 1, 5, 5))
    with pytest.raises(UnsupportedError, match="from_generator"):
        exact_log_likelihood(nn.Linear(2, 3), torch.zeros(2, 3))
    vae = toy_vae(sharpness=30)
    with pytest.raises(UnsupportedError, match=r"of 5 images are certified.*the worst is at"):
        exact_log_likelihood(vae, toy_images(vae, 5), tolerance=1e-6, precision="float64", memory=2e4)


def test_an_improper_prior_is_refused():
    class Twice(Normal):
        def log_prob(self, value):
            return super().log_prob(value) + math.log(2)

    prior = Independent(Twice(torch.zeros(2), torch.ones(2)), 1)
    model = LatentModel(lambda z: Independent(Bernoulli(logits=z.float()), 1), prior)
    with pytest.raises(ConfigurationError, match=r"integrates to (3\.99|4)"):
        exact_log_likelihood(model, torch.ones(1, 2))


class _Gaussians(Integrand):
    def __init__(self, means, scales):
        self.distribution, self.count = Independent(Normal(means, scales), 1), len(means)

    def prepare(self, points):
        return self.distribution.log_prob(points[:, None]).T

    def table(self, prepared, rows, columns):
        return prepared[rows][:, columns]


@pytest.mark.parametrize("d", [1, 2, 3])
def test_refinement_integrates_gaussians_of_every_width_anywhere(d):
    torch.manual_seed(d)
    count, decades = {1: (40, 2.5), 2: (20, 2.0), 3: (4, 0.5)}[d]
    means = torch.randn(count, d, dtype=torch.float64)
    scales = 10 ** (-decades * torch.rand(count, d, dtype=torch.float64))
    lattice = Lattice(torch.zeros(d, dtype=torch.float64), torch.full((d,), 0.2, dtype=torch.float64))
    found = refine(_Gaussians(means, scales), lattice, 12, tolerance=1e-4)
    assert found.done.all()
    assert (found.log_integral.abs() <= found.error + 1e-10).all()


class _Cliff(Integrand):
    """Along the first axis a peak at −0.8, where a tile of every level begins; to its left a cliff of 20 nats within
    one coarse spacing, then a gentle slope. From inside the left tile there is nothing to be seen of the peak."""

    count = 1

    def prepare(self, points):
        left = (-0.8 - points[:, 0]).clamp_min(0)
        right = (points[:, 0] + 0.8).clamp_min(0)
        f = -20 * right - 200 * left.clamp_max(0.1) - 10 * (left - 0.1).clamp_min(0)
        return (f + Normal(0.0, 0.3).log_prob(points[:, 1]))[None]

    def table(self, prepared, rows, columns):
        return prepared[rows][:, columns]


def test_mass_is_not_cut_off_at_the_side_of_a_tile():
    lattice = Lattice(torch.zeros(2, dtype=torch.float64), torch.full((2,), 0.1, dtype=torch.float64))
    found = refine(_Cliff(), lattice, 12, tolerance=1e-2)
    truth = math.log(1 / 20 + (1 - math.exp(-20)) / 200 + math.exp(-20) / 10)
    assert found.done.all()
    assert abs(found.log_integral.item() - truth) <= found.error.item() < 1e-2


def test_a_spike_between_nodes_is_not_certified_where_draws_find_it():
    narrow = Normal(torch.tensor([1.35, -0.75]), torch.tensor([0.008, 0.008]))
    wide = Normal(torch.tensor([1.0, -1.0]), torch.tensor([0.4, 0.4]))
    components = Independent(
        Normal(torch.stack([narrow.loc, wide.loc]).double(), torch.stack([narrow.scale, wide.scale]).double()), 1
    )
    mixture = MixtureSameFamily(Categorical(torch.tensor([0.5, 0.5], dtype=torch.float64)), components)

    class One(_Gaussians):
        def __init__(self):
            self.distribution, self.count = mixture, 1

        def prepare(self, points):
            return self.distribution.log_prob(points)[None]

    lattice = Lattice(torch.zeros(2, dtype=torch.float64), torch.full((2,), 0.2, dtype=torch.float64))
    # Beside the spike the logarithm itself is not smooth: nothing but a hint can tell that there is one.
    place = torch.tensor([[1.354, -0.747]], dtype=torch.float64)
    missed = refine(One(), lattice, 12, tolerance=1e-3)
    assert missed.done.all()
    assert abs(missed.log_integral.item() + math.log(2)) < 1e-3
    hints = (place, mixture.log_prob(place))
    stopped = refine(One(), lattice, 12, tolerance=1e-3, hints=hints, memory=1e5)
    assert not stopped.done.any()  # it would go on to the spike, through 400 000 nodes, were it let


def test_the_global_random_state_stays():
    prior = Independent(Normal(torch.zeros(1), torch.ones(1)), 1)
    model = LatentModel(lambda z: Independent(Normal(z, torch.full_like(z, 0.3)), 1), prior)
    before = torch.random.get_rng_state()
    exact_log_likelihood(model, torch.tensor([[0.3], [1.0]]))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_values_do_not_depend_on_the_number_of_threads():
    model = kinked_vae(sharpness=0.5)
    images = toy_images(model, 100)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(exact_log_likelihood(model, images, certificate="numerical"))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0].values, found[1].values)
    assert torch.equal(found[0].errors, found[1].errors)


class _Keeps(nn.Module):
    """Keeps what it computes in one line for the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 30), nn.Linear(30, 6)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        self.kept = self.first(z).tanh()
        time.sleep(0.0005)
        return self.second(self.kept)


def test_a_module_of_the_users_is_not_called_by_two_threads_at_once():
    torch.manual_seed(2)
    images = (torch.rand(60, 6) < 0.5).float()
    model = LatentModel(conditional(_Keeps().eval(), 2, (6,)), standard_normal(2))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(exact_log_likelihood(model, images, certificate="numerical").values)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found[0], found[1], rtol=0.0, atol=1e-5)
