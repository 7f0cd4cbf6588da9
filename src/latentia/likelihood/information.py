r"""Mutual information of images and codes, and the aggregate posterior, from exact posteriors p(z|x).

    mean KL(p(z|x), p(z)) = I(x; z) + KL(p̄(z), p(z)),   p̄(z) = mean over N images of p(z|x)   (Hoffman and Johnson 2016)

With aₖ(z) = log p(xₖ|z) − log p(xₖ), which the decoder gives at any z for every image,

    log p(z|xₙ) − log p̄(z) = log N − log Σₖ exp(aₖ(z) − aₙ(z)) ≤ log N,

so I, its mean over images and their posteriors, is at most log N, and 0 for one image. The mean over a posterior is the
sum over the nodes of its grid where that is affordable. Otherwise it is an average over draws of (xₙ, z ~ p(z|xₙ)) from
the grids, with aₙ(z) as control variate: its mean is the rate, which the grids give for every image.
"""

from __future__ import annotations

__all__ = ["aggregate_log_ratio", "mutual_information"]

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from latentia.estimate import Estimate
from latentia.likelihood.posterior import GridPosterior
from latentia.objectives.score_table import scorer_for

PRODUCTS = 2e8  # scores log p(xₖ|z) to compute at most
DECODING = 1000  # what it costs to decode one z, in such scores
DRAWS = (2000, 20_000)
TABLE = 20_000_000  # numbers held at a time
NEGLIGIBLE = 1e-10  # of an image's mass


