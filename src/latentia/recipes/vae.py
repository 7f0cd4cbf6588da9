"""The recipe of a variational autoencoder (Kingma and Welling 2014)."""

from __future__ import annotations

__all__ = ["VAERecipe"]

from collections.abc import Callable, Mapping
from itertools import chain, islice
from typing import Any, ClassVar, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from latentia.configuration import Component, OneOf
from latentia.data import Batch, MNIST5k, Schema, Source, Splits, StreamedSplit, ToyDistribution
from latentia.distributions import (
    Bernoulli,
    Categorical,
    Diagonal,
    GaussianPerColumn,
    Group,
    Likelihood,
    LogNormal,
    Mixed,
    NegativeBinomial,
    Ordinal,
    Posterior,
    Prior,
    StandardNormal,
    require_same_space,
)
from latentia.distributions.standardization import input_shape
from latentia.errors import ConfigurationError, DataError, counted
from latentia.estimate import Estimate
from latentia.likelihood import evaluate_bound
from latentia.models import VAE
from latentia.networks import MLP, Custom, Network
from latentia.networks.conditioning import CovariateDecoder, CovariateEncoder
from latentia.networks.network import require_memory_for_step
from latentia.objectives import ELBO, Objective, Progress
from latentia.recipes.recipe import Recipe, refuse_covariates
from latentia.training import Adam, Game, Optimizer, Player, Worker, seed_of, seeded

CHECKED_AT_ONCE = 5_000
COVARIATE_WIDTH = 64  # numbers that an encoder makes of x, which it reads next to covariates


class _Data(Component):
    data: OneOf[Source | ToyDistribution]


