"""Models: modules made of networks and distributions that sample, encode, decode and score."""

from latentia.models.conditional_vae import ConditionalVAE
from latentia.models.finite import BernoulliMixture, FiniteLatentModel, fit_bernoulli_mixture
from latentia.models.flow import Flow
from latentia.models.gan import GAN
from latentia.models.hybrids import VAEGAN, AdversarialAutoencoder, BiGAN, EncodedGAN
from latentia.models.m2 import M2
from latentia.models.vae import VAE

__all__ = [
    "GAN",
    "M2",
    "VAE",
    "VAEGAN",
    "AdversarialAutoencoder",
    "BernoulliMixture",
    "BiGAN",
    "ConditionalVAE",
    "EncodedGAN",
    "FiniteLatentModel",
    "Flow",
    "fit_bernoulli_mixture",
]
