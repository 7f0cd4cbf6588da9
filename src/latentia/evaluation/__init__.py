"""Evaluation: estimates of what a trained model is worth."""

from latentia.evaluation.bound import evaluate_bound
from latentia.evaluation.exact import LikelihoodResult, exact_log_likelihood
from latentia.evaluation.latent_model import LatentModel, observe

__all__ = ["LatentModel", "LikelihoodResult", "evaluate_bound", "exact_log_likelihood", "observe"]
