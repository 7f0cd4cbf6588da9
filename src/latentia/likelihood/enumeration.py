r"""Posteriors, gaps and information of a model whose z has finitely many values, all by enumeration.

    p(zᵢ|x) = p(x, zᵢ) / p(x),      log p(x) = log Σᵢ p(x, zᵢ),      log p(x) − ELBO(q) = Σᵢ qᵢ log (qᵢ / p(zᵢ|x))

The bound of the best q of independent variables is found by coordinate ascent, from the encoder's q and from the
posterior's marginals; with one variable every q is of the family, and the approximation gap is 0.

The bound is greatest over all q with Σᵢ qᵢ = 1 where log p(x, zᵢ) − log qᵢ − 1 + λ = 0, that is at q = p(z|x), with the
multiplier λ = 1 − log p(x). `multiplier` climbs there from the encoder's q by mirror ascent, and reads λ off each code.
"""

from __future__ import annotations

__all__ = ["EnumeratedPosterior", "enumerate_posterior"]

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentia.distributions.codes import OneHotCodes
from latentia.estimate import Estimate
from latentia.likelihood.latent_model import LatentModel
from latentia.likelihood.quadrature import LikelihoodResult, solve
from latentia.objectives.score_table import scorer_for

MOST_NUMBERS = 30_000_000  # of the table of posteriors, images × codes
ROUNDS, CONVERGED = 200, 1e-9  # of coordinate ascent; the latter in nats
ASCENT = 60  # steps of mirror ascent, each of which halves the distance


@dataclass(frozen=True)
class EnumeratedPosterior:
    """Exact posteriors over codes, with the encoder's q where there is one.

    Attributes:
        likelihood: log p(x) of the images.
        codes: (M, d).
        log_prior: (M,).
        log_joint: log p(x, zᵢ), (N, M), float64.
        log_q: log q(zᵢ|x) of the encoder, (N, M), or None.
        variables: n, of independent variables; 1 for a set without that structure.
    """

    likelihood: LikelihoodResult
    codes: Tensor
    log_prior: Tensor
    log_joint: Tensor
    log_q: Tensor | None
    variables: int

    @property
    def log_posterior(self) -> Tensor:
        """log p(zᵢ|x), (N, M)."""
        return self.log_joint.log_softmax(-1)

    @property
    def inference_gap(self) -> Tensor:
        """KL(q, p(z|x)) of the encoder's q, (N,)."""
        assert self.log_q is not None
        return _expected(self.log_q, self.log_q - self.log_posterior)

    @property
    def approximation_gap(self) -> Tensor:
        """KL of the best q of independent variables that was found, (N,); 0 for one variable."""
        assert self.log_q is not None
        if self.variables == 1:
            return torch.zeros(len(self.log_q), dtype=torch.float64)
        values = round(len(self.codes) ** (1 / self.variables))
        target = self.log_posterior.unflatten(-1, (values,) * self.variables)
        starts = (_marginals(self.log_q.unflatten(-1, (values,) * self.variables)), _marginals(target))
        return torch.minimum(*(_coordinate_ascent(target, start) for start in starts))

    def multiplier(self) -> tuple[Tensor, Tensor]:
        """λ of each image by mirror ascent from the encoder's q (uniform without one), and its spread, (N,) each."""
        uniform = torch.full_like(self.log_joint, -math.log(self.log_joint.shape[1]))
        log_q = uniform if self.log_q is None else self.log_q.clamp_min(-1e4)
        for _ in range(ASCENT):  # q ← q^½ p(x, z)^½: a mirror step with the gradient log p(x, z) − log q − 1
            log_q = (0.5 * log_q + 0.5 * self.log_joint).log_softmax(-1)
        readings = 1 + log_q - self.log_joint
        return _expected(log_q, readings), readings.amax(-1) - readings.amin(-1)

    def estimates(self) -> list[Estimate]:
        """Means over the images; the information terms are of the images under equal weights."""
        log_posterior = self.log_posterior
        n = len(log_posterior)
        rate = _expected(log_posterior, log_posterior - self.log_prior)
        log_aggregate = log_posterior.logsumexp(0) - math.log(n)
        aggregate = _expected(log_aggregate, log_aggregate - self.log_prior).item()
        error = self.likelihood.errors.mean().item()
        settings: dict[str, Any] = {"error": error, "codes": len(self.codes)}
        found = [
            Estimate(rate.mean().item() - aggregate, "mutual_information", n=n, kind="exact", method="enumeration",
                     settings=settings),
            Estimate(aggregate, "aggregate_posterior_kl", n=n, kind="exact", method="enumeration", settings=settings),
            Estimate(_expected(log_aggregate, -log_aggregate).exp().item(), "codes_used", n=n, unit="1", kind="exact",
                     method="enumeration", settings={**settings, "of": "exp of the aggregate posterior's entropy"}),
        ]  # fmt: skip
        if n < 2:
            return [*self.likelihood.estimates(), *found]
        about: dict[str, Any] = {"kind": "exact", "method": "enumeration"}
        about["settings"] = {"stderr_over": "images", **settings}
        multiplier, spread = self.multiplier()
        parts = [("posterior_entropy", _expected(log_posterior, -log_posterior), {}), ("posterior_rate", rate, {})]
        if self.log_q is not None:
            gap, best = self.inference_gap, self.approximation_gap
            one = self.variables == 1
            parts += [
                ("elbo", self.likelihood.values - gap, {"kind": "lower bound"}),
                ("inference_gap", gap, {}),
                ("approximation_gap", best, {} if one else {"kind": "upper bound"}),
                ("amortization_gap", gap - best, {} if one else {"kind": "lower bound"}),
            ]
        means = [Estimate.mean(values, name=name, **(about | kind)) for name, values, kind in parts]
        about["settings"] = about["settings"] | {"error": spread.max().item(), "of": "mirror ascent"}
        means.append(Estimate.mean(multiplier, name="lagrange_multiplier", **(about | {"kind": "numerical"})))
        return [*self.likelihood.estimates(), *means, *found]

    def arrays(self) -> dict[str, Any]:
        """What to write to an .npz file."""
        own = {"codes": self.codes, "log_posterior": self.log_posterior, "multiplier": self.multiplier()[0]}
        if self.log_q is not None:
            own |= {"log_q": self.log_q, "gap_inference": self.inference_gap}
            own |= {"gap_approximation": self.approximation_gap}
        return self.likelihood.arrays() | {name: values.cpu().numpy() for name, values in own.items()}


