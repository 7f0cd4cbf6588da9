from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection
from PIL import Image
from scipy import stats
from sklearn.decomposition import PCA
from torch import nn
from torch.distributions import Independent, Normal

from latentia.distributions import MixturePrior, StandardNormal
from latentia.errors import DataError, UnsupportedError
from latentia.models import VAE
from latentia.reports import (
    plot_decoded_plane,
    plot_encoded,
    plot_film_strip,
    plot_interpolations,
    plot_latent_slices,
    plot_points,
    plot_reconstructions,
    plot_samples,
)
from latentia.reports.image_figures import prior_quantiles
from latentia.reports.point_figures import mass_levels
from latentia.reports.style import GAP, tile_images


class Painter(nn.Module):
    """z → logits of one pixel whose red is σ(z₁) and green σ(z₂); blue is σ of the sum of the others."""

    def forward(self, z):
        others = z[:, 2:].sum(1) if z.shape[1] > 2 else torch.zeros(len(z))
        second = z[:, 1] if z.shape[1] > 1 else torch.zeros(len(z))
        return torch.stack([z[:, 0], second, others], dim=1)[:, :, None, None]


class Reader(nn.Module):
    """The inverse: the mean of q(z|x) is the logit of each color."""

    def __init__(self, latent):
        super().__init__()
        self.latent = latent

    def forward(self, x):
        colors = x.flatten(1).logit().repeat(1, self.latent)[:, : self.latent]
        return torch.cat([colors, torch.zeros(len(x), self.latent)], dim=1)


def painter(latent, prior=None):
    return VAE(Reader(latent), Painter(), latent=latent, event_shape=(3, 1, 1), prior=prior or StandardNormal())


def cells(axes, columns):
    """The color of each tile of the picture on some axes, (rows, columns, 3), in 0…255."""
    whole = np.asarray(axes.images[0].get_array())
    size = 128
    rows = (whole.shape[0] + GAP) // (size + GAP)
    return np.stack([[whole[r * (size + GAP), c * (size + GAP)] for c in range(columns)] for r in range(rows)])


def color(z):
    return np.round(255 / (1 + np.exp(-np.asarray(z)))).astype(int)


def test_the_decoded_plane_is_the_grid_of_the_inverse_normal_cdf():
    side = 7
    shown = cells(plot_decoded_plane(painter(2), side).axes[0], side).astype(int)
    z = stats.norm.ppf((np.arange(side) + 0.5) / side)
    for row in range(side):
        for column in range(side):  # z₁ goes to the right, z₂ upwards
            assert abs(shown[row, column, 0] - color(z[column])) <= 1
            assert abs(shown[row, column, 1] - color(z[side - 1 - row])) <= 1


def test_the_ticks_of_the_decoded_plane_name_the_quantiles_of_their_tile():
    side = 15
    axes = plot_decoded_plane(painter(2), side).axes[0]
    for ticks, words in (
        (axes.get_xticks(), axes.get_xticklabels()),
        (side - 1 - axes.get_yticks(), axes.get_yticklabels()),
    ):
        assert len(words) > 3
        for place, word in zip(ticks, words, strict=True):
            expected = stats.norm.ppf((place + 0.5) / side)
            assert float(word.get_text().replace("−", "-")) == pytest.approx(expected, abs=0.00501)


def test_one_dimension_decodes_to_a_line():
    shown = cells(plot_decoded_plane(painter(1), 9).axes[0], 9)
    assert shown.shape == (1, 9, 3)
    assert (np.diff(shown[0, :, 0].astype(int)) > 0).all()


def test_more_dimensions_name_the_picture_that_serves():
    with pytest.raises(UnsupportedError, match="plot_latent_slices"):
        plot_decoded_plane(painter(3))
    with pytest.raises(UnsupportedError, match="plot_decoded_plane"):
        plot_latent_slices(painter(1), torch.zeros(2, 1))


