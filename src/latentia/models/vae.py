"""The variational auto-encoder: a prior p(z), a likelihood p(x|z), a posterior q(z|x).

    log p(x) ≥ E_q[log p(x|z)] − KL(q(z|x), p(z))          (item 1c of the notes; Kingma and Welling 2014, eq. 3)

The slack of the bound is KL(q(z|x), p(z|x)), exactly.
"""

from __future__ import annotations

__all__ = ["VAE"]

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from latentia.distributions import Bernoulli, Conditional, Diagonal, Likelihood, Posterior, Prior, StandardNormal
from latentia.errors import UnsupportedError


class VAE(nn.Module):
    """A VAE made of two networks and three distributions.

    Args:
        encoder: images (B, C, H, W) in [0, 1] → the numbers of the posterior (4 for z ∈ R² and a diagonal scale).
        decoder: z (B, d) → the numbers of the likelihood (logits (B, C, H, W) for Bernoulli).
        latent: d, the dimension of z.
        image_shape: (C, H, W).
        posterior: family of q(z|x).
        likelihood: family of p(x|z).
        prior: p(z).
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        *,
        latent: int,
        image_shape: tuple[int, ...],
        posterior: Posterior | None = None,
        likelihood: Likelihood | None = None,
        prior: Prior | None = None,
    ):
        super().__init__()
        self.latent = latent
        self.image_shape = tuple(image_shape)
        self.posterior = Conditional(
            encoder, posterior or Diagonal(), event_shape=(latent,), condition_shape=self.image_shape
        )
        self.likelihood = Conditional(
            decoder, likelihood or Bernoulli(), event_shape=self.image_shape, condition_shape=(latent,)
        )
        self.prior_module = (prior or StandardNormal()).build(latent, self.image_shape)

    @property
    def prior(self) -> Distribution:
        """p(z), with event shape (d,)."""
        return self.prior_module(self.posterior)

    def encode(self, x: Tensor) -> Distribution:
        """q(z|x) for images (B, C, H, W): a distribution with batch shape (B,) and event shape (d,)."""
        return self.posterior(x)

    def decode(self, z: Tensor) -> Distribution:
        """p(x|z) for z of shape (*batch, d): a distribution with batch shape (*batch) and event shape (C, H, W)."""
        return self.likelihood(z)

    def elbo(self, x: Tensor, samples: int = 1) -> Tensor:
        """The evidence lower bound of each image, (B,), in nats, by `samples` draws of z.

        Its KL is drawn as well, log q(z|x) − log p(z), so that any prior and posterior serve.

        Raises:
            UnsupportedError: if a gradient is wanted and the posterior has no draws that carry one.
        """
        q = self.encode(x)
        if torch.is_grad_enabled() and not q.has_rsample:
            raise UnsupportedError(
                f"{type(q).__name__} has no rsample, so this bound has no gradient to the encoder; train by "
                "objectives.ELBO(gradient='score'), or evaluate within torch.no_grad()"
            )
        z = q.rsample(torch.Size([samples])) if q.has_rsample else q.sample(torch.Size([samples]))
        return (self.log_joint(x, z) - q.log_prob(z)).mean(0)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) = log p(x|z) + log p(z), in nats: images (B, C, H, W), z (*draws, B, d) → (*draws, B)."""
        return self.decode(z).log_prob(x) + self.prior.log_prob(z)

    @torch.no_grad()
    def sample(self, n: int, *, mean: bool = False) -> Tensor:
        """Draw n images from p(x), (n, C, H, W); with `mean`, E[x|z] for each drawn z instead of a draw of x."""
        distribution = self.decode(self.prior.sample(torch.Size([n])))
        return distribution.mean if mean else distribution.sample()

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """E[x|z] at the mean of q(z|x): the usual picture of a reconstruction, (B, C, H, W)."""
        return self.decode(self.encode(x).mean).mean
