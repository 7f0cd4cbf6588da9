"""Missing values from what is observed: E[x_missing | x_observed] under a VAE, by importance sampling.

    z_k ~ q(z | x_observed),   w_k ∝ p(x_observed, z_k)/q(z_k | x_observed),   x̂ = Σ w_k E[x_missing | z_k]

The weights make the estimate consistent whatever the encoder does with missing values (Mattei and Frellsen 2019,
"MIWAE", section 2.3). Of categories, the most probable one is taken.
"""

from __future__ import annotations

__all__ = ["Imputation", "impute_values"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentia.errors import DataError
from latentia.likelihood.latent_model import LatentModel
from latentia.models import VAE

DECODED_AT_ONCE = 20_000


@dataclass(frozen=True)
class Imputation:
    """Examples with their missing values filled in.

    Attributes:
        x: (N, *event_shape); observed values are as they were.
        stddev: of a missing value given the observed ones, 0 where it is observed; of a category, the probability that
            it is another one.
        effective_sample_size: of the weights of each example, (N,).
    """

    x: Tensor
    stddev: Tensor
    effective_sample_size: Tensor


def impute_values(
    vae: VAE,
    x: Tensor,
    *,
    draws: int = 500,
    seed: int = 0,
    categories: Sequence[int] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Imputation:
    """Fill in missing values (NaN).

    Args:
        vae: trained with missing values (`data.missing=keep`).
        x: (N, *event_shape), in the user's units.
        draws: of z for each example.
        seed: of the draws; the global random state is left as it was.
        categories: columns that hold categories.
        progress: is called with the number of examples done, and of all.

    Raises:
        DataError: for a model that was trained without missing values.
    """
    if not vae.missing:
        raise DataError(
            "this model does not take missing values; train it with data.missing=keep "
            "(in Python InMemory(data=x, missing='keep'))"
        )
    filled, spread, sizes = [], [], []
    with LatentModel.from_model(vae).evaluating(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part in x.split(max(1, DECODED_AT_ONCE // draws)):
            if progress is not None:
                progress(sum(map(len, filled)), len(x))
            own = part.to(next(vae.parameters()))
            q = vae.encode(own)
            z = q.sample(torch.Size([draws]))
            weights = vae.log_importance_weights(own, z, q).double().softmax(0)  # (draws, B)
            given = vae.decode(z)
            shape = (draws, len(own), *[1] * (own.dim() - 1))
            each = weights.view(shape)
            mean, variance = given.mean.double(), given.variance.double()
            center = (each * mean).sum(0)
            deviation = ((each * (variance + mean.square())).sum(0) - center.square()).clamp(min=0).sqrt()
            if categories:
                _vote(center, deviation, given.sample().double(), weights, categories)
            absent = part.isnan()
            filled.append(torch.where(absent, center.to(part), part).cpu())
            spread.append(torch.where(absent, deviation.to(part), 0.0).cpu())
            sizes.append(1 / weights.square().sum(0).cpu())
    return Imputation(torch.cat(filled), torch.cat(spread), torch.cat(sizes))


def _vote(center: Tensor, deviation: Tensor, sampled: Tensor, weights: Tensor, columns: Sequence[int]) -> None:
    """The most probable category of each column, in place, by the weighted draws of x."""
    for column in columns:
        values = sampled[:, :, column]
        levels = torch.arange(int(values.max()) + 1, device=values.device)
        shares = torch.stack([(weights * (values == level)).sum(0) for level in levels])  # (K, B)
        best = shares.max(0)
        center[:, column], deviation[:, column] = best.indices.double(), 1 - best.values
