"""VAEs against optima and densities that are known: PCA, factor analysis, overdispersed counts, toy distributions.

    python benchmarks/known_optima.py [pca] [factors] [counts] [--seeds 0 1 2]
    python benchmarks/known_optima.py toys --seeds 0 1 2 3 4

*pca*: a linear VAE with one Gaussian scale is probabilistic PCA. The largest log-likelihood of the training data is
scikit-learn's `PCA.score` (Tipping and Bishop 1999, eq. 7; Lucas et al. 2019 for the VAE).
*factors*: with a scale for each column it is factor analysis; `FactorAnalysis.score` after its own convergence.
*counts*: data from a negative binomial distribution. The best Poisson and the best negative binomial distribution of
columns that do not depend on each other have known expected log-probabilities, and so has their difference.
*toys*: a VAE and a GAN on ring, grid, moons and checkerboard, with KL(data, model) and KL(model, data) by quadrature.
G(z) of a GAN has no density on its own; Gaussian noise is added to it, whose scale is halved, down to 0.04, as long as
that makes 100 further points more likely.

Everything is in nats per example. The log-likelihood of a linear Gaussian model is that of N(b, W Wᵀ + Ψ), exactly.
"""

from __future__ import annotations

import argparse
import itertools
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from sklearn.decomposition import PCA, FactorAnalysis
from torch import Tensor

import latentia
from latentia import GANRecipe, VAERecipe
from latentia.data import BreastCancer, Checkerboard, Grid, Moons, Ring, ToyDistribution, Wine
from latentia.distributions import Gaussian, GaussianLearnedScale, GaussianPerColumn, NegativeBinomial, Poisson
from latentia.estimate import Estimate
from latentia.likelihood import LatentModel, divergences_from_known, exact_log_likelihood
from latentia.models import GAN, VAE
from latentia.networks import MLP, Custom
from latentia.objectives import R1R2, Relativistic
from latentia.training import Adam, Cosine, OneCycle

LINEAR = MLP(hidden=())


class Constant(torch.nn.Module):
    """A decoder that does not depend on z: the same log-means for all examples."""

    def __init__(self, width: int):
        super().__init__()
        self.numbers = torch.nn.Parameter(torch.zeros(width))

    def forward(self, z: Tensor) -> Tensor:
        """(B, d) → (B, width)."""
        return self.numbers.expand(len(z), -1)


def linear_log_likelihood(vae: VAE, x: Tensor) -> float:
    """Mean log p(x) of a VAE whose decoder is affine in z, in the user's units."""
    vae = vae.double()
    with torch.no_grad():
        basis = torch.cat([torch.zeros(1, vae.latent), torch.eye(vae.latent)]).double()
        decoded = vae.decode(basis)
        mean, scale = decoded.mean, decoded.stddev[0]
        weights = mean[1:] - mean[0]
        covariance = weights.T @ weights + torch.diag(scale.square())
        given = torch.distributions.MultivariateNormal(mean[0], covariance)
        return given.log_prob(x.double()).mean().item()


def train(x_source: BreastCancer | Wine, likelihood, latent: int, seed: int, epochs: int, out: Path):
    """A linear VAE, trained with all training examples in each batch."""
    count = len(x_source.load().train)
    recipe = VAERecipe(
        data=x_source,
        latent=latent,
        network=LINEAR,
        likelihood=likelihood,
        batch_size=count,
        epochs=epochs,
        validate_every=epochs,
        checkpoint_every=epochs,
        record_every=epochs,
        ema=0.999,
        seed=seed,
        optimizer=Adam(lr=0.02, schedule=Cosine(final=1e-3)),
    )
    return latentia.train(recipe, out, quiet=True)


