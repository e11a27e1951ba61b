"""What is wrong with a recipe's settings, in one line that says where it stands and what to write instead."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from g2sd_deploy.recipe.written import KeyPath
from g2sd_deploy.settings import Recipe


def explain(
    error: ValidationError, path: Path, places: dict[KeyPath, str], given: dict[KeyPath, str], root: type[BaseModel] = Recipe
) -> str:
    """One line for the first problem; the count of the others.

    Args:
        error: What pydantic found.
        path: The recipe, or another file of settings.
        places: `file:line` of every key.
        given: Overrides by their keys.
        root: The settings that the file holds.
    """
    problems = error.errors(include_url=False)
    problem = min(problems, key=lambda p: p["type"] != "extra_forbidden")
    keys, group = _located(problem, root)
    message = f"{_where(path, keys, places, given)}: {_say(problem, keys, group)}"
    more = len(problems) - 1
    return message + (f" (and {more} more problem{'s' if more > 1 else ''})" if more else "")


def _located(problem: Any, root: type[BaseModel]) -> tuple[KeyPath, type[BaseModel] | None]:
    """Keys of the problem as a file writes them, and the group of settings that the last of them belongs to.

    Pydantic puts the chosen method between a section and its keys, which no file has: generic, g2sd, decoder.
    """
    keys: list[str | int] = []
    owner: type[BaseModel] | None = None
    group: type[BaseModel] | None = root
    methods: dict[str, type[BaseModel]] = {}
    for part in problem["loc"]:
        if methods:
            group, methods = methods[str(part)], {}
            continue
        keys.append(part)
        owner = group
        models = _models_at(group, str(part))
        group, methods = (models[0], {}) if len(models) == 1 else (None, _by_method(models))
    if problem["type"] == "union_tag_invalid":
        return (*keys, "method"), None
    return tuple(keys), owner


def _models_at(group: type[BaseModel] | None, key: str) -> list[type[BaseModel]]:
    """Groups of settings that a key may hold."""
    field = group.model_fields.get(key) if group is not None else None
    return _models_in(field.annotation) if field is not None else []


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _by_method(models: Sequence[type[BaseModel]]) -> dict[str, type[BaseModel]]:
    return {get_args(model.model_fields["method"].annotation)[0]: model for model in models}


def _where(path: Path, keys: KeyPath, places: dict[KeyPath, str], given: dict[KeyPath, str]) -> str:
    for override_keys, text in given.items():
        if keys and (keys[: len(override_keys)] == override_keys or override_keys[: len(keys)] == keys):
            return f"--set {text}"
    return next((places[keys[:length]] for length in range(len(keys), 0, -1) if keys[:length] in places), str(path))


def _say(problem: Any, keys: KeyPath, group: type[BaseModel] | None) -> str:
    name = ".".join(str(k) for k in keys)
    match problem["type"]:
        case "extra_forbidden":
            return f"unknown key {name}{_nearest(keys, group)}"
        case "missing":
            return f"the key {name} is missing"
        case "value_error":
            text = str(problem["ctx"]["error"])
            return f"{name}: {text}" if name else text
        case "union_tag_not_found":
            near = difflib.get_close_matches("method", map(str, problem["input"]), 1)
            hint = f" (is {name}.{near[0]} meant for it?)" if near else ""
            return f"the key {name}.method is missing{hint}; wanted one of {_methods_of(keys)}"
        case "union_tag_invalid":
            near = difflib.get_close_matches(str(problem["ctx"]["tag"]), _methods_of(keys[:-1]).split(", "), 1)
            hint = f"did you mean {near[0]}? The methods are" if near else "wanted one of"
            return f"{name} is {problem['input']['method']!r}; {hint} {_methods_of(keys[:-1])}"
        case "model_type" | "model_attributes_type":
            return f"{name} is {problem['input']!r}; wanted a group of settings (key: value)"
        case _:
            return f"{name} is {problem['input']!r}; {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _methods_of(keys: KeyPath) -> str:
    return ", ".join(_by_method(_models_at(Recipe, str(keys[0]))))


def _nearest(keys: KeyPath, group: type[BaseModel] | None) -> str:
    """The valid key nearest to a misspelt one, and the valid keys where none is near."""
    if keys == ("base",):
        return "; a base is named in the recipe's file"
    valid = sorted(group.model_fields) if group else []
    near = difflib.get_close_matches(str(keys[-1]), [*valid, "base"] if group is Recipe else valid, 1, cutoff=0.6)
    if near:
        return f"; did you mean {'.'.join(map(str, (*keys[:-1], near[0])))}?"
    return f"; valid keys here: {', '.join(valid)}"
