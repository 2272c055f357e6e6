"""Recipes: a run written down, as typed settings from YAML and dotted overrides. Nothing is built here."""

from maotune.recipe.load import load_recipe
from maotune.recipe.schema import Recipe, RecipeError

__all__ = ["Recipe", "RecipeError", "load_recipe"]
