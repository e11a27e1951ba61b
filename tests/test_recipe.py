"""Reading recipes: what is accepted, and the one line that each mistake gets."""

import json
import operator
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from g2sd_deploy.errors import UserError
from g2sd_deploy.recipe import bundled_recipes, copy_recipe, find_recipe, load_recipe, recipe_schema, shrink_for_smoke
from g2sd_deploy.settings import Recipe

TEXT = """\
# A comment.
name: tiny
data:
  source: idx
  root: bundled:fashion-mnist
  image_px: 28
  num_channels: 1
  mean: [0.286]
  std: [0.353]
teacher: {masked: m.safetensors, classifier: c.safetensors}
student:
  patch_px: 7
  width: 32
  depth: 2
  heads: 2
generic:
  decoder: {width: 16, depth: 1, heads: 2}
  teacher_decoder_block: 1
  epochs: 1
  batch_size: 32
  base_lr: 3e-4
specific:
  epochs: 0.5
  batch_size: 32
  base_lr: 1e-3
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write the recipe above with replacements; each must be found once."""

    def write_recipe(*replacements: tuple[str, str], text: str = TEXT) -> Path:
        for old, new in replacements:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        path = tmp_path / "tiny.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_recipe


def refusal(path: Path, *overrides: str) -> str:
    """The message, with the file's folder left out; always one line."""
    with pytest.raises(UserError) as caught:
        load_recipe(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{path.parent}/", "")


def test_a_good_recipe_is_read(write: Callable[..., Path]) -> None:
    recipe = load_recipe(write())
    assert recipe.name == "tiny" and recipe.seed == 0
    assert recipe.generic is not None and recipe.generic.betas == (0.9, 0.95) and recipe.generic.base_lr == 3e-4
    assert recipe.baseline is None and recipe.report.title is None


@pytest.mark.parametrize(
    ("replacement", "message"),
    [
        (("epochs: 0.5", "epoch: 0.5"), "tiny.yaml:23: unknown key specific.epoch; did you mean specific.epochs? (and 1 more problem)"),
        (("student:", "studnet:"), "tiny.yaml:11: unknown key studnet; did you mean student?"),
        (("image_px: 28", "image_px: 28\n  zzz: 1"), "tiny.yaml:7: unknown key data.zzz; valid keys here: image_px, max_test_images, "),
        (("  depth: 2", "  depth: 2\n  width: 64"), "tiny.yaml:15: the key width is given twice; keep one of them"),
        (("name: tiny", "name: tiny\nname: other"), "tiny.yaml:3: the key name is given twice; keep one of them"),
        (("image_px: 28", "image_px: '28'"), "tiny.yaml:6: data.image_px is '28'; input should be a valid integer"),
        (("image_px: 28", "image_px: 28.0"), "tiny.yaml:6: data.image_px is 28.0; input should be a valid integer"),
        (("image_px: 28", "image_px: yes"), "tiny.yaml:6: data.image_px is 'yes'; input should be a valid integer"),
        (("image_px: 28", "image_px: true"), "tiny.yaml:6: data.image_px is True; input should be a valid integer"),
        (("name: tiny", "name: 3"), "tiny.yaml:2: name is 3; input should be a valid string"),
        (("name: tiny", "name: ../up"), "tiny.yaml:2: name is '../up'; string should match pattern"),
        (("source: idx", "source: tfds"), "tiny.yaml:4: data.source is 'tfds'; input should be 'idx' or 'folder'"),
        (("mean: [0.286]", "mean: [grey]"), "tiny.yaml:8: data.mean.0 is 'grey'; input should be a valid number"),
        (("mean: [0.286]", "mean: [0.2, 0.3]"), "tiny.yaml:3: data: mean and std need 1 numbers each, one per channel; got 2 and 1"),
        (("  width: 32", "  width: 30"), "tiny.yaml:13: student.width is 30; input should be a multiple of 4"),
        (("heads: 2\ngeneric", "heads: 3\ngeneric"), "tiny.yaml:11: student: heads is 3, which does not divide width 32"),
        (("epochs: 0.5", "epochs: 0"), "tiny.yaml:23: specific.epochs is 0; input should be greater than 0"),
        (("epochs: 0.5", "epochs: .inf"), "tiny.yaml:23: specific.epochs is inf; input should be a finite number"),
        (("epochs: 0.5", "epochs: .nan"), "tiny.yaml:23: specific.epochs is nan; input should be a finite number"),
        (("epochs: 0.5", "epochs: 0.5\n  warmup_epochs: 2"), "tiny.yaml:22: specific: warmup_epochs is 2.0, more than epochs 0.5"),
        (("epochs: 0.5", "epochs: 0.5\n  betas: [0.9, 1.0]"), "tiny.yaml:24: specific.betas.1 is 1.0; input should be less than 1"),
        (("epochs: 0.5", "epochs: 0.5\n  betas: [0.9]"), "tiny.yaml:24: the key specific.betas.1 is missing"),
        (("  image_px: 28\n", ""), "tiny.yaml:3: the key data.image_px is missing"),
        (("name: tiny\n", ""), "tiny.yaml: the key name is missing"),
        (
            ("student:\n  patch_px: 7\n", "student:\n  patch_px: 8\n"),
            "tiny.yaml: student.patch_px is 8, which does not divide data.image_px 28",
        ),
        (("  patch_px: 7\n  width: 32\n  depth: 2\n  heads: 2\n", "  7\n"), "tiny.yaml:11: student is 7; "),
        (("name: tiny", "name: tiny\n1: 2"), "tiny.yaml:3: unknown key 1; valid keys here: "),
        (("name: tiny", "name: [tiny"), "not valid YAML"),
        (("name: tiny", "name: 'tiny"), "not valid YAML"),
        (("name: tiny", "name:\ttiny: x"), "tiny.yaml:2: not valid YAML: "),
        (("name: tiny", "name: tiny\x07"), "not valid YAML"),
        (("name: tiny", "name: *nowhere"), "tiny.yaml:2: not valid YAML: found undefined alias 'nowhere'"),
        (("name: tiny", "--- \nname: tiny\n---\nname: two"), "not valid YAML"),
        (("name: tiny", "name: 2026-01-01"), "tiny.yaml:2: name is "),
        (("name: tiny", "name: !!python/object:os.system tiny"), "tiny.yaml:2: name is "),
    ],
)
def test_a_mistake_gets_one_line_that_names_key_and_line(replacement: tuple[str, str], message: str, write: Callable[..., Path]) -> None:
    found = refusal(write(replacement))
    assert message in found
    assert found.startswith("tiny.yaml:")


@pytest.mark.parametrize(
    ("text", "kind"), [("- a\n- b\n", "a list"), ("just words\n", "'just words'"), ("", "an empty file"), ("3\n", "3")]
)
def test_a_file_that_is_no_mapping_is_refused(text: str, kind: str, write: Callable[..., Path]) -> None:
    assert refusal(write(text=text)) == f"tiny.yaml: a recipe is a mapping of settings (`name: ...`), not {kind}"


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_bytes(b"name: \xff\xfe\n")
    assert refusal(path) == "tiny.yaml: not a UTF-8 text file; a recipe is a YAML file"


def test_a_recipe_that_refers_to_itself_is_refused(write: Callable[..., Path]) -> None:
    assert refusal(write(("teacher: {masked:", "teacher: &loop {baseline: *loop, masked:"))).startswith("tiny.yaml:10: ")


def test_a_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone.yaml") == "gone.yaml: cannot be read (No such file or directory)"
    assert refusal(tmp_path) == f"{tmp_path.name}: cannot be read (Is a directory)"


def test_yaml_is_version_1_2(write: Callable[..., Path]) -> None:
    recipe = load_recipe(write(("name: tiny", "name: no"), ("base_lr: 1e-3", "base_lr: 3e-4"), ("epochs: 0.5", "epochs: 1")))
    assert recipe.name == "no"
    assert recipe.specific is not None and recipe.specific.base_lr == 0.0003 and recipe.specific.epochs == 1.0


def test_overrides_are_typed_as_the_file_is(write: Callable[..., Path]) -> None:
    overrides = [
        "generic.epochs=2",
        "data.mean=[0.3]",
        "report.title=no",
        "baseline={epochs: 1, batch_size: 8, base_lr: 1e-3}",
        "specific=null",
    ]
    recipe = load_recipe(write(), overrides)
    assert recipe.generic is not None and recipe.generic.epochs == 2.0
    assert recipe.data.mean == (0.3,)
    assert recipe.report.title == "no"
    assert recipe.baseline is not None and recipe.baseline.base_lr == 1e-3
    assert recipe.specific is None


def test_the_later_override_wins(write: Callable[..., Path]) -> None:
    assert load_recipe(write(), ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("generic.epochs", "--set generic.epochs: wanted key.path=value, for example --set generic.epochs=2"),
        ("=3", "--set =3: wanted key.path=value, for example --set generic.epochs=2"),
        ("generic.epochs=[1", "--set generic.epochs=[1: the value is not valid YAML: "),
        ("generic={a: 1, a: 2}", "--set generic={a: 1, a: 2}: the value is not valid YAML: found duplicate key"),
        ("seed=\x07", "the value is not valid YAML: "),
        ("generic.epoch=2", "--set generic.epoch=2: unknown key generic.epoch; did you mean generic.epochs?"),
        ("genric.epochs=2", "--set genric.epochs=2: unknown key genric; did you mean generic?"),
        ("generic.epochs=two", "--set generic.epochs=two: generic.epochs is 'two'; input should be a valid number"),
        ("generic.epochs=", "--set generic.epochs=: generic.epochs is None; input should be a valid number"),
        ("name.first=x", "--set name.first=x: name is a value, not a group of settings"),
        ("data.mean.0=1", "--set data.mean.0=1: data.mean is a value, not a group of settings"),
        ("student.heads=3", "--set student.heads=3: student: heads is 3, which does not divide width 32"),
        ("seed=-1", "--set seed=-1: seed is -1; input should be greater than or equal to 0"),
    ],
)
def test_a_mistaken_override_gets_one_line_that_quotes_it(override: str, message: str, write: Callable[..., Path]) -> None:
    assert refusal(write(), override).startswith(message) or message in refusal(write(), override)


