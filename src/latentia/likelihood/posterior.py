"""Exact posteriors p(z|x) on the grid that the quadrature ended on, and what they say (items 1i and 1j).

    p(z|x) ∝ p(x|z) p(z),      KL(q, p(z|x)) = log p(x) − ELBO(q)

Moments and entropies are sums over the final nodes of an image, so they carry the quadrature's accuracy.
"""

from __future__ import annotations

__all__ = ["GridPosterior", "Slice", "exact_posterior"]

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Unpack

import torch
from torch import Tensor

from latentia.errors import UnsupportedError
from latentia.estimate import Estimate
from latentia.likelihood.latent_model import LatentModel, full_precision
from latentia.likelihood.lattice import NODES, Lattice
from latentia.likelihood.quadrature import LikelihoodResult, Limits, Solved, solve
from latentia.likelihood.refinement import Tables

ROWS_AT_ONCE = 50_000  # tiles in work at a time


@dataclass(frozen=True)
class Slice:
    """The posterior of one image on its own grid.

    Attributes:
        z: nodes, (M, d).
        log_density: log p(z|x) at the nodes, in nats, (M,).
        cell: volume that belongs to a node, so that Σ exp(log_density) · cell = 1.
        level: of the lattice.
    """

    z: Tensor
    log_density: Tensor
    cell: float
    level: int


