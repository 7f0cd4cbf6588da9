"""What an attack is made of: cases, their answers, the register of classes, and all that they import from latentia."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from latentia.distributions import (
    Bernoulli,
    Conditional,
    Diagonal,
    Finite,
    FlowPrior,
    Gaussian,
    Mixture,
    MixturePrior,
    VampPrior,
)
from latentia.divergences import distances
from latentia.errors import LatentiaError
from latentia.likelihood import (
    LatentModel,
    enclose_log_likelihood,
    evaluate_gaps,
    exact_log_likelihood,
    exact_posterior,
    mutual_information,
)
from latentia.models import VAE

__all__ = [  # what the other files take of latentia comes from here
    "CLASSES",
    "DOUBLE",
    "VAE",
    "Answer",
    "Array",
    "Bernoulli",
    "Case",
    "Conditional",
    "Diagonal",
    "Finite",
    "FlowPrior",
    "Gaussian",
    "LatentModel",
    "LatentiaError",
    "Mixture",
    "MixturePrior",
    "VampPrior",
    "attack",
    "distances",
    "enclosures",
    "evaluate_gaps",
    "exact_posterior",
    "gaussian",
    "likelihood",
    "log_uniform",
    "make",
    "mutual_information",
    "pick",
    "rotation",
    "short",
    "standard",
    "tensor",
]

Array = np.ndarray
DOUBLE = torch.float64


@dataclass(frozen=True)
class Answer:
    """One number of latentia's beside the truth.

    Attributes:
        label: what it is the value of.
        value: latentia's; None where it refused this one alone.
        claimed: its error, as latentia states it.
        low: least value that is true, less the oracle's own error. Most truths are one number; where a decoder rounds
            its input, both the function as it rounds and the function it rounds are right.
        high: largest value that is true.
        wanted: the error that was asked for; a larger claim is honest but did not serve.
        kind: `exact`, `proven`, `numerical`, `lower bound`, `random`; `unexplained` where latentia says so of the
            image.
    """

    label: str
    value: float | None
    claimed: float
    low: float
    high: float
    wanted: float = math.inf
    kind: str = "numerical"

    @property
    def distance(self) -> float:
        """How far the value lies from the truth."""
        if self.value is None:
            return 0.0
        if math.isnan(self.value):
            return math.inf
        if self.low <= self.value <= self.high:
            return 0.0
        return max(self.low - self.value, self.value - self.high)

    @property
    def factor(self) -> float:
        """Distance over claim; at most 1 where the claim holds."""
        if self.distance == 0:
            return 0.0
        scale = max([abs(v) for v in (self.low, self.high) if math.isfinite(v)], default=0.0)
        return self.distance / (self.claimed + 1e-12 * (1 + scale)) if math.isfinite(self.claimed) else 0.0


@dataclass(frozen=True)
class Case:
    """A question to latentia whose answer is known.

    Attributes:
        ask: seconds allowed → answers; raises what latentia raises.
        serve: whether a refusal is unneeded.
        about: the case in a few words.
        model: whose log p(x) is asked for, where that is the question.
        images: of which.
        low: least truth for each image.
        high: largest truth for each image.
    """

    ask: Callable[[float], list[Answer]]
    serve: bool = True
    about: str = ""
    model: Any = None
    images: Tensor | None = None
    low: Sequence[float] = ()
    high: Sequence[float] = ()


Maker = Callable[[np.random.Generator], Case]
CLASSES: dict[str, Maker] = {}


def attack(name: str) -> Callable[[Maker], Maker]:
    """Register a class of cases."""

    def register(maker: Maker) -> Maker:
        CLASSES[name] = maker
        return maker

    return register


def make(name: str, seed: int) -> Case:
    """The case `name:seed`, always the same."""
    torch.manual_seed(seed)
    return CLASSES[name](np.random.default_rng([seed, crc32(name.encode())]))


def truths(values: Sequence[float | tuple[float, float]], errors: Sequence[float]) -> tuple[list[float], list[float]]:
    """Ends of the intervals of truth, widened by the oracle's errors."""
    pairs = [value if isinstance(value, tuple) else (value, value) for value in values]
    return [min(p) - e for p, e in zip(pairs, errors, strict=True)], [
        max(p) + e for p, e in zip(pairs, errors, strict=True)
    ]


