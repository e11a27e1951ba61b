"""The JSON schema that editors get agrees with the loader."""

import json
import operator
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from g2sd_deploy.recipe import bundled_recipes, load_recipe, recipe_schema
from g2sd_deploy.settings import Recipe

SCHEMA = recipe_schema()
DEFS = SCHEMA["$defs"]


def test_the_schema_is_a_json_schema_that_knows_every_setting() -> None:
    schema = json.loads(json.dumps(SCHEMA))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    whole, derived = schema["$defs"]["Recipe"], schema["$defs"]["RecipeChanges"]
    assert set(whole["properties"]) == set(Recipe.model_fields)
    assert set(derived["properties"]) == {*Recipe.model_fields, "base"}
    assert (whole["required"], derived["required"]) == (["name", "data"], ["base", "name", "description"])
    assert schema["$defs"]["DataSettings"]["properties"]["num_channels"]["enum"] == [1, 3]


@pytest.mark.parametrize("group", DEFS.values(), ids=DEFS)
def test_every_group_is_closed_and_every_setting_described(group: dict[str, Any]) -> None:
    assert (group["type"], group["additionalProperties"]) == ("object", False)
    assert [name for name, setting in group["properties"].items() if not setting.get("description")] == []


@pytest.mark.parametrize("path", bundled_recipes(), ids=lambda path: path.stem)
def test_an_editor_accepts_every_recipe_that_ships(path: Path) -> None:
    assert allows(SCHEMA, YAML(typ="safe", pure=True).load(path), DEFS)


def allows(schema: dict[str, Any], value: Any, defs: dict[str, Any]) -> bool:
    """What JSON Schema 2020-12 says of a value, for the keywords that our schema has."""
    types = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None)}
    ok = True
    for keyword, wanted in schema.items():
        match keyword:
            case "type":
                ok &= isinstance(value, types[wanted]) and (wanted == "boolean" or not isinstance(value, bool))
            case "$ref":
                ok &= allows(defs[wanted.rpartition("/")[2]], value, defs)
            case "anyOf":
                ok &= any(allows(one, value, defs) for one in wanted)
            case "oneOf":
                ok &= sum(allows(one, value, defs) for one in wanted) == 1
            case "if":
                ok &= allows(schema["then" if allows(wanted, value, defs) else "else"], value, defs)
            case "enum":
                ok &= value in wanted
            case "const":
                ok &= value == wanted
            case "pattern" if isinstance(value, str):
                ok &= re.search(wanted, value) is not None
            case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum" | "multipleOf" if isinstance(value, int | float):
                ok &= COMPARISONS[keyword](value, wanted)
            case "minItems" | "maxItems" if isinstance(value, list):
                ok &= len(value) >= wanted if keyword == "minItems" else len(value) <= wanted
            case "items" if isinstance(value, list):
                ok &= all(allows(wanted, item, defs) for item in value)
            case "prefixItems" if isinstance(value, list):
                ok &= all(allows(one, item, defs) for one, item in zip(wanted, value, strict=False))
            case "required" if isinstance(value, dict):
                ok &= set(wanted) <= value.keys()
            case "additionalProperties" if isinstance(value, dict) and wanted is False:
                ok &= value.keys() <= schema["properties"].keys()
            case "properties" if isinstance(value, dict):
                ok &= all(allows(wanted[name], item, defs) for name, item in value.items() if name in wanted)
            case "$schema" | "$defs" | "default" | "description" | "title" | "discriminator" | "then" | "else":
                pass
            case other:
                assert other in KEYWORDS, f"a keyword that this test does not know: {other}"
    return ok


COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "minimum": operator.ge,
    "exclusiveMinimum": operator.gt,
    "maximum": operator.le,
    "exclusiveMaximum": operator.lt,
    "multipleOf": lambda value, step: value % step == 0,
}
# These say nothing about a value of another type.
KEYWORDS = {*COMPARISONS, "pattern", "minItems", "maxItems", "items", "prefixItems", "required", "additionalProperties", "properties"}


AGREEMENT = [
    ("seed=1", True),
    ("seed=-1", False),
    ("seed=a", False),
    ("sed=1", False),
    ("data.num_channels=2", False),
    ("data.mean=[0.5]", True),
    ("data.mean=0.5", False),
    ("generic.mask_ratio=1.5", False),
    ("generic.epochs=0", False),
    ("generic.betas=[0.9, 0.99]", True),
    ("generic.betas=[0.9]", False),
    ("generic.decoder.width=6", False),
    ("generic.method=g2ds", False),
    ("specific.method=nkd", True),
    ("specific={method: custom, epochs: 1, batch_size: 8, base_lr: 1e-3, loss: 'mine:loss', options: {anything: [1, two]}}", True),
    ("specific={method: custom, epochs: 1, batch_size: 8, base_lr: 1e-3, loss: mine}", False),
    ("specific={method: soft, epochs: 1, batch_size: 8, base_lr: 1e-3, temperature: 2}", True),
    ("specific={method: hard, epochs: 1, batch_size: 8, base_lr: 1e-3, temperature: 2}", False),
    ("evaluate={corruptions: {names: [fog]}}", True),
    ("evaluate={corruptions: {names: [fogg]}}", False),
    ("evaluate={corruptions: {names: []}}", False),
    ("evaluate={corruptions: {names: [fog], severities: [6]}}", False),
]


def with_change(text: str, override: str) -> dict[str, Any]:
    """What a file says, with one key set."""
    keys, _, value = override.partition("=")
    *groups, last = keys.split(".")
    yaml = YAML(typ="safe", pure=True)
    values: dict[str, Any] = yaml.load(text)
    group = values
    for name in groups:
        group = group.setdefault(name, {})
    group[last] = yaml.load(value)
    return values


@pytest.mark.parametrize(("override", "accepted"), AGREEMENT)
def test_the_schema_and_the_loader_agree(
    override: str, accepted: bool, recipe_text: str, write: Callable[..., Path], refusal: Callable[..., str]
) -> None:
    assert allows(SCHEMA, with_change(recipe_text, override), DEFS) == accepted
    if accepted:
        load_recipe(write(), [override])
    else:
        refusal(write(), override)


DERIVED = "base: tiny\nname: smaller\ndescription: Smaller.\n"


@pytest.mark.parametrize(
    ("override", "accepted"),
    [case for case in AGREEMENT if "{" not in case[0]]
    + [
        ("generic.teacher_decoder_block=2", True),
        ("generic={method: mae, teacher_decoder_block: null}", True),
        ("specific.token=null", True),
        ("specific={token: deit}", True),
        ("specific={token: beit}", False),
        ("specific={tokn: deit}", False),
        ("student=null", True),
        ("description=null", False),
        ("base=null", False),
    ],
)
def test_a_recipe_with_a_base_needs_no_more_than_its_changes(override: str, accepted: bool) -> None:
    assert allows(SCHEMA, with_change(DERIVED, override), DEFS) == accepted


@pytest.mark.parametrize("missing", ["base", "name", "description"])
def test_a_recipe_with_a_base_says_its_own_name(missing: str) -> None:
    values = YAML(typ="safe", pure=True).load(DERIVED)
    del values[missing]
    assert not allows(SCHEMA, values, DEFS)
