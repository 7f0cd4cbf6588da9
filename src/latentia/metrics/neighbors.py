r"""Precision, recall, density and coverage, from balls of nearest neighbors.

Each sample has a ball whose radius is the distance to its k-th nearest neighbor of the same kind.

* *precision*: the share of fake samples in at least one ball of a real sample (fidelity),
* *recall*: the share of real samples in at least one ball of a fake sample (variety)  (Kynkäänniemi et al. 2019, eq.
1–2),
* *density*: the mean number of balls of real samples that a fake sample is in, divided by k,
* *coverage*: the share of real samples whose ball contains a fake sample              (Naeem et al. 2020, eq. 3–4).

Collapsed samples have high precision and low recall. For equal distributions and equal n, density is 1 in expectation
and coverage about 1 − 2⁻ᵏ. Precision and recall depend on k and n: a larger n makes smaller balls, so scores compare at
equal n only. The ball of an outlier can be huge (density and coverage suffer less from that). None of the four measures
how far a sample lies outside the balls, or the shares of modes that are both reached.

*Ties.* A sample exactly on the boundary of a ball is outside, as in the program of the authors of density and coverage.
Binary pixels and lattices make exact ties frequent. Distances come from float32 products first. Where their rounding
could decide a comparison, the squared distance is computed in float64 from the differences of the given features, and
two squared distances that differ by less than the rounding of those features count as equal (`tie_width`).

*Standard error.* Each set is split into 16 groups. 15 balanced ways of halving them (rows of a Hadamard matrix, as in
balanced repeated replication, McCarthy 1969) give pairs of scores, one for each half; first the real samples are
halved, then the fake ones. A quarter of the mean squared difference of the pairs is the variance due to that set. The
balls of a half end at the k-th neighbor within the half, so the randomness of the balls counts, which the binomial
error of a share ignores. (A jackknife that leaves out few samples overestimated the error by half, a known problem for
functions of neighbors.) The standard error refers to the expectation at this n and k. Only pairs near a boundary can
change, so the halves add little cost to the distances.
"""

from __future__ import annotations

__all__ = ["Neighbors", "neighbor_scores"]

from typing import ClassVar, NamedTuple

import scipy  # loads its slow submodules on first use
import torch
from pydantic import Field
from torch import Tensor

from latentia.errors import ConfigurationError
from latentia.estimate import Estimate
from latentia.metrics.distances import BLOCK, centered, exact_squares, squared_blocks, tie_width
from latentia.metrics.metric import COVERAGE, FIDELITY, Metric, MetricInputs, checked_pair

_NAMES = ("precision", "recall", "density", "coverage")
_GROUPS = 16
_PAIRS_AT_ONCE = 100_000
_SPARE = 4  # extra neighbors looked up, because float32 can confuse their order


class Neighbors(Metric):
    """Precision, recall, density and coverage, by balls of the k nearest neighbors."""

    k: int = Field(default=5, ge=1, description="the ball of an image reaches to its k-th neighbor")
    higher_is_better: ClassVar[dict[str, int]] = {"precision": 1, "recall": 1, "density": 1, "coverage": 1}
    measures: ClassVar[dict[str, str]] = {
        "precision": FIDELITY,
        "recall": COVERAGE,
        "density": FIDELITY,
        "coverage": COVERAGE,
    }
    aliases: ClassVar[tuple[str, ...]] = ("precision", "recall", "density", "coverage")

    def __call__(self, inputs: MetricInputs) -> list[Estimate]:
        return list(neighbor_scores(inputs.real, inputs.fake, k=self.k))


class NeighborScores(NamedTuple):
    """The four estimates."""

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate


