"""Models: bundles of injected parts that sample, encode, decode and score."""

from latentia.models.encoded_gan import VAEGAN, BiGAN, EncodedGAN
from latentia.models.finite import BernoulliMixture, FiniteLatentModel, Fit, fit_bernoulli_mixture
from latentia.models.flow import Flow, FlowGenerator
from latentia.models.gan import GAN, ends_in_sigmoid, has_batch_norm
from latentia.models.vae import VAE

__all__ = [
    "GAN",
    "VAE",
    "VAEGAN",
    "BernoulliMixture",
    "BiGAN",
    "EncodedGAN",
    "FiniteLatentModel",
    "Fit",
    "Flow",
    "FlowGenerator",
    "ends_in_sigmoid",
    "fit_bernoulli_mixture",
    "has_batch_norm",
]
