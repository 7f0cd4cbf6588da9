"""The conditional VAE: encoder and decoder, and by choice the prior, are given the label y of each example.

    log p(x|y) ≥ E_q(z|x,y)[log p(x|z, y)] − KL(q(z|x, y), p(z|y))          (Sohn et al. 2015, eq. 4)

y is a class, or a vector of continuous covariates, such as age and dose, which the model standardizes.

For one y it is a VAE: `model.given(y)` is that VAE, with the networks of the model, and everything that a VAE has,
objectives, exact log p(x|y) and pictures, applies to it.
"""

from __future__ import annotations

__all__ = ["ConditionalVAE"]

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from latentia.distributions import Conditional, Likelihood
from latentia.errors import ConfigurationError, DataError
from latentia.models.vae import VAE, Array, X
from latentia.networks.network import require_logits

KNOWN = 1000  # covariates of training examples that a model keeps, to sample with


class ConditionalVAE(VAE):
    """A VAE whose networks take labels, or covariates.

    Args:
        encoder: (x (B, *shape), labels (B,)) → the numbers of the posterior.
        decoder: (z (B, d), labels (B,)) → the numbers of the likelihood.
        classes: number of labels; 0 for a model of covariates.
        conditional_prior: whether the prior is N(μ(y), diag σ(y)²), learned, in the place of the one of `VAE`.
        covariates: their names; then all that takes labels takes covariates, (B, k), in the user's units, and the
            networks see them standardized.
        **parts: as for `VAE`.
    """

    log_frequencies: Tensor
    covariate_center: Tensor
    covariate_spread: Tensor
    known_covariates: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        *,
        classes: int,
        conditional_prior: bool = False,
        covariates: Sequence[str] = (),
        **parts: Any,
    ):
        super().__init__(encoder, decoder, **parts)
        self.covariates = tuple(covariates)
        family = cast(Likelihood, self.likelihood.family)
        if family.takes_logits and not self.covariates:
            reason = f"likelihood={family.type_name} takes logits"
            require_logits("decoder", decoder, (self.latent,), reason, classes)
        self.classes = classes
        self.conditional_prior = conditional_prior
        width = len(self.covariates)
        if conditional_prior:
            self.prior_module = _NormalOf(width, self.latent) if width else _LabeledNormal(classes, self.latent)
        if width:
            self.register_buffer("covariate_center", torch.zeros(width))
            self.register_buffer("covariate_spread", torch.ones(width))
            self.register_buffer("known_covariates", torch.zeros(KNOWN, width))
        else:
            self.register_buffer("log_frequencies", torch.zeros(classes).log_softmax(0))

    def given(self, labels: Tensor | int | None) -> VAE:
        """The VAE of examples with these labels, which shares all weights.

        Args:
            labels: int64, (B,), one for each example of a batch; or one label for all examples. Of covariates, floats
                (B, k), or one vector (k,) for all.

        Raises:
            ConfigurationError: without labels.
            DataError: for labels out of range, of another type, or missing ones (below 0).
        """
        if labels is None:
            cure = "give a label for each example, as in model.given(labels).encode(x)"
            what = f"is given {', '.join(self.covariates)}" if self.covariates else f"has {self.classes} classes"
            raise ConfigurationError([("labels", f"this model {what}; {cure}")])
        first = self.covariate_center if self.covariates else self.log_frequencies
        given = torch.as_tensor(labels, device=first.device)
        if not torch.compiler.is_compiling() and (given.device.type == "cpu" or given.dim() == 0):
            self.require_labels(given)
        if self.covariates:
            given = (given - self.covariate_center) / self.covariate_spread
        view = VAE.__new__(VAE)
        view.__dict__ = {**self.__dict__}
        prior = self.prior_module
        if isinstance(prior, _LabeledNormal | _NormalOf):
            prior = _GivenPrior(prior, given)
        view.__dict__["_modules"] = {
            **self._modules,
            "posterior": _with_network(self.posterior, _GivenNetwork(self.posterior.network, given)),
            "likelihood": _with_network(self.likelihood, _GivenNetwork(self.likelihood.network, given)),
            "prior_module": prior,
        }
        return view

    def require_labels(self, labels: Tensor) -> None:
        """Refuse labels that the model does not know.

        Raises:
            DataError: with the range of the labels, or the names of the covariates.
        """
        if self.covariates:
            if not labels.is_floating_point() or labels.shape[-1:] != (len(self.covariates),) or labels.dim() > 2:
                raise DataError(
                    f"this model is given {', '.join(self.covariates)}, and these are {labels.dtype} of shape "
                    f"{tuple(labels.shape)}; give floats (N, {len(self.covariates)})"
                )
            if not bool(torch.isfinite(labels).all()):
                raise DataError("covariates are missing or infinite (NaN); give a number for each")
            return
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise DataError(f"labels are whole numbers, and these are {labels.dtype}; give them as int64")
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise DataError(
                f"labels go from 0 to {self.classes - 1}, and these from {int(labels.min())} to {int(labels.max())}"
            )

    def set_frequencies(self, labels: Tensor) -> None:
        """Take p(y), by which `sample` draws labels, from those of the training examples; of covariates, center, spread
        and some rows.

        Raises:
            DataError: for a covariate that is the same for all training examples.
        """
        if self.covariates:
            spread = labels.double().std(0, correction=0)
            if bool((spread == 0).any()):
                name = self.covariates[int((spread == 0).nonzero()[0])]
                raise DataError(f"the covariate {name} is the same for all training examples; leave it out")
            self.covariate_center.copy_(labels.double().mean(0))
            self.covariate_spread.copy_(spread)
            generator = torch.Generator().manual_seed(0)
            rows = torch.cat(
                [torch.randperm(len(labels), generator=generator) for _ in range(-(-KNOWN // len(labels)))]
            )
            self.known_covariates.copy_(labels[rows[:KNOWN].to(labels.device)])
            return
        counts = labels.bincount(minlength=self.classes).to(self.log_frequencies)
        self.log_frequencies.copy_((counts / counts.sum()).log())

    @property
    def prior(self) -> Distribution:
        """p(z), where it does not depend on the label.

        Raises:
            ConfigurationError: where it does.
        """
        if self.conditional_prior:
            raise ConfigurationError([("labels", "the prior of this model depends on the label; use model.given(y)")])
        return super().prior

    def encode(self, x: Tensor | Array, labels: Tensor | int | None = None) -> Distribution:
        """q(z|x, y) for x (B, *shape) and labels (B,)."""
        return self.given(labels).encode(x)

    def decode(self, z: Tensor, labels: Tensor | int | None = None) -> Distribution:
        """p(x|z, y) for z (*batch, d), with labels of the last dimension of the batch, or one for all."""
        return self.given(labels).decode(z)

    @torch.no_grad()
    def sample(self, n: int, *, mean: bool = False, labels: Tensor | int | None = None) -> Tensor:
        """Draw n examples of p(x|y), (n, *shape), with labels (n,), one for all, or draws of p(y) if not given."""
        if labels is None:
            labels = self.draw_labels(n)
        view = self.given(labels)
        single = not view.prior.batch_shape
        distribution = view.decode(view.prior.sample(torch.Size([n] if single else [])))
        return distribution.mean if mean else distribution.sample()

    @torch.no_grad()
    def draw_labels(self, n: int) -> Tensor:
        """n labels drawn with the frequencies of the training examples, (n,); of covariates, n of theirs, (n, k)."""
        if self.covariates:
            return self.known_covariates[torch.randint(KNOWN, (n,))]
        return torch.multinomial(self.log_frequencies.exp(), n, replacement=True)

    @torch.no_grad()
    def reconstruct(self, x: X, labels: Tensor | int | None = None) -> X:
        """E[x|z, y] at the mean of q(z|x, y), (B, *shape)."""
        return self.given(labels).reconstruct(x)


class _GivenNetwork(nn.Module):
    """A network of (x, labels) with the labels in place."""

    def __init__(self, network: nn.Module, labels: Tensor):
        super().__init__()
        self.network, self.labels = network, labels

    def forward(self, x: Tensor) -> Tensor:
        labels, count = self.labels, x.shape[0]  # len(x) would be a constant of an exported program
        if labels.dim() == labels.is_floating_point():  # one label, or one vector of covariates
            labels = labels.expand(count, *labels.shape)
        elif count != labels.shape[0]:  # several draws of z for each example, the examples last
            if count % labels.shape[0]:
                raise DataError(f"there are {labels.shape[0]} labels for {count} examples; give one for each")
            labels = labels.repeat(count // labels.shape[0], *[1] * (labels.dim() - 1))
        return self.network(x, labels.to(x.dtype) if labels.is_floating_point() else labels)


class _LabeledNormal(nn.Module):
    """The means and log-scales of p(z|y), which starts as N(0, I)."""

    def __init__(self, classes: int, latent: int):
        super().__init__()
        self.means = nn.Parameter(torch.zeros(classes, latent))
        self.log_scales = nn.Parameter(torch.zeros(classes, latent))

    def forward(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.means[labels], self.log_scales[labels]


class _NormalOf(nn.Module):
    """The means and log-scales of p(z|c), which starts as N(0, I)."""

    def __init__(self, covariates: int, latent: int, width: int = 32):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(covariates, width), nn.Tanh(), nn.Linear(width, 2 * latent))
        for parameter in cast(nn.Linear, self.network[-1]).parameters():
            nn.init.zeros_(parameter)

    def forward(self, covariates: Tensor) -> tuple[Tensor, Tensor]:
        dtype = next(self.parameters()).dtype  # a copy of the model in float64 is given the same covariates
        mean, log_scale = self.network(covariates.to(dtype)).chunk(2, -1)
        return mean, log_scale


class _GivenPrior(nn.Module):
    """p(z|y) of given labels: one distribution for each, or a single one."""

    def __init__(self, prior: _LabeledNormal | _NormalOf, labels: Tensor):
        super().__init__()
        self.prior, self.labels = prior, labels

    def forward(self, posterior: Conditional | None = None) -> Distribution:
        mean, log_scale = self.prior(self.labels)
        return Independent(Normal(mean, log_scale.exp(), validate_args=False), 1, validate_args=False)


def _with_network(conditional: Conditional, network: nn.Module) -> Conditional:
    """The same conditional with another network."""
    view = type(conditional).__new__(type(conditional))
    view.__dict__ = {**conditional.__dict__, "_modules": {**conditional._modules, "network": network}}
    return view
