r"""Exact maximum likelihood for z ∈ R¹ or R²: a decoder trained without an encoder.

On a lattice of spacing h whose offset is drawn for every batch, uniformly over a cell,

    p̂(x) = hᵈ Σₘ p(x|zₘ) p(zₘ)         is unbiased for p(x), whatever h is,

so E log p̂(x) ≤ log p(x): a lower bound that tightens as h decreases, and that is nearly exact once h is below the
posterior's width. The posterior on the lattice is qₘ ∝ p(x|zₘ) p(zₘ), and by Fisher's identity it gives the gradient:

    ∇ log p̂(x) = Σₘ qₘ ∇ log p(x, zₘ).

The whole lattice is therefore decoded without gradients. Only the nodes that have weight for some image of the batch
are decoded a second time with gradients, which keeps the memory small.
"""

from __future__ import annotations

__all__ = ["ExactLikelihood"]

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from latentia.distributions.codes import require_enumerable
from latentia.distributions.sphere import is_on_sphere
from latentia.errors import UnsupportedError
from latentia.models import VAE
from latentia.objectives.objective import Objective, Progress, Terms
from latentia.objectives.score_table import Scorer, scorer_for


class ExactLikelihood(Objective, name="exact-likelihood"):
    """log p(x) on a randomly shifted lattice over [−extent, extent]ᵈ, d ≤ 2; the encoder is not trained.

    For a categorical prior it is the sum over all codes, without an error.

    - `spacing`: h. Decoder evaluations grow as h⁻ᵈ.
    - `extent`: half the side of the box, in units of z; 4.5 holds all but 1e-5 of N(0, I).
    - `nodes_at_once`: how many nodes are decoded together without gradients.
    - `least_weight`: nodes whose weight is below it for every image of the batch have no gradient.
    """

    bound_name: ClassVar[str] = "lattice_bound"

    spacing: float = Field(default=0.1, gt=0, description="distance of neighboring nodes")
    extent: float = Field(default=4.5, gt=0, description="half the side of the lattice")
    nodes_at_once: int = Field(default=4096, ge=1, description="nodes that are decoded together without gradients")
    least_weight: float = Field(default=1e-4, ge=0, lt=1, description="nodes of less weight have no gradient")

    @property
    def bounds_log_likelihood(self) -> bool:
        return True

    def __call__(self, vae: VAE, x: Tensor, progress: Progress) -> Terms:
        require_enumerable(vae.prior)
        if vae.prior.has_enumerate_support:
            return self._terms(vae, x, vae.prior.enumerate_support(expand=False), 0.0)
        if vae.latent > 2:
            raise UnsupportedError(
                f"exact-likelihood needs z of 1 or 2 dimensions, and this model has {vae.latent}; set objective=iwae, "
                "whose bound tightens with objective.k"
            )
        if is_on_sphere(vae.prior):
            raise UnsupportedError(
                "exact-likelihood has a lattice in R^d, and here z lies on a sphere; set objective=iwae"
            )
        return self._terms(vae, x, self._lattice(vae.latent, x), vae.latent * math.log(self.spacing))

    def _terms(self, vae: VAE, x: Tensor, z: Tensor, log_cell: float) -> Terms:
        """The sum over nodes z (M, d), each of which stands for a volume."""
        with torch.no_grad():
            scorer = scorer_for(vae.decode(z[:2]), x)
            table = torch.cat([self._log_joint(vae, scorer, some) for some in z.split(self.nodes_at_once)], -1)
            weight = table.softmax(-1)
            log_likelihood = table.logsumexp(-1) + log_cell
            holds = (weight > self.least_weight).any(0)
        if torch.is_grad_enabled():
            # A separate scorer, so that a learned scale gets its gradient.
            again = self._log_joint(vae, scorer_for(vae.decode(z[:2]), x), z[holds])
            path = (weight[:, holds] * again).sum(-1)
            cost = -log_likelihood - (path - path.detach())
        else:
            cost = -log_likelihood
        return {
            "cost": cost,
            "bound": log_likelihood,
            "effective_nodes": 1 / weight.square().sum(-1),
            "decoded_nodes": torch.full_like(log_likelihood, float(len(z) + int(holds.sum()))),
        }

    def _lattice(self, latent: int, like: Tensor) -> Tensor:
        """Nodes (M, d), shifted at random by less than a cell."""
        count = math.ceil(2 * self.extent / self.spacing)
        index = torch.arange(count, device=like.device, dtype=like.dtype)
        shift = torch.rand(latent, device=like.device, dtype=like.dtype)
        axes = [(index + shift[axis]) * self.spacing - self.extent for axis in range(latent)]
        return torch.cartesian_prod(*axes).reshape(-1, latent)

    def _log_joint(self, vae: VAE, scorer: Scorer, z: Tensor) -> Tensor:
        """log p(x, z) of every image and node, (B, M)."""
        scores = scorer.block(vae.decode(z)).scores(slice(None), slice(0, len(z)))
        return scores + vae.prior.log_prob(z)
