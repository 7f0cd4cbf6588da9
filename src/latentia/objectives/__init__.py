"""Objectives of VAEs and, in `adversarial`, the costs of GANs: named terms, unreduced."""

from latentia.objectives.elbo import ELBO
from latentia.objectives.importance import IWAE
from latentia.objectives.info import Info
from latentia.objectives.objective import Clock, Objective, Terms
from latentia.objectives.total_correlation import BetaTC

__all__ = ["ELBO", "IWAE", "BetaTC", "Clock", "Info", "Objective", "Terms"]
