"""Recipes: one class for each kind of experiment."""

from latentia.recipes.adversarial_autoencoder import AdversarialAutoencoderRecipe
from latentia.recipes.bigan import BiGANRecipe
from latentia.recipes.demonstration import demonstrate
from latentia.recipes.gan import GANRecipe
from latentia.recipes.gan_presets import mode_covering_gan
from latentia.recipes.recipe import Recipe
from latentia.recipes.run import Run, load, train
from latentia.recipes.seeds import mean_over_seeds, train_seeds
from latentia.recipes.vae import VAERecipe
from latentia.recipes.vae_gan import VAEGANRecipe

__all__ = [
    "AdversarialAutoencoderRecipe",
    "BiGANRecipe",
    "GANRecipe",
    "Recipe",
    "Run",
    "VAEGANRecipe",
    "VAERecipe",
    "demonstrate",
    "load",
    "mean_over_seeds",
    "mode_covering_gan",
    "train",
    "train_seeds",
]
