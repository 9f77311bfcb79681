"""The experiments of the papers as configurations: ``fit --config recipe:renda2020/resnet20``."""

from lightning_lottery.vision.recipes.catalogue import PREFIX, Recipe, recipe, recipes, with_files

__all__ = ["PREFIX", "Recipe", "recipe", "recipes", "with_files"]
