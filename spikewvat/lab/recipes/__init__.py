"""A run as data: recipes read from TOML, what they build, and what a run writes."""

from spikewvat.lab.recipes.reading import read_recipe, recipe_from
from spikewvat.lab.recipes.schema import Component, Recipe, Spec

__all__ = ["Component", "Recipe", "Spec", "read_recipe", "recipe_from"]
