"""Likelihoods p(x|z): what all have in common, and those of images x with values in [0, 1], shape (C, H, W).

Each family scores only what is in its support: Bernoulli images are 0 or 1, discretized ones are k/255. `check` refuses
other examples once, when data are loaded, and names the cure. `columns.py` has likelihoods of reals, `counts.py` of
counts, `categories.py` of categories, and `mixed.py` joins several, one for each group of columns.
"""

from __future__ import annotations

__all__ = [
    "Bernoulli",
    "ContinuousBernoulli",
    "DiscretizedLogisticMixture",
    "Gaussian",
    "GaussianLearnedScale",
    "GaussianPerPixel",
    "Likelihood",
]

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Distribution, Independent, Normal
from torch.distributions.utils import lazy_property
from torch.nn.functional import binary_cross_entropy_with_logits

from latentia.distributions.conditional import Family
from latentia.distributions.pixels import ContinuousBernoulliDistribution, DiscretizedLogisticMixtureDistribution
from latentia.errors import ConfigurationError, DataError

SERVES = (
    "set likelihood=gaussian-per-column or student-t for reals, log-normal for positive ones, negative-binomial for "
    "counts, categorical for categories"
)


class Likelihood(Family, family=True):
    """A family of distributions over examples; those of this file are for images (C, H, W) with values in [0, 1].

    Attributes:
        takes_logits: whether the decoder emits logits, so that it must not end in a sigmoid.
        bounded: whether values outside the support have no density; where they have one, `check` refuses them in data
            only.
        takes_missing: whether numbers are independent given z, so that missing ones can be left out.
        prepares: whether the encoder sees x transformed, or categories as indicators.
        within: a number in the support.
    """

    takes_logits: ClassVar[bool] = False
    bounded: ClassVar[bool] = True
    takes_missing: ClassVar[bool] = True
    prepares: ClassVar[bool] = False
    within: ClassVar[float] = 1.0

    @property
    def discrete(self) -> bool:
        """Whether log p(x|z) is a log-probability (at most 0) rather than a log-density."""
        return False

    def parameter_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        return event_shape

    def check(self, images: Tensor) -> None:
        """Raise for examples that this likelihood cannot score.

        Args:
            images: floats (N, *event_shape), such as (N, C, H, W), none of them NaN.

        Raises:
            DataError: for values outside the distribution's support; the message names the cure.
        """
        if not bool(((images >= 0) & (images <= 1)).all()):
            raise DataError(
                "images must have values in [0, 1]; divide 8-bit images by 255, or standardize them "
                "(data.standardize=true) under a Gaussian likelihood"
                if images.dim() == 4
                else f"likelihood={self.type_name} scores values in [0, 1]; {SERVES}"
            )

    def check_observed(self, x: Tensor, missing: bool) -> None:
        """`check` for examples of which values may be missing (NaN)."""
        self.check(torch.where(x.isnan(), self.within, x) if missing else x)

    def transform(self, x: Tensor) -> Tensor:
        """x in the space in which it is standardized, number by number, such as log x; for the encoder, too."""
        return x

    def unscaled_columns(self) -> Sequence[int] | slice:
        """The columns that are not standardized, such as categories."""
        return ()

    def indicator_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that the encoder sees of one example: categories become indicators."""
        return event_shape

    def indicators(self, u: Tensor, absent: Tensor | None) -> Tensor:
        """Transformed and standardized values (B, *event_shape) as the encoder sees them, (B, *indicator_shape).

        Args:
            u: finite; 0 where a value is missing.
            absent: which values are missing; None where none can be.
        """
        return u


def _check_reals(family: Likelihood, x: Tensor) -> None:
    """Images, (N, C, H, W), must be in [0, 1]; other examples must be finite."""
    if x.dim() == 4:
        Likelihood.check(family, x)
    require_finite(x)


def require_finite(x: Tensor) -> None:
    """Refuse values that are not finite.

    Raises:
        DataError: naming the cure.
    """
    if not bool(torch.isfinite(x).all()):
        raise DataError("examples hold values that are not finite numbers; replace them, or mark missing ones as NaN")


class Bernoulli(Likelihood):
    """Independent binary pixels: log p(x|z) = Σⱼ xⱼ log ŷⱼ + (1−xⱼ) log(1−ŷⱼ), from logits."""

    @property
    def discrete(self) -> bool:
        return True

    takes_logits: ClassVar[bool] = True

    def distribution(self, parameters: Tensor, shared: Tensor | None = None, event_dims: int = 3) -> Distribution:
        return _BernoulliImages(parameters, event_dims)

    def check(self, images: Tensor) -> None:
        if not bool(((images == 0) | (images == 1)).all()):
            if images.dim() != 4:
                raise DataError(f"a Bernoulli likelihood scores values that are 0 or 1; {SERVES}")
            raise DataError(
                "a Bernoulli likelihood scores pixels that are 0 or 1, and these images have gray ones. Binarize them "
                "(data.binarize=dynamic, static or threshold), or set likelihood=continuous-bernoulli or gaussian"
            )


class _BernoulliImages(Independent):
    """Independent binary pixels of logits (*batch, *event), with `event_dims` event dimensions.

    Pixels are summed before the change of sign, which saves a pass over them.
    """

    def __init__(self, logits: Tensor, event_dims: int):
        self.logits = logits
        self.reinterpreted_batch_ndims = event_dims
        rank = logits.dim() - event_dims
        Distribution.__init__(self, logits.shape[:rank], logits.shape[rank:], validate_args=False)

    @lazy_property
    def base_dist(self) -> TorchBernoulli:  # pyright: ignore[reportIncompatibleVariableOverride]
        return TorchBernoulli(logits=self.logits, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> _BernoulliImages:
        return _BernoulliImages(self.logits.expand(*batch_shape, *self.event_shape), self.reinterpreted_batch_ndims)

    def log_prob(self, value: Tensor) -> Tensor:
        logits = self.logits
        if value.shape != logits.shape:
            logits, value = torch.broadcast_tensors(logits, value)
        cost = binary_cross_entropy_with_logits(logits, value, reduction="none")
        return -cost.sum(tuple(range(-self.reinterpreted_batch_ndims, 0)))


class ContinuousBernoulli(Likelihood, name="continuous-bernoulli"):
    """Gray pixels in [0, 1]: the Bernoulli expression, normalized (Loaiza-Ganem and Cunningham 2019, eq. 3)."""

    takes_logits: ClassVar[bool] = True

    def distribution(self, parameters: Tensor, shared: Tensor | None = None, event_dims: int = 3) -> Distribution:
        return Independent(ContinuousBernoulliDistribution(parameters), event_dims, validate_args=False)


class Gaussian(Likelihood):
    """Normal pixels around the network's image, with one fixed scale."""

    bounded: ClassVar[bool] = False
    scale: float = Field(default=0.1, gt=0, description="standard deviation of every pixel")

    def check(self, images: Tensor) -> None:
        _check_reals(self, images)

    def distribution(self, parameters: Tensor, shared: Tensor | None = None, event_dims: int = 3) -> Distribution:
        scale = torch.full_like(parameters, self.scale)
        return Independent(Normal(parameters, scale, validate_args=False), event_dims, validate_args=False)


