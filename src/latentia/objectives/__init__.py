"""Objectives of VAEs, and the costs and penalties of GANs: named terms, unreduced."""

from latentia.objectives.adversarial import (
    AdversarialLoss,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Relativistic,
    Wasserstein,
)
from latentia.objectives.augmentation import Augmentation, DiffAugment, NoAugmentation
from latentia.objectives.duel import Duel
from latentia.objectives.elbo import ELBO
from latentia.objectives.exact_likelihood import ExactLikelihood
from latentia.objectives.f_gan import FGAN
from latentia.objectives.importance import IWAE
from latentia.objectives.info import Info
from latentia.objectives.objective import Clock, Objective, Terms
from latentia.objectives.penalties import (
    R1,
    R1R2,
    R2,
    Clip,
    Consensus,
    GradientPenalty,
    NoPenalty,
    OneCentred,
    Penalty,
    Seen,
    ZeroCentred,
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
    "Augmentation",
    "BetaTC",
    "Clip",
    "Clock",
    "Consensus",
    "DiffAugment",
    "Duel",
    "ExactLikelihood",
    "GradientPenalty",
    "Hinge",
    "Info",
    "LeastSquares",
    "Minimax",
    "NoAugmentation",
    "NoPenalty",
    "NonSaturating",
    "Objective",
    "OneCentred",
    "Penalty",
    "Relativistic",
    "Seen",
    "Terms",
    "Wasserstein",
    "ZeroCentred",
]