def test_quantiles_of_another_prior_come_from_draws_and_say_so():
    torch.manual_seed(0)
    vae = painter(2, MixturePrior(components=3))
    levels = torch.tensor([0.1, 0.5, 0.9])
    found, how = prior_quantiles(vae, levels)
    assert "100 000 draws" in how
    mixture = vae.prior
    means, scales = mixture.component_distribution.mean, mixture.component_distribution.stddev
    weights = mixture.mixture_distribution.probs
    with torch.no_grad():
        at = Normal(means, scales).cdf(found[:, None]).mul(weights[:, None]).sum(1)  # (levels, d)
    stderr = (levels * (1 - levels) / 100_000).sqrt()[:, None]
    assert ((at - levels[:, None]).abs() < 5 * stderr).all()


def test_slices_move_the_most_active_pair_and_hold_the_others():
    vae = painter(4)
    means = torch.tensor([[3.0, 2.0, 0.5, 0.1], [-3.0, -2.0, 0.5, 0.3]])
    figure = plot_latent_slices(vae, means, side=5, dimensions=2)
    shown = cells(figure.axes[0], 5).astype(int)
    z = stats.norm.ppf((np.arange(5) + 0.5) / 5)
    assert np.abs(shown[2, :, 0] - color(z)).max() <= 1
    assert np.abs(shown[:, 2, 1] - color(z[::-1])).max() <= 1
    assert np.abs(shown[:, :, 2] - color(0.5 + 0.2)).max() <= 1
    assert figure.axes[0].get_xlabel() == "$z_{1}$"
    assert figure.axes[0].get_ylabel() == "$z_{2}$"


def test_interpolations_go_straight_from_mean_to_mean():
    vae = painter(3)
    start, end = torch.tensor([0.2, 0.3, 0.4]).reshape(1, 3, 1, 1), torch.tensor([0.9, 0.6, 0.1]).reshape(1, 3, 1, 1)
    shown = cells(plot_interpolations(vae, start, end, steps=5).axes[0], 7).astype(int)[0]
    line = torch.lerp(start.logit().flatten()[None], end.logit().flatten()[None], torch.linspace(0, 1, 5)[:, None])
    assert np.abs(shown[1:-1] - color(line)).max() <= 1
    assert np.abs(shown[0] - np.round(255 * start.flatten().numpy())).max() <= 1
    assert np.abs(shown[-1] - np.round(255 * end.flatten().numpy())).max() <= 1


def points_of(figure):
    parts = [part for part in figure.axes[0].collections if isinstance(part, PathCollection)]
    return [(np.asarray(part.get_offsets()), tuple(part.get_facecolor()[0][:3])) for part in parts]


def in_order(points):
    return np.asarray(sorted(map(tuple, np.round(points, 5))))


def normal(d):
    return Independent(Normal(torch.zeros(d), torch.ones(d)), 1)


def test_every_image_is_a_point_in_the_color_of_its_class():
    torch.manual_seed(0)
    means, labels = torch.randn(101, 2), torch.arange(101) % 3
    figure = plot_encoded(means, normal(2), labels, ("a", "b", "c"))
    by_color = {}
    for points, look in points_of(figure):
        by_color.setdefault(look, []).append(points)
    assert len(by_color) == 3
    for value, parts in enumerate(by_color.values()):
        assert np.allclose(in_order(np.concatenate(parts)), in_order(means[labels == value].double().numpy()))
    legend = figure.axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"]


def test_without_labels_there_is_no_legend():
    figure = plot_encoded(torch.randn(20, 2), normal(2))
    assert figure.axes[0].get_legend() is None
    assert sum(len(points) for points, _ in points_of(figure)) == 20


def test_more_dimensions_are_shown_in_their_principal_plane():
    torch.manual_seed(1)
    means = torch.randn(200, 5) * torch.tensor([1.0, 3.0, 0.2, 2.0, 0.1]) + 1
    figure = plot_encoded(means, normal(5))
    shown = np.concatenate([points for points, _ in points_of(figure)])
    pca = PCA(2).fit(means.double().numpy())
    expected = pca.transform(means.double().numpy())
    found = in_order(np.abs(shown - shown.mean(0)))
    assert np.allclose(found, in_order(np.abs(expected)), atol=1e-4)
    share = pca.explained_variance_ratio_
    assert f"{share[0]:.0%}" in figure.axes[0].get_xlabel()
    assert "principal direction" in figure.axes[0].get_ylabel()