def mutual_information(
    posterior: GridPosterior, images: Tensor, *, seed: int = 0, progress: Callable[[int, int, str], None] | None = None
) -> list[Estimate]:
    """I(x; z) over these images under equal weights, and KL of their aggregate posterior to the prior, in nats.

    Args:
        posterior: of the images; those that were not reached are left out.
        images: (N, *event_shape).
        seed: of the draws, for many images.
        progress: is called with the number of nodes done, of all nodes, and what is being done.

    Returns:
        `mutual_information` and `aggregate_posterior_kl`, which sum to the mean rate: by quadrature, with
        `settings["error"]`, or from draws, with a standard error over draws. Nothing if no image was reached.
    """
    rows = posterior.finished
    if not len(rows):
        return []
    with posterior.model.evaluating(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        aggregate = _Aggregate(posterior, images, progress)
        nodes = sum(int((mass > NEGLIGIBLE).sum()) for *_, mass in posterior.blocks())
        affordable = PRODUCTS / (len(rows) + DECODING)
        if nodes <= affordable:
            aggregate.total = nodes
            return _by_nodes(posterior, aggregate)
        return _by_draws(posterior, aggregate, min(max(DRAWS[0], int(affordable)), DRAWS[1]))


def aggregate_log_ratio(posterior: GridPosterior, images: Tensor, z: Tensor) -> Tensor:
    """log p̄(z) − log p(z) at points z (M, d), (M,) in nats, with p̄ the mean of the posteriors of the images reached."""
    with posterior.model.evaluating():
        return _Aggregate(posterior, images).log_ratios(z)[0]


class _Aggregate:
    """log p(xₖ|z) − log p(xₖ) of the N images reached, at any z."""

    def __init__(
        self, posterior: GridPosterior, images: Tensor, progress: Callable[[int, int, str], None] | None = None
    ):
        self.model, rows = posterior.model, posterior.finished
        probe = self.model.decoder(posterior.mean[rows[:1]].to(self.model.device, self.model.dtype))
        self.scorer = scorer_for(probe, images[rows].to(self.model.device, self.model.dtype))
        self.log_p = posterior.likelihood.values[rows].to(self.model.device)
        self.count = len(rows)
        self.number = torch.full((len(posterior),), -1)  # of an image among those reached
        self.number[rows] = torch.arange(self.count)
        self.progress, self.done, self.total = progress, 0, 0

    def log_ratios(self, z: Tensor, image: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """log p̄(z) − log p(z) at z (M, d), and log p(z|x) − log p(z) of one image each, `image` (M,); (M,) each."""
        own = torch.zeros(len(z), dtype=torch.long) if image is None else self.number[image]
        every, mine = [], []
        step = max(1, TABLE // self.count)
        for place in torch.arange(len(z)).split(min(step, self.scorer.nodes_at_once)):
            points = z[place].to(self.model.device, self.model.dtype)
            block = self.scorer.block(self.model.decoder(points))
            table = block.scores(slice(0, self.count), slice(0, len(points))).double() - self.log_p[:, None]
            mine.append(table.gather(0, own[place].to(table.device)[None])[0].cpu())
            self.done += len(points)
            if self.progress is not None:
                self.progress(self.done, self.total, "mutual information")
            every.append((table.logsumexp(0) - math.log(self.count)).cpu())
        return torch.cat(every), torch.cat(mine)


def _by_nodes(posterior: GridPosterior, aggregate: _Aggregate) -> list[Estimate]:
    """Sums over all nodes; the error is the spread over the 2ᵈ lattices of twice the spacing, and what is left out."""
    n, d = len(posterior), posterior.dimension
    kinds = 2**d
    total, gain, rate = (torch.zeros(n * kinds, dtype=torch.float64) for _ in range(3))
    dropped = 0.0
    for _, image, nodes, mass in posterior.blocks():
        lattice = _parity(nodes.shape[1], d).expand(mass.shape)
        seen = mass > NEGLIGIBLE
        dropped += mass[~seen].sum().item() / aggregate.count
        place, weight = (image[:, None] * kinds + lattice)[seen], mass[seen]
        every, own = aggregate.log_ratios(nodes[seen], image[:, None].expand(mass.shape)[seen])
        total.index_add_(0, place, weight)
        gain.index_add_(0, place, weight * (own - every))
        rate.index_add_(0, place, weight * own)
    rows = posterior.finished
    total, gain, rate = (sums.view(n, kinds)[rows] for sums in (total, gain, rate))
    means, errors = [], []
    for sums in (gain, rate - gain):
        mean = (sums.sum(1) / total.sum(1)).mean().item()
        spread = (sums / total).nan_to_num(0.0).mean(0) - mean
        means.append(mean)
        errors.append(spread.abs().max().item())
    lost = posterior.likelihood.settings["error"] + dropped
    # Mass ε of an image left out has at most ε log (N/ε) of its information: by the log-sum inequality.
    left = lost * (1 + math.log(aggregate.count) - math.log(min(1.0, max(lost, 1e-300))))
    names = ("mutual_information", "aggregate_posterior_kl")
    settings = _settings(posterior) | {"nodes": "all"}
    return [
        Estimate(
            value,
            name,
            n=len(rows),
            kind="numerical",
            method="quadrature",
            settings={**settings, "error": error + left},
        )
        for name, value, error in zip(names, means, errors, strict=True)
    ]


def _by_draws(posterior: GridPosterior, aggregate: _Aggregate, draws: int) -> list[Estimate]:
    """Averages over draws of an image and of a node of its grid, with the rate as control variate."""
    z, image = _draw(posterior, draws)
    aggregate.total = len(z)
    every, own = aggregate.log_ratios(z, image)
    gain = own - every
    rate = posterior.rate[posterior.finished].mean().item()
    slope = ((gain * (own - own.mean())).mean() / own.var(correction=0).clamp_min(1e-300)).item()
    residual = gain - slope * (own - rate)  # as an estimate of I
    stderr = residual.std().item() / math.sqrt(draws)
    settings = _settings(posterior) | {
        "stderr_over": "draws",
        "draws": draws,
        "error": 2 * posterior.likelihood.settings["error"],
        "control_variate": slope,
    }
    n = aggregate.count
    about: dict[str, Any] = {"stderr": stderr, "n": n, "method": "monte carlo", "settings": settings}
    value = residual.mean().item()
    return [
        Estimate(value, "mutual_information", **about),
        Estimate(rate - value, "aggregate_posterior_kl", **about),
    ]


def _draw(posterior: GridPosterior, draws: int) -> tuple[Tensor, Tensor]:
    """Nodes (S, d) and their images (S,), with the probability of a node's mass, every image alike.

    One draw for each of S equal parts of the whole mass, in the order of the tables: no more noise than independent
    draws, so that the standard error of those holds.
    """
    whole = torch.zeros(len(posterior), dtype=torch.float64)
    for _, image, _, mass in posterior.blocks():
        whole.index_add_(0, image, mass.sum(-1))
    size = len(posterior.finished) / draws
    place = (torch.arange(draws) + torch.rand(draws, dtype=torch.float64)) * size
    done = torch.zeros(len(posterior), dtype=torch.bool)
    done[posterior.finished] = True
    points, images, begin = [], [], 0.0
    for _, image, nodes, mass in posterior.blocks():
        share = torch.where(done[image, None], mass / whole[image, None], 0.0).flatten()
        edge = begin + share.cumsum(0)
        mine = place[(place >= begin) & (place < edge[-1])]
        at = torch.searchsorted(edge, mine, right=True).clamp_max(len(edge) - 1)
        points.append(nodes.flatten(0, 1)[at])
        images.append(image[at // mass.shape[1]])
        begin = edge[-1].item()
    return torch.cat(points), torch.cat(images)


def _parity(nodes: int, d: int) -> Tensor:
    """Which of the 2ᵈ lattices of twice the spacing each node of a tile is on, (M,)."""
    side = round(nodes ** (1 / d))
    index = torch.cartesian_prod(*[torch.arange(side)] * d).reshape(nodes, d)  # unravel_index would import sympy
    return (index % 2 * 2 ** torch.arange(d)).sum(-1)


def _settings(posterior: GridPosterior) -> dict[str, Any]:
    left = len(posterior) - len(posterior.finished)
    return {"not_reached": left} if left else {}
