"""Recipes: one class for each kind of experiment."""

from latentia.recipes.codes import Codes
from latentia.recipes.conditional_vae import ConditionalVAERecipe
from latentia.recipes.extending import resume
from latentia.recipes.gan import GANRecipe
from latentia.recipes.hybrids import AdversarialAutoencoderRecipe, BiGANRecipe, VAEGANRecipe
from latentia.recipes.m2 import M2Recipe
from latentia.recipes.presets import demonstrate, mode_covering_gan
from latentia.recipes.recipe import Recipe
from latentia.recipes.run import Run, load
from latentia.recipes.train import mean_over_seeds, train, train_seeds
from latentia.recipes.vae import VAERecipe

__all__ = [
    "AdversarialAutoencoderRecipe",
    "BiGANRecipe",
    "Codes",
    "ConditionalVAERecipe",
    "GANRecipe",
    "M2Recipe",
    "Recipe",
    "Run",
    "VAEGANRecipe",
    "VAERecipe",
    "demonstrate",
    "load",
    "mean_over_seeds",
    "mode_covering_gan",
    "resume",
    "train",
    "train_seeds",
]
