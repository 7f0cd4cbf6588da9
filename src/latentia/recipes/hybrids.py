"""Recipes of models with an encoder and a discriminator: BiGAN, VAE/GAN, adversarial autoencoder.

What they reach is in docs/hybrids.md.
"""

from __future__ import annotations

__all__ = ["AdversarialAutoencoderRecipe", "BiGANRecipe", "VAEGANRecipe"]

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from latentia.configuration import OneOf
from latentia.data import Batch, MNIST5k, Schema, Source, Splits
from latentia.distributions import Diagonal, Posterior, StandardNormal
from latentia.errors import ConfigurationError
from latentia.estimate import Estimate
from latentia.models import VAEGAN, AdversarialAutoencoder, BiGAN, EncodedGAN
from latentia.networks import MLP, Network
from latentia.networks.network import has_batch_norm
from latentia.objectives import R1R2, AdversarialLoss, AdversarialObjective, Penalty, Progress, Relativistic, Terms
from latentia.objectives.adversarial_objective import Examples, Score
from latentia.objectives.objective import rate_of
from latentia.recipes.recipe import Recipe
from latentia.recipes.vae import VAERecipe
from latentia.training import Adam, Cosine, Game, Optimizer, Player, Worker
from latentia.training.game import Shared

MEASURED = 10_000  # images for the reconstruction error, at most


class HybridRecipe(Recipe):
    """A recipe with a discriminator among its players."""

    discriminator: OneOf[Network] = Field(
        default=MLP(hidden=(256, 256), activation="leaky-relu"), description="network of the discriminator"
    )
    loss: OneOf[AdversarialLoss] = Field(
        default=Relativistic(), description="loss of the discriminator and of its opponents"
    )
    penalty: OneOf[Penalty] = Field(default=R1R2(gamma=0.5), description="penalty on the discriminator")
    discriminator_optimizer: OneOf[Optimizer] = Field(
        default=Adam(lr=1e-3, beta1=0.0, beta2=0.99, schedule=Cosine()), description="how the discriminator steps"
    )

    @model_validator(mode="after")
    def _penalty_fits(self) -> Self:
        problem = penalty_problem(self.penalty, self.loss, self.discriminator, "discriminator.spectral_norm=true")
        if self.penalty.couples_players:
            problem = "it is for a game of two, a generator and a discriminator. Use penalty=r1r2, r1 or none"
        if problem:
            raise ConfigurationError([("penalty", problem)])
        return self

    def adversarial_objective(
        self, discriminator: nn.Module, examples: Examples, score: Score | None = None
    ) -> AdversarialObjective:
        """The costs of the game between the discriminator and what makes the fake examples.

        Args:
            discriminator: gives logits, (n, 1).
            examples: see `AdversarialObjective`.
            score: logits, (n,), of examples and labels; those of the discriminator if not given.
        """
        return AdversarialObjective(
            discriminator,
            examples,
            score or (lambda inputs, _: discriminator(inputs).squeeze(-1)),
            self.loss,
            self.penalty,
            epochs=self.epochs,
        )

    def check_batch(self, model: nn.Module, worker: Worker) -> None:
        """Refuse batches of one where the networks normalize over the batch.

        Raises:
            ConfigurationError: naming the cure.
        """
        problems = batch_norm_problem(self, worker, model)
        if problems:
            raise ConfigurationError(problems)

    def discriminator_player(self, objective: AdversarialObjective) -> Player:
        """The player that trains the discriminator."""
        return discriminator_player(objective, self.discriminator_optimizer)


def batch_norm_problem(recipe: Recipe, worker: Worker, model: nn.Module, inputs: int = 1) -> list[tuple[str, str]]:
    """The problem of a batch of one for networks with batch normalization, if there is one.

    Args:
        recipe: with its batch size.
        worker: of the processes that share a batch.
        model: the networks.
        inputs: examples that form one input (packing).
    """
    if recipe.batch_size // worker.world_size // inputs > 1 or not has_batch_norm(model):
        return []
    text = "batch normalization cannot train on a batch of one, which it would map to zero"
    return [("batch_size", f"{text}. Set batch_size={4 * inputs}, or use a network without it")]


