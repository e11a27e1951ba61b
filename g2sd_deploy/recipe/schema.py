"""JSON schema of a recipe, for editors."""

from collections.abc import Sequence
from typing import Any

from g2sd_deploy.recipe.files import BASE, OWN_KEYS
from g2sd_deploy.settings import Recipe

Schema = dict[str, Any]
_DEFS = "#/$defs/"
_WHOLE, _CHANGES = Recipe.__name__, "Changes"


def recipe_schema() -> Schema:
    """JSON schema of a recipe file: a whole recipe or, where it names a base, the changes of one."""
    whole = Recipe.model_json_schema()
    defs: dict[str, Schema] = whole.pop("$defs")
    changes = {name + _CHANGES: _changes_of([group], defs) for name, group in defs.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": _WHOLE,
        "type": "object",
        "if": {"required": [BASE]},
        "then": {"$ref": _DEFS + _WHOLE + _CHANGES},
        "else": {"$ref": _DEFS + _WHOLE},
        "$defs": defs | changes | {_WHOLE: whole, _WHOLE + _CHANGES: _derived(whole, defs)},
    }


def _derived(whole: Schema, defs: dict[str, Schema]) -> Schema:
    """What a recipe with a base may say."""
    schema = _changes_of([whole], defs)
    schema["description"] = "What differs from the base; null takes out what the base has."
    schema["required"] = [BASE, *OWN_KEYS]
    named = {"type": "string", "description": "The recipe that this one changes: a file beside it, a path, or the name of a bundled one."}
    schema["properties"] |= {BASE: named, **{key: whole["properties"][key] for key in OWN_KEYS}}
    return schema


def _changes_of(groups: Sequence[Schema], defs: dict[str, Schema]) -> Schema:
    """A group in which every key may be left out or be null.

    Several groups are the methods of one section: which of them the base has is not known here, so the keys of all are allowed.
    """
    found: dict[str, list[Schema]] = {}
    for group in groups:
        for key, schema in group["properties"].items():
            found.setdefault(key, []).append(_change_of(schema, defs))
    properties = {key: {"anyOf": _choices(schemas), "description": schemas[0]["description"]} for key, schemas in found.items()}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _choices(schemas: list[Schema]) -> list[Schema]:
    """What any of the schemas allows, and null."""
    bare = [{name: value for name, value in schema.items() if name not in ("description", "title")} for schema in schemas]
    choices = [choice for schema in bare for choice in (schema["anyOf"] if schema.keys() == {"anyOf"} else [schema])] + [{"type": "null"}]
    return [choice for i, choice in enumerate(choices) if choice not in choices[:i]]


def _change_of(schema: Schema, defs: dict[str, Schema]) -> Schema:
    """The value of one key; a default is the base's business."""
    match schema:
        case {"$ref": str(ref)}:
            changed: Schema = {"$ref": ref + _CHANGES}
        case {"oneOf": list(methods)}:
            changed = _changes_of([defs[method["$ref"].removeprefix(_DEFS)] for method in methods], defs)
        case {"anyOf": list(choices)}:
            changed = {"anyOf": [_change_of(choice, defs) for choice in choices]}
        case _:
            return {name: value for name, value in schema.items() if name != "default"}
    return changed | ({"description": schema["description"]} if "description" in schema else {})
