"""Pictures of a trained GAN: its curves, its samples, its snapshots, and for points the discriminator under them."""

from __future__ import annotations

__all__ = ["gan_gallery"]

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from latentia.data import ToyData
from latentia.models import GAN
from latentia.recipes import Run
from latentia.reports.curve_figures import curves
from latentia.reports.image_figures import film_strip, samples
from latentia.reports.toy_figures import toy_scatter

SAMPLES = 100
POINTS = 2000
ROWS, STEPS = 6, 9

# What the curves show, of all that is recorded: old name → `<line>/<panel>`.
SHOWN: Mapping[str, str] = {
    "discriminator/cost": "discriminator/cost",
    "generator/cost": "generator/cost",
    "game/accuracy_real": "real/accuracy of D",
    "game/accuracy_held_out": "held-out real/accuracy of D",
    "game/accuracy_fake": "generated/accuracy of D",
    "game/jensen_shannon_bound": "certified bound/JSD from below",
    "game/jensen_shannon": "exact/JSD from below",
}


def gan_gallery(run: Run) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """The pictures of a GAN's run, by name; each is drawn when it is called."""
    gan = cast(GAN, run.model)
    yield "curves", lambda: curves(shown(run.records), units={"accuracy of D": "share", "JSD from below": "nats"})
    snapshots = _snapshots(run.directory.figures, ".png" if gan.makes_images else ".npz")
    if gan.makes_images:
        title = f"{SAMPLES} samples $x = G(z)$, $z$ drawn from $p(z)$"
        yield "samples", lambda: samples(gan.sample(SAMPLES), title)
        yield "interpolations", lambda: samples(*_interpolated(gan))
        if snapshots:
            words = [f"epoch {epoch}" for epoch, _ in snapshots]
            paths = [path for _, path in snapshots]
            yield "film_strip", lambda: film_strip(paths, words, "Samples from one fixed noise as training goes on")
    elif gan.shape == (2,):
        real = cast(ToyData, run.splits).sample(POINTS)
        level = None if gan.packing > 1 else lambda x: gan.discriminate(x).sigmoid()
        yield "samples", lambda: toy_scatter(real, gan.sample(POINTS), level, title="Data and generated points")
        for epoch, path in snapshots:
            yield f"points_epoch_{epoch:04d}", lambda path=path, epoch=epoch: _points(path, epoch)


def shown(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The records that the curves show, renamed so that what belongs together stands in one panel."""
    return [{**record, "name": SHOWN[record["name"]]} for record in records if record["name"] in SHOWN]


def _snapshots(folder: Path, suffix: str) -> list[tuple[int, Path]]:
    found = [(re.fullmatch(r"snapshot-epoch-(\d+)", path.stem), path) for path in folder.glob(f"*{suffix}")]
    return sorted((int(match.group(1)), path) for match, path in found if match)


def _interpolated(gan: GAN) -> tuple[Tensor, str, int]:
    """Rows from one z to another along the sphere: a straight line would pass through z that p(z) hardly ever gives."""
    start, end = gan.draw_latent(ROWS), gan.draw_latent(ROWS)
    cosine = torch.nn.functional.cosine_similarity(start, end).clamp(-0.999, 0.999)
    angle = torch.arccos(cosine)[:, None, None]
    t = torch.linspace(0, 1, STEPS)[None, :, None]
    z = (torch.sin((1 - t) * angle) * start[:, None] + torch.sin(t * angle) * end[:, None]) / torch.sin(angle)
    labels = None
    if gan.classes:
        labels = (torch.arange(ROWS) % gan.classes).repeat_interleave(STEPS)
    return gan.sample(ROWS * STEPS, labels, z=z.flatten(0, 1)), "From one $z$ to another along the sphere", STEPS


def _points(path: Path, epoch: int) -> Figure:
    from scipy.interpolate import RegularGridInterpolator

    with np.load(path, allow_pickle=False) as arrays:
        real, fake = torch.from_numpy(arrays["real"]), torch.from_numpy(arrays["fake"])
        axes, logits = (arrays["first"], arrays["second"]), arrays["logits"]
    between = RegularGridInterpolator(axes, logits, bounds_error=False, fill_value=None)  # pyright: ignore[reportArgumentType]

    def level(x: Tensor) -> Tensor:
        return torch.from_numpy(between(x.numpy())).sigmoid()

    return toy_scatter(real, fake, level, title=f"Data and generated points after epoch {epoch}")
