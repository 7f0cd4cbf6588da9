"""Scores of samples of tables and signals: values in place of features of images.

What the metrics compare are standardized values: each column, or channel of a signal, minus the mean of the training
examples, over their standard deviation; categories as indicators. Fréchet and kernel distance, precision, recall,
density, coverage, sliced Wasserstein distance, diversity, memorization and the two-sample test are then as for images.
Columns of a table are compared one by one as well:

    numbers      W₁ = ∫ |F(x) − G(x)| dx, in standard deviations of the training values
    categories   the total variation distance of their shares

Samples are draws of x: means E[x|z] lack the noise of p(x|z), and no test would take them for data.
"""

from __future__ import annotations

__all__ = ["ColumnDistances", "score_arrays"]

import hashlib
import re
from collections.abc import Sequence
from itertools import count
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from latentia.data import Column
from latentia.errors import DataError, UnsupportedError
from latentia.estimate import Estimate
from latentia.metrics.features import Features, content_hash
from latentia.metrics.metric import BOTH, Metric, MetricInputs
from latentia.metrics.protocol import AS_GIVEN, Protocol
from latentia.metrics.scoring import (
    ProgressCallback,
    Scores,
    default_metrics,
    how_many,
    order_of,
    parsed,
    refuse_constant,
    with_protocols,
)

_CATEGORIES = ("category", "ordinal", "binary")


class StandardizedValues(Features, name="standardized"):
    """The values themselves; see the module. They are for tables and signals alone."""

    def module(self, channels: int) -> nn.Module:
        raise UnsupportedError("standardized values are for tables and signals; use features=pixels for images")

    def fingerprint(self) -> str:
        return hashlib.sha256(b"standardized values").hexdigest()


class ColumnDistances(Metric, name="columns"):
    """The distance of each column of a table between samples and data, and their mean; of tables alone."""

    resamples: int = Field(default=200, ge=2, description="of the bootstrap, for standard errors")
    higher_is_better: ClassVar[dict[str, int]] = {"columns": -1}
    measures: ClassVar[dict[str, str]] = {"columns": BOTH}
    needs_columns: ClassVar[bool] = True

    def __call__(self, inputs: MetricInputs) -> list[Estimate]:
        if inputs.columns is None:
            raise UnsupportedError("columns are compared in tables alone; use sliced-wasserstein for other data")
        return column_distances(inputs.columns, resamples=self.resamples, seed=inputs.seed)


class ColumnValues(NamedTuple):
    """A column of the data and of samples, (n,) and (m,), float64: standardized numbers, or numbers of categories."""

    column: Column
    real: Tensor
    fake: Tensor


def column_distances(columns: Sequence[ColumnValues], *, resamples: int = 200, seed: int = 0) -> list[Estimate]:
    """`columns/NAME` for each column, and `columns/mean`, with standard errors by the bootstrap.

    Finite samples make both distances too large; compare them with the values of real against real examples.

    Args:
        columns: of a table, NaN where a value is missing.
        resamples: of both samples.
        seed: of the bootstrap.
    """
    generator = torch.Generator().manual_seed(seed)
    found, every = [], []
    for column, real, fake in columns:
        real, fake = real[~real.isnan()], fake[~fake.isnan()]
        n = min(len(real), len(fake))
        if n < 2:
            continue
        size = int(max(real.max(), fake.max())) + 1 if column.kind in _CATEGORIES else 0
        rows = [torch.randint(len(x), (resamples, n), generator=generator) for x in (real, fake)]
        again = _distance(real[rows[0]], fake[rows[1]], size)
        value = _distance(real[None, :n], fake[None, :n], size).item()
        every.append(again)
        method = "total variation of shares" if size else "W₁ in standard deviations"
        name = re.sub(r"[^\w.-]+", "_", column.name) or "column"
        settings = {"interval": "bootstrap", "bias": "upwards", "resamples": resamples}
        found.append(Estimate(value, f"columns/{name}", again.std().item(), n, "1", method=method, settings=settings))
    if not found:
        raise UnsupportedError("no column has two values or more in both the data and the samples")
    mean = torch.stack(every).mean(0).std().item()
    value = sum(each.value for each in found) / len(found)
    settings = {"interval": "bootstrap", "bias": "upwards", "resamples": resamples, "columns": len(found)}
    n = min(each.n or 0 for each in found)
    return [Estimate(value, "columns/mean", mean, n, "1", method="mean over columns", settings=settings), *found]


def _distance(x: Tensor, y: Tensor, categories: int) -> Tensor:
    """W₁, or with categories total variation, of each pair of rows (R, n): (R,)."""
    if not categories:
        return (x.sort(1).values - y.sort(1).values).abs().mean(1)
    shares = [torch.stack([(z == k).double().mean(1) for k in range(categories)]) for z in (x, y)]
    return (shares[0] - shares[1]).abs().sum(0) / 2