class VAERecipe(Recipe, name="vae"):
    """Train a VAE.

    The README gives the bound that it reaches on MNIST with `data=mnist data.binarize=dynamic` and every other default
    (z ∈ R², MLP 512-512, 20 epochs), its time and the command.
    """

    data: OneOf[Source | ToyDistribution] = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        default=MNIST5k(binarize="dynamic"), description="the data set, or a toy distribution"
    )
    latent: int = Field(default=2, ge=1, description="dimension of z")
    network: OneOf[Network] = Field(default=MLP(), description="network of encoder and decoder")
    decoder: OneOf[Network | None] = Field(default=None, description="another network for the decoder alone")
    posterior: OneOf[Posterior] = Field(default=Diagonal(), description="family of q(z|x)")
    likelihood: OneOf[Likelihood] = Field(default=Bernoulli(), description="family of p(x|z)")
    prior: OneOf[Prior] = Field(default=StandardNormal(), description="the prior p(z)")
    objective: OneOf[Objective] = Field(default=ELBO(), description="what is maximized")
    optimizer: OneOf[Optimizer] = Field(default=Adam(), description="how it steps")

    set_by_data: ClassVar[tuple[str, ...]] = ("likelihood",)

    @model_validator(mode="before")
    @classmethod
    def _likelihood_of_the_data(cls, fields: Any) -> Any:
        """Where no likelihood is named, take the one that suits the data."""
        if not isinstance(fields, Mapping) or "likelihood" in fields or "data" not in fields:
            return fields
        try:
            data = _Data(data=fields["data"]).data
        except ConfigurationError:  # the field's own validation says what is wrong
            return fields
        return {**fields, "data": data, "likelihood": data.suggested_likelihood}

    @model_validator(mode="after")
    def _batch_suffices(self) -> Self:
        least = self.objective.smallest_batch
        if self.batch_size // self.devices < least:
            text = f"objective={self.objective.type_name} needs at least {least} examples in a batch"
            raise ConfigurationError([("batch_size", f"{text}. Set batch_size={least * self.devices} or more")])
        return self

    @model_validator(mode="after")
    def _spaces_agree(self) -> Self:
        require_same_space(self.posterior, self.prior, self.latent)
        return self

    def build(self, schema: Schema) -> VAE:
        return self.build_model(schema.shape, len(schema.classes), schema)

    def build_model(self, shape: tuple[int, ...], classes: int = 0, schema: Schema | None = None) -> VAE:
        refuse_covariates(schema)
        return VAE(**self.parts(shape, schema))

    def parts(
        self, shape: tuple[int, ...], schema: Schema | None = None, classes: int = 0, covariates: int = 0
    ) -> dict[str, Any]:
        """The arguments of the `VAE`, for data of a schema where one is given; with classes, networks take labels."""
        schema = schema or Schema(shape)
        likelihood = likelihood_for(self.likelihood, schema)
        if schema.missing and not likelihood.takes_missing:
            text = f"{likelihood.type_name} cannot leave out missing values. Use a likelihood of independent numbers"
            raise ConfigurationError([("likelihood", text)])
        (numbers,) = self.posterior.parameter_shape((self.latent,))
        seen, made = input_shape(likelihood, shape, schema.missing), likelihood.parameter_shape(shape)
        decoder = self.decoder or self.network
        return {
            "encoder": _encoder(self.network, seen, numbers, classes, covariates),
            "decoder": _decoder(decoder, self.latent, made, classes, covariates),
            "latent": self.latent,
            "event_shape": shape,
            "posterior": self.posterior,
            "likelihood": likelihood,
            "prior": self.prior,
            "standardize": schema.standardize,
            "missing": schema.missing,
        }

    def build_game(self, model: nn.Module, splits: Splits, worker: Worker) -> Game:
        vae = cast(VAE, model)
        _check(vae, splits, worker.device)
        names = [column.name for column in splits.columns]
        vae.fit_standardization(map(splits.prepare, splits.train.chunks(CHECKED_AT_ONCE)), names)
        batches = splits.batches(self.batch_size, self.seed, worker.rank, worker.world_size, worker.device)
        validation = splits.examples("validation", device=worker.device)

        if len(splits.test) < 2:
            text = f"the test split has {counted(len(splits.test), 'example')}, and its estimates need at least 2"
            raise DataError(f"{text}; give more examples, or a larger part of them to the test split")
        decoded = self.batch_size // worker.world_size * self.objective.draws_of_each
        require_memory_for_step(decoded, splits.schema.shape, worker.device, f"objective.{self.objective.draws_key}")
        with torch.no_grad():
            first = splits.train.take(torch.arange(2)).in_memory().to(worker.device)
            self.try_objective(vae, Batch(splits.prepare(first.x), first.labels))

        def cost(batch: Batch, progress: Progress) -> dict[str, Tensor]:
            return self.objective(vae.given(batch.labels), batch.x, progress)

        def validate(progress: Progress) -> list[Estimate]:
            return self._validate(vae, validation, progress)

        return Game(
            model=vae,
            players=[Player("vae", [vae], cost, self.optimizer)],
            draw=batches.batch,
            steps_per_epoch=batches.steps_per_epoch,
            data_size=batches.size,
            validate=validate if len(validation.x) > 1 else None,
            close=batches.close,
        )

    def try_objective(self, vae: VAE, examples: Batch) -> None:
        """Compute the objective once, so that one that these distributions cannot serve is refused at the start."""
        self.objective(vae.given(examples.labels), examples.x, Progress())

    def final_estimates(
        self, model: nn.Module, splits: Splits, progress: Callable[[int, int], None] | None = None
    ) -> list[Estimate]:
        device = next(model.parameters()).device
        test = splits.examples("test", device=device)
        with seeded(seed_of("conclude", self.seed), device):
            estimates = evaluate_bound(cast(VAE, model), test.x, test.labels, samples=10)
            estimates += self._bound_of_objective(cast(VAE, model), test)
        return [estimate.named(f"test/{estimate.name}") for estimate in estimates]

    @torch.no_grad()
    def _bound_of_objective(self, vae: VAE, examples: Batch) -> list[Estimate]:
        """The objective's bound of log p(x), where it is another than the ELBO."""
        name = self.objective.bound_name
        if name == "elbo":
            return []
        parts = _parts(examples, self.batch_size)
        bounds = torch.cat([self.objective(vae.given(part.labels), part.x, Progress())["bound"] for part in parts])
        settings = {key: value for key, value in self.objective.to_mapping().items() if key != "type"}
        return [Estimate.mean(bounds.double(), name=name, kind="lower bound", settings=settings)]

    def _validate(self, vae: VAE, examples: Batch, progress: Progress) -> list[Estimate]:
        """The objective's terms on validation examples, after any warm-up, so that epochs can be compared."""
        warmed = Progress(progress.step, float("inf"), progress.data_size)
        parts = [self.objective(vae.given(part.labels), part.x, warmed) for part in _parts(examples, self.batch_size)]
        terms = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return [Estimate.mean(values, name=f"validation/{name}") for name, values in terms.items()]


def _encoder(network: Network, shape: tuple[int, ...], outputs: int, classes: int, covariates: int) -> nn.Module:
    """The encoder of a network, which takes labels or covariates where there are some."""
    if not covariates:
        return network.encoder(shape, outputs, classes)
    if isinstance(network, Custom):
        return network.encoder(shape, outputs, covariates=covariates)
    return CovariateEncoder(network.encoder(shape, COVARIATE_WIDTH), COVARIATE_WIDTH, covariates, outputs)


