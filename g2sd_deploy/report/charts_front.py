"""Chart of accuracy over latency, with the front drawn and named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from g2sd_deploy.report import formatting
from g2sd_deploy.report.svg import COLOURS, figure, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

LOG_SCALE_FROM = 4.0  # latencies that span less than this factor are easier to compare on a linear axis
_NAME_PX = 30  # height of a name and its latency
_STEPS = 60  # at which a piece of the front is looked at for names that would cover it
# Where a name may stand, from its point in pixels; the first that is free is taken. Up and left of the front nothing is drawn.
_NEAR = ((-8, 5), (10, -37), (12, -14), (0, 10), (0, -40), (-12, -14), (8, 8), (-8, -38))
_FAR = ((-8, 34), (14, -60), (0, 44), (-8, 64), (14, -90))


@dataclass(frozen=True)
class TimeAxis:
    """What is drawn to the right: its title, and a value of it as text."""

    title: str
    shown: Callable[[float], str]


MILLISECONDS = TimeAxis("p50 latency of one image, ms", formatting.milliseconds)


@dataclass(frozen=True)
class Mark:
    """One measured way to run a model; those on the front are drawn in colour and named. `measure` says what `top1` is in a task."""

    text: str
    series: str
    latency_ms: float
    top1: float
    on_front: bool
    measure: str = "top-1 accuracy"


def accuracy_latency(marks: Sequence[Mark], time: TimeAxis = MILLISECONDS, name: str = "accuracy-latency") -> str:
    """Top-1, or what stands for it in a task, over latency: the front as a line whose points are named, all others faint.

    Args:
        marks: At least one, with a positive latency each, the fastest first, all of one measure.
        time: What their latency is told in.
        name: Of the chart, unique within the page.
    """
    front = [mark for mark in marks if mark.on_front]
    with figure(440, 320) as drawn:
        axes = drawn.subplots()
        _frame(axes, marks)
        axes.plot([mark.latency_ms for mark in front], [100 * mark.top1 for mark in front], color=COLOURS["muted"], linewidth=1.4)
        for mark in marks:
            colour, area, alpha = (mark.series, 80.0, 1.0) if mark.on_front else ("muted", 34.0, 0.5)
            axes.scatter([mark.latency_ms], [100 * mark.top1], s=area, color=COLOURS[colour], alpha=alpha, linewidths=0, zorder=3)
        axes.set_xlabel(f"{time.title} (left is faster)")
        axes.set_title(f"{marks[0].measure} (up is better)", loc="left", fontsize=10.5, color=COLOURS["muted"])
        axes.grid()
        axes.spines[:].set_visible(False)
        drawn.draw_without_rendering()
        _name_points(axes, marks, time)
        told = "; ".join(f"{mark.text}: {formatting.percent(mark.top1)}, {time.shown(mark.latency_ms)}" for mark in front)
        beaten = f" {len(marks) - len(front)} others are beaten." if len(marks) > len(front) else ""
        return inline_svg(drawn, name, "Accuracy over latency", f"On the front: {told}.{beaten}")


def _frame(axes: Axes, marks: Sequence[Mark]) -> None:
    """Leave room for the names; the axis of time starts at 0 unless it spans too much."""
    latencies, accuracies = [mark.latency_ms for mark in marks], [100 * mark.top1 for mark in marks]
    if max(latencies) / min(latencies) > LOG_SCALE_FROM:
        axes.set_xscale("log")
        axes.set_xlim(min(latencies) / 2.2, max(latencies) * 2.0)
        axes.xaxis.set_major_locator(_log_ticks(latencies))
        axes.xaxis.set_minor_formatter(lambda value, _: "")
    else:
        axes.set_xlim(0, max(latencies) * 1.25)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    room = max((max(accuracies) - min(accuracies)) * 0.4, 1.0)
    axes.set_ylim(min(accuracies) - room, max(accuracies) + room)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    axes.locator_params(axis="y", nbins=6)


def _log_ticks(values: Sequence[float]):  # type: ignore[no-untyped-def]  # matplotlib's own class, which may be loaded only when drawing
    from matplotlib.ticker import LogLocator

    return LogLocator(base=10, subs=(1.0, 2.0, 5.0) if max(values) / min(values) < 200 else (1.0,))


def _name_points(axes: Axes, marks: Sequence[Mark], time: TimeAxis) -> None:
    """Write the name of each point of the front where it covers no point and no other name."""
    front = sorted((mark for mark in marks if mark.on_front), key=lambda mark: mark.latency_ms)
    taken = [_around(axes, mark) for mark in marks] + _along(axes, front)
    for mark in front:
        for place in _NEAR + _FAR:
            label = _label(axes, mark, place, time)
            box = label.get_window_extent()
            inside = axes.bbox.x0 - 6 <= box.x0 and box.x1 <= axes.bbox.x1 + 6 and axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                if place in _FAR:
                    _leader(axes, mark, place)
                break
            label.remove()


def _label(axes: Axes, mark: Mark, place: tuple[int, int], time: TimeAxis) -> Annotation:
    side = {-1: "right", 0: "center", 1: "left"}[(place[0] > 0) - (place[0] < 0)]
    return axes.annotate(
        f"{formatting.shortened(mark.text)}\n{time.shown(mark.latency_ms)}",
        (mark.latency_ms, 100 * mark.top1),
        xytext=place,
        textcoords="offset pixels",
        ha=side,
        va="bottom",
        fontsize=10.5,
        linespacing=1.3,
        annotation_clip=False,
    )


def _leader(axes: Axes, mark: Mark, place: tuple[int, int]) -> None:
    """A thin line from a point to a name that stands far from it."""
    near_end = (place[0], place[1] if place[1] > 0 else place[1] + _NAME_PX)
    line = {"arrowstyle": "-", "color": COLOURS["muted"], "linewidth": 0.7, "shrinkA": 0, "shrinkB": 5}
    axes.annotate("", (mark.latency_ms, 100 * mark.top1), xytext=near_end, textcoords="offset pixels", arrowprops=line)


def _along(axes: Axes, front: Sequence[Mark]) -> list[Bbox]:
    """Small boxes all along the line of the front."""
    from matplotlib.transforms import Bbox

    ends = [axes.transData.transform((mark.latency_ms, 100 * mark.top1)) for mark in front]
    found = []
    for (x0, y0), (x1, y1) in pairwise(ends):
        for step in range(_STEPS + 1):
            x, y = x0 + (x1 - x0) * step / _STEPS, y0 + (y1 - y0) * step / _STEPS
            found.append(Bbox.from_extents(x - 1, y - 1, x + 1, y + 1))
    return found


def _around(axes: Axes, mark: Mark) -> Bbox:
    from matplotlib.transforms import Bbox

    x, y = axes.transData.transform((mark.latency_ms, 100 * mark.top1))
    return Bbox.from_extents(x - 5, y - 5, x + 5, y + 5)
