"""Pictures from exact likelihoods of a whole model: its importance-weighted bound against the number of draws, and its
aggregate posterior against the prior. `save_likelihood_figures` writes every picture that an evaluation allows.
"""

from __future__ import annotations

__all__: list[str] = []

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Distribution

from latentia.errors import UnsupportedError
from latentia.integration.pareto import K_HAT_LIMIT, pareto_k
from latentia.likelihood import (
    GridPosterior,
    LatentModel,
    LikelihoodEvaluation,
    aggregate_log_ratio,
    log_importance_weights,
    mutual_information,
)
from latentia.likelihood.latent_model import full_precision
from latentia.reports.code_figures import plot_code_posteriors
from latentia.reports.point_figures import MASSES, mass_levels, scatter_classes
from latentia.reports.posterior_figures import number, plane_grid, plot_extreme_gaps, plot_posteriors, require_plane
from latentia.reports.style import (
    FAINT,
    INK,
    NORMAL,
    PALETTE,
    SMALL,
    WIDTH,
    Picture,
    class_groups,
    label_axes,
    new_figure,
)

COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
DRAWS = 20_000  # of the prior, for its extent
SHOWN, CURVE = 8, 100  # images
RATIO = 3.0  # nats at both ends of the color scale of a log density ratio
LEAST = 1e-4  # nats: smaller errors are plotted at this value
BOUND = PALETTE[1]


def save_likelihood_figures(
    found: LikelihoodEvaluation,
    images: Tensor,
    folder: Path,
    *,
    labels: Tensor | None = None,
    classes: Sequence[str] = (),
    seed: int = 0,
) -> list[Path]:
    """Write the pictures of `likelihood_pictures`, and return their paths.

    Args:
        found: by `evaluate_likelihood`.
        images: that were evaluated, (N, *event_shape).
        folder: to write to.
        labels: (N,), integers, or None.
        classes: their names.
        seed: of the draws; each picture has its own.

    Raises:
        RunError: for a folder that cannot be written.
    """
    with full_precision():
        return [picture.save(folder, seed) for picture in likelihood_pictures(found, images, labels, classes)]


def likelihood_pictures(
    found: LikelihoodEvaluation, images: Tensor, labels: Tensor | None = None, classes: Sequence[str] = ()
) -> list[Picture]:
    """The pictures that an exact evaluation allows.

    They are `posterior_contours`, `extreme_gaps`, `bound_against_draws` and `plane_mass`; for z of another dimension
    than two the bound alone, for data other than images the last two, for codes `code_posteriors`, and none if no exact
    evaluation ended.
    """
    posterior, gaps = found.posterior, found.gaps
    if found.enumerated is not None and images.dim() == 4 and images.shape[1] in (1, 3):
        rows = _one_of_each(labels, list(range(len(images))))
        caption = "Exact posteriors p(z|x) over the codes, with the encoder's q(z|x)."
        bars = partial(plot_code_posteriors, found.enumerated, images, rows)
        return [Picture("code_posteriors", caption, bars)]
    if posterior is None or not len(posterior.finished):
        return []
    pictures: list[Picture] = []
    if posterior.dimension == posterior.model.latent == 2:
        rows = _first_of_each(posterior, labels)
        can_be_shown = images.dim() == 4 and images.shape[1] in (1, 3)
        caption = (
            "The aggregate exact posterior of the images against the prior, and the means of the exact posteriors."
        )
        pictures.append(
            Picture("plane_mass", caption, lambda: plot_aggregate_posterior(posterior, images, labels, classes))
        )
        if can_be_shown:
            caption = "Exact posteriors p(z|x) of some images, with the encoder's q(z|x)."
            contours = partial(plot_posteriors, posterior, images, rows, gaps)
            pictures.append(Picture("posterior_contours", caption, contours))
        if can_be_shown and gaps is not None:
            caption = "The images with the largest and the smallest inference gaps, log p(x) − ELBO."
            extremes = partial(plot_extreme_gaps, gaps, images[: len(gaps.inference)])
            pictures.append(Picture("extreme_gaps", caption, extremes))
    done = posterior.finished[:CURVE]
    if posterior.model.encoder is not None and len(done) > 1:
        truth = posterior.likelihood.values[done]
        caption = "The importance-weighted bound against its number of draws, and the error of each image's estimate."
        bound = partial(plot_bound_against_draws, posterior.model, images[done], truth)
        pictures.append(Picture("bound_against_draws", caption, bound))
    return pictures


