r"""Memorization: whether samples lie nearer to training images than held-out images do.

* *Nearest-neighbor ratio*: the mean distance of fake samples to their nearest training image, divided by that of
  held-out images. It is 1 for the data distribution, near 0 for copies, above 1 for samples away from the data.
* *Authenticity*: the share of fake samples that are farther from their nearest training image than that image is from
  its nearest other training image (Alaa et al. 2022, section 3.3). It is 0 for copies. For equal distributions it is a
  little above ½, most of all in many dimensions, because the nearest training image of a sample tends to be one with
  near neighbors. Of equally near training images the first counts, and equal distances are not farther.

Both need the images that the model was trained on. Neither detects a copy that the features do not detect.

*Standard errors*: samples are independent given the training set, which is held fixed, so the errors are those of a
mean and, for the ratio, of a ratio of means (delta method). Both are unbiased given the training set, except for the
bias of order 1/n of the ratio.
"""

from __future__ import annotations

__all__ = ["Memorization", "memorization"]

import math
from typing import ClassVar

from torch import Tensor

from latentia.errors import UnsupportedError
from latentia.estimate import Estimate
from latentia.metrics.distances import BLOCK, nearest, nearest_other, tie_width
from latentia.metrics.metric import MEMORIZATION, Metric, MetricInputs, checked_features, checked_pair


class Memorization(Metric):
    """Authenticity and the nearest-neighbor ratio; needs the training images."""

    higher_is_better: ClassVar[dict[str, int]] = {"memorization/authenticity": 0, "memorization/nearest_ratio": 0}
    measures: ClassVar[dict[str, str]] = dict.fromkeys(higher_is_better, MEMORIZATION)
    needs_train: ClassVar[bool] = True

    def __call__(self, inputs: MetricInputs) -> list[Estimate]:
        if inputs.train is None:
            raise UnsupportedError("memorization needs the training images; give them as `train`")
        return memorization(inputs.train, inputs.fake, inputs.real)


def memorization(
    train: Tensor, fake: Tensor, held_out: Tensor | None = None, *, block: int = BLOCK, prefix: str = "memorization/"
) -> list[Estimate]:
    """Authenticity and, with held-out images, the nearest-neighbor ratio.

    Args:
        train: features of the training images, (T, D), T ≥ 2.
        fake: features of samples, (m, D), m ≥ 2.
        held_out: features of images of the same distribution that the model was not trained on, (n, D), n ≥ 2.
        block: rows of the distance matrix in memory at a time.
        prefix: of the names.

    Returns:
        `memorization/authenticity`, and `memorization/nearest_ratio` where there are held-out images.

    Raises:
        DataError: for too few samples, features that are not finite, of different dimensions, or constant.
    """
    known, made = checked_pair(train, fake, 2, "memorization test")
    width = tie_width(train, fake)
    to_fake, place = nearest(made, known, width, block)
    used, where = place.unique(return_inverse=True)
    own = nearest_other(known, used, width, block)[where]
    settings = {"interval": "given the training set", "bias": "none", "train": len(known)}
    authentic = Estimate.mean(
        (to_fake > own + width(own)).double(),
        name=f"{prefix}authenticity",
        unit="1",
        method="nearest neighbors",
        settings=settings,
    )
    if held_out is None:
        return [authentic]
    checked_features(held_out, "held-out", 2, "memorization test")
    _, unseen = checked_pair(train, held_out, 2, "memorization test")
    to_unseen = nearest(unseen, known, width, block)[0].sqrt()
    distances = to_fake.sqrt()
    ratio = (distances.mean() / to_unseen.mean().clamp(min=1e-300)).item()
    relative = [(d.std() / d.mean().clamp(min=1e-300)).item() / math.sqrt(len(d)) for d in (distances, to_unseen)]
    error = ratio * math.hypot(*relative)
    return [
        authentic,
        Estimate(ratio, f"{prefix}nearest_ratio", error, len(made), "1", method="nearest neighbors", settings=settings),
    ]
