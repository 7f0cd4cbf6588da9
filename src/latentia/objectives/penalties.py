"""Penalties on the discriminator, which keep the game of a GAN near its equilibrium.

| type | adds to the discriminator's cost | source |
|---|---|---|
| `r1` | (γ/2) E_p ‖∇t(x)‖² | Mescheder et al. 2018, eq. 9 |
| `r2` | (γ/2) E_q ‖∇t(x)‖² | Mescheder et al. 2018, eq. 10 |
| `r1r2` | both | Huang et al. 2024 (R3GAN), section 2 |
| `zero-centered` | (γ/2) E ‖∇t(x̂)‖², x̂ between a real and a fake example | Thanh-Tung et al. 2019, section 4 |
| `one-centered` | γ E (‖∇t(x̂)‖ − 1)²; here γ is the paper's λ, with no half | Gulrajani et al. 2017, eq. 3 |
| `consensus` | (γ/2) ‖v‖² to *both* costs, v the gradients of both | Mescheder et al. 2017, section 4 |
| `clip` | nothing; clamps the weights after each move | Arjovsky et al. 2017, algorithm 1 |

t is the logit, and ∇t its gradient by x as the discriminator gets it: in the units of the data, and for packed examples
by the whole pack. Of data with a scale of s, γ acts as γ/s². A discriminator with batch normalization has no gradient
of one example alone; what is penalized there is the gradient of the batch's sum.

`every=k` applies a penalty at each k-th step of the game, k times as strong (Karras et al. 2020, "lazy").
"""

from __future__ import annotations

__all__ = [
    "R1",
    "R1R2",
    "R2",
    "Clip",
    "Consensus",
    "DiscriminatorOutput",
    "GradientPenalty",
    "NoPenalty",
    "OneCentered",
    "Penalty",
    "ZeroCentered",
]

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from latentia.configuration import Component
from latentia.objectives.adversarial import AdversarialLoss, widened

Where = Literal["real", "fake", "interpolates"]


@dataclass(frozen=True)
class DiscriminatorOutput:
    """What the discriminator saw in one turn, and what it said.

    Attributes:
        real: examples of the data as the discriminator gets them, (B, …).
        fake: as many of the generator's.
        real_logits: (B,), made from `real`.
        fake_logits: (B,), made from `fake`.
        score: gives further examples their logits, (B, …) to (B,).
    """

    real: Tensor
    fake: Tensor
    real_logits: Tensor
    fake_logits: Tensor
    score: Callable[[Tensor], Tensor]


class Penalty(Component, family=True):
    """What keeps a discriminator's slope or weights down.

    Attributes:
        differentiates_inputs: whether it needs `DiscriminatorOutput.real` and `DiscriminatorOutput.fake` to be leaves of the logits' graph.
        couples_players: whether it is added to both players' costs and needs the gradients of both.
        bounds_slope: whether it makes a cost that is linear in the logits bounded below.
    """

    differentiates_inputs: ClassVar[bool] = False
    couples_players: ClassVar[bool] = False
    bounds_slope: ClassVar[bool] = True

    def applies(self, step: int) -> bool:
        """Whether it is applied at this step of the game."""
        return False

    def weight(self, done: float) -> float | Tensor:
        """What it is multiplied by where it is applied, a number, with the part `done` ∈ [0, 1] of the game over."""
        return 0.0

    def incompatibility(self, loss: AdversarialLoss) -> str | None:
        """Why it makes no sense with this loss, and what does; None if it does."""
        return None

    def after(self, discriminator: nn.Module) -> None:
        """Called after each of the discriminator's moves."""
        return

    @abstractmethod
    def __call__(self, seen: DiscriminatorOutput) -> Tensor:
        """The penalty on each example without its weight, (B,)."""

    def of_game(self, costs: Sequence[tuple[Tensor, Sequence[nn.Parameter]]]) -> Tensor:
        """The penalty on the game without its weight, a number, where `couples_players`.

        Args:
            costs: each player's mean cost, with its graph, and own parameters.
        """
        return torch.zeros((), device=costs[0][0].device)


class NoPenalty(Penalty, name="none"):
    """No penalty."""

    bounds_slope: ClassVar[bool] = False

    def __call__(self, seen: DiscriminatorOutput) -> Tensor:
        return torch.zeros_like(seen.real_logits)


class _Weighted(Penalty):
    """A penalty with a weight, which may fall over the run.

    Attributes:
        gamma: the weight γ.
        final: if given, γ goes geometrically from `gamma` to this over the run (R3GAN lets it fall as well).
        every: steps of the game between applications, each as many times as strong.
    """

    gamma: float = Field(default=1.0, gt=0)
    final: float | None = Field(default=None, gt=0)
    every: int = Field(default=1, ge=1)

    def applies(self, step: int) -> bool:
        return not step % self.every

    def weight(self, done: float) -> float | Tensor:
        if self.final is None:
            return self.every * self.gamma
        # In tensors: a compiler would take the power of two floats for a constant, and compile anew at every step.
        return self.every * self.gamma * torch.exp(torch.full((), math.log(self.final / self.gamma)) * done)


class GradientPenalty(_Weighted):
    """A penalty on the logit's gradient by x."""

    differentiates_inputs: ClassVar[bool] = True


