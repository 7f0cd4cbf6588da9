"""Pictures of latent spaces that are circles and spheres, in coordinates that keep areas.

The circle is shown by its angle. S² is shown by longitude and z₃, the cylinder's map of Archimedes: equal areas of the
picture are equal areas of the sphere, and so equal shares of the uniform prior.
"""

from __future__ import annotations

__all__: list[str] = []

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from latentia.errors import UnsupportedError
from latentia.models import VAE
from latentia.reports.point_figures import scatter_classes
from latentia.reports.style import NORMAL, SMALL, WIDTH, class_color, class_groups, label_axes, new_figure, show_tiles

COLUMNS, ROWS = 18, 9
BINS = 72  # of the circle


def plot_encoded_sphere(directions: Tensor, labels: Tensor | None = None, classes: Sequence[str] = ()) -> Figure:
    """The directions of q(z|x) of a set of images, by class: points of an equal-area map of S², a histogram of S¹.

    Args:
        directions: of length 1, (N, 2) or (N, 3).
        labels: (N,), integers, or None.
        classes: their names.

    Raises:
        UnsupportedError: for other dimensions.
    """
    _require_shown(directions.shape[1])
    points = directions.detach().double().cpu().numpy()
    longitude = np.degrees(np.arctan2(points[:, 1], points[:, 0]))
    groups = class_groups(labels, classes, len(points))
    figure = new_figure(WIDTH, 0.5 * WIDTH)
    axes = figure.subplots()
    if directions.shape[1] == 3:
        scatter_classes(axes, np.stack([longitude, points[:, 2]], -1), groups)
        axes.set(ylim=(-1, 1), yticks=[-1, -0.5, 0, 0.5, 1])
        label_axes(axes, r"Encoded test set: directions of $q(z\,|\,x)$ on $S^2$", "longitude, degrees", "$z_3$")
    else:
        parts = [longitude[rows.numpy()] for _, _, rows in groups]
        colors = [class_color(label) for label, _, _ in groups]
        names = [name for _, name, _ in groups]
        axes.hist(parts, bins=BINS, range=(-180, 180), stacked=True, color=colors, label=names)
        if len(groups) > 1:
            axes.legend(fontsize=SMALL, frameon=False, ncols=5, loc="upper center")
        axes.margins(y=0.25)
        label_axes(axes, r"Encoded test set: directions of $q(z\,|\,x)$ on the circle", "angle, degrees", "images")
    axes.set(xlim=(-180, 180), xticks=range(-180, 181, 60))
    figure.supxlabel("equal areas hold equal shares of the prior", fontsize=SMALL, color="#666666")
    return figure


@torch.no_grad()
def plot_decoded_sphere(vae: VAE) -> Figure:
    """E[x|z] over the sphere: each image stands for an equal share of the prior's mass.

    Args:
        vae: with z on S¹ or S².

    Raises:
        UnsupportedError: for other dimensions.
    """
    _require_shown(vae.latent)
    rows = ROWS if vae.latent == 3 else 2
    height = torch.linspace(1, -1, 2 * rows + 1)[1::2] if vae.latent == 3 else torch.zeros(1)
    count = COLUMNS if vae.latent == 3 else 2 * COLUMNS
    angle = math.pi * (2 * (torch.arange(count) + 0.5) / count - 1)
    circle = torch.stack([angle.cos(), angle.sin()], -1)
    z = circle
    if vae.latent == 3:
        flat = (1 - height.square()).sqrt()[:, None, None] * circle
        z = torch.cat([flat, height[:, None, None].expand(rows, count, 1)], -1).reshape(-1, 3)
    parameter = next(vae.parameters())
    images = vae.decode(z.to(parameter)).mean.cpu()
    ratio = images.shape[2] / images.shape[3]
    figure = new_figure(WIDTH, WIDTH * rows / COLUMNS * ratio + 0.8)
    axes = figure.subplots()
    across, down = show_tiles(axes, images, COLUMNS)
    degrees = [f"{value:.0f}" for value in torch.rad2deg(angle).tolist()]
    shown = list(range(1, COLUMNS, 4))
    axes.set_xticks(across[shown], [degrees[place] for place in shown])
    title = r"Decoded sphere: E[$x\,|\,z$], each image an equal share of the prior"
    if vae.latent == 3:
        axes.set_yticks(down[::2], [f"{value:.2f}".replace("-", "−") for value in height[::2].tolist()])
        axes.set_ylabel("$z_3$", fontsize=NORMAL)
        label_axes(axes, title, "longitude, degrees", "$z_3$", bare=True)
    else:
        title = r"Decoded circle: E[$x\,|\,z$] by angle, the second row from 0 to 180 degrees"
        label_axes(axes, title, "angle in the first row, degrees", bare=True)
    return figure


def _require_shown(latent: int) -> None:
    if latent not in (2, 3):
        raise UnsupportedError(f"this picture shows the circle and S², and here z has {latent} numbers")
