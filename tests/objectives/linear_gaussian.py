"""A model in which everything is known: z ~ N(0, I), x | z ~ N(W z + b, s² I), in float64.

Then log p(x) is that of N(b, W Wᵀ + s² I), and p(z|x) is Gaussian with covariance Σ = (I + WᵀW/s²)⁻¹ and mean
Σ Wᵀ(x − b)/s². The encoder is linear in x, so that it can be set to the exact posterior, or away from it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from latentia.distributions import Diagonal, Family, Full, Gaussian, Posterior, Prior
from latentia.models import VAE

SCALE = 0.5
PIXELS = 3
IMAGE = (1, 1, PIXELS)


class LinearGaussian:
    """The model as a VAE, and what is known of it.

    Args:
        posterior: the encoder's family.
        away: how far its numbers lie off those of the exact posterior, at random.
        wider: added to its log-scales. Weights p(x, z)/q(z|x) have a finite variance where q is the wider of the two.
        latent: dimension of z.
        prior: p(z), standard normal by default; with another, what is said of log p(x) no longer holds.
        orthogonal: whether the exact posterior has no correlation.
    """

    def __init__(
        self,
        posterior: Posterior | None = None,
        away: float = 0.0,
        wider: float = 0.0,
        latent: int = 2,
        prior: Prior | None = None,
        orthogonal: bool = False,
    ):
        torch.manual_seed(0)
        posterior = posterior or Full()
        (numbers,) = posterior.parameter_shape((latent,))
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, numbers))
        decoder = nn.Sequential(nn.Linear(latent, PIXELS), nn.Unflatten(1, IMAGE))
        self.vae = VAE(
            encoder, decoder, latent=latent, event_shape=IMAGE, posterior=posterior, likelihood=Gaussian(scale=SCALE),
            prior=prior,
        ).double()  # fmt: skip
        self.weight = torch.randn(PIXELS, latent).double() * 0.7
        if orthogonal:  # a posterior without correlation
            self.weight = torch.linalg.qr(self.weight)[0] * torch.tensor([0.9, 0.5]).double()
        self.bias = torch.tensor([0.3, -0.2, 0.5]).double()
        self.covariance = torch.linalg.inv(torch.eye(latent).double() + self.weight.T @ self.weight / SCALE**2)
        self.gain = self.covariance @ self.weight.T / SCALE**2
        with torch.no_grad():
            decoder[0].weight.copy_(self.weight)
            decoder[0].bias.copy_(self.bias)
            self._set_encoder(encoder[1], posterior, latent)
            for parameter in encoder.parameters():
                parameter.add_(away * torch.randn_like(parameter))
            if wider:
                encoder[1].bias[latent : 2 * latent] += wider

    def _set_encoder(self, linear: nn.Linear, posterior: Posterior, latent: int) -> None:
        linear.weight.zero_()
        linear.bias.zero_()
        linear.weight[:latent] = self.gain
        linear.bias[:latent] = -self.gain @ self.bias
        factor = torch.linalg.cholesky(self.covariance)
        if isinstance(posterior, Full | Diagonal):
            linear.bias[latent : 2 * latent] = factor.diagonal().log()
        if isinstance(posterior, Full):
            rows, columns = torch.tril_indices(latent, latent, offset=-1)
            linear.bias[2 * latent :] = factor[rows, columns]

    def images(self, n: int, seed: int = 1) -> Tensor:
        """Draws from the model, (n, 1, 1, 3)."""
        torch.manual_seed(seed)
        return self.marginal.sample((n,)).reshape(n, *IMAGE)

    @property
    def marginal(self) -> MultivariateNormal:
        return MultivariateNormal(self.bias, self.weight @ self.weight.T + SCALE**2 * torch.eye(PIXELS).double())

    def log_likelihood(self, x: Tensor) -> Tensor:
        return self.marginal.log_prob(x.flatten(1))

    def exact_posterior(self, x: Tensor) -> MultivariateNormal:
        return MultivariateNormal((x.flatten(1) - self.bias) @ self.gain.T, self.covariance)


class Pathless(Family):
    """A diagonal Gaussian that has lost its reparametrized draws."""

    def parameter_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        return Diagonal().parameter_shape(event_shape)

    def distribution(self, parameters: Tensor, shared: Tensor | None = None, event_dims: int = 1) -> Distribution:
        mean, log_scale = parameters.chunk(2, dim=-1)
        base = Normal(mean, log_scale.exp())
        base.has_rsample = False
        return Independent(base, 1)


def gradients(vae: VAE, objective, x: Tensor, repetitions: int, progress) -> dict[str, Tensor]:
    """The gradient of the mean cost by parameter, for many draws of the noise, (repetitions, size)."""
    names, parameters = zip(*vae.named_parameters(), strict=True)
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    for repetition in range(repetitions):
        torch.manual_seed(repetition)
        cost = objective(vae, x, progress)["cost"].mean()
        grads = torch.autograd.grad(cost, parameters, allow_unused=True)
        for name, parameter, grad in zip(names, parameters, grads, strict=True):
            rows[name].append((torch.zeros_like(parameter) if grad is None else grad).flatten())
    return {name: torch.stack(row) for name, row in rows.items()}


def z_scores(a: Tensor, b: Tensor) -> Tensor:
    """How many joint standard errors the means of two sets of rows lie apart, per column."""
    variance = a.var(0) / len(a) + b.var(0) / len(b)
    return (a.mean(0) - b.mean(0)).abs() / variance.sqrt().clamp(min=1e-10)
