"""Pictures of discrete latent spaces: what the codes decode to, which classes use them, and posteriors as bars."""

from __future__ import annotations

__all__: list[str] = []

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from latentia.distributions import OneHotCodes
from latentia.errors import UnsupportedError
from latentia.likelihood.enumeration import EnumeratedPosterior
from latentia.models import VAE
from latentia.reports.posterior_figures import number
from latentia.reports.style import INK, NORMAL, PALETTE, SMALL, WIDTH, class_groups, label_axes, new_figure, show_tiles

MOST_SHOWN = 400  # codes, all of which are decoded
BARS = 40  # codes with a bar each; of more, the most probable ones


def codes_of(vae: VAE) -> OneHotCodes:
    """The prior of a model with discrete z.

    Raises:
        UnsupportedError: for any other.
    """
    prior = vae.prior
    if not isinstance(prior, OneHotCodes):
        raise UnsupportedError(
            "this picture shows categorical variables, and here z is continuous; use plot_decoded_plane"
        )
    return prior


@torch.no_grad()
def plot_decoded_codes(vae: VAE) -> Figure:
    """E[x|z] of every code; a row holds all values of the last half of the variables.

    Of more than 400 codes, each row shows one variable at all its values, the others at the prior's most probable code.

    Args:
        vae: with z of categorical variables, over images.

    Raises:
        UnsupportedError: for another z.
    """
    prior = codes_of(vae)
    whole = prior.values**prior.variables <= MOST_SHOWN
    half = -(-prior.variables // 2) if whole else 1
    columns = prior.values**half if prior.variables > 1 or prior.values <= 12 else 10
    if whole:
        z = prior.enumerate_support()
    else:
        z = prior.mode.repeat(prior.variables, prior.values, 1).unflatten(-1, (prior.variables, prior.values))
        for variable in range(prior.variables):
            z[variable, :, variable] = torch.eye(prior.values).to(z)
        z = z.flatten(-2).flatten(0, 1)
    images = vae.decode(z.to(next(vae.parameters()))).mean.cpu()
    rows = -(-len(images) // columns)
    images = torch.cat([images, images.new_ones(rows * columns - len(images), *images.shape[1:])])
    ratio = images.shape[2] / images.shape[3]
    figure = new_figure(WIDTH, float(np.clip(WIDTH * rows / columns * ratio + 0.7, 1.6, 1.6 * WIDTH)))
    axes = figure.subplots()
    across, _ = show_tiles(axes, images, columns)
    if prior.variables > 1:
        shown = list(range(0, columns, max(1, columns // 12)))
        axes.set_xticks(across[shown], [str(value) for value in shown])
    title = r"Decoded codes: E[$x\,|\,z$] of all " + f"{prior.values**prior.variables}"
    words = "code, modulo the width of a row" if prior.variables > 1 else f"{prior.values} values, row by row"
    if not whole:
        title, words = r"Decoded codes: E[$x\,|\,z$], a row for each variable, the others fixed", "value"
    label_axes(axes, title, words, bare=True)
    return figure


def plot_code_usage(codes: Tensor, labels: Tensor | None = None, classes: Sequence[str] = ()) -> Figure:
    """How often each class has each value of z, as shares of the class.

    Args:
        codes: the most probable code of each image, (N, d).
        labels: (N,), integers, or None.
        classes: their names.
    """
    groups = class_groups(labels, classes, len(codes))
    share = np.stack([codes[rows].double().mean(0).cpu().numpy() for _, _, rows in groups])
    figure = new_figure(WIDTH, 0.24 * len(groups) + 1.3)
    axes = figure.subplots()
    shade = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_yticks(range(len(groups)), [name or "all" for _, name, _ in groups])
    bar = figure.colorbar(shade, ax=axes, pad=0.02)
    bar.set_label("share of the class", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    label_axes(axes, r"Most probable codes of $q(z\,|\,x)$, test set", "coordinate of z", "class")
    return figure


def plot_code_posteriors(found: EnumeratedPosterior, images: Tensor, rows: Sequence[int]) -> Figure:
    """Exact posteriors p(z|x) of some images as bars, with the encoder's q(z|x).

    Args:
        found: posteriors of the images.
        images: (N, C, H, W).
        rows: which to show.
    """
    exact = found.log_posterior.exp().numpy()
    order = np.sort(np.argsort(-exact[list(rows)].sum(0))[:BARS])
    figure = new_figure(WIDTH, 0.85 * len(rows) + 0.9)
    panels = figure.subplots(len(rows), 2, squeeze=False, width_ratios=[1, 9])
    place = np.arange(len(order))
    for (left, axes), row in zip(panels, rows, strict=True):
        show_tiles(left, images[row][None], 1)
        label_axes(left, bare=True)
        axes.bar(place - 0.2, exact[row, order], 0.4, color=PALETTE[0], label="exact p(z|x)")
        if found.log_q is not None:
            axes.bar(
                place + 0.2, found.log_q[row].exp().numpy()[order], 0.4, color=PALETTE[1], label="encoder's q(z|x)"
            )
            gap = number(found.inference_gap[row].item(), 3)
            axes.text(0.99, 0.9, f"gap {gap} nats", fontsize=SMALL, color=INK, ha="right", va="top",
                      transform=axes.transAxes)  # fmt: skip
        top = max(float(exact[row].max()), 0.0 if found.log_q is None else float(found.log_q[row].exp().max()))
        axes.set(ylim=(0, 1.25 * top), xticks=place[:: max(1, len(place) // 12)])
        axes.set_xticklabels([str(int(order[at])) for at in axes.get_xticks()])
        label_axes(axes)
    label_axes(panels[-1, 1], x="code")
    panels[0, 1].legend(fontsize=SMALL, frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    figure.suptitle(r"Posteriors $p(z\,|\,x)$ over the codes, by enumeration", fontsize=NORMAL + 1)
    return figure
