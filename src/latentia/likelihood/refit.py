"""Train an encoder further while the decoder is fixed: how much of the inference gap the encoder can still close.

Two objectives, for any q with a density:

    elbo        maximize E_q[log p(x, z) − log q(z|x)]: the q that makes the bound tightest, KL(q, p(z|x)) → min
    posterior   minimize KL(p(z|x), q), with p(z|x) from the grid: for a Gaussian q, matching its mean and covariance
"""

from __future__ import annotations

__all__ = ["refit_encoder"]

import copy
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, kl_divergence

from latentia.distributions import Stratified, weighted_draws
from latentia.errors import ConfigurationError, UnsupportedError
from latentia.likelihood.posterior import GridPosterior, exact_posterior
from latentia.models import VAE


def refit_encoder(
    vae: VAE,
    images: Tensor,
    *,
    by: Literal["elbo", "posterior"] = "elbo",
    epochs: int = 20,
    batch_size: int = 128,
    lr: float = 1e-3,
    seed: int = 0,
    prepare: Callable[[Tensor], Tensor] | None = None,
) -> VAE:
    """A copy of the model with its encoder trained further; decoder and prior are unchanged.

    Args:
        vae: the model; it is not changed.
        images: to fit on, (N, C, H, W), as the likelihood scores them, or as `prepare` takes them.
        by: see the module's docstring. `posterior` needs z of at most three dimensions.
        epochs: passes through the images; the learning rate falls to zero along a cosine.
        batch_size: images for each step.
        lr: learning rate of Adam, at the start.
        seed: of the order and the draws; the caller's generator is not changed.
        prepare: applied to each batch, such as a new binarization; with `elbo` only.

    Raises:
        ConfigurationError: `prepare` with `by="posterior"`.
        UnsupportedError: a q without rsample (`elbo`), or that is not Gaussian (`posterior`).
    """
    if by == "posterior" and prepare is not None:
        raise ConfigurationError("refit_encoder(by='posterior') fits the posteriors of fixed images; leave out prepare")
    fitted = copy.deepcopy(vae).train()
    for parameter in fitted.parameters():
        parameter.requires_grad_(False)
    encoder = [parameter.requires_grad_() for parameter in fitted.posterior.parameters()]
    target = exact_posterior(vae, images) if by == "posterior" else None
    optimizer = torch.optim.Adam(encoder, lr=lr)
    steps = epochs * -(-len(images) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(epochs):
            for rows in torch.randperm(len(images)).split(batch_size):
                x = images[rows] if prepare is None else prepare(images[rows])
                optimizer.zero_grad()
                cost = _negative_elbo(fitted, x) if target is None else _cross_entropy(fitted.encode(x), target, rows)
                cost.mean().backward()
                optimizer.step()
                schedule.step()
    for parameter, original in zip(fitted.parameters(), vae.parameters(), strict=True):
        parameter.requires_grad_(original.requires_grad)
    return fitted.train(vae.training)


def _negative_elbo(vae: VAE, x: Tensor) -> Tensor:
    """−ELBO, (B,), with the KL in closed form where there is one."""
    q = vae.encode(x)
    if not q.has_rsample and not isinstance(q, Stratified):
        raise UnsupportedError(
            f"refitting by the bound needs a posterior with rsample, and {type(q).__name__} has none"
        )
    z, log_weights = weighted_draws(q, 1)
    weight = torch.ones(len(z), len(x), device=x.device) if log_weights is None else log_weights.exp()
    distortion = -(weight * vae.decode(z).log_prob(x)).sum(0)
    try:
        return distortion + kl_divergence(q, vae.prior)
    except NotImplementedError:
        return distortion + (weight * (q.log_prob(z) - vae.prior.log_prob(z))).sum(0)


def _cross_entropy(q: Distribution, target: GridPosterior, rows: Tensor) -> Tensor:
    """−E log q(z) under p(z|x), (B,): for a Gaussian q it depends on two moments alone."""
    mean, covariance = target.mean[rows], target.covariance[rows]
    if isinstance(q, Independent) and isinstance(q.base_dist, Normal):
        precision = torch.diag_embed(1 / q.variance)
    elif isinstance(q, MultivariateNormal):
        precision = q.precision_matrix
    else:
        raise UnsupportedError(f"matching moments needs a Gaussian q, and this is {type(q).__name__}; use by='elbo'")
    spread = torch.einsum("bij,bji->b", precision, covariance.to(precision))
    return 0.5 * spread - q.log_prob(mean.to(precision))
