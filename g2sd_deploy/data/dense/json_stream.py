"""The long lists of a JSON file, one element at a time: COCO's training file as Python objects would fill the memory of a small machine."""

import json
import re
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from g2sd_deploy.errors import UserError

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_CHARACTERS = 1 << 20
"""Read at a time, and held beside one element."""
_MAY_GO_ON = ("", ".", "e", "E")
"""What may come behind the part of a number that was read."""
_LONGEST_TOKEN = 16
"""Characters before the end of what was read within which a fault may come of the rest not being there yet."""


class _Broken(Exception):  # noqa: N818 (it is the file that is broken)
    """What is wrong, and where."""


def list_elements(path: Path, wanted: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Elements of the lists in a JSON object, in the order of the file; all else is passed over.

    Args:
        path: The file.
        wanted: Names of the lists; each has to be there.

    Yields:
        Name of a list, and one of its elements.

    Raises:
        UserError: The file cannot be read, is no JSON, or has no such lists.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            found = yield from _elements(_Reader(file), path, wanted)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); correct it and run the same command again") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is no JSON (it is not UTF-8 text); fetch or write it again") from None
    except _Broken as broken:
        raise UserError(f"{path}: is no JSON ({broken}); fetch or write it again") from None
    if missing := [name for name in wanted if name not in found]:
        raise UserError(f"{path}: holds no {missing[0]} (found {', '.join(found) or 'nothing'}); wanted an object with {', '.join(wanted)}")


def _elements(reader: "_Reader", path: Path, wanted: Sequence[str]) -> Generator[tuple[str, Any], None, list[str]]:
    """Elements as of `list_elements`; returns the names that were found."""
    found: list[str] = []
    if reader.mark() != "{":
        raise UserError(f"{path}: holds no object; wanted an object with {', '.join(wanted)}")
    reader.take("{")
    while reader.mark() != "}":
        if found:
            reader.take(",")
        if reader.mark() != '"':
            raise _Broken(f"expecting a name, character {reader.place}")
        name = reader.value()
        reader.take(":")
        if name in found:
            raise UserError(f"{path}: has {name!r} twice; write it again")
        found.append(name)
        if name not in wanted:
            reader.value()
            continue
        if reader.mark() != "[":
            raise UserError(f"{path}: {name} is no list; write it again")
        yield from ((name, element) for element in reader.list())
    reader.take("}")
    if reader.mark():
        raise _Broken(f"more follows behind the end, character {reader.place}")
    return found


class _Reader:
    """A JSON text that is read piece by piece."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ""
        self._at = 0
        self._before = 0

    @property
    def place(self) -> int:
        """Characters of the file before the next one."""
        return self._before + self._at

    def mark(self) -> str:
        """The next character that is no space, which stays; nothing at the end of the file."""
        while True:
            self._at = self._behind_space(self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, mark: str) -> None:
        """Pass over a character that has to come next."""
        came = self.mark()
        if came != mark:
            raise _Broken(f"expecting '{mark}', character {self.place}" if came else f"it ends after {self.place} characters")
        self._at += 1

    def value(self) -> Any:
        """The next value."""
        self.mark()
        while True:
            try:
                found, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                place = self._before + error.pos
                if not (self._may_go_on(error) and self._more()):
                    raise _Broken(f"{error.msg}, character {place}") from None
            except (ValueError, RecursionError):  # a number of thousands of digits; lists in lists in lists
                raise _Broken(f"a value cannot be read, character {self.place}") from None
            else:
                length = end - self._at
                if self._text[end : end + 1] not in _MAY_GO_ON or not self._more():
                    self._at += length
                    return found

    def list(self) -> Iterator[Any]:
        """Elements of the list that comes next."""
        self.take("[")
        first = True
        while self.mark() != "]":
            if not first:
                self.take(",")
            first = False
            yield self.value()
        self.take("]")

    def _behind_space(self, at: int) -> int:
        found = _SPACE.match(self._text, at)
        assert found is not None
        return found.end()

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _LONGEST_TOKEN

    def _more(self) -> bool:
        """Drop what is passed and read on; a long element is read in pieces that grow, so that it is tried but a few times."""
        rest = self._text[self._at :]
        piece = self._file.read(max(_CHARACTERS, len(rest)))
        self._text, self._before, self._at = rest + piece, self._before + self._at, 0
        return bool(piece)
