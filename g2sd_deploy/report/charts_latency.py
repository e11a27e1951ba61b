"""Charts of latency: how the samples of each row spread, how its rounds went, and where in the model the time goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from g2sd_deploy.report import formatting
from g2sd_deploy.report.charts import legend
from g2sd_deploy.report.latency import BlockTime, Histogram
from g2sd_deploy.report.svg import COLOURS, figure, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRAWN_SHARE = 0.995  # of the samples of a row; the few slowest would flatten all others
LOG_SCALE_FROM = 8.0  # a span of latencies below this factor is easier to read on a linear axis
_ROW_PX = 38
_MIN_COURSE = 0.05  # half the height of a row in the chart of rounds, as a share of the median
_PARTS = {  # name in the legend: field of a block, colour
    "attention": ("attention_ms", "student"),
    "MLP": ("mlp_ms", "baseline"),
    "norm": ("norm_ms", "other"),
    "other": ("other_ms", "teacher"),
}


@dataclass(frozen=True)
class Timed:
    """One row to draw, under its name in the colour of its model."""

    text: str
    series: str
    p50_ms: float
    histogram: Histogram | None
    rounds: Mapping[int, float]


def distributions(name: str, title: str, rows: Sequence[Timed]) -> str:
    """A ridge for each row over one common axis of time, and its median as a tick and a number.

    Args:
        name: Of the chart, unique within the page.
        title: For readers who do not see it.
        rows: At least one with a histogram.
    """
    shown = [(row, row.histogram) for row in rows if row.histogram and sum(row.histogram.counts)]
    with figure(440, 60 + _ROW_PX * len(shown)) as drawn:
        axes = drawn.subplots()
        for place, (row, histogram) in enumerate(shown):
            _ridge(axes, len(shown) - place - 1, row, histogram)
        _time_axis(axes, [edge for _, found in shown for edge in (found.edges_ms[0], _end(found))])
        _row_axis(axes, [row for row, _ in shown], [formatting.milliseconds(row.p50_ms) for row, _ in shown])
        axes.set_ylim(-0.15, len(shown) + 0.05)
        told = "; ".join(f"{row.text}: median {formatting.milliseconds(row.p50_ms)}" for row, _ in shown)
        return inline_svg(drawn, name, title, f"{told}.")


def courses(name: str, title: str, rows: Sequence[Timed]) -> str:
    """Median of every round over that of the row, a line per row; rounds that do not count are gaps with a band.

    Args:
        name: Of the chart, unique within the page.
        title: For readers who do not see it.
        rows: At least one with rounds.
    """
    shown = [row for row in rows if row.rounds]
    numbers = sorted({number for row in shown for number in row.rounds})
    reach = max([_MIN_COURSE, *(abs(_course(row)[number]) for row in shown for number in row.rounds)])
    with figure(440, 60 + _ROW_PX * len(shown)) as drawn:
        axes = drawn.subplots()
        for number in set(range(numbers[0], numbers[-1])) - set(numbers):
            axes.axvspan(number - 0.5, number + 0.5, color=COLOURS["line"], linewidth=0, alpha=0.7)
        for place, row in enumerate(shown):
            base, course = len(shown) - place - 0.5, _course(row)
            axes.axhline(base, color=COLOURS["line"], linewidth=0.8)
            axes.plot(list(course), [base + 0.45 * course[number] / reach for number in course], color=COLOURS[row.series], linewidth=1.5)
        axes.set_xlim(numbers[0] - 0.5, numbers[-1] + 0.5)
        axes.set_xlabel("round")
        axes.locator_params(axis="x", integer=True)
        widest = [max(abs(value) for value in _course(row).values()) for row in shown]
        _row_axis(axes, shown, [f"± {formatting.percent(value, 1)}" for value in widest])
        axes.set_ylim(0, len(shown))
        told = "; ".join(f"{row.text}: within {formatting.percent(value, 1)}" for row, value in zip(shown, widest, strict=True))
        return inline_svg(drawn, name, title, f"Largest distance of a round from the median of its row. {told}.")


def block_bars(name: str, title: str, blocks: Sequence[BlockTime]) -> str:
    """Time of every block in milliseconds, stacked by attention, MLP and norm.

    Args:
        name: Of the chart, unique within the page.
        title: For readers who do not see it.
        blocks: At least one.
    """
    places = [block.block for block in blocks]
    with figure(340, 230) as drawn:
        axes = drawn.subplots()
        floor = [0.0] * len(blocks)
        for part, (field, series) in _PARTS.items():
            heights = [float(getattr(block, field)) for block in blocks]
            if any(heights):
                axes.bar(places, heights, bottom=floor, width=0.72, color=COLOURS[series], label=part)
            floor = [low + height for low, height in zip(floor, heights, strict=True)]
        axes.set_xlabel("block")
        axes.set_xticks(places[:: -(-len(places) // 12)])
        axes.set_title("ms", loc="left", fontsize=10.5, color=COLOURS["muted"])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.locator_params(axis="y", nbins=5)
        axes.grid(axis="y")
        axes.spines["left"].set_visible(False)
        legend(drawn, axes.get_legend_handles_labels()[1], 340)
        sums = {part: sum(float(getattr(block, field)) for block in blocks) for part, (field, _) in _PARTS.items()}
        told = ", ".join(f"{part} {formatting.milliseconds(value)}" for part, value in sums.items() if value)
        return inline_svg(drawn, name, title, f"Over {len(blocks)} blocks: {told}.")


def _ridge(axes: Axes, base: int, row: Timed, histogram: Histogram) -> None:
    """Samples per millisecond as an outline over its base line, as high as a row at most."""
    widths = [right - left for left, right in zip(histogram.edges_ms, histogram.edges_ms[1:], strict=False)]
    density = [count / width if width > 0 else 0.0 for count, width in zip(histogram.counts, widths, strict=True)]
    top = max(density) or 1.0
    heights = [base + 0.86 * value / top for value in density]
    axes.stairs(heights, histogram.edges_ms, baseline=base, fill=True, color=COLOURS[row.series], alpha=0.55, linewidth=0)
    axes.hlines(base, 0, 1, transform=axes.get_yaxis_transform(), color=COLOURS["line"], linewidth=0.8)
    axes.vlines(row.p50_ms, base, base + 0.9, color=COLOURS["ink"], linewidth=1.2)


def _time_axis(axes: Axes, ends: Sequence[float]) -> None:
    low, high = min(ends), max(ends)
    if low > 0 and high / low > LOG_SCALE_FROM:
        from matplotlib.ticker import LogLocator, NullFormatter

        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0) if high / low < 200 else (1.0,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(low / 1.15, high * 1.15)
    else:
        axes.set_xlim(max(low - 0.08 * (high - low), 0.0), high + 0.08 * (high - low))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("ms")
    axes.grid(axis="x")


def _row_axis(axes: Axes, rows: Sequence[Timed], values: Sequence[str]) -> None:
    """Names on the left and numbers on the right of each row."""
    middles = [len(rows) - place - 0.5 for place in range(len(rows))]
    axes.set_yticks(middles, [formatting.shortened(row.text) for row in rows])
    axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
    right = axes.twinx()
    right.set_ylim(0, len(rows))
    right.set_yticks(middles, values)
    right.spines[:].set_visible(False)
    axes.spines[:].set_visible(False)


def _end(histogram: Histogram) -> float:
    """The edge below which DRAWN_SHARE of the samples lie."""
    wanted = DRAWN_SHARE * sum(histogram.counts)
    return next(edge for edge, below in zip(histogram.edges_ms[1:], accumulate(histogram.counts), strict=True) if below >= wanted)


def _course(row: Timed) -> dict[int, float]:
    """Each round's median as its distance from the middle one, as a share of that."""
    ordered = sorted(row.rounds.values())
    middle = ordered[len(ordered) // 2]
    return {number: value / middle - 1 for number, value in sorted(row.rounds.items())}
