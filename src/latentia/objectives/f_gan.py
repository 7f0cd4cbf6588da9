"""f-GAN: any f-divergence as a game, by the conjugate of f (Nowozin, Cseke and Tomioka 2016).

    D_f(p, q) = E_q[f(p/q)] ≥ E_p[T] − E_q[f*(T)],  with equality at T = f′(p/q)        (eq. 4 there)

An output activation g maps the discriminator's logit v into the domain of f*, T = g(v) (table 2 there). Every g below
is chosen so that f*(g(v)) has a form without cancellation, and that log p/q, or an increasing function of it, is the
best v.
"""

from __future__ import annotations

__all__ = ["FGAN"]

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus
from torch.special import xlogy

from latentia.divergences import jensen_shannon, total_variation
from latentia.objectives.gan_losses import REALS, AdversarialLoss, widened


@dataclass(frozen=True)
class _FDivergence:
    """One f-divergence, written for logits.

    Attributes:
        activation: g, from a logit to T.
        conjugate: f*(g(v)), from a logit v.
        best: the best logit, from log p/q.
        value: D_f(p, q) on a finite set, from probabilities (…, n) to (…), in nats where it has a unit.
        monotone: the interval of logits on which f*∘g increases.
    """

    activation: Callable[[Tensor], Tensor]
    conjugate: Callable[[Tensor], Tensor]
    best: Callable[[Tensor], Tensor]
    value: Callable[[Tensor, Tensor], Tensor]
    monotone: tuple[float, float] = REALS


def _relative_entropy(p: Tensor, q: Tensor) -> Tensor:
    return (xlogy(p, p) - xlogy(p, q)).sum(-1)


DIVERGENCES = {
    "kl": _FDivergence(
        activation=lambda v: v,
        conjugate=lambda v: (v - 1).exp(),
        best=lambda ratio: 1 + ratio,
        value=_relative_entropy,
    ),
    "reverse-kl": _FDivergence(
        activation=lambda v: -(-v).exp(),
        conjugate=lambda v: v - 1,
        best=lambda ratio: ratio,
        value=lambda p, q: _relative_entropy(q, p),
    ),
    "pearson": _FDivergence(
        activation=lambda v: v,
        conjugate=lambda v: v * v / 4 + v,
        best=lambda ratio: 2 * ratio.expm1(),
        value=lambda p, q: torch.where(q > 0, (p - q).square() / q, torch.where(p > 0, math.inf, 0.0)).sum(-1),
        monotone=(-2.0, math.inf),
    ),
    "squared-hellinger": _FDivergence(
        activation=lambda v: -(-v).expm1(),
        conjugate=lambda v: v.expm1(),
        best=lambda ratio: ratio / 2,
        value=lambda p, q: (p.sqrt() - q.sqrt()).square().sum(-1),
    ),
    "jensen-shannon": _FDivergence(
        activation=lambda v: math.log(2) - softplus(-v),
        conjugate=lambda v: softplus(v) - math.log(2),
        best=lambda ratio: ratio,
        value=lambda p, q: 2 * jensen_shannon.of_probabilities(p, q),  # the f of the paper has twice the usual scale
    ),
    "total-variation": _FDivergence(
        activation=lambda v: v.tanh() / 2,
        conjugate=lambda v: v.tanh() / 2,
        best=lambda ratio: torch.where(ratio == 0, 0.0, ratio * math.inf),
        value=total_variation.of_probabilities,
    ),
}


class FGAN(AdversarialLoss, name="f-gan"):
    """The game of an f-divergence; the discriminator's best cost is −D_f(p, q).

    The generator minimizes −E_q[f*(T)], as in the paper's eq. 6, without the non-saturating variant. For
    `total-variation` the best logits are infinite, so that the cost only approaches its bound.

    Attributes:
        f: which divergence of p, the data, from q, the generator: `kl` is KL(p, q), `reverse-kl` KL(q, p), `pearson`
            Σ (p − q)²/q, `squared-hellinger` Σ (√p − √q)², `jensen-shannon` 2 JSD, `total-variation` ½ Σ |p − q|.
    """

    divergence: ClassVar[str] = "f-divergence"

    f: Literal["kl", "reverse-kl", "pearson", "squared-hellinger", "jensen-shannon", "total-variation"] = "kl"

    @property
    def monotone(self) -> tuple[float, float]:
        """Where f*∘g increases: everywhere, except for `pearson`, v > −2."""
        return DIVERGENCES[self.f].monotone

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """f*(g(v(G(z)))) − g(v(x)): the paper's eq. 6 with its sign changed."""
        real, fake = widened(real_logits, fake_logits)
        parts = DIVERGENCES[self.f]
        return parts.conjugate(fake) - parts.activation(real)

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """−f*(g(v(G(z))))."""
        (fake,) = widened(fake_logits)
        return -DIVERGENCES[self.f].conjugate(fake)

    def optimal_logit(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """g⁻¹(f′(p/q))."""
        return DIVERGENCES[self.f].best(log_p - log_q)

    def least_cost(self, p: Tensor, q: Tensor) -> Tensor:
        """−D_f(p, q)."""
        return -DIVERGENCES[self.f].value(p, q)
