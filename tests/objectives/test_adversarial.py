"""The GAN losses: signs of derivatives, best discriminators, lowest costs on finite sets, shift invariance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize_scalar
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy, wasserstein_distance

from latentia.errors import ConfigurationError, UnsupportedError
from latentia.objectives import (
    FGAN,
    AdversarialLoss,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Relativistic,
    Wasserstein,
)
from latentia.objectives.f_gan import DIVERGENCES

LOSSES: list[AdversarialLoss] = [
    Minimax(),
    NonSaturating(),
    LeastSquares(),
    Hinge(),
    Wasserstein(),
    Relativistic(),
    *(FGAN(f=f) for f in DIVERGENCES),
]
LOCAL = [loss for loss in LOSSES if not isinstance(loss, Wasserstein)]
SEPARABLE = [loss for loss in LOCAL if not isinstance(loss, Relativistic)]
CLASSIC = [Minimax(), NonSaturating()]


def name_of(loss: AdversarialLoss) -> str:
    return f"{loss.type_name}-{loss.f}" if isinstance(loss, FGAN) else loss.type_name


def two_distributions(seed: int, n: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.dirichlet(3 * np.ones(n))), torch.from_numpy(rng.dirichlet(3 * np.ones(n)))


def expected(loss: AdversarialLoss, p: torch.Tensor, q: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """E over independent x ~ p, y ~ q of the discriminator's cost, for the logits t of all points."""
    n = len(t)
    costs = loss.discriminator(t.repeat_interleave(n), t.repeat(n)).reshape(n, n)
    return (p.unsqueeze(1) * q * costs).sum()


def test_the_table_holds_every_loss():
    assert {loss.type_name for loss in LOSSES} == set(AdversarialLoss.members())
    assert {loss.f for loss in LOSSES if isinstance(loss, FGAN)} == set(DIVERGENCES)