def _decoder(network: Network, latent: int, shape: tuple[int, ...], classes: int, covariates: int) -> nn.Module:
    """The decoder of a network, likewise."""
    if not covariates:
        return network.decoder(latent, shape, classes)
    if isinstance(network, Custom):
        return network.decoder(latent, shape, covariates=covariates)
    return CovariateDecoder(network.decoder(latent + covariates, shape))


def _parts(examples: Batch, size: int) -> list[Batch]:
    """Batches of `size`, the last one smaller or larger by one, and none of one example, which has no spread."""
    rows = list(torch.arange(len(examples.x), device=examples.x.device).split(max(2, size)))
    if len(rows) > 1 and len(rows[-1]) == 1:
        rows[-2:] = [torch.cat(rows[-2:])]
    return [Batch(examples.x[part], None if examples.labels is None else examples.labels[part]) for part in rows]


def likelihood_for(likelihood: Likelihood, schema: Schema) -> Likelihood:
    """The likelihood with what it takes from the data: groups of columns, and numbers of categories.

    Raises:
        ConfigurationError: for columns that are unknown, in no group or in two.
    """
    if isinstance(likelihood, Categorical) and likelihood.categories is None and schema.levels:
        return likelihood.model_copy(update={"categories": max(2, schema.levels)})
    if not isinstance(likelihood, Mixed):
        return likelihood
    if not schema.columns:
        text = "mixed is for tables, whose columns have kinds. Use data=table, a data frame, or one likelihood for all"
        raise ConfigurationError([("likelihood", text)])
    found = likelihood
    if not likelihood.groups:
        kinds: dict[tuple[str, int], list[int]] = {}
        for number, column in enumerate(schema.columns):
            kinds.setdefault((column.kind, len(column.categories)), []).append(number)
        groups = [
            Group(columns=tuple(numbers), likelihood=_OF_KIND[kind](count)) for (kind, count), numbers in kinds.items()
        ]
        found = Mixed(groups=tuple(groups))
    found = found.numbered([column.name for column in schema.columns])
    groups = []
    for group in found.groups:
        own = group.likelihood
        if isinstance(own, Categorical) and own.categories is None:
            counts = {len(schema.columns[int(number)].categories) for number in group.columns}
            own = own.model_copy(update={"categories": max(2, *counts)})
        groups.append(group.model_copy(update={"likelihood": own}))
    if len(groups) == 1 and list(groups[0].columns) == list(range(len(schema.columns))):
        return groups[0].likelihood  # the same distribution, which quadrature knows better
    return found.model_copy(update={"groups": tuple(groups)})


_OF_KIND: Mapping[str, Callable[[int], Likelihood]] = {
    "real": lambda _: GaussianPerColumn(),
    "positive": lambda _: LogNormal(),
    "count": lambda _: NegativeBinomial(),
    "binary": lambda _: Bernoulli(),
    "category": lambda count: Categorical(categories=max(2, count)),
    "ordinal": lambda count: Ordinal(categories=max(2, count)),
}


def _check(vae: VAE, splits: Splits, device: torch.device) -> None:
    """Check the training examples, prepared as for training, against the likelihood; of a streamed set, the first."""
    likelihood = cast(Likelihood, vae.likelihood.family)
    count = 1 if isinstance(splits.train, StreamedSplit) else None
    chunks = [islice(splits.train.to(device).chunks(CHECKED_AT_ONCE), count)]
    if splits.train.dtype != torch.uint8:  # bytes are alike in all parts
        chunks += [part.to(device).chunks(CHECKED_AT_ONCE) for part in (splits.validation, splits.test)]
    for x in chain(*chunks):
        if x.dtype == torch.int64 and not likelihood.discrete:
            raise DataError(
                f"likelihood={likelihood.type_name} is a density, and whole numbers have none; where they are "
                "measurements, give floats (x.astype('float32')); where they are counts, set "
                "likelihood=negative-binomial or poisson; where they number categories, categorical"
            )
        prepared = splits.prepare(x)
        if vae.standardization is None or prepared.dim() != 4:
            likelihood.check_observed(prepared, vae.missing)
        elif not bool(torch.isfinite(prepared[~prepared.isnan()]).all()):
            raise DataError("images hold infinite values; replace them, or mark missing ones as NaN")