class _Values:
    """Examples as standardized values (N, D), by mean and standard deviation of the training examples."""

    def __init__(self, train: Tensor, columns: Sequence[Column]):
        kept = (0, *range(2, train.dim()))
        self.columns = list(columns)
        self.mean = train.double().nanmean(kept, keepdim=True)
        around = train.double() - self.mean
        spread = around.square().nanmean(kept, keepdim=True).sqrt()
        self.spread = torch.where(spread > 0, spread, 1.0)
        self.levels = {
            place: int(train[:, place].nan_to_num(0).max()) + 1
            for place, column in enumerate(columns)
            if column.kind in ("category", "ordinal")
        }

    def __call__(self, x: Tensor) -> Tensor:
        """The values that metrics compare, float64 (N, D)."""
        u = (x.double() - self.mean) / self.spread
        if not self.levels:
            return u.flatten(1)
        parts = [u[:, [place]] for place in range(x.shape[1]) if place not in self.levels]
        for place, size in self.levels.items():
            parts.append(torch.stack([(x[:, place] == k).double() for k in range(size)], 1))
        return torch.cat(parts, 1)

    def by_column(self, x: Tensor) -> list[Tensor]:
        """Each column of a table, standardized unless its numbers are categories."""
        u = (x.double() - self.mean) / self.spread
        plain = x.double()
        return [(plain if column.kind in _CATEGORIES else u)[:, place] for place, column in enumerate(self.columns)]


def score_arrays(
    real: Tensor,
    fake: Tensor,
    train: Tensor,
    *,
    columns: Sequence[Column] = (),
    metrics: Sequence[Metric | str] | None = None,
    n: int | None = None,
    real_vs_real: bool = True,
    split: str = "not stated",
    samples: str = AS_GIVEN,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Scores:
    """Score samples of a table or of signals against examples that the model was not trained on.

    Args:
        real: (N, *event); examples with missing values (NaN) are left out, but of comparisons column by column.
        fake: (M, *event), draws of x.
        train: (T, *event), what the model was trained on; it gives the units, too.
        columns: of a table.
        metrics: members of `Metric` or their names; all that apply, if not given.
        n: number of real and of generated examples.
        real_vs_real: also score real examples against real ones.
        split: the part of the data that `real` belongs to, for the protocol.
        samples: what `fake` is, for the protocol.
        seed: of the subsets of examples, and of metrics that sample.
        progress: as in `score`.

    Raises:
        DataError: too few examples, or samples that are all equal.
        ConfigurationError: an unknown metric.
        UnsupportedError: a named metric that these data do not allow.
    """
    if real.dim() == 2 and not columns:
        columns = [Column(f"column {place}") for place in range(real.shape[1])]
    values = _Values(train, columns)
    whole = {name: x[~x.isnan().flatten(1).any(1)] for name, x in (("real", real), ("train", train))}
    if len(whole["real"]) < 4:
        raise DataError(f"{len(whole['real'])} {split} examples have all their values, and scores need 4 or more")
    real = whole["real"]
    chosen = (
        [each for each in default_metrics(StandardizedValues(), True) if real.dim() == 2 or not each.needs_columns]
        if metrics is None
        else [parsed(Metric, metric, "metrics") for metric in metrics]
    )
    if metrics is None and real.dim() == 2:
        chosen.append(ColumnDistances())
    size = how_many(n, len(real), len(fake), real_vs_real)
    order = {"real": order_of(len(real), seed, "real"), "fake": order_of(len(fake), seed, "fake")}
    own, other = real[order["real"][:size]], real[order["real"][size : 2 * size]]
    protocol = Protocol(
        real=content_hash(real),
        split=split,
        n_real=size,
        n_fake=size,
        size="×".join(map(str, real.shape[1:])),
        resize="none",
        quantization="none",
        features=StandardizedValues().to_mapping(),
        features_hash=content_hash(torch.cat([values.mean.flatten(), values.spread.flatten()])),
        seed=seed,
        reals="values",
        samples=samples,
    )
    seen = {"real": values(own), "train": values(whole["train"])}
    skipped: dict[str, str] | None = {} if metrics is None else None
    pieces, total = count(0), len(chosen) * (1 + real_vs_real)

    def begin(what: str) -> None:
        if progress is not None:
            progress(next(pieces), total, what)

    def no_classes() -> Any:
        raise UnsupportedError("this metric is for images, whose features have classes; leave it out")

    def scores(others: Tensor, suffix: str) -> list[Estimate]:
        by_column = None
        if real.dim() == 2:
            pairs = zip(values.columns, values.by_column(own), values.by_column(others), strict=True)
            by_column = [ColumnValues(*pair) for pair in pairs]
        inputs = MetricInputs(
            StandardizedValues(), seen["real"], values(others), seen["train"], no_classes, seed, columns=by_column
        )
        return list(with_protocols(chosen, inputs, protocol, suffix, begin, skipped))

    made = fake[order["fake"][:size]]
    refuse_constant(made.flatten(1))
    found = Scores(scores(made, ""))
    if real_vs_real:
        found += scores(other, "/real_vs_real")
    found.skipped = skipped or {}
    return found
