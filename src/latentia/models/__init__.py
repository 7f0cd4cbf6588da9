"""Models: bundles of injected parts that sample, encode, decode and score."""

from latentia.models.finite import BernoulliMixture, FiniteLatentModel, Fit, fit_bernoulli_mixture
from latentia.models.vae import VAE

__all__ = ["VAE", "BernoulliMixture", "FiniteLatentModel", "Fit", "fit_bernoulli_mixture"]
