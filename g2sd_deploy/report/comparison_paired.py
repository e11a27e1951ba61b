"""Students compared image by image: the difference of two accuracies without the noise that both share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from g2sd_deploy.report import formatting
from g2sd_deploy.report.comparison_runs import Compared
from g2sd_deploy.report.document import Cell, Column, Measured, Row, Table
from g2sd_deploy.report.scores import Interval

_FOLDED_FROM = 7


@dataclass(frozen=True)
class PairedStudents:
    """Two runs' students on the same images; where they could not be paired, `reason` says why and there are no numbers.

    Attributes:
        first: Place of the one run among those that are compared.
        second: Place of the other.
        only_first: Images that only the first decides rightly.
        only_second: Images that only the second decides rightly.
        gain: Top-1 of the second minus that of the first, a share in [-1, 1].
        interval: 95 % interval of the gain.
        p_value: Of the exact McNemar test that both are equally accurate.
    """

    first: int
    second: int
    reason: str = ""
    num_images: int = 0
    only_first: int = 0
    only_second: int = 0
    gain: float = 0.0
    interval: Interval = (0.0, 0.0)
    p_value: float = 1.0

    @property
    def differs(self) -> bool:
        """Whether chance is an unlikely explanation of the difference."""
        return not self.reason and not self.interval[0] <= 0 <= self.interval[1]


def pair_of(paired: Sequence[PairedStudents], one: int, other: int) -> PairedStudents | None:
    """The comparison of two runs, with numbers, in whichever order it was made."""
    return next((pair for pair in paired if {pair.first, pair.second} == {one, other} and not pair.reason), None)


def paired_table(items: Sequence[Compared], paired: Sequence[PairedStudents]) -> Table | None:
    """Every pair; None where there is none."""
    if not paired:
        return None
    titles = ("Students", "Images", "Only the first right", "Only the second right", "Gain of the second, pp", "p", "Verdict")
    columns = tuple(Column(title, numeric=0 < index < 6) for index, title in enumerate(titles))
    caption = (
        "Both students on the same images. Small: the 95 % interval. p: exact McNemar test, not corrected for the number of pairs. "
        "“May be chance”: the interval holds 0."
    )
    rows = tuple(_row(items, pair) for pair in paired)
    return Table("Pair by pair", columns, rows, caption, folded=len(rows) >= _FOLDED_FROM).without_empty_columns()


def points_of_gain(pair: PairedStudents) -> Measured:
    """'+0.84' with its interval, in percentage points."""
    low, high = (formatting.points(end, 2) for end in pair.interval)
    return Measured(formatting.points(pair.gain, 2), f"{low} to {high}")


def p_words(p_value: float) -> str:
    """'0.031', or '< 0.001'."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _row(items: Sequence[Compared], pair: PairedStudents) -> Row:
    name = f"{items[pair.first].name} → {items[pair.second].name}"
    if pair.reason:
        return Row((name, *(formatting.MISSING,) * 5, f"not compared: {pair.reason}"), tone="idle")
    verdict = "may be chance" if not pair.differs else "the second is better" if pair.gain > 0 else "the first is better"
    counts = (formatting.count(number) for number in (pair.num_images, pair.only_first, pair.only_second))
    cells: tuple[Cell, ...] = (name, *counts, points_of_gain(pair), p_words(pair.p_value), verdict)
    return Row(cells)