@torch.no_grad()
def plot_bound_against_draws(model: Any, images: Tensor, truth: Tensor, draws: int = COUNTS[-1]) -> Figure:
    """The importance-weighted bound against its number of draws K, with exact log p(x), and k̂ of each image.

    For every K the draws are divided into groups of K, and the mean over groups estimates E log (1/K) Σ w (Burda et al.
    2016, eq. 8). The band is the standard error, over the images, of the bound's distance to the exact line; the text
    compares that distance at the largest K with the standard error that the weights claim (delta method).

    Args:
        model: with an encoder.
        images: (N, *event_shape), at least two.
        truth: exact log p(x) of each, in nats, (N,).
        draws: the largest K.

    Raises:
        UnsupportedError: a model without an encoder.
    """
    subject = LatentModel.from_model(model)
    if subject.encoder is None:
        raise UnsupportedError("a bound from an encoder's draws needs an encoder, and this model has none")
    truth = truth.double().cpu()
    with full_precision():
        log_weights = log_importance_weights(subject, images, draws)
    counts = [k for k in COUNTS if k <= draws]
    bounds = torch.stack([_group_bound(log_weights, k) for k in counts])  # (counts, N)
    middle = bounds.mean(1).numpy()
    band = ((truth - bounds).std(1) / len(images) ** 0.5).numpy()
    relative = (log_weights - log_weights.logsumexp(1, keepdim=True)).exp() * draws
    claimed = relative.std(1) / draws**0.5
    error = (truth - bounds[-1]).abs().clamp_min(LEAST)
    shape = pareto_k(log_weights)

    figure = new_figure(WIDTH, 3.1)
    left, right = figure.subplots(1, 2, width_ratios=[1.1, 1])
    level = truth.mean().item()
    left.axhline(level, color=INK, linewidth=1)
    left.text(1, level, f"exact: {number(level, 2)} ", fontsize=SMALL, color=INK, va="bottom", ha="left")
    left.fill_between(counts, middle - band, middle + band, color=BOUND, alpha=0.18, linewidth=0)
    left.plot(counts, middle, color=BOUND, linewidth=1.2, marker="o", markersize=3)
    own = claimed.square().sum().sqrt().item() / len(images)
    words = f"K = {counts[-1]}: {number(level - middle[-1], 2)} nats off,\nand claims a standard error of {own:.2g}"
    words += "\n(band: that of the distance, over images)"
    left.text(0.98, 0.04, words, fontsize=SMALL, color=BOUND, ha="right", va="bottom", transform=left.transAxes)
    left.set_xscale("log")
    label_axes(left, f"Bound, mean of {len(images)} images", "draws K of q(z|x)", "nats")

    finite = torch.isfinite(shape)
    heavy = {"s": 9, "linewidths": 0}
    right.axvspan(K_HAT_LIMIT, max(1.0, shape[finite].max().item() if finite.any() else 1.0) + 0.3, color="#f3e3dd")
    right.axvline(K_HAT_LIMIT, color=BOUND, linewidth=0.7)
    right.scatter(shape, claimed.clamp_min(LEAST), s=10, facecolors="none", edgecolors=FAINT, linewidths=0.6,
                  label="standard error claimed")  # fmt: skip
    right.scatter(shape, error, color=PALETTE[0], label="true error", **heavy)
    both = torch.cat([claimed.clamp_min(LEAST), error])
    right.set(yscale="log", ylim=(both.min().item() / 3, 60 * both.max().item()))  # room for text at the top
    right.margins(x=0.02)
    label_axes(right, f"Each image at K = {counts[-1]}", "Pareto shape k̂ of its weights", "nats")
    right.text(K_HAT_LIMIT + 0.05, right.get_ylim()[0] * 1.4, "k̂ > 0.7: unreliable", fontsize=SMALL, color=BOUND)
    quiet = int(((shape <= K_HAT_LIMIT) & (truth - bounds[-1] > 1)).sum())
    words = f"{quiet} of {len(images)} images are off by more\nthan 1 nat with k̂ at most {K_HAT_LIMIT}"
    right.text(0.03, 0.98, words, fontsize=SMALL, color=INK, ha="left", va="top", transform=right.transAxes)
    right.legend(fontsize=SMALL, frameon=False, loc="lower right", bbox_to_anchor=(1, 0.06), handletextpad=0.1)
    return figure


