"""Likelihoods of reals of any shape whose spread is learned, one for each number of an example.

The network emits locations; the scales are shared by all z, as in factor analysis. With standardized data (see
`standardization.py`) location and scale are in standard deviations of each column, and start at a useful size.
"""

from __future__ import annotations

__all__ = ["GaussianPerColumn", "LaplacePerColumn", "LogNormal", "StudentT"]

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.distributions import Distribution, Independent, Laplace, Normal
from torch.distributions import LogNormal as TorchLogNormal
from torch.distributions import StudentT as TorchStudentT
from torch.nn.functional import softplus

from latentia.distributions.likelihoods import Likelihood, require_finite
from latentia.errors import DataError


class GaussianPerColumn(Likelihood, name="gaussian-per-column"):
    """Normal numbers around the network's, with one learned scale for each; linear networks make it factor analysis."""

    bounded: ClassVar[bool] = False
    initial_scale: float = Field(default=0.5, gt=0, description="scale of each column at the start")

    def shared_parameters(self, event_shape: tuple[int, ...]) -> Tensor:
        return torch.full(event_shape, math.log(self.initial_scale))

    def distribution(self, parameters: Tensor, shared: Tensor | None = None, event_dims: int = 1) -> Distribution:
        loc, scale = _location_and_scale(parameters, shared)
        return Independent(Normal(loc, scale, validate_args=False), event_dims, validate_args=False)

    def check(self, images: Tensor) -> None:
        require_finite(images)


class LaplacePerColumn(GaussianPerColumn, name="laplace"):
    """Laplace numbers with one learned scale for each: the median of the model minimizes absolute errors."""

    def distribution(self, parameters: Tensor, shared: Tensor | None = None, event_dims: int = 1) -> Distribution:
        loc, scale = _location_and_scale(parameters, shared)
        return Independent(Laplace(loc, scale, validate_args=False), event_dims, validate_args=False)


class StudentT(Likelihood, name="student-t"):
    """Student t numbers, with a learned scale and a learned number of degrees of freedom ν > 1 for each.

    Outliers cost log(1 + u²/ν) in place of u²/2, so that a few of them do not widen the scale of all.
    """

    bounded: ClassVar[bool] = False
    initial_scale: float = Field(default=0.5, gt=0, description="scale of each column at the start")
    initial_freedom: float = Field(default=5.0, gt=1, description="degrees of freedom at the start")

    def shared_parameters(self, event_shape: tuple[int, ...]) -> Tensor:
        above_one = math.log(math.expm1(self.initial_freedom - 1))  # softplus gives it back
        return torch.stack([torch.full(event_shape, math.log(self.initial_scale)), torch.full(event_shape, above_one)])

    def distribution(self, parameters: Tensor, shared: Tensor | None = None, event_dims: int = 1) -> Distribution:
        if shared is None:
            raise ValueError("a Student t likelihood needs its shared log-scales and degrees of freedom")
        loc, scale = _location_and_scale(parameters, shared[0])
        freedom = (1 + softplus(shared[1])).to(parameters.dtype).expand_as(parameters)
        return Independent(TorchStudentT(freedom, loc, scale, validate_args=False), event_dims, validate_args=False)

    def check(self, images: Tensor) -> None:
        require_finite(images)


class LogNormal(GaussianPerColumn, name="log-normal"):
    """Positive numbers whose logarithms are normal, with one learned scale for each; standardized as logarithms."""

    prepares: ClassVar[bool] = True

    bounded: ClassVar[bool] = True

    def distribution(self, parameters: Tensor, shared: Tensor | None = None, event_dims: int = 1) -> Distribution:
        loc, scale = _location_and_scale(parameters, shared)
        return Independent(TorchLogNormal(loc, scale, validate_args=False), event_dims, validate_args=False)

    def transform(self, x: Tensor) -> Tensor:
        return x.log()

    def check(self, images: Tensor) -> None:
        require_finite(images)
        if not bool((images > 0).all()):
            raise DataError(
                f"a log-normal likelihood scores positive numbers, and {int((images <= 0).sum())} of these are zero or "
                "negative; set likelihood=gaussian-per-column or student-t"
            )


def _location_and_scale(parameters: Tensor, shared: Tensor | None) -> tuple[Tensor, Tensor]:
    if shared is None:
        raise ValueError("a likelihood with learned scales needs its shared log-scales")
    return parameters, shared.exp().to(parameters.dtype).expand_as(parameters)
