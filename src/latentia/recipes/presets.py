"""Recipes with names: the GAN that finds all modes, and the models of the demonstration."""

from __future__ import annotations

__all__ = ["demonstrate", "mode_covering_gan"]

from collections.abc import Iterator
from pathlib import Path

from latentia.data import MNIST5k, Ring, ToyDistribution
from latentia.networks import MLP, Fourier
from latentia.objectives import R1R2, Relativistic
from latentia.recipes.gan import GANRecipe
from latentia.recipes.run import Run
from latentia.recipes.train import train
from latentia.recipes.vae import VAERecipe
from latentia.training import Adam, Cosine, OneCycle


def mode_covering_gan(data: ToyDistribution | str | None = None, *, epochs: int = 16, seed: int = 0) -> GANRecipe:
    """A GAN that finds all modes of a mixture in the plane, in equal shares and with samples close to them.

    Relativistic pairing with R1 and R2 (Huang et al. 2024). γ starts large, when a smooth discriminator moves mass from
    mode to mode, and decreases by a factor of 1 000, so that in the end the discriminator resolves the width of the
    modes. It is in units of the data's mean variance per coordinate, so that one recipe fits every scale. The command
    for the grid differs from that for the ring in data=grid, epochs=16, penalty.gamma=2.4 and penalty.final=2.4e-3:

        latentia train gan data=ring latent=2 epochs=12 ema=0.99 loss=relativistic \\
            network=fourier network.activation=relu \\
            penalty=r1r2 penalty.gamma=0.15 penalty.final=1.5e-4 \\
            generator_optimizer.lr=1e-3 generator_optimizer.beta1=0 generator_optimizer.beta2=0.99 \\
            generator_optimizer.schedule=cosine generator_optimizer.schedule.final=0.02 \\
            discriminator_optimizer.lr=1e-3 discriminator_optimizer.beta1=0 discriminator_optimizer.beta2=0.99 \\
            discriminator_optimizer.schedule=cosine discriminator_optimizer.schedule.final=0.02

    Results, as the mean of seeds 0 to 4 with its standard error, from 2 500 samples a seed, five seeds at once in about
    four minutes; a perfect model has 98.89 % of high quality and a reverse KL of 0.0015 on the ring and 0.0048 on the
    grid:

    * ring, 12 epochs: 8 of 8 modes on every seed, 97.77 ± 0.20 % of high quality, reverse KL 0.0093 ± 0.0010;
    * grid, 16 epochs: 25 of 25 modes on every seed, 96.98 ± 0.22 %, reverse KL 0.0117 ± 0.0019.

    The modes come out too narrow, at 0.82 ± 0.01 of their width on both (`modes/spread`).

    Args:
        data: the distribution, or its name, such as "grid"; `Ring()` if not given.
        epochs: of 1 000 steps.
        seed: of the run.

    Raises:
        ConfigurationError: for an unknown name.
    """
    toy = Ring() if data is None else ToyDistribution.parse(data)
    variance = toy.distribution().variance.mean().item()
    optimizer = Adam(lr=1e-3, beta1=0.0, beta2=0.99, schedule=Cosine(final=0.02))
    return GANRecipe(
        data=toy,
        latent=2,
        network=Fourier(hidden=(128, 128, 128), activation="relu", features=64, scale=3.0),
        loss=Relativistic(),
        penalty=R1R2(gamma=0.3 * variance, final=3e-4 * variance),
        generator_optimizer=optimizer,
        discriminator_optimizer=optimizer,
        batch_size=128,
        ema=0.99,
        epochs=epochs,
        seed=seed,
        diagnostics_every=max(1, epochs // 4),
        checkpoint_every=max(1, epochs // 4),
        record_every=500,
    )


def demonstrate(out: Path) -> Iterator[Run]:
    """Train a VAE and a GAN on 5 000 MNIST digits in folders of `out`; a finished run there is not trained again."""
    for recipe, path in ((_digits_vae(), out / "vae"), (_digits_gan(), out / "gan")):
        yield train(recipe, path, resume=(path / "recipe.yaml").exists())


def _digits_vae() -> VAERecipe:
    """A VAE with z ∈ R² on 28×28 digits, dynamically binarized."""
    return VAERecipe(
        data=MNIST5k(binarize="dynamic"),
        network=MLP(hidden=(512, 512, 512)),
        optimizer=Adam(lr=2.5e-3, schedule=OneCycle()),
        batch_size=100,
        epochs=120,
        validate_every=5,
        checkpoint_every=40,
    )


def _digits_gan() -> GANRecipe:
    """A class-conditional GAN on the gray digits: relativistic pairing with both zero-centered penalties."""
    optimizer = Adam(lr=1e-3, beta1=0.0, beta2=0.99, schedule=Cosine())
    return GANRecipe(
        data=MNIST5k(),
        latent=16,
        conditional=True,
        network=MLP(hidden=(512, 256), activation="leaky-relu"),
        loss=Relativistic(),
        penalty=R1R2(gamma=0.03, every=2),
        generator_optimizer=optimizer,
        discriminator_optimizer=optimizer,
        ema=0.99,
        batch_size=64,
        epochs=80,
        snapshots=(1, 3, 10, 30, 80),
        diagnostics_every=20,
        checkpoint_every=20,
        fresh_steps=0,
    )
