"""What a metric asks of features before it computes, and the words for what is wrong with them."""

from __future__ import annotations

__all__ = ["feature_pair", "features_of"]

import torch
from torch import Tensor

from latentia.errors import DataError


def features_of(values: Tensor, name: str, least: int, metric: str) -> Tensor:
    """Features as float64 (N, D) on their own device.

    Args:
        values: (N, D), or (N,) for a single feature.
        name: which they are, `real` or `fake`, for messages.
        least: how many samples the metric needs.
        metric: what the features are for, for messages.

    Raises:
        DataError: another shape, fewer samples, or values that are not finite.
    """
    features = torch.as_tensor(values).detach()
    features = features[:, None] if features.dim() == 1 else features
    if features.dim() != 2 or features.shape[1] == 0:
        raise DataError(f"the {name} features must be (N, D); these have the shape {tuple(values.shape)}")
    if len(features) < least:
        raise DataError(
            f"the {metric} takes at least {least} {name} samples, and there are {len(features)}; give more, or use "
            "features of fewer dimensions"
        )
    features = features.double()
    bad = int((~torch.isfinite(features)).any(1).sum())
    if bad:
        raise DataError(f"{bad} of {len(features)} {name} samples have features that are not finite (NaN or infinite)")
    return features


def feature_pair(real: Tensor, fake: Tensor, least: int, metric: str) -> tuple[Tensor, Tensor]:
    """Both sets of features, checked as `features_of` does and against each other.

    Raises:
        DataError: also for different dimensions, or real features that are all the same.
    """
    first, second = features_of(real, "real", least, metric), features_of(fake, "fake", least, metric)
    if first.shape[1] != second.shape[1]:
        raise DataError(
            f"the real samples have {first.shape[1]} features and the fake ones {second.shape[1]}; make both alike"
        )
    if len(first) > 1 and bool((first == first[0]).all()):
        raise DataError(
            f"all {len(first)} real samples have the same features, so the {metric} says nothing; look at them, or "
            "use other features"
        )
    return first, second.to(first.device)