class GridPosterior:
    """Posteriors of N images.

    Attributes:
        likelihood: log p(x) of the images, with certificates.
        model: whose posteriors they are.
        lattice: of the nodes.
        mean: E[z|x], (N, d), float64.
        covariance: Cov[z|x], (N, d, d).
        entropy: −E log p(z|x) in nats, (N,).
        rate: KL(p(z|x), p(z)) in nats, (N,): what the image tells about z.
        finished: rows of the images whose posterior is there, (M,): all, but for those that ran out of time, which have
            NaN in the arrays above and no part in any estimate.
    """

    def __init__(self, solved: Solved):
        self.likelihood: LikelihoodResult = solved.result
        self.model: LatentModel = solved.model
        self.lattice: Lattice = solved.lattice
        self._tables = [
            Tables(table.level, table.function + start, table.tiles, table.values)
            for start, part in solved.parts
            for table in part.tables
            if len(table.function)  # on some levels no image ends
        ]
        self._integrate()

    def __len__(self) -> int:
        return len(self.likelihood.values)

    def __getitem__(self, image: int) -> Slice:
        """The posterior of one image."""
        image = range(len(self))[image]
        table, rows = self._where[image]
        mine = self._tables[table]
        z = self.lattice.nodes(mine.tiles[rows], mine.level)
        log_density = mine.values[rows].double().flatten() - self.likelihood.values[image]
        return Slice(z, log_density, math.exp(self.lattice.log_cell(mine.level)), mine.level)

    @cached_property
    def modes(self) -> tuple[Tensor, Tensor]:
        """Highest mode of each posterior (N, d), and how many modes have at least 1 % of its density (N,).

        A mode is a node that is higher than all its 3ᵈ − 1 neighbors.
        """
        d = self.lattice.dimension
        places, counts = [], []
        for image in range(len(self)):
            table, rows = self._where[image]
            mine = self._tables[table]
            k = self.lattice.indices(mine.tiles[rows]).reshape(-1, d)
            low = k.amin(0)
            shape = (k.amax(0) - low + 1).tolist()
            field = torch.full(shape, -torch.inf, dtype=torch.float64)
            field[tuple((k - low).T)] = mine.values[rows].double().flatten()
            pool = (torch.nn.functional.max_pool1d, torch.nn.functional.max_pool2d, torch.nn.functional.max_pool3d)
            around = pool[d - 1](field[None, None], 3, stride=1, padding=1)[0, 0]
            high = (field == around) & (field > field.max() + math.log(0.01))
            counts.append(int(high.sum()))
            top = torch.tensor(torch.unravel_index(field.argmax(), field.shape)) + low
            places.append(self.lattice.origin + self.lattice.spacing * 2.0**-mine.level * top)
        return torch.stack(places), torch.tensor(counts)

    def estimates(self) -> list[Estimate]:
        """Means over the images: log-likelihood, posterior entropy, rate, and active units (Burda et al. 2016).

        All but the first are of the images whose posterior is finished, and are not there if none is.
        """
        rows = self.finished
        if not len(rows):
            return self.likelihood.estimates()
        settings = {"stderr_over": "images", "tolerance": self.likelihood.settings["tolerance"]}
        unfinished = {"not_reached": len(self) - len(rows)} if len(rows) < len(self) else {}
        about: dict[str, Any] = {"kind": "exact", "method": "quadrature", "settings": settings | unfinished}
        spread = self.mean[rows].var(0) if len(rows) > 1 else torch.zeros(self.lattice.dimension)
        active = Estimate(
            float((spread > 0.01).sum()),
            "active_units",
            n=len(rows),
            unit="1",
            kind="exact",
            method="quadrature",
            settings={"threshold": 0.01, "variances": spread.tolist(), **unfinished},
        )
        means = [
            Estimate.mean(values[rows], name=name, **about)
            for name, values in (("posterior_entropy", self.entropy), ("posterior_rate", self.rate))
            if len(rows) > 1
        ]
        return [*self.likelihood.estimates(), *means, active]

    def arrays(self) -> dict[str, Any]:
        """What to write to an .npz file."""
        own = {"mean": self.mean, "covariance": self.covariance, "entropy": self.entropy, "rate": self.rate}
        return self.likelihood.arrays() | {f"posterior_{name}": tensor.numpy() for name, tensor in own.items()}

    def blocks(self) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """All posteriors in blocks: level, image of each tile (P,), nodes (P, 64, d), mass at the nodes (P, 64)."""
        for table in self._tables:
            cell = self.lattice.log_cell(table.level)
            for rows in torch.arange(len(table.function)).split(ROWS_AT_ONCE):
                image = table.function[rows]
                nodes = self.lattice.nodes(table.tiles[rows], table.level).view(len(rows), NODES, -1)
                log_mass = table.values[rows].double() - self.likelihood.values[image, None] + cell
                yield table.level, image, nodes, log_mass.exp()

    def _integrate(self) -> None:
        n, d = len(self), self.lattice.dimension
        double = torch.float64
        mass, first = torch.zeros(n, dtype=double), torch.zeros(n, d, dtype=double)
        second, log_p = torch.zeros(n, d, d, dtype=double), torch.zeros(n, dtype=double)
        log_prior = torch.zeros(n, dtype=double)
        with full_precision():
            for level, image, nodes, weight in self.blocks():
                log_density = weight.clamp_min(1e-300).log() - self.lattice.log_cell(level)
                prior = self.model.log_prior(nodes.to(self.model.device)).cpu()
                mass.index_add_(0, image, weight.sum(-1))
                first.index_add_(0, image, torch.einsum("pm,pmd->pd", weight, nodes))
                second.index_add_(0, image, torch.einsum("pm,pmd,pme->pde", weight, nodes, nodes))
                log_p.index_add_(0, image, (weight * log_density).sum(-1))
                log_prior.index_add_(0, image, torch.where(weight > 0, weight * prior, 0.0).sum(-1))
        self.mean = first / mass[:, None]
        outer = self.mean[:, :, None] * self.mean[:, None, :]
        self.covariance = second / mass[:, None, None] - outer
        self.entropy = -log_p / mass
        self.rate = (log_p - log_prior) / mass
        self.finished = (mass > 0).nonzero().squeeze(1)

    @cached_property
    def _where(self) -> dict[int, tuple[int, Tensor]]:
        """Table and rows of each image."""
        places: dict[int, tuple[int, Tensor]] = {}
        for number, table in enumerate(self._tables):
            order = torch.argsort(table.function, stable=True)
            images, counts = torch.unique_consecutive(table.function[order], return_counts=True)
            for image, rows in zip(images.tolist(), order.split(counts.tolist()), strict=True):
                places[image] = (number, rows)
        return places


def exact_posterior(model: Any, images: Tensor, tolerance: float = 0.01, **limits: Unpack[Limits]) -> GridPosterior:
    """p(z|x) of every image from the same pass that gives log p(x); see `exact_log_likelihood` for the arguments.

    Raises:
        UnsupportedError: as there; and for a finite latent space, whose posterior is a softmax and needs no grid.
    """
    solved = solve(model, images, tolerance, keep=True, **limits)
    if not solved.parts:
        raise UnsupportedError(
            "exact_posterior is for continuous z; on a finite set the posterior is softmax(log p(x, z))"
        )
    return GridPosterior(solved)
