"""Models with a known log p(x) that are hard for a grid, one per class, and models that must be refused."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    Gamma,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    StudentT,
    Uniform,
)

from latentia.distributions import Bernoulli as BernoulliFamily
from latentia.distributions import Conditional, Gaussian, Mixture
from latentia.errors import ConfigurationError, UnsupportedError
from latentia.likelihood import LatentModel, exact_log_likelihood, exact_posterior, quadrature
from latentia.likelihood.charts import charts_of

from .known_models import standard_normal, toy_images, toy_vae

D = torch.float64
WIDE = torch.ones(1, dtype=D)


def gaussian(scale, mean=lambda z: z):
    def decoder(z):
        loc = mean(z.double())
        return Independent(Normal(loc, torch.full_like(loc, scale)), 1)

    return decoder


def log_normal(x, mean, scale):
    return -0.5 * ((x - mean) / scale) ** 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)


def mass_below(t):
    return 0.5 * math.erfc(-t / math.sqrt(2))


def log_sum(*terms):
    return torch.tensor(terms, dtype=D).logsumexp(0).item()


def normals(weights, means, scales):
    means = torch.tensor(means, dtype=D)
    spread = torch.tensor(scales, dtype=D)[:, None].expand_as(means)
    return MixtureSameFamily(Categorical(probs=torch.tensor(weights, dtype=D)), Independent(Normal(means, spread), 1))


def narrow_component():
    place = (3.337, -2.1713)
    model = LatentModel(gaussian(0.05), normals((0.99, 0.01), ((0.0, 0.0), place), (1.0, 1e-3)))
    wide, narrow = math.hypot(1, 0.05), math.hypot(1e-3, 0.05)
    terms = [math.log(0.99) + sum(log_normal(m, 0, wide) for m in place), math.log(0.01) + 2 * log_normal(0, 0, narrow)]
    return model, place, log_sum(*terms)


def far_component(weight=0.01, place=100.0):
    """Between both components the decoder is flat, and the prior has a gap."""
    decoder = gaussian(1.0, lambda z: 6 * torch.sigmoid(z - place / 2))
    model = LatentModel(decoder, normals((1 - weight, weight), ((0.0,), (place,)), (1.0, 1.0)))
    return model, (6.0,), log_sum(math.log1p(-weight) + log_normal(6, 0, 1), math.log(weight) + log_normal(0, 0, 1))


def steps():
    low, high = -0.4137, -0.3092
    inside = mass_below(high) - mass_below(low)
    model = LatentModel(gaussian(1.0, lambda z: 2.0 * ((z > low) & (z < high)).double()), standard_normal(1))
    terms = math.log(inside) + log_normal(2, 2, 1), math.log1p(-inside) + log_normal(2, 0, 1)
    return model, (2.0,), log_sum(*terms)


def correlated():
    prior = MultivariateNormal(torch.zeros(2, dtype=D), torch.tensor([[1, 0.999], [0.999, 1]], dtype=D))
    covariance = prior.covariance_matrix + 0.01**2 * torch.eye(2, dtype=D)
    x = torch.tensor([1.3, 1.25], dtype=D)
    return (
        LatentModel(gaussian(0.01), prior),
        x,
        MultivariateNormal(torch.zeros(2, dtype=D), covariance).log_prob(x).item(),
    )


def edge(prior, density):
    """x = z + noise of 0.3, against the midpoint rule in v with z = v² or z = sin² v, which smooths the edges."""
    end, count = 6 if isinstance(prior, Gamma) else math.pi / 2, 200_000
    v = (torch.arange(count, dtype=D) + 0.5) * end / count
    z, slope = (v.square(), 2 * v) if isinstance(prior, Gamma) else (v.sin().square(), (2 * v).sin())
    joint = torch.exp(log_normal(0, 0, 0.3) - 0.5 * ((0.3 - z) / 0.3) ** 2 + density(z)) * slope
    return LatentModel(gaussian(0.3), Independent(prior, 1)), (0.3,), math.log(joint.sum().item() * end / count)


def uniform(width=1.0, validate_args=True):
    prior = Independent(Uniform(0 * WIDE, width * WIDE, validate_args=validate_args), 1)
    truth = math.log((mass_below((width - 0.3) / 0.1) - mass_below(-3.0)) / width)
    return LatentModel(gaussian(0.1), prior), (0.3,), truth


def mixed_supports():
    prior = Mixture(
        torch.tensor([0.6, 0.4], dtype=D),
        [Independent(Normal(0 * WIDE, WIDE), 1), Independent(Uniform(50 * WIDE, 50.01 * WIDE), 1)],
    )
    model = LatentModel(gaussian(0.5), prior)
    inside = mass_below(0.02) - 0.5
    return model, (50.0,), math.log(0.4 * inside / 0.01)


def heavy_tails():
    prior = Independent(StudentT(3.0 * WIDE, 0 * WIDE, WIDE), 1)
    z = torch.linspace(37, 43, 60_001, dtype=D)[:, None]
    joint = prior.log_prob(z) + Normal(z[:, 0], 0.2).log_prob(torch.tensor(40.0, dtype=D))
    return LatentModel(gaussian(0.2), prior), (40.0,), math.log(torch.trapezoid(joint.exp(), z[:, 0]).item())


def narrow_and_far():
    return LatentModel(gaussian(1e-3), standard_normal(1)), (20.0,), log_normal(20, 0, math.hypot(1, 1e-3))


def scale_jump():
    """Beyond z = 5 the scale is so small that this part of the prior makes up the whole of p(x) at x = z = 5.5."""

    def decoder(z):
        z = z.double()
        return Independent(Normal(z.expand(-1, 60), torch.where(z > 5, 0.01, 1.0).expand(-1, 60)), 1)

    # The mean of 60 pixels has the scale 0.01/√60 around z; the rest of the density does not depend on z.
    narrow = 0.01 / math.sqrt(60)
    rest = 60 * log_normal(0, 0, 0.01) - log_normal(0, 0, narrow)
    return LatentModel(decoder, standard_normal(1)), (5.5,) * 60, rest + log_normal(5.5, 0, math.hypot(1, narrow))


def saturated():
    signs = torch.sign(torch.randn(3072, generator=torch.Generator().manual_seed(0)))

    def decoder(z):
        return Independent(Bernoulli(logits=torch.cat([3 * z[:, :1], (10_000 * signs).expand(len(z), -1)], -1)), 1)

    return LatentModel(decoder, standard_normal(2)), torch.cat([torch.ones(1), (signs > 0).float()]), math.log(0.5)


def short_floats():
    def mean(z):
        return (z.bfloat16() * 3 + 1).double()

    return LatentModel(gaussian(0.5, mean), standard_normal(1)), (2.3,), log_normal(2.3, 1, math.hypot(3, 0.5))


CASES = {
    "narrow component": narrow_component,
    "far component": far_component,
    "far component after a gap": lambda: far_component(4e-5, 417.0),
    "steps": steps,
    "correlated": correlated,
    "gamma": lambda: edge(Gamma(0.5 * WIDE, WIDE), lambda z: -0.5 * z.log() - z - math.lgamma(0.5)),
    "beta": lambda: edge(Beta(0.5 * WIDE, 0.5 * WIDE), lambda z: -0.5 * (z.log() + (1 - z).log()) - math.log(math.pi)),
    "uniform": uniform,
    "uniform, not validated": lambda: uniform(2.0, validate_args=False),
    "mixed supports": mixed_supports,
    "heavy tails": heavy_tails,
    "narrow and far": narrow_and_far,
    "scale jump": scale_jump,
    "saturated": saturated,
    "short floats": short_floats,
}


@pytest.mark.parametrize("case", CASES)
def test_hard_models_are_served_within_their_certificates(case):
    model, x, truth = CASES[case]()
    x = torch.as_tensor(x, dtype=torch.float32 if case == "saturated" else D)
    result = exact_log_likelihood(model, x[None], tolerance=0.01)
    assert abs(result.values.item() - truth) <= result.errors.item() + 1e-7
    assert result.errors.item() <= 0.01


def test_saturated_pixels_that_are_right_round_little_in_float32():
    model, x, truth = saturated()
    found = exact_log_likelihood(model, x[None], precision="float32", certificate="numerical")
    assert found.settings["rounding"] < 1e-4
    assert abs(found.values.item() - truth) < 1e-4


def test_a_needle_in_a_known_network_is_proven():
    """A tent of width 0.002 that no node of the grid meets makes up most of p(x)."""
    network = nn.Sequential(nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 1)).double()
    width, height, place = 1e-3, 4.0, 0.71313
    with torch.no_grad():
        network[0].weight.fill_(1 / width)
        network[0].bias.copy_(torch.tensor([1.0, 0.0, -1.0]) - place / width)
        network[2].weight.copy_(height * torch.tensor([[1.0, -2.0, 1.0]]))
        network[2].bias.zero_()
    decoder = Conditional(network, Gaussian(scale=0.5), event_shape=(1,), condition_shape=(1,))
    prior = Independent(Normal(torch.zeros(1, dtype=D), torch.ones(1, dtype=D)), 1)
    z = torch.linspace(place - width, place + width, 20_001, dtype=D)
    mean = height * (1 - (z - place).abs() / width)
    inside = Normal(mean, 0.5).log_prob(torch.tensor(1.0, dtype=D)) + Normal(0.0, 1.0).log_prob(z)
    outside = log_normal(1.0, 0, 0.5) + math.log1p(mass_below(place - width) - mass_below(place + width))
    truth = log_sum(math.log(torch.trapezoid(inside.exp(), z).item()), outside)
    result = exact_log_likelihood(LatentModel(decoder, prior), torch.ones(1, 1, dtype=D), 0.01, certificate="proven")
    assert result.kind == "proven"
    assert abs(result.values.item() - truth) <= result.errors.item() <= 0.01


def test_every_result_names_its_kind():
    vae = toy_vae(sharpness=0.5)
    x = toy_images(vae, 40)
    result = exact_log_likelihood(vae, x)
    assert result.kind == result.estimates()[0].kind == "numerical"
    assert "log-density" in result.settings["assumes"]
    assert not result.arrays()["proven"].any()
    proven = exact_log_likelihood(vae, x[:3], certificate="proven")
    assert proven.kind == "proven"
    assert proven.arrays()["proven"].all()
    assert ((proven.values - result.values[:3]).abs() <= proven.errors + result.errors[:3]).all()
    with pytest.raises(UnsupportedError, match="certificate='numerical'"):
        exact_posterior(vae, x[:3], certificate="proven")


def test_proven_bounds_come_with_numerical_values():
    vae = toy_vae(sharpness=0.5)
    x = toy_images(vae, 40)
    posterior = exact_posterior(vae, x, prove=0.5)
    found = posterior.likelihood
    assert found.kind == "numerical"
    lower, upper = found.details["lower"], found.details["upper"]
    assert 0 < float((upper - lower).mean()) <= 0.5
    assert bool(((lower <= found.values + found.errors) & (found.values - found.errors <= upper)).all())
    named = {estimate.name: estimate for estimate in posterior.estimates()}
    assert named["log_likelihood_lower"].kind == "lower bound"
    assert named["log_likelihood_upper"].value == pytest.approx(float(upper.mean()))
    narrow = exact_log_likelihood(vae, x[:3], 0.01, prove=0.01)
    assert narrow.kind == "proven"
    assert [estimate.name for estimate in narrow.estimates()] == ["log_likelihood"]
    unknown = LatentModel(lambda z: vae.decode(z), vae.prior)
    with pytest.raises(UnsupportedError, match="Conditional"):
        exact_log_likelihood(unknown, x, prove=0.5)
    with pytest.raises(ConfigurationError, match="prove"):
        exact_log_likelihood(vae, x, prove=0.0)


def test_one_image_that_cannot_be_served_does_not_take_the_others_with_it():
    def decoder(z):
        mean = z.double()
        return Independent(Normal(mean, torch.full_like(mean, 0.1)), 1)

    x = torch.tensor([[0.3], [1e6], [-1.0]], dtype=D)
    result = exact_log_likelihood(LatentModel(decoder, standard_normal(1)), x, require=False)
    truth = torch.tensor([log_normal(v, 0, math.hypot(1, 0.1)) for v in (0.3, -1.0)], dtype=D)
    assert ((result.values[[0, 2]] - truth).abs() <= result.errors[[0, 2]]).all()
    assert (result.errors[[0, 2]] <= 0.01).all()


def test_settings_that_are_not_known_are_refused():
    vae = toy_vae()
    for name in ("precision", "certificate"):
        with pytest.raises(ConfigurationError, match=name):
            exact_log_likelihood(vae, toy_images(vae, 2), **{name: "flaot64"})


def test_a_decoder_outside_torch_is_refused_in_float64_and_served_otherwise():
    weight = torch.tensor([[2.0, -1.0, 0.5]]).numpy()

    def decoder(z):
        return Independent(Bernoulli(logits=torch.from_numpy(z.numpy().astype("float32") @ weight)), 1)

    model = LatentModel(decoder, standard_normal(1))
    x = torch.tensor([[1.0, 0.0, 1.0]])
    z = torch.linspace(-9, 9, 20_001, dtype=D)
    logits = z[:, None] * torch.from_numpy(weight).double()
    joint = Bernoulli(logits=logits).log_prob(x.double()).sum(-1) + Normal(0.0, 1.0).log_prob(z)
    result = exact_log_likelihood(model, x, tolerance=0.01)
    assert abs(result.values.item() - math.log(torch.trapezoid(joint.exp(), z).item())) <= result.errors.item() <= 0.01
    with pytest.raises(UnsupportedError, match="precision='auto'"):
        exact_log_likelihood(model, x, precision="float64")


def test_a_model_in_training_mode_is_evaluated_in_evaluation_mode_and_restored():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 6))
    decoder = Conditional(network, BernoulliFamily(), event_shape=(6,), condition_shape=(2,))
    network.train()(torch.randn(50, 2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.bernoulli(torch.full((3, 6), 0.5))
    found = exact_log_likelihood(LatentModel(decoder, standard_normal(2)), x, certificate="numerical")
    assert network.training
    assert network[1].training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    decoder.eval()
    again = exact_log_likelihood(LatentModel(decoder, standard_normal(2)), x, certificate="numerical")
    assert torch.equal(found.values, again.values)


def test_a_decoder_that_draws_random_numbers_is_refused():
    model = LatentModel(gaussian(1.0, lambda z: z + torch.randn_like(z)), standard_normal(2))
    with pytest.raises(UnsupportedError, match="eval"):
        exact_log_likelihood(model, torch.zeros(1, 2, dtype=D))


def test_an_encoder_that_gives_nan_is_ignored():
    def encoder(x):
        return Independent(Normal(torch.full((len(x), 1), torch.nan), torch.ones(len(x), 1), validate_args=False), 1)

    model = LatentModel(gaussian(0.1), standard_normal(1), encoder)
    result = exact_log_likelihood(model, torch.tensor([[0.4]], dtype=D))
    assert abs(result.values.item() - log_normal(0.4, 0, math.hypot(1, 0.1))) <= result.errors.item()


def test_the_posterior_under_a_mixture_prior_has_the_parts_of_every_component():
    model = LatentModel(gaussian(0.2), normals((0.7, 0.3), ((0.0,), (30.0,)), (1.0, 0.01)))
    posterior = exact_posterior(model, torch.tensor([[29.9]], dtype=D), tolerance=1e-4)
    gain = 0.01**2 / (0.01**2 + 0.2**2)
    assert abs(posterior.mean.item() - (30 - 0.1 * gain)) < 1e-5
    variance = 0.01**2 * (1 - gain)
    assert abs(posterior.covariance.item() - variance) < 1e-3 * variance
    assert abs(posterior.entropy.item() - 0.5 * math.log(2 * math.pi * math.e * variance)) < 1e-3
    assert abs(posterior[0].mass.sum().item() - 1) < 1e-4
    place, count = posterior.modes
    assert count.item() == 1
    assert abs(place.item() - posterior.mean.item()) < 0.01


def test_callables_are_integrated_on_a_second_grid_and_networks_are_not():
    model = LatentModel(gaussian(0.1, torch.sin), standard_normal(2))
    found = exact_log_likelihood(model, torch.tensor([[0.3, 0.2], [0.1, -0.9]], dtype=D), certificate="numerical")
    assert found.settings["second_grid"] == 2
    vae = toy_vae()
    assert "second_grid" not in exact_log_likelihood(vae, toy_images(vae, 2), certificate="numerical").settings


@pytest.mark.parametrize("chosen", ["both grids", "second grid"])
def test_draws_of_the_prior_or_a_second_grid_detect_a_wrong_integral(chosen, monkeypatch):
    original, calls = quadrature.refine, []

    def wrong(*args, **kwargs):
        found = original(*args, **kwargs)
        calls.append(found)
        if chosen == "both grids":
            return replace(found, log_integral=found.log_integral - 20, log_left_out=found.log_left_out - 20)
        return replace(found, log_integral=found.log_integral - 0.5) if len(calls) == 1 else found

    monkeypatch.setattr(quadrature, "refine", wrong)
    model = LatentModel(gaussian(0.5), standard_normal(2))
    x = torch.tensor([[0.4, -0.3]], dtype=D)
    found = exact_log_likelihood(model, x, certificate="numerical", require=False)
    truth = sum(log_normal(v, 0, math.hypot(1, 0.5)) for v in (0.4, -0.3))
    if chosen == "both grids":  # the mean of p(x|z) over draws is above p(x)/1000 with a probability of 0.999
        assert 20 - math.log(1000) - 1 < found.errors.item() < 20 - math.log(1000) + 1
    else:
        assert abs(found.values.item() - truth) <= found.errors.item()


def test_a_second_grid_cut_short_widens_the_error_or_withdraws_the_value(monkeypatch):
    original, calls = quadrature.refine, []
    has_value = True

    def stopped(*args, **kwargs):  # the first grid is off by 0.5 nats; the second sees it, but is out of time
        found = original(*args, **kwargs)
        calls.append(found)
        if len(calls) % 2 == 1:
            return replace(found, log_integral=found.log_integral - 0.5)
        never = torch.full_like(found.log_integral, math.inf)
        return replace(found, rule_error=never, log_integral=found.log_integral if has_value else -never, tables=[])

    monkeypatch.setattr(quadrature, "refine", stopped)
    model = LatentModel(gaussian(0.5), standard_normal(2))
    x = torch.tensor([[0.4, -0.3]], dtype=D)
    found = exact_log_likelihood(model, x, certificate="numerical", require=False)
    truth = sum(log_normal(v, 0, math.hypot(1, 0.5)) for v in (0.4, -0.3))
    assert 0.49 <= abs(found.values.item() - truth) <= found.errors.item() < 2
    with pytest.raises(UnsupportedError, match=r"0 of 1 images are certified.*more seconds"):
        exact_log_likelihood(model, x, certificate="numerical")
    has_value = False
    with pytest.raises(UnsupportedError, match=r"none of 1 images was reached.*more seconds"):
        exact_log_likelihood(model, x, certificate="numerical", require=False)


def test_an_image_that_no_z_explains_has_a_lower_bound_where_the_decoder_is_a_function():
    model = LatentModel(gaussian(0.1, lambda z: z.new_zeros(len(z), 1)), standard_normal(1))
    x = torch.tensor([[0.0], [9.0]], dtype=D)
    found = exact_log_likelihood(model, x, certificate="numerical", require=False)
    assert found.details["unexplained"].tolist() == [False, True]
    assert found.settings["unexplained"] == 1
    assert found.reached is not None
    assert found.reached.tolist() == [True, False]
    assert found.errors[1].item() == math.inf
    assert found.values[1].item() == pytest.approx(log_normal(9, 0, 0.1), abs=0.01)
    with pytest.raises(UnsupportedError, match=r"lower bound.*nn\.Module"):
        exact_log_likelihood(model, x, certificate="numerical")
    alone = exact_log_likelihood(model, x[1:], certificate="numerical", require=False)
    assert alone.kind == "lower bound"
    assert [estimate.kind for estimate in alone.estimates()] == ["lower bound"]


def test_a_needle_between_all_nodes_is_not_certified_for_a_function():
    center = torch.tensor([0.3714, -0.2718], dtype=D)

    def needle(z):
        return 6 * torch.exp(-(z - center).square().sum(-1, keepdim=True) / (2 * 2e-4**2))

    model = LatentModel(gaussian(0.25, needle), standard_normal(2))
    found = exact_log_likelihood(model, torch.tensor([[6.0], [0.0]], dtype=D), require=False)
    assert found.details["unexplained"].tolist() == [True, False]
    assert found.errors[0].item() == math.inf
    assert abs(found.values[1].item() - log_normal(0, 0, 0.25)) <= found.errors[1].item() + 1e-6


def test_draws_of_the_posterior_found_detect_what_two_grids_agree_on(monkeypatch):
    original = quadrature.refine

    def wrong(*args, **kwargs):  # both grids have lost a fifth of the mass, consistently with their tables
        found = original(*args, **kwargs)
        for table in found.tables:
            table.values.sub_(0.2)
        return replace(found, log_integral=found.log_integral - 0.2)

    monkeypatch.setattr(quadrature, "refine", wrong)
    model = LatentModel(gaussian(0.5), standard_normal(2))
    found = exact_log_likelihood(model, torch.tensor([[0.4, -0.3]], dtype=D), certificate="numerical", require=False)
    assert found.settings["posterior_draws"] >= 100
    truth = sum(log_normal(v, 0, math.hypot(1, 0.5)) for v in (0.4, -0.3))
    assert abs(found.values.item() - truth) <= found.errors.item()


def test_perturbed_points_of_the_rounding_check_stay_in_the_support():
    prior = Independent(Beta(torch.full((1,), 3.0, dtype=D), torch.full((1,), 0.5, dtype=D)), 1)
    model = LatentModel(lambda z: Independent(Bernoulli(probs=z.expand(-1, 11), validate_args=True), 1), prior)
    x = torch.ones(1, 11, dtype=D)
    found = exact_log_likelihood(model, x, certificate="numerical")
    truth = math.lgamma(14) + math.lgamma(3.5) - math.lgamma(14.5) - math.lgamma(3)  # B(14, ½) / B(3, ½)
    assert abs(found.values.item() - truth) <= found.errors.item()


def test_an_encoder_that_refuses_one_image_gives_hints_for_the_others():
    def encoder(x):
        bad = (x > 5).any(-1, keepdim=True)
        return Independent(Normal(torch.where(bad, torch.nan, x), torch.ones_like(x), validate_args=True), 1)

    model = LatentModel(gaussian(0.5), standard_normal(2), encoder)
    found = exact_log_likelihood(model, torch.tensor([[0.4, -0.3], [6.0, 0.0], [1.0, 1.0]], dtype=D))
    truth = [sum(log_normal(v, 0, math.hypot(1, 0.5)) for v in row) for row in ((0.4, -0.3), (6.0, 0.0), (1.0, 1.0))]
    assert ((found.values - torch.tensor(truth, dtype=D)).abs() <= found.errors).all()


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_turned_chart_is_the_same_measure(d):
    prior = MultivariateNormal(torch.ones(d, dtype=D), 0.3 * torch.eye(d, dtype=D))
    chart = charts_of(prior, prior.log_prob)[0].turned(3, d)
    axis = torch.arange(-10, 10, 0.4, dtype=D)
    v = torch.cartesian_prod(*[axis] * d).reshape(-1, d)
    z = chart.to_z(v)
    weight = chart.log_density(v, z).exp() * 0.4**d
    assert torch.allclose(chart.to_u(z), v)
    assert weight.sum().item() == pytest.approx(1, abs=1e-9)
    assert torch.allclose(weight @ z, prior.mean, atol=1e-8)
