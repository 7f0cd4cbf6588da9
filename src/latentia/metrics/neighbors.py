r"""Precision, recall, density and coverage: what lies within whose nearest neighbors' reach.

Around each sample lies a ball that ends at its k-th nearest neighbor of its own kind.

* *precision*: the share of fake samples in some ball of a real one (fidelity),
* *recall*: the share of real samples in some ball of a fake one (variety)        (Kynkäänniemi et al. 2019, eq. 1–2),
* *density*: how many balls of real samples a fake one is in, in the mean, over k,
* *coverage*: the share of real samples whose ball has a fake one in it           (Naeem et al. 2020, eq. 3–4).

Collapsed samples have high precision and low recall. For equal distributions and equal n, density is 1 in expectation and
coverage about 1 − 2⁻ᵏ. Precision and recall rest on k and n: a larger n makes smaller balls, so figures compare at
equal n alone, and an outlier's ball can be huge (density and coverage suffer less from that). None of them sees how
far away a sample outside the balls is, nor the shares of modes that are both reached.

A sample on the very edge of a ball is outside, as in the program of the authors of density and coverage.

*The interval.* Each set is dealt into 16 groups; 15 balanced ways of halving them (the rows of a Hadamard matrix, as in
balanced repeated replication, McCarthy 1969) give pairs of scores of one half and of the other, real samples being
halved first and fake ones after; a quarter of the mean squared difference of a pair is the variance that this set
brings. Balls of a half end at *its* k-th neighbor, so the randomness of the balls counts, which the binomial error of
a share leaves out. (A jackknife that leaves out few samples at a time came out half as large again as the true error,
as it does for functions of neighbors.) The interval is about the expectation at this n and k. Only pairs near the
edge of a ball can change sides, so all the halves together cost little beside the distances.

Distances are first found in float32; wherever rounding could decide on which side of an edge a sample lies, they are
computed anew in float64 from differences.
"""

from __future__ import annotations

__all__ = ["NeighborScores", "neighbor_scores"]

from typing import NamedTuple

import scipy  # its parts are slow to import; it does that when they are first used
import torch
from torch import Tensor

from latentia.errors import ConfigurationError
from latentia.estimate import Estimate
from latentia.metrics.blocks import BLOCK, centered, exact_squares, squared_blocks
from latentia.metrics.checks import feature_pair

