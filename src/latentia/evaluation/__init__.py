"""Evaluation: estimates of what a trained model is worth."""

from latentia.evaluation.bound import evaluate_bound
from latentia.evaluation.exact import LikelihoodResult, exact_log_likelihood
from latentia.evaluation.fresh import fresh_bound
from latentia.evaluation.game import (
    accuracy,
    diversity,
    gap_to_optimum,
    jensen_shannon_bound,
    jensen_shannon_of_densities,
    jensen_shannon_on_grid,
    players_value,
)
from latentia.evaluation.latent_model import LatentModel, observe
from latentia.evaluation.modes import mode_coverage, perfect_coverage

__all__ = [
    "LatentModel",
    "LikelihoodResult",
    "accuracy",
    "diversity",
    "evaluate_bound",
    "exact_log_likelihood",
    "fresh_bound",
    "gap_to_optimum",
    "jensen_shannon_bound",
    "jensen_shannon_of_densities",
    "jensen_shannon_on_grid",
    "mode_coverage",
    "observe",
    "perfect_coverage",
    "players_value",
]
