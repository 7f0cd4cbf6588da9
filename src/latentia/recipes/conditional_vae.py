"""The recipe of a class-conditional VAE (Sohn et al. 2015)."""

from __future__ import annotations

__all__ = ["ConditionalVAERecipe"]

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self, cast

from pydantic import Field, model_validator
from torch import nn

from latentia.data import Schema, Splits, StreamedSplit
from latentia.distributions import StandardNormal, VampPrior
from latentia.errors import ConfigurationError, DataError
from latentia.estimate import Estimate
from latentia.models import ConditionalVAE
from latentia.objectives import ELBO, ExactLikelihood
from latentia.recipes.vae import VAERecipe
from latentia.training import Game, Worker


class ConditionalVAERecipe(VAERecipe, name="conditional-vae"):
    """Train a VAE of x given its label or its covariates: encoder and decoder take them, and by choice the prior.

    Its bounds are those of log p(x|y). Covariates are columns of a table, data.covariates=[age,dose], or in Python
    data=(x, covariates).
    """

    conditional_prior: bool = Field(
        default=False, description="learn p(z|y), a Gaussian for each label or vector of covariates"
    )

    @model_validator(mode="after")
    def _prior_suits_labels(self) -> Self:
        if isinstance(self.prior, VampPrior):
            text = "a VampPrior encodes pseudo-images, which have no label"
            raise ConfigurationError([("prior", f"{text}. Use prior=mixture, or conditional_prior=true")])
        if isinstance(self.objective, ELBO) and self.objective.gradient == "enumerated":
            text = "the codes are decoded once for all examples, whose labels differ"
            raise ConfigurationError([("objective.gradient", f"{text}. Use score or straight-through")])
        if isinstance(self.objective, ExactLikelihood):
            text = "the lattice of exact-likelihood is decoded once for all examples, whose labels differ"
            raise ConfigurationError([("objective", f"{text}. Use objective=elbo or iwae")])
        if self.conditional_prior and not isinstance(self.prior, StandardNormal):
            text = "conditional_prior=true learns a Gaussian for each label in the place of the prior"
            raise ConfigurationError([("conditional_prior", f"{text}. Leave prior={self.prior.type_name} out")])
        return self

    def build_model(self, shape: tuple[int, ...], classes: int = 0, schema: Schema | None = None) -> ConditionalVAE:
        return ConditionalVAE(**self.conditional_parts(shape, classes, schema))

    def conditional_parts(self, shape: tuple[int, ...], classes: int, schema: Schema | None = None) -> dict[str, Any]:
        """The arguments of the `ConditionalVAE`.

        Raises:
            ConfigurationError: for data without labels.
        """
        covariates = schema.covariates if schema else ()
        if not classes and not covariates:
            text = f"data={self.data.type_name} has no labels to condition on"
            cure = "Choose labeled data, name columns of a table, data.covariates=[age,dose], or train vae"
            raise ConfigurationError([("data", f"{text}. {cure}")])
        parts = self.parts(shape, schema, classes, len(covariates))
        return {
            **parts,
            "classes": classes,
            "conditional_prior": self.conditional_prior,
            "covariates": covariates,
        }

    def build_game(self, model: nn.Module, splits: Splits, worker: Worker) -> Game:
        vae = cast(ConditionalVAE, model)
        for part in (splits.train, splits.validation, splits.test):
            if not isinstance(part, StreamedSplit) and len(part):
                if part.labels is None:
                    raise DataError(f"data={self.data.type_name} has examples without labels; train vae in its place")
                vae.require_labels(part.labels)
        if splits.train.labels is not None:
            vae.set_frequencies(splits.train.labels)
        return super().build_game(vae, splits, worker)

    def final_estimates(
        self, model: nn.Module, splits: Splits, progress: Callable[[int, int], None] | None = None
    ) -> list[Estimate]:
        given = "covariates" if cast(ConditionalVAE, model).covariates else "label"
        return [given_label(estimate, given) for estimate in super().final_estimates(model, splits, progress)]


def given_label(estimate: Estimate, given: str = "label") -> Estimate:
    """The same number under a name that says that it is of p(x|y): bounds of log p(x) are not compared with it."""
    split, _, name = estimate.name.rpartition("/")
    if name in ("elbo", "iwae", "log_likelihood"):
        name = f"conditional_{name}"
    return replace(estimate, name=f"{split}/{name}" if split else name, settings={**estimate.settings, "given": given})
