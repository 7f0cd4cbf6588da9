"""One score of several models, and which model is best, where the confidence intervals decide it.

A model trained with several seeds has one estimate for each seed. Its score is their mean with the standard error of
the mean, which includes the variation between trainings. Two models with the same seeds are compared by the paired
differences of their scores.
"""

from __future__ import annotations

__all__ = ["ModelScores", "best_of"]

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy  # loads its slow submodules on first use

from latentia.estimate import Estimate
from latentia.metrics.protocol import require_comparable

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class ModelScores:
    """One score of one model: an estimate for each training seed."""

    name: str
    by_seed: Mapping[int, Estimate]

    def mean_over_seeds(self) -> Estimate:
        """The only estimate, or the mean over seeds with the standard error of that mean."""
        estimates = list(self.by_seed.values())
        if len(estimates) == 1:
            return estimates[0]
        values = np.array([e.value for e in estimates])
        error = float(values.std(ddof=1) / math.sqrt(len(values)))
        settings = {**estimates[0].settings, "seeds": sorted(self.by_seed)}
        return replace(estimates[0], value=float(values.mean()), stderr=error, n=len(values), settings=settings)


def best_of(models: Sequence[ModelScores], sign: int) -> int | None:
    """The index of the best model if all others are worse beyond the 95 % interval of the difference; else None.

    Args:
        models: two or more, with the same score.
        sign: +1 where larger is better, −1 where smaller is, 0 where neither is.

    Raises:
        DataError: for scores whose protocols differ.
    """
    if sign == 0 or len(models) < 2:
        return None
    with_protocol = [e for model in models for e in model.by_seed.values() if "protocol" in e.settings]
    if with_protocol:
        require_comparable(with_protocol)
    values = [sign * model.mean_over_seeds().value for model in models]
    best = max(range(len(models)), key=values.__getitem__)
    others = [k for k in range(len(models)) if k != best]
    return best if all(_is_better(models[best], models[k], sign) for k in others) else None


def _is_better(first: ModelScores, second: ModelScores, sign: int) -> bool:
    seeds = sorted(set(first.by_seed) & set(second.by_seed))
    if len(seeds) >= 2:
        gaps = np.array([sign * (first.by_seed[s].value - second.by_seed[s].value) for s in seeds])
        error = float(gaps.std(ddof=1) / math.sqrt(len(gaps)))
        return bool(gaps.mean() > scipy.stats.t.ppf((1 + _CONFIDENCE) / 2, len(gaps) - 1) * error)
    a, b = first.mean_over_seeds(), second.mean_over_seeds()
    if a.stderr is None or b.stderr is None:
        return False  # without an interval there is no decision
    return bool(
        sign * (a.value - b.value) > scipy.stats.norm.ppf((1 + _CONFIDENCE) / 2) * math.hypot(a.stderr, b.stderr)
    )
