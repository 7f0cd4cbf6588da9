"""How good samples are: features, metrics as functions of features, and scores that say how they were made.

from latentia.metrics import score
score(test_images, samples, features="classifier", train=train_images)
"""

from latentia.metrics.cache import cache_folder, cached_features, content_hash
from latentia.metrics.card import (
    AS_GIVEN,
    NOISELESS,
    Card,
    card_differences,
    card_text,
    require_comparable,
    same_way,
)
from latentia.metrics.classes import class_coverage, inception_score
from latentia.metrics.classifier import classifier_facts, classify, load_classifier
from latentia.metrics.comparison import Entry, best_of, figure_of
from latentia.metrics.diversity import diversity
from latentia.metrics.features import (
    Classifier,
    Features,
    Inception,
    Module,
    Pixels,
    RandomConvolutional,
    check_images,
)
from latentia.metrics.frechet import frechet_distance, frechet_extrapolated, frechet_of_moments
from latentia.metrics.inception import InceptionV3, load_inception
from latentia.metrics.kernel import kernel_distance
from latentia.metrics.memorization import memorization
from latentia.metrics.metrics import (
    Classes,
    Diversity,
    Evidence,
    Frechet,
    InceptionScore,
    Kernel,
    Memorization,
    Metric,
    Neighbors,
    SlicedWasserstein,
    TwoSample,
    better,
    parse_metrics,
)
from latentia.metrics.models import Output, Reference, default_features, draw_samples, reference_images
from latentia.metrics.neighbors import NeighborScores, neighbor_scores
from latentia.metrics.scoring import Tell, default_metrics, quantize, score
from latentia.metrics.sliced import sliced_wasserstein
from latentia.metrics.two_sample import two_sample_test

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
    "Memorization",
    "Metric",
    "Module",
    "NeighborScores",
    "Neighbors",
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
    "memorization",
    "neighbor_scores",
    "parse_metrics",
    "quantize",
    "reference_images",
    "require_comparable",
    "same_way",
    "score",
    "sliced_wasserstein",
    "two_sample_test",
]
