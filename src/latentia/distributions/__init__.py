"""Distributions, families of distributions, and conditionals: what is probabilistic is a `torch.distributions.Distribution`."""

from latentia.distributions.conditional import Conditional, Family
from latentia.distributions.continuous_bernoulli import ContinuousBernoulliDistribution
from latentia.distributions.finite import Finite
from latentia.distributions.gaussians import DiagonalGaussian, StandardGaussian
from latentia.distributions.likelihoods import (
    Bernoulli,
    ContinuousBernoulli,
    DiscretizedLogisticMixture,
    Gaussian,
    GaussianLearnedScale,
    GaussianPerPixel,
    Likelihood,
)
from latentia.distributions.logistic_mixture import DiscretizedLogisticMixtureDistribution
from latentia.distributions.mixtures import Mixture, gaussian_mixture, log_density
from latentia.distributions.parsing import DISTRIBUTIONS, parse_distribution
from latentia.distributions.posteriors import Diagonal, Fixed, Full, Posterior
from latentia.distributions.priors import FlowPrior, MixturePrior, Prior, StandardNormal, VampPrior

__all__ = [
    "DISTRIBUTIONS",
    "Bernoulli",
    "Conditional",
    "ContinuousBernoulli",
    "ContinuousBernoulliDistribution",
    "Diagonal",
    "DiagonalGaussian",
    "DiscretizedLogisticMixture",
    "DiscretizedLogisticMixtureDistribution",
    "Family",
    "Finite",
    "Fixed",
    "FlowPrior",
    "Full",
    "Gaussian",
    "GaussianLearnedScale",
    "GaussianPerPixel",
    "Likelihood",
    "Mixture",
    "MixturePrior",
    "Posterior",
    "Prior",
    "StandardGaussian",
    "StandardNormal",
    "VampPrior",
    "gaussian_mixture",
    "log_density",
    "parse_distribution",
]
