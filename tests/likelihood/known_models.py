"""Small models whose log p(x) is known, and toy decoders, for the evaluation's tests."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from latentia.distributions import Bernoulli, Conditional, Diagonal, Full, Gaussian
from latentia.likelihood.latent_model import LatentModel
from latentia.models import VAE


def standard_normal(d: int) -> Distribution:
    return Independent(Normal(torch.zeros(d), torch.ones(d)), 1)


class LinearGaussian:
    """Probabilistic PCA fitted by scikit-learn: x = W z + m + σ ε, whose log p(x) is a Gaussian's."""

    def __init__(self, latent: int, pixels: int = 12, seed: int = 0):
        rng = np.random.default_rng(seed)
        mixing = rng.normal(size=(latent, pixels))
        x = rng.normal(size=(400, latent)) @ mixing + 0.5 * rng.normal(size=(400, pixels))
        self.x = 0.5 + 0.02 * x  # within [0, 1], as images are
        self.pca = PCA(latent).fit(self.x)
        sigma2 = self.pca.noise_variance_
        weight = self.pca.components_.T * np.sqrt(self.pca.explained_variance_ - sigma2)
        self.weight, self.mean = torch.from_numpy(weight), torch.from_numpy(self.pca.mean_)
        self.sigma, self.latent = float(np.sqrt(sigma2)), latent

    @property
    def images(self) -> Tensor:
        return torch.from_numpy(self.x[:20])

    @property
    def truth(self) -> Tensor:
        return torch.from_numpy(self.pca.score_samples(self.x[:20]))

    def posterior(self) -> tuple[Tensor, Tensor]:
        """Mean of p(z|x) for each image (N, d), and its covariance (d, d)."""
        precision = torch.eye(self.latent, dtype=torch.float64) + self.weight.T @ self.weight / self.sigma**2
        covariance = precision.inverse()
        return (self.images - self.mean) @ self.weight @ covariance / self.sigma**2, covariance

    @property
    def model(self) -> LatentModel:
        network = nn.Linear(self.latent, len(self.mean)).double()
        with torch.no_grad():
            network.weight.copy_(self.weight)
            network.bias.copy_(self.mean)

        def decoder(z: Tensor) -> Distribution:
            mean = network(z.double())
            return Independent(Normal(mean, torch.full_like(mean, self.sigma)), 1)

        return LatentModel(decoder, standard_normal(self.latent))

    @property
    def vae(self) -> VAE:
        """The same model as a VAE over images (1, 1, pixels) whose linear encoder is exact."""
        shape = (1, 1, len(self.mean))
        decoder = nn.Sequential(nn.Linear(self.latent, len(self.mean)), nn.Unflatten(1, shape)).double()
        numbers = 2 * self.latent + self.latent * (self.latent - 1) // 2
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(len(self.mean), numbers)).double()
        mean_map = self.weight @ self.posterior()[1] / self.sigma**2  # (pixels, d)
        factor = torch.linalg.cholesky(self.posterior()[1])
        with torch.no_grad():
            decoder[0].weight.copy_(self.weight)
            decoder[0].bias.copy_(self.mean)
            encoder[1].weight.zero_()
            encoder[1].weight[: self.latent].copy_(mean_map.T)
            rows, columns = torch.tril_indices(self.latent, self.latent, offset=-1)
            encoder[1].bias.copy_(torch.cat([-(self.mean @ mean_map), factor.diagonal().log(), factor[rows, columns]]))
        family = Gaussian(scale=self.sigma)
        vae = VAE(encoder, decoder, latent=self.latent, event_shape=shape, posterior=Full(), likelihood=family)
        return vae.double().eval()


def toy_vae(latent: int = 2, pixels: int = 16, sharpness: float = 3.0, seed: int = 0) -> VAE:
    """A smooth random Bernoulli VAE; its posteriors narrow as `sharpness` grows."""
    torch.manual_seed(seed)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 32), nn.Tanh(), nn.Linear(32, 2 * latent))
    decoder = nn.Sequential(
        nn.Linear(latent, 32), nn.Tanh(), nn.Linear(32, pixels), nn.Unflatten(1, (1, 4, pixels // 4))
    )
    with torch.no_grad():
        decoder[0].weight.mul_(2)
        decoder[2].weight.mul_(sharpness * 3)
    shape = (1, 4, pixels // 4)
    return VAE(encoder, decoder, latent=latent, event_shape=shape, posterior=Diagonal()).eval()


def toy_images(vae: VAE, n: int, seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    return vae.sample(n)


def narrow_model(scale: float, pixels: int = 60) -> LatentModel:
    """A linear model whose posteriors have standard deviation `scale` along both axes: p(x|z) = N(A z, σ²), AᵀA = I."""
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(pixels, 2, dtype=torch.float64))[0]
    sigma = scale / (1 - scale**2) ** 0.5

    def decoder(z: Tensor) -> Distribution:
        mean = z.double() @ basis.T
        return Independent(Normal(mean, torch.full_like(mean, sigma)), 1)

    return LatentModel(decoder, standard_normal(2))


class FoldedModel:
    """A decoder with a kink, in a rotated frame: x = (|u₀|, u₁) + noise of scales (narrow, wide), u = Rᵀz.

    Posteriors are ridges across the lattice, with two modes or, at the kink, half of one; the prior does not notice the
    rotation, so p(x) is a product of two integrals over a line.
    """

    def __init__(self, narrow: float, wide: float, angle: float = 0.5):
        self.scales = torch.tensor([narrow, wide], dtype=torch.float64)
        c, s = np.cos(angle), np.sin(angle)
        self.rotation = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)

    @property
    def model(self) -> LatentModel:
        def decoder(z: Tensor) -> Distribution:
            u = z.double() @ self.rotation
            mean = torch.stack([u[:, 0].relu() + (-u[:, 0]).relu(), u[:, 1]], -1)
            return Independent(Normal(mean, self.scales.expand_as(mean)), 1)

        return LatentModel(decoder, standard_normal(2))

    def truth(self, x: Tensor) -> Tensor:
        """log p(x): for u₀ both halves are Gaussian integrals cut off at the kink."""
        cut, whole = (1 + self.scales.square()).sqrt()
        place, spread = x[:, 0] / cut.square(), self.scales[0] / cut
        half = torch.distributions.Normal(0.0, 1.0).cdf(place / spread)
        first = Normal(torch.zeros((), dtype=torch.float64), cut).log_prob(x[:, 0]) + (2 * half).log()
        return first + Normal(torch.zeros((), dtype=torch.float64), whole).log_prob(x[:, 1])


def kinked_vae(pixels: int = 64, sharpness: float = 1.0, seed: int = 0) -> VAE:
    """A random ReLU Bernoulli VAE of two hidden layers: its log-densities have kinks everywhere."""
    torch.manual_seed(seed)
    shape = (1, 8, pixels // 8)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 4))
    decoder = nn.Sequential(nn.Linear(2, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, pixels))
    with torch.no_grad():
        decoder[0].weight.mul_(4)
        decoder[2].weight.mul_(4)
        decoder[4].weight.mul_(4 * sharpness)
    decoder.append(nn.Unflatten(1, shape))
    return VAE(encoder, decoder, latent=2, event_shape=shape, posterior=Diagonal()).eval()


def conditional(network: nn.Module, latent: int, shape: tuple[int, ...]) -> Conditional:
    return Conditional(network, Bernoulli(), event_shape=shape, condition_shape=(latent,))
