"""Latentia: a laboratory for latent-variable generative models.

    run = latentia.train(latentia.VAERecipe(epochs=20))
    vae = latentia.load(run.path)

The names below are imported when they are first used, so that `import latentia` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentia.estimate import Estimate as Estimate
    from latentia.models import GAN as GAN
    from latentia.models import VAE as VAE
    from latentia.recipes import GANRecipe as GANRecipe
    from latentia.recipes import Run as Run
    from latentia.recipes import VAERecipe as VAERecipe
    from latentia.recipes import load as load
    from latentia.recipes import train as train
    from latentia.recipes import train_seeds as train_seeds

_HOMES = {
    "Estimate": "latentia.estimate",
    "GAN": "latentia.models",
    "GANRecipe": "latentia.recipes",
    "Run": "latentia.recipes",
    "VAE": "latentia.models",
    "VAERecipe": "latentia.recipes",
    "load": "latentia.recipes",
    "train": "latentia.recipes",
    "train_seeds": "latentia.recipes",
}

__all__ = ["GAN", "VAE", "Estimate", "GANRecipe", "Run", "VAERecipe", "load", "train", "train_seeds"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'latentia' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
