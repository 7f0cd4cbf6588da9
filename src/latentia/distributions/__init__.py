"""Laws, families of laws, and conditionals: what is probabilistic is a `torch.distributions.Distribution`."""

from latentia.distributions.conditional import Conditional, Family
from latentia.distributions.continuous_bernoulli import ContinuousBernoulliLaw
from latentia.distributions.finite import Finite
from latentia.distributions.gaussians import DiagonalGaussian, StandardGaussian
from latentia.distributions.likelihoods import (
    Bernoulli,
    ContinuousBernoulli,
    DiscretisedLogisticMixture,
    Gaussian,
    GaussianLearnedScale,
    GaussianPerPixel,
    Likelihood,
)
from latentia.distributions.logistic_mixture import DiscretisedLogisticMixtureLaw
from latentia.distributions.mixtures import Mixture, gaussian_mixture, log_density
from latentia.distributions.posteriors import Diagonal, Fixed, Full, Posterior
from latentia.distributions.priors import FlowPrior, MixturePrior, Prior, StandardNormal, VampPrior
from latentia.distributions.written import LAWS, parse_law

__all__ = [
    "LAWS",
    "Bernoulli",
    "Conditional",
    "ContinuousBernoulli",
    "ContinuousBernoulliLaw",
    "Diagonal",
    "DiagonalGaussian",
    "DiscretisedLogisticMixture",
    "DiscretisedLogisticMixtureLaw",
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
    "parse_law",
]
