r"""Annealed importance sampling: bounds of log p(x) on both sides, for z of any dimension.

A chain moves from a tractable r₀ (prior or encoder) to the joint p(x, z) through

    log r_t(z) = (1 − β_t) log r₀(z) + β_t log p(x, z),      0 = β₀ < … < β_T = 1,

with a Hamiltonian Monte Carlo transition at each temperature (Neal 2001; Neal 2011). The weight

    log w = Σ_t (β_t − β_{t−1}) (log p(x, z_{t−1}) − log r₀(z_{t−1}))

has E w = p(x), so E log of the mean of K weights is a *lower* bound. Run backwards from an exact posterior draw, the
same chain gives E[1/w] = 1/p(x), an *upper* bound. Posterior draws are available for simulated data only: draw z from
the prior, then x from p(x|z), and z is one (bidirectional Monte Carlo; Grosse, Ghahramani and Adams 2015). The gap
between the two bounds on simulated data shows how good the settings are for real data of the same kind.

Step sizes are adapted by pilot chains, which are discarded, and are fixed while the estimating chains run: a step that
is adapted inside the chain makes its transitions depend on the past and biases its weights.
"""

from __future__ import annotations

__all__ = ["annealed_log_likelihood", "bidirectional_monte_carlo"]

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor
from torch.distributions import Distribution

from latentia.distributions.codes import OneHotCodes
from latentia.distributions.sphere import is_on_sphere
from latentia.errors import ConfigurationError, UnsupportedError
from latentia.estimate import Estimate
from latentia.likelihood.importance import encode
from latentia.likelihood.latent_model import LatentModel
from latentia.likelihood.quadrature import LikelihoodResult

Start = Literal["prior", "encoder"]

LEAPFROG = 10
TARGET = 0.65  # acceptance rate to tune to (Beskos et al. 2013)
PILOT, PILOT_CHAINS = 0.2, 4  # of the temperatures, and how many of the chains, in the pilot run
CHAINS_AT_ONCE = 1024  # on a processor, whose cache then holds what a layer writes: 15 % faster than 4096
CHAINS_AT_ONCE_ELSEWHERE = 4096


class Chains(TypedDict, total=False):
    """The chains of annealed importance sampling.

    Keys:
        chains: independent chains for each image, 16 by default.
        start: r₀, `prior` by default or `encoder`.
        seed: of the draws, 0 by default; the caller's generator is not changed.
        seconds: time allowed, unlimited by default.
        progress: is called with the number of images done, of all images, and a name.
    """

    chains: int
    start: Start
    seed: int
    seconds: float
    progress: Callable[[int, int, str], None] | None


