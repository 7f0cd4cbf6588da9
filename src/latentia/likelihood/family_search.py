r"""The best q of any reparametrizable family for each image: the gaps of flows, mixtures and other posteriors.

A `Conditional` maps x to numbers and the numbers to q. The search changes the numbers of each image. Weights that
images share, as those of a flow, belong to the family: copies of them are fitted, too, each for `TOGETHER` images at
most, since that one set of weights serves all images is a part of the amortization. The search maximizes

    ELBO(q) = E_q[log p(x, z) − log q(z)]

by stochastic gradients without the score of q (Roeder et al. 2017), whose noise vanishes where q = p(z|x). A step is
scaled by the Fisher information of q, so that a mean moves by a share of q's own width. The start is the best of the
encoder's numbers, of those, among all images' numbers, under which draws of the exact posterior are most probable, and
of these when they are fitted to the draws. Where weights are fitted, the first steps make draws of the exact posteriors
more probable, so that q covers all modes. The images with the largest gaps are then fitted again, each alone.

Bounds are averages over draws. As log p(x) is exact, an average of log p(x) − log p(x, z) + log q(z) has little noise
where q is close to p(z|x).
"""

from __future__ import annotations

__all__ = ["FamilyGap", "search_family"]

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from latentia.distributions import Conditional, Stratified, weighted_draws
from latentia.errors import UnsupportedError
from latentia.likelihood.latent_model import LatentModel
from latentia.likelihood.posterior import GridPosterior
from latentia.objectives.score_table import score_pairs

ROUNDS = (0.1, 0.05, 0.02)  # learning rates, in units of the Fisher scale; each falls to zero along a cosine
STEPS, DRAWS = 100, 16  # of each round, and for each step
FISHER_DRAWS, FLOOR = 16, 0.01  # least information of a number, so that one without effect makes no long step
FITTED_LR, FITTED_STEPS, FITTED_DRAWS = 0.2, 200, 128  # of the start that covers the exact posterior
TOGETHER, TOGETHER_STEPS, COVERING_SHARE = 40, 1200, 0.4  # images, steps, and the share of steps that cover p(z|x)
TOGETHER_LR, WEIGHTS_LR, COVERING_DRAWS, POOL = 0.05, 2e-3, 32, 5000
AGAIN_SHARE, AGAIN_ABOVE, AGAIN_STEPS = 0.25, 0.01, 600  # of the images, those with gaps above are fitted alone
START_DRAWS, COMPARED, EVALUATED = 64, 256, 2000
DECODED_AT_ONCE = 20_000


@dataclass(frozen=True)
class FamilyGap:
    """The bounds of the encoder's q and of the best q that was found.

    Attributes:
        bound: ELBO of the encoder's q, (N,), and `bound_error`, its standard error over draws.
        best: ELBO of the best q found, (N,), and `best_error`.
        mean: of the best q, over draws, (N, d).
        covariance: likewise, (N, d, d).
        distribution: of the best q of one image, by its number.
    """

    bound: Tensor
    bound_error: Tensor
    best: Tensor
    best_error: Tensor
    mean: Tensor
    covariance: Tensor
    distribution: Callable[[int], Distribution]


