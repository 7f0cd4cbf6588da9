"""The metrics as a `torchmetrics.Metric`, for other training loops. torchmetrics is an optional dependency.

from latentia.metrics.torchmetrics import SampleQuality

quality = SampleQuality(metrics=["kernel", "neighbors"], features="classifier")
quality.update(images, real=True)
quality.update(generator(z), real=False)
quality.compute()                          # {"kernel_distance/classifier": tensor(…), "precision": …}
"""

from __future__ import annotations

__all__: list[str] = []

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from latentia.errors import ConfigurationError, DataError, UnsupportedError
from latentia.estimate import Estimate
from latentia.metrics.features import Features, RandomConvolutional
from latentia.metrics.metric import Metric, MetricInputs
from latentia.metrics.scoring import quantize

try:
    from torchmetrics import Metric as TorchMetric
    from torchmetrics.utilities import dim_zero_cat
except ImportError as error:
    raise ConfigurationError("latentia.metrics.torchmetrics needs torchmetrics: pip install torchmetrics") from error


class SampleQuality(TorchMetric):
    """Scores of fake images against real ones, collected over batches and over processes.

    Features of all images are kept until `reset`; with `reset_real=False` those of the real images stay.

    Args:
        metrics: members of `latentia.metrics.Metric` or their names.
        features: a member of `Features` or its name.
        reset_real: whether `reset` also removes the real images.
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
            raise UnsupportedError("memorization needs the training images; use latentia.metrics.score")
        for kind in ("real", "fake"):
            for what in ("features", "probabilities"):
                self.add_state(f"{kind}_{what}", default=[], dist_reduce_fx="cat")

    def update(self, imgs: Tensor, real: bool) -> None:
        """Add a batch: (B, C, H, W), uint8 or floats in [0, 1]. The argument names are those of torchmetrics' FID."""
        pixels = quantize(imgs)
        kind = "real" if real else "fake"
        getattr(self, f"{kind}_features").append(self.features(pixels))
        if self.needs_classes:
            getattr(self, f"{kind}_probabilities").append(self.features.probabilities(pixels))

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Add a batch and return the scores of all images so far; an empty dict while one kind is missing."""
        self.update(*args, **kwargs)
        return self.compute() if self.real_features and self.fake_features else {}

    def estimates(self) -> list[Estimate]:
        """The scores with their standard errors, of the images of this process.

        Raises:
            DataError: no real or no fake images so far.
        """
        if not len(self.real_features) or not len(self.fake_features):
            raise DataError(
                "no real or no fake images so far; call update(imgs, real=True) and update(imgs, real=False)"
            )
        inputs = MetricInputs(
            self.features,
            dim_zero_cat(self.real_features),
            dim_zero_cat(self.fake_features),
            None,
            lambda: (dim_zero_cat(self.real_probabilities), dim_zero_cat(self.fake_probabilities)),
        )
        return [estimate for metric in self.metrics for estimate in metric(inputs)]

    def compute(self) -> dict[str, Tensor]:
        """The values by name."""
        return {estimate.name: torch.tensor(estimate.value) for estimate in self.estimates()}

    def reset(self) -> None:
        """Remove the images; the real ones stay if `reset_real` is false."""
        kept = None if self.reset_real else (list(self.real_features), list(self.real_probabilities))
        super().reset()
        if kept is not None:
            self.real_features, self.real_probabilities = kept