class GaussianLearnedScale(Likelihood, name="gaussian-learned"):
    """Normal pixels around the network's image, with one scale for all pixels, learned."""

    bounded: ClassVar[bool] = False
    initial_scale: float = Field(default=0.3, gt=0, description="standard deviation at the start")

    def check(self, images: Tensor) -> None:
        _check_reals(self, images)

    def shared_parameters(self, event_shape: tuple[int, ...]) -> Tensor:
        return torch.tensor(math.log(self.initial_scale))

    def distribution(self, parameters: Tensor, shared: Tensor | None = None, event_dims: int = 3) -> Distribution:
        if shared is None:
            raise ValueError("a Gaussian with a learned scale needs its shared log-scale")
        scale = shared.exp().to(parameters.dtype).expand_as(parameters)
        return Independent(Normal(parameters, scale, validate_args=False), event_dims, validate_args=False)


class GaussianPerPixel(Likelihood, name="gaussian-per-pixel"):
    """Normal numbers with a mean and a log-scale each: the network emits 2C channels, or 2d columns, means first.

    The scale has a floor, since the density of constant pixels is unbounded without one.
    """

    bounded: ClassVar[bool] = False
    smallest_scale: float = Field(default=1e-3, gt=0, description="floor of the standard deviations")

    def check(self, images: Tensor) -> None:
        _check_reals(self, images)

    def parameter_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        channels, *size = event_shape
        return (2 * channels, *size)

    def distribution(self, parameters: Tensor, shared: Tensor | None = None, event_dims: int = 3) -> Distribution:
        mean, log_scale = parameters.chunk(2, dim=-event_dims)
        scale = log_scale.exp() + self.smallest_scale
        return Independent(Normal(mean, scale, validate_args=False), event_dims, validate_args=False)


class DiscretizedLogisticMixture(Likelihood, name="logistic-mixture"):
    """8-bit pixels k/255: a mixture of logistic distributions, integrated over each of the 256 cells.

    Every pixel has its own mixture weights, shared by its channels; given the component, channels are independent.
    After Salimans et al. 2017, eq. 2, without the coupling between color channels.
    """

    components: int = Field(default=5, ge=1, description="logistic distributions of each pixel")
    takes_missing: ClassVar[bool] = False

    @property
    def discrete(self) -> bool:
        return True

    def parameter_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(event_shape) != 3:
            text = f"logistic-mixture is for images (C, H, W), and the shape is {event_shape}. Use likelihood=gaussian"
            raise ConfigurationError([("likelihood", text)])
        channels, *size = event_shape
        return (self.components * (1 + 2 * channels), *size)

    def distribution(self, parameters: Tensor, shared: Tensor | None = None, event_dims: int = 3) -> Distribution:
        return DiscretizedLogisticMixtureDistribution(parameters, self.components)

    def check(self, images: Tensor) -> None:
        super().check(images)
        levels = images.double() * 255
        if not bool((levels - levels.round()).abs().le(1e-3).all()):
            raise DataError(
                "a discretized likelihood scores 8-bit pixels k/255; set data.binarize=none and give 8-bit images"
            )
