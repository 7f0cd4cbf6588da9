"""A trained model's samples and the real images that they are to be scored against.

*Means or draws.* A VAE's p(x|z) is a distribution. Its *means* E[x|z] are the smooth gray pictures that one shows; its *draws*
are what the model says that images look like, pixel noise and all. Each has real images of its own kind: means are
scored against the data's gray images, whatever the run was trained on, and draws against images binarized as the run's
were. A GAN's G(z) has no noise of its own, so it is its own mean and its own draw. The card of each figure says which.
"""

from __future__ import annotations

__all__ = ["Output", "Reference", "default_features", "draw_samples", "reference_images"]

import inspect
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from latentia.data import Source, Splits
from latentia.errors import ConfigurationError, nearest
from latentia.metrics.card import NOISELESS
from latentia.metrics.features import Classifier, Features
from latentia.metrics.scoring import DEFAULT_FEATURES, Tell

Output = Literal["means", "draws"]

AT_ONCE = 500
DIGITS = ("mnist", "digits")  # data that the shipped classifier knows
UNSEEN = ("validation", "test")


@dataclass(frozen=True)
class Reference:
    """Real images, uint8 (N, C, H, W), which part of the data they are, and the training images beside them."""

    images: Tensor
    split: str
    train: Tensor | None
    data_hash: str


def default_features(data: str) -> Features:
    """The shipped classifier's for digits, random convolutional ones for other data, by the data's name."""
    return Classifier() if data in DIGITS else DEFAULT_FEATURES


def reference_images(source: Source, split: str = "test", output: Output = "means") -> Reference:
    """The real images that samples are scored against: gray for means, binarized as the run's own for draws.

    Args:
        source: the run's data setting.
        split: `validation`, to choose by, or `test`, to report.
        output: what is scored against them.

    Raises:
        ConfigurationError: for another split: images that the model has seen are no reference.
    """
    if split not in UNSEEN:
        raise ConfigurationError(
            [
                (
                    "split",
                    f"samples are scored against images that the model has not seen, and {split!r} are none: "
                    f"validation to choose by, test to report. {nearest(split, UNSEEN)}",
                )
            ]
        )
    how = "none" if output == "means" else {"dynamic": "static"}.get(source.binarize, source.binarize)
    splits: Splits = source.model_copy(update={"binarize": how}).load()
    return Reference(getattr(splits, split).images, split, splits.train.in_memory().images, splits.content_hash)


@torch.no_grad()
def draw_samples(model: nn.Module, n: int, *, output: Output = "means", tell: Tell | None = None) -> tuple[Tensor, str]:
    """n images from a model, floats (n, C, H, W) in [0, 1] on the CPU, and what they are, for the card.

    Args:
        model: with `sample(n)`; one with `sample(n, mean=…)` has an observation distribution, and gives its means or its draws.
        n: how many.
        output: `means` or `draws`; it makes no difference to a generator without noise.
        tell: is called before each part with the number of images drawn, and n.
    """
    noisy = "mean" in inspect.signature(model.sample).parameters  # pyright: ignore[reportArgumentType]
    options: dict[str, Any] = {"mean": output == "means"} if noisy else {}
    parts = []
    for start in range(0, n, AT_ONCE):
        if tell is not None:
            tell(start, n, "samples")
        parts.append(model.sample(min(AT_ONCE, n - start), **options).cpu())  # pyright: ignore[reportCallIssue]
    return torch.cat(parts), f"{output} of p(x|z)" if noisy else NOISELESS
