"""The demonstration: models of the digits that scikit-learn carries, quick enough to watch."""

from __future__ import annotations

__all__ = ["demonstrate"]

from collections.abc import Iterator
from pathlib import Path

from latentia.data import Digits
from latentia.networks import MLP
from latentia.recipes.run import Run, train
from latentia.recipes.vae import VAERecipe
from latentia.training import Adam, OneCycle


def digits_vae() -> VAERecipe:
    """A VAE with z ∈ R² on 8×8 digits, dynamically binarised."""
    return VAERecipe(
        data=Digits(binarise="dynamic"),
        network=MLP(hidden=(256, 256)),
        optimiser=Adam(rate=2e-3, schedule=OneCycle()),
        batch_size=64,
        epochs=200,
        validate_every=5,
        checkpoint_every=50,
    )


def demonstrate(out: Path) -> Iterator[Run]:
    """Train the demonstration's models in folders of `out`; a model that is there already is not trained again."""
    yield train(digits_vae(), out / "vae", resume=True)
