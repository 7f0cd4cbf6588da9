"""The family of samplers: distributions of z that are fitted after training to the codes of a VAE.

A VAE samples z from its prior p(z). Its decoder was trained on z from the encoder, whose mixture over all images, the
aggregate posterior q(z), differs from p(z). A sampler is a distribution p̂(z) that is fitted to draws of q(z) while the
networks stay as they are (Ghosh et al. 2020, "From variational to deterministic autoencoders", section 4; Dai and Wipf
2019, "Diagnosing and enhancing VAE models", section 4). The VAE with p̂(z) in the place of p(z) is a VAE again, so that
everything that a VAE has, its exact log p(x) included, it has as well.

The fit uses one draw of q(z|x) for each training image and stops by those of the validation images. The test images
take no part. What it gains is reported on the validation images:

    gain = E_q(z)[log p̂(z) − log p(z)],

by which the mean ELBO of these images grows, since its other terms stay as they are.
"""

from __future__ import annotations

__all__ = ["FittedSampler", "Sampler", "fit_sampler", "parse_sampler", "with_prior"]

import copy
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from latentia.configuration import Component, parse_overrides
from latentia.distributions import log_density
from latentia.errors import ConfigurationError, DataError
from latentia.estimate import Estimate
from latentia.models import VAE

ENCODED_AT_ONCE = 1000
FEWEST_CODES = 20
HELD_OUT = 10  # of the training codes, one in so many is held out where there is no validation split


Steps = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """Report nothing."""


class Sampler(Component, family=True):
    """The family of samplers. A member builds a module like those of priors, and fits it to codes.

    Attributes:
        has_density: whether the fitted distribution has a `log_prob`; else `held_out_log_prob` is a lower bound.
    """

    @property
    def has_density(self) -> bool:
        return True

    @abstractmethod
    def build(self, latent: int) -> nn.Module:
        """An unfitted module; its call, with any argument, returns a distribution with event shape (latent,)."""

    @abstractmethod
    def fit(self, module: nn.Module, codes: Tensor, held_out: Tensor, progress: Steps = no_progress) -> None:
        """Fit the module of `build` in place.

        Args:
            module: what `build` made.
            codes: (N, d), draws of the aggregate posterior.
            held_out: (M, d), others, to decide when to stop.
            progress: is called with the number of steps done and the most that there are.

        Raises:
            DataError: for too few codes.
        """

    def held_out_log_prob(self, module: nn.Module, codes: Tensor) -> Tensor:
        """log p̂(z) of codes, (N,), in nats, or a lower bound of it in expectation."""
        return log_density(module(), codes)


@dataclass(frozen=True)
class FittedSampler:
    """The result of `fit_sampler`.

    Attributes:
        sampler: the setting.
        vae: the VAE with the fitted distribution in the place of its prior; it shares the networks of the original.
        estimates: `<name>-sampler/gain` and the two terms of it, means over held-out codes.
    """

    sampler: Sampler
    vae: VAE
    estimates: Sequence[Estimate] = ()


def parse_sampler(given: str | Sampler) -> Sampler:
    """A sampler from its name with settings after commas, such as `mixture` or `mixture,components=50`.

    Raises:
        ConfigurationError: an unknown name or setting.
    """
    if isinstance(given, Sampler):
        return given
    name, *settings = str(given).split(",")
    try:
        return Sampler.parse({**parse_overrides(settings), "type": name.strip()})
    except ConfigurationError as error:
        lines = [(f"sampler.{key}" if key else "sampler", text) for key, text in error.problems]
        raise ConfigurationError(lines) from None


