"""What the evaluation of a likelihood needs of a model: p(x|z) for each z, p(z), and an encoder if there is one.

A `VAE` and a run have these. Any model trained elsewhere gets them in five lines:

    model = LatentModel(decoder=lambda z: Independent(Bernoulli(logits=network(z)), 3),
                        prior=Independent(Normal(torch.zeros(2), torch.ones(2)), 1))
    result = exact_log_likelihood(model, images)

where `decoder` is any callable from z (M, d) to a distribution with batch shape (M,). A decoder that is a module with
known parts, `Conditional(network, Bernoulli(), event_shape=(1, 28, 28), condition_shape=(2,))`, can be proven more.
"""

from __future__ import annotations

__all__ = ["LatentModel", "full_precision"]

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from latentia.distributions import Bernoulli, Conditional, Likelihood, log_density
from latentia.distributions.codes import OneHotCodes
from latentia.distributions.sphere import dimension_of
from latentia.errors import ConfigurationError, DataError, UnsupportedError
from latentia.models import VAE
from latentia.networks.products import exact_float32_setting


@dataclass(frozen=True)
class LatentModel:
    """A latent-variable model as its likelihood needs it.

    Attributes:
        decoder: z (M, d) → p(x|z), a distribution with batch shape (M,).
        prior: p(z), a distribution over z with event shape (d,) and no batch shape.
        encoder: x (B, …) → q(z|x), a distribution with batch shape (B,); None where there is none.
        family: of p(x|z), where it is one of ours: it knows which data it scores.
        source: the module that the three belong to; `in_float64` copies it.
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
        """The parts of a `VAE`, a finished run, a `LatentModel` or anything with `decode` and `prior`.

        Raises:
            UnsupportedError: for a model without a decoder.
        """
        model = getattr(model, "model", model)
        if isinstance(model, LatentModel):
            return model
        decode, prior = getattr(model, "decode", None), getattr(model, "prior", None)
        if not callable(decode) or not isinstance(prior, Distribution):
            raise UnsupportedError(
                f"{type(model).__name__} has no distribution p(x|z), so images have no likelihood under it. Make a "
                "model of a generator with LatentModel.from_generator(generator, likelihood, prior, shape=…), of "
                "another "
                "decoder with LatentModel(decoder, prior)"
            )
        family = getattr(getattr(model, "likelihood", None), "family", None)
        return cls(
            cast(Callable[[Tensor], Distribution], decode),
            prior,
            getattr(model, "encode", None),
            family if isinstance(family, Likelihood) else None,
            model if isinstance(model, nn.Module) else None,
        )

    @classmethod
    def from_generator(
        cls, generator: nn.Module, likelihood: Likelihood, prior: Distribution, *, shape: tuple[int, ...]
    ) -> LatentModel:
        """A GAN's generator with an observation model, so that images have a likelihood under it.

        Args:
            generator: z (B, d) → parameters of the likelihood: an image for `Gaussian(scale=…)`, logits for
                `Bernoulli()`.
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
        """d, the length of z."""
        return int(self.prior.event_shape[0])

    @property
    def dimension(self) -> int:
        """The dimension of the space of z: d, or d − 1 for z on the sphere in R^d."""
        return dimension_of(self.prior)

    @property
    def has_grid(self) -> bool:
        """Whether a quadrature serves its space: z of at most three dimensions, or on S¹ or S²."""
        return self.latent <= 3 and not isinstance(self.prior, OneHotCodes)

    @property
    def device(self) -> torch.device:
        """The device of the model's parameters; the CPU where they are not visible."""
        parameter = next((p for module in self.modules() for p in module.parameters()), None)
        return torch.device("cpu") if parameter is None else parameter.device

    @cached_property
    def dtype(self) -> torch.dtype:
        """Float type that the model computes in: of its parameters, or of what a callable makes of a float32 z."""
        owner = self.source or (self.decoder if isinstance(self.decoder, nn.Module) else None)
        parameter = None if owner is None else next(iter(owner.parameters()), None)
        return self._score_dtype(torch.float32) if parameter is None else parameter.dtype

    @cached_property
    def _prior_dtype(self) -> torch.dtype:
        return self._draw(1).dtype

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z) in float64, z (…, d) → (…); −inf outside the prior's support."""
        return log_density(self.prior, z.to(self._prior_dtype)).double()

    def in_float64(self) -> LatentModel | None:
        """The same model computed in float64; None where the decoder does not compute with torch alone.

        Parameters of modules are copied. Within any decoder, operations of torch on shorter floats, casts included, are
        carried out in float64.
        """
        model = self
        try:
            if self.source is not None:
                model = LatentModel.from_model(copy.deepcopy(self.source).double())
            elif isinstance(self.decoder, nn.Module):
                # The encoder is not needed where float64 is: to score what has been found.
                model = LatentModel(copy.deepcopy(self.decoder).double(), self.prior, None, self.family)
        except (RuntimeError, TypeError):  # a module that cannot be copied, such as one with tensors in a graph
            model = self
        wrapped = replace(model, decoder=_in_float64(model.decoder))
        try:
            return wrapped if wrapped._score_dtype(torch.float64) == torch.float64 and wrapped._resolves() else None
        except (RuntimeError, TypeError, ValueError):
            return None

    def require_scorable(self, images: Tensor) -> None:
        """Refuse images that p(x|z) cannot score.

        Args:
            images: (N, *event_shape).

        Raises:
            DataError: naming what is wrong and the cure.
        """
        distribution = self._trial(self.dtype)
        if images.shape[1:] != distribution.event_shape or len(images) == 0:
            raise DataError(
                f"images have shape {tuple(images.shape)}, and the decoder's distribution scores (N, "
                f"{', '.join(map(str, distribution.event_shape))}) with N >= 1"
            )
        if self.family is not None:
            vae = self.source if isinstance(self.source, VAE) else None
            if vae is None or vae.standardization is None or images.dim() != 4:
                return self.family.check_observed(images, vae is not None and vae.missing)
            images = images[~images.isnan()] if vae.missing else images  # standardized images are not in [0, 1]
        base = distribution.base_dist if isinstance(distribution, Independent) else distribution
        if isinstance(base, torch.distributions.Bernoulli):
            return Bernoulli().check(images)
        if not bool(torch.isfinite(images).all()):
            raise DataError("images hold values that are not finite numbers")
        return None

    def require_deterministic(self, images: Tensor) -> None:
        """Refuse a decoder whose density at a point changes from call to call, or with the other points of the batch.

        Raises:
            UnsupportedError: naming the cure.
        """
        z = self._draw(3).to(self.device, self.dtype)
        x = images[:1].to(self.device, self.dtype)
        first, again = (self.decoder(points).log_prob(x).double() for points in (z, z[:2].flip(0)))
        same = torch.isclose(first[:2].flip(0), again, rtol=1e-3, atol=1e-3, equal_nan=True)
        if not bool(same.all()):
            raise UnsupportedError(
                f"the decoder gives the same z different densities (log p(x|z) = {first[0]:.6g}, then {again[1]:.6g}): "
                f"it "
                "draws random numbers (dropout) or normalizes by the batch. Call .eval() on its network"
            )

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Full float32 products, no gradients, and every module in sight in evaluation mode; its mode is restored."""
        training = [m for module in self.modules() for m in module.modules() if m.training]
        try:
            for module in training:
                module.training = False
            with full_precision():
                yield
        finally:
            for module in training:
                module.training = True

    def modules(self) -> Iterator[nn.Module]:
        """Modules that the model is made of, as far as they can be seen: a function's are in its closure."""
        for part in (self.source, self.decoder, self.encoder):
            yield from _modules_of(part)

    def _draw(self, count: int) -> Tensor:
        """Draws of z that leave the global random state as it was."""
        return _sample(self.prior, count)

    def _resolves(self) -> bool:
        """Whether log p(x|z) changes with the last digits of a float64 z: else z is rounded within the decoder."""
        with torch.no_grad():
            z = self._draw(4).to(self.device).double()
            distribution = self.decoder(z)
            x = _sample(distribution)[:1]
            score = distribution.log_prob(x)
            moved = self.decoder(z * (1 + 1e-11)).log_prob(x)
        return not torch.equal(score, moved) or bool((score == score[0]).all())

    def _trial(self, of: torch.dtype) -> Distribution:
        """p(x|z) for one z of this type.

        Raises:
            ConfigurationError: a decoder that returns something else.
        """
        distribution = self.decoder(self._draw(1).to(self.device, of))
        if not isinstance(distribution, Distribution):
            raise ConfigurationError(
                f"the decoder returns a {type(distribution).__name__}, and must return the distribution p(x|z), "
                "such as Independent(Bernoulli(logits=network(z)), 3)"
            )
        return distribution

    def _score_dtype(self, of: torch.dtype) -> torch.dtype:
        """Float type of log p(x|z) for a z of this type."""
        with torch.no_grad():
            distribution = self._trial(of)
            return distribution.log_prob(_sample(distribution)).dtype


