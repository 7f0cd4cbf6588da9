"""The metrics as settings: which there are, what each is called on the command line, and which way is better.

To add one, write its function of features and a member of `Metric` here.
"""

from __future__ import annotations

__all__ = [
    "Classes",
    "Diversity",
    "Evidence",
    "Frechet",
    "InceptionScore",
    "Kernel",
    "Memorization",
    "Metric",
    "Neighbors",
    "SlicedWasserstein",
    "TwoSample",
    "better",
    "parse_metrics",
]

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from latentia.configuration import Component
from latentia.errors import ConfigurationError, DataError, UnsupportedError, nearest
from latentia.estimate import Estimate
from latentia.metrics.classes import class_coverage, inception_score
from latentia.metrics.diversity import diversity
from latentia.metrics.features import Features
from latentia.metrics.frechet import frechet_distance, frechet_extrapolated
from latentia.metrics.kernel import kernel_distance
from latentia.metrics.memorization import memorization
from latentia.metrics.neighbors import neighbor_scores
from latentia.metrics.sliced import sliced_wasserstein
from latentia.metrics.two_sample import two_sample_test


@dataclass(frozen=True)
class Evidence:
    """What a metric may look at.

    Attributes:
        features: what the numbers are.
        real: features of real images, (n, D).
        fake: of samples, (m, D).
        train: of the images that the model was trained on, (T, D), where they are known.
        probabilities: p(y|x) of the real and of the fake images, (n, K) and (m, K), by the features' own classifier.
        seed: for a metric that draws.
    """

    features: Features
    real: Tensor
    fake: Tensor
    train: Tensor | None
    probabilities: Callable[[], tuple[Tensor, Tensor]]
    seed: int = 0


class Metric(Component, family=True):
    """The family of metrics.

    Attributes:
        better: for each figure, +1 where larger is better and −1 where smaller is; 0 where neither is.
        needs_train: whether it needs the images that the model was trained on.
        needs_classes: whether it needs features that know classes.
        also: other words for it, such as the figures that it gives.
    """

    better: ClassVar[dict[str, int]] = {}
    needs_train: ClassVar[bool] = False
    needs_classes: ClassVar[bool] = False
    also: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def __call__(self, evidence: Evidence) -> list[Estimate]:
        """The figures."""


class Frechet(Metric):
    """The Fréchet distance, plain and with its 1/n bias taken away."""

    better: ClassVar[dict[str, int]] = {
        "frechet_distance": -1,
        "frechet_distance_extrapolated": -1,
        "fid": -1,
        "fid_extrapolated": -1,
    }

    def __call__(self, evidence: Evidence) -> list[Estimate]:
        dimension = evidence.real.shape[1]
        for name, count in (("real", len(evidence.real)), ("fake", len(evidence.fake))):
            if count <= dimension:
                raise DataError(
                    f"the Fréchet distance takes at least {dimension + 1} {name} samples, one more than there are "
                    f"features, and there are {count}; give more, or features of fewer dimensions"
                )
        name, _, of = evidence.features.frechet_name.partition("/")
        rest = f"/{of}" if of else ""
        return [
            frechet_distance(evidence.real, evidence.fake, name=f"{name}{rest}"),
            frechet_extrapolated(evidence.real, evidence.fake, name=f"{name}_extrapolated{rest}"),
        ]


class Kernel(Metric):
    """The kernel distance, unbiased, with a polynomial kernel."""

    degree: int = Field(default=3, ge=1)
    better: ClassVar[dict[str, int]] = {"kernel_distance": -1, "kid": -1}

    def __call__(self, evidence: Evidence) -> list[Estimate]:
        name = evidence.features.kernel_name
        return [kernel_distance(evidence.real, evidence.fake, degree=self.degree, name=name)]


class Neighbors(Metric):
    """Precision, recall, density and coverage, by balls of the k nearest neighbors."""

    k: int = Field(default=5, ge=1)
    better: ClassVar[dict[str, int]] = {"precision": 1, "recall": 1, "density": 1, "coverage": 1}
    also: ClassVar[tuple[str, ...]] = ("precision", "recall", "density", "coverage")

    def __call__(self, evidence: Evidence) -> list[Estimate]:
        return list(neighbor_scores(evidence.real, evidence.fake, k=self.k))


