"""The evidence lower bound of a trained VAE on a set of images, with its standard error."""

from __future__ import annotations

__all__ = ["evaluate_bound"]

import math

import torch
from torch import Tensor

from latentia.distributions import DiscretizedLogisticMixture
from latentia.estimate import Estimate
from latentia.models import VAE


@torch.no_grad()
def evaluate_bound(vae: VAE, images: Tensor, *, samples: int = 1, batch_size: int = 1000) -> list[Estimate]:
    """Mean ELBO, rate and distortion over images, each from `samples` draws of z for every image.

    The KL is sampled as well, so that any prior can be used. Standard errors are over the images and include the noise
    of the draws, which come from torch's global generator (see `latentia.training.seeded`).

    Args:
        vae: on the images' device, in evaluation mode.
        images: (N, C, H, W), as the likelihood scores them.
        samples: draws of z for each image.
        batch_size: images processed at a time.

    Returns:
        `elbo` (a lower bound of the mean log p(x), in expectation), `rate` and `distortion`, in nats.
        For a likelihood of 8-bit pixels also `bits_per_dimension`, an upper bound of −log₂ p(x) per pixel and channel.

    Raises:
        DataError: for images outside the likelihood's support, such as gray ones under a Bernoulli likelihood.
    """
    vae.check(images)
    rates, distortions = [], []
    for x in images.split(batch_size):
        q = vae.encode(x)
        z = q.sample(torch.Size([samples]))
        rates.append((q.log_prob(z) - vae.prior.log_prob(z)).mean(0))
        distortions.append(-vae.decode(z).log_prob(x).mean(0))
    rate, distortion = torch.cat(rates).double(), torch.cat(distortions).double()
    settings = {"samples": samples, "stderr_over": "images"}
    estimates = [
        Estimate.mean(-(rate + distortion), name="elbo", kind="lower bound", settings=settings),
        Estimate.mean(rate, name="rate", settings=settings),
        Estimate.mean(distortion, name="distortion", settings=settings),
    ]
    if isinstance(vae.likelihood.family, DiscretizedLogisticMixture):
        bits = (rate + distortion) / (math.prod(vae.image_shape) * math.log(2))
        unit = "bits/dimension"
        estimates.append(
            Estimate.mean(bits, name="bits_per_dimension", kind="upper bound", unit=unit, settings=settings)
        )
    return estimates
