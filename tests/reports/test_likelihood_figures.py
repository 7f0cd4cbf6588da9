from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.distributions import Bernoulli, Independent, MultivariateNormal, Normal
from typer.testing import CliRunner

from latentia.errors import UnsupportedError
from latentia.likelihood import (
    LatentModel,
    LikelihoodEvaluation,
    evaluate_gaps,
    evaluate_likelihood,
    exact_posterior,
    importance_log_likelihood,
    log_importance_weights,
)
from latentia.reports.likelihood_figures import (
    _group_bound,
    plot_aggregate_posterior,
    plot_bound_against_draws,
    save_likelihood_figures,
)
from latentia.reports.posterior_figures import (
    _heights,
    _lines,
    _log_posterior,
    _window,
    plane_grid,
    plot_extreme_gaps,
    plot_posteriors,
)
from latentia.reports.style import new_figure

from ..likelihood.known_models import LinearGaussian, standard_normal, toy_images, toy_vae


@pytest.fixture(scope="module")
def linear():
    """A model whose posteriors are Gaussians that its encoder knows: (vae, images, mean, covariance, posterior)."""
    known = LinearGaussian(2)
    images = known.images.view(-1, 1, 1, 12)
    return known.vae, images, *known.posterior(), exact_posterior(known.vae, images, tolerance=1e-4)


@pytest.fixture(scope="module")
def toy():
    """A random model with a random encoder, which misses nearly everything."""
    vae = toy_vae()
    images = toy_images(vae, 30)
    return vae, images, evaluate_likelihood(vae, images, gaps=20)


def test_the_density_between_the_nodes_is_the_posterior(linear):
    _, images, mean, covariance, posterior = linear
    z = mean[3] + torch.randn(50, 2, dtype=torch.float64) * 0.1
    truth = MultivariateNormal(mean[3], covariance).log_prob(z)
    assert torch.from_numpy(_log_posterior(posterior, images, 3, z)).sub(truth).abs().max() < 1e-4


def test_regions_hold_the_mass_that_they_are_named_by(linear):
    *_, covariance, posterior = linear
    peak = 1 / (2 * math.pi * covariance.det().sqrt())
    # The mass above the height h of a Gaussian in the plane is 1 - h/peak, and a node more or less holds this much:
    step = (posterior[0].mass / posterior[0].log_density.exp()).max() * peak
    for height, held in zip(_heights(posterior, 0), (0.5, 0.9, 0.99), strict=True):
        assert abs(1 - height / peak - held) < 3 * step


def test_lines_lie_where_a_gaussian_holds_their_mass():
    distribution = MultivariateNormal(torch.tensor([1.0, -2.0]), torch.tensor([[0.5, 0.2], [0.2, 0.3]]))
    axes = new_figure().subplots()
    view = np.linspace(-2, 4, 91), np.linspace(-5, 1, 91)
    torch.manual_seed(0)
    density = _lines(axes, view, distribution, "k")
    assert density.max() == 1
    square = []
    for path in axes.collections[0].get_paths():
        points = torch.from_numpy(path.vertices).float()
        square.append((-2 * (distribution.log_prob(points) - distribution.log_prob(distribution.mean))).mean().item())
    for found, held in zip(sorted(square), (0.5, 0.9, 0.99), strict=True):
        # Standard error of the mass above a quantile of 20 000 draws, and its slope: d(mass)/d(square) = (1 - mass)/2
        stderr = math.sqrt(held * (1 - held) / 20_000) / ((1 - held) / 2)
        assert abs(found + 2 * math.log(1 - held)) < 5 * stderr + 0.01


def test_a_window_is_a_square_that_holds_posterior_and_distributions(linear):
    *_, mean, covariance, posterior = linear
    far = MultivariateNormal(mean[0] + 3.0, covariance)
    for distributions, wanted in (([], 1), ([far], 2)):
        x, y = _window(posterior, 0, *distributions)
        assert np.isclose(np.ptp(x), np.ptp(y))
        for distribution in [MultivariateNormal(mean[0], covariance), far][:wanted]:
            draws = distribution.sample(torch.Size([1000])).numpy()
            inside = (draws[:, 0] > x[0]) & (draws[:, 0] < x[-1]) & (draws[:, 1] > y[0]) & (draws[:, 1] < y[-1])
            assert inside.mean() > 0.98
    assert plane_grid((x, y))[1, 0] == x[1]