def fit_sampler(
    sampler: Sampler, vae: VAE, images: Tensor, held_out: Tensor, progress: Steps | None = None
) -> FittedSampler:
    """Fit a sampler to the codes of images; randomness comes from torch's global generator.

    Args:
        sampler: which.
        vae: trained.
        images: training images, (N, *shape).
        held_out: other images, not of the test split; with fewer than two, a tenth of the training images is held out.
        progress: is called with the number of steps done and the most that there are.

    Raises:
        DataError: for too few images.
    """
    codes = draw_codes(vae, images)
    if len(held_out) > 1:
        others = draw_codes(vae, held_out)
    else:
        is_held_out = torch.arange(len(codes)) % HELD_OUT == 0
        codes, others = codes[~is_held_out], codes[is_held_out]
    if min(len(codes), len(others) * HELD_OUT) < FEWEST_CODES:
        raise DataError(
            f"a sampler is fitted to the codes of at least {FEWEST_CODES} training images, and there are {len(codes)}, "
            f"with {len(others)} held out; sample from the prior"
        )
    module = sampler.build(vae.latent)
    with torch.enable_grad():
        sampler.fit(module, codes, others, progress or no_progress)
    module.eval().requires_grad_(False)
    with torch.no_grad():
        fitted = sampler.held_out_log_prob(module, others).double()
        prior = log_density(vae.prior, others).double()
    settings = {"sampler": sampler.to_mapping(), "codes": len(codes), "stderr_over": "held-out images"}
    kind = "estimate" if sampler.has_density else "lower bound"
    name = f"{sampler.type_name}-sampler"
    estimates = [
        Estimate.mean(fitted - prior, name=f"{name}/gain", kind=kind, settings=settings),
        Estimate.mean(fitted, name=f"{name}/log_density", kind=kind, settings=settings),
        Estimate.mean(prior, name=f"{name}/log_density_of_prior", settings=settings),
    ]
    return FittedSampler(sampler, with_prior(vae, module), estimates)


def with_prior(vae: VAE, prior: nn.Module) -> VAE:
    """The same VAE, its networks shared, with another module for its prior."""
    other = copy.copy(vae)
    other._modules = {**vae._modules, "prior_module": prior}
    return other


@torch.no_grad()
def draw_codes(vae: VAE, images: Tensor) -> Tensor:
    """One draw of q(z|x) for each image, (N, d): a draw of the aggregate posterior."""
    return torch.cat([vae.encode(x).sample() for x in images.split(ENCODED_AT_ONCE)])


def fit_by_gradient(
    module: nn.Module,
    cost: Callable[[Tensor], Tensor],
    codes: Tensor,
    held_out: Tensor,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    progress: Steps,
    patience: int = 5,
) -> None:
    """Minimize the mean cost of codes by Adam; keep the weights with the lowest cost of held-out codes.

    The number of steps, not of epochs, is given, so that the time does not grow with the data.

    Args:
        module: whose parameters to fit.
        cost: codes (B, d) → (B,).
        codes: to fit to.
        held_out: to choose by, after every twentieth of the steps, with the same random numbers each time.
        steps: at most.
        batch_size: codes of a step.
        lr: learning rate, lowered to zero over all steps along half a cosine.
        progress: is called with the number of steps done and `steps`.
        patience: looks at the held-out codes without improvement before stopping.
    """
    parameters = list(module.parameters())
    optimizer = torch.optim.Adam(parameters, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    best, since, kept = float("inf"), 0, copy.deepcopy(module.state_dict())
    rows: list[Tensor] = []
    for step in range(1, steps + 1):
        progress(step - 1, steps)
        rows = rows or list(torch.randperm(len(codes)).split(batch_size))
        optimizer.zero_grad()
        cost(codes[rows.pop()]).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()
        schedule.step()
        if step % max(1, steps // 20) and step < steps:
            continue
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            value = cost(held_out).mean().item()
        if value < best:
            best, since, kept = value, 0, copy.deepcopy(module.state_dict())
        elif (since := since + 1) >= patience:
            break
    module.load_state_dict(kept)


def standardization(codes: Tensor) -> dict[str, Any]:
    """Mean and standard deviation of each coordinate; 1 in place of a deviation of 0."""
    spread = codes.std(0)
    return {"center": codes.mean(0), "spread": torch.where(spread > 0, spread, 1.0)}
