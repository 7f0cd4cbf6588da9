"""pythae's own estimate of log p(x), `get_nll`, on the weights of a run of ours."""

from __future__ import annotations

import logging
import warnings

import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from latentia.likelihood import LatentModel

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    logging.disable(logging.NOTSET)


class Encoder(BaseEncoder):
    """q(z|x) of our model as pythae takes it: mean and log-variances."""

    def __init__(self, model: LatentModel):
        super().__init__()
        self.ours = model

    def forward(self, x: Tensor) -> ModelOutput:
        assert self.ours.encoder is not None
        q = self.ours.encoder(x)
        return ModelOutput(embedding=q.mean, log_covariance=2 * q.stddev.log())


class Decoder(BaseDecoder):
    """p(x|z) of our model as pythae takes it: pixels' probabilities."""

    def __init__(self, model: LatentModel):
        super().__init__()
        self.ours = model

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.ours.decoder(z).mean)


def serves(model: LatentModel, images: Tensor) -> bool:
    """Whether pythae's `get_nll` can score this model: q diagonal, p(z) = N(0, I), x binary."""
    q = None if model.encoder is None else model.encoder(images[:1])
    diagonal = isinstance(q, Independent) and isinstance(q.base_dist, Normal)
    return diagonal and bool(((images == 0) | (images == 1)).all())


def log_likelihoods(model: LatentModel, images: Tensor, draws: int, seed: int = 0) -> Tensor:
    """log p(x) of each image by pythae's estimator, (N,).

    It answers with the mean over the images it is given, of log p(x) in spite of its name; so it is asked for one image
    at a time, which is how it works through them itself.
    """
    shape = tuple(images.shape[1:])
    config = VAEConfig(input_dim=shape, latent_dim=model.latent, reconstruction_loss="bce")
    peer = VAE(config, encoder=Encoder(model), decoder=Decoder(model)).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        return torch.tensor([peer.get_nll(x[None], n_samples=draws) for x in images], dtype=torch.float64)
