"""Models: bundles of injected parts that sample, encode, decode and score."""

from latentia.models.vae import VAE

__all__ = ["VAE"]
