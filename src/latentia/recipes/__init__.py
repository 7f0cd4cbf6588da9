"""Recipes: one class for each kind of experiment."""

from latentia.recipes.adversarial_autoencoder import AdversarialAutoencoderRecipe
from latentia.recipes.bigan import BiGAN, BiGANRecipe
from latentia.recipes.demonstration import demonstrate
from latentia.recipes.gan import GANRecipe
from latentia.recipes.gan_presets import mode_covering_gan
from latentia.recipes.recipe import Recipe
from latentia.recipes.run import Run, load, train
from latentia.recipes.vae import VAERecipe

__all__ = [
    "AdversarialAutoencoderRecipe",
    "BiGAN",
    "BiGANRecipe",
    "GANRecipe",
    "Recipe",
    "Run",
    "VAERecipe",
    "demonstrate",
    "load",
    "mode_covering_gan",
    "train",
]
