"""The generative adversarial network: a latent z ~ p(z), a generator x = G(z), and a discriminator's logit t(x).

The classic discriminator is D(x) = σ(t(x)), the probability that x is real (Goodfellow et al. 2014). Only logits appear
here, so that nothing is lost to rounding where D is near 0 or 1.

* Images: the generator's network emits logits and the image is their sigmoid, so that samples lie in [0, 1].
* Points: the network works on standardized coordinates u, and x = center + spread · u; the discriminator reads
  (x − center)/spread. Both are given with the data's distribution and are not trained.
* Packing: the discriminator takes m examples at once, concatenated along their channels (Lin et al. 2018, "PacGAN"), so
  that a lack of variety shows in a single input.
"""

from __future__ import annotations

__all__ = ["GAN"]

from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, Uniform

from latentia.distributions import Standardization
from latentia.errors import ConfigurationError, UnsupportedError, require_count
from latentia.models.flow import FlowGenerator
from latentia.networks.network import require_logits

LatentDistribution = Literal["normal", "uniform"]

_LATENT_RANGE = {"normal": (Normal, 0.0, 1.0), "uniform": (Uniform, -1.0, 1.0)}


class GAN(nn.Module):
    """A GAN made of two networks.

    Args:
        generator: z (B, d) → (B, *shape), unconstrained; with classes, (z, labels).
        discriminator: (B/m, m·C, H, W) or (B/m, m·D) → (B/m, 1) logits; with classes, (x, labels).
        latent: d, the dimension of z.
        shape: of one example: (C, H, W), or (D,) for points.
        classes: number of classes to condition on, 0 for none.
        packing: m, how many examples the discriminator takes at once.
        latent_distribution: `normal`, N(0, 1)^d, or `uniform`, on [−1, 1]^d.
        center: of examples that are not images, (*shape); 0 if not given.
        spread: likewise; 1 if not given.

    Attributes:
        has_density: whether `log_prob` is available.

    Raises:
        ConfigurationError: if the discriminator ends in a sigmoid, or the generator of images does; for packs of
            labeled examples.
    """

    center: Tensor
    spread: Tensor

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        *,
        latent: int,
        shape: tuple[int, ...],
        classes: int = 0,
        packing: int = 1,
        latent_distribution: LatentDistribution = "normal",
        center: Tensor | None = None,
        spread: Tensor | None = None,
    ):
        super().__init__()
        if packing > 1 and classes:
            raise ConfigurationError(
                [("packing", "a pack of examples has no single label. Use packing=1, or conditional=false")]
            )
        self.generator, self.discriminator = generator, discriminator
        self.latent, self.shape, self.classes, self.packing = latent, tuple(shape), classes, packing
        self._latent_distribution: LatentDistribution = latent_distribution
        self.has_density = isinstance(generator, FlowGenerator)
        if not self.makes_images:
            self.register_buffer("center", torch.zeros(self.shape) if center is None else center.float())
            self.register_buffer("spread", torch.ones(self.shape) if spread is None else spread.float())
        require_logits(
            "discriminator", discriminator, packed_shape(self.shape, packing), "the losses take logits", classes
        )
        if self.makes_images:
            require_logits("generator", generator, (latent,), "the image is the sigmoid of its outputs", classes)

    @property
    def makes_images(self) -> bool:
        """Whether examples are images in [0, 1] rather than points."""
        return len(self.shape) == 3

    @property
    def latent_distribution(self) -> Distribution:
        """p(z), with event shape (d,)."""
        family, low, high = _LATENT_RANGE[self._latent_distribution]
        device = next(self.generator.parameters()).device
        lows, highs = (torch.full((self.latent,), value, device=device) for value in (low, high))
        return Independent(family(lows, highs, validate_args=False), 1, validate_args=False)

    def draw_latent(self, n: int) -> Tensor:
        """Draw n latents, (n, d), on the generator's device."""
        return self.latent_distribution.sample(torch.Size([n]))

    def generate(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """G(z), differentiable: z (B, d), with classes also labels (B,) → (B, *shape)."""
        raw = self.generator(z) if not self.classes else self.generator(z, self._need(labels))
        return torch.sigmoid(raw.float()) if self.makes_images else self.center + self.spread * raw

    def standardize_as(self, standardization: Standardization) -> None:
        """Take center and spread of the training examples; images, which lie in [0, 1], have none."""
        if not self.makes_images:
            self.center.copy_(standardization.center)
            self.spread.copy_(standardization.spread)

    def pack(self, x: Tensor) -> Tensor:
        """Concatenate each m examples along their channels: (B, C, …) → (B/m, m·C, …).

        Raises:
            ConfigurationError: if m does not divide B.
        """
        if self.packing == 1:
            return x
        if len(x) % self.packing:
            raise ConfigurationError(
                [("packing", f"packs of {self.packing} do not divide a batch of {len(x)}. Choose a multiple of it")]
            )
        return x.reshape(len(x) // self.packing, self.packing * x.shape[1], *x.shape[2:])

    def score(self, packs: Tensor, labels: Tensor | None = None) -> Tensor:
        """The logits of packs from `pack`, (B,)."""
        if not self.makes_images:
            times = [self.packing, *[1] * (len(self.shape) - 1)]
            packs = (packs - self.center.repeat(times)) / self.spread.repeat(times)
        logits = self.discriminator(packs) if not self.classes else self.discriminator(packs, self._need(labels))
        return logits.squeeze(-1)

    def discriminate(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The logits of examples, (B, *shape) → (B/m,)."""
        return self.score(self.pack(x), labels)

    def draw_labels(self, n: int) -> Tensor:
        """n labels, all classes equally probable, int64 (n,)."""
        return torch.randint(self.classes, (n,), device=next(self.generator.parameters()).device)

    @torch.no_grad()
    def sample(self, n: int, labels: Tensor | None = None, z: Tensor | None = None) -> Tensor:
        """Draw n examples, (n, *shape).

        Args:
            n: how many.
            labels: (n,), for a class-conditional model; drawn uniformly if not given.
            z: (n, d), in place of draws.
        """
        require_count("n", n, 0)
        z = self.draw_latent(n) if z is None else z
        if len(z) != n:
            raise ConfigurationError([("z", f"there are {len(z)} latents for {n} samples; give as many")])
        if self.classes and labels is None:
            labels = self.draw_labels(n)
        return self.generate(z, labels)

    def log_prob(self, x: Tensor) -> Tensor:
        """log q(x), the generator's density in nats, (B, D) → (B,).

        Raises:
            UnsupportedError: unless the generator is a flow.
        """
        if not isinstance(self.generator, FlowGenerator):
            raise UnsupportedError("only a flow has a known density; use network=flow for the generator of points")
        return self.generator.log_prob((x - self.center) / self.spread) - self.spread.log().sum()

    def with_discriminator(self, discriminator: nn.Module) -> GAN:
        """The same generator, shared, with another discriminator, of single examples."""
        return GAN(
            self.generator,
            discriminator,
            latent=self.latent,
            shape=self.shape,
            classes=self.classes,
            latent_distribution=self._latent_distribution,
            center=None if self.makes_images else self.center,
            spread=None if self.makes_images else self.spread,
        )

    def _need(self, labels: Tensor | None) -> Tensor:
        if labels is None:
            raise ConfigurationError([("labels", f"this model has {self.classes} classes; give a label for each x")])
        return labels


def packed_shape(shape: tuple[int, ...], packing: int) -> tuple[int, ...]:
    """The shape of the discriminator's input: m times the channels, or coordinates."""
    return (packing * shape[0], *shape[1:])
