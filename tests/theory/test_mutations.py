"""Break the code under test, one sign or reduction at a time: `verify` must say so."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Categorical, Independent

from latentia.distributions import Bernoulli
from latentia.divergences import f_divergence, jensen_shannon, kl, total_variation, wasserstein
from latentia.estimate import Estimate
from latentia.integration import grid
from latentia.models import finite
from latentia.objectives import R1, Minimax, NonSaturating
from latentia.theory import beyond, choose, small_models, statements, verify

Patch = pytest.MonkeyPatch


def negated_relative_entropy(patch: Patch) -> None:
    real = type(kl).terms
    patch.setattr(type(kl), "terms", lambda self, p, q: -real(self, p, q))


def closed_form_without_its_half(patch: Patch) -> None:
    real = f_divergence.gaussian_kl
    patch.setattr(f_divergence, "gaussian_kl", lambda *a: 2 * real(*a))


def jensen_shannon_weighted_by_one(patch: Patch) -> None:
    real = type(jensen_shannon).terms
    patch.setattr(type(jensen_shannon), "terms", lambda self, p, q: 2 * real(self, p, q))


def jensen_shannon_against_the_sum_not_the_mean(patch: Patch) -> None:
    patch.setattr(f_divergence, "_LOG_2", 0.0)


def total_variation_without_its_half(patch: Patch) -> None:
    real = f_divergence.integrate_pair

    def twice(p, q, terms, *, name, **options):
        factor = 2 if name == total_variation.name else 1
        return real(p, q, lambda a, b: factor * terms(a, b), name=name, **options)

    patch.setattr(f_divergence, "integrate_pair", twice)


def wasserstein_without_absolute_values(patch: Patch) -> None:
    def signed(p, q, order):
        return (p.mean - q.mean).item() if order == 1 else 0.0

    patch.setattr(wasserstein, "_known", lambda p, q, order: Estimate(signed(p, q, order), "w", unit="1"))


def bures_without_the_cross_term(patch: Patch) -> None:
    def wrong(shift, first, second):
        return (shift.square().sum() + first.square().sum() + second.square().sum()).item()

    patch.setattr(wasserstein, "bures", wrong)


def log_mean_exp_without_log_k(patch: Patch) -> None:
    patch.setattr(beyond, "log_mean_exp", lambda values: torch.logsumexp(values, dim=0))


def bernoulli_of_the_wrong_sign(patch: Patch) -> None:
    def distribution(self, parameters, shared=None, event_dims=1):
        return Independent(TorchBernoulli(logits=-parameters, validate_args=False), 3, validate_args=False)

    patch.setattr(Bernoulli, "distribution", distribution)


def posterior_without_the_prior(patch: Patch) -> None:
    def posterior(self, x):
        return Categorical(logits=self.log_joint(x) - self.prior.logits)

    patch.setattr(finite.FiniteLatentModel, "posterior", posterior)


def bound_with_the_entropy_subtracted(patch: Patch) -> None:
    def bound(self, x, q):
        return (q * self.log_joint(x)).sum(-1) + torch.special.xlogy(q, q).sum(-1)

    patch.setattr(finite.FiniteLatentModel, "bound", bound)


def standard_errors_divided_by_root_n_twice(patch: Patch) -> None:
    real = Estimate.mean.__func__

    def mean(cls, values, **fields):
        made = real(cls, values, **fields)
        return Estimate(made.value, made.name, (made.stderr or 0) / math.sqrt(made.n), made.n, made.unit)

    patch.setattr(Estimate, "mean", classmethod(mean))


def generator_on_the_discriminators_side(patch: Patch) -> None:
    real = Minimax.generator
    patch.setattr(Minimax, "generator", lambda self, real_logits, fake: -real(self, real_logits, fake))


def non_saturating_cost_swapped_for_minimax(patch: Patch) -> None:
    patch.setattr(NonSaturating, "generator", Minimax.generator)


def best_discriminator_upside_down(patch: Patch) -> None:
    def optimal_logit(self, log_p, log_q):
        return log_q - log_p

    patch.setattr(Minimax, "optimal_logit", optimal_logit)


def gradient_penalty_without_its_half(patch: Patch) -> None:
    real = R1.__call__
    patch.setattr(R1, "__call__", lambda self, seen: 2 * real(self, seen))


def gradient_penalty_of_the_wrong_sign(patch: Patch) -> None:
    real = R1.__call__
    patch.setattr(R1, "__call__", lambda self, seen: -real(self, seen))


def grid_without_its_weights(patch: Patch) -> None:
    patch.setattr(grid.Grid, "log_weights", lambda self: torch.zeros(len(self), dtype=torch.float64))
    real = grid.Grid.blocks

    def blocks(self, size: int = 65_536) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for points, log_weight in real(self, size):
            yield points, torch.zeros_like(log_weight)

    patch.setattr(grid.Grid, "blocks", blocks)
    small_models.reached_by_bound.cache_clear()
    small_models.reached_directly.cache_clear()


def em_without_responsibilities(patch: Patch) -> None:
    def posterior(self, x):
        worst = self.log_joint(x).argmin(-1)
        return Categorical(probs=torch.nn.functional.one_hot(worst, self.size).double() + 1e-3)

    patch.setattr(finite.FiniteLatentModel, "posterior", posterior)


MUTATIONS: list[tuple[Callable[[Patch], None], str]] = [
    (negated_relative_entropy, "1d"),
    (closed_form_without_its_half, "1h.any"),
    (jensen_shannon_weighted_by_one, "3d"),
    (jensen_shannon_against_the_sum_not_the_mean, "beyond.jsd"),
    (total_variation_without_its_half, "beyond.pinsker"),
    (wasserstein_without_absolute_values, "3e"),
    (bures_without_the_cross_term, "beyond.bures"),
    (log_mean_exp_without_log_k, "beyond.iwae"),
    (bernoulli_of_the_wrong_sign, "1a"),
    (posterior_without_the_prior, "1j"),
    (posterior_without_the_prior, "1c.finite"),
    (bound_with_the_entropy_subtracted, "1c.finite"),
    (standard_errors_divided_by_root_n_twice, "beyond.gradient"),
    (generator_on_the_discriminators_side, "3a"),
    (non_saturating_cost_swapped_for_minimax, "3a"),
    (best_discriminator_upside_down, "3c"),
    (gradient_penalty_without_its_half, "beyond.dirac"),
    (gradient_penalty_of_the_wrong_sign, "beyond.dirac"),
    (grid_without_its_weights, "1c.trained"),
    (em_without_responsibilities, "beyond.em"),
]


@pytest.mark.parametrize(("break_it", "item"), MUTATIONS, ids=lambda value: getattr(value, "__name__", value))
def test_a_broken_sign_or_reduction_is_seen(break_it: Callable[[Patch], None], item: str) -> None:
    chosen = [s for s in choose(statements(), [item]) if s.item == item]
    with pytest.MonkeyPatch.context() as patch:
        break_it(patch)
        (verdict,) = verify(chosen)
    assert not verdict.holds
    assert not verdict.failure, "it should be a relation that fails, not an error on the way"


def test_without_a_mutation_they_hold() -> None:
    small_models.reached_by_bound.cache_clear()
    small_models.reached_directly.cache_clear()
    items = {item for _, item in MUTATIONS}
    assert all(verdict.holds for verdict in verify([s for s in statements() if s.item in items]))
