"""log p(x|y) of a conditional VAE: the examples of each label are evaluated under the VAE of that label.

Of covariates, y is a vector that hardly two examples share, so that nearly each is evaluated on its own.
"""

from __future__ import annotations

__all__ = ["evaluate_conditional_likelihood"]

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from latentia.errors import ConfigurationError
from latentia.estimate import Estimate
from latentia.likelihood.evaluate import LikelihoodEvaluation, Method, evaluate_likelihood
from latentia.likelihood.quadrature import exact_log_likelihood
from latentia.models import ConditionalVAE

NEW_NAMES = {"log_likelihood", "elbo", "iwae"}  # of log p(x|y), which is another number than log p(x)


def evaluate_conditional_likelihood(
    vae: ConditionalVAE,
    images: Tensor,
    labels: Tensor,
    method: Method = "exact",
    *,
    gaps: int = 1000,
    seconds: float = 300.0,
    progress: Callable[[int, int, str], None] | None = None,
    **options: Any,
) -> LikelihoodEvaluation:
    """log p(x|y) of examples with labels, and the method's other means over examples; see `evaluate_likelihood`.

    Args:
        vae: the model.
        images: (N, *event_shape).
        labels: (N,); of covariates, floats (N, k).
        method: for each label.
        gaps: of `exact`: the number of examples, from the first, whose inference gap is split.
        seconds: for all labels together; each gets its share by its number of examples.
        progress: is called with the number of examples done, of all examples, and what is being done.
        **options: of `evaluate_likelihood`.

    Raises:
        DataError: labels out of range. Also as `evaluate_likelihood`.
        ConfigurationError: annealing of a model of covariates, which simulates examples of each label.
    """
    vae.require_labels(labels)
    if vae.covariates and method == "annealed":
        text = "annealing moves the examples of one label together, and covariates differ for each example"
        raise ConfigurationError([("likelihood", f"{text}; use exact (z of at most 3 dimensions) or importance")])
    started = time.monotonic()
    found: list[tuple[Tensor, LikelihoodEvaluation]] = []
    distinct, place = labels.unique(dim=0, return_inverse=True)
    for number, label in enumerate(distinct):
        rows = (place == number).nonzero().squeeze(1)
        left = int((place >= number).sum())
        if progress is not None:
            options["progress"] = _of_all(progress, int((place < number).sum()), len(rows), len(images))
        about = {**options, "seconds": max(1.0, (seconds - (time.monotonic() - started)) * len(rows) / left)}
        if method == "exact":
            about["gaps"] = 0 if vae.covariates else int((rows < gaps).sum())
        if method == "annealed":
            about["simulated"] = max(2, options.get("simulated", 100) // vae.classes)
        if method == "exact" and vae.covariates:  # what else it gives are means over many examples of one label
            kept = {name: value for name, value in about.items() if name not in ("gaps", "simulated", "seed")}
            result = exact_log_likelihood(vae.given(label), images[rows], **kept)
            found.append((rows, LikelihoodEvaluation(result.estimates(), result.arrays())))
        else:
            found.append((rows, evaluate_likelihood(vae.given(label), images[rows], method, **about)))
    parts = [part for _, part in found]
    names = list(dict.fromkeys(e.name for part in parts for e in part.estimates))
    given = "covariates" if vae.covariates else "label"
    estimates = [_pooled([e for part in parts for e in part.estimates if e.name == name], given) for name in names]
    return LikelihoodEvaluation([each for each in estimates if each is not None], _arrays(found, len(images), gaps))


def _of_all(progress: Callable[[int, int, str], None], before: int, count: int, all_of_them: int) -> Any:
    """Report what is done of one label's examples as done of all examples; it never falls, whatever the label needs."""
    most = before

    def update(done: int, total: int, what: str) -> None:
        nonlocal most
        most = max(most, before + (count * done // total if total else 0))
        progress(most, all_of_them, what)

    return update


def _pooled(parts: Sequence[Estimate], given: str) -> Estimate | None:
    """The mean over the examples of all labels from the means of each; None for what is not a mean over examples.

    The variance over all examples is that within the labels and between them, so that the standard error is the one of
    all values taken together.
    """
    means = [each for each in parts if each.settings.get("stderr_over") == "images" and each.n]
    if len(means) < len(parts) or len({each.unit for each in parts}) > 1:
        return None
    counts = [each.n or 0 for each in means]
    n = sum(counts)
    mean = sum(count * each.value for count, each in zip(counts, means, strict=True)) / n
    squares = sum(
        (count - 1) * count * (each.stderr or 0.0) ** 2 + count * (each.value - mean) ** 2
        for count, each in zip(counts, means, strict=True)
    )
    first = means[0]
    kinds = {each.kind for each in means}
    settings: dict[str, Any] = {**first.settings, "given": given, "labels": len(means)}
    for key, combined in (
        ("error", lambda values: sum(c * v for c, v in zip(counts, values, strict=True)) / n),
        ("worst_error", max),
        ("not_reached", sum),
    ):
        values = [each.settings.get(key, 0) for each in means]
        if any(key in each.settings for each in means):
            settings[key] = combined(values)
    return replace(
        first,
        name=f"conditional_{first.name}" if first.name in NEW_NAMES else first.name,
        value=mean,
        stderr=math.sqrt(squares / (n - 1) / n) if n > 1 else None,
        n=n,
        kind=first.kind if len(kinds) == 1 else "numerical" if kinds == {"proven", "numerical"} else "estimate",
        settings=settings,
    )


def _arrays(found: Sequence[tuple[Tensor, LikelihoodEvaluation]], count: int, gaps: int) -> dict[str, Any]:
    """The arrays of all labels in the order of the examples; those of the gaps are of the first examples alone."""
    result: dict[str, Any] = {}
    for name in found[0][1].arrays:
        parts = [(rows.numpy(), np.asarray(part.arrays.get(name))) for rows, part in found]
        if any(values.ndim == 0 for _, values in parts):
            continue
        size = sum(len(values) for _, values in parts)
        if size not in (count, min(gaps, count)):
            continue
        whole = np.zeros((size, *parts[0][1].shape[1:]), dtype=parts[0][1].dtype)
        for rows, values in parts:
            whole[rows[: len(values)]] = values
        result[name] = whole
    return result
