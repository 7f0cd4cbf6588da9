r"""The classifier two-sample test: can a classifier tell real samples from fake ones?

A small network learns on half of the samples and is tried on the other half (Lopez-Paz and Oquab 2017). Its accuracy is
½ where the distributions are equal. Whatever the classifier, its guesses on samples that it has not seen are independent of
their labels then: given how many it calls real, the number of real ones among those is hypergeometric, so the p-value
is exact at any size. The test sees what its classifier can learn and nothing else; a large p-value is no proof of
equality.
"""

from __future__ import annotations

__all__ = ["two_sample_test"]

import scipy  # its parts are slow to import; it does that when they are first used
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from latentia.estimate import Estimate
from latentia.metrics.checks import feature_pair

LEAST = 40


def two_sample_test(
    real: Tensor, fake: Tensor, *, hidden: int = 32, steps: int = 300, seed: int = 0, prefix: str = "two_sample/"
) -> list[Estimate]:
    """Accuracy of a fresh classifier on held-out samples, and the p-value of equal distributions.

    Args:
        real: features (n, D), n ≥ 40; as many of either kind are used as there are of the rarer.
        fake: (m, D), m ≥ 40.
        hidden: width of the classifier's one hidden layer.
        steps: of Adam, each on a batch of 256 of either kind at most.
        seed: of the halving and the classifier.
        prefix: of the names.

    Returns:
        `two_sample/accuracy`, with the standard error of a share, and `two_sample/p_value`, one-sided.

    Raises:
        DataError: for too few samples, features that are not finite, of different dimensions, or constant.
    """
    x, y = feature_pair(real, fake, LEAST, "classifier two-sample test")
    generator = torch.Generator().manual_seed(seed)
    n = min(len(x), len(y))
    half = n // 2
    x, y = (z[torch.randperm(len(z), generator=generator).to(z.device)[:n]] for z in (x, y))
    fit = torch.cat([x[:half], y[:half]])
    center, scale = fit.mean(0), fit.std(0)
    scale = torch.where(scale > 1e-12 * scale.max(), scale, torch.ones_like(scale))
    x, y = (((z - center) / scale).clamp(-10, 10).float() for z in (x, y))
    discriminator = _fitted(x[:half], y[:half], hidden, steps, generator)
    with torch.no_grad():
        right_real, right_fake = (discriminator(x[half:]) > 0).flatten(), (discriminator(y[half:]) <= 0).flatten()
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
    """A network of one hidden layer, beside a linear and a squared path, trained to tell the two."""
    discriminator = _Judge(real.shape[1], hidden, generator).to(real.device)
    optimizer = torch.optim.AdamW(discriminator.parameters(), lr=1e-2, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    size = min(256, len(real))
    target = torch.cat([torch.ones(size), torch.zeros(size)]).to(real.device)
    for _ in range(steps):
        rows = [torch.randint(len(z), (size,), generator=generator).to(z.device) for z in (real, fake)]
        logits = discriminator(torch.cat([real[rows[0]], fake[rows[1]]])).flatten()
        cost = binary_cross_entropy_with_logits(logits, target)
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        rate.step()
    return discriminator


class _Judge(nn.Module):
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
