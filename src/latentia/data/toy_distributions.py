"""Distributions with known density in one and two dimensions, for training whose right answer is known.

Each is a frozen setting that makes an exact `torch.distributions` distribution: log_prob in nats, sample, and the
centers and scale of its modes where there are any, so that lost modes can be counted. Curves (spiral, moons) are
mixtures of many narrow Gaussians along them, which makes their density exact too.
"""

from __future__ import annotations

__all__ = ["Checkerboard", "Dirac", "Grid", "Mixture1D", "Moons", "Ring", "Spiral", "ToyData", "ToyDistribution"]

import hashlib
import math
from abc import abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    Normal,
    Uniform,
    constraints,
)
from torch.types import _size

from latentia.configuration import Component
from latentia.data.batches import Batch, Batches, SampledBatches, seed_of
from latentia.data.examples import Column, Schema
from latentia.data.split import Part, Split

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
FIXED = 10_000  # points of a fixed sample


@dataclass(frozen=True, eq=False)
class ToyData:
    """A distribution to sample from without end: no sample comes twice, so all are held out from those before.

    It offers what `Splits` offers: each part is a fixed sample of 10 000 points, a function of the setting and the name
    of the part, and training batches are new points at every draw.

    Attributes:
        distribution: with log_prob in nats, event shape (d,).
        content_hash: of the setting that made the distribution.
        classes: none; points have no labels.
        columns: none.
        standardize: whether models standardize the points.
    """

    distribution: Distribution
    content_hash: str
    classes: tuple[str, ...] = field(default=())
    columns: tuple[Column, ...] = field(default=())
    standardize: bool = True

    @cached_property
    def train(self) -> Split:
        """A fixed sample, for statistics; training itself takes new points."""
        return self._fixed("train")

    @cached_property
    def validation(self) -> Split:
        """A fixed sample."""
        return self._fixed("validation")

    @cached_property
    def test(self) -> Split:
        """A fixed sample."""
        return self._fixed("test")

    def _fixed(self, part: Part) -> Split:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of("toy", self.content_hash, part))
            return Split(self.sample(FIXED))

    def prepare(self, x: Tensor) -> Tensor:
        """Points as a training step sees them: as they are."""
        return x

    @property
    def shape(self) -> tuple[int, ...]:
        """(d,)."""
        return tuple(self.distribution.event_shape)

    @property
    def schema(self) -> Schema:
        """What a model must know of these data in order to be built."""
        return Schema(self.shape, standardize=self.standardize)

    def sample(self, n: int) -> Tensor:
        """n points, (n, d), float32, by torch's global generator."""
        return self.distribution.sample(torch.Size([n]))

    def examples(self, part: Part, n: int | None = None, device: torch.device | str = "cpu") -> Batch:
        """n new points, whatever the part, by torch's global generator; without n, the fixed sample of the part."""
        if n is None:
            return Batch({"train": self.train, "validation": self.validation, "test": self.test}[part].x.to(device))
        return Batch(self.sample(n).to(device))

    def batches(
        self,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        steps_per_epoch: int = 1000,
    ) -> Batches:
        """New points at every draw, by torch's global generator, which the loop seeds by step and rank.

        Args:
            batch_size: points of a batch over all processes.
            seed: not used here.
            rank: not used here.
            world: number of processes.
            device: where the points are wanted.
            steps_per_epoch: batches that are counted as an epoch.
        """
        return SampledBatches(lambda n: self.sample(n).to(device), batch_size, world, steps_per_epoch)


class ToyDistribution(Component, family=True):
    """A distribution over points of R¹ or R² whose density is known."""

    @abstractmethod
    def distribution(self) -> Distribution:
        """The distribution: float32, batch shape (), event shape (d,)."""

    @property
    def modes(self) -> Tensor | None:
        """Centers of the modes, (K, d), or None where the distribution has none to count."""
        return None

    @property
    def scale(self) -> Tensor | None:
        """Standard deviation of each mode, (K,), or None."""
        return None

    @property
    def suggested_likelihood(self) -> str:
        """The name of the likelihood that suits points, where a recipe names none."""
        return "gaussian-learned"

    def load(self) -> ToyData:
        """The distribution as data to train on."""
        return ToyData(self.distribution(), hashlib.sha256(self.to_yaml().encode()).hexdigest())


