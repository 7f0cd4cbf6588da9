"""Posteriors p(z|x) on the final grid of the quadrature, their moments, entropies and rates.

    p(z|x) ∝ p(x|z) p(z),      KL(q, p(z|x)) = log p(x) − ELBO(q)

Moments and entropies are sums over the final nodes of an image, so they carry the quadrature's accuracy.
"""

from __future__ import annotations

__all__ = ["GridPosterior", "exact_posterior"]

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
from latentia.likelihood.lattice import NODES
from latentia.likelihood.quadrature import LikelihoodResult, Limits, Piece, Solution, solve
from latentia.likelihood.refinement import Tables

ROWS_AT_ONCE = 4000  # pairs of an image and a tile in work at a time

PRIOR_AT_ONCE = 16_384  # points of which the prior's density is computed at a time


@dataclass(frozen=True)
class Slice:
    """The posterior of one image on its own grid.

    Attributes:
        z: nodes, (M, d).
        log_density: log p(z|x) at the nodes, in nats, (M,).
        mass: of each node, (M,); it sums to 1 within the error of the quadrature.
    """

    z: Tensor
    log_density: Tensor
    mass: Tensor


class GridPosterior:
    """Posteriors of N images.

    Attributes:
        likelihood: log p(x) of the images, with errors.
        model: whose posteriors they are.
        dimension: of the space of z: d, or d − 1 for z on the sphere in R^d.
        mean: E[z|x], (N, d), float64.
        covariance: Cov[z|x], (N, d, d).
        entropy: −E log p(z|x) in nats, (N,).
        rate: KL(p(z|x), p(z)) in nats, (N,): the information in the image about z.
        finished: rows of the images whose posterior is there, (M,): all but those that were not reached, which have NaN
            in the arrays above and no part in any estimate.
    """

    def __init__(self, solution: Solution):
        self.likelihood: LikelihoodResult = solution.result
        self.model: LatentModel = solution.model
        self.dimension = self.model.dimension
        self._tables = []
        for piece in solution.pieces:
            for table in piece.refined.tables:
                used = piece.used[table.function]
                if bool(used.any()):
                    image = piece.rows[table.function[used]]
                    self._tables.append((piece, Tables(table.level, image, table.tiles[used], table.values[used])))
        self._integrate()

    def __len__(self) -> int:
        return len(self.likelihood.values)

    def __getitem__(self, image: int) -> Slice:
        """The posterior of one image."""
        image = range(len(self))[image]
        parts = [self._nodes(piece, table, rows) for piece, table, rows in self._where(image)]
        return Slice(*(torch.cat([part[i].flatten(0, 1) for part in parts]) for i in range(3)))

    @cached_property
    def modes(self) -> tuple[Tensor, Tensor]:
        """Highest mode of each posterior (N, d), and how many modes have at least 1 % of its density (N,).

        A mode is a node that is higher than all its 3ᵈ − 1 neighbors. Parts of the prior with less than 1 % of the mass
        have none, and where two parts see the same mode it counts once.
        """
        d = self.dimension
        pool = (torch.nn.functional.max_pool1d, torch.nn.functional.max_pool2d, torch.nn.functional.max_pool3d)[d - 1]
        places, counts = [], []
        for image in range(len(self)):
            found: list[tuple[float, Tensor, float]] = []  # height, place, size of a cell there
            for piece, table, rows in self._where(image):
                z, log_density, mass = (part.flatten(0, 1) for part in self._nodes(piece, table, rows)[:3])
                if mass.sum() < 0.01:
                    continue
                k = piece.lattice.indices(table.tiles[rows]).reshape(-1, d)
                index = tuple((k - k.amin(0)).T)
                field = torch.full((k.amax(0) - k.amin(0) + 1).tolist(), -torch.inf, dtype=torch.float64)
                field[index] = log_density
                high = (
                    (log_density == pool(field[None, None], 3, stride=1, padding=1)[0, 0][index]).nonzero().squeeze(1)
                )
                step = piece.lattice.spacing * 2.0**-table.level
                u = piece.lattice.nodes(table.tiles[rows], table.level)[high]
                size = (piece.chart.to_z(u + step) - z[high]).norm(dim=-1)
                found += zip(log_density[high].tolist(), z[high], size.tolist(), strict=True)
            found.sort(key=lambda mode: -mode[0])
            kept: list[tuple[float, Tensor, float]] = []
            for height, place, size in found:
                if height < found[0][0] + math.log(0.01):
                    break
                if all((place - other).norm() > 2 * max(size, theirs) for _, other, theirs in kept):
                    kept.append((height, place, size))
            counts.append(len(kept))
            places.append(kept[0][1] if kept else torch.full((self.model.latent,), torch.nan, dtype=torch.float64))
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
        about: dict[str, Any] = {"kind": "numerical", "method": "quadrature", "settings": settings | unfinished}
        spread = self.mean[rows].var(0) if len(rows) > 1 else torch.zeros(self.model.latent)
        active = Estimate(
            float((spread > 0.01).sum()),
            "active_units",
            n=len(rows),
            unit="1",
            kind="numerical",
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
        """All posteriors in blocks: level, image of each tile (P,), nodes z (P, 64, d), mass at the nodes (P, 64)."""
        for piece, table, rows in self._blocks():
            tiles, of = _distinct(table.tiles[rows])
            z = piece.chart.to_z(piece.lattice.nodes(tiles, table.level)).view(len(tiles), NODES, -1)[of]
            yield table.level, table.function[rows], z, self._values(piece, table, rows)[1]

    def _blocks(self) -> Iterator[tuple[Piece, Tables, Tensor]]:
        for piece, table in self._tables:
            for rows in torch.arange(len(table.function)).split(ROWS_AT_ONCE):
                yield piece, table, rows

    def _values(self, piece: Piece, table: Tables, rows: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x|z) + log g(u) − log p(x) at the nodes of some tiles, and the mass of each node, (P, 64) each."""
        values = table.values[rows].double() - self.likelihood.values[table.function[rows], None]
        return values, (values + piece.lattice.log_cell(table.level)).exp()

    def _nodes(self, piece: Piece, table: Tables, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Nodes z (P, 64, d) of some tiles, log p(z|x) there, the mass of each node, and log p(z), (P, 64) each.

        The values of the table are log p(x|z) + log g(u) of one part g of the prior.
        """
        # Images share tiles: the density of a mixture of many components or of a flow is computed once for each.
        tiles, of = _distinct(table.tiles[rows])
        u = piece.lattice.nodes(tiles, table.level)
        z = piece.chart.to_z(u)
        log_prior = [self.model.log_prior(some.to(self.model.device)).cpu() for some in z.split(PRIOR_AT_ONCE)]
        prior = torch.cat(log_prior)
        change = (prior - piece.chart.log_density(u, z)).nan_to_num(-torch.inf, -torch.inf, -torch.inf)
        values, mass = self._values(piece, table, rows)
        z, prior, change = (part.view(len(tiles), NODES, -1)[of] for part in (z, prior, change))
        return z, values + change.squeeze(-1), mass, prior.squeeze(-1)

    def _integrate(self) -> None:
        n, d = len(self), self.model.latent
        double = torch.float64
        mass, first = torch.zeros(n, dtype=double), torch.zeros(n, d, dtype=double)
        second, log_p = torch.zeros(n, d, d, dtype=double), torch.zeros(n, dtype=double)
        log_prior = torch.zeros(n, dtype=double)
        with full_precision():
            for piece, table, rows in self._blocks():
                image = table.function[rows]
                nodes, log_density, weight, prior = self._nodes(piece, table, rows)
                mass.index_add_(0, image, weight.sum(-1))
                first.index_add_(0, image, torch.einsum("pm,pmd->pd", weight, nodes))
                second.index_add_(0, image, torch.einsum("pm,pmd,pme->pde", weight, nodes, nodes))
                log_p.index_add_(0, image, torch.where(weight > 0, weight * log_density, 0.0).sum(-1))
                log_prior.index_add_(0, image, torch.where(weight > 0, weight * prior, 0.0).sum(-1))
        self.mean = first / mass[:, None]
        outer = self.mean[:, :, None] * self.mean[:, None, :]
        self.covariance = second / mass[:, None, None] - outer
        self.entropy = -log_p / mass
        self.rate = (log_p - log_prior) / mass
        self.finished = ((mass > 0) & torch.isfinite(self.likelihood.errors)).nonzero().squeeze(1)

    def _where(self, image: int) -> list[tuple[Piece, Tables, Tensor]]:
        """The tables of an image, and its rows in each."""
        return [(*self._tables[number], rows) for number, rows in self._places.get(image, [])]

    @cached_property
    def _places(self) -> dict[int, list[tuple[int, Tensor]]]:
        """For each image the numbers of its tables and its rows there."""
        places: dict[int, list[tuple[int, Tensor]]] = {}
        for number, (_, table) in enumerate(self._tables):
            order = torch.argsort(table.function, stable=True)
            images, counts = torch.unique_consecutive(table.function[order], return_counts=True)
            for image, rows in zip(images.tolist(), order.split(counts.tolist()), strict=True):
                places.setdefault(image, []).append((number, rows))
        return places


def _distinct(tiles: Tensor) -> tuple[Tensor, Tensor]:
    """The tiles among (P, d) that differ from the one before, (T, d), and for each of the P its place there."""
    return torch.unique_consecutive(tiles, dim=0, return_inverse=True)


def exact_posterior(model: Any, images: Tensor, tolerance: float = 0.01, **limits: Unpack[Limits]) -> GridPosterior:
    """p(z|x) of every image from the same pass that gives log p(x); see `exact_log_likelihood` for the arguments.

    Raises:
        UnsupportedError: as there; and for a finite latent space, whose posterior is a softmax and needs no grid.
    """
    solution = solve(model, images, tolerance, keep=True, **limits)
    if not solution.pieces:
        raise UnsupportedError(
            "exact_posterior is for continuous z; on a finite set the posterior is softmax(log p(x, z))"
        )
    return GridPosterior(solution)