def neighbor_scores(
    real: Tensor, fake: Tensor, *, k: int = 5, block: int = BLOCK, interval: bool = True
) -> NeighborScores:
    """Precision, recall, density and coverage, each with its standard error; see the module.

    Args:
        real: features (n, D); n > k.
        fake: (m, D); m > k.
        k: the neighbor whose distance is the radius of a ball.
        block: rows of the distance matrix in memory at a time; it changes rounding alone.
        interval: compute standard errors. Row i belongs to group i mod 16, so shuffle sorted samples. They need more
            than 4k + 4 samples of both kinds and are None otherwise.

    Raises:
        DataError: for too few samples, features that are not finite, of different dimensions, or constant.
        ConfigurationError: for k below 1.
    """
    if k < 1:
        raise ConfigurationError([("k", f"a ball ends at the k-th neighbor, and k is {k}; give at least 1")])
    x, y = checked_pair(real, fake, k + 1, f"ball of {k} neighbors (precision, recall, density, coverage)")
    a, b = centered(x, y)
    scale = torch.cat([a, b]).square().sum(1).max()
    a, b = (a / scale.sqrt()).float(), (b / scale.sqrt()).float()
    n, m = len(x), len(y)
    halves = _halves(x.device) if interval and min(n, m) > _known(k) else torch.ones(_GROUPS, 1, device=x.device)
    width = tie_width(real, fake)
    real_radii, fake_radii = (_squared_radii(z, c, k, halves, block) for z, c in ((x, a), (y, b)))
    real_radii, fake_radii = real_radii - width(real_radii), fake_radii - width(fake_radii)
    in_real, in_fake = _Balls(x, y, real_radii, halves, scale), _Balls(y, x, fake_radii, halves, scale)
    for rows, squares in squared_blocks(a, b, block):
        i, j = (squares < in_real.reach[rows, None]).nonzero(as_tuple=True)
        in_real.add(i + rows.start, j, squares[i, j])
        i, j = (squares < in_fake.reach).nonzero(as_tuple=True)
        in_fake.add(j, i + rows.start, squares[i, j])
    by_real, by_fake = in_real.when_owners_halve(k), in_real.when_points_halve(k)
    recall_by_fake, recall_by_real = in_fake.when_owners_halve(k)[0], in_fake.when_points_halve(k)[0]
    # rows: precision, recall, density, coverage; columns: all samples, then the first halves, then the second halves
    by_real = torch.stack([by_real[0], recall_by_real, by_real[1], by_real[2]])
    by_fake = torch.stack([by_fake[0], recall_by_fake, by_fake[1], by_fake[2]])
    variances = _halved_variance(by_real) + _halved_variance(by_fake)
    settings = {"k": k, "interval": "balanced halves", "bias": "depends on n and k"}
    return NeighborScores(
        *(
            Estimate(value, name, error, count, "1", method="nearest neighbors", settings=settings)
            for name, value, error, count in zip(
                _NAMES,
                by_real[:, 0].tolist(),
                variances.sqrt().tolist() if halves.shape[1] > 1 else [None] * 4,
                (m, n, m, n),
                strict=True,
            )
        )
    )


def _halves(device: torch.device) -> Tensor:
    """Which groups count: all, then one half for each of 15 ways, then the other halves, (16, 31) of 0 and 1."""
    signs = torch.from_numpy(scipy.linalg.hadamard(_GROUPS)[:, 1:]).to(device, torch.float32)
    return torch.cat([torch.ones(_GROUPS, 1, device=device), (1 + signs) / 2, (1 - signs) / 2], dim=1)


def _known(k: int) -> int:
    """How many neighbors of each sample are looked up: k of them lie in a half, except for one sample in a thousand."""
    return 4 * k + 4


def _rounding(x: Tensor) -> float:
    """A bound on the rounding of a squared distance between two float32 points whose norms are at most 1."""
    return 4 * (x.shape[1] + 2) * torch.finfo(torch.float32).eps


