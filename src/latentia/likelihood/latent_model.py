"""What likelihood evaluation asks of a model: a distribution p(x|z) for each z, a distribution p(z), and an encoder if there is one.

A `VAE` and a run have these. So has any model trained elsewhere, in five lines:

    model = LatentModel(decoder=Conditional(network, Bernoulli(), event_shape=(1, 28, 28), condition_shape=(2,)),
                        prior=Independent(Normal(torch.zeros(2), torch.ones(2)), 1))
    result = exact_log_likelihood(model, images)

where `decoder` may be any callable from z (M, d) to a distribution with batch shape (M,).
"""

from __future__ import annotations

__all__ = ["LatentModel", "full_precision"]

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from latentia.distributions import Bernoulli, Conditional, Likelihood
from latentia.errors import ConfigurationError, DataError, UnsupportedError


@dataclass(frozen=True)
class LatentModel:
    """A latent-variable model, seen from its likelihood.

    Attributes:
        decoder: z (M, d) → p(x|z), a distribution with batch shape (M,).
        prior: p(z), a distribution over z with event shape (d,) and no batch shape.
        encoder: x (B, …) → q(z|x), a distribution with batch shape (B,); None where there is none.
        family: of p(x|z), where it is one of ours: it knows which data it scores.
        source: the module that the three belong to, which is what `in_float64` copies.
    """

    decoder: Callable[[Tensor], Distribution]
    prior: Distribution
    encoder: Callable[[Tensor], Distribution] | None = None
    family: Likelihood | None = None
    source: nn.Module | None = None

    def __post_init__(self) -> None:
        if self.prior.batch_shape or len(self.prior.event_shape) != 1:
            raise ConfigurationError(
                f"the prior must be one distribution over z (event shape (d,)), and this one has batch shape "
                f"{tuple(self.prior.batch_shape)} and event shape {tuple(self.prior.event_shape)}; "
                "torch.distributions.Independent(distribution, 1) turns a batch of d numbers into one vector"
            )

    @classmethod
    def from_model(cls, model: Any) -> LatentModel:
        """See a `VAE`, a finished run, a `LatentModel` or anything with `decode` and `prior` as one.

        Raises:
            UnsupportedError: for what has no decoder.
        """
        model = getattr(model, "model", model)
        if isinstance(model, LatentModel):
            return model
        decode, prior = getattr(model, "decode", None), getattr(model, "prior", None)
        if not callable(decode) or not isinstance(prior, Distribution):
            raise UnsupportedError(
                f"{type(model).__name__} has no distribution p(x|z), so images have no likelihood under it. A generator becomes "
                "a model with LatentModel.from_generator(generator, likelihood, prior, shape=…); a decoder of your own with "
                "LatentModel(decoder, prior)"
            )
        family = getattr(getattr(model, "likelihood", None), "family", None)
        source = model if isinstance(model, nn.Module) else None
        encoder = getattr(model, "encode", None)
        return cls(
            cast(Callable[[Tensor], Distribution], decode),
            prior,
            encoder,
            family if isinstance(family, Likelihood) else None,
            source,
        )

    @classmethod
    def from_generator(
        cls, generator: nn.Module, likelihood: Likelihood, prior: Distribution, *, shape: tuple[int, ...]
    ) -> LatentModel:
        """A GAN's generator with an observation model, so that images have a likelihood under it.

        Args:
            generator: z (B, d) → parameters of the likelihood: an image for `Gaussian(scale=…)`, logits for `Bernoulli()`.
            likelihood: p(x | generator output); choose its scale on validation data.
            prior: distribution of z, event shape (d,).
            shape: of an image, (C, H, W).

        Source: Wu et al. 2017, "On the quantitative analysis of decoder-based generative models", section 3.
        """
        condition = tuple(prior.event_shape)
        decoder = Conditional(generator, likelihood, event_shape=shape, condition_shape=condition).eval()
        return cls(decoder, prior, family=likelihood)

    @property
    def latent(self) -> int:
        """d, the dimension of z."""
        return int(self.prior.event_shape[0])

    @property
    def device(self) -> torch.device:
        """Where the model's parameters live; the CPU where they cannot be seen."""
        parameter = next(iter(self._module().parameters()), None) if self._module() is not None else None  # pyright: ignore
        return torch.device("cpu") if parameter is None else parameter.device

    @cached_property
    def dtype(self) -> torch.dtype:
        """Float type that the model computes in: of its parameters, or of what a callable makes of a float32 z."""
        module = self._module()
        parameter = None if module is None else next(iter(module.parameters()), None)
        if parameter is not None:
            return parameter.dtype
        return self.decoder(torch.zeros(1, self.latent)).sample().dtype

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z) in float64, z (…, d) → (…); −inf outside the prior's support."""
        z = z.to(self.dtype)
        try:
            inside = self.prior.support.check(z)  # pyright: ignore[reportOptionalMemberAccess]
        except (NotImplementedError, AttributeError):
            return self.prior.log_prob(z).double()
        if bool(inside.all()):
            return self.prior.log_prob(z).double()
        result = torch.full(z.shape[:-1], -torch.inf, dtype=torch.float64, device=z.device)
        result[inside] = self.prior.log_prob(z[inside]).double()
        return result

    def in_float64(self) -> LatentModel | None:
        """A copy that computes in float64, or None where the decoder is a callable that cannot be converted."""
        if self.source is not None:
            return LatentModel.from_model(copy.deepcopy(self.source).double())
        if isinstance(self.decoder, nn.Module):
            # The encoder is not needed where float64 is: in scoring what has been found.
            return LatentModel(copy.deepcopy(self.decoder).double(), self.prior, None, self.family)
        return None

    def require_scorable(self, images: Tensor) -> None:
        """Refuse images that p(x|z) cannot score.

        Args:
            images: (N, *event_shape).

        Raises:
            DataError: naming what is wrong and the cure.
        """
        distribution = self.decoder(self.prior.sample(torch.Size([1])).to(self.dtype))
        if images.shape[1:] != distribution.event_shape or len(images) == 0:
            raise DataError(
                f"images have shape {tuple(images.shape)}, and the decoder's distribution scores (N, "
                f"{', '.join(map(str, distribution.event_shape))}) with N >= 1"
            )
        if self.family is not None:
            return self.family.check(images)
        base = distribution.base_dist if isinstance(distribution, Independent) else distribution
        if isinstance(base, torch.distributions.Bernoulli):
            return Bernoulli().check(images)
        if not bool(torch.isfinite(images).all()):
            raise DataError("images hold values that are not finite numbers")
        return None

    def _module(self) -> nn.Module | None:
        return self.source or (self.decoder if isinstance(self.decoder, nn.Module) else None)


@contextmanager
def full_precision() -> Iterator[None]:
    """Matrix products in whole float32 inside the block, whatever training had set; no gradients."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(_float32_setting())
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@lru_cache(maxsize=1)
def _float32_setting() -> str:
    """The setting under which float32 products keep their digits: `medium` where it only picks a faster library.

    Where it does shorten numbers (to bfloat16 or TF32) a product is off by 1e-3, and `highest` it is.
    """
    if torch.cuda.is_available():
        return "highest"
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(512, 512, generator=generator) for _ in range(2))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    error = (a @ b - a.double() @ b.double()).abs().max().item()
    torch.set_float32_matmul_precision(before)
    return "medium" if error < 1e-3 else "highest"  # sums of 512 terms of size 1, about 20 in all
