"""The only reader of recipes: a YAML file and `--set` overrides become one frozen `Recipe`, or one clear error."""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from g2sd_deploy.errors import UserError
from g2sd_deploy.settings import Recipe

KeyPath = tuple[str | int, ...]


def recipe_folder() -> Path:
    """Folder of the recipes that ship with the package: inside the wheel, or beside the package in a source tree."""
    inside = Path(__file__).parent / "recipes"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "recipes"


def bundled_recipes() -> list[Path]:
    """Recipe files that ship with the package, sorted by name."""
    return sorted(recipe_folder().glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """A recipe file by path, or a bundled one by name (`quickstart`, `quickstart.yaml`, `recipes/quickstart.yaml`).

    Raises:
        UserError: Neither exists; the message names the nearest bundled recipe.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    names = [p.stem for p in bundled_recipes()]
    stem = path.name.removesuffix(".yaml")
    if stem in names and path.parent in (Path(), Path("recipes")):
        return recipe_folder() / f"{stem}.yaml"
    near = difflib.get_close_matches(stem, names, 1)
    hint = f"; did you mean {near[0]}?" if near else f"; bundled recipes: {', '.join(names)}"
    raise UserError(f"there is no recipe {name}{hint}")


def copy_recipe(name: str, to: Path) -> Path:
    """Copy a recipe to a new file; returns it.

    Raises:
        UserError: There is no such recipe, the file exists, or it cannot be written.
    """
    source = find_recipe(name)
    target = to / source.name if to.is_dir() else to
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(source.read_text(encoding="utf-8"))
    except FileExistsError:
        raise UserError(f"{target}: exists; give another file name") from None
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror})") from None
    return target


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply `key.path=value` overrides, typed as the YAML would be.

    Raises:
        UserError: Unreadable file, invalid YAML, duplicate, unknown or missing key, or a value of the wrong type or range.
    """
    text = _read_text(path)
    document = _parse(text, path)
    lines = _key_lines(document)
    values = _plain(document)
    given: dict[KeyPath, str] = {}
    for override in overrides:
        keys, value = _parse_override(override)
        _set_key(values, keys, value, override)
        given[keys] = override
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError(_explain(error, path, lines, given)) from None


def recipe_schema() -> dict[str, Any]:
    """JSON schema of a recipe, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}


def shrink_for_smoke(recipe: Recipe) -> Recipe:
    """The same recipe on a handful of images for one short pass: it proves that every stage runs, not that the result is good."""
    values = recipe.model_dump(mode="json", exclude_none=True)
    values["data"] |= {"max_train_images": 96, "max_test_images": 64}
    for stage in ("pretrain", "finetune", "generic", "specific", "baseline"):
        if stage in values:
            values[stage] |= {"epochs": 1.0, "warmup_epochs": 0.5, "batch_size": 32}
    if "evaluate" in values and "corruptions" in values["evaluate"]:
        values["evaluate"]["corruptions"] |= {"max_images": 16, "severities": [3]}
    if "profile" in values:
        values["profile"] |= {"repeats": 10, "warmup": 2}
    return Recipe.model_validate_json(json.dumps(values))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a UTF-8 text file; a recipe is a YAML file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _parse(text: str, path: Path) -> Any:
    try:
        document = YAML(typ="rt").load(text)
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        key = str(error.problem).split('"')[1] if '"' in str(error.problem) else str(error.problem)
        raise UserError(f"{path}:{line}: the key {key} is given twice; keep one of them") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UserError(f"{path}:{mark.line + 1 if mark else '?'}: not valid YAML: {error.problem}") from None
    except YAMLError as error:  # a character that YAML does not allow
        raise UserError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(document, Mapping):
        found = "an empty file" if document is None else "a list" if isinstance(document, list) else f"{document!r:.40}"
        raise UserError(f"{path}: a recipe is a mapping of settings (`name: ...`), not {found}")
    return document


def _key_lines(node: Any, prefix: KeyPath = ()) -> dict[KeyPath, int]:
    """Line (from 1) of every key and list item of a round-trip document."""
    lines: dict[KeyPath, int] = {}
    items: Iterable[tuple[str | int, Any]]
    if isinstance(node, Mapping):
        items = list(node.items())
        position = node.lc.key if hasattr(node, "lc") else None
    elif isinstance(node, list):
        items = list(enumerate(node))
        position = node.lc.item if hasattr(node, "lc") else None
    else:
        return lines
    for key, value in items:
        name = key if isinstance(key, int) and isinstance(node, list) else str(key)
        if position is not None:
            lines[(*prefix, name)] = position(key)[0] + 1
        lines |= _key_lines(value, (*prefix, name))
    return lines


def _plain(node: Any) -> Any:
    """The document as plain dicts, lists and scalars."""
    if isinstance(node, Mapping):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _parse_override(override: str) -> tuple[KeyPath, Any]:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise UserError(f"--set {override}: wanted key.path=value, for example --set generic.epochs=2")
    try:
        value = _plain(YAML(typ="rt").load(text)) if text.strip() else None
    except YAMLError as error:
        problem = error.problem if isinstance(error, MarkedYAMLError) else str(error)
        raise UserError(f"--set {override}: the value is not valid YAML: {str(problem).splitlines()[0]}") from None
    return tuple(key.strip().split(".")), value


def _set_key(values: dict[str, Any], keys: KeyPath, value: Any, override: str) -> None:
    node: Any = values
    for depth, key in enumerate(keys[:-1]):
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise UserError(f"--set {override}: {'.'.join(map(str, keys[: depth + 1]))} is a value, not a group of settings")
    node[keys[-1]] = value


def _explain(error: ValidationError, path: Path, lines: dict[KeyPath, int], given: dict[KeyPath, str]) -> str:
    """One line for the first problem; the count of the others."""
    problems = error.errors(include_url=False)
    problem = min(problems, key=lambda p: p["type"] != "extra_forbidden")
    keys: KeyPath = tuple(problem["loc"])
    message = f"{_where(path, keys, lines, given)}: {_say(problem, keys)}"
    more = len(problems) - 1
    return message + (f" (and {more} more problem{'s' if more > 1 else ''})" if more else "")


def _where(path: Path, keys: KeyPath, lines: dict[KeyPath, int], given: dict[KeyPath, str]) -> str:
    for override_keys, text in given.items():
        if keys and (keys[: len(override_keys)] == override_keys or override_keys[: len(keys)] == keys):
            return f"--set {text}"
    for length in range(len(keys), 0, -1):
        if keys[:length] in lines:
            return f"{path}:{lines[keys[:length]]}"
    return str(path)


def _say(problem: Any, keys: KeyPath) -> str:
    name = ".".join(str(k) for k in keys)
    match problem["type"]:
        case "extra_forbidden":
            return f"unknown key {name}{_nearest(keys)}"
        case "missing":
            return f"the key {name} is missing"
        case "value_error":
            text = str(problem["ctx"]["error"])
            return f"{name}: {text}" if name else text
        case _:
            return f"{name} is {problem['input']!r}; {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _nearest(keys: KeyPath) -> str:
    """The valid key nearest to a misspelt one, and the valid keys where none is near."""
    group = _settings_at(keys[:-1])
    valid = sorted(group.model_fields) if group else []
    near = difflib.get_close_matches(str(keys[-1]), valid, 1, cutoff=0.6)
    if near:
        return f"; did you mean {'.'.join(map(str, (*keys[:-1], near[0])))}?"
    return f"; valid keys here: {', '.join(valid)}"


def _settings_at(keys: KeyPath) -> type[BaseModel] | None:
    """The group of settings at a path of keys."""
    group: type[BaseModel] = Recipe
    for key in keys:
        annotation = group.model_fields[str(key)].annotation
        candidates = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel)]
        if not candidates:
            return None
        group = candidates[0]
    return group
