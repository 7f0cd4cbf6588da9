"""The codes of a trained VAE as data, so that a second model is trained on the latent space of the first.

    latentia train vae data=mnist data.binarize=dynamic latent=50 --out runs/m1
    latentia train m2 data=codes data.run=runs/m1 labels=100           M1+M2 of Kingma et al. (2014, section 3.3)

A code of a training image is a new draw of q(z|x) at each step: the posteriors are held, not their draws.
"""

from __future__ import annotations

__all__ = ["Codes"]

import hashlib
from dataclasses import dataclass
from typing import Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor

from latentia.data import Batch, Part, Parts, Source, Split, Splits, StreamedSplit
from latentia.data.batches import seed_of
from latentia.data.binarization import Binarization
from latentia.distributions import Conditional, Posterior
from latentia.errors import ConfigurationError, RunError
from latentia.files import hash_of_file
from latentia.models import VAE, ConditionalVAE
from latentia.recipes.run import Run
from latentia.training import seeded

AT_ONCE = 5_000
PARTS: tuple[Part, ...] = ("train", "validation", "test")


class Codes(Source, name="codes"):
    """The codes z of a finished run of a VAE: vectors of length `latent`, with the labels and the splits of its data.

    They are not standardized, as p(z) has the scale of 1 already, unless `standardize` is true.
    """

    run: str = Field(description="the run directory of the VAE")
    draws: tuple[Literal["train", "validation", "test"], ...] = Field(
        default=("train",),
        description="parts whose codes are draws of q(z|x), in training a new one at each step; others are its means",
    )

    @property
    def suggested_likelihood(self) -> str:
        return "gaussian-per-column"

    @model_validator(mode="after")
    def _leaves_the_data_to_the_run(self) -> Self:
        for name in ("binarize", "validation", "split_seed", "binarize_seed", "missing"):
            if getattr(self, name) != type(self).model_fields[name].default:
                text = f"the examples of data=codes are split and prepared as in {self.run}. Leave data.{name} out"
                raise ConfigurationError([(name, text)])
        return self

    def load(self) -> Splits:
        """Encode the data of the run.

        Raises:
            ConfigurationError: for a folder that holds no finished run of a VAE, or one whose codes need labels.
            DataError: for data that cannot be loaded again.
        """
        vae, splits = self._opened()
        posterior = vae.posterior.requires_grad_(False)
        held: list[Split] = []
        for part in PARTS:
            examples = splits.examples(part)
            numbers = torch.cat([posterior.emit(x) for x in examples.x.split(AT_ONCE)])
            held.append(Split(numbers, examples.labels))
        return _CodeSplits(
            train=held[0],
            validation=held[1],
            test=held[2],
            classes=splits.classes,
            content_hash=self._content_hash(splits.content_hash),
            binarization=Binarization(),
            standardize=bool(self.standardize),
            posterior=posterior,
            drawn=self.draws,
        )

    def _read(self) -> Parts:
        """The codes in the order of the run's splits: those of its training and validation examples, then its test."""
        splits = self.load()
        parts = [Split(batch.x, batch.labels) for batch in map(splits.examples, PARTS)]
        labels = None if parts[0].labels is None else torch.cat([cast(Tensor, part.labels) for part in parts[:2]])
        whole = Split(torch.cat([part.x for part in parts[:2]]), labels)
        return Parts(whole, parts[2], splits.classes, splits.content_hash)

    def _opened(self) -> tuple[VAE, Splits]:
        try:
            run = Run(self.run)
            vae, splits = run.model, run.splits
        except RunError as error:
            raise ConfigurationError([("data.run", str(error))]) from None
        if not isinstance(vae, VAE):
            text = f"{self.run} holds a {type(vae).__name__}, which has no posterior q(z|x). Give a run of vae"
            raise ConfigurationError([("data.run", text)])
        if isinstance(vae, ConditionalVAE):
            text = f"{self.run} holds a {type(vae).__name__}, whose codes depend on the label. Give a run of vae"
            raise ConfigurationError([("data.run", text)])
        if isinstance(splits.train, StreamedSplit):
            text = f"the data of {self.run} are streamed, and codes are held in memory. Give a run on fewer examples"
            raise ConfigurationError([("data.run", text)])
        return vae, splits

    def _content_hash(self, data_hash: str) -> str:
        """Of what the codes follow from; their last bits depend on the machine."""
        weights = hash_of_file(Run(self.run).path / "weights.safetensors")
        return hashlib.sha256(f"{weights} {data_hash} {sorted(self.draws)}".encode()).hexdigest()


@dataclass(frozen=True, eq=False, kw_only=True)
class _CodeSplits(Splits):
    """Examples are held as the numbers of their posteriors, and become codes when they are prepared.

    Attributes:
        posterior: of the VAE, on the CPU.
        drawn: the parts whose codes are draws; the others are means.
    """

    posterior: Conditional
    drawn: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.posterior.event_shape

    def prepare(self, x: Tensor) -> Tensor:
        return self._codes(x.cpu(), "train").to(x.device)

    def examples(self, part: Part, n: int | None = None, device: torch.device | str = "cpu") -> Batch:
        whole = {"train": self.train, "validation": self.validation, "test": self.test}[part]
        first = whole.take(torch.arange(len(whole) if n is None else min(n, len(whole))))
        with seeded(seed_of("codes", part)):
            codes = torch.cat([self._codes(numbers, part) for numbers in first.x.split(AT_ONCE)])
        labels = first.labels if first.labels is None else first.labels.to(device)
        return Batch(codes.to(device), labels)

    def _codes(self, numbers: Tensor, part: Part) -> Tensor:
        """Draws or means (N, d) of the posteriors with these numbers (N, P)."""
        q = self.posterior.distribution(numbers)
        return q.sample() if part in self.drawn else cast(Posterior, self.posterior.family).center(q)
