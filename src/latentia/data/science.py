"""Tables and signals without a download: two tables that come with scikit-learn, and signals that are generated."""

from __future__ import annotations

__all__ = ["BreastCancer", "Signals", "Wine"]

import math
from typing import Any

import numpy as np
import torch
from pydantic import Field

from latentia.data.source import Parts, Source
from latentia.data.split import Split
from latentia.data.table_file import table_parts
from latentia.data.tables import TabularSource, read_table


class BreastCancer(TabularSource, name="breast-cancer"):
    """569 tumors with 30 measurements each, benign or malignant, in scikit-learn (Street et al. 1993)."""

    target: str | None = "diagnosis"

    def _read(self) -> Parts:
        from sklearn.datasets import load_breast_cancer  # slow to import, and only this source needs it

        return _sklearn_parts(load_breast_cancer(), "diagnosis", self)


class Wine(TabularSource, name="wine"):
    """178 wines of three growers with 13 measurements each, in scikit-learn (Aeberhard and Forina 1991)."""

    target: str | None = "grower"

    def _read(self) -> Parts:
        from sklearn.datasets import load_wine

        return _sklearn_parts(load_wine(), "grower", self)


def _sklearn_parts(found: Any, target: str, source: TabularSource) -> Parts:
    table = {str(name): np.asarray(found.data)[:, place] for place, name in enumerate(found.feature_names)}
    table[target] = np.asarray(found.target_names)[np.asarray(found.target)]
    return table_parts(read_table(table, source, source.type_name))


class Signals(Source, name="signals"):
    """Generated signals (N, 1, length) of four classes: sine, square, sawtooth and decaying sine, with noise.

    Frequency, phase and amplitude are drawn for each signal. A signal's class is its label.

    Attributes:
        count: of signals.
        length: of a signal.
        noise: standard deviation of the white noise.
        seed: of the signals.
    """

    count: int = Field(default=2000, ge=10)
    length: int = Field(default=100, ge=8)
    noise: float = Field(default=0.1, ge=0)
    seed: int = 0

    @property
    def suggested_likelihood(self) -> str:
        return "gaussian-per-column"

    def _read(self) -> Parts:
        generator = torch.Generator().manual_seed(self.seed)

        def uniform(low: float, high: float) -> torch.Tensor:
            return low + (high - low) * torch.rand(self.count, 1, generator=generator)

        t = torch.linspace(0, 1, self.length)
        labels = torch.randint(0, 4, (self.count,), generator=generator)
        phase = 2 * math.pi * (uniform(1.5, 3.0) * t + uniform(0, 1))
        wave = phase.sin()
        kinds = torch.stack([wave, wave.sign(), (phase / math.pi).remainder(2) - 1, wave * (-3 * t).exp()])
        x = uniform(0.7, 1.3) * kinds[labels, torch.arange(self.count)]
        x = x + self.noise * torch.randn(x.shape, generator=generator)
        return Parts(Split(x[:, None], labels), None, ("sine", "square", "sawtooth", "decaying sine"))