def penalty_problem(penalty: Penalty, loss: AdversarialLoss, network: Network, cure: str) -> str | None:
    """Why the penalty does not fit the loss and the discriminator's network; None if it does.

    Args:
        penalty: of the recipe.
        loss: of the recipe.
        network: of the discriminator.
        cure: the setting that bounds the slope of the network.
    """
    incompatibility = penalty.incompatibility(loss)
    if incompatibility or not loss.needs_lipschitz or penalty.bounds_slope or network.bounds_slope:
        return incompatibility
    text = f"the cost of {loss.type_name} has no minimum unless the discriminator's slope is bounded"
    return f"{text}. Use penalty=one-centered or clip, or {cure}"


def discriminator_player(
    objective: AdversarialObjective, optimizer: Optimizer, steps: int = 1, fakes: Shared | None = None
) -> Player:
    """The player that trains the discriminator, with `steps` steps for each one of the others; it makes `fakes`."""

    def cost(batch: Batch, progress: Progress, fakes: Batch | None = None) -> Terms:
        return objective.discriminator_cost(batch.x, batch.labels, progress, fakes)

    return Player(
        "discriminator",
        [objective.discriminator],
        cost,
        optimizer,
        steps=steps,
        after=lambda: objective.penalty.after(objective.discriminator),
        makes=fakes,
    )


def _require_gradients(posterior: Posterior) -> None:
    """Refuse a posterior whose draws carry no gradient.

    Raises:
        ConfigurationError: naming those whose draws do.
    """
    if not posterior.reparametrized:
        text = f"the game needs gradients through draws of z, and those of {posterior.type_name} have none"
        raise ConfigurationError([("posterior", f"{text}. Use diagonal, full or flow")])


class AdversarialAutoencoderRecipe(HybridRecipe, VAERecipe, name="adversarial-autoencoder"):
    """Train an adversarial autoencoder: a VAE whose rate is replaced by a game of latents (Makhzani et al. 2016).

    Encoder and decoder minimize the distortion −log p(x|z). A discriminator separates draws of the prior from latents
    of images, and the encoder competes with it, so that the aggregate posterior approaches the prior. Where it equals
    the prior, the discriminator's loss is log 2 (relativistic; twice that for the other logarithmic losses).

    It is a `VAERecipe` whose `objective` is used for validation only.
    """

    latent: int = Field(default=8, ge=1, description="dimension of z")
    strength: float = Field(default=10.0, gt=0, description="weight of the game against the distortion, in nats")

    @model_validator(mode="after")
    def _draws_have_gradients(self) -> Self:
        _require_gradients(self.posterior)
        return self

    def build_model(
        self, shape: tuple[int, ...], classes: int = 0, schema: Schema | None = None
    ) -> AdversarialAutoencoder:
        parts = self.parts(shape, schema)
        return AdversarialAutoencoder(discriminator=self.discriminator.encoder((self.latent,), 1), **parts)

    def build_game(self, model: nn.Module, splits: Splits, worker: Worker) -> Game:
        self.check_batch(model, worker)
        game = VAERecipe.build_game(self, model, splits, worker)
        model = cast(AdversarialAutoencoder, model)

        def latents(x: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor]:
            return model.prior.sample(torch.Size([len(x)])), model.encode(x).rsample()

        objective = self.adversarial_objective(model.discriminator, latents)

        def cost(batch: Batch, _: Progress) -> Terms:
            prior, z = latents(batch.x, None)
            distortion = -model.decode(z).log_prob(batch.x)
            fooling = objective.fooling_cost(prior, z)
            return {"cost": distortion + self.strength * fooling, "distortion": distortion, "fooling": fooling}

        autoencoder = [module for module in model.children() if module is not model.discriminator]
        game.players = [
            self.discriminator_player(objective),
            Player("autoencoder", autoencoder, cost, self.optimizer),
        ]
        return game


