"""Typed reading of JSON objects: each field is checked once, where it enters, and an error names file and field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeGuard

from g2sd_deploy.errors import UserError


@dataclass(frozen=True)
class Fields:
    """A JSON object and the place it was read from (for messages).

    Every reader raises UserError when the field is missing or of another type; the `maybe_` readers
    return None for a field that is missing or null.
    """

    values: Mapping[str, object]
    where: str

    def has(self, key: str) -> bool:
        """Is the field there and not null?"""
        return self.values.get(key) is not None

    def number(self, key: str) -> float:
        """A number as float; a bool is refused."""
        value = self.maybe_number(key)
        return self.refuse(key, "a number") if value is None else value

    def maybe_number(self, key: str) -> float | None:
        """A number as float, or None."""
        value = self.values.get(key)
        if value is None:
            return None
        return float(value) if _is_number(value) else self.refuse(key, "a number")

    def count(self, key: str) -> int:
        """A whole number."""
        value = self.maybe_count(key)
        return self.refuse(key, "a whole number") if value is None else value

    def maybe_count(self, key: str) -> int | None:
        """A whole number, or None."""
        value = self.values.get(key)
        if value is None:
            return None
        return value if isinstance(value, int) and not isinstance(value, bool) else self.refuse(key, "a whole number")

    def text(self, key: str) -> str:
        """A string."""
        value = self.values.get(key)
        return value if isinstance(value, str) else self.refuse(key, "text")

    def maybe_text(self, key: str) -> str:
        """A string; empty where the field is missing or null."""
        return "" if self.values.get(key) is None else self.text(key)

    def child(self, key: str) -> Fields:
        """An object."""
        value = self.values.get(key)
        return Fields(value, f"{self.where}: {key}") if isinstance(value, dict) else self.refuse(key, "an object")

    def maybe_child(self, key: str) -> Fields:
        """An object; empty where the field is missing or null."""
        return Fields({}, f"{self.where}: {key}") if self.values.get(key) is None else self.child(key)

    def children(self, key: str) -> tuple[Fields, ...]:
        """A list of objects."""
        value = self.values.get(key)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            return self.refuse(key, "a list of objects")
        return tuple(Fields(item, f"{self.where}: {key}[{index}]") for index, item in enumerate(value))

    def named_children(self) -> dict[str, Fields]:
        """Every field as an object, by name."""
        return {name: self.child(name) for name in self.values}

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        value = self.values.get(key)
        return (
            tuple(value)
            if isinstance(value, list) and all(isinstance(item, str) for item in value)
            else self.refuse(key, "a list of texts")
        )

    def number_list(self, key: str) -> tuple[float, ...]:
        """A list of numbers."""
        found = self.gappy_list(key)
        return tuple(self.refuse(key, "a list of numbers") if value is None else value for value in found)

    def gappy_list(self, key: str) -> tuple[float | None, ...]:
        """A list of numbers, with null where there is none."""
        value = self.values.get(key)
        if not isinstance(value, list) or not all(_is_number(item) or item is None for item in value):
            return self.refuse(key, "a list of numbers")
        return tuple(None if item is None else float(item) for item in value)

    def matrix(self, key: str, width: int | None = None) -> tuple[tuple[float, ...], ...]:
        """A list of lists of numbers, each of `width` numbers where that is given."""
        rows = self.gappy_matrix(key, width)
        return tuple(tuple(self.refuse(key, "lists of numbers") if item is None else item for item in row) for row in rows)

    def gappy_matrix(self, key: str, width: int | None = None) -> tuple[tuple[float | None, ...], ...]:
        """As `matrix`, with null where there is no number."""
        value = self.values.get(key)
        if not isinstance(value, list):
            return self.refuse(key, "a list of lists of numbers")
        items = Fields({str(index): row for index, row in enumerate(value)}, f"{self.where}: {key}")
        rows = tuple(items.gappy_list(index) for index in items.values)
        return rows if all(width in (None, len(row)) for row in rows) else self.refuse(key, f"lists of {width} numbers")

    def labels(self, key: str) -> dict[str, str]:
        """An object of scalars, each as text (versions, machine facts)."""
        return {name: "" if value is None else str(value) for name, value in self.maybe_child(key).values.items()}

    def numbers(self, key: str) -> dict[str, float]:
        """An object of numbers; empty where the field is missing."""
        inner = self.maybe_child(key)
        return {name: inner.number(name) for name in inner.values}

    def refuse(self, key: str, wanted: str) -> NoReturn:
        """Say that a field is not what it has to be.

        Raises:
            UserError: Always.
        """
        found = repr(self.values[key])[:80] if key in self.values else "missing"
        raise UserError(
            f"{self.where}: {key} is {found}, but the report needs {wanted}. The file was changed or made by another version: "
            "run its stage again with --force."
        )


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_object(path: Path, where: str) -> Fields:
    """Read one JSON object.

    Args:
        path: File to read, UTF-8.
        where: How messages name the file.

    Raises:
        UserError: The file cannot be read, is not JSON or is not an object.
    """
    try:
        return object_from_text(path.read_text(encoding="utf-8"), where)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{where} cannot be read ({error}). Run its stage again with --force.") from error


def object_from_text(text: str, where: str) -> Fields:
    """Parse one JSON object.

    Raises:
        UserError: The text is not a JSON object.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON ({error}). It was changed or cut off: run its stage again with --force.") from error
    if not isinstance(value, dict):
        raise UserError(f"{where} holds {type(value).__name__}, but the report needs an object. Run its stage again with --force.")
    return Fields(value, where)
