"""log p(x) of a latent-variable model by quadrature, importance sampling and annealing, and gaps of its bound."""

from latentia.likelihood.annealed import annealed_log_likelihood, bidirectional_monte_carlo
from latentia.likelihood.bound import evaluate_bound
from latentia.likelihood.conditional import evaluate_conditional_likelihood
from latentia.likelihood.evaluate import LikelihoodEvaluation, evaluate_likelihood
from latentia.likelihood.gaps import Gaps, evaluate_gaps
from latentia.likelihood.importance import importance_log_likelihood, log_importance_weights
from latentia.likelihood.imputation import Imputation, impute_values
from latentia.likelihood.information import aggregate_log_ratio, mutual_information
from latentia.likelihood.known_density import divergences_from_known
from latentia.likelihood.latent_model import LatentModel
from latentia.likelihood.posterior import GridPosterior, exact_posterior
from latentia.likelihood.proof.enclosure import enclose_log_likelihood, prove_exclusion
from latentia.likelihood.proof.modules import register_bounds
from latentia.likelihood.quadrature import exact_log_likelihood
from latentia.likelihood.refit import refit_encoder

__all__ = [
    "Gaps",
    "GridPosterior",
    "Imputation",
    "LatentModel",
    "LikelihoodEvaluation",
    "aggregate_log_ratio",
    "annealed_log_likelihood",
    "bidirectional_monte_carlo",
    "divergences_from_known",
    "enclose_log_likelihood",
    "evaluate_bound",
    "evaluate_conditional_likelihood",
    "evaluate_gaps",
    "evaluate_likelihood",
    "exact_log_likelihood",
    "exact_posterior",
    "importance_log_likelihood",
    "impute_values",
    "log_importance_weights",
    "mutual_information",
    "prove_exclusion",
    "refit_encoder",
    "register_bounds",
]
