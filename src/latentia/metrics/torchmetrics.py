"""The metrics as a `torchmetrics.Metric`, for training loops that are not ours. torchmetrics is not a dependency of
latentia.

from latentia.metrics.torchmetrics import SampleQuality

quality = SampleQuality(metrics=["kernel", "neighbors"], features="classifier")
quality.update(images, real=True)
quality.update(generator(z), real=False)
quality.compute()                          # {"kernel_distance/classifier": tensor(…), "precision": …}
"""

from __future__ import annotations

__all__ = ["SampleQuality"]

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from latentia.errors import ConfigurationError, UnsupportedError
from latentia.estimate import Estimate
from latentia.metrics.features import Features, RandomConvolutional
from latentia.metrics.metrics import Evidence, Metric
from latentia.metrics.scoring import quantize

try:
    from torchmetrics import Metric as TorchMetric
    from torchmetrics.utilities import dim_zero_cat
except ImportError as error:
    raise ConfigurationError(
        "latentia's metrics come as torchmetrics only where that is installed: pip install torchmetrics"
    ) from error


class SampleQuality(TorchMetric):
    """Figures of fake images beside real ones, collected over batches and over processes.

    Features of all images are kept until `reset`. The real ones stay with `reset_real=False`.

    Args:
        metrics: members of `latentia.metrics.Metric` or their names.
        features: a member of `Features` or its name.
        reset_real: whether `reset` also forgets the real images.
        **options: of `torchmetrics.Metric`.
    """

    full_state_update = False
    is_differentiable = False
    real_features: list[Tensor]
    fake_features: list[Tensor]
    real_probabilities: list[Tensor]
    fake_probabilities: list[Tensor]

    def __init__(
        self,
        metrics: Sequence[Metric | str] = ("frechet", "kernel", "neighbors"),
        features: Features | str | None = None,
        reset_real: bool = True,
        **options: Any,
    ):
        super().__init__(**options)
        self.metrics = [Metric.parse(metric) for metric in metrics]
        self.features = RandomConvolutional() if features is None else Features.parse(features)
        self.reset_real = reset_real
        self.needs_classes = any(metric.needs_classes for metric in self.metrics)
        if any(metric.needs_train for metric in self.metrics):
            raise UnsupportedError("memorization needs the training images apart; use latentia.metrics.score")
        for kind in ("real", "fake"):
            for what in ("features", "probabilities"):
                self.add_state(f"{kind}_{what}", default=[], dist_reduce_fx="cat")

    def update(self, images: Tensor, real: bool) -> None:
        """Take a batch in: (B, C, H, W), uint8 or floats in [0, 1]."""
        pixels = quantize(images)
        kind = "real" if real else "fake"
        getattr(self, f"{kind}_features").append(self.features(pixels))
        if self.needs_classes:
            getattr(self, f"{kind}_probabilities").append(self.features.probabilities(pixels))

    def estimates(self) -> list[Estimate]:
        """The figures with their intervals, of this process's images."""
        evidence = Evidence(
            self.features,
            dim_zero_cat(self.real_features),
            dim_zero_cat(self.fake_features),
            None,
            lambda: (dim_zero_cat(self.real_probabilities), dim_zero_cat(self.fake_probabilities)),
        )
        return [estimate for metric in self.metrics for estimate in metric(evidence)]

    def compute(self) -> dict[str, Tensor]:
        """The figures' values by name."""
        return {estimate.name: torch.tensor(estimate.value) for estimate in self.estimates()}

    def reset(self) -> None:
        """Forget the images; the real ones too, unless `reset_real` is false."""
        kept = None if self.reset_real else (list(self.real_features), list(self.real_probabilities))
        super().reset()
        if kept is not None:
            self.real_features, self.real_probabilities = kept