SHORT = "{epochs: 1, batch_size: 8, base_lr: 1e-3}"
TINY = "{patch_px: 7, width: 8, depth: 1, heads: 1}"
PRETRAIN = f"{{encoder: {TINY}, decoder: {{width: 8, depth: 1, heads: 1}}, {SHORT[1:]}"
NO_TEACHER = ["teacher=null", "specific=null"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([f"pretrain={PRETRAIN}"], "give either teacher (a finished one) or pretrain and finetune (to make one), not both"),
        ([*NO_TEACHER, "generic=null", f"finetune={SHORT}"], "finetune needs pretrain before it"),
        (NO_TEACHER, "generic needs a teacher: add teacher or pretrain"),
        (["teacher=null", "generic=null"], "specific needs a fine-tuned teacher: add teacher, or pretrain and finetune"),
        (["generic=null"], "specific needs generic before it"),
        (["student=null"], "generic and baseline need student (the encoder's shape)"),
        (["specific=null", "export={}"], "export needs specific: there is no student to export"),
        (["profile={}"], "profile needs export: there is no file to time"),
        ([*NO_TEACHER, "generic=null", "evaluate={}"], "evaluate needs a classifier: add finetune, teacher or specific"),
        (["data.image_px=27"], "student.patch_px is 7, which does not divide data.image_px 27"),
    ],
)
def test_sections_that_miss_another_section_are_refused(overrides: list[str], message: str, write: Callable[..., Path]) -> None:
    assert message in refusal(write(), *overrides)


