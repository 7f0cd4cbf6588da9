"""A recipe: what to build, on what data, for how long. A run is the YAML of its recipe."""

from __future__ import annotations

__all__ = ["Recipe"]

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import nn

from latentia.configuration import OneOf
from latentia.data import Digits, Source, Splits
from latentia.errors import ConfigurationError
from latentia.estimate import Estimate
from latentia.training import Game, Training, Worker


class Recipe(Training, family=True):
    """The family of recipes. Everything random in one follows from `seed`."""

    data: OneOf[Source] = Digits(binarize="dynamic")

    @abstractmethod
    def build_model(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """Build the model, untrained, for examples of this shape and so many classes (0 without labels)."""

    @abstractmethod
    def build_game(self, model: nn.Module, splits: Splits, worker: Worker) -> Game:
        """The game that trains the model on these data.

        Raises:
            DataError: for data that the model cannot score.
        """

    def final_estimates(self, model: nn.Module, splits: Splits) -> list[Estimate]:
        """Figures of the trained model on the test split, written to evaluation/training.json."""
        return []

    def with_defaults(self, written: Mapping[str, Any]) -> Mapping[str, Any]:
        """A recipe on disk with the defaults of all keys that it lacks, to compare this one with.

        Networks of the user's own, which cannot be made from what is written, are this recipe's, if they are written
        alike. A recipe that cannot be read any more is left as it is: then all that differs from this one is told.
        """
        mapping = self.to_mapping()
        own = {name: value for name, value in self if getattr(value, "type_name", "") == "custom"}
        same = {name: value for name, value in own.items() if written.get(name) == mapping[name]}
        try:
            return Recipe.parse({**written, **same}).to_mapping()
        except ConfigurationError:
            return written
