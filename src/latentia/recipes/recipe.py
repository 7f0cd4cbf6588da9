"""A recipe: what to build, on what data, for how long. A run is the YAML of its recipe."""

from __future__ import annotations

__all__ = ["Recipe"]

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import nn

from latentia.configuration import OneOf
from latentia.data import InMemory, MNIST5k, Schema, Source, Splits
from latentia.errors import ConfigurationError
from latentia.estimate import Estimate
from latentia.networks import Custom
from latentia.training import Game, Training, Worker


class Recipe(Training, family=True):
    """The family of recipes. Everything random in one is a function of `seed`."""

    set_by_data: ClassVar[tuple[str, ...]] = ()
    """Fields whose default follows from the data."""

    data: OneOf[Source] = Field(default=MNIST5k(binarize="dynamic"), description="the data set")
    init_from: str | None = Field(default=None, description="a run whose weights this one starts from; null for none")
    freeze: tuple[str, ...] = Field(default=(), description="parts that are not trained, such as [encoder]")

    @abstractmethod
    def build_model(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """The model, untrained, for examples of this shape and so many classes (0 without labels)."""

    def build(self, schema: Schema) -> nn.Module:
        """The model, untrained, for data of this schema."""
        refuse_covariates(schema)
        return self.build_model(schema.shape, len(schema.classes))

    @abstractmethod
    def build_game(self, model: nn.Module, splits: Splits, worker: Worker) -> Game:
        """The game that trains the model on these data.

        Raises:
            DataError: for data that the model cannot score.
        """

    def final_estimates(
        self, model: nn.Module, splits: Splits, progress: Callable[[int, int], None] | None = None
    ) -> list[Estimate]:
        """Estimates of the trained model on the test split, written to evaluation/training.json.

        Args:
            model: trained.
            splits: the data.
            progress: called with the steps done and their total, where the estimates take long.
        """
        return []

    @property
    def default_name(self) -> str:
        """Name of the run directory, under runs/, if no other is given: `vae-mnist-5k`."""
        return f"{self.type_name}-{self.data.type_name}"

    def own_parts(self) -> dict[str, Custom | InMemory]:
        """The networks of the user's own, and data given in Python, by field: a recipe on disk only names them."""
        return {name: value for name, value in self if isinstance(value, Custom | InMemory)}

    def with_defaults(self, written: Mapping[str, Any]) -> Mapping[str, Any]:
        """A recipe on disk with the defaults of all keys that it lacks, to compare this one with.

        Networks of the user's own and data given in Python, which cannot be made from what is written, are this
        recipe's, if they are written alike. A recipe that can no longer be read is returned as it is: then every
        difference from this one is listed.
        """
        mapping = self.to_mapping()
        same = {name: value for name, value in self.own_parts().items() if written.get(name) == mapping[name]}
        try:
            return Recipe.parse({**written, **same}).to_mapping()
        except ConfigurationError:
            return written


def refuse_covariates(schema: Schema | None) -> None:
    """Refuse data with covariates, for a model that is not given any.

    Raises:
        ConfigurationError: naming them.
    """
    if schema is not None and schema.covariates:
        listed = ", ".join(schema.covariates)
        text = f"the data have covariates ({listed}), which this model is not given"
        raise ConfigurationError([("data", f"{text}. Train conditional-vae, or leave the covariates out")])
