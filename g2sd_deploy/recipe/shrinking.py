"""A recipe with other values in some of its settings."""

import json
from collections.abc import Mapping
from typing import Any

from g2sd_deploy.settings import Recipe


def with_values(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The same recipe with other values; sections and settings that it does not have are passed over.

    Args:
        recipe: Complete and valid.
        changes: Nested as the recipe is: `{"generic": {"epochs": 1.0}}`.
    """
    values = recipe.model_dump(mode="json")
    _change(values, changes)
    return Recipe.model_validate_json(json.dumps(values))


def _change(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        if name not in values:
            continue
        if not isinstance(value, Mapping):
            values[name] = value
        elif values[name] is not None:
            _change(values[name], value)