def search_family(
    model: LatentModel, images: Tensor, posterior: GridPosterior, rows: Tensor, *, seed: int = 0
) -> FamilyGap:
    """Search the best q of the encoder's family for some images.

    Args:
        model: whose `source` has the encoder as a `Conditional`, `posterior`.
        images: (N, *event_shape), all of the posterior's first images.
        posterior: exact posteriors.
        rows: the images to take, (n,).
        seed: of the draws; the caller's generator is not changed.

    Raises:
        UnsupportedError: a model without such a conditional, or a q that cannot be reparametrized.
    """
    encoder = getattr(model.source, "posterior", None)
    if not isinstance(encoder, Conditional):
        raise UnsupportedError(
            "the best q is searched for encoders that are a Conditional (a network and a family), and this model's is "
            "not; its inference gap is log p(x) − ELBO"
        )
    shared = encoder.shared
    weights = copy.deepcopy(shared).requires_grad_(False) if isinstance(shared, nn.Module) else None

    def with_shared(shared: Any) -> Family:
        return lambda numbers: encoder.family.distribution(numbers, shared, 1)

    family = with_shared(shared if weights is None else weights)
    x = images[rows].to(model.device, model.dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        own = encoder.emit(x)
        q = family(own)
        if not q.has_rsample and not isinstance(q, Stratified):
            raise UnsupportedError(f"the best q is searched by gradients of draws, and {type(q).__name__} has none")
        start = _start(model, family, x, own, posterior, rows)
        if weights is None:
            fitted = _covering(family, start, _posterior_draws(posterior, rows, FITTED_DRAWS, start))
            start = _better(model, family, x, start, fitted)
        start = _better(model, family, x, own, start)
        bound, bound_error, *_ = _evaluate(model, family, own, x, EVALUATED)
        best: list[tuple[Tensor, ...]] = []
        chosen: list[tuple[Family, Tensor]] = []

        def fit(group: Tensor, steps: int) -> tuple[Family, Tensor]:
            drawn = _posterior_draws(posterior, rows[group], POOL, start)
            fitted, found = _fit_together(
                model, with_shared, cast(nn.Module, weights), x[group], start[group], drawn, steps
            )
            return with_shared(fitted), found

        for group in torch.arange(len(x)).split(len(x) if weights is None else TOGETHER):
            some, first = x[group], (family, start[group])
            if weights is None:
                found = start[group]
                for lr in ROUNDS:
                    found = torch.cat([_climb(model, family, part, n, lr) for part, n in _chunks(some, found, DRAWS)])
                second = family, found
            else:
                second = fit(group, TOGETHER_STEPS)
            a, b = (_evaluate(model, *one, some, COMPARED)[0] for one in (first, second))
            values = [_evaluate(model, *one, some, EVALUATED) for one in (first, second)]
            higher = b > a
            best.append(
                tuple(torch.where(higher.view(-1, *[1] * (u.dim() - 1)), v, u) for u, v in zip(*values, strict=True))
            )
            for row, is_second in enumerate(higher.tolist()):
                q, numbers = second if is_second else first
                chosen.append((q, numbers[row : row + 1]))
        found = [torch.cat(part) for part in zip(*best, strict=True)]
        if weights is not None:  # a few images whose modes the shared fit leaves out carry the mean of the gaps
            gaps = posterior.likelihood.values[rows.cpu()] - found[0]
            worst = gaps.argsort(descending=True)[: math.ceil(AGAIN_SHARE * len(x))]
            for row in worst[gaps[worst] > AGAIN_ABOVE].tolist():
                one = torch.tensor([row])
                alone = fit(one, AGAIN_STEPS)
                old, new = (_evaluate(model, q, numbers, x[one], EVALUATED) for q, numbers in (chosen[row], alone))
                if new[0] - new[1] > old[0] - old[1]:  # rare draws with a high cost show in the error first
                    chosen[row] = alone
                    for whole, value in zip(
                        found, _evaluate(model, alone[0], alone[1], x[one], EVALUATED), strict=True
                    ):
                        whole[row] = value[0]

    def distribution(row: int) -> Distribution:
        q, numbers = chosen[row]
        return q(numbers)

    value, error, mean, covariance = found
    return FamilyGap(bound, bound_error, value, error, mean, covariance, distribution)


Family = Callable[[Tensor], Distribution]


def _chunks(x: Tensor, numbers: Tensor, draws: int) -> list[tuple[Tensor, Tensor]]:
    size = max(1, DECODED_AT_ONCE // draws)
    return list(zip(x.split(size), numbers.split(size), strict=True))


def _start(
    model: LatentModel, family: Family, x: Tensor, own: Tensor, posterior: GridPosterior, rows: Tensor
) -> Tensor:
    """The better of each image's own numbers and of those of another image that cover its posterior best."""
    q, covering = family(own), []
    drawn = _posterior_draws(posterior, rows, START_DRAWS, own)
    for row in range(len(rows)):
        covering.append(int(q.log_prob(drawn[:, row, None]).mean(0).nan_to_num(-torch.inf).argmax()))
    return _better(model, family, x, own, own[torch.tensor(covering, device=own.device)])


def _posterior_draws(posterior: GridPosterior, rows: Tensor, count: int, like: Tensor) -> Tensor:
    """Draws from the exact posteriors of some images, (count, n, d)."""
    drawn = []
    for part in (posterior[row] for row in rows.tolist()):
        drawn.append(part.z[torch.multinomial(part.mass.clamp_min(0), count, replacement=True)])
    return torch.stack(drawn, 1).to(like)


@torch.enable_grad()
def _covering(family: Family, numbers: Tensor, drawn: Tensor) -> Tensor:
    """Numbers that make the exact posterior's draws (S, n, d) most probable, from a start: a start that covers it."""
    scale = _fisher_scale(family, numbers)
    change = torch.zeros_like(numbers, requires_grad=True)
    optimizer = torch.optim.Adam([change], lr=FITTED_LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, FITTED_STEPS)
    for _ in range(FITTED_STEPS):
        cost = -family(numbers + scale * change).log_prob(drawn).mean(0).sum()
        (gradient,) = torch.autograd.grad(cost, change)
        change.grad = gradient.nan_to_num(0.0, 0.0, 0.0)
        optimizer.step()
        schedule.step()
    return (numbers + scale * change).detach()


def _better(model: LatentModel, family: Family, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """For each image the numbers whose bound is higher, by draws that are not used again."""
    a, b = (_evaluate(model, family, numbers, x, COMPARED)[0] for numbers in (first, second))
    return torch.where((b > a)[:, None].to(first.device), second, first)


@torch.enable_grad()
def _climb(model: LatentModel, family: Family, x: Tensor, numbers: Tensor, lr: float) -> Tensor:
    """Adam on each image's numbers, in units of their Fisher scales."""
    scale = _fisher_scale(family, numbers)
    change = torch.zeros_like(numbers, requires_grad=True)
    optimizer = torch.optim.Adam([change], lr=lr, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        now = numbers + scale * change
        z, log_weights = weighted_draws(family(now), DRAWS)
        value = _log_joint(model, x, z) - family(now.detach()).log_prob(z).double()
        bound = value.mean(0) if log_weights is None else (log_weights.exp() * value).sum(0)
        (gradient,) = torch.autograd.grad(-bound.sum(), change)
        change.grad = gradient.nan_to_num(0.0, 0.0, 0.0)
        optimizer.step()
        schedule.step()
    return (numbers + scale * change).detach()


@torch.enable_grad()
def _fit_together(
    model: LatentModel,
    with_shared: Callable[[Any], Family],
    weights: nn.Module,
    x: Tensor,
    numbers: Tensor,
    drawn: Tensor,
    steps: int,
) -> tuple[nn.Module, Tensor]:
    """Adam on the numbers of some images and on a copy of the weights that they share.

    Args:
        model: whose joint density it is.
        with_shared: the family with other weights.
        weights: to start from; they are not changed.
        x: the images.
        numbers: to start from, (n, P).
        drawn: draws of the exact posteriors, (S, n, d).
        steps: how many.

    Returns:
        The weights and the numbers.
    """
    fitted = copy.deepcopy(weights).requires_grad_(True)
    stopped = copy.deepcopy(weights)
    for own, other in zip(stopped.parameters(), fitted.parameters(), strict=True):
        own.data = other.data  # the same memory, without gradients
    scale = _fisher_scale(with_shared(stopped), numbers)
    change = torch.zeros_like(numbers, requires_grad=True)
    parameters = [change, *fitted.parameters()]
    groups = [{"params": [change], "lr": TOGETHER_LR}, {"params": parameters[1:], "lr": WEIGHTS_LR}]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        now = numbers + scale * change
        q = with_shared(fitted)(now)
        if step < COVERING_SHARE * steps:
            cost = -q.log_prob(drawn[torch.randint(len(drawn), (COVERING_DRAWS,))]).mean(0).sum()
        else:
            z = q.rsample(torch.Size([DRAWS]))
            cost = (with_shared(stopped)(now.detach()).log_prob(z).double() - _log_joint(model, x, z)).mean(0).sum()
        for parameter, gradient in zip(parameters, torch.autograd.grad(cost, parameters), strict=True):
            parameter.grad = gradient.nan_to_num(0.0, 0.0, 0.0)
        optimizer.step()
        schedule.step()
    return fitted.requires_grad_(False), (numbers + scale * change).detach()


@torch.enable_grad()
def _fisher_scale(family: Family, numbers: Tensor) -> Tensor:
    """1/√F, (N, P), with F = E_q (∂ log q/∂ number)² from draws."""
    given = numbers.clone().requires_grad_()
    with torch.no_grad():
        z = family(numbers).sample(torch.Size([FISHER_DRAWS]))
    information = torch.zeros_like(numbers)
    for one in z:
        (score,) = torch.autograd.grad(family(given).log_prob(one).sum(), given)
        information += score.nan_to_num(0.0, 0.0, 0.0).square() / FISHER_DRAWS
    return (information + FLOOR).rsqrt()


@torch.no_grad()
def _evaluate(
    model: LatentModel, family: Family, numbers: Tensor, x: Tensor, draws: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """ELBO and its standard error over draws, (N,) each, and q's mean (N, d) and covariance (N, d, d), on the CPU."""
    parts = []
    for some, n in _chunks(x, numbers, draws):
        q = family(n)
        z = q.sample(torch.Size([draws]))
        value = (_log_joint(model, some, z) - q.log_prob(z).double()).cpu()
        centered = (z - z.mean(0)).double().cpu()
        covariance = torch.einsum("sni,snj->nij", centered, centered) / (draws - 1)
        parts.append((value.mean(0), value.std(0) / math.sqrt(draws), z.mean(0).double().cpu(), covariance))
    bound, error, mean, covariance = (torch.cat(part) for part in zip(*parts, strict=True))
    return bound.nan_to_num(-torch.inf), error, mean, covariance


def _log_joint(model: LatentModel, x: Tensor, z: Tensor) -> Tensor:
    """log p(x, z) for z (S, n, d) and images (n, …): (S, n), float64."""
    flat = cast(Tensor, z.flatten(0, 1))
    score = score_pairs(model.decoder(flat), x.repeat(len(z), *[1] * (x.dim() - 1)))
    return (score + model.log_prior(flat)).view(len(z), -1)
