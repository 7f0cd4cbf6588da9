"""Lower bounds of log p(x) from draws of a VAE's encoder, with their standard errors."""

from __future__ import annotations

__all__ = ["evaluate_bound"]

import math
from typing import Any

import torch
from torch import Tensor

from latentia.distributions import DiscretizedLogisticMixture
from latentia.errors import DataError
from latentia.estimate import Estimate
from latentia.likelihood.latent_model import LatentModel
from latentia.models import VAE

DECODED_AT_ONCE = 20_000


def evaluate_bound(
    vae: VAE, images: Tensor, labels: Tensor | None = None, *, samples: int = 1, draws: int = 1, batch_size: int = 1000
) -> list[Estimate]:
    """Mean ELBO, rate and distortion over images, and for `draws` > 1 the importance-weighted bound of so many draws.

    The KL is sampled as well, so that any prior can be used. Standard errors are over the images and include the noise
    of the draws, which come from torch's global generator (see `latentia.training.seeded`). The model is evaluated in
    evaluation mode and its mode is restored.

    Args:
        vae: on the images' device.
        images: (N, C, H, W), as the likelihood scores them.
        labels: (N,), for a class-conditional VAE, whose bounds are of log p(x|y); others ignore them.
        samples: independent repetitions for each image.
        draws: K of L_K = E log (1/K) Σ w (Burda et al. 2016, eq. 8), which is the ELBO for K = 1.
        batch_size: images processed at a time, at most.

    Returns:
        `elbo` (a lower bound of the mean log p(x), in expectation), `rate` and `distortion`, in nats, from all
        `samples` · `draws` draws; for `draws` > 1 also `iwae`, a tighter lower bound.
        For a likelihood of 8-bit pixels also `bits_per_dimension`, an upper bound of −log₂ p(x) per pixel and channel.

    Raises:
        DataError: for images of another shape, or outside the likelihood's support, such as gray ones under a Bernoulli
            likelihood.
    """
    if len(images) == 0 or images.shape[1:] != vae.event_shape:
        wanted = ", ".join(map(str, vae.event_shape))
        raise DataError(f"images have shape {tuple(images.shape)}, and this model scores (N, {wanted}) with N >= 1")
    rates, distortions, bounds = [], [], []
    rows = torch.arange(len(images), device=images.device)
    with LatentModel.from_model(vae.given(None if labels is None else labels[0])).evaluating():
        vae.check(images)
        for part in rows.split(max(1, min(batch_size, DECODED_AT_ONCE // (samples * draws)))):
            x, own = images[part], vae.given(None if labels is None else labels[part])
            q = own.encode(x)
            z = q.sample(torch.Size([samples * draws]))
            rate, distortion = q.log_prob(z) - own.prior.log_prob(z), -own.decode(z).log_prob(x)
            rates.append(rate.mean(0))
            distortions.append(distortion.mean(0))
            log_weights = -(rate + distortion).double().view(samples, draws, len(x))
            bounds.append((log_weights.logsumexp(1) - math.log(draws)).mean(0))
    rate, distortion = torch.cat(rates).double(), torch.cat(distortions).double()
    settings = {"samples": samples * draws, "stderr_over": "images"}
    estimates = [
        _mean(-(rate + distortion), name="elbo", kind="lower bound", settings=settings),
        _mean(rate, name="rate", settings=settings),
        _mean(distortion, name="distortion", settings=settings),
    ]
    if draws > 1:
        settings = {"draws": draws, "samples": samples, "stderr_over": "images"}
        estimates.append(_mean(torch.cat(bounds), name="iwae", kind="lower bound", settings=settings))
    if isinstance(vae.likelihood.family, DiscretizedLogisticMixture):
        bits = (rate + distortion) / (math.prod(vae.event_shape) * math.log(2))
        estimates.append(
            _mean(bits, name="bits_per_dimension", kind="upper bound", unit="bits/dimension", settings=settings)
        )
    return estimates


def _mean(values: Tensor, **about: Any) -> Estimate:
    """The mean over images; of one image without a standard error."""
    if len(values) > 1:
        return Estimate.mean(values, **about)
    return Estimate(values.item(), n=1, method="monte carlo", **about)
