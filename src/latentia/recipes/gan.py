"""The recipe of a generative adversarial network."""

from __future__ import annotations

__all__ = ["GANRecipe"]

from collections.abc import Callable
from typing import Any, Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from latentia.configuration import OneOf
from latentia.data import Batch, MNIST5k, Source, Splits, ToyDistribution
from latentia.distributions import GaussianPerColumn, Standardization
from latentia.errors import ConfigurationError, DataError
from latentia.estimate import Estimate
from latentia.models import GAN
from latentia.models.gan import packed_shape
from latentia.networks import MLP, Network
from latentia.networks.network import has_batch_norm
from latentia.objectives import (
    R1,
    AdversarialLoss,
    AdversarialObjective,
    Augmentation,
    NoAugmentation,
    NonSaturating,
    Penalty,
    Progress,
    Terms,
)
from latentia.recipes.gan_diagnostics import Diagnostics, Snapshots, final_gan_estimates
from latentia.recipes.hybrids import batch_norm_problem, discriminator_player, penalty_problem
from latentia.recipes.recipe import Recipe
from latentia.training import Adam, Game, Optimizer, Player, Probe, Worker
from latentia.training.game import Shared

FEWEST_FRESH_STEPS = 100  # of the fresh discriminator after a shorter run


class GANRecipe(Recipe, name="gan"):
    """Train a GAN on images, or on points of a toy distribution.

    Each step of the game is `discriminator_steps` steps of the discriminator and one of the generator. An epoch of a
    toy distribution is `steps_per_epoch` steps, each on new points.
    """

    data: OneOf[Source | ToyDistribution] = Field(default=MNIST5k(), description="the data set, or a toy distribution")  # pyright: ignore[reportIncompatibleVariableOverride]
    latent: int = Field(default=32, ge=1, description="dimension of z")
    latent_distribution: Literal["normal", "uniform"] = Field(
        default="normal", description="N(0, 1), or uniform on [−1, 1]"
    )
    network: OneOf[Network] = Field(
        default=MLP(hidden=(256, 256, 256), activation="leaky-relu"), description="of generator and discriminator"
    )
    discriminator: OneOf[Network | None] = Field(
        default=None, description="network of the discriminator; null for `network`"
    )
    loss: OneOf[AdversarialLoss] = Field(default=NonSaturating(), description="loss of discriminator and generator")
    penalty: OneOf[Penalty] = Field(default=R1(), description="penalty on the discriminator")
    augmentation: OneOf[Augmentation] = Field(
        default=NoAugmentation(), description="random changes of all images that the discriminator sees"
    )
    packing: int = Field(default=1, ge=1, description="examples that the discriminator takes at once (PacGAN)")
    conditional: bool = Field(default=False, description="give both networks the class label")
    generator_optimizer: OneOf[Optimizer] = Field(
        default=Adam(lr=2e-4, beta1=0.5), description="how the generator steps"
    )
    discriminator_optimizer: OneOf[Optimizer] = Field(
        default=Adam(lr=2e-4, beta1=0.5), description="how the discriminator steps"
    )
    discriminator_steps: int = Field(
        default=1, ge=1, le=10**9, description="discriminator steps for each generator step"
    )
    reuse_fakes: bool = Field(
        default=False, description="train the generator on the fakes of the discriminator's last step; faster"
    )
    ema: float | None = Field(default=0.999, gt=0, lt=1, description="decay of averaged weights; null for none")
    steps_per_epoch: int = Field(default=1000, ge=1, le=10**9, description="steps of an epoch of a toy distribution")
    snapshots: tuple[int, ...] = Field(
        default=(), description="epochs after which samples of fixed latents are written"
    )
    diagnostics_every: int = Field(default=1, ge=1, description="epochs between diagnostics of the game")
    fresh_steps: int = Field(
        default=1000,
        ge=0,
        description="steps of the fresh discriminator at the end, at most as many as the run's or 100; 0 for none",
    )

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        problems = []
        problem = penalty_problem(self.penalty, self.loss, self.discriminator or self.network, "spectral normalization")
        if problem:
            problems.append(("penalty", problem))
        late = [epoch for epoch in self.snapshots if not 1 <= epoch <= self.epochs]
        if late:
            text = f"the run has the epochs 1 to {self.epochs}, and a snapshot after epoch {late[0]} is requested"
            problems.append(("snapshots", f"{text}. Leave it out, or set epochs={max(*late, self.epochs)}"))
        share = self.batch_size // self.devices
        if share % self.packing:
            larger = (share // self.packing + 1) * self.packing * self.devices
            text = f"packs of {self.packing} do not divide a batch of {share}"
            problems.append(("packing", f"{text}. Set batch_size={larger}, or another packing"))
        if self.packing > 1 and self.conditional:
            problems.append(("packing", "a pack of examples has no single label. Use packing=1, or conditional=false"))
        if self.keep == "best":
            text = "no estimate of a GAN decreases as the GAN improves, so that no step can be chosen as the best"
            problems.append(("keep", f"{text}. Use keep=last, and ema to average the weights over steps"))
        if problems:
            raise ConfigurationError(problems)
        return self

    def build_model(self, shape: tuple[int, ...], classes: int = 0) -> GAN:
        if self.conditional and not classes:
            text = f"{self.data.type_name} has no labels to condition on. Set conditional=false, or choose labeled data"
            raise ConfigurationError([("conditional", text)])
        classes = classes if self.conditional else 0
        discriminator = self.discriminator or self.network
        return GAN(
            self.network.decoder(self.latent, shape, classes),
            discriminator.encoder(packed_shape(shape, self.packing), 1, classes),
            latent=self.latent,
            shape=shape,
            classes=classes,
            packing=self.packing,
            latent_distribution=self.latent_distribution,
            **(_standardizing(self.data) if isinstance(self.data, ToyDistribution) else {}),
        )

    def build_game(self, model: nn.Module, splits: Any, worker: Worker) -> Game:
        gan = cast(GAN, model)
        self._check(gan, worker)
        if isinstance(splits, Splits) and not gan.makes_images:
            _fit(gan, splits)
        batches = splits.batches(
            self.batch_size,
            self.seed,
            worker.rank,
            worker.world_size,
            worker.device,
            steps_per_epoch=self.steps_per_epoch,
        )
        objective = AdversarialObjective.of_gan(gan, self.loss, self.penalty, self.augmentation, epochs=self.epochs)
        reuses = self.reuse_fakes and not self.penalty.couples_players  # a coupling needs fakes with their graph
        fakes = Shared(lambda batch: gan.generate(gan.draw_latent(len(batch.x)), batch.labels)) if reuses else None

        def generator_cost(batch: Batch, progress: Progress, fakes: Batch | None = None) -> Terms:
            return objective.generator_cost(batch.x, batch.labels, progress, fakes)

        toy = self.data if isinstance(self.data, ToyDistribution) else None
        diagnostics = Diagnostics(gan, objective, splits, toy)
        snapshots = Snapshots(gan, splits, self.seed, writes=worker.rank == 0)
        return Game(
            model=gan,
            players=[
                discriminator_player(objective, self.discriminator_optimizer, self.discriminator_steps, fakes),
                Player("generator", [gan.generator], generator_cost, self.generator_optimizer, takes=fakes),
            ],
            draw=batches.batch,
            steps_per_epoch=batches.steps_per_epoch,
            data_size=batches.size,
            close=batches.close,
            probes=[
                Probe(diagnostics.measure, every=self.diagnostics_every),
                Probe(snapshots.draw, epochs=self.snapshots),
            ],
        )

    def final_estimates(
        self, model: nn.Module, splits: Any, progress: Callable[[int, int], None] | None = None
    ) -> list[Estimate]:
        gan = cast(GAN, model)
        discriminator = self.discriminator or self.network
        toy = isinstance(self.data, ToyDistribution)
        run_steps = self.epochs * (self.steps_per_epoch if toy else max(1, len(splits.train) // self.batch_size))
        return final_gan_estimates(
            gan,
            splits,
            self.data,
            build=lambda: discriminator.encoder(gan.shape, 1, gan.classes),
            steps=min(self.fresh_steps, max(run_steps, FEWEST_FRESH_STEPS)),
            seed=self.seed,
            progress=progress,
        )

    def _check(self, gan: GAN, worker: Worker) -> None:
        """Refuse settings that do not fit the networks."""
        self.augmentation.check(gan.shape)
        problems = batch_norm_problem(self, worker, gan.discriminator, self.packing)
        problems = problems or batch_norm_problem(self, worker, gan.generator)
        if has_batch_norm(gan.discriminator) and self.penalty.needs_slope_at_each_example:
            text = "with batch normalization each logit depends on the whole batch and has no slope at a single example"
            problems.append(("penalty", f"{text}. Use network.norm=none, or a network without it (network=r3gan)"))
        if problems:
            raise ConfigurationError(problems)


def _fit(gan: GAN, splits: Splits) -> None:
    """Standardize as the training data say; refuse what a generator of reals does not make.

    Raises:
        DataError: for counts, bits, missing values and categories, naming the cure.
    """
    kinds = {column.kind for column in splits.columns} - {"real", "positive"}
    if not splits.train.dtype.is_floating_point or kinds or splits.schema.missing:
        what = (
            "missing values" if splits.schema.missing else f"{', '.join(sorted(kinds)) or splits.train.dtype} columns"
        )
        raise DataError(
            f"a GAN makes images or reals, and these data have {what}; leave such columns out (data.drop=[…]), declare "
            "them real (data.real=[…]), or train a VAE, which has likelihoods for them"
        )
    if splits.standardize:
        standardization = Standardization(gan.shape)
        names = [column.name for column in splits.columns]
        standardization.fit(map(splits.prepare, splits.train.chunks(5000)), GaussianPerColumn(), names)
        gan.standardize_as(standardization)


def _standardizing(toy: ToyDistribution) -> dict[str, Tensor]:
    """Mean and standard deviation of each coordinate; 1 in place of a standard deviation of 0."""
    distribution = toy.distribution()
    spread = distribution.stddev
    return {"center": distribution.mean, "spread": torch.where(spread > 0, spread, 1.0)}