def enumerate_posterior(model: Any, images: Tensor, tolerance: float = 0.01) -> EnumeratedPosterior:
    """Exact posteriors over all values of z.

    Args:
        model: whose prior has finitely many values.
        images: (N, *event_shape), at most as many as a table of images × codes has room for.
        tolerance: as for `exact_log_likelihood`.

    Raises:
        UnsupportedError: as there.
    """
    subject = LatentModel.from_model(model)
    with subject.evaluating():
        solution = solve(model, images, tolerance)
        used = solution.model
        codes = used.prior.enumerate_support(expand=False)
        log_prior = used.prior.log_prob(codes).double().cpu()
        distribution = used.decoder(codes.to(used.device, used.dtype))
        x = images.to(used.device, torch.float64)
        block = scorer_for(distribution, x).block(distribution)
        rows = torch.arange(len(images)).split(1000)
        scores = torch.cat([block.scores(some, slice(0, len(codes))).double().cpu() for some in rows])
        q = None if subject.encoder is None else subject.encoder(images.to(subject.device, subject.dtype))
        log_q = q.log_probs().double().cpu() if isinstance(q, OneHotCodes) else None
    variables = q.variables if isinstance(q, OneHotCodes) else 1
    return EnumeratedPosterior(solution.result, codes.cpu(), log_prior, scores + log_prior, log_q, variables)


def fits_in_a_table(model: LatentModel, images: Tensor) -> bool:
    """Whether the posteriors of these images are held in memory as a table."""
    return len(images) * len(model.prior.enumerate_support(expand=False)) <= MOST_NUMBERS


def _expected(log_weights: Tensor, values: Tensor) -> Tensor:
    """Σᵢ wᵢ vᵢ over the last dimension, where a weight of 0 counts for nothing."""
    return torch.where(log_weights > -torch.inf, log_weights.exp() * values, 0.0).sum(-1)


def _marginals(log_table: Tensor) -> list[Tensor]:
    """log-probabilities of each variable, (N, K) each, of a table (N, K, …, K)."""
    axes = range(1, log_table.dim())
    return [log_table.logsumexp([other for other in axes if other != axis]) for axis in axes]


def _coordinate_ascent(target: Tensor, parts: list[Tensor]) -> Tensor:
    """KL of independent variables from a table of posteriors (N, K, …, K), at a maximum of the bound from a start."""
    parts, n = list(parts), target.dim() - 1
    floor = target.clamp_min(-1e4)
    gap = last = torch.full((len(target),), torch.inf, dtype=torch.float64)
    for _ in range(ROUNDS):
        for variable in range(n):
            expected = floor
            for other in reversed(range(n)):  # the last axis first, so that the numbers of the others stay
                if other != variable:
                    shape = (len(target), *[1] * other, -1, *[1] * (n - other - 1))
                    expected = (expected * parts[other].exp().reshape(shape)).sum(other + 1, keepdim=True)
            parts[variable] = expected.flatten(1).log_softmax(-1)
        log_q = parts[0]
        for part in parts[1:]:
            log_q = log_q[..., None] + part.reshape(len(part), *[1] * (log_q.dim() - 1), -1)
        gap = _expected(log_q.flatten(1), log_q.flatten(1) - floor.flatten(1))
        if bool(((last - gap).abs() < CONVERGED).all()):
            break
        last = gap
    return gap
