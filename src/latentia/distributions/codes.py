"""Discrete latent variables: z is one or more categorical variables, each one-hot, side by side in a vector.

    z = (z₁, …, zₙ),  zⱼ ∈ {e₁, …, e_K},      q(z|x) = ∏ⱼ q(zⱼ|x),      K = latent / n values of each

A gradient to q comes from the sum over all Kⁿ codes (exact), from the straight-through Gumbel-softmax (biased, Jang et
al. 2017), or from the score with a leave-one-out baseline (unbiased; Kool et al. 2019): `objective.gradient`.
"""

from __future__ import annotations

__all__ = ["CategoricalPosterior", "CategoricalPrior", "OneHotCodes"]

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Distribution, constraints, register_kl

from latentia.distributions.conditional import Conditional, at_least_float32
from latentia.distributions.posteriors import LatentSpace, Posterior
from latentia.distributions.priors import Prior
from latentia.errors import ConfigurationError, UnsupportedError

MOST_CODES = 2**16  # that are enumerated


class _Variables(LatentSpace):
    """The space of a number of categorical variables."""

    variables: int

    def space(self, latent: int) -> str:
        n = self.variables
        if latent % n or latent < 2 * n:
            text = f"{n} categorical variables of K values, K of 2 or more, need latent={n}·K"
            raise ConfigurationError([("latent", f"{text}; set latent={n * max(2, latent // n)}")])
        return f"{n} categorical variable{'s' * (n > 1)} of {latent // n} values"


class CategoricalPosterior(_Variables, Posterior, name="categorical"):
    """Categorical variables, `latent` numbers in all: the logits of each variable's latent/variables values.

    Use it with `prior=categorical` and `objective.gradient=enumerated`, `straight-through` or `score`.
    """

    reparametrized: ClassVar[bool] = False
    variables: int = Field(default=1, ge=1, description="n; each has latent/n values")

    @property
    def partner(self) -> str:
        return "categorical" + (f" prior.variables={self.variables}" if self.variables > 1 else "")

    def center(self, q: Distribution) -> Tensor:
        return q.mode

    def parameter_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (math.prod(event_shape),)

    def distribution(self, parameters: Tensor, shared: Any = None, event_dims: int = 1) -> Distribution:
        return OneHotCodes(at_least_float32(parameters).unflatten(-1, (self.variables, -1)))


