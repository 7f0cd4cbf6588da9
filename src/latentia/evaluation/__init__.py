"""Evaluation: estimates of what a trained model is worth."""

from latentia.evaluation.annealed import Bidirectional, annealed_log_likelihood, bidirectional_monte_carlo
from latentia.evaluation.bound import evaluate_bound
from latentia.evaluation.exact import LikelihoodResult, exact_log_likelihood
from latentia.evaluation.fresh import fresh_bound
from latentia.evaluation.game import (
    accuracy,
    collapse_alarm,
    gap_to_optimum,
    jensen_shannon_bound,
    jensen_shannon_of_densities,
    jensen_shannon_on_grid,
    players_value,
)
from latentia.evaluation.gaps import Gaps, evaluate_gaps, mutual_information
from latentia.evaluation.importance import importance_log_likelihood
from latentia.evaluation.latent_model import LatentModel, observe
from latentia.evaluation.likelihood import LikelihoodEvaluation, evaluate_likelihood
from latentia.evaluation.modes import mode_coverage, perfect_coverage
from latentia.evaluation.pareto import fit_generalised_pareto, pareto_k
from latentia.evaluation.posterior import GridPosterior, exact_posterior
from latentia.evaluation.refit import refit_encoder

__all__ = [
    "Bidirectional",
    "Gaps",
    "GridPosterior",
    "LatentModel",
    "LikelihoodEvaluation",
    "LikelihoodResult",
    "accuracy",
    "annealed_log_likelihood",
    "bidirectional_monte_carlo",
    "collapse_alarm",
    "evaluate_bound",
    "evaluate_gaps",
    "evaluate_likelihood",
    "exact_log_likelihood",
    "exact_posterior",
    "fit_generalised_pareto",
    "fresh_bound",
    "gap_to_optimum",
    "importance_log_likelihood",
    "jensen_shannon_bound",
    "jensen_shannon_of_densities",
    "jensen_shannon_on_grid",
    "mode_coverage",
    "mutual_information",
    "observe",
    "pareto_k",
    "perfect_coverage",
    "players_value",
    "refit_encoder",
]