def _sample(distribution: Distribution, *shape: int) -> Tensor:
    """Samples that leave the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return distribution.sample(torch.Size(shape))


def _modules_of(part: Any) -> Iterator[nn.Module]:
    if isinstance(part, nn.Module):
        yield part
    elif callable(part):
        yield from _modules_of(getattr(part, "__self__", None))
        for cell in getattr(part, "__closure__", None) or ():
            with suppress(ValueError):  # a variable that is not set yet
                yield from _modules_of(cell.cell_contents)


class _Float64(TorchFunctionMode):
    """Carry out torch's operations on shorter floats in float64, casts to shorter floats included."""

    _CASTS = (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self._CASTS:
            return args[0].double()
        name = getattr(func, "__name__", "")
        if name in ("__set__", "__setitem__") or (name.endswith("_") and not name.endswith("__")):
            return func(*args, **(kwargs or {}))  # in place: the result has the type of its target
        return func(*tree_map(_widen, args), **tree_map(_widen, kwargs or {}))


def _widen(value: Any) -> Any:
    short = (torch.float16, torch.bfloat16, torch.float32)
    if isinstance(value, Tensor):
        return value.double() if value.dtype in short else value
    return torch.float64 if isinstance(value, torch.dtype) and value in short else value


def _in_float64(decoder: Callable[[Tensor], Distribution]) -> Callable[[Tensor], Distribution]:
    def wide(z: Tensor) -> Distribution:
        with _Float64():
            return decoder(z.double())

    return wide


@contextmanager
def full_precision() -> Iterator[None]:
    """Matrix products in whole float32 inside the block, whatever training had set; no gradients."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(exact_float32_setting())
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_float32_matmul_precision(before)
