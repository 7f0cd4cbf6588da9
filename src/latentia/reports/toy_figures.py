"""Points of a toy distribution beside a generator's, over the level sets of a discriminator."""

from __future__ import annotations

__all__ = ["toy_scatter"]

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from latentia.errors import DataError
from latentia.reports.style import PALETTE, SMALL, WIDTH, label_axes, new_figure

CELLS = 200
SHADES = 21


def toy_scatter(
    real: Tensor,
    generated: Tensor,
    level: Callable[[Tensor], Tensor] | None = None,
    *,
    title: str = "Data and generated points",
    level_name: str = r"$D(x)$",
) -> Figure:
    """Real and generated points of the plane; under them, where given, the level sets of a function of the plane.

    Args:
        real: draws of the data's distribution, (N, 2).
        generated: draws of the generator's, (M, 2).
        level: takes points (K, 2) to numbers (K,), such as D(x) in [0, 1].
        title: of the figure.
        level_name: what `level` is, for its color bar.

    Raises:
        DataError: for points that are not of the plane.
    """
    for name, points in (("real", real), ("generated", generated)):
        if points.dim() != 2 or points.shape[1] != 2:
            raise DataError(f"toy_scatter shows points of the plane, (N, 2), and {name} is {tuple(points.shape)}")
    both = torch.cat([real, generated]).detach().cpu()
    both = both[both.isfinite().all(1)]
    low, high = both.min(0).values, both.max(0).values
    middle, half = (low + high) / 2, 0.55 * float((high - low).max().clamp(min=1e-6))
    figure = new_figure(0.75 * WIDTH, 0.68 * WIDTH)
    axes = figure.subplots()
    (left, bottom), (right, top) = (middle - half).tolist(), (middle + half).tolist()
    if level is not None:
        x, y = np.linspace(left, right, CELLS), np.linspace(bottom, top, CELLS)
        grid = torch.as_tensor(np.stack(np.meshgrid(x, y), -1).reshape(-1, 2), dtype=real.dtype, device=real.device)
        with torch.no_grad():
            heights = level(grid).detach().cpu().double().numpy().reshape(CELLS, CELLS)
        within = heights.min() >= 0 and heights.max() <= 1
        levels = np.linspace(0, 1, SHADES) if within else SHADES
        shades = axes.contourf(x, y, heights, levels=levels, cmap="Greys", alpha=0.6)
        bar = figure.colorbar(shades, ax=axes, shrink=0.85, ticks=np.linspace(0, 1, 5) if within else None)
        bar.set_label(level_name, fontsize=SMALL + 1)
        bar.ax.tick_params(labelsize=SMALL, width=0.6)
        bar.outline.set_linewidth(0.5)  # pyright: ignore[reportCallIssue]
    for points, name, color, marker in ((real, "data", PALETTE[0], "o"), (generated, "generated", PALETTE[1], "x")):
        size = float(np.clip(6000 / len(points), 2, 14))
        x, y = points.detach().cpu().T.numpy()
        axes.scatter(
            x, y, s=size, color=color, marker=marker, alpha=0.7, label=f"{name} ({len(points)})",
            linewidths=0 if marker == "o" else 0.7,
        )  # fmt: skip
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    legend = axes.legend(fontsize=SMALL, loc="upper right", framealpha=0.85, edgecolor="none")
    for handle in legend.legend_handles:
        handle.set_alpha(1)  # pyright: ignore[reportOptionalMemberAccess]
    label_axes(axes, title, "$x_1$", "$x_2$")
    return figure
