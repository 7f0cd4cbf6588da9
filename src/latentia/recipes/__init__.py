"""Recipes: one class for each kind of experiment."""

from latentia.recipes.demonstration import demonstrate
from latentia.recipes.gan import GANRecipe
from latentia.recipes.recipe import Recipe
from latentia.recipes.run import Run, load, train
from latentia.recipes.vae import VAERecipe

__all__ = ["GANRecipe", "Recipe", "Run", "VAERecipe", "demonstrate", "load", "train"]
