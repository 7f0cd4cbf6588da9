"""The variational autoencoder: a prior p(z), a likelihood p(x|z), a posterior q(z|x).

    log p(x) ≥ E_q[log p(x|z)] − KL(q(z|x), p(z))          (Kingma and Welling 2014, eq. 3)

The difference of the two sides, the inference gap, is exactly KL(q(z|x), p(z|x)).
"""

from __future__ import annotations

__all__ = ["VAE"]

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from latentia.distributions import (
    Bernoulli,
    Conditional,
    Diagonal,
    Likelihood,
    Posterior,
    Prior,
    StandardNormal,
    Stratified,
    require_same_space,
)
from latentia.distributions.standardization import EncoderInput, Standardization, StandardizedConditional
from latentia.errors import UnsupportedError, require_count
from latentia.networks.network import require_logits

Array = np.ndarray[Any, Any]
X = TypeVar("X", Tensor, Array)


class VAE(nn.Module):
    """A VAE made of two networks and three distributions.

    Args:
        encoder: x (B, *shape) → the numbers of the posterior (4 for z ∈ R² and a diagonal scale).
        decoder: z (B, d) → the numbers of the likelihood (logits (B, *shape) for Bernoulli).
        latent: d, the dimension of z.
        event_shape: the shape of one x: (C, H, W) for images, (d,) for vectors, or any other.
        posterior: family of q(z|x).
        likelihood: family of p(x|z).
        prior: p(z).
        standardize: whether networks work in standardized values: see `fit_standardization`.
        missing: whether values of x may be missing (NaN): then p(x|z) is the marginal of the others.

    Raises:
        ConfigurationError: if prior and posterior are over different spaces, or the decoder ends in a sigmoid and the
            likelihood takes logits.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        *,
        latent: int,
        event_shape: tuple[int, ...],
        posterior: Posterior | None = None,
        likelihood: Likelihood | None = None,
        prior: Prior | None = None,
        standardize: bool = False,
        missing: bool = False,
    ):
        super().__init__()
        likelihood, posterior, prior = likelihood or Bernoulli(), posterior or Diagonal(), prior or StandardNormal()
        if isinstance(posterior, Posterior):  # a plain family has no space to compare
            require_same_space(posterior, prior, latent)
        if likelihood.takes_logits:
            require_logits("decoder", decoder, (latent,), f"likelihood={likelihood.type_name} takes logits")
        self.latent = latent
        self.event_shape = tuple(event_shape)
        self.standardization = Standardization(self.event_shape) if standardize else None
        self.missing = missing
        shapes: dict[str, tuple[int, ...]] = {"event_shape": self.event_shape, "condition_shape": (latent,)}
        prepares = standardize or missing or likelihood.prepares
        if prepares:
            encoder = EncoderInput(encoder, likelihood, self.standardization, missing)
        self.posterior = Conditional(encoder, posterior, event_shape=(latent,), condition_shape=self.event_shape)
        self.likelihood = (
            StandardizedConditional(decoder, likelihood, self.standardization, missing, **shapes)
            if prepares
            else Conditional(decoder, likelihood, **shapes)
        )
        self.prior_module = prior.build(latent, self.event_shape)
        self._checked = False  # whether `elbo` has checked the images of a training step

    def given(self, labels: Tensor | int | None) -> VAE:
        """The VAE of examples with these labels: itself, as it takes none; see `ConditionalVAE`."""
        return self

    @property
    def prior(self) -> Distribution:
        """p(z), with event shape (d,)."""
        return self.prior_module(self.posterior)

    def encode(self, x: Tensor | Array) -> Distribution:
        """q(z|x) for x of shape (B, *shape): a distribution with batch shape (B,) and event shape (d,)."""
        return self.posterior(self.as_tensor(x))

    def as_tensor(self, x: Tensor | Array) -> Tensor:
        """x as a tensor of the model's type; an array of NumPy is moved to the model's device as well."""
        first = next(self.parameters(), torch.empty(0))
        if isinstance(x, np.ma.MaskedArray):
            x = np.ma.filled(x.astype(np.float64), np.nan)  # missing values
        if isinstance(x, np.ndarray):
            return torch.as_tensor(x, dtype=first.dtype, device=first.device)
        return x.to(first.dtype) if isinstance(x, Tensor) else x  # other things are refused with their cure

    def decode(self, z: Tensor) -> Distribution:
        """p(x|z) for z of shape (*batch, d): a distribution with batch shape (*batch) and event shape (*shape)."""
        return self.likelihood(z)

    def center(self, x: Tensor) -> Tensor:
        """The center of q(z|x), (B, d): its mean, or where the mean is not in the space of z, its mode."""
        q, family = self.encode(x), self.posterior.family
        return family.center(q) if isinstance(family, Posterior) else q.mean

    def elbo(self, x: X, samples: int = 1) -> X:
        """The evidence lower bound of each x, (B,), in nats, with `samples` draws of z; an array for an array.

        Its KL is sampled as well, as log q(z|x) − log p(z), so that any prior and posterior can be used.

        The values of x are checked where no gradient is recorded, and at the first call with gradients; in later calls
        of a training loop the check would make each step wait for the device.

        Raises:
            UnsupportedError: if a gradient is recorded and the posterior cannot be reparametrized.
            DataError: for x outside the likelihood's support, such as gray images under a Bernoulli likelihood.
        """
        if isinstance(x, np.ndarray):
            return cast(X, self.elbo(self.as_tensor(x), samples).detach().cpu().numpy())
        x = self.as_tensor(x)
        q = self.encode(x)
        self.check(x)
        if isinstance(q, Stratified):
            z, log_share = q.strata(samples)
            return (log_share.exp() * self.log_importance_weights(x, z, q)).sum(0)
        if torch.is_grad_enabled() and not q.has_rsample:
            raise UnsupportedError(
                f"{type(q).__name__} has no rsample, so this bound has no gradient to the encoder; train with "
                "objectives.ELBO(gradient='score'), or evaluate within torch.no_grad()"
            )
        z = q.rsample(torch.Size([samples])) if q.has_rsample else q.sample(torch.Size([samples]))
        return self.log_importance_weights(x, z, q).mean(0)

    def check(self, x: Tensor) -> None:
        """Refuse x outside the likelihood's support; see `elbo` for when it looks at the values.

        Raises:
            DataError: naming the cure.
        """
        if torch.is_grad_enabled() and (self._checked or torch.compiler.is_compiling()):
            return
        likelihood = cast(Likelihood, self.likelihood.family)
        if likelihood.bounded:
            likelihood.check_observed(x, self.missing)
        self._checked = True

    def fit_standardization(self, chunks: Iterable[Tensor], names: Sequence[str] = ()) -> None:
        """Take center and spread of the training examples; a model that does not standardize is left as it is.

        Args:
            chunks: all training examples, (n, *shape) at a time.
            names: of the columns, for messages.

        Raises:
            DataError: for a column without a spread.
        """
        if self.standardization is not None:
            self.standardization.fit(chunks, cast(Likelihood, self.likelihood.family), names)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) = log p(x|z) + log p(z), in nats: x (B, *shape), z (*draws, B, d) → (*draws, B)."""
        return self.decode(z).log_prob(x) + self.prior.log_prob(z)

    def log_importance_weights(self, x: Tensor, z: Tensor, q: Distribution) -> Tensor:
        """log w = log p(x, z) − log q(z|x), in nats: x (B, *shape), z (*draws, B, d) → (*draws, B).

        Its mean over draws of q is the evidence lower bound, and E[w] = p(x) (Burda et al. 2016, eq. 8).
        """
        return self.log_joint(x, z) - q.log_prob(z)

    @torch.no_grad()
    def sample(self, n: int, *, mean: bool = False) -> Tensor:
        """Draw n examples from p(x), (n, *shape); with `mean`, E[x|z] for each drawn z instead of a draw of x."""
        require_count("n", n, 0)
        distribution = self.decode(self.prior.sample(torch.Size([n])))
        return distribution.mean if mean else distribution.sample()

    @torch.no_grad()
    def reconstruct(self, x: X) -> X:
        """E[x|z] at the center of q(z|x), the usual reconstruction, (B, *shape); an array for an array."""
        again = self.decode(self.center(self.as_tensor(x))).mean
        return cast(X, again if isinstance(x, Tensor) else again.cpu().numpy())
