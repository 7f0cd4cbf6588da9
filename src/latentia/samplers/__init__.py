"""Samplers of z that are fitted to a trained VAE's codes and take the place of its prior."""

from latentia.samplers.flow import FlowSampler
from latentia.samplers.mixture import MixtureSampler
from latentia.samplers.sampler import FittedSampler, Sampler, fit_sampler, parse_sampler, with_prior
from latentia.samplers.two_stage import TwoStageSampler

__all__ = [
    "FittedSampler",
    "FlowSampler",
    "MixtureSampler",
    "Sampler",
    "TwoStageSampler",
    "fit_sampler",
    "parse_sampler",
    "with_prior",
]
