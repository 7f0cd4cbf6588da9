"""Distributions, families of distributions, and conditionals; all are `torch.distributions.Distribution`s."""

from latentia.distributions.categories import Categorical, Ordinal
from latentia.distributions.codes import CategoricalPosterior, CategoricalPrior, OneHotCodes
from latentia.distributions.columns import GaussianPerColumn, LaplacePerColumn, LogNormal, StudentT
from latentia.distributions.conditional import Conditional, Family
from latentia.distributions.counts import NegativeBinomial, Poisson, ZeroInflated
from latentia.distributions.finite import Finite
from latentia.distributions.flow_posterior import FlowPosterior
from latentia.distributions.gaussians import gaussian_kl
from latentia.distributions.likelihoods import (
    Bernoulli,
    ContinuousBernoulli,
    DiscretizedLogisticMixture,
    Gaussian,
    GaussianLearnedScale,
    GaussianPerPixel,
    Likelihood,
)
from latentia.distributions.mixed import Group, Mixed
from latentia.distributions.mixture_posterior import MixturePosterior, Stratified, weighted_draws
from latentia.distributions.mixtures import Mixture, log_density
from latentia.distributions.parsing import parse_distribution
from latentia.distributions.pixels import ContinuousBernoulliDistribution
from latentia.distributions.posteriors import Diagonal, Fixed, Full, Posterior
from latentia.distributions.priors import (
    FlowPrior,
    MixturePrior,
    Prior,
    StandardNormal,
    VampPrior,
    require_same_space,
    zuko_flows,
)
from latentia.distributions.sphere import UniformSphere, VonMisesFisher
from latentia.distributions.standardization import Standardization

__all__ = [
    "Bernoulli",
    "Categorical",
    "CategoricalPosterior",
    "CategoricalPrior",
    "Conditional",
    "ContinuousBernoulli",
    "ContinuousBernoulliDistribution",
    "Diagonal",
    "DiscretizedLogisticMixture",
    "Family",
    "Finite",
    "Fixed",
    "FlowPosterior",
    "FlowPrior",
    "Full",
    "Gaussian",
    "GaussianLearnedScale",
    "GaussianPerColumn",
    "GaussianPerPixel",
    "Group",
    "LaplacePerColumn",
    "Likelihood",
    "LogNormal",
    "Mixed",
    "Mixture",
    "MixturePosterior",
    "MixturePrior",
    "NegativeBinomial",
    "OneHotCodes",
    "Ordinal",
    "Poisson",
    "Posterior",
    "Prior",
    "StandardNormal",
    "Standardization",
    "Stratified",
    "StudentT",
    "UniformSphere",
    "VampPrior",
    "VonMisesFisher",
    "ZeroInflated",
    "gaussian_kl",
    "log_density",
    "parse_distribution",
    "require_same_space",
    "weighted_draws",
    "zuko_flows",
]