def test_a_recipe_is_found_by_path_or_by_the_name_of_one_that_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = find_recipe("quickstart")
    assert find_recipe("quickstart.yaml") == find_recipe("recipes/quickstart.yaml") == shipped
    own = tmp_path / "quickstart.yaml"
    own.write_text(TEXT)
    assert find_recipe(str(own)).read_text() == find_recipe("quickstart.yaml").read_text() == TEXT
    with pytest.raises(UserError, match=r"^there is no recipe quickstrat; did you mean quickstart\?$"):
        find_recipe("quickstrat")
    with pytest.raises(UserError, match=r"^there is no recipe zzz; bundled recipes: .*quickstart"):
        find_recipe("zzz")
    with pytest.raises(UserError, match=r"there is no recipe elsewhere/quickstart\.yaml"):
        find_recipe("elsewhere/quickstart.yaml")


def test_a_copy_never_overwrites(tmp_path: Path) -> None:
    copied = copy_recipe("quickstart", tmp_path)
    assert copied == tmp_path / "quickstart.yaml"
    assert copied.read_bytes() == find_recipe("quickstart").read_bytes()
    with pytest.raises(UserError, match=r"quickstart\.yaml: exists; give another file name"):
        copy_recipe("quickstart", tmp_path)
    with pytest.raises(UserError, match="cannot be written"):
        copy_recipe("quickstart", copied / "below" / "a_file.yaml")