class R1(GradientPenalty):
    """½ ‖∇t(x)‖² on real examples (Mescheder et al. 2018, eq. 9)."""

    def __call__(self, seen: DiscriminatorOutput) -> Tensor:
        (slope,) = _square_slopes(seen.real_logits, seen.real)
        return slope / 2


class R2(GradientPenalty):
    """½ ‖∇t(x)‖² on fake examples (Mescheder et al. 2018, eq. 10)."""

    def __call__(self, seen: DiscriminatorOutput) -> Tensor:
        (slope,) = _square_slopes(seen.fake_logits, seen.fake)
        return slope / 2


class R1R2(GradientPenalty, name="r1r2"):
    """R1 and R2 together (Huang et al. 2024)."""

    def __call__(self, seen: DiscriminatorOutput) -> Tensor:
        on_real, on_fake = _square_slopes(seen.real_logits + seen.fake_logits, seen.real, seen.fake)
        return (on_real + on_fake) / 2


class _Placed(GradientPenalty):
    """A gradient penalty at points to choose.

    Attributes:
        at: where the slope is taken; `interpolates` are uniform on the line between a real and a fake example.
    """

    at: Where = "interpolates"

    def __call__(self, seen: DiscriminatorOutput) -> Tensor:
        return self._of(_square_slope_at(seen, self.at))

    @abstractmethod
    def _of(self, square_slope: Tensor) -> Tensor:
        """The penalty from ‖∇t‖², (B,)."""


class ZeroCentered(_Placed):
    """½ ‖∇t‖², which is zero at the equilibrium p = q, where the best discriminator is flat (Thanh-Tung 2019)."""

    def _of(self, square_slope: Tensor) -> Tensor:
        return square_slope / 2


class OneCentered(_Placed):
    """(‖∇t‖ − 1)²: the penalty of WGAN-GP; the best discriminator has slope 1 between the distributions (Gulrajani et al. 2017)."""

    gamma: float = Field(default=10.0, gt=0)

    def incompatibility(self, loss: AdversarialLoss) -> str | None:
        if loss.needs_lipschitz:
            return None
        return (
            f"a slope of one is what the discriminator of `wasserstein` has at best, while the best discriminator of "
            f"`{loss.type_name}` is flat once the generator is right, so the game could not come to rest. "
            "Use penalty=zero-centered or r1, or loss=wasserstein"
        )

    def _of(self, square_slope: Tensor) -> Tensor:
        return ((square_slope + 1e-12).sqrt() - 1).square()  # the root has no derivative at 0


class Consensus(_Weighted):
    """½ ‖v‖² on both players' costs, v = (∇ of each player's cost by its own parameters) (Mescheder et al. 2017)."""

    gamma: float = Field(default=0.1, gt=0)
    couples_players: ClassVar[bool] = True
    bounds_slope: ClassVar[bool] = False

    def __call__(self, seen: DiscriminatorOutput) -> Tensor:
        return torch.zeros_like(seen.real_logits)  # it is on the game, not on examples: `of_game`

    def incompatibility(self, loss: AdversarialLoss) -> str | None:
        if not loss.needs_lipschitz:
            return None
        return (
            f"consensus does not bound the discriminator's slope, and without a bound the cost of `{loss.type_name}` has no "
            "minimum. Use penalty=one-centered or clip, or another loss"
        )

    def of_game(self, costs: Sequence[tuple[Tensor, Sequence[nn.Parameter]]]) -> Tensor:
        """½ ‖v‖²."""
        squares = [
            gradient.square().sum()
            for cost, parameters in costs
            for gradient in torch.autograd.grad(cost, list(parameters), create_graph=True)
        ]
        return torch.stack(squares).sum() / 2


class Clip(Penalty):
    """Clamps every weight of the discriminator to [−bound, bound] after each move (Arjovsky et al. 2017, algorithm 1)."""

    bound: float = Field(default=0.01, gt=0)

    def __call__(self, seen: DiscriminatorOutput) -> Tensor:
        return torch.zeros_like(seen.real_logits)

    def incompatibility(self, loss: AdversarialLoss) -> str | None:
        if loss.needs_lipschitz:
            return None
        return (
            f"weight clipping makes the discriminator of `wasserstein` Lipschitz; the discriminator of `{loss.type_name}` "
            "needs no such bound and is only crippled by it. Use penalty=r1, or loss=wasserstein"
        )

    @torch.no_grad()
    def after(self, discriminator: nn.Module) -> None:
        for parameter in discriminator.parameters():
            parameter.clamp_(-self.bound, self.bound)


def _square_slope_at(seen: DiscriminatorOutput, at: Where) -> Tensor:
    if at != "interpolates":
        logits, points = (seen.real_logits, seen.real) if at == "real" else (seen.fake_logits, seen.fake)
        return _square_slopes(logits, points)[0]
    part = torch.rand(len(seen.real), *[1] * (seen.real.dim() - 1), dtype=seen.real.dtype, device=seen.real.device)
    between = torch.lerp(seen.fake.detach(), seen.real.detach(), part).requires_grad_()
    return _square_slopes(seen.score(between), between)[0]


def _square_slopes(logits: Tensor, *inputs: Tensor) -> list[Tensor]:
    """‖∇‖² of the logits' sum by each example of each of the inputs, (B,) each, with its graph."""
    gradients = torch.autograd.grad(logits.sum(), inputs, create_graph=True)
    return [gradient.flatten(1).square().sum(1) for gradient in widened(*gradients)]
