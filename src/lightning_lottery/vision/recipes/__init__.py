"""The experiments of the papers as configurations: ``fit --config recipe:renda2020/resnet20``."""

from lightning_lottery.vision.recipes.catalogue import RECIPE_PREFIX, Recipe, expand_recipes, recipe, recipes

__all__ = ["RECIPE_PREFIX", "Recipe", "expand_recipes", "recipe", "recipes"]