@torch.no_grad()
def plot_aggregate_posterior(
    posterior: GridPosterior, images: Tensor, labels: Tensor | None = None, classes: Sequence[str] = ()
) -> Figure:
    """The aggregate exact posterior against the prior, and the means of the exact posteriors by class.

    Left, log p̄(z)/p(z) with p̄ the mean of the exact posteriors, in cells with about eight images each at the prior's
    center; where the prior fits, the colors are pale. Right, the means of the exact posteriors.

    Args:
        posterior: of the images, z ∈ R².
        images: (N, *event_shape).
        labels: (N,), integers, or None.
        classes: their names.

    Raises:
        UnsupportedError: for z of another dimension.
    """
    require_plane(posterior)
    done = posterior.finished
    middles, prior = posterior.mean[done], posterior.model.prior
    bound = max(1.05 * middles.abs().max().item(), 1.05 * _reach(prior))
    side = float(np.clip(np.sqrt(16 * np.pi / len(done)), 0.1, 0.5))
    cells = int(np.ceil(2 * bound / side))
    edges = (np.arange(cells + 1) - cells / 2) * side
    ratio, mass, share = _cell_ratios(posterior, images, edges)
    _, divergence = mutual_information(posterior, images)

    figure = new_figure(WIDTH, 3.1)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    # A cell where both distributions have less than half an image has no reliable ratio.
    seen = np.where(np.maximum(mass, share) * len(done) > 0.5, np.maximum(ratio, -2 * RATIO), np.nan)
    left.set_facecolor("#e6e6e6")
    shade = left.pcolormesh(edges, edges, seen, cmap="RdBu_r", vmin=-RATIO, vmax=RATIO, rasterized=True)
    bar = figure.colorbar(shade, ax=left, extend="both", shrink=0.75, pad=0.02)
    bar.set_label(r"log $\bar p(z)/p(z)$, nats" "\n(gray: less than half an image)", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    axis = np.linspace(edges[0], edges[-1], 161)
    density = _prior_density(posterior.model, axis)
    levels = np.unique(mass_levels(density, MASSES))
    for axes in (left, right):
        axes.contour(axis, axis, density, levels=levels, colors=INK, linewidths=0.6, linestyles="dashed", alpha=0.7)
        axes.set_aspect("equal")
    label_axes(left, f"KL(p̄, p) = {number(divergence.value, 2)} nats; cells of {side:.2f}", "$z_1$", "$z_2$")
    groups = class_groups(None if labels is None else labels[done], classes, len(done))
    scatter_classes(right, middles.numpy(), groups)
    label_axes(right, r"Means of $p(z\,|\,x)$", "$z_1$")
    figure.suptitle(
        f"Aggregate exact posterior of {len(done)} images against the prior (dashed: 1σ, 2σ, 3σ)", fontsize=NORMAL + 1
    )
    return figure


def _first_of_each(posterior: GridPosterior, labels: Tensor | None) -> list[int]:
    """The first image of each class, or the first images."""
    return _one_of_each(labels, posterior.finished.tolist())


def _one_of_each(labels: Tensor | None, done: list[int]) -> list[int]:
    if labels is None:
        return done[:SHOWN]
    first: dict[int, int] = {}
    for row in done:
        first.setdefault(int(labels[row]), row)
    return [first[kind] for kind in sorted(first)][:SHOWN]


def _group_bound(log_weights: Tensor, k: int) -> Tensor:
    """log of the mean of k weights, averaged over all whole groups of k, (N,)."""
    groups = log_weights.shape[1] // k
    cut = log_weights[:, : groups * k].reshape(len(log_weights), groups, k)
    return (cut.logsumexp(-1) - np.log(k)).mean(-1)


def _reach(prior: Distribution) -> float:
    """The distance from the origin within which 99.9 % of the prior's draws lie."""
    return prior.sample(torch.Size([DRAWS])).abs().amax(1).double().quantile(0.999).item()


def _prior_density(model: LatentModel, axis: NDArray[Any]) -> NDArray[Any]:
    z = plane_grid((axis, axis))
    return model.log_prior(z.to(model.device)).exp().cpu().numpy().reshape(len(axis), len(axis))


def _cell_ratios(
    posterior: GridPosterior, images: Tensor, edges: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """log p̄/p of square cells, and the masses of both in them, by the midpoint rule on 2 × 2 parts of each."""
    side, cells = edges[1] - edges[0], len(edges) - 1
    inner = edges[0] + (np.arange(2 * cells) + 0.5) * side / 2
    prior = _prior_density(posterior.model, inner)
    log_ratio = aggregate_log_ratio(posterior, images, plane_grid((inner, inner))).numpy().reshape(prior.shape)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        both = np.stack([np.where(prior > 0, prior * np.exp(log_ratio), 0.0), prior])
        mass, share = both.reshape(2, cells, 2, cells, 2).mean((2, 4)) * side**2
        return np.log(mass) - np.log(share), mass, share
