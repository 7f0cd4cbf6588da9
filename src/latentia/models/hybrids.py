"""Models with an encoder and a discriminator: BiGAN, VAE/GAN and the adversarial autoencoder.

BiGAN and VAE/GAN are GANs with an encoder: images x = G(z) of latents z ~ N(0, I), a distribution q(z|x) of an image's
latents, and a discriminator. Unlike a VAE they have no p(x|z), since x is a function of z, so that an image has no
likelihood under them. They differ in the discriminator's input: pairs of an image and a latent (BiGAN), or images
alone, with features that also measure the distance of two images (VAE/GAN).

The adversarial autoencoder is a VAE with a discriminator of latents.
"""

from __future__ import annotations

__all__ = ["VAEGAN", "AdversarialAutoencoder", "BiGAN", "EncodedGAN"]

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from latentia.distributions import Conditional, Posterior
from latentia.models.vae import VAE, Array, X
from latentia.networks.network import require_logits


class EncodedGAN(nn.Module):
    """Generator, encoder and discriminator.

    Args:
        generator: z (B, d) → (B, *shape), unconstrained; the image is its sigmoid.
        encoder: images (B, *shape) in [0, 1] → the numbers of the posterior.
        discriminator: gives logits; see the subclasses.
        latent: d, the dimension of z.
        event_shape: (C, H, W).
        posterior: family of q(z|x).

    Raises:
        ConfigurationError: if the generator ends in a sigmoid.
    """

    def __init__(
        self,
        generator: nn.Module,
        encoder: nn.Module,
        discriminator: nn.Module,
        *,
        latent: int,
        event_shape: tuple[int, ...],
        posterior: Posterior,
    ):
        super().__init__()
        require_logits("generator", generator, (latent,), "the image is the sigmoid of its outputs")
        self.latent, self.event_shape = latent, tuple(event_shape)
        self.generator, self.discriminator = generator, discriminator
        self.encoder = Conditional(encoder, posterior, event_shape=(latent,), condition_shape=self.event_shape)

    @property
    def prior(self) -> Distribution:
        """p(z) = N(0, I), with event shape (d,)."""
        zeros = torch.zeros(self.latent, device=next(self.generator.parameters()).device)
        return Independent(Normal(zeros, torch.ones_like(zeros), validate_args=False), 1, validate_args=False)

    def generate(self, z: Tensor) -> Tensor:
        """G(z), differentiable: (B, d) → images (B, *shape) in [0, 1]."""
        return torch.sigmoid(self.generator(z).float())

    def encode(self, x: Tensor | Array) -> Distribution:
        """q(z|x) for images (B, *shape): a distribution with batch shape (B,) and event shape (d,)."""
        return self.encoder(torch.from_numpy(x).float() if isinstance(x, np.ndarray) else x)

    @torch.no_grad()
    def sample(self, n: int, *, mean: bool = False) -> Tensor:
        """Draw n images, (n, *shape); `mean` changes nothing, since x is a function of z."""
        return self.generate(self.prior.sample(torch.Size([n])))

    @torch.no_grad()
    def reconstruct(self, x: X) -> X:
        """G at the mean of q(z|x), (B, *shape); an array for an array."""
        again = self.generate(self.encode(x).mean)
        return cast(X, again if isinstance(x, Tensor) else again.cpu().numpy())


class BiGAN(EncodedGAN):
    """Its discriminator takes pairs of an image and a latent as one vector, (B, C·H·W + d) → (B, 1)."""

    def pair(self, x: Tensor, z: Tensor) -> Tensor:
        """Images (B, *shape), flattened and concatenated with latents (B, d): (B, C·H·W + d)."""
        return torch.cat([x.flatten(1), z], dim=1)

    def score(self, pairs: Tensor) -> Tensor:
        """Logits of pairs from `pair`, (B,)."""
        return self.discriminator(pairs).squeeze(-1)


class VAEGAN(EncodedGAN):
    """Its discriminator is a sequence: the first part gives features, (B, *shape) → (B, k), all of it (B, 1) logits."""

    discriminator: nn.Sequential

    def features(self, x: Tensor) -> Tensor:
        """φ(x), (B, k): the output of the discriminator before its last layer."""
        return self.discriminator[0](x).float()

    def score(self, x: Tensor) -> Tensor:
        """Logits of images, (B,)."""
        return self.discriminator(x).squeeze(-1)


class AdversarialAutoencoder(VAE):
    """A VAE with a discriminator of latents, (B, d) → (B, 1) logits (Makhzani et al. 2016).

    Args:
        discriminator: separates draws of the prior from latents of images.
        **parts: as for `VAE`.
    """

    def __init__(self, *, discriminator: nn.Module, **parts: Any):
        super().__init__(**parts)
        self.discriminator = discriminator

    def score(self, z: Tensor) -> Tensor:
        """Logits of latents, (B, d) → (B,)."""
        return self.discriminator(z).squeeze(-1)
