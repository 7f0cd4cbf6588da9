"""Figures of several models side by side, and which of them is best, where the intervals say so.

A model trained with several seeds is one *entry* with one estimate for each seed; its figure is their mean, with the
standard error of that mean, which counts the luck of training as well as that of sampling. Two entries with the same
seeds are compared by the differences of their figures, seed by seed.
"""

from __future__ import annotations

__all__ = ["Entry", "best_of", "figure_of"]

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy  # its parts are slow to import; it does that when they are first used

from latentia.estimate import Estimate
from latentia.metrics.card import require_comparable

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Entry:
    """One figure of one model: an estimate for each training seed."""

    name: str
    by_seed: Mapping[int, Estimate]


def figure_of(entry: Entry) -> Estimate:
    """The entry's figure: its only estimate, or the mean over seeds with the standard error of that mean."""
    estimates = list(entry.by_seed.values())
    if len(estimates) == 1:
        return estimates[0]
    values = np.array([e.value for e in estimates])
    error = float(values.std(ddof=1) / math.sqrt(len(values)))
    settings = {**estimates[0].settings, "seeds": sorted(entry.by_seed)}
    return replace(estimates[0], value=float(values.mean()), stderr=error, n=len(values), settings=settings)


def best_of(entries: Sequence[Entry], way: int) -> int | None:
    """Which entry is best, if every other one is worse beyond the 95 % interval of the difference; else None.

    Args:
        entries: two or more with the same figure.
        way: +1 where larger is better, −1 where smaller is, 0 where neither is.

    Raises:
        DataError: for scores whose cards differ.
    """
    if way == 0 or len(entries) < 2:
        return None
    with_cards = [e for entry in entries for e in entry.by_seed.values() if "card" in e.settings]
    if with_cards:
        require_comparable(with_cards)
    values = [way * figure_of(entry).value for entry in entries]
    best = max(range(len(entries)), key=values.__getitem__)
    others = [k for k in range(len(entries)) if k != best]
    return best if all(_is_better(entries[best], entries[k], way) for k in others) else None


def _is_better(first: Entry, second: Entry, way: int) -> bool:
    seeds = sorted(set(first.by_seed) & set(second.by_seed))
    if len(seeds) >= 2:
        gaps = np.array([way * (first.by_seed[s].value - second.by_seed[s].value) for s in seeds])
        error = float(gaps.std(ddof=1) / math.sqrt(len(gaps)))
        return bool(gaps.mean() > scipy.stats.t.ppf((1 + CONFIDENCE) / 2, len(gaps) - 1) * error)
    a, b = figure_of(first), figure_of(second)
    if a.stderr is None or b.stderr is None:
        return False  # without an interval nothing is said
    return bool(way * (a.value - b.value) > scipy.stats.norm.ppf((1 + CONFIDENCE) / 2) * math.hypot(a.stderr, b.stderr))
