"""Settings as a YAML file or `--set` writes them: plain values, and where each key stands."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from g2sd_deploy.errors import UserError

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Written:
    """What a file says.

    Attributes:
        values: Plain dicts, lists and scalars.
        places: `file:line` of every key and list item.
    """

    values: dict[str, Any]
    places: dict[KeyPath, str]


def read_written(path: Path, what: str = "a recipe") -> Written:
    """Read a YAML file that holds a mapping.

    Args:
        path: The file.
        what: What it should be, for errors.

    Raises:
        UserError: Unreadable file, invalid YAML, a key given twice, or something else than a mapping.
    """
    document = _parse(_read_text(path, what), path, what)
    return Written(_plain(document), {keys: f"{path}:{line}" for keys, line in _key_lines(document).items()})


def merged(base: Written, recipe: Written) -> Written:
    """The base with the recipe's changes: groups merge, null takes out what the base has, anything else replaces.

    Source: RFC 7396 (JSON merge patch). Differs: a null where the base has no such key stays, so that a misspelt key is found as one.
    """
    replaced = {keys for keys in recipe.places if not isinstance(_value_at(recipe.values, keys), dict)}
    kept = {keys: place for keys, place in base.places.items() if not any(keys[:end] in replaced for end in range(1, len(keys) + 1))}
    return Written(_patched(base.values, recipe.values), kept | recipe.places)


def override(values: dict[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """Apply `key.path=value` overrides; null takes out what is there.

    Returns:
        The new values, and the overrides by their keys.

    Raises:
        UserError: An override that is not of that form, or goes into something that is no group of settings.
    """
    given: dict[KeyPath, str] = {}
    for text in overrides:
        keys, value = _parse_override(text)
        values = _with_key(values, keys, value, text)
        given[keys] = text
    return values, given


def _read_text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a UTF-8 text file; {what} is a YAML file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _parse(text: str, path: Path, what: str) -> Any:
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
        raise UserError(f"{path}: {what} is a mapping of settings (`name: ...`), not {found}")
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


def _patched(base: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    values = dict(base)
    for key, value in patch.items():
        if value is None and key in values:
            del values[key]
        elif isinstance(value, dict) and isinstance(values.get(key), dict):
            values[key] = _patched(values[key], value)
        else:
            values[key] = value
    return values


def _value_at(values: Any, keys: KeyPath) -> Any:
    for key in keys:
        values = values[key]
    return values


def _parse_override(text: str) -> tuple[tuple[str, ...], Any]:
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise UserError(f"--set {text}: wanted key.path=value, for example --set generic.epochs=2")
    try:
        parsed = _plain(YAML(typ="rt").load(value)) if value.strip() else None
    except YAMLError as error:
        problem = error.problem if isinstance(error, MarkedYAMLError) else str(error)
        raise UserError(f"--set {text}: the value is not valid YAML: {str(problem).splitlines()[0]}") from None
    return tuple(key.strip().split(".")), parsed


def _with_key(values: dict[str, Any], keys: tuple[str, ...], value: Any, text: str, depth: int = 1) -> dict[str, Any]:
    """The values with one key set, or taken out by null; the ones given are left as they are."""
    key, *rest = keys
    if not rest:
        return _patched(values, {key: None}) if value is None else values | {key: value}
    group = values.get(key, {})
    if not isinstance(group, dict):
        raise UserError(f"--set {text}: {'.'.join(text.split('.')[:depth])} is a value, not a group of settings")
    return values | {key: _with_key(group, tuple(rest), value, text, depth + 1)}