def _squared_radii(x: Tensor, a: Tensor, k: int, halves: Tensor, block: int) -> Tensor:
    """Squared distance to the k-th nearest other sample that counts, (n, C); 0 for samples that do not.

    `a` is x, centered and scaled, in float32.
    """
    n, columns = len(x), halves.shape[1]
    known = k if columns == 1 else _known(k)
    inside = halves.bool()
    table = torch.empty(n, columns, dtype=x.dtype, device=x.device)
    for rows, squares in squared_blocks(a, a, block):
        index = torch.arange(rows.start, rows.stop, device=x.device)
        squares[index - rows.start, index] = torch.inf
        others = squares.topk(min(n - 1, known + _SPARE), dim=1, largest=False).indices
        exact = exact_squares(x, x, index.repeat_interleave(others.shape[1]), others.flatten()).view(others.shape)
        distances, order = exact.sort(dim=1)
        distances, others = distances[:, :known], others.gather(1, order)[:, :known]
        count = inside[others % _GROUPS].cumsum(1, dtype=torch.int16)  # how many of the nearest count: (b, known, C)
        place = (count < k).sum(1).clamp(max=known - 1)
        table[rows] = distances.gather(1, place) * inside[index % _GROUPS]
    return table


class _Balls:
    """Which points lie in which balls, for all samples and for each half.

    Attributes:
        reach: scaled squared distance beyond which no point can be in a ball, float32 (owners,).
        around: the number of balls that each point is in, (points, C).
        holds: the number of points in each ball, (owners, C).
        of_group: the number of points of each group in each ball, with all samples counted, (owners, 16).
    """

    def __init__(self, owners: Tensor, points: Tensor, radii: Tensor, halves: Tensor, scale: Tensor):
        self.owners, self.points, self.halves, self.scale = owners, points, halves, scale
        self.radii = radii
        rounding = _rounding(owners)
        self.rounding = rounding * scale
        self.reach = (radii.max(1).values / scale + rounding).float()
        counts = {"dtype": torch.int32, "device": halves.device}
        self.around = torch.zeros(len(points), halves.shape[1], **counts)
        self.holds = torch.zeros(len(owners), halves.shape[1], **counts)
        self.of_group = torch.zeros(len(owners) * _GROUPS, **counts)

    def add(self, owners: Tensor, points: Tensor, squares: Tensor) -> None:
        """Count pairs (P,) of an owner and a point at about this scaled squared distance, in float32.

        It is recomputed where it is too near a radius to decide the comparison.
        """
        pieces = (each.split(_PAIRS_AT_ONCE) for each in (owners, points, squares.double() * self.scale))
        for owner, point, square in zip(*pieces, strict=True):
            radii = self.radii[owner]
            unsure = ((square[:, None] - radii).abs() < self.rounding).any(1).nonzero().squeeze(1)
            square[unsure] = exact_squares(self.owners, self.points, owner[unsure], point[unsure])
            inside = (square[:, None] < radii).int()
            self.around.index_add_(0, point, inside)
            self.holds.index_add_(0, owner, inside)
            self.of_group.index_add_(0, owner * _GROUPS + point % _GROUPS, inside[:, 0].contiguous())

    def when_owners_halve(self, k: int) -> Tensor:
        """Share of points in a ball, density, share of balls that hold a point, with the balls of each half: (3, C)."""
        within, held = (self.around > 0).double().mean(0), (self.holds > 0).double()
        owners = self._members(len(self.holds)).sum(0)
        density = self.around.double().mean(0) / k
        return torch.stack([within, density, held.sum(0) / owners])

    def when_points_halve(self, k: int) -> Tensor:
        """The same with all balls and the points of each half, (3, C)."""
        members = self._members(len(self.around))
        weights = members / members.sum(0)
        within = (self.around[:, 0] > 0).double() @ weights
        density = self.around[:, 0].double() @ weights / k
        held = self.of_group.view(-1, _GROUPS).double() @ self.halves.double() > 0
        return torch.stack([within, density, held.double().mean(0)])

    def _members(self, count: int) -> Tensor:
        """1 where a sample counts, (count, C)."""
        return self.halves.double()[torch.arange(count, device=self.halves.device) % _GROUPS]


def _halved_variance(scores: Tensor) -> Tensor:
    """Variance of the scores (S, 1 + 2W) of all samples, from W pairs of halves."""
    first, second = scores[:, 1:].chunk(2, dim=1)
    return (first - second).square().mean(1) / 4 if first.shape[1] else scores.new_zeros(len(scores))