@pytest.mark.parametrize("loss", LOSSES, ids=name_of)
def test_costs_are_unreduced_and_differentiable(loss: AdversarialLoss):
    real, fake = torch.randn(2, 7).unbind()
    assert loss.discriminator(real, fake).shape == (7,)
    assert loss.generator(real, fake).shape == (7,)
    half = loss.discriminator(real.bfloat16(), fake.bfloat16())
    assert half.dtype == loss.generator(real.bfloat16(), fake.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("loss", LOSSES, ids=name_of)
def test_signs_of_the_derivatives(loss: AdversarialLoss):
    low, high = (max(min(end, 6.0), -6.0) for end in loss.monotone)
    inside = torch.linspace(low, high, 52, dtype=torch.float64)[1:-1]
    real, fake = (t.clone().requires_grad_() for t in (inside, inside.flip(0)))
    by_real, by_fake = torch.autograd.grad(loss.discriminator(real, fake).sum(), [real, fake])
    (of_generator,) = torch.autograd.grad(loss.generator(real.detach(), fake).sum(), fake)
    assert (by_real <= 0).all()
    assert (by_fake >= 0).all()
    assert (of_generator < 0).all()
    strict = slice(None) if not isinstance(loss, Hinge) else real.abs() < 1
    assert (by_real[strict] < 0).all()
    assert (by_fake[slice(None) if not isinstance(loss, Hinge) else fake.abs() < 1] > 0).all()


@pytest.mark.parametrize("loss", LOSSES, ids=name_of)
def test_gradients_ignore_a_common_shift_only_where_declared(loss: AdversarialLoss):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 20, dtype=torch.float64, generator=generator)

    def gradients(shift: float) -> torch.Tensor:
        real, fake = (logits + shift).requires_grad_().unbind()
        of_discriminator = torch.autograd.grad(loss.discriminator(real, fake).sum(), [real, fake])
        of_generator = torch.autograd.grad(loss.generator(real.detach(), fake).sum(), fake)
        return torch.stack([*of_discriminator, *of_generator])

    same = torch.allclose(gradients(0.0), gradients(3.0), rtol=0, atol=1e-12)
    assert same == loss.shift_invariant


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("loss", SEPARABLE, ids=name_of)
def test_the_declared_optimum_is_what_minimization_finds(loss: AdversarialLoss, seed: int):
    p, q = two_distributions(seed)
    found = []
    for i in range(len(p)):

        def cost(t: float, i: int = i) -> float:
            both = torch.tensor([t], dtype=torch.float64)
            # E over x ~ p and y ~ q splits into a part for each point; the cost is that of real plus that of fake.
            zero = torch.zeros(1, dtype=torch.float64)
            of_real = loss.discriminator(both, zero) - loss.discriminator(zero, zero)
            of_fake = loss.discriminator(zero, both) - loss.discriminator(zero, zero)
            return (p[i] * of_real + q[i] * of_fake).item()

        found.append(minimize_scalar(cost, bounds=(-60, 60), method="bounded", options={"xatol": 1e-10}).x)
    best = loss.optimal_logit(p.log(), q.log())
    # σ brings the infinite optimum of total variation, which a search only approaches, to a finite number.
    torch.testing.assert_close(torch.sigmoid(torch.tensor(found)), torch.sigmoid(best), rtol=0, atol=2e-6)
    reached = expected(loss, p, q, torch.tensor(found, dtype=torch.float64)).item()
    # The search knows its place to about √ε · |t|, and at the hinge's kink the cost grows by up to 2 for each unit.
    assert reached == pytest.approx(loss.least_cost(p, q).item(), abs=1e-7)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_relativistic_optimum_is_the_log_ratio(seed: int):
    loss = Relativistic()
    p, q = two_distributions(seed)
    t = torch.zeros(len(p), dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [t], max_iter=500, tolerance_grad=1e-14, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        search.zero_grad()
        value = expected(loss, p, q, t)
        value.backward()
        return value

    search.step(closure)
    best = loss.optimal_logit(p.log(), q.log())
    torch.testing.assert_close(t.detach() - t.detach().mean(), best - best.mean(), rtol=0, atol=1e-5)
    assert expected(loss, p, q, t).item() == pytest.approx(loss.least_cost(p, q).item(), abs=1e-12)


@pytest.mark.parametrize("loss", LOCAL, ids=name_of)
def test_no_other_logits_have_a_lower_cost(loss: AdversarialLoss):
    p, q = two_distributions(5)
    best = loss.optimal_logit(p.log(), q.log()).clamp(-40, 40)
    generator = torch.Generator().manual_seed(1)
    for scale in (1e-3, 0.1, 1.0):
        other = best + scale * torch.randn(len(p), dtype=torch.float64, generator=generator)
        assert expected(loss, p, q, other) >= loss.least_cost(p, q) - 1e-12


@pytest.mark.parametrize("loss", LOCAL, ids=name_of)
def test_equal_distributions_have_the_highest_lowest_cost(loss: AdversarialLoss):
    p, q = two_distributions(6)
    assert loss.least_cost(p, p) > loss.least_cost(p, q)


def test_divergences_against_scipy():
    p, q = two_distributions(7)
    jsd = jensenshannon(p.numpy(), q.numpy()) ** 2
    kl, reverse = entropy(p.numpy(), q.numpy()), entropy(q.numpy(), p.numpy())
    for loss in CLASSIC:
        assert loss.least_cost(p, q).item() == pytest.approx(math.log(4) - 2 * jsd, abs=1e-12)
    assert FGAN(f="kl").least_cost(p, q).item() == pytest.approx(-kl, abs=1e-12)
    assert FGAN(f="reverse-kl").least_cost(p, q).item() == pytest.approx(-reverse, abs=1e-12)
    assert FGAN(f="jensen-shannon").least_cost(p, q).item() == pytest.approx(-2 * jsd, abs=1e-12)
    pairs = np.outer(p.numpy(), q.numpy())
    of_pairs = jensenshannon(pairs.ravel(), pairs.T.ravel()) ** 2
    assert Relativistic().least_cost(p, q).item() == pytest.approx(math.log(2) - of_pairs, abs=1e-12)


def test_disjoint_distributions():
    p, q = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()
    assert Minimax().least_cost(p, q).item() == pytest.approx(0, abs=1e-15)
    assert Hinge().least_cost(p, q).item() == 0
    assert LeastSquares().least_cost(p, q).item() == 0
    assert FGAN(f="kl").least_cost(p, q).item() == -math.inf
    assert FGAN(f="pearson").least_cost(p, q).item() == -math.inf
    assert FGAN(f="total-variation").least_cost(p, q).item() == -1


def test_the_wasserstein_discriminator_of_slope_one_reaches_w1():
    p, q = two_distributions(3)
    x = np.sort(np.random.default_rng(3).normal(size=len(p)))
    rows, limits = [], []
    for i in range(len(x)):
        for j in range(len(x)):
            if i != j:
                row = np.zeros(len(x))
                row[i], row[j] = 1, -1
                rows.append(row)
                limits.append(abs(x[i] - x[j]))
    discriminator = linprog((q - p).numpy(), A_ub=np.array(rows), b_ub=limits, bounds=(-100, 100)).x
    reached = expected(Wasserstein(), p, q, torch.from_numpy(discriminator)).item()
    assert reached == pytest.approx(-wasserstein_distance(x, x, p.numpy(), q.numpy()), abs=1e-9)
    for method in (Wasserstein().optimal_logit, Wasserstein().least_cost):
        with pytest.raises(UnsupportedError, match="wasserstein"):
            method(p, q)


def test_the_nonsaturating_generator_descends_reverse_kl_less_twice_jsd():
    # Arjovsky and Bottou 2017, theorem 2.5, at the best discriminator, along every direction that keeps Σ q = 1.
    p, q = two_distributions(4)
    free = q.log().requires_grad_()
    distribution = free.softmax(0)
    best = NonSaturating().optimal_logit(p.log(), distribution.log()).detach()
    cost = (distribution * NonSaturating().generator(None, best)).sum()
    middle = (p + distribution) / 2
    jsd = ((p * (p / middle).log()).sum() + (distribution * (distribution / middle).log()).sum()) / 2
    target = (distribution * (distribution / p).log()).sum() - 2 * jsd
    (left,) = torch.autograd.grad(cost, free, retain_graph=True)
    (right,) = torch.autograd.grad(target, free)
    torch.testing.assert_close(left, right, rtol=0, atol=1e-12)
    (minimax,) = torch.autograd.grad((free.softmax(0) * Minimax().generator(None, best)).sum(), free)
    assert not torch.allclose(minimax, right, atol=1e-3)  # the two are different games


def test_only_minimax_loses_its_gradient_to_a_certain_discriminator():
    fake = torch.tensor([-50.0, -1e4], requires_grad=True)
    (saturated,) = torch.autograd.grad(Minimax().generator(None, fake).sum(), fake)
    (full,) = torch.autograd.grad(NonSaturating().generator(None, fake).sum(), fake)
    assert saturated.abs().max() < 1e-20
    torch.testing.assert_close(full, torch.tensor([-1.0, -1.0]))


def test_the_relativistic_generator_needs_real_logits():
    with pytest.raises(ValueError, match="real"):
        Relativistic().generator(None, torch.zeros(2))


def test_an_unknown_divergence_is_refused():
    with pytest.raises(ConfigurationError, match=r"f: .*kl"):
        AdversarialLoss.parse({"type": "f-gan", "f": "chi"})