def linear(name: str, seeds: list[int], epochs: int) -> None:
    """Linear VAEs against scikit-learn's optimum, on standardized columns, reported in the table's units."""
    per_column = name == "factors"
    latents = (2, 3) if per_column else (2, 5)  # factor analysis of five factors does not converge in scikit-learn
    cases = [(Wine(validation=0), latent) for latent in latents]
    for source, latent in [*cases, *([] if per_column else [(BreastCancer(validation=0), 5)])]:
        x = source.load().train.x
        spread = x.std(0, correction=0)
        u = ((x - x.mean(0)) / spread).numpy()
        if per_column:
            oracle = FactorAnalysis(latent, tol=1e-10, max_iter=100_000, svd_method="lapack")
        else:
            oracle = PCA(latent, svd_solver="full")
        optimum = oracle.fit(u).score(u) - spread.log().sum().item()
        if not per_column:  # scikit-learn divides the covariance by N − 1; the optimum divides it by N
            eigenvalues = np.linalg.eigvalsh(np.cov(u.T, bias=True))[::-1]
            rest = eigenvalues[latent:].mean()
            d = len(eigenvalues)
            value = -0.5 * (
                d * math.log(2 * math.pi) + np.log(eigenvalues[:latent]).sum() + (d - latent) * math.log(rest) + d
            )
            print(f"  PCA.score {optimum:.4f}; with 1/N in place of 1/(N − 1) {value - spread.log().sum().item():.4f}")
            optimum = value - spread.log().sum().item()
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                likelihood = GaussianPerColumn() if per_column else GaussianLearnedScale()
                run = train(source, likelihood, latent, seed, epochs, Path(folder) / "run")
                reached = linear_log_likelihood(run.model, x)
                with torch.no_grad():
                    torch.manual_seed(0)
                    bound = run.model.elbo(x.repeat(20, 1).double()).mean().item()
            print(
                f"{name}: {source.type_name}, z of {latent}, seed {seed}: log p(x) {reached:.4f}, "
                f"ELBO {bound:.4f}, optimum {optimum:.4f}, difference {optimum - reached:.4f}",
                flush=True,
            )


def counts(seeds: list[int], epochs: int) -> None:
    """Two likelihoods on negative binomial counts of mean 5 and r = 2, in 6 independent columns."""
    d, mean, r = 6, 5.0, 2.0
    levels = np.arange(2000)
    truth = stats.nbinom(r, r / (r + mean))
    probability = truth.pmf(levels)
    best = {
        "negative-binomial": d * float((probability * truth.logpmf(levels)).sum()),
        "poisson": d * float((probability * stats.poisson(mean).logpmf(levels)).sum()),
    }
    margin = best["negative-binomial"] - best["poisson"]
    print(f"counts: exact margin {margin:.4f} nats ({best})")
    for seed in seeds:
        x = truth.rvs((20_000, d), random_state=seed).astype(np.int64)
        reached, known_best = {}, {}
        for likelihood in (NegativeBinomial(), Poisson()):  # z is left out, which a Poisson model would use as a rate
            with tempfile.TemporaryDirectory() as folder:
                recipe = VAERecipe(
                    data=x,
                    latent=1,
                    network=Custom(encoder=torch.nn.Linear(d, 2), decoder=Constant(d)),
                    likelihood=likelihood,
                    batch_size=500,
                    epochs=epochs,
                    optimizer=Adam(lr=5e-3, schedule=Cosine(final=1e-3)),
                    seed=seed,
                )
                run = latentia.train(recipe, Path(folder) / "run", quiet=True)
                x_test = run.test.x
                with torch.no_grad():  # p(x|z) is p(x), as no number depends on z
                    value = run.model.decode(torch.zeros(1, 1)).log_prob(x_test).mean().item()
                known = truth if likelihood.type_name == "negative-binomial" else stats.poisson(mean)
                exact = known.logpmf(x_test.numpy().astype(int)).sum(1).mean()
            reached[likelihood.type_name], known_best[likelihood.type_name] = value, exact
            print(
                f"counts: seed {seed}, {likelihood.type_name}: log p(x) {value:.4f}, known {exact:.4f}",
                flush=True,
            )
        margins = [part["negative-binomial"] - part["poisson"] for part in (reached, known_best)]
        print(f"counts: seed {seed}: margin {margins[0]:.4f}, known on this sample {margins[1]:.4f}", flush=True)


class Generate(torch.nn.Module):
    """z → G(z) in the units of the data."""

    def __init__(self, gan: GAN):
        super().__init__()
        self.gan = gan

    def forward(self, z: Tensor) -> Tensor:
        """(B, d) → (B, D)."""
        return self.gan.generate(z)


