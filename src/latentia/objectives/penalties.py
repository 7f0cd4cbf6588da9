"""Penalties on the discriminator, which keep the game of a GAN near its equilibrium.

| type | added to the discriminator's cost | source |
|---|---|---|
| `r1` | (γ/2) E_p ‖∇t(x)‖² | Mescheder et al. 2018, eq. 9 |
| `r2` | (γ/2) E_q ‖∇t(x)‖² | Mescheder et al. 2018, eq. 10 |
| `r1r2` | both | Huang et al. 2024 (R3GAN), section 2 |
| `zero-centered` | (γ/2) E ‖∇t(x̂)‖², x̂ between a real and a fake example | Thanh-Tung et al. 2019, section 4 |
| `one-centered` | γ E (‖∇t(x̂)‖ − 1)²; here γ is the paper's λ, without the ½ | Gulrajani et al. 2017, eq. 3 |
| `consensus` | (γ/2) ‖v‖² to *both* costs, v the gradients of both | Mescheder et al. 2017, section 4 |
| `clip` | nothing; clamps the weights after each step | Arjovsky et al. 2017, algorithm 1 |

t is the logit, and ∇t its gradient by the discriminator's input, in the units of the data; for packed examples, by the
whole pack. For data of scale s, γ acts as γ/s². With batch normalization a logit depends on the whole batch, and the
gradient of the batch's sum is penalized.

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
from latentia.objectives.gan_losses import AdversarialLoss, widened

Where = Literal["real", "fake", "interpolates"]


@dataclass(frozen=True)
class DiscriminatorOutput:
    """The inputs of the discriminator in one step, and its logits.

    Attributes:
        real: real examples, as prepared for the discriminator, (B, …).
        fake: as many fake ones.
        real_logits: (B,), from `real`.
        fake_logits: (B,), from `fake`.
        score: the logits of further examples, (B, …) → (B,).
    """

    real: Tensor
    fake: Tensor
    real_logits: Tensor
    fake_logits: Tensor
    score: Callable[[Tensor], Tensor]


class Penalty(Component, family=True):
    """A bound or penalty on a discriminator's slope or weights.

    Attributes:
        differentiates_inputs: whether `DiscriminatorOutput.real` and `fake` must be leaves of the logits' graph.
        couples_players: whether it is added to both players' costs and needs the gradients of both.
        bounds_slope: whether with it a cost that is linear in the logits is bounded below.
        needs_slope_at_each_example: whether it uses the slope itself, which batch normalization leaves undefined.
    """

    differentiates_inputs: ClassVar[bool] = False
    couples_players: ClassVar[bool] = False
    bounds_slope: ClassVar[bool] = True
    needs_slope_at_each_example: ClassVar[bool] = False

    def applies(self, step: int) -> bool:
        """Whether it is applied at this step of the game."""
        return False

    def weight(self, done: float) -> float | Tensor:
        """Its weight where it applies, when the part `done` ∈ [0, 1] of the run is finished."""
        return 0.0

    def incompatibility(self, loss: AdversarialLoss) -> str | None:
        """Why it cannot be combined with this loss, and what can; None if it can."""
        return None

    def after(self, discriminator: nn.Module) -> None:
        """Called after each of the discriminator's steps."""
        return

    @abstractmethod
    def __call__(self, seen: DiscriminatorOutput) -> Tensor:
        """The penalty on each example without its weight, (B,)."""

    def of_game(self, costs: Sequence[tuple[Tensor, Sequence[nn.Parameter]]]) -> Tensor:
        """The penalty on the game without its weight, a number, where `couples_players`.

        Args:
            costs: each player's mean cost, with its graph, and its parameters.
        """
        return torch.zeros((), device=costs[0][0].device)


class NoPenalty(Penalty, name="none"):
    """No penalty."""

    bounds_slope: ClassVar[bool] = False

    def __call__(self, seen: DiscriminatorOutput) -> Tensor:
        return torch.zeros_like(seen.real_logits)