NAMES = ("precision", "recall", "density", "coverage")
GROUPS = 16
PAIRS_AT_ONCE = 100_000
SPARE = 4  # neighbors looked up beyond those needed, as float32 may mistake their order


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
        k: which neighbor a ball ends at.
        block: rows of the distances' matrix in memory at a time; it changes rounding alone.
        interval: work out standard errors; row i is in group i mod 16, so shuffle what is sorted. They need more than
            4k + 4 samples of both kinds, and are None where there are fewer.

    Raises:
        DataError: for too few samples, features that are not finite, of different dimensions, or constant.
        ConfigurationError: for k below 1.
    """
    if k < 1:
        raise ConfigurationError([("k", f"a ball ends at the k-th neighbor, and k is {k}; give at least 1")])
    x, y = centered(*feature_pair(real, fake, k + 1, f"ball of {k} neighbors (precision, recall, density, coverage)"))
    longest = torch.cat([x, y]).square().sum(1).max().sqrt()
    x, y = x / longest, y / longest
    n, m = len(x), len(y)
    halves = _halves(x.device) if interval and min(n, m) > _known(k) else torch.ones(GROUPS, 1, device=x.device)
    real_radii, fake_radii = _squared_radii(x, k, halves, block), _squared_radii(y, k, halves, block)
    in_real, in_fake = _Balls(x, y, real_radii, halves), _Balls(y, x, fake_radii, halves)
    for rows, squares in squared_blocks(x.float(), y.float(), block):
        i, j = (squares < in_real.reach[rows, None]).nonzero(as_tuple=True)
        in_real.add(i + rows.start, j, squares[i, j])
        i, j = (squares < in_fake.reach).nonzero(as_tuple=True)
        in_fake.add(j, i + rows.start, squares[i, j])
    by_real, by_fake = in_real.when_owners_halve(k), in_real.when_points_halve(k)
    recall_by_fake, recall_by_real = in_fake.when_owners_halve(k)[0], in_fake.when_points_halve(k)[0]
    # rows: precision, recall, density, coverage; columns: all samples, one half for each way, the other half
    by_real = torch.stack([by_real[0], recall_by_real, by_real[1], by_real[2]])
    by_fake = torch.stack([by_fake[0], recall_by_fake, by_fake[1], by_fake[2]])
    variances = _halved_variance(by_real) + _halved_variance(by_fake)
    settings = {"k": k, "interval": "balanced halves", "bias": "depends on n and k"}
    return NeighborScores(
        *(
            Estimate(value, name, error, count, "1", method="nearest neighbors", settings=settings)
            for name, value, error, count in zip(
                NAMES,
                by_real[:, 0].tolist(),
                variances.sqrt().tolist() if halves.shape[1] > 1 else [None] * 4,
                (m, n, m, n),
                strict=True,
            )
        )
    )


def _halves(device: torch.device) -> Tensor:
    """Which groups are in: all, then one half for each of 15 ways, then the others, (16, 31) of 0 and 1."""
    signs = torch.from_numpy(scipy.linalg.hadamard(GROUPS)[:, 1:]).to(device, torch.float32)
    return torch.cat([torch.ones(GROUPS, 1, device=device), (1 + signs) / 2, (1 - signs) / 2], dim=1)


def _known(k: int) -> int:
    """How many neighbors of each sample are looked up: k of them lie in a half, but for one sample in a thousand."""
    return 4 * k + 4


def _rounding(x: Tensor) -> float:
    """A bound on the rounding of a float32 squared distance between two of these, whose norms are at most 1."""
    return 4 * (x.shape[1] + 2) * torch.finfo(torch.float32).eps


def _squared_radii(x: Tensor, k: int, halves: Tensor, block: int) -> Tensor:
    """Squared distance to the k-th nearest other sample among those that are in, (n, C); 0 for samples not in."""
    n, columns = len(x), halves.shape[1]
    known = k if columns == 1 else _known(k)
    inside = halves.bool()
    table = torch.empty(n, columns, dtype=x.dtype, device=x.device)
    for rows, squares in squared_blocks(x.float(), x.float(), block):
        index = torch.arange(rows.start, rows.stop, device=x.device)
        squares[index - rows.start, index] = torch.inf
        others = squares.topk(min(n - 1, known + SPARE), dim=1, largest=False).indices
        exact = exact_squares(x, x, index.repeat_interleave(others.shape[1]), others.flatten()).view(others.shape)
        distances, order = exact.sort(dim=1)
        distances, others = distances[:, :known], others.gather(1, order)[:, :known]
        count = inside[others % GROUPS].cumsum(1, dtype=torch.int16)  # of the nearest, how many are in: (b, known, C)
        place = (count < k).sum(1).clamp(max=known - 1)
        table[rows] = distances.gather(1, place) * inside[index % GROUPS]
    return table


class _Balls:
    """Who lies in whose ball, for all samples and for each half.

    Attributes:
        reach: squared distance beyond which no point can be in a ball, float32 (owners,).
        around: for each point, how many balls it is in, (points, C).
        holds: for each ball, how many points it holds, (owners, C).
        of_group: for each ball with all in, how many points of each group it holds, (owners, 16).
    """

    def __init__(self, owners: Tensor, points: Tensor, radii: Tensor, halves: Tensor):
        self.owners, self.points, self.radii, self.halves = owners, points, radii, halves
        self.rounding = _rounding(owners)
        self.reach = (radii.max(1).values + self.rounding).float()
        counts = {"dtype": torch.int32, "device": halves.device}
        self.around = torch.zeros(len(points), halves.shape[1], **counts)
        self.holds = torch.zeros(len(owners), halves.shape[1], **counts)
        self.of_group = torch.zeros(len(owners) * GROUPS, **counts)

    def add(self, owners: Tensor, points: Tensor, squares: Tensor) -> None:
        """Count pairs (P,) of an owner and a point at about this squared distance, in float32.

        Where that is too near a radius to tell the sides apart, it is computed anew.
        """
        pieces = (each.split(PAIRS_AT_ONCE) for each in (owners, points, squares.double()))
        for owner, point, square in zip(*pieces, strict=True):
            radii = self.radii[owner]
            unsure = ((square[:, None] - radii).abs() < self.rounding).any(1).nonzero().squeeze(1)
            square[unsure] = exact_squares(self.owners, self.points, owner[unsure], point[unsure])
            inside = (square[:, None] < radii).int()
            self.around.index_add_(0, point, inside)
            self.holds.index_add_(0, owner, inside)
            self.of_group.index_add_(0, owner * GROUPS + point % GROUPS, inside[:, 0].contiguous())

    def when_owners_halve(self, k: int) -> Tensor:
        """Share of points in a ball, density, share of balls that hold a point, with the balls of a half: (3, C)."""
        within, held = (self.around > 0).double().mean(0), (self.holds > 0).double()
        owners = self._members(len(self.holds)).sum(0)
        density = self.around.double().mean(0) / k
        return torch.stack([within, density, held.sum(0) / owners])

    def when_points_halve(self, k: int) -> Tensor:
        """The same when the balls stay and the points are halved, (3, C)."""
        members = self._members(len(self.around))
        weights = members / members.sum(0)
        within = (self.around[:, 0] > 0).double() @ weights
        density = self.around[:, 0].double() @ weights / k
        held = self.of_group.view(-1, GROUPS).double() @ self.halves.double() > 0
        return torch.stack([within, density, held.double().mean(0)])

    def _members(self, count: int) -> Tensor:
        """1 where a sample is in, (count, C)."""
        return self.halves.double()[torch.arange(count, device=self.halves.device) % GROUPS]


def _halved_variance(scores: Tensor) -> Tensor:
    """Variance of scores (S, 1 + 2W) of all samples, from W pairs of halves: a quarter of the mean squared gap."""
    first, second = scores[:, 1:].chunk(2, dim=1)
    return (first - second).square().mean(1) / 4 if first.shape[1] else scores.new_zeros(len(scores))
