"""The family of metrics: what a metric receives, its names, and which direction is better.

To add a metric, write one file with a function of features and a member of `Metric`, and import the member in this
package's `__init__`. The command line, the scores and the tables find it through `Metric.members()`.
"""

from __future__ import annotations

__all__ = ["Metric", "higher_is_better", "measured_by", "parse_metrics"]

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from latentia.configuration import Component
from latentia.divergences.empirical import real_tensor
from latentia.errors import ConfigurationError, DataError, nearest
from latentia.estimate import Estimate
from latentia.metrics.features import Features

FIDELITY, COVERAGE, BOTH, MEMORIZATION = "fidelity", "coverage", "fidelity and coverage", "memorization"


@dataclass(frozen=True)
class MetricInputs:
    """What a metric may use.

    Attributes:
        features: the setting that computed the numbers.
        real: features of real images, (n, D).
        fake: features of samples, (m, D).
        train: features of the training images, (T, D), where they are known.
        probabilities: p(y|x) of the real and of the fake images, (n, K) and (m, K), by the features' classifier.
        seed: for a metric that samples.
        labeled: bytes and labels of the real images, and of the samples; None where one of them has no labels.
        columns: of a table, each with its values in the data and in the samples; None for other data.
    """

    features: Features
    real: Tensor
    fake: Tensor
    train: Tensor | None
    probabilities: Callable[[], tuple[Tensor, Tensor]]
    seed: int = 0
    labeled: Callable[[], tuple[Tensor, Tensor, Tensor, Tensor]] | None = None
    columns: Sequence[Any] | None = None


class Metric(Component, family=True):
    """The family of metrics.

    Attributes:
        higher_is_better: for each score, +1 where larger is better, −1 where smaller is, 0 where neither is.
        measures: for each score, whether samples look real (`FIDELITY`), all kinds occur (`COVERAGE`), `BOTH`, or
            training images return (`MEMORIZATION`).
        needs_train: whether it needs the training images.
        needs_classes: whether it needs features that come from a classifier.
        needs_labels: whether it needs samples with labels, and labels of the real images.
        needs_columns: whether it is for the columns of a table.
        aliases: other names for it, such as those of its scores.
    """

    higher_is_better: ClassVar[dict[str, int]] = {}
    measures: ClassVar[dict[str, str]] = {}
    needs_train: ClassVar[bool] = False
    needs_classes: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    needs_columns: ClassVar[bool] = False
    aliases: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def __call__(self, inputs: MetricInputs) -> list[Estimate]:
        """The scores."""


def parse_metrics(words: Iterable[str]) -> list[Metric]:
    """Metrics by their names or aliases: `precision` and `recall` both mean `neighbors`.

    Each metric appears once, in the order of the words.

    Raises:
        ConfigurationError: an unknown word; the message lists all names.
    """
    members = Metric.members()
    known = {alias: name for name, member in members.items() for alias in member.aliases}
    known |= {name: name for name in members}
    plain = [word.strip().lower().replace("_", "-") for word in words]
    for word in plain:
        if word not in known:
            close = nearest(word, known)
            aliases = ", ".join(sorted(set(known) - set(members)))
            every = f"Known: {', '.join(members)}; aliases: {aliases}"
            suggestion = f"{close} " if close.startswith("Did") else ""
            raise ConfigurationError(f"there is no metric named {word!r}. {suggestion}{every}")
    return [members[name]() for name in dict.fromkeys(known[word] for word in plain)]


def higher_is_better(name: str) -> int:
    """The better direction of a score: +1 for larger, −1 for smaller, 0 for neither or unknown."""
    table = {score: sign for member in Metric.members().values() for score, sign in member.higher_is_better.items()}
    return table.get(name, table.get(name.partition("/")[0], 0))


def measured_by(name: str) -> str:
    """What a score measures: fidelity, coverage, both, or memorization; empty for any other quantity."""
    table = {score: what for member in Metric.members().values() for score, what in member.measures.items()}
    return table.get(name, table.get(name.partition("/")[0], ""))


def checked_features(values: Tensor, name: str, least: int, metric: str) -> Tensor:
    """Features as float64 (N, D) on their device.

    Args:
        values: (N, D), or (N,) for a single feature.
        name: `real` or `fake`, for messages.
        least: the smallest number of samples that the metric takes.
        metric: its name, for messages.

    Raises:
        DataError: another shape, too few samples, or values that are not finite.
    """
    features = real_tensor(values, f"the {name} samples").detach()
    features = features[:, None] if features.dim() == 1 else features
    if features.dim() != 2 or features.shape[1] == 0:
        raise DataError(f"the {name} features must be (N, D); these have the shape {tuple(values.shape)}")
    if len(features) < least:
        raise DataError(
            f"the {metric} takes at least {least} {name} samples (given: {len(features)}); give more, or use "
            "features of fewer dimensions"
        )
    features = features.double()
    bad = int((~torch.isfinite(features)).any(1).sum())
    if bad:
        raise DataError(f"{bad} of {len(features)} {name} samples have features that are not finite (NaN or infinite)")
    return features


def checked_pair(real: Tensor, fake: Tensor, least: int, metric: str) -> tuple[Tensor, Tensor]:
    """Both sets of features, checked one by one as in `checked_features` and against each other.

    Raises:
        DataError: also for different dimensions, or real features that are all equal.
    """
    first, second = checked_features(real, "real", least, metric), checked_features(fake, "fake", least, metric)
    if first.shape[1] != second.shape[1]:
        raise DataError(
            f"the real samples have {first.shape[1]} features and the fake ones {second.shape[1]}; use the same "
            "features for both"
        )
    if len(first) > 1 and bool((first == first[0]).all()):
        raise DataError(
            f"all {len(first)} real samples have the same features, so the {metric} is undefined; look at the images, "
            "or use other features"
        )
    return first, second.to(first.device)