def with_noise(gan: GAN, toy: ToyDistribution) -> tuple[LatentModel, float]:
    """G(z) plus Gaussian noise; its scale is halved, down to 0.04, as long as 100 points become more likely."""
    with torch.random.fork_rng():
        torch.manual_seed(123)
        x = toy.distribution().sample((100,))

    def noisy(scale: float) -> LatentModel:
        prior = gan.latent_distribution
        return LatentModel.from_generator(Generate(gan), Gaussian(scale=scale), prior, shape=tuple(x.shape[1:]))

    def score(scale: float) -> float:
        return exact_log_likelihood(noisy(scale), x, 0.05, require=False).values.mean().item()

    scale, best = 0.64, score(0.64)
    while scale > 0.05 and (below := score(scale / 2)) > best:
        scale, best = scale / 2, below
    return noisy(scale), scale


def toys(seeds: list[int], epochs: int) -> None:
    """A VAE and a GAN with z ∈ R² on each of four toy distributions: 1 000 steps an epoch, batches of 256.

    The modes of ring and grid are wider than their defaults, which no model of this budget resolves.
    """
    data: list[ToyDistribution] = [Ring(sigma=0.1), Grid(sigma=0.2), Moons(), Checkerboard()]
    found: dict[tuple[str, str], list[list[Estimate]]] = {}
    for seed, toy, name in itertools.product(seeds, data, ("VAE", "GAN")):
        begun = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            model = latentia.train(toy_recipe(toy, name, seed, epochs), Path(folder) / "run", quiet=True).model
        trained = time.process_time() - begun
        latent, scale = (LatentModel.from_model(model), None) if name == "VAE" else with_noise(model, toy)
        torch.manual_seed(seed)
        estimates = divergences_from_known(toy.distribution(), latent)
        found.setdefault((toy.type_name, name), []).append(estimates)
        values = "; ".join(f"{e.name} {e} ({e.kind})" for e in estimates)
        noise = "" if scale is None else f", noise {scale:.3f}"
        seconds = f"{trained:.0f} + {time.process_time() - begun - trained:.0f} CPU s"
        print(f"seed {seed}, {toy.type_name}, {name}{noise}: {values}; {seconds}", flush=True)
    for (toy, name), of_seeds in found.items():
        rows = torch.tensor([[estimate.value for estimate in each] for each in of_seeds], dtype=torch.float64)
        errors = rows.std(0) / math.sqrt(len(seeds)) if len(seeds) > 1 else torch.full((2,), math.nan)
        cells = [f"{m:.3f} ± {e:.3f}" for m, e in zip(rows.mean(0).tolist(), errors.tolist(), strict=True)]
        print(f"| {toy} | {name} | {' | '.join(cells)} |")


def toy_recipe(toy: ToyDistribution, name: str, seed: int, epochs: int) -> VAERecipe | GANRecipe:
    """Networks of two hidden layers of 64, z ∈ R²."""
    length = {"latent": 2, "batch_size": 256, "epochs": epochs, "seed": seed, "checkpoint_every": epochs}
    if name == "VAE":
        optimizer = Adam(lr=2e-3, schedule=OneCycle())
        return VAERecipe(data=toy, network=MLP(hidden=(64, 64)), optimizer=optimizer, validate_every=epochs, **length)
    optimizer = Adam(lr=1e-3, beta1=0.0)
    return GANRecipe(
        data=toy,
        network=MLP(hidden=(64, 64), activation="leaky-relu"),
        loss=Relativistic(),
        penalty=R1R2(),
        generator_optimizer=optimizer,
        discriminator_optimizer=optimizer,
        fresh_steps=0,
        diagnostics_every=epochs,
        **length,
    )


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["pca", "factors", "counts"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, help="4000; of toys 2")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.what:
        if name == "counts":
            counts(options.seeds, 30)
        elif name == "toys":
            toys(options.seeds, options.epochs or 2)
        else:
            linear(name, options.seeds, options.epochs or 4000)


if __name__ == "__main__":
    main()