def test_weights_of_an_exact_encoder_are_the_evidence(linear):
    vae, images, *_, posterior = linear
    with torch.no_grad():
        weights = log_importance_weights(LatentModel.from_model(vae), images, 64)
    assert weights.shape == (20, 64)
    assert (weights - posterior.likelihood.values[:, None]).abs().max() < 1e-3


def test_bounds_of_groups_rise_from_the_mean_of_logs_to_the_estimate():
    torch.manual_seed(0)
    weights = 3 * torch.randn(5, 64, dtype=torch.float64)
    assert torch.allclose(_group_bound(weights, 1), weights.mean(1))
    assert torch.allclose(_group_bound(weights, 64), weights.logsumexp(1) - math.log(64))
    bounds = torch.stack([_group_bound(weights, 2**power) for power in range(7)])
    assert (bounds.diff(dim=0) > 0).all()  # Jensen's inequality holds for the very draws where groups are joined


def test_the_bound_of_an_exact_encoder_lies_on_the_exact_line(linear):
    vae, images, *_, posterior = linear
    figure = plot_bound_against_draws(vae, images, posterior.likelihood.values, draws=100)
    line = next(line for line in figure.axes[0].lines if line.get_marker() == "o")
    assert list(line.get_xdata()) == [1, 2, 5, 10, 20, 50, 100]
    assert np.abs(np.asarray(line.get_ydata()) - posterior.likelihood.values.mean().item()).max() < 1e-3


def test_the_drawn_bound_ends_where_the_estimate_does(toy):
    vae, images, found = toy
    torch.manual_seed(0)
    figure = plot_bound_against_draws(vae, images, found.posterior.likelihood.values, draws=1000)
    other = importance_log_likelihood(vae, images, 1000)
    line = next(line for line in figure.axes[0].lines if line.get_marker() == "o")
    # Two sets of draws: their distance for each image has the errors of both.
    torch.manual_seed(0)
    with torch.no_grad():
        weights = log_importance_weights(LatentModel.from_model(vae), images, 1000)
    assert np.isclose(line.get_ydata()[-1], _group_bound(weights, 1000).mean().item())
    calm = other.details["pareto_k"] < 0.5
    assert calm.any()
    apart = (_group_bound(weights, 1000) - other.values)[calm]
    assert (apart.abs() < 5 * math.sqrt(2) * other.errors[calm] + 1e-6).all()


def test_a_model_without_an_encoder_has_contours_and_no_bound():
    network = torch.nn.Sequential(torch.nn.Linear(2, 9), torch.nn.Unflatten(1, (1, 3, 3)))
    model = LatentModel(lambda z: Independent(Bernoulli(logits=network(z)), 3), standard_normal(2))
    images = torch.bernoulli(torch.full((3, 1, 3, 3), 0.5))
    posterior = exact_posterior(model, images)
    figure = plot_posteriors(posterior, images, [0, 2])
    assert [axes.get_title() for axes in figure.axes[:2]] == [
        f"log p(x) = {posterior.likelihood.values[row]:.1f}".replace("-", "−") for row in (0, 2)
    ]
    with pytest.raises(UnsupportedError, match="encoder"):
        plot_bound_against_draws(model, images, posterior.likelihood.values)


def test_a_model_that_says_nothing_spends_its_mass_as_the_prior_does():
    decoder = lambda z: Independent(Bernoulli(probs=torch.full((*z.shape[:-1], 4), 0.5)), 1)  # noqa: E731
    model = LatentModel(decoder, standard_normal(2))
    images = torch.bernoulli(torch.full((200, 4), 0.5))
    figure = plot_aggregate_posterior(exact_posterior(model, images), images)
    assert "= 0.00 nats" in figure.axes[0].get_title()
    ratio = figure.axes[0].collections[0].get_array()
    assert np.ma.masked_invalid(ratio).count() > 50
    assert np.nanmax(np.abs(np.ma.filled(ratio, np.nan))) < 0.01  # the tolerance of log p(x)


