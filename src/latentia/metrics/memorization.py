r"""Memorization: do samples lie nearer to training images than unseen images do?

* *Nearest-neighbor ratio*: mean distance of fake samples to their nearest training image, over that of held-out
  images. 1 for the distribution of the data itself, toward 0 for copies, above 1 for samples off the data.
* *Authenticity*: the share of fake samples that are farther from their nearest training image than that image is from
  its own nearest training image (Alaa et al. 2022, section 3.3). 0 for copies; for equal distributions a little above ½, the
  more so in many dimensions, as the nearest training image of a sample is likely to be one with near neighbors.

Both need the very images that the model was trained on. Neither sees a copy that the features do not.

*Intervals*: samples are independent given the training set, which is held fixed; so the errors are those of a mean
and, for the ratio, of a ratio of means (delta method). Neither is biased given the training set, beyond the ratio's
1/n.
"""

from __future__ import annotations

__all__ = ["memorization"]

import math

import torch
from torch import Tensor

from latentia.estimate import Estimate
from latentia.metrics.blocks import BLOCK, centered, exact_squares, nearest, squared_blocks
from latentia.metrics.checks import feature_pair, features_of


def memorization(
    train: Tensor, fake: Tensor, held_out: Tensor | None = None, *, block: int = BLOCK, prefix: str = "memorization/"
) -> list[Estimate]:
    """Authenticity and, with held-out images, the nearest-neighbor ratio.

    Args:
        train: features of the training images, (T, D), T ≥ 2.
        fake: features of samples, (m, D), m ≥ 2.
        held_out: features of images of the same distribution that the model has not seen, (n, D), n ≥ 2.
        block: rows of the distances' matrix in memory at a time.
        prefix: of the names.

    Returns:
        `memorization/authenticity`, and `memorization/nearest_ratio` where there are held-out images.

    Raises:
        DataError: for too few samples, features that are not finite, of different dimensions, or constant.
    """
    known, made = feature_pair(train, fake, 2, "memorization test")
    known, made = centered(known, made)
    to_fake, place = nearest(made, known, block)
    used, where = place.unique(return_inverse=True)
    own = _reach(known, used, block)[where]
    settings = {"interval": "given the training set", "bias": "none", "train": len(known)}
    authentic = Estimate.mean(
        (to_fake > own).double(), name=f"{prefix}authenticity", unit="1", method="nearest neighbors", settings=settings
    )
    if held_out is None:
        return [authentic]
    features_of(held_out, "held-out", 2, "memorization test")
    _, unseen = centered(*feature_pair(train, held_out, 2, "memorization test"))
    to_unseen = nearest(unseen, known, block)[0].sqrt()
    distances = to_fake.sqrt()
    ratio = (distances.mean() / to_unseen.mean().clamp(min=1e-300)).item()
    relative = [(d.std() / d.mean().clamp(min=1e-300)).item() / math.sqrt(len(d)) for d in (distances, to_unseen)]
    error = ratio * math.hypot(*relative)
    return [
        authentic,
        Estimate(ratio, f"{prefix}nearest_ratio", error, len(made), "1", method="nearest neighbors", settings=settings),
    ]


def _reach(x: Tensor, rows: Tensor, block: int) -> Tensor:
    """Squared distance of some rows of x to their nearest other point."""
    others = []
    for part, squares in squared_blocks(x[rows], x, block):
        squares[torch.arange(len(squares), device=x.device), rows[part]] = torch.inf
        others.append(squares.argmin(1))
    return exact_squares(x, x, rows, torch.cat(others))