def test_contours_of_a_normal_prior_hold_the_mass_of_one_two_and_three_sigma():
    x = np.linspace(-5, 5, 801)
    density = np.exp(-(x[:, None] ** 2 + x[None] ** 2) / 2)
    levels = mass_levels(density, [1 - np.exp(-(k**2) / 2) for k in (1, 2, 3)])
    assert np.sqrt(-2 * np.log(levels)) == pytest.approx([1, 2, 3], abs=0.01)


@pytest.mark.parametrize("latent", [1, 2, 3])
def test_another_prior_gets_contours_as_well(latent):
    torch.manual_seed(0)
    prior = painter(latent, MixturePrior(components=3)).prior
    figure = plot_encoded(torch.randn(50, latent), prior, torch.arange(50) % 12)
    assert figure.axes[0].get_legend() is not None
    figure.canvas.draw()


def test_reconstructions_put_each_under_its_original():
    torch.manual_seed(0)
    x, y = torch.rand(5, 1, 8, 8), torch.rand(5, 1, 8, 8)
    figure = plot_reconstructions(x, y, columns=3)
    first, second = (np.asarray(axes.images[0].get_array()) for axes in figure.axes)
    assert np.array_equal(first, tile_images(torch.cat([x[:3], y[:3]]), 3))
    white = torch.ones(1, 1, 8, 8)
    assert np.array_equal(second, tile_images(torch.cat([x[3:], white, y[3:], white]), 3))
    with pytest.raises(DataError, match="differ"):
        plot_reconstructions(x, y[:4])


def test_samples_say_what_they_are():
    figure = plot_samples(torch.rand(7, 3, 8, 8), "draws of x")
    assert figure.axes[0].get_title() == "draws of x"


def test_a_strip_takes_paths_and_arrays_in_order(tmp_path):
    pixels = np.full((8, 8), 200, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    figure = plot_film_strip([tmp_path / "a.png", torch.zeros(1, 8, 8), np.ones((8, 8, 3))], ["10", "30", "50"])
    assert [axes.get_xlabel() for axes in figure.axes] == ["10", "30", "50"]
    assert [round(float(axes.images[0].get_array()[0, 0, 0]) * 255) for axes in figure.axes] == [200, 0, 255]


def test_captions_can_stand_above_the_pictures():
    figure = plot_film_strip([torch.zeros(1, 8, 8)] * 2, ["VAE", "GAN"], "samples", below=False)
    assert [axes.get_title() for axes in figure.axes] == ["VAE", "GAN"]


def test_strips_refuse_what_they_cannot_show(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"a\.png"):
        plot_film_strip([tmp_path / "a.png"], ["10"])
    with pytest.raises(DataError, match="2 and 1"):
        plot_film_strip([torch.zeros(1, 8, 8)] * 2, ["10"])
    with pytest.raises(DataError, match="one or three channels"):
        plot_film_strip([torch.zeros(2, 8, 8)], ["10"])


def test_data_and_generated_points_lie_over_the_level_sets():
    torch.manual_seed(0)
    real, generated = torch.randn(30, 2), torch.randn(20, 2) + 3
    asked = []

    def level(x):
        asked.append(x)
        return torch.sigmoid(x[:, 0])

    figure = plot_points(real, generated, level)
    by_color = {}
    for points, look in points_of(figure):
        by_color.setdefault(look, []).append(points)
    shown = [in_order(np.concatenate(parts)) for parts in by_color.values()]
    assert sorted(map(len, shown)) == [20, 30]
    assert np.allclose(shown[1], in_order(real.numpy()), atol=1e-5)
    assert np.allclose(shown[0], in_order(generated.numpy()), atol=1e-5)
    (grid,) = asked
    both = torch.cat([real, generated])
    assert (grid.min(0).values <= both.min(0).values).all()
    assert (grid.max(0).values >= both.max(0).values).all()
    assert len(figure.axes) == 2
    assert len(plot_points(real, generated).axes) == 1


def test_points_outside_the_plane_are_refused():
    with pytest.raises(DataError, match=r"real is \(5, 3\)"):
        plot_points(torch.zeros(5, 3), torch.zeros(5, 2))
