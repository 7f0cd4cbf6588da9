r"""The kernel distance: the squared maximum mean discrepancy of two sets of features, unbiased.

    MMD² = E k(x, x′) + E k(y, y′) − 2 E k(x, y),    k(x, y) = (x·y/D + 1)³ by default    (Gretton et al. 2012, eq. 3)

On the features of the original Inception network it is called "KID" (Bińkowski et al. 2018). The estimate uses all
pairs of all samples, not random subsets, so it needs no seed and has the smallest variance. It is unbiased, so it is
negative about half of the time where the distributions are equal.

*Variance*, by Hoeffding's decomposition of the two-sample U-statistic with n real and m fake samples: with
a(x) = E k(x, x′) − E k(x, y), b(y) = E k(y, y′) − E k(x, y), and k̄ the kernel minus its conditional means,

    Var = 4 Var a/n + 4 Var b/m + 2 Var k̄(x, x′)/n(n−1) + 2 Var k̄(y, y′)/m(m−1) + 4 Var k̄(x, y)/nm.

The first two terms vanish where the distributions are equal; the others remain. Row means estimate a and b; the other
terms give the variance that the noise of the row means adds, and it is subtracted.
"""

from __future__ import annotations

__all__ = ["Kernel", "kernel_distance"]

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from latentia.estimate import Estimate
from latentia.metrics.metric import BOTH, Metric, MetricInputs, checked_pair

_LEAST = 4


class Kernel(Metric):
    """The kernel distance, unbiased, with a polynomial kernel."""

    degree: int = Field(default=3, ge=1, description="degree of the polynomial kernel")
    higher_is_better: ClassVar[dict[str, int]] = {"kernel_distance": -1, "kid": -1}
    measures: ClassVar[dict[str, str]] = dict.fromkeys(higher_is_better, BOTH)

    def __call__(self, inputs: MetricInputs) -> list[Estimate]:
        return [kernel_distance(inputs.real, inputs.fake, degree=self.degree, name=inputs.features.kernel_name)]


@dataclass
class _Sums:
    """Sums of a kernel matrix along rows (n,) and columns (m,), and of its squares; within one set, without k(x, x)."""

    rows: Tensor
    columns: Tensor
    squares: float


def _sums(x: Tensor, y: Tensor, degree: int, same: bool, block: int) -> _Sums:
    rows, columns, squares = [], torch.zeros(len(y), dtype=x.dtype, device=x.device), 0.0
    for start in range(0, len(x), block):
        part = x[start : start + block]
        k = (part @ y.T / x.shape[1] + 1) ** degree
        if same:
            index = torch.arange(len(part), device=x.device)
            k[index, index + start] = 0.0
        rows.append(k.sum(1))
        columns += k.sum(0)
        squares += k.square().sum().item()
    return _Sums(torch.cat(rows), columns, squares)


def kernel_distance(
    real: Tensor, fake: Tensor, *, degree: int = 3, block: int = 1024, name: str = "kernel_distance"
) -> Estimate:
    """Unbiased MMD² with the polynomial kernel (x·y/D + 1)^degree, and its standard error; see the module.

    Args:
        real: features (n, D), n ≥ 4.
        fake: (m, D), m ≥ 4.
        degree: of the kernel.
        block: rows of the kernel matrix in memory at a time; it changes rounding alone.
        name: of the estimate.

    Raises:
        DataError: for too few samples, features that are not finite, of different dimensions, or constant.
    """
    x, y = checked_pair(real, fake, _LEAST, "kernel distance")
    n, m = len(x), len(y)
    xx, yy = _sums(x, x, degree, True, block), _sums(y, y, degree, True, block)
    xy = _sums(x, y, degree, False, block)
    within_x, within_y, between = xx.rows / (n - 1), yy.rows / (m - 1), xy.rows / m
    between_y = xy.columns / n
    mean_xx, mean_yy, mean_xy = (v.mean().item() for v in (within_x, within_y, between))
    value = mean_xx + mean_yy - 2 * mean_xy

    # variance of the kernel minus its conditional means: the total minus that of the conditional means
    pure_xx = _pure(xx.squares / (n * (n - 1)), mean_xx, within_x, within_x, n, n)
    pure_yy = _pure(yy.squares / (m * (m - 1)), mean_yy, within_y, within_y, m, m)
    pure_xy = _pure(xy.squares / (n * m), mean_xy, between, between_y, m, n)
    second = 2 * pure_xx / (n * (n - 1)) + 2 * pure_yy / (m * (m - 1)) + 4 * pure_xy / (n * m)
    first = 4 * (within_x - between).var().item() / n + 4 * (within_y - between_y).var().item() / m
    noise = 4 * (pure_xx / (n - 1) + pure_xy / m) / n + 4 * (pure_yy / (m - 1) + pure_xy / n) / m
    variance = max(0.0, first - noise) + second
    settings = {"interval": "U-statistic", "bias": "none", "degree": degree, "dimension": x.shape[1]}
    return Estimate(
        value, name, math.sqrt(max(0.0, variance)), min(n, m), "1", method="unbiased MMD²", settings=settings
    )


def _pure(square: float, mean: float, rows: Tensor, columns: Tensor, along: int, down: int) -> float:
    """Var k̄: the variance of the kernel minus that of its row and column means without their noise.

    A row mean over `along` values has about the variance of the conditional mean plus Var k̄/along, so
    Var k̄ · (1 − 1/along − 1/down) is the total variance minus those of both kinds of means.
    """
    rest = square - mean * mean - rows.var().item() - columns.var().item()
    return max(0.0, rest / max(0.1, 1 - 1 / along - 1 / down))