def likelihood(
    model: Any,
    images: Tensor,
    values: Sequence[float | tuple[float, float]],
    errors: Sequence[float] | float = 0.0,
    *,
    tolerance: float = 0.01,
    serve: bool = True,
    about: str = "",
    unchanged: torch.nn.Module | None = None,
    **limits: Any,
) -> Case:
    """log p(x) of a few images.

    Args:
        model: the model.
        images: (N, …).
        values: N truths, or intervals of truth.
        errors: of the oracle.
        tolerance: to ask for.
        serve: see `Case`.
        about: see `Case`.
        unchanged: a module whose state the evaluation must leave as it is.
        **limits: more options of `exact_log_likelihood`.
    """
    low, high = truths(values, [errors] * len(values) if isinstance(errors, float) else errors)

    def ask(seconds: float) -> list[Answer]:
        before = {} if unchanged is None else {k: v.clone() for k, v in unchanged.state_dict().items()}
        training = unchanged is not None and unchanged.training
        result = exact_log_likelihood(model, images, tolerance, require=False, seconds=seconds, **limits)
        reached = [True] * len(images) if result.reached is None else result.reached.tolist()
        flagged = result.details.get("unexplained", torch.zeros(len(images), dtype=torch.bool)).tolist()
        rows = zip(result.values.tolist(), result.errors.tolist(), reached, flagged, strict=True)
        if result.kind == "lower bound":  # nothing explains any image, and the decoder is a function
            return [
                Answer(f"image {i}", value - claim, 0.0, -math.inf, high[i], math.inf, "lower bound")
                for i, (value, claim, *_) in enumerate(rows)
            ]
        answers = [
            # Of an image that nothing explains, where the decoder is a function, the mass found is a lower bound.
            Answer(f"image {i}", value - tolerance, 0.0, -math.inf, high[i], math.inf, "lower bound")
            if flag and not there
            else Answer(
                f"image {i}",
                value if there else None,
                claim,
                low[i],
                high[i],
                tolerance,
                "unexplained" if flag else result.kind,
            )
            for i, (value, claim, there, flag) in enumerate(rows)
        ]
        if unchanged is not None:
            same = training == unchanged.training
            same &= all(torch.equal(v, before[k]) for k, v in unchanged.state_dict().items())
            answers.append(Answer("state of the module", float(same), 0.0, 1.0, 1.0))
        return answers

    return Case(ask, serve, about, model, images, low, high)


def enclosures(
    model: Any,
    images: Tensor,
    truths: Sequence[tuple[float, float]],
    *,
    tolerance: float,
    stop: float,
    mean: bool = False,
    about: str = "",
) -> Case:
    """Proven bounds of log p(x) of a few images, from a search that is stopped after `stop` seconds.

    Args:
        model: the model.
        images: (N, …).
        truths: value and error of the oracle for each image.
        tolerance: to ask for.
        stop: the search ends then, whatever it has reached.
        mean: whether the tolerance is of the mean over the images.
        about: see `Case`.
    """

    def ask(seconds: float) -> list[Answer]:
        found = enclose_log_likelihood(model, images, tolerance, mean=mean, seconds=min(stop, seconds))
        answers = []
        for i, (low, high, (value, error)) in enumerate(
            zip(found.lower.tolist(), found.upper.tolist(), truths, strict=True)
        ):
            answers += [
                Answer(f"lower bound {i}", low, 0.0, -math.inf, value + error, math.inf, "proven"),
                Answer(f"upper bound {i}", high, 0.0, value - error, math.inf, math.inf, "proven"),
            ]
        return answers

    return Case(ask, False, about, model, images, [v - e for v, e in truths], [v + e for v, e in truths])


# --- random choices -------------------------------------------------------------------------------------------------


def log_uniform(rng: np.random.Generator, low: float, high: float, size: Any = None) -> Any:
    """Numbers whose logarithms are uniform."""
    value = np.exp(rng.uniform(math.log(low), math.log(high), size))
    return float(value) if size is None else value


def pick(rng: np.random.Generator, *items: Any) -> Any:
    """One of the items."""
    return items[int(rng.integers(len(items)))]


def short(value: Any) -> Any:
    """Numbers that float32 holds exactly, as float64."""
    rounded = np.asarray(value, dtype=np.float32).astype(np.float64)
    return float(rounded) if rounded.ndim == 0 else rounded


def tensor(value: Any) -> Tensor:
    """As a float64 tensor."""
    return torch.as_tensor(np.asarray(value), dtype=DOUBLE)


def rotation(rng: np.random.Generator, d: int) -> Array:
    """A random rotation."""
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


# --- models ---------------------------------------------------------------------------------------------------------


def standard(d: int, dtype: torch.dtype = DOUBLE) -> Distribution:
    """N(0, I)."""
    return Independent(Normal(torch.zeros(d, dtype=dtype), torch.ones(d, dtype=dtype)), 1)


def gaussian(mean: Callable[[Tensor], Tensor], scale: Any) -> Callable[[Tensor], Distribution]:
    """A decoder in float64: N(mean(z), scale²), pixels independent; `scale` is a number, one per pixel, or of z."""

    def decoder(z: Tensor) -> Distribution:
        place = mean(z.double())
        spread = scale(z.double()) if callable(scale) else torch.as_tensor(scale, dtype=DOUBLE)
        return Independent(Normal(place, spread.expand_as(place)), 1)

    return decoder
