"""Objectives of VAEs, and the losses, penalties and augmentations of GANs: named terms, unreduced."""

from latentia.objectives.adversarial_objective import AdversarialObjective
from latentia.objectives.augmentation import Augmentation, DiffAugment, NoAugmentation
from latentia.objectives.elbo import ELBO
from latentia.objectives.exact_likelihood import ExactLikelihood
from latentia.objectives.f_gan import FGAN
from latentia.objectives.gan_losses import (
    AdversarialLoss,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Relativistic,
    Wasserstein,
)
from latentia.objectives.importance import IWAE
from latentia.objectives.info import Info
from latentia.objectives.m2 import m2_terms
from latentia.objectives.objective import Objective, Progress, Terms
from latentia.objectives.penalties import (
    R1,
    R1R2,
    R2,
    Clip,
    Consensus,
    DiscriminatorOutput,
    NoPenalty,
    OneCentered,
    Penalty,
    ZeroCentered,
)
from latentia.objectives.total_correlation import BetaTC

__all__ = [
    "ELBO",
    "FGAN",
    "IWAE",
    "R1",
    "R1R2",
    "R2",
    "AdversarialLoss",
    "AdversarialObjective",
    "Augmentation",
    "BetaTC",
    "Clip",
    "Consensus",
    "DiffAugment",
    "DiscriminatorOutput",
    "ExactLikelihood",
    "Hinge",
    "Info",
    "LeastSquares",
    "Minimax",
    "NoAugmentation",
    "NoPenalty",
    "NonSaturating",
    "Objective",
    "OneCentered",
    "Penalty",
    "Progress",
    "Relativistic",
    "Terms",
    "Wasserstein",
    "ZeroCentered",
    "m2_terms",
]
