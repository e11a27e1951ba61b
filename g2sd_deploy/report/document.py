"""What a page is made of, before it is HTML or Markdown. Strings here are plain text; the templates escape them."""

from dataclasses import dataclass, field
from typing import Literal

Tone = Literal["plain", "good", "bad", "idle"]


@dataclass(frozen=True)
class Column:
    """A column; numbers are aligned right and set in tabular figures."""

    title: str
    numeric: bool = False


@dataclass(frozen=True)
class Row:
    """Cells, one per column. `model` puts that model's colour beside the first cell; `strong` marks what ships."""

    cells: tuple[str, ...]
    model: str = ""
    strong: bool = False
    tone: Tone = "plain"


@dataclass(frozen=True)
class Table:
    """A table under its caption; `folded` hides it behind its title until asked for."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    caption: str = ""
    folded: bool = False
    kind: Literal["table"] = "table"

    def __post_init__(self) -> None:
        assert all(len(row.cells) == len(self.columns) for row in self.rows), self.title


@dataclass(frozen=True)
class Chart:
    """An inline SVG (already clean markup) with what it shows and how to read it."""

    title: str
    svg: str
    caption: str
    kind: Literal["chart"] = "chart"


@dataclass(frozen=True)
class Gallery:
    """Charts side by side."""

    charts: tuple[Chart, ...]
    kind: Literal["gallery"] = "gallery"


@dataclass(frozen=True)
class Image:
    """A PNG as a data URI."""

    data_uri: str
    caption: str
    kind: Literal["image"] = "image"


@dataclass(frozen=True)
class Code:
    """Text to copy; `folded` hides it behind its title until asked for."""

    title: str
    text: str
    language: str = ""
    folded: bool = False
    kind: Literal["code"] = "code"


@dataclass(frozen=True)
class Note:
    """A sentence; with a title and a tone it is a verdict."""

    text: str
    title: str = ""
    tone: Tone = "plain"
    kind: Literal["note"] = "note"


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    items: tuple[tuple[str, str], ...]
    kind: Literal["facts"] = "facts"


Block = Table | Chart | Gallery | Image | Code | Note | Facts


@dataclass(frozen=True)
class Section:
    """A titled part of the page."""

    anchor: str
    title: str
    lead: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class KeyFigure:
    """One number for the top of the page: '95.9 %', what it is, and what it is made of."""

    value: str
    title: str
    detail: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Headline:
    """The first screen: one sentence, the key figures, and every verdict that did not pass."""

    sentence: str
    support: str
    figures: tuple[KeyFigure, ...]
    notices: tuple[Note, ...]
    tone: Tone = "plain"


@dataclass(frozen=True)
class Document:
    """The whole report."""

    title: str
    recipe: str
    description: str
    finished: str
    footer: str
    headline: Headline
    sections: tuple[Section, ...] = field(default=())
