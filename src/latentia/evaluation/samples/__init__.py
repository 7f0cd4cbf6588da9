"""How good samples are: features, metrics as functions of features, and scores that say how they were made.

from latentia.evaluation.samples import score
score(test_images, samples, features="classifier", train=train_images)
"""

from latentia.evaluation.samples.cache import cache_folder, cached_features, content_hash
from latentia.evaluation.samples.card import (
    AS_GIVEN,
    NOISELESS,
    Card,
    card_differences,
    card_text,
    require_comparable,
    same_way,
)
from latentia.evaluation.samples.classes import class_coverage, inception_score
from latentia.evaluation.samples.classifier import classifier_facts, classify, load_classifier
from latentia.evaluation.samples.comparison import Entry, best_of, figure_of
from latentia.evaluation.samples.diversity import diversity
from latentia.evaluation.samples.features import (
    Classifier,
    Features,
    Inception,
    Module,
    Pixels,
    RandomConvolutional,
    check_images,
)
from latentia.evaluation.samples.frechet import frechet_distance, frechet_extrapolated, frechet_of_moments
from latentia.evaluation.samples.inception import InceptionV3, load_inception
from latentia.evaluation.samples.kernel import kernel_distance
from latentia.evaluation.samples.memorisation import memorisation
from latentia.evaluation.samples.metrics import (
    Classes,
    Diversity,
    Evidence,
    Frechet,
    InceptionScore,
    Kernel,
    Memorisation,
    Metric,
    Neighbours,
    SlicedWasserstein,
    TwoSample,
    better,
    parse_metrics,
)
from latentia.evaluation.samples.models import Output, Reference, default_features, draw_samples, reference_images
from latentia.evaluation.samples.neighbours import NeighbourScores, neighbour_scores
from latentia.evaluation.samples.scoring import Tell, default_metrics, quantise, score
from latentia.evaluation.samples.sliced import sliced_wasserstein
from latentia.evaluation.samples.two_sample import two_sample_test

__all__ = [
    "AS_GIVEN",
    "NOISELESS",
    "Card",
    "Classes",
    "Classifier",
    "Diversity",
    "Entry",
    "Evidence",
    "Features",
    "Frechet",
    "Inception",
    "InceptionScore",
    "InceptionV3",
    "Kernel",
    "Memorisation",
    "Metric",
    "Module",
    "NeighbourScores",
    "Neighbours",
    "Output",
    "Pixels",
    "RandomConvolutional",
    "Reference",
    "SlicedWasserstein",
    "Tell",
    "TwoSample",
    "best_of",
    "better",
    "cache_folder",
    "cached_features",
    "card_differences",
    "card_text",
    "check_images",
    "class_coverage",
    "classifier_facts",
    "classify",
    "content_hash",
    "default_features",
    "default_metrics",
    "diversity",
    "draw_samples",
    "figure_of",
    "frechet_distance",
    "frechet_extrapolated",
    "frechet_of_moments",
    "inception_score",
    "kernel_distance",
    "load_classifier",
    "load_inception",
    "memorisation",
    "neighbour_scores",
    "parse_metrics",
    "quantise",
    "reference_images",
    "require_comparable",
    "same_way",
    "score",
    "sliced_wasserstein",
    "two_sample_test",
]