class Ring(ToyDistribution, name="ring"):
    """Equal Gaussians on a circle; the default is the ring of PacGAN (Lin et al. 2018), hard for its narrow modes.

    Attributes:
        count: number of modes.
        radius: of the circle.
        sigma: standard deviation of a mode.
    """

    count: Count = 8
    radius: Positive = 1.0
    sigma: Positive = 0.01

    @property
    def modes(self) -> Tensor:
        """(count, 2), the first at angle 0."""
        angle = torch.arange(self.count, dtype=torch.float64) * (2 * math.pi / self.count)
        return (self.radius * torch.stack([angle.cos(), angle.sin()], -1)).float()

    @property
    def scale(self) -> Tensor:
        """(count,)."""
        return torch.full((self.count,), self.sigma)

    def distribution(self) -> Distribution:
        """The mixture."""
        return _gaussians(self.modes, self.scale)


class Grid(ToyDistribution, name="grid"):
    """Equal Gaussians on a square grid; the default has 25 at {−4, −2, 0, 2, 4}² (Lin et al. 2018).

    Attributes:
        side: modes along a side.
        spacing: between neighbors.
        sigma: standard deviation of a mode.
    """

    side: Count = 5
    spacing: Positive = 2.0
    sigma: Positive = 0.05

    @property
    def modes(self) -> Tensor:
        """(side², 2), centered on the origin."""
        line = (torch.arange(self.side) - (self.side - 1) / 2) * self.spacing
        return torch.cartesian_prod(line, line)

    @property
    def scale(self) -> Tensor:
        """(side²,)."""
        return torch.full((self.side**2,), self.sigma)

    def distribution(self) -> Distribution:
        """The mixture."""
        return _gaussians(self.modes, self.scale)


class Spiral(ToyDistribution, name="spiral"):
    """Arms r = radius · θ/θ_max, each a chain of Gaussians at equal steps of arc length.

    Attributes:
        arms: number of arms, evenly turned.
        turns: turns of an arm.
        radius: at an arm's end.
        sigma: thickness of an arm.
        links: Gaussians of an arm.
    """

    arms: Count = 2
    turns: Positive = 1.5
    radius: Positive = 2.0
    sigma: Positive = 0.05
    links: Count = 256

    def distribution(self) -> Distribution:
        """The mixture of arms · links Gaussians."""
        end = 2 * math.pi * self.turns
        theta = torch.linspace(0, end, 20 * self.links + 1, dtype=torch.float64)
        length = theta / 2 * (1 + theta**2).sqrt() + torch.asinh(theta) / 2  # of the arc of r = θ from 0 to θ
        wanted = (torch.arange(self.links, dtype=torch.float64) + 0.5) / self.links * length[-1]
        right = torch.searchsorted(length, wanted)
        weight = (wanted - length[right - 1]) / (length[right] - length[right - 1])
        theta = torch.lerp(theta[right - 1], theta[right], weight)
        turned = theta + torch.arange(self.arms, dtype=torch.float64).unsqueeze(1) * (2 * math.pi / self.arms)
        points = self.radius / end * theta.unsqueeze(-1) * torch.stack([turned.cos(), turned.sin()], -1)
        centers = points.reshape(-1, 2).float()
        return _gaussians(centers, torch.full((len(centers),), self.sigma))


class Moons(ToyDistribution, name="moons"):
    """Two interleaved half circles of radius 1, each a chain of Gaussians; the shape of scikit-learn's `make_moons`.

    Attributes:
        sigma: thickness of a moon.
        links: Gaussians of a moon.
    """

    sigma: Positive = 0.1
    links: Count = 128

    def distribution(self) -> Distribution:
        """The mixture of 2 · links Gaussians."""
        angle = torch.linspace(0, math.pi, self.links)
        upper = torch.stack([angle.cos(), angle.sin()], -1)
        lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], -1)
        centers = torch.cat([upper, lower])
        return _gaussians(centers, torch.full((len(centers),), self.sigma))