class _Weighted(Penalty):
    """A penalty with a weight, which may decrease over the run.

    Attributes:
        gamma: the weight γ.
        final: if given, γ changes geometrically from `gamma` to this over the run (as in R3GAN).
        every: steps of the game between applications, each `every` times as strong.
    """

    gamma: float = Field(default=1.0, gt=0)
    final: float | None = Field(default=None, gt=0)
    every: int = Field(default=1, ge=1)

    def applies(self, step: int) -> bool:
        return not step % self.every

    def weight(self, done: float) -> float | Tensor:
        if self.final is None:
            return self.every * self.gamma
        # In tensors: a compiler would treat the power of two floats as a constant, and compile again at every step.
        return self.every * self.gamma * torch.exp(torch.full((), math.log(self.final / self.gamma)) * done)


class _GradientPenalty(_Weighted):
    """A penalty on the logit's gradient by x."""

    differentiates_inputs: ClassVar[bool] = True


class R1(_GradientPenalty):
    """½ ‖∇t(x)‖² on real examples (Mescheder et al. 2018, eq. 9)."""

    def __call__(self, seen: DiscriminatorOutput) -> Tensor:
        (slope,) = _square_slopes(seen.real_logits, seen.real)
        return slope / 2


class R2(_GradientPenalty):
    """½ ‖∇t(x)‖² on fake examples (Mescheder et al. 2018, eq. 10)."""

    def __call__(self, seen: DiscriminatorOutput) -> Tensor:
        (slope,) = _square_slopes(seen.fake_logits, seen.fake)
        return slope / 2


class R1R2(_GradientPenalty, name="r1r2"):
    """R1 and R2 together (Huang et al. 2024)."""

    def __call__(self, seen: DiscriminatorOutput) -> Tensor:
        on_real, on_fake = _square_slopes(seen.real_logits + seen.fake_logits, seen.real, seen.fake)
        return (on_real + on_fake) / 2


class _Placed(_GradientPenalty):
    """A gradient penalty at chosen points.

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
    """(‖∇t‖ − 1)² (WGAN-GP): the best discriminator has slope 1 between the distributions (Gulrajani et al. 2017)."""

    needs_slope_at_each_example: ClassVar[bool] = True

    gamma: float = Field(default=10.0, gt=0)

    def incompatibility(self, loss: AdversarialLoss) -> str | None:
        if loss.needs_lipschitz:
            return None
        return (
            f"only the best discriminator of `wasserstein` has slope one; that of `{loss.type_name}` is flat at the "
            "equilibrium, so that the game would not converge. Use penalty=zero-centered or r1, or loss=wasserstein"
        )

    def _of(self, square_slope: Tensor) -> Tensor:
        return ((square_slope + 1e-12).sqrt() - 1).square()  # the root has no derivative at 0


class Consensus(_Weighted):
    """½ ‖v‖² on both players' costs, v = (∇ of each player's cost by its parameters) (Mescheder et al. 2017)."""

    gamma: float = Field(default=0.1, gt=0)
    couples_players: ClassVar[bool] = True
    bounds_slope: ClassVar[bool] = False

    def __call__(self, seen: DiscriminatorOutput) -> Tensor:
        return torch.zeros_like(seen.real_logits)  # a penalty on the game, not on examples: `of_game`

    def incompatibility(self, loss: AdversarialLoss) -> str | None:
        if not loss.needs_lipschitz:
            return None
        return (
            f"consensus does not bound the discriminator's slope, and without a bound the cost of `{loss.type_name}` "
            "has no minimum. Use penalty=one-centered or clip, or another loss"
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
    """Clamp each weight of the discriminator to [−bound, bound] after each step (Arjovsky et al. 2017, algorithm 1)."""

    bound: float = Field(default=0.01, gt=0, description="largest absolute value of a weight")

    def __call__(self, seen: DiscriminatorOutput) -> Tensor:
        return torch.zeros_like(seen.real_logits)

    def incompatibility(self, loss: AdversarialLoss) -> str | None:
        if loss.needs_lipschitz:
            return None
        return (
            f"weight clipping bounds the slope of the discriminator of `wasserstein`; that of `{loss.type_name}` needs "
            "no such bound and loses capacity by it. Use penalty=r1, or loss=wasserstein"
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
