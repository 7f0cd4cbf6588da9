"""The recipe of the semi-supervised model M2 (Kingma et al. 2014)."""

from __future__ import annotations

__all__ = ["M2Recipe"]

from collections.abc import Callable
from typing import Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from latentia.data import Batch, Schema, Split, Splits, StreamedSplit
from latentia.data.batches import PreparedBatches
from latentia.distributions.standardization import input_shape
from latentia.errors import ConfigurationError, DataError
from latentia.estimate import Estimate
from latentia.models import M2, VAE
from latentia.objectives import ELBO, Progress, Terms, m2_terms
from latentia.objectives.m2 import MISSING
from latentia.recipes.conditional_vae import ConditionalVAERecipe
from latentia.recipes.recipe import refuse_covariates
from latentia.recipes.vae import VAERecipe, likelihood_for
from latentia.training import Game, Player, Worker, seed_of, seeded

AT_ONCE = 500


class M2Recipe(ConditionalVAERecipe, name="m2"):
    """Train a VAE with labels on data of which a few have them, and a classifier with it.

    `labels` of the training examples, as many of each class, chosen by the seed, keep their labels; those of all others
    are not used. An example whose label is −1 has none.
    """

    latent: int = Field(default=20, ge=1, description="dimension of z")
    labels: int | None = Field(default=100, ge=1, description="how many examples keep their labels; null for all")
    labeled_batch: int = Field(default=100, ge=1, description="labeled examples in a step, besides the batch_size")
    alpha: float = Field(
        default=20.0, ge=0, allow_inf_nan=False, description="weight of the classifier's cross-entropy, in nats"
    )

    @model_validator(mode="after")
    def _settings_suit_m2(self) -> Self:
        problems = []
        if self.objective != ELBO():
            problems.append(("objective", "m2 has an objective that it alone has. Leave objective out"))
        if self.conditional_prior:
            problems.append(("conditional_prior", "p(z) of m2 is the same for all labels. Set conditional_prior=false"))
        if problems:
            raise ConfigurationError(problems)
        return self

    def build_model(self, shape: tuple[int, ...], classes: int = 0, schema: Schema | None = None) -> M2:
        refuse_covariates(schema)
        parts = self.conditional_parts(shape, classes, schema)
        likelihood = likelihood_for(self.likelihood, schema or Schema(shape))
        seen = input_shape(likelihood, shape, bool(schema and schema.missing))
        if seen != tuple(shape):
            text = "the classifier of m2 reads x itself, and these data need indicators or masks of missing values"
            raise ConfigurationError([("data", f"{text}. Use images, or vectors without missing values")])
        return M2(classifier=self.network.encoder(shape, classes), **parts)

    def build_game(self, model: nn.Module, splits: Splits, worker: Worker) -> Game:
        vae = cast(M2, model)
        kept = self.labeled_examples(splits, vae.classes)
        game = VAERecipe.build_game(self, vae, splits, worker)
        world = worker.world_size
        size = max(world, min(self.labeled_batch, len(kept)) // world * world)
        labeled_bytes = kept.to(worker.device).batches(size, seed_of("labeled", self.seed), worker.rank, world)
        batches = PreparedBatches(labeled_bytes, splits.prepare)
        share = len(kept) / len(splits.train)
        unlabeled = game.draw

        def draw(number: int) -> Batch:
            x = unlabeled(number).x
            labeled, labels = batches.batch(number)
            missing = torch.full((len(x),), MISSING, device=x.device)
            return Batch(torch.cat([x, labeled]), torch.cat([missing, cast(Tensor, labels)]))

        def cost(batch: Batch, _: Progress) -> Terms:
            return m2_terms(vae, batch.x, cast(Tensor, batch.labels), self.alpha, share)

        game.draw = draw
        game.players = [Player("m2", [vae], cost, self.optimizer)]
        validation = splits.examples("validation", device=worker.device)
        game.validate = (lambda _: self._measure(vae, validation, "validation")) if len(validation.x) > 1 else None
        return game

    def try_objective(self, vae: VAE, examples: Batch) -> None:
        """Compute the bound once."""
        cast(M2, vae).marginal_bound(examples.x)

    def labeled_examples(self, splits: Splits, classes: int) -> Split:
        """The training examples that keep their labels, as many of each class as can be.

        Raises:
            DataError: for labels out of range, or fewer labels than asked for.
            ConfigurationError: for fewer labels than classes.
        """
        train = splits.train
        if isinstance(train, StreamedSplit) or train.labels is None:
            cure = "choose labeled data that fit into memory"
            raise DataError(f"data={self.data.type_name} does not hold labels in memory; {cure}")
        labels = train.labels.cpu()
        known = int((labels != MISSING).sum())
        if known and not 0 <= int(labels[labels != MISSING].min()) <= int(labels.max()) < classes:
            low, high = int(labels.min()), int(labels.max())
            text = f"labels go from 0 to {classes - 1}, or are −1 where they are missing"
            raise DataError(f"{text}; these go from {low} to {high}")
        wanted = known if self.labels is None else self.labels
        if wanted > known:
            text = f"labels={wanted}: {known} of {len(train)} training examples have a label"
            raise DataError(f"{text}; set labels={known} or fewer, or labels=null")
        rows = [(labels == label).nonzero().squeeze(1) for label in range(classes)]
        present = sum(len(row) > 0 for row in rows)
        if wanted < present or present < classes:
            text = f"labels={wanted}: {present} of {classes} classes have labeled examples, and each needs one"
            cure = f"Set labels={max(wanted, classes)} or more, and label each class"
            raise ConfigurationError([("labels", f"{text}. {cure}")])
        generator = torch.Generator().manual_seed(seed_of("labels", self.seed))
        orders = [row[torch.randperm(len(row), generator=generator)] for row in rows]
        turns = [order[turn] for turn in range(max(map(len, orders))) for order in orders if turn < len(order)]
        return train.take(torch.stack(turns[:wanted]).sort().values)

    def final_estimates(
        self, model: nn.Module, splits: Splits, progress: Callable[[int, int], None] | None = None
    ) -> list[Estimate]:
        device = next(model.parameters()).device
        with seeded(seed_of("conclude", self.seed), device):
            found = self._measure(cast(M2, model), splits.examples("test", device=device), "test")
        return [estimate for estimate in found if not estimate.name.endswith("cost")]

    @torch.no_grad()
    def _measure(self, vae: M2, examples: Batch, split: str) -> list[Estimate]:
        """Bound of log p(x), and the error of the classifier on examples that have a label."""
        parts = torch.arange(len(examples.x), device=examples.x.device).split(AT_ONCE)
        bounds = torch.cat([vae.marginal_bound(examples.x[part]) for part in parts]).double()
        settings = {"stderr_over": "images"}
        found = [
            Estimate.mean(-bounds, name=f"{split}/cost"),
            Estimate.mean(bounds, name=f"{split}/elbo", kind="lower bound", settings=settings),
        ]
        if examples.labels is None or int((examples.labels != MISSING).sum()) < 2:
            return found
        wrong = torch.cat([vae.classify(examples.x[part]) != examples.labels[part] for part in parts])
        wrong = wrong[examples.labels != MISSING].double()
        about = {"unit": "1", "method": "share of wrong labels", "settings": {**settings, "labels": self.labels}}
        return [*found, Estimate.mean(wrong, name=f"{split}/error", **about)]
