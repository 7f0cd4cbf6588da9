"""Laws, families of laws, and conditionals: what is probabilistic is a `torch.distributions.Distribution`."""

from latentia.distributions.conditional import Conditional, Family
from latentia.distributions.continuous_bernoulli import ContinuousBernoulliLaw
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
from latentia.distributions.posteriors import Diagonal, Fixed, Full, Posterior
from latentia.distributions.priors import FlowPrior, MixturePrior, Prior, StandardNormal, VampPrior

__all__ = [
    "Bernoulli",
    "Conditional",
    "ContinuousBernoulli",
    "ContinuousBernoulliLaw",
    "Diagonal",
    "DiscretisedLogisticMixture",
    "DiscretisedLogisticMixtureLaw",
    "Family",
    "Fixed",
    "FlowPrior",
    "Full",
    "Gaussian",
    "GaussianLearnedScale",
    "GaussianPerPixel",
    "Likelihood",
    "MixturePrior",
    "Posterior",
    "Prior",
    "StandardNormal",
    "VampPrior",
]