@dataclass(frozen=True)
class _Plan:
    """`Chains` with their defaults, and the temperatures."""

    temperatures: int
    chains: int = 16
    start: Start = "prior"
    seed: int = 0
    seconds: float = math.inf
    progress: Callable[[int, int, str], None] | None = None

    def __post_init__(self) -> None:
        if self.temperatures < 1 or self.chains < 1 or self.start not in ("prior", "encoder"):
            raise ConfigurationError(
                "annealed: temperatures and chains must be >= 1 and start prior or encoder; "
                f"given {self.temperatures}, {self.chains}, {self.start!r}"
            )

    @property
    def schedule(self) -> Tensor:
        """0 = β₀ < … < β_T = 1: a sigmoid in t, densest at both ends (Grosse et al. 2015, section 6)."""
        ramp = torch.sigmoid(torch.linspace(-4, 4, self.temperatures + 1, dtype=torch.float64))
        return (ramp - ramp[0]) / (ramp[-1] - ramp[0])

    def reporter(self, before: int, size: int, total: int, what: str) -> Callable[[float], None]:
        """What reports the share of the temperatures that `size` images have passed, after `before` others."""
        if self.progress is None:
            return lambda _: None
        progress = self.progress
        return lambda share: progress(before + int(share * size), total, what)

    def images_at_once(self, device: torch.device) -> int:
        at_once = CHAINS_AT_ONCE if device.type == "cpu" else CHAINS_AT_ONCE_ELSEWHERE
        return max(1, at_once // self.chains)

    def subject(self, model: Any) -> LatentModel:
        """The model; it has an encoder if the chains start from one."""
        with torch.no_grad():
            subject = LatentModel.from_model(model)
        if self.start == "encoder" and subject.encoder is None:
            raise UnsupportedError("annealing from the encoder needs one, and this model has none; use start='prior'")
        if isinstance(subject.prior, OneHotCodes):
            raise UnsupportedError(
                "annealing moves z through R^d, and here z is a code; use method='exact' where the codes can be "
                "enumerated, or method='importance', which gives bounds from both sides on simulated examples"
            )
        if is_on_sphere(subject.prior):
            raise UnsupportedError(
                "annealing moves z through R^d, and here z lies on a sphere; use method='exact' for latent of 2 or 3, "
                "or method='importance' (on the command line --likelihood importance)"
            )
        return subject

    def settings(self, begin: float, accepted: list[float]) -> dict[str, Any]:
        """Settings of the estimates."""
        finite = [rate for rate in accepted if math.isfinite(rate)]
        return {
            "temperatures": self.temperatures,
            "chains": self.chains,
            "start": self.start,
            "leapfrog": LEAPFROG,
            "acceptance": round(sum(finite) / len(finite), 3) if finite else None,
            "seed": self.seed,
            "seconds": round(time.monotonic() - begin, 3),
        }


@dataclass(frozen=True)
class Bidirectional:
    """Bounds of log p(x) from both sides, on images drawn from the model itself.

    Attributes:
        images: the simulated images, (N, *event_shape).
        lower: of each image, in expectation, (N,).
        upper: of each image, in expectation, (N,).
        settings: of the chains, and their cost.
    """

    images: Tensor
    lower: Tensor
    upper: Tensor
    settings: dict[str, Any]

    def estimates(self) -> list[Estimate]:
        """Mean lower bound, mean upper bound and mean gap, in nats."""
        about: dict[str, Any] = {
            "method": "bidirectional monte carlo",
            "settings": {"stderr_over": "images", **self.settings},
        }
        return [
            Estimate.mean(self.lower, name="simulated_log_likelihood_lower", kind="lower bound", **about),
            Estimate.mean(self.upper, name="simulated_log_likelihood_upper", kind="upper bound", **about),
            Estimate.mean(self.upper - self.lower, name="bidirectional_gap", kind="upper bound", **about),
        ]


def annealed_log_likelihood(
    model: Any, images: Tensor, temperatures: int = 500, **chains: Unpack[Chains]
) -> LikelihoodResult:
    """A lower bound (in expectation) of log p(x) of each image by annealed importance sampling.

    Args:
        model: a `VAE`, a run, or a `LatentModel` (`LatentModel.from_generator` makes one of a generator).
        images: (N, *event_shape).
        temperatures: T, the number of steps from r₀ to the joint; more make the bound tighter.
        **chains: see `Chains`.

    Raises:
        UnsupportedError: `start="encoder"` for a model without one, or time is up.
        DataError: images that the likelihood cannot score.
    """
    begin = time.monotonic()
    plan = _Plan(temperatures, **chains)
    subject, schedule = plan.subject(model), plan.schedule
    values, errors, accepted = [], [], []
    with subject.evaluating(), torch.random.fork_rng(devices=[]):
        subject.require_scorable(images)
        subject.require_deterministic(images)
        torch.manual_seed(plan.seed)
        for x in images.split(plan.images_at_once(subject.device)):
            walk = _Walk(subject, x, plan.chains, plan.start)
            walk.end = begin + plan.seconds
            walk.report = plan.reporter(sum(map(len, values)), len(x), len(images), "chains")
            steps = walk.tune(schedule)
            log_weight = walk.forward(schedule, steps)
            values.append(log_weight.logsumexp(0) - math.log(plan.chains))
            errors.append(_delta(log_weight))
            accepted.append(walk.acceptance)
    settings = plan.settings(begin, accepted)
    return LikelihoodResult(
        torch.cat(values), torch.cat(errors), "lower bound", "annealed importance sampling", settings, random=True
    )


def bidirectional_monte_carlo(
    model: Any, count: int = 100, temperatures: int = 500, **chains: Unpack[Chains]
) -> Bidirectional:
    """Bounds from both sides on `count` images drawn from the model; see `annealed_log_likelihood` for the arguments.

    The reverse chains of an image all start from the same exact posterior draw, the z that the image was drawn from.
    """
    begin = time.monotonic()
    plan = _Plan(temperatures, **chains)
    subject, schedule = plan.subject(model), plan.schedule
    lower, upper, accepted, images = [], [], [], []
    with subject.evaluating(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        left = count
        while left:
            n = min(left, plan.images_at_once(subject.device))
            z = subject.prior.sample(torch.Size([n])).to(subject.device, subject.dtype)
            x = subject.decoder(z).sample()
            walk = _Walk(subject, x, plan.chains, plan.start)
            walk.end = begin + plan.seconds
            walk.report = plan.reporter(count - left, n, count, "simulated images")
            steps = walk.tune(schedule)
            forward = walk.forward(schedule, steps)
            backward = walk.backward(schedule, steps, z)
            lower.append(forward.logsumexp(0) - math.log(plan.chains))
            upper.append(-((-backward).logsumexp(0) - math.log(plan.chains)))
            accepted.append(walk.acceptance)
            images.append(x.cpu())
            left -= n
    settings = plan.settings(begin, accepted)
    return Bidirectional(torch.cat(images), torch.cat(lower), torch.cat(upper), settings)


class _State(NamedTuple):
    """Chains (K, N, d), and what their log r_β = start + β gap is made of, with the gradients by z."""

    z: Tensor
    start: Tensor
    gap: Tensor
    start_slope: Tensor
    gap_slope: Tensor

    def value(self, beta: float) -> Tensor:
        """log r_β, (K, N)."""
        return self.start + beta * self.gap

    def slope(self, beta: float) -> Tensor:
        """Its gradient, (K, N, d)."""
        return self.start_slope + beta * self.gap_slope


class _Walk:
    """Chains for a batch of images."""

    def __init__(self, model: LatentModel, x: Tensor, chains: int, start: Start):
        self.model, self.chains = model, chains
        self.x = x.to(model.device, model.dtype)
        self.images = self.x.repeat(chains, *[1] * (x.dim() - 1))
        q: Distribution | None = encode(model.encoder, self.x) if start == "encoder" and model.encoder else None
        self.q = q
        # Steps are in units of the start's scale, so that one size serves every direction.
        if q is None:
            self.scale = model.prior.sample(torch.Size([2000])).std(0).to(self.x).expand(len(x), -1)
        else:
            self.scale = q.stddev
        self.end = math.inf
        self.report: Callable[[float], None] = lambda _: None
        self.acceptance = math.nan

    def tune(self, schedule: Tensor) -> Tensor:
        """A step size for each temperature and image, (T, N), from pilot chains."""
        count = max(2, math.ceil(PILOT * (len(schedule) - 1)))
        pilot = schedule[torch.linspace(0, len(schedule) - 1, count + 1).round().long()]
        state = self._at(self._initial(min(self.chains, PILOT_CHAINS)))
        step = torch.full((len(self.x),), 0.5, device=state.z.device, dtype=state.z.dtype)
        found = []
        for beta in pilot[1:].tolist():
            for _ in range(3):
                state, accepted = self._move(state, beta, step)
                step = step * torch.exp(0.8 * (accepted - TARGET))
            found.append(step)
            self._check_time(0, len(schedule) - 1)
        # Each estimating temperature takes the step of the pilot's next one.
        place = torch.searchsorted(pilot[1:].contiguous(), schedule[1:].contiguous()).clamp(max=count - 1)
        return torch.stack(found)[place]

    def forward(self, schedule: Tensor, steps: Tensor) -> Tensor:
        """log w from r₀ to the joint, (K, N), float64."""
        state = self._at(self._initial(self.chains))
        log_weight = torch.zeros_like(state.gap, dtype=torch.float64)
        rates = []
        betas = schedule.tolist()
        for t in range(1, len(betas)):
            log_weight += (betas[t] - betas[t - 1]) * state.gap.double()
            if t < len(betas) - 1:  # the last weight needs no move after it
                state, accepted = self._move(state, betas[t], steps[t - 1])
                rates.append(accepted.mean().item())
            self._check_time(t, len(betas) - 1)
        self.acceptance = sum(rates) / max(1, len(rates)) if rates else math.nan
        return log_weight.cpu()

    def backward(self, schedule: Tensor, steps: Tensor, z: Tensor) -> Tensor:
        """log w of the reversed chain from posterior draws z (N, d): E exp(−log w) = 1/p(x). (K, N), float64."""
        state = self._at(z.expand(self.chains, *z.shape))
        log_weight = torch.zeros_like(state.gap, dtype=torch.float64)
        betas = schedule.tolist()
        for t in range(len(betas) - 1, 0, -1):
            if t < len(betas) - 1:
                state, _ = self._move(state, betas[t], steps[t - 1])
            log_weight += (betas[t] - betas[t - 1]) * state.gap.double()
            self._check_time(len(betas) - t, len(betas) - 1)
        return log_weight.cpu()

    def _initial(self, chains: int) -> Tensor:
        if self.q is not None:
            return self.q.sample(torch.Size([chains]))
        return self.model.prior.sample(torch.Size([chains, len(self.x)])).to(self.x)

    def _at(self, z: Tensor) -> _State:
        """The state at z (K, N, d), for no more chains than the walk has."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            score = self.model.decoder(z.flatten(0, 1)).log_prob(self.images[: z.shape[0] * z.shape[1]])
            score = score.view(z.shape[:-1])
            prior = self.model.prior.log_prob(z)
            if self.q is None:
                start, gap = prior, score
                start_slope, gap_slope = _slope(prior, z), _slope(score, z)
            else:
                start = self.q.log_prob(z)
                gap = score + prior - start
                start_slope = _slope(start, z, keep=True)
                gap_slope = _slope(gap, z)
        return _State(z.detach(), start.detach(), gap.detach(), start_slope, gap_slope)

    def _move(self, state: _State, beta: float, step: Tensor) -> tuple[_State, Tensor]:
        """One HMC transition that leaves r_β invariant; the new states and each image's acceptance rate (N,)."""
        # A random number of leapfrog steps, drawn independently of the state, keeps r_β invariant and avoids cycles.
        count = int(torch.randint(LEAPFROG // 2, LEAPFROG + 1, ()))
        size = (step[:, None] * self.scale).unsqueeze(0)
        p = torch.randn_like(state.z)
        before = state.value(beta) - 0.5 * p.square().sum(-1)
        there = state
        for _ in range(count):
            p = p + 0.5 * size * there.slope(beta)
            there = self._at(there.z + size * p)
            p = p + 0.5 * size * there.slope(beta)
        after = there.value(beta) - 0.5 * p.square().sum(-1)
        chance = (after - before).nan_to_num(-torch.inf).clamp(max=0).exp()
        take = torch.rand_like(chance) < chance
        chosen = [
            torch.where(take if new.dim() == take.dim() else take[..., None], new, old)
            for new, old in zip(there, state, strict=True)
        ]
        return _State(*chosen), chance.mean(0)

    def _check_time(self, done: int, wanted: int) -> None:
        self.report(done / wanted)
        if time.monotonic() > self.end:
            raise UnsupportedError(
                f"annealing: time was up after {done} of {wanted} temperatures of the current batch; allow more "
                "seconds, or fewer images, chains or temperatures"
            )


def _slope(value: Tensor, z: Tensor, *, keep: bool = False) -> Tensor:
    """The gradient of each chain's value by its z; zero for a density that is constant, as a uniform one."""
    if not value.requires_grad:
        return torch.zeros_like(z)
    return torch.autograd.grad(value.sum(), z, retain_graph=keep, materialize_grads=True)[0]


def _delta(log_weight: Tensor) -> Tensor:
    """Standard error of log mean w over the chains (K, N), by the delta method; infinite for a single chain."""
    chains = len(log_weight)
    if chains == 1:
        return torch.full((log_weight.shape[1],), torch.inf, dtype=torch.float64)
    relative = (log_weight - log_weight.logsumexp(0) + math.log(chains)).exp()
    return relative.std(0) / math.sqrt(chains)
