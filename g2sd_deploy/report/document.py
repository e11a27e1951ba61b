"""What a page is made of, before it is HTML or Markdown. Strings here are plain text; the templates escape them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from g2sd_deploy.report.formatting import MISSING

_PAIRED_COLUMNS = 5  # a wider table would have to be scrolled

Tone = Literal["plain", "good", "bad", "idle", "void"]  # void: numbers that may not be used are struck
Outcome = Literal["passed", "failed", "valid", "invalid", "not_run"]
VERDICT_TONES: Mapping[str, Tone] = {"passed": "plain", "failed": "bad", "not_run": "idle"}
"""Of a row that ends in a verdict; a good one needs no colour."""


@dataclass(frozen=True)
class Column:
    """A column; numbers are aligned right and set in tabular figures."""

    title: str
    numeric: bool = False


@dataclass(frozen=True)
class Measured:
    """A number and its 95 % interval, as text."""

    text: str
    interval: str

    def __str__(self) -> str:
        return f"{self.text} ({self.interval})"


Cell = str | Measured


@dataclass(frozen=True)
class Row:
    """Cells, one per column. `series` names the colour beside the first cell; `strong` marks what ships."""

    cells: tuple[Cell, ...]
    series: str = ""
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

    def without_empty_columns(self) -> "Table":
        """The table without columns in which no row has anything."""
        kept = [index for index in range(len(self.columns)) if any(row.cells[index] not in ("", MISSING) for row in self.rows)]
        rows = tuple(replace(row, cells=tuple(row.cells[index] for index in kept)) for row in self.rows)
        return replace(self, columns=tuple(self.columns[index] for index in kept), rows=rows)


@dataclass(frozen=True)
class Chart:
    """An inline SVG (already clean markup) with what it shows and how to read it."""

    title: str
    svg: str
    caption: str
    kind: Literal["chart"] = "chart"


@dataclass(frozen=True)
class Gallery:
    """Charts side by side; `wide` ones need more room each."""

    charts: tuple[Chart, ...]
    wide: bool = False
    kind: Literal["gallery"] = "gallery"


@dataclass(frozen=True)
class Image:
    """A PNG as a data URI."""

    data_uri: str
    caption: str
    kind: Literal["image"] = "image"


@dataclass(frozen=True)
class Panel:
    """A picture as a data URI under its label; `alternative` is for readers who do not see it, `file` for those of plain text."""

    label: str
    data_uri: str
    alternative: str
    file: str


@dataclass(frozen=True)
class Pictures:
    """Rows of pictures that belong together, at most one for each title."""

    titles: tuple[str, ...]
    rows: tuple[tuple[Panel, ...], ...]
    kind: Literal["pictures"] = "pictures"


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


Block = Table | Chart | Gallery | Image | Pictures | Code | Note | Facts


@dataclass(frozen=True)
class Section:
    """A titled part of the page."""

    anchor: str
    title: str
    lead: str
    blocks: tuple[Block, ...]

    @property
    def paired(self) -> bool:
        """Does the page put the chart that comes first beside the table that follows it?"""
        match self.blocks[:2]:
            case (Chart(), Table(columns=columns)):
                return len(columns) <= _PAIRED_COLUMNS
        return False


@dataclass(frozen=True)
class KeyFigure:
    """One number for the top of the page: '95.9 %', what it is, and what it is made of."""

    value: str
    title: str
    detail: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Verdict:
    """What was judged, how, why, and in which section; `parts` are the verdicts that it sums up, by name."""

    subject: str
    outcome: Outcome
    reason: str
    anchor: str
    parts: tuple[tuple[str, Outcome], ...] = ()

    @property
    def tone(self) -> Tone:
        """The colour that goes with the outcome, which the word says, too."""
        return "good" if self.outcome in ("passed", "valid") else "bad" if self.outcome in ("failed", "invalid") else "idle"


@dataclass(frozen=True)
class Headline:
    """The first screen: one sentence, every verdict, what must not be overlooked, and the key figures."""

    sentence: str
    support: str
    figures: tuple[KeyFigure, ...]
    notices: tuple[Note, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
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
