"""Penalties against closed forms on discriminators of known slope, their schedule, and the refused pairs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from latentia.objectives import (
    R1,
    R1R2,
    R2,
    AdversarialLoss,
    Clip,
    Consensus,
    DiscriminatorOutput,
    NoPenalty,
    OneCentered,
    Penalty,
    ZeroCentered,
)

PULL = torch.tensor([3.0, 4.0], dtype=torch.float64)


def quadratic(x: Tensor) -> Tensor:
    """t(x) = a·x + ½ x₁², whose gradient is (3 + x₁, 4)."""
    return x @ PULL + x[:, 0] ** 2 / 2


def square_slope(x: Tensor) -> Tensor:
    return (3 + x[:, 0]) ** 2 + 16


def seen_by(discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> DiscriminatorOutput:
    real, fake = real.clone().requires_grad_(), fake.clone().requires_grad_()
    return DiscriminatorOutput(real, fake, discriminator(real), discriminator(fake), discriminator)


def points(seed: int, n: int = 5) -> Tensor:
    return torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("penalty", "truth"),
    [
        (R1(), lambda real, _f: square_slope(real) / 2),
        (R2(), lambda _r, fake: square_slope(fake) / 2),
        (R1R2(), lambda real, fake: (square_slope(real) + square_slope(fake)) / 2),
        (ZeroCentered(at="real"), lambda real, _f: square_slope(real) / 2),
        (ZeroCentered(at="fake"), lambda _r, fake: square_slope(fake) / 2),
        (OneCentered(at="real"), lambda real, _f: (square_slope(real).sqrt() - 1) ** 2),
        (OneCentered(at="fake"), lambda _r, fake: (square_slope(fake).sqrt() - 1) ** 2),
        (NoPenalty(), lambda _r, _f: torch.zeros(5)),
        (Clip(), lambda _r, _f: torch.zeros(5)),
    ],
    ids=lambda part: "truth" if callable(part) and not isinstance(part, Penalty) else repr(part),
)
def test_closed_forms(penalty: Penalty, truth: Callable[[Tensor, Tensor], Tensor]):
    real, fake = points(0), points(1)
    got = penalty(seen_by(quadratic, real, fake))
    torch.testing.assert_close(got.detach(), truth(real, fake).to(got), rtol=1e-6, atol=1e-9)


def test_interpolates_are_uniform_on_the_line_between():
    n = 20_000
    real, fake = torch.tensor([[1.0, 0.0]]).expand(n, 2).double(), torch.tensor([[-3.0, 0.0]]).expand(n, 2).double()
    torch.manual_seed(0)
    got = ZeroCentered()(seen_by(quadratic, real, fake)).detach()
    # x₁ = −3 + 4u, so the square slope is (4u)² + 16, of mean 16/3 + 16.
    assert abs(got.mean() - (16 / 3 + 16) / 2) < 5 * got.std() / n**0.5
    assert got.min() >= 8
    assert got.max() <= 16


def test_a_discriminator_of_slope_one_is_not_penalized():
    got = OneCentered()(seen_by(lambda x: x @ PULL / 5, points(0), points(1)))
    torch.testing.assert_close(got, torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_penalty_trains_the_discriminator():
    weight = PULL.clone().requires_grad_()
    cost = R1()(seen_by(lambda x: x @ weight, points(0), points(1))).mean()
    (gradient,) = torch.autograd.grad(cost, weight)
    torch.testing.assert_close(gradient, PULL)  # of ½ ‖a‖²


@pytest.mark.parametrize("every", [1, 4, 16])
def test_lazy_application_has_the_same_weight_in_all(every: int):
    penalty = R1(gamma=0.3, every=every)
    weights = [float(penalty.weight(0.0)) if penalty.applies(step) else 0.0 for step in range(32)]
    assert sum(weights) == pytest.approx(32 * 0.3)
    assert sum(weight > 0 for weight in weights) == 32 // every


def test_the_weight_falls_geometrically():
    penalty = R1R2(gamma=1.0, final=0.01)
    assert [float(penalty.weight(done)) for done in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.1, 0.01])


def test_consensus_is_half_the_square_of_the_game_s_gradients():
    a, b = (nn.Parameter(torch.tensor([value])) for value in (2.0, 3.0))
    game = [((a * b).sum(), [a]), ((-a * b).sum(), [b])]  # the bilinear game: v = (b, −a)
    value = Consensus().of_game(game)
    assert value.item() == pytest.approx((2**2 + 3**2) / 2)
    gradients = torch.autograd.grad(value, [a, b])
    assert [g.item() for g in gradients] == pytest.approx([2.0, 3.0])  # pulls both toward the equilibrium at 0


def test_clipping_clamps_every_weight():
    discriminator = nn.Linear(4, 3)
    Clip(bound=0.02).after(discriminator)
    assert max(p.abs().max().item() for p in discriminator.parameters()) == pytest.approx(0.02)


def test_other_penalties_leave_the_weights():
    discriminator = nn.Linear(4, 3)
    before = discriminator.weight.detach().clone()
    R1().after(discriminator)
    assert torch.equal(discriminator.weight, before)


def test_which_pairs_are_refused():
    refused = {
        (loss.type_name, penalty.type_name)
        for loss in AdversarialLoss.members().values()
        for penalty in Penalty.members().values()
        if penalty().incompatibility(loss())
    }
    others = set(AdversarialLoss.members()) - {"wasserstein"}
    expected = {(loss, penalty) for loss in others for penalty in ("clip", "one-centered")}
    assert refused == expected | {("wasserstein", "consensus")}
