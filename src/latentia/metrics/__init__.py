"""Sample quality: features, metrics as functions of features, and scores with their protocol.

from latentia.metrics import score
score(test_images, samples, features="classifier", train=train_images)
"""

from latentia.metrics.accuracy import ClassificationAccuracy, classification_accuracy
from latentia.metrics.arrays import ColumnDistances, score_arrays
from latentia.metrics.classes import Classes, InceptionScore, class_coverage, inception_score
from latentia.metrics.classifier import classify
from latentia.metrics.comparison import ModelScores, best_of
from latentia.metrics.features import Classifier, Features, Inception, Module, Pixels, RandomConvolutional
from latentia.metrics.frechet import Frechet, frechet_distance
from latentia.metrics.kernel import Kernel, kernel_distance
from latentia.metrics.memorization import Memorization, memorization
from latentia.metrics.metric import Metric, higher_is_better, measured_by, parse_metrics
from latentia.metrics.neighbors import Neighbors, neighbor_scores
from latentia.metrics.pairwise import Diversity, diversity
from latentia.metrics.protocol import Protocol, protocol_text, require_comparable, same_protocol
from latentia.metrics.scoring import (
    Labels,
    Output,
    ProgressCallback,
    Scores,
    default_features,
    draw_samples,
    reference_images,
    score,
)
from latentia.metrics.sliced import SlicedWasserstein, sliced_wasserstein
from latentia.metrics.two_sample import TwoSample, two_sample_test

__all__ = [
    "Classes",
    "ClassificationAccuracy",
    "Classifier",
    "ColumnDistances",
    "Diversity",
    "Features",
    "Frechet",
    "Inception",
    "InceptionScore",
    "Kernel",
    "Labels",
    "Memorization",
    "Metric",
    "ModelScores",
    "Module",
    "Neighbors",
    "Output",
    "Pixels",
    "ProgressCallback",
    "Protocol",
    "RandomConvolutional",
    "Scores",
    "SlicedWasserstein",
    "TwoSample",
    "best_of",
    "class_coverage",
    "classification_accuracy",
    "classify",
    "default_features",
    "diversity",
    "draw_samples",
    "frechet_distance",
    "higher_is_better",
    "inception_score",
    "kernel_distance",
    "measured_by",
    "memorization",
    "neighbor_scores",
    "parse_metrics",
    "protocol_text",
    "reference_images",
    "require_comparable",
    "same_protocol",
    "score",
    "score_arrays",
    "sliced_wasserstein",
    "two_sample_test",
]