class CategoricalPrior(_Variables, Prior, name="categorical"):
    """Independent categorical variables: uniform, or with learned probabilities."""

    variables: int = Field(default=1, ge=1, description="n; each has latent/n values")
    learned: bool = Field(default=False, description="learn the probabilities; they start uniform")

    @property
    def partner(self) -> str:
        return "categorical" + (f" posterior.variables={self.variables}" if self.variables > 1 else "")

    def build(self, latent: int, event_shape: tuple[int, ...]) -> nn.Module:
        return _Codes(self.variables, latent // self.variables, self.learned)


class _Codes(nn.Module):
    logits: Tensor

    def __init__(self, variables: int, values: int, learned: bool):
        super().__init__()
        start = torch.zeros(variables, values)
        if learned:
            self.logits = nn.Parameter(start)
        else:
            self.register_buffer("logits", start, persistent=False)

    def forward(self, posterior: Conditional | None = None) -> Distribution:
        return OneHotCodes(self.logits)


class _OneHots(constraints.Constraint):
    """Vectors that are n one-hot vectors side by side."""

    is_discrete = True
    event_dim = 1

    def __init__(self, variables: int):
        self.variables = variables
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        parts = value.unflatten(-1, (self.variables, -1))
        return (((parts == 0) | (parts == 1)).all(-1) & (parts.sum(-1) == 1)).all(-1)


class OneHotCodes(Distribution):
    """Independent categorical variables, each one-hot, with event shape (n · K,).

    Args:
        logits: (*batch, n, K), normalized here.
    """

    arg_constraints = {}  # noqa: RUF012  # pyright: ignore

    def __init__(self, logits: Tensor):
        self.logits = logits.log_softmax(-1)
        self.variables, self.values = logits.shape[-2:]
        super().__init__(logits.shape[:-2], torch.Size([self.variables * self.values]), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return _OneHots(self.variables)

    @property
    def has_enumerate_support(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether there are few enough codes to enumerate."""
        return self.values**self.variables <= MOST_CODES

    @property
    def mean(self) -> Tensor:
        """The probabilities, (*batch, n · K)."""
        return self.logits.exp().flatten(-2)

    @property
    def variance(self) -> Tensor:
        return self.mean * (1 - self.mean)

    @property
    def mode(self) -> Tensor:
        """The most probable code, (*batch, n · K)."""
        return self._one_hot(self.logits.argmax(-1))

    def entropy(self) -> Tensor:
        return -_weighted(self.logits, self.logits).sum((-1, -2))

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(z) in nats for codes z (..., n · K)."""
        parts = value.unflatten(-1, (self.variables, self.values))
        return torch.where(parts > 0, self.logits, 0.0).sum((-1, -2))

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | Sequence[int] = torch.Size()) -> Tensor:
        shape = (*sample_shape, *self.logits.shape[:-1])
        index = torch.multinomial(self.logits.exp().reshape(-1, self.values), math.prod(sample_shape), replacement=True)
        return self._one_hot(index.T.reshape(shape))

    def straight_through(self, draws: int, temperature: float) -> Tensor:
        """Codes (draws, *batch, n · K) with the gradient of the Gumbel-softmax at this temperature.

        The values are codes drawn from q, so that what is computed from them is that of codes. The gradient is that of
        the relaxed ones, which is biased (Jang et al. 2017, section 2.2).
        """
        exponential = torch.empty(draws, *self.logits.shape, dtype=self.logits.dtype, device=self.logits.device)
        noisy = self.logits - exponential.exponential_().log()
        soft = (noisy / temperature).softmax(-1).flatten(-2)
        return self._one_hot(noisy.argmax(-1)) + (soft - soft.detach())

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Every code, (Kⁿ, n · K), the last variable varying fastest.

        Raises:
            UnsupportedError: for too many codes, naming what serves.
        """
        require_enumerable(self)
        axis = torch.arange(self.values, device=self.logits.device)
        index = torch.cartesian_prod(*[axis] * self.variables).reshape(-1, self.variables)
        return self._one_hot(index)

    def log_probs(self) -> Tensor:
        """log q of every code in the order of `enumerate_support`, (*batch, Kⁿ)."""
        table = self.logits[..., 0, :]
        for variable in range(1, self.variables):
            table = (table[..., None] + self.logits[..., variable, None, :]).flatten(-2)
        return table

    def _one_hot(self, index: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(index, self.values).to(self.logits.dtype).flatten(-2)


def require_enumerable(q: Distribution) -> None:
    """Refuse a space of codes that is too large to enumerate.

    Raises:
        UnsupportedError: naming the gradients and the likelihoods that serve.
    """
    if isinstance(q, OneHotCodes) and not q.has_enumerate_support:
        raise UnsupportedError(
            f"{q.variables} variables of {q.values} values have {q.values}^{q.variables} codes, and at most "
            f"{MOST_CODES:,} are enumerated; train with objective.gradient=score objective.samples=4 (leave-one-out) "
            "or objective.gradient=straight-through, and evaluate with --likelihood importance, whose bounds enclose "
            "log p(x) of simulated examples from both sides"
        )


@register_kl(OneHotCodes, OneHotCodes)
def _kl(p: OneHotCodes, q: OneHotCodes) -> Tensor:
    return _weighted(p.logits, p.logits - q.logits).sum((-1, -2))


def _weighted(log_weights: Tensor, values: Tensor) -> Tensor:
    """w · v, which is 0 where w is, whatever v is there; without an effect of v on gradients there."""
    held = log_weights > -torch.inf
    return torch.where(held, log_weights.exp() * torch.where(held, values, 0.0), 0.0)