def test_the_plane_shows_where_there_is_more_than_the_prior_has():
    """A decoder with another output in each half plane, and images of the right one."""
    decoder = lambda z: Independent(Bernoulli(logits=8 * z[..., :1].expand(*z.shape[:-1], 4)), 1)  # noqa: E731
    images = torch.ones(100, 4)
    posterior = exact_posterior(LatentModel(decoder, standard_normal(2)), images)
    mesh = (
        plot_aggregate_posterior(posterior, images, torch.zeros(100, dtype=torch.long), ("one",)).axes[0].collections[0]
    )
    ratio = np.ma.filled(np.ma.masked_invalid(mesh.get_array()), np.nan)
    x = mesh.get_coordinates()[:-1, :-1, 0]
    assert np.nanmin(ratio[(x > 0.1) & (x < 1)]) > 0.6  # log 2 away from the edge
    assert np.nanmax(ratio[x < -1]) < -1


def test_the_extremes_are_those_of_the_inference_gap(toy):
    _, images, found = toy
    figure = plot_extreme_gaps(found.gaps, images[:20], count=2)
    order = found.gaps.inference.argsort(descending=True)
    wanted = [*order[:2].tolist(), *order.flip(0)[:2].tolist()]
    strips = [axes.child_axes[0] for axes in figure.axes[:4]]
    for strip, row in zip(strips, wanted, strict=True):
        first, second = strip.get_title().replace("−", "-").split("\n")
        assert first == f"approximation {found.gaps.approximation[row]:.2f}"
        assert second == f"amortization {found.gaps.amortization[row]:.2f}"


def test_what_an_evaluation_has_the_material_for_is_drawn(toy, tmp_path):
    _, images, found = toy
    torch.manual_seed(3)
    state = torch.get_rng_state()
    paths = save_likelihood_figures(found, images, tmp_path, labels=torch.arange(30) % 3, classes=("a", "b", "c"))
    assert {path.stem for path in paths} == {
        "posterior_contours",
        "plane_mass",
        "extreme_gaps",
        "bound_against_draws",
    }
    for path in paths:
        with Image.open(path) as picture:
            assert picture.width > 1000
    first = paths[0].read_bytes()
    again = save_likelihood_figures(found, images, tmp_path, labels=torch.arange(30) % 3, classes=("a", "b", "c"))
    assert again[0].read_bytes() == first
    assert torch.equal(torch.get_rng_state(), state)


def test_other_dimensions_and_methods_get_what_serves_them(tmp_path):
    vae = toy_vae(latent=1)
    images = toy_images(vae, 5)
    found = evaluate_likelihood(vae, images, gaps=0)
    assert [path.stem for path in save_likelihood_figures(found, images, tmp_path)] == ["bound_against_draws"]
    assert save_likelihood_figures(evaluate_likelihood(vae, images, "importance", draws=50), images, tmp_path) == []
    for draw in (lambda p: plot_aggregate_posterior(p, images), lambda p: plot_posteriors(p, images, [0])):
        with pytest.raises(UnsupportedError, match="1 dimensions"):
            draw(found.posterior)
    with pytest.raises(UnsupportedError, match="1 dimensions"):
        plot_extreme_gaps(evaluate_gaps(vae, images), images)


def test_images_that_ran_out_of_time_are_left_out(linear, tmp_path):
    vae, images, *_ = linear
    posterior = exact_posterior(vae, images, require=False)
    object.__setattr__(posterior, "finished", torch.empty(0, dtype=torch.long))  # as if the time had ended first
    assert save_likelihood_figures(LikelihoodEvaluation([], {}, posterior), images, tmp_path) == []


def test_a_prior_of_another_place_is_followed():
    prior = Independent(Normal(torch.tensor([5.0, 0.0]), torch.ones(2)), 1)
    decoder = lambda z: Independent(Bernoulli(probs=torch.full((*z.shape[:-1], 4), 0.5)), 1)  # noqa: E731
    images = torch.ones(50, 4)
    figure = plot_aggregate_posterior(exact_posterior(LatentModel(decoder, prior), images), images)
    assert figure.axes[0].get_xlim()[1] > 7
    assert "= 0.00 nats" in figure.axes[0].get_title()


def test_the_command_draws_them_into_the_run(plane_run, copy_of):
    from latentia.cli import app

    run = copy_of(plane_run)
    drawn = [run.directory.figures / f"{name}.png" for name in ("posterior_contours", "extreme_gaps", "plane_mass")]
    command = ["evaluate", str(run.path), "--limit", "6", "--gaps", "4"]
    result = CliRunner().invoke(app, [*command, "--no-pictures"])
    assert result.exit_code == 0, result.output
    assert not any(path.exists() for path in drawn)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert all(path.exists() for path in drawn)
    assert "extreme_gaps.png" in result.output.replace("\n", "")
