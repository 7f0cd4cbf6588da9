"""The demonstration: models of the digits that scikit-learn carries, quick enough to watch."""

from __future__ import annotations

__all__ = ["demonstrate"]

from collections.abc import Iterator
from pathlib import Path

from latentia.data import Digits
from latentia.networks import MLP
from latentia.objectives import R1R2, Relativistic
from latentia.recipes.gan import GANRecipe
from latentia.recipes.run import Run, train
from latentia.recipes.vae import VAERecipe
from latentia.training import Adam, Cosine, OneCycle


def digits_vae() -> VAERecipe:
    """A VAE with z ∈ R² on 8×8 digits, dynamically binarized."""
    return VAERecipe(
        data=Digits(binarize="dynamic"),
        network=MLP(hidden=(256, 256)),
        optimizer=Adam(lr=2e-3, schedule=OneCycle()),
        batch_size=64,
        epochs=200,
        validate_every=5,
        checkpoint_every=50,
    )


def digits_gan() -> GANRecipe:
    """A GAN on the same digits in gray: a relativistic pair with both zero-centered penalties."""
    optimizer = Adam(lr=1e-3, beta1=0.0, beta2=0.99, schedule=Cosine())
    return GANRecipe(
        data=Digits(),
        latent=16,
        network=MLP(hidden=(256, 256), activation="leaky-relu"),
        loss=Relativistic(),
        penalty=R1R2(gamma=0.5),
        generator_optimizer=optimizer,
        discriminator_optimizer=optimizer,
        ema=0.99,
        batch_size=64,
        epochs=120,
        snapshots=(10, 30, 50, 90),
        diagnostics_every=10,
        checkpoint_every=50,
    )


def demonstrate(out: Path) -> Iterator[Run]:
    """Train the demonstration's models in folders of `out`; a model that is there already is not trained again."""
    yield train(digits_vae(), out / "vae", resume=True)
    yield train(digits_gan(), out / "gan", resume=True)