class SlicedWasserstein(Metric):
    """The sliced Wasserstein distance of order 2."""

    directions: int = Field(default=256, ge=2)
    better: ClassVar[dict[str, int]] = {"sliced_wasserstein": -1}

    def __call__(self, evidence: Evidence) -> list[Estimate]:
        return [sliced_wasserstein(evidence.real, evidence.fake, directions=self.directions, seed=evidence.seed)]


class TwoSample(Metric):
    """The classifier two-sample test."""

    hidden: int = Field(default=32, ge=1)
    steps: int = Field(default=300, ge=1)
    better: ClassVar[dict[str, int]] = {"two_sample/accuracy": -1, "two_sample/p_value": 0}

    def __call__(self, evidence: Evidence) -> list[Estimate]:
        return two_sample_test(evidence.real, evidence.fake, hidden=self.hidden, steps=self.steps, seed=evidence.seed)


class Memorization(Metric):
    """Authenticity and the nearest-neighbor ratio; needs the training images."""

    better: ClassVar[dict[str, int]] = {"memorization/authenticity": 0, "memorization/nearest_ratio": 0}
    needs_train: ClassVar[bool] = True

    def __call__(self, evidence: Evidence) -> list[Estimate]:
        if evidence.train is None:
            raise UnsupportedError(
                "memorization is about the images that the model was trained on; give them as `train`"
            )
        return memorization(evidence.train, evidence.fake, evidence.real)


class InceptionScore(Metric):
    """The inception-type score, by the classes of the features."""

    better: ClassVar[dict[str, int]] = {"inception_score": 1}
    needs_classes: ClassVar[bool] = True

    def __call__(self, evidence: Evidence) -> list[Estimate]:
        return [inception_score(evidence.probabilities()[1], name=evidence.features.score_name)]


class Classes(Metric):
    """How many classes there are among samples, and how far their shares are from those of the real images."""

    better: ClassVar[dict[str, int]] = {"classes/found": 1, "classes/kl": -1, "classes/kl_perfect": 0}
    also: ClassVar[tuple[str, ...]] = ("class-coverage",)
    needs_classes: ClassVar[bool] = True

    def __call__(self, evidence: Evidence) -> list[Estimate]:
        real, fake = evidence.probabilities()
        counts = real.argmax(1).bincount(minlength=real.shape[1]).double()
        return class_coverage(fake.argmax(1), real.shape[1], counts + 0.5, reference=len(real))


class Diversity(Metric):
    """The ratio of mean pairwise distances."""

    better: ClassVar[dict[str, int]] = {"diversity": 0}

    def __call__(self, evidence: Evidence) -> list[Estimate]:
        return [diversity(evidence.real, evidence.fake)]


def parse_metrics(words: Iterable[str]) -> list[Metric]:
    """Metrics by their names, or by those of their figures: `precision` and `recall` are both `neighbors`.

    Each is there once, in the order of the words.

    Raises:
        ConfigurationError: for a word that names none, with the list of all.
    """
    members = Metric.members()
    known = {**{word: name for name, member in members.items() for word in member.also}, **{n: n for n in members}}
    plain = [word.strip().lower().replace("_", "-") for word in words]
    for word in plain:
        if word not in known:
            close = nearest(word, known)
            others = ", ".join(sorted(set(known) - set(members)))
            every = f"Known: {', '.join(members)}; of these, parts or other words: {others}"
            meant = f"{close} " if close.startswith("Did") else ""
            raise ConfigurationError(f"there is no metric named {word!r}. {meant}{every}")
    return [members[name]() for name in dict.fromkeys(known[word] for word in plain)]


def better(name: str) -> int:
    """Which way is better for a figure: +1 for larger, −1 for smaller, 0 for neither or not known."""
    table = {figure: way for member in Metric.members().values() for figure, way in member.better.items()}
    return table.get(name, table.get(name.partition("/")[0], 0))