def test_the_schema_is_a_json_schema_that_knows_every_setting() -> None:
    schema = json.loads(json.dumps(recipe_schema()))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert schema["required"] == ["name", "data"]
    groups = [schema, *schema["$defs"].values()]
    assert all(group["additionalProperties"] is False for group in groups if group["type"] == "object")
    assert all("description" in setting for group in groups for setting in group["properties"].values())
    assert schema["$defs"]["DataSettings"]["properties"]["num_channels"]["enum"] == [1, 3]


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
            case "enum":
                ok &= value in wanted
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
            case "additionalProperties" if isinstance(value, dict):
                ok &= value.keys() <= schema["properties"].keys()
            case "properties" if isinstance(value, dict):
                ok &= all(allows(wanted[name], item, defs) for name, item in value.items() if name in wanted)
            case "$schema" | "$defs" | "default" | "description" | "title":
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


@pytest.mark.parametrize(
    ("override", "accepted"),
    [
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
        ("evaluate={corruptions: {names: [fog]}}", True),
        ("evaluate={corruptions: {names: [fogg]}}", False),
        ("evaluate={corruptions: {names: []}}", False),
        ("evaluate={corruptions: {names: [fog], severities: [6]}}", False),
    ],
)
def test_the_schema_and_the_loader_agree(override: str, accepted: bool, write: Callable[..., Path]) -> None:
    keys, _, text = override.partition("=")
    *groups, last = keys.split(".")
    yaml = YAML(typ="safe", pure=True)
    values = group = yaml.load(TEXT)
    for name in groups:
        group = group[name]
    group[last] = yaml.load(text)
    schema = recipe_schema()
    assert allows(schema, values, schema["$defs"]) == accepted
    if accepted:
        load_recipe(write(), [override])
    else:
        refusal(write(), override)


def test_the_smoke_run_keeps_every_stage_and_every_other_setting() -> None:
    for path in bundled_recipes():
        recipe = load_recipe(path)
        small = shrink_for_smoke(recipe)
        sections = [name for name in Recipe.model_fields if getattr(recipe, name) is not None]
        assert [name for name in Recipe.model_fields if getattr(small, name) is not None] == sections
        assert (small.name, small.student, small.teacher) == (recipe.name, recipe.student, recipe.teacher)
        assert small.data.max_train_images is not None and small.data.max_train_images <= 96
        assert recipe.evaluate is None or small.evaluate is not None
