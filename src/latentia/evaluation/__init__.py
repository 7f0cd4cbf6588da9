"""Evaluation: estimates of what a trained model is worth."""

from latentia.evaluation.bound import evaluate_bound

__all__ = ["evaluate_bound"]