class EncodedGANRecipe(HybridRecipe):
    """A generator and an encoder of images, with a discriminator.

    On validation and test images `reconstruction_error` is the mean squared error of a pixel of G(E(x)), with E(x) the
    mean of q(z|x), averaged over images.
    """

    data: OneOf[Source] = Field(default=MNIST5k(), description="the data set")
    latent: int = Field(default=16, ge=1, description="dimension of z")
    network: OneOf[Network] = Field(default=MLP(hidden=(256, 256)), description="of generator and encoder")
    posterior: OneOf[Posterior] = Field(default=Diagonal(), description="family of q(z|x)")
    optimizer: OneOf[Optimizer] = Field(
        default=Adam(lr=1e-3, beta1=0.0, beta2=0.99, schedule=Cosine()), description="of generator and encoder"
    )
    ema: float | None = Field(default=0.99, gt=0, lt=1, description="decay of averaged weights; null for none")

    @model_validator(mode="after")
    def _posterior_suits_the_noise(self) -> Self:
        _require_gradients(self.posterior)
        if self.posterior.space(self.latent) != StandardNormal().space(self.latent):
            text = f"the noise of {self.type_name} is normal, and {self.posterior.type_name} has z elsewhere"
            raise ConfigurationError([("posterior", f"{text}. Use diagonal, full or flow")])
        return self

    @abstractmethod
    def players(self, model: Any) -> Sequence[Player]:
        """The players, in the order of their steps."""

    def parts(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """The arguments of an `EncodedGAN`, without its discriminator."""
        if len(shape) != 3:
            text = f"{self.type_name} makes images, and the shape of these examples is {shape}"
            raise ConfigurationError([("data", f"{text}. Train a vae, an adversarial-autoencoder or a gan")])
        (numbers,) = self.posterior.parameter_shape((self.latent,))
        return {
            "generator": self.network.decoder(self.latent, shape),
            "encoder": self.network.encoder(shape, numbers),
            "latent": self.latent,
            "event_shape": shape,
            "posterior": self.posterior,
        }

    def build_game(self, model: nn.Module, splits: Splits, worker: Worker) -> Game:
        self.check_batch(model, worker)
        batches = splits.batches(self.batch_size, self.seed, worker.rank, worker.world_size, worker.device)
        held_out = splits.examples("validation", MEASURED, worker.device)
        return Game(
            model=model,
            players=self.players(model),
            draw=batches.batch,
            steps_per_epoch=batches.steps_per_epoch,
            data_size=batches.size,
            validate=(lambda _: self._measure(model, held_out, "validation")) if len(held_out.x) > 1 else None,
            monitor="validation/reconstruction_error",
            close=batches.close,
        )

    def final_estimates(
        self, model: nn.Module, splits: Splits, progress: Callable[[int, int], None] | None = None
    ) -> list[Estimate]:
        device = next(model.parameters()).device
        return self._measure(model, splits.examples("test", MEASURED, device), "test")

    def _measure(self, model: nn.Module, batch: Batch, split: str) -> list[Estimate]:
        again = torch.cat([cast(EncodedGAN, model).reconstruct(x) for x in batch.x.split(1000)])
        errors = (again - batch.x).square().flatten(1).mean(1)
        return [Estimate.mean(errors, name=f"{split}/reconstruction_error", unit="1", method="mean over images")]


class BiGANRecipe(EncodedGANRecipe, name="bigan"):
    """Train a BiGAN, or ALI: a GAN of pairs, with an encoder (Donahue et al. 2017; Dumoulin et al. 2017).

    A discriminator separates the pairs (x, z), z ~ q(z|x), from the pairs (G(z), z), z ~ p(z); generator and encoder
    compete with it together. If both joint distributions are equal, G has the distribution of the data, and q(z|x) is
    the posterior of G.

    `posterior=fixed posterior.scale=1e-3` makes the encoder a function, as in Donahue et al.; Dumoulin et al. draw z
    from a learned Gaussian, which is the default.
    """

    def build_model(self, shape: tuple[int, ...], classes: int = 0) -> BiGAN:
        pair = torch.Size(shape).numel() + self.latent
        return BiGAN(discriminator=self.discriminator.encoder((pair,), 1), **self.parts(shape))

    def players(self, model: BiGAN) -> Sequence[Player]:
        def pairs(x: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor]:
            """(x, z ~ q(z|x)) and (G(z), z ~ p(z))."""
            z = model.prior.sample(torch.Size([len(x)]))
            return model.pair(x, model.encode(x).rsample()), model.pair(model.generate(z), z)

        def cost(batch: Batch, _: Progress) -> Terms:
            encoded, generated = pairs(batch.x, None)
            # the discriminator's cost with exchanged roles: for the classic loss, non-saturating on both sides
            return {"cost": self.loss.discriminator(model.score(generated), model.score(encoded))}

        return [
            self.discriminator_player(self.adversarial_objective(model.discriminator, pairs)),
            Player("pair", [model.generator, model.encoder], cost, self.optimizer),
        ]


class VAEGANRecipe(EncodedGANRecipe, name="vae-gan"):
    """Train a VAE/GAN: a VAE whose distortion is measured by the features of a discriminator (Larsen et al. 2016).

    The decoder of the VAE is the generator G of the GAN. The likelihood of pixels is replaced by one of the
    discriminator's features φ, log p(φ(x)|z) = log N(φ(x); φ(G(z)), s² I), and the discriminator separates images from
    both G(z), z ~ p(z), and G(z), z ~ q(z|x). As in the paper's algorithm 1 each player has a different cost:

        encoder         KL(q(z|x), p(z)) − E_q[log p(φ(x)|z)]
        generator       −γ E_q[log p(φ(x)|z)] + the generator's loss on prior samples and reconstructions
        discriminator   the discriminator's loss on images against prior samples and reconstructions

    The constant of the Gaussian is left out. Each image is compared with a prior sample and with a reconstruction, so
    that half of the discriminator's inputs are real (a third in the paper, which counts each image once).
    """

    features: int = Field(default=128, ge=1, description="k, number of features of the discriminator")
    scale: float = Field(default=0.1, gt=0, description="s, standard deviation of each feature")
    gamma: float = Field(default=0.05, ge=0, description="γ, the generator's weight of distortion against the game")

    def build_model(self, shape: tuple[int, ...], classes: int = 0) -> VAEGAN:
        body = self.discriminator.encoder(shape, self.features)
        discriminator = nn.Sequential(body, nn.LeakyReLU(0.2), nn.Linear(self.features, 1))
        return VAEGAN(discriminator=discriminator, **self.parts(shape))

    def players(self, model: VAEGAN) -> Sequence[Player]:
        def distortion(x: Tensor, again: Tensor) -> Tensor:
            return (model.features(x) - model.features(again)).square().sum(1) / (2 * self.scale**2)

        def examples(x: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor]:
            """Each image twice; a prior sample and a reconstruction of each."""
            z = torch.cat([model.prior.sample(torch.Size([len(x)])), model.encode(x).sample()])
            return torch.cat([x, x]), model.generate(z)

        objective = self.adversarial_objective(model.discriminator, examples)

        def encoder_cost(batch: Batch, _: Progress) -> Terms:
            q = model.encode(batch.x)
            z = q.rsample()
            terms = {"rate": rate_of(q, model.prior, z, "exact"), "distortion": distortion(batch.x, model.generate(z))}
            return {"cost": terms["rate"] + terms["distortion"], **terms}

        def generator_cost(batch: Batch, _: Progress) -> Terms:
            real, fake = examples(batch.x, None)
            fooling = objective.fooling_cost(real, fake).unflatten(0, (2, -1)).mean(0)
            return {"cost": self.gamma * distortion(batch.x, fake[len(batch.x) :]) + fooling, "fooling": fooling}

        return [
            self.discriminator_player(objective),
            Player("encoder", [model.encoder], encoder_cost, self.optimizer),
            Player("generator", [model.generator], generator_cost, self.optimizer),
        ]
