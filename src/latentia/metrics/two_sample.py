r"""The classifier two-sample test: can a classifier separate real samples from fake ones?

A small network is trained on half of the samples and tested on the other half (Lopez-Paz and Oquab 2017). Its accuracy
is ½ where the distributions are equal. In that case its predictions on held-out samples are independent of their
labels: given the number of positive predictions, the number of real samples among them is hypergeometric, so the
    p-value is
exact at any sample size. The test detects only what its classifier can learn; a large p-value does not prove equality.
"""

from __future__ import annotations

__all__ = ["TwoSample", "two_sample_test"]

from typing import ClassVar

import scipy  # loads its slow submodules on first use
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from latentia.estimate import Estimate
from latentia.metrics.metric import BOTH, Metric, MetricInputs, checked_pair

_LEAST = 40


class TwoSample(Metric):
    """The classifier two-sample test."""

    hidden: int = Field(default=32, ge=1, description="hidden units of the classifier")
    steps: int = Field(default=300, ge=1, description="training steps of the classifier")
    higher_is_better: ClassVar[dict[str, int]] = {"two_sample/accuracy": -1, "two_sample/p_value": 0}
    measures: ClassVar[dict[str, str]] = dict.fromkeys(higher_is_better, BOTH)

    def __call__(self, inputs: MetricInputs) -> list[Estimate]:
        return two_sample_test(inputs.real, inputs.fake, hidden=self.hidden, steps=self.steps, seed=inputs.seed)


def two_sample_test(
    real: Tensor, fake: Tensor, *, hidden: int = 32, steps: int = 300, seed: int = 0, prefix: str = "two_sample/"
) -> list[Estimate]:
    """Accuracy of a newly trained classifier on held-out samples, and the p-value of equal distributions.

    Args:
        real: features (n, D), n ≥ 40; equally many of both kinds are used.
        fake: (m, D), m ≥ 40.
        hidden: width of the classifier's one hidden layer.
        steps: of Adam, each on a batch of at most 256 of either kind.
        seed: of the split into halves and of the classifier.
        prefix: of the names.

    Returns:
        `two_sample/accuracy`, with the standard error of a proportion, and `two_sample/p_value`, one-sided.

    Raises:
        DataError: for too few samples, features that are not finite, of different dimensions, or constant.
    """
    x, y = checked_pair(real, fake, _LEAST, "classifier two-sample test")
    generator = torch.Generator().manual_seed(seed)
    n = min(len(x), len(y))
    half = n // 2
    x, y = (z[torch.randperm(len(z), generator=generator).to(z.device)[:n]] for z in (x, y))
    fit = torch.cat([x[:half], y[:half]])
    center, scale = fit.mean(0), fit.std(0)
    scale = torch.where(scale > 1e-12 * scale.max(), scale, torch.ones_like(scale))
    x, y = (((z - center) / scale).clamp(-10, 10).float() for z in (x, y))
    classifier = _fitted(x[:half], y[:half], hidden, steps, generator)
    with torch.no_grad():
        right_real, right_fake = (classifier(x[half:]) > 0).flatten(), (classifier(y[half:]) <= 0).flatten()
    tried = n - half
    called_real, hits = int(right_real.sum()) + tried - int(right_fake.sum()), int(right_real.sum())
    p_value = float(scipy.stats.hypergeom.sf(hits - 1, 2 * tried, tried, called_real))
    right = torch.cat([right_real, right_fake]).double()
    settings = {"seed": seed, "hidden": hidden, "steps": steps, "held_out": 2 * tried, "bias": "none"}
    return [
        Estimate.mean(right, name=f"{prefix}accuracy", unit="1", method="held-out classifier", settings=settings),
        Estimate(p_value, f"{prefix}p_value", None, 2 * tried, "1", method="hypergeometric test", settings=settings),
    ]


def _fitted(real: Tensor, fake: Tensor, hidden: int, steps: int, generator: torch.Generator) -> nn.Module:
    """A network with one hidden layer plus a linear and a squared path, trained to separate the two."""
    classifier = _Classifier(real.shape[1], hidden, generator).to(real.device)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-2, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    size = min(256, len(real))
    target = torch.cat([torch.ones(size), torch.zeros(size)]).to(real.device)
    for _ in range(steps):
        rows = [torch.randint(len(z), (size,), generator=generator).to(z.device) for z in (real, fake)]
        logits = classifier(torch.cat([real[rows[0]], fake[rows[1]]])).flatten()
        cost = binary_cross_entropy_with_logits(logits, target)
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        rate.step()
    return classifier


class _Classifier(nn.Module):
    """Features (B, D) to a logit (B, 1), positive for real."""

    def __init__(self, features: int, hidden: int, generator: torch.Generator):
        super().__init__()
        self.first = nn.Parameter(torch.randn(features, hidden, generator=generator) / features**0.5)
        self.offset = nn.Parameter(torch.zeros(hidden))
        self.second = nn.Parameter(torch.zeros(hidden, 1))
        self.straight = nn.Parameter(torch.zeros(2 * features, 1))
        self.constant = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        bent = torch.relu(x @ self.first + self.offset) @ self.second
        return bent + torch.cat([x, x.square() - 1], dim=1) @ self.straight + self.constant
