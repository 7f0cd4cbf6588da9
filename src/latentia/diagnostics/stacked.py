"""Mode coverage on stacked MNIST: which of the 1 000 numbers a model writes (Lin et al. 2018, section 4.2).

26 000 samples are classified digit by digit, one color at a time. The number of modes found and KL(samples, equal
shares) follow; a perfect generator scores a KL of about 999/2n = 0.019 at that size from the sampling alone.
"""

from __future__ import annotations

__all__ = ["STACKED_SAMPLES", "stacked_coverage", "stacked_labels"]

from collections.abc import Callable

import torch
from torch import Tensor

from latentia.errors import DataError
from latentia.estimate import Estimate
from latentia.metrics import class_coverage, classify

STACKED_SAMPLES = 26_000


def stacked_labels(images: Tensor, classifier: Callable[[Tensor], Tensor] = classify) -> Tensor:
    """The number that each image spells, int64 (N,), from images (N, 3, H, W) in [0, 1].

    Args:
        images: three digits each, in the channels.
        classifier: probabilities of the ten digits, (N, 1, H, W) → (N, 10).

    Raises:
        DataError: for images without three channels.
    """
    if images.dim() != 4 or images.shape[1] != 3:
        raise DataError(f"stacked digits have three channels, and these images have the shape {tuple(images.shape)}")
    digits = classifier(images.flatten(0, 1).unsqueeze(1)).argmax(1).reshape(-1, 3)
    return (digits * torch.tensor([100, 10, 1], device=digits.device)).sum(1)


def stacked_coverage(images: Tensor, classifier: Callable[[Tensor], Tensor] = classify) -> list[Estimate]:
    """Modes found and KL from equal shares, beside a perfect model's KL; see `class_coverage`.

    Args:
        images: (N, 3, H, W) in [0, 1]; the published figures have N = 26 000.
        classifier: see `stacked_labels`.
    """
    return class_coverage(stacked_labels(images, classifier), 1000, prefix="stacked/")
