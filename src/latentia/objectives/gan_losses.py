"""The losses of a GAN: the costs of discriminator and generator, on logits and unreduced.

A discriminator gives each x a real number t(x), its logit. It minimizes a cost E_p[…] + E_q[…], where p is the
distribution of the data and q the generator's; the generator minimizes a cost of its samples' logits. For the classic
cost

    −E_p[log D] − E_q[log(1 − D)],   D = σ(t),        (Goodfellow et al. 2014, eq. 1)

the best t is log p/q, where the cost is log 4 − 2 JSD(p, q): the discriminator's best cost *is* a divergence, and each
loss here states both. All are written with softplus, so that no logit loses its gradient to rounding, whatever its
size; logits in half precision are first converted to float32.
"""

from __future__ import annotations

__all__ = [
    "AdversarialLoss",
    "Hinge",
    "LeastSquares",
    "Minimax",
    "NonSaturating",
    "Relativistic",
    "Wasserstein",
]

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from latentia.configuration import Component
from latentia.divergences import jensen_shannon, total_variation
from latentia.errors import UnsupportedError

REALS = (-math.inf, math.inf)


class AdversarialLoss(Component, family=True):
    """A pair of costs: what the discriminator minimizes, and what the generator minimizes.

    Attributes:
        divergence: the divergence of p and q of which the discriminator's best cost is a decreasing function.
        shift_invariant: whether adding one number to all logits changes neither cost.
        needs_lipschitz: whether the discriminator's cost has no lower bound unless its slope is bounded.
        generator_needs_real: whether the generator's cost depends on the real examples' logits.
        monotone: the interval of logits on which the discriminator's cost decreases in real logits and increases in
            fake ones, and the generator's decreases in fake ones (not strictly, for the hinge).
    """

    divergence: ClassVar[str]
    shift_invariant: ClassVar[bool] = False
    needs_lipschitz: ClassVar[bool] = False
    generator_needs_real: ClassVar[bool] = False

    @property
    def monotone(self) -> tuple[float, float]:
        """See the class."""
        return REALS

    @abstractmethod
    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The discriminator's cost of each pair, (B,), from logits (B,) and (B,)."""

    @abstractmethod
    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """The generator's cost of each example, (B,); real logits, (B,), are read if `generator_needs_real`."""

    def optimal_logit(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """The logit that minimizes the discriminator's cost, from log p(x) and log q(x), each (…), to (…).

        Where `shift_invariant`, any constant may be added.

        Raises:
            UnsupportedError: where the best discriminator does not follow from the densities at x alone.
        """
        raise UnsupportedError(
            f"the best discriminator of {self.type_name} does not follow from the densities at x alone"
        )

    def least_cost(self, p: Tensor, q: Tensor) -> Tensor:
        """The discriminator's lowest expected cost on a finite set, from the probabilities p and q, each (n,).

        Raises:
            UnsupportedError: where it depends on more than the probabilities.
        """
        raise UnsupportedError(f"the lowest cost of {self.type_name} does not follow from the probabilities alone")


class _LogRatio(AdversarialLoss):
    """The classic discriminator: cross entropy, best at log p/q, where its cost is log 4 − 2 JSD."""

    divergence: ClassVar[str] = "jensen-shannon"

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """−log D(x) − log(1 − D(G(z))): Goodfellow et al. 2014, eq. 1."""
        real, fake = widened(real_logits, fake_logits)
        return softplus(-real) + softplus(fake)

    def optimal_logit(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """log p − log q, that is D* = p/(p + q): Goodfellow et al. 2014, proposition 1."""
        return log_p - log_q

    def least_cost(self, p: Tensor, q: Tensor) -> Tensor:
        """log 4 − 2 JSD(p, q): Goodfellow et al. 2014, theorem 1."""
        return math.log(4) - 2 * jensen_shannon.of_probabilities(p, q)


class Minimax(_LogRatio):
    """The original game: the generator minimizes log(1 − D(G(z))) (Goodfellow et al. 2014, eq. 1).

    Its gradient vanishes where the discriminator is certain, which `nonsaturating` avoids.
    """

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """log(1 − D(G(z)))."""
        (fake,) = widened(fake_logits)
        return -softplus(fake)


class NonSaturating(_LogRatio, name="nonsaturating"):
    """The same discriminator; the generator minimizes −log D(G(z)) (Goodfellow et al. 2014, section 3).

    At the best discriminator its gradient is that of KL(q, p) − 2 JSD(p, q) (Arjovsky and Bottou 2017, theorem 2.5).
    """

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """−log D(G(z))."""
        (fake,) = widened(fake_logits)
        return softplus(-fake)


class LeastSquares(AdversarialLoss):
    """Regression on 1 for real and 0 for fake (Mao et al. 2017, eqs. 2 and 9, with a = 0, b = c = 1).

    Its best logit is p/(p + q), a number in [0, 1].
    """

    divergence: ClassVar[str] = "triangular discrimination"

    @property
    def monotone(self) -> tuple[float, float]:
        """Between the two targets."""
        return (0.0, 1.0)

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """½(t(x) − 1)² + ½ t(G(z))²."""
        real, fake = widened(real_logits, fake_logits)
        return ((real - 1).square() + fake.square()) / 2

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """½(t(G(z)) − 1)²."""
        (fake,) = widened(fake_logits)
        return (fake - 1).square() / 2

    def optimal_logit(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """p/(p + q)."""
        return torch.sigmoid(log_p - log_q)

    def least_cost(self, p: Tensor, q: Tensor) -> Tensor:
        """(2 − Δ)/8, with Δ = Σ (p − q)²/(p + q) the triangular discrimination (Vincze and Le Cam)."""
        total = p + q
        terms = torch.where(total > 0, (p - q).square() / total, 0.0)
        return (2 - terms.sum(-1)) / 8


class Hinge(AdversarialLoss):
    """Margins of 1 on either side (Lim and Ye 2017, eqs. 4 and 5); best at ±1, where the cost is 2(1 − TV)."""

    divergence: ClassVar[str] = "total variation"

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """max(0, 1 − t(x)) + max(0, 1 + t(G(z)))."""
        real, fake = widened(real_logits, fake_logits)
        return relu(1 - real) + relu(1 + fake)

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """−t(G(z))."""
        (fake,) = widened(fake_logits)
        return -fake

    def optimal_logit(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """The sign of log p − log q; where the two are equal, any logit in [−1, 1] is best."""
        return torch.sign(log_p - log_q)

    def least_cost(self, p: Tensor, q: Tensor) -> Tensor:
        """2(1 − TV(p, q))."""
        return 2 * (1 - total_variation.of_probabilities(p, q))


class Wasserstein(AdversarialLoss):
    """The difference of means over a discriminator whose slope is at most 1 (Arjovsky et al. 2017, eq. 2).

    The best cost is then −W₁(p, q). Without a bound on the slope it has no minimum, so it needs a penalty, clipping
    or spectral normalization.
    """

    divergence: ClassVar[str] = "wasserstein-1"
    shift_invariant: ClassVar[bool] = True
    needs_lipschitz: ClassVar[bool] = True

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """t(G(z)) − t(x)."""
        real, fake = widened(real_logits, fake_logits)
        return fake - real

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """−t(G(z)); a shift of all logits adds a constant, which has no gradient."""
        (fake,) = widened(fake_logits)
        return -fake


class Relativistic(AdversarialLoss):
    """Which of two examples is real (Jolicoeur-Martineau 2018, eq. 8; RpGAN of Huang et al. 2024).

    It is the cross entropy of classifying the ordered pairs (x, y) ~ p⊗q and (y, x): best at log p/q + any constant,
    where the cost is log 2 − JSD(p⊗q, q⊗p).
    """

    divergence: ClassVar[str] = "jensen-shannon of ordered pairs"
    shift_invariant: ClassVar[bool] = True
    generator_needs_real: ClassVar[bool] = True

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """−log σ(t(x) − t(G(z)))."""
        real, fake = widened(real_logits, fake_logits)
        return softplus(fake - real)

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """−log σ(t(G(z)) − t(x))."""
        if real_logits is None:
            raise ValueError("the relativistic generator is compared with real examples; give their logits")
        real, fake = widened(real_logits, fake_logits)
        return softplus(real - fake)

    def optimal_logit(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """log p − log q, up to a constant."""
        return log_p - log_q

    def least_cost(self, p: Tensor, q: Tensor) -> Tensor:
        """log 2 − JSD(p⊗q, q⊗p)."""
        forward = p.unsqueeze(-1) * q.unsqueeze(-2)
        return math.log(2) - jensen_shannon.of_probabilities(forward.flatten(-2), forward.mT.flatten(-2))


def widened(*logits: Tensor) -> tuple[Tensor, ...]:
    """The logits in at least float32."""
    return tuple(t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in logits)
