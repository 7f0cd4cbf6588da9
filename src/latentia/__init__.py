"""Latentia: a laboratory for latent-variable generative models.

    run = latentia.train(latentia.VAERecipe(epochs=20))
    latentia.evaluate(run, likelihood="exact")
    vae = latentia.load(run.path)

Every function of the command line is here, and the sub-packages: `latentia.objectives.IWAE`, `latentia.data.MNIST`.
Names are imported when they are first used, so that `import latentia` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentia import data as data
    from latentia import diagnostics as diagnostics
    from latentia import distributions as distributions
    from latentia import divergences as divergences
    from latentia import likelihood as likelihood
    from latentia import metrics as metrics
    from latentia import models as models
    from latentia import networks as networks
    from latentia import objectives as objectives
    from latentia import recipes as recipes
    from latentia import reports as reports
    from latentia import theory as theory
    from latentia import training as training
    from latentia.estimate import Estimate
    from latentia.interface import (
        compare,
        distance,
        encode,
        evaluate,
        explore,
        export,
        impute,
        push,
        reconstruct,
        report,
        sample,
        score,
        verify,
    )
    from latentia.models import GAN, VAE
    from latentia.recipes import GANRecipe, Run, VAERecipe, load, resume, train, train_seeds
    from latentia.sharing import pull
    from latentia.sweeps import sweep

_HOMES = {
    "estimate": ("Estimate",),
    "interface": (
        "compare",
        "distance",
        "encode",
        "evaluate",
        "explore",
        "export",
        "impute",
        "push",
        "reconstruct",
        "report",
        "sample",
        "score",
        "verify",
    ),
    "models": ("GAN", "VAE"),
    "sharing": ("pull",),
    "sweeps": ("sweep",),
    "recipes": ("GANRecipe", "Run", "VAERecipe", "load", "resume", "train", "train_seeds"),
}
_PACKAGES = (
    "data",
    "diagnostics",
    "distributions",
    "divergences",
    "likelihood",
    "metrics",
    "models",
    "networks",
    "objectives",
    "recipes",
    "reports",
    "theory",
    "training",
)

__all__ = [
    "GAN",
    "VAE",
    "Estimate",
    "GANRecipe",
    "Run",
    "VAERecipe",
    "compare",
    "distance",
    "encode",
    "evaluate",
    "explore",
    "export",
    "impute",
    "load",
    "pull",
    "push",
    "reconstruct",
    "report",
    "resume",
    "sample",
    "score",
    "sweep",
    "train",
    "train_seeds",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"latentia.{name}")
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"latentia.{module}"), name)
    raise AttributeError(f"module 'latentia' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_PACKAGES])