class Checkerboard(ToyDistribution, name="checkerboard"):
    """Uniform on the dark squares of a board around the origin; the density is zero outside them.

    Attributes:
        squares: along a side, at least 2.
        side: length of a square.
    """

    squares: Annotated[int, Field(ge=2)] = 4
    side: Positive = 1.0

    def distribution(self) -> Distribution:
        """The mixture of uniform squares; log_prob is −inf on light squares and off the board."""
        row, column = torch.meshgrid(torch.arange(self.squares), torch.arange(self.squares), indexing="ij")
        dark = (row + column) % 2 == 0
        corners = (torch.stack([row[dark], column[dark]], -1) - self.squares / 2) * self.side
        # Unchecked, as torch would refuse points off the board, where −inf is the answer.
        uniform = Independent(Uniform(corners, corners + self.side, validate_args=False), 1, validate_args=False)
        return MixtureSameFamily(Categorical(torch.ones(len(corners))), uniform, validate_args=False)


class Mixture1D(ToyDistribution, name="mixture1d"):
    """Gaussians on the line.

    Attributes:
        means: of the Gaussians.
        sigmas: their standard deviations, one each.
        weights: their weights, which are scaled to sum to one.
    """

    means: tuple[float, ...] = Field((-2.0, 0.0, 2.0), min_length=1)
    sigmas: tuple[Positive, ...] = (0.3, 0.3, 0.3)
    weights: tuple[Positive, ...] = (1.0, 1.0, 1.0)

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if not len(self.means) == len(self.sigmas) == len(self.weights):
            counts = f"{len(self.means)} means, {len(self.sigmas)} sigmas and {len(self.weights)} weights"
            raise ValueError(f"{counts}; give the same number of each")
        return self

    @property
    def modes(self) -> Tensor:
        """(K, 1)."""
        return torch.tensor(self.means).unsqueeze(-1)

    @property
    def scale(self) -> Tensor:
        """(K,)."""
        return torch.tensor(self.sigmas)

    def distribution(self) -> Distribution:
        """The mixture, event shape (1,)."""
        return _gaussians(self.modes, self.scale, torch.tensor(self.weights))


class Dirac(ToyDistribution, name="dirac"):
    """All mass at one point: the data of the Dirac-GAN (Mescheder, Geiger and Nowozin 2018).

    Attributes:
        point: where; its length is the dimension.
    """

    point: tuple[float, ...] = Field((0.0,), min_length=1)

    @property
    def modes(self) -> Tensor:
        """(1, d)."""
        return torch.tensor(self.point).unsqueeze(0)

    @property
    def scale(self) -> Tensor:
        """(1,), zero."""
        return torch.zeros(1)

    def distribution(self) -> Distribution:
        """The point mass."""
        return PointMass(torch.tensor(self.point))


class PointMass(Distribution):
    """All mass at one point. `log_prob` is the log of the mass there: 0 at the point and −inf elsewhere.

    It has no density against length or area, and its log_prob must not be compared with one that has.

    Args:
        point: (d,).
    """

    def __init__(self, point: Tensor, validate_args: bool | None = None):
        self.point = point
        super().__init__(torch.Size(), point.shape, validate_args=validate_args)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """The point is a vector of finite numbers."""
        return {"point": constraints.real_vector}

    @property
    def support(self) -> constraints.Constraint:
        """Any vector may be scored."""
        return constraints.real_vector

    @property
    def mean(self) -> Tensor:
        """The point, (d,)."""
        return self.point

    @property
    def variance(self) -> Tensor:
        """Zeros, (d,)."""
        return torch.zeros_like(self.point)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Copies of the point, (*sample_shape, d)."""
        return self.point.expand(*sample_shape, -1).clone()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass at `value`, (..., d) to (...)."""
        there = (value == self.point).all(-1)
        return torch.where(there, 0.0, -torch.inf).to(value.dtype)


def _gaussians(centers: Tensor, sigma: Tensor, weights: Tensor | None = None) -> Distribution:
    """A mixture of round Gaussians: centers (K, d), sigma (K,), weights (K,) or equal."""
    spread = sigma.unsqueeze(-1).expand_as(centers)
    weights = torch.ones(len(centers)) if weights is None else weights
    return _Gaussians(Categorical(weights), Independent(Normal(centers, spread), 1))


class _Gaussians(MixtureSameFamily):
    """Samples each point from its own Gaussian alone; torch samples from all K and keeps one, K times the work."""

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        with torch.no_grad():
            which = self.mixture_distribution.sample(torch.Size(sample_shape))
            centers, spread = self.component_distribution.mean, self.component_distribution.stddev
            return centers[which] + spread[which] * torch.randn(*which.shape, centers.shape[-1])
