"""The only reader of recipes: a YAML file, its base and `--set` overrides become one frozen `Recipe`, or one clear error."""

from g2sd_deploy.recipe.files import bundled_recipes, copy_recipe, find_recipe, load_recipe, recipe_folder, resolved_text
from g2sd_deploy.recipe.schema import recipe_schema
from g2sd_deploy.recipe.shrinking import with_values
from g2sd_deploy.recipe.smoke import shrink_for_smoke

__all__ = [
    "bundled_recipes",
    "copy_recipe",
    "find_recipe",
    "load_recipe",
    "recipe_folder",
    "recipe_schema",
    "resolved_text",
    "shrink_for_smoke",
    "with_values",
]
