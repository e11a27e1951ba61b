"""Charts of the report. Each takes plain numbers and returns SVG; matplotlib is imported when one is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from g2sd_deploy.report import formatting
from g2sd_deploy.report.scores import MODELS, Interval, shown_name
from g2sd_deploy.report.summary import STAGES_THAT_TRAIN, LossPoint
from g2sd_deploy.report.svg import COLOURS, figure, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_DRAWN_POINTS = 600
_LETTER_PX = 6.5  # mean width in the legend
LOG_SCALE_FROM = 8.0  # a curve that spans less than this factor is easier to read on a linear axis


def series(model: str) -> str:
    """Name of the colour of a model."""
    return model if model in MODELS else "other"


def stage_series(stage: str) -> str:
    """Name of the colour of the model that a training stage trains."""
    return next((model for model, stages in STAGES_THAT_TRAIN.items() if stage in stages), "other")


@dataclass(frozen=True)
class Bars:
    """One model's bars in a colour; values are fractions in [0, 1], None where it was not measured; intervals, where there are any, too."""

    model: str
    series: str
    values: Sequence[float | None]
    intervals: Sequence[Interval | None] = ()


@dataclass(frozen=True)
class Mark:
    """One measured model in the accuracy-latency plot."""

    model: str
    text: str
    latency_ms: float
    top1: float
    size_mib: float


def drawable(history: Sequence[LossPoint]) -> list[LossPoint]:
    """Points with a finite loss, thinned evenly to what a screen can show."""
    finite = [point for point in history if math.isfinite(point.loss)]
    stride = math.ceil(len(finite) / MAX_DRAWN_POINTS) or 1
    return finite[::stride]


def needs_log(losses: Sequence[float]) -> bool:
    """Is a log axis the better fit: all positive, and the largest many times the smallest?"""
    return min(losses) > 0 and max(losses) / min(losses) > LOG_SCALE_FROM


def loss_curve(stage: str, history: Sequence[LossPoint]) -> str:
    """Loss over epochs: each logged step thin, their running mean bold.

    Args:
        stage: Training stage.
        history: At least one point with a finite loss.
    """
    points = drawable(history)
    epochs, losses = [point.epoch for point in points], [point.loss for point in points]
    smooth = _running_mean(losses, half_width=max(len(losses) // 40, 1))
    colour = COLOURS[stage_series(stage)]
    with figure(340, 220) as drawn:
        axes = drawn.subplots()
        axes.plot(epochs, losses, color=colour, linewidth=0.9, alpha=0.35)
        axes.plot(epochs, smooth, color=colour, linewidth=2.0)
        axes.set_xlabel("epoch")
        axes.set_xlim(0, max(*epochs, 1e-9))
        axes.grid(axis="y")
        axes.spines["left"].set_visible(False)
        if needs_log(losses):
            _log_axis(axes, losses)
        else:
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.locator_params(axis="y", nbins=5)
        axes.set_title("loss" + (", log scale" if needs_log(losses) else ""), loc="left", fontsize=10.5, color=COLOURS["muted"])
        first, last = formatting.loss(smooth[0]), formatting.loss(smooth[-1])
        return inline_svg(drawn, f"loss-{stage}", f"Loss of stage {stage} over {epochs[-1]:g} epochs, smoothed: from {first} to {last}.")


def top1_bars(name: str, groups: Sequence[str], bars: Sequence[Bars], description: str) -> str:
    """Horizontal bars of top-1: one group per condition, one bar per model, the first group on top.

    Args:
        name: Of the chart, unique within the page.
        groups: Names of the conditions.
        bars: One per model, with a value for each group.
        description: For readers who do not see it.
    """
    height = 0.8 / len(bars)
    with figure(440, 54 + round(len(groups) * (14 + 10 * len(bars)))) as drawn:
        axes = drawn.subplots()
        for index, bar in enumerate(bars):
            middles = [group - 0.4 + height * (index + 0.5) for group in range(len(groups))]
            widths = [100 * (value or 0.0) for value in bar.values]
            axes.barh(middles, widths, height=height * 0.86, color=COLOURS[bar.series], label=bar.model)
            spans = [(middle, 100 * ends[0], 100 * ends[1]) for middle, ends in zip(middles, bar.intervals, strict=False) if ends]
            if spans:
                axes.hlines(*zip(*spans, strict=True), color=COLOURS["ink"], linewidth=1.2)
        axes.set_yticks(range(len(groups)), list(groups))
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} %")
        axes.grid(axis="x")
        axes.spines["bottom"].set_visible(False)
        legend(drawn, [bar.model for bar in bars], 440)
        return inline_svg(drawn, name, description)


def legend(drawn: Figure, models: Sequence[str], width_px: int) -> None:
    """Names above the chart: in one row where they fit, else one below the other."""
    needed = sum(30 + _LETTER_PX * len(model) for model in models)
    ncols = len(models) if needed <= width_px else 1
    most = int((width_px - 50) / _LETTER_PX)
    names = [name if len(name) <= most else f"{name[: most - 1]}…" for name in map(shown_name, models)]
    handles = drawn.axes[0].get_legend_handles_labels()[0]
    drawn.legend(
        handles,
        names,
        loc="outside upper left",
        ncols=ncols,
        frameon=False,
        fontsize=10.5,
        handlelength=1.0,
        handleheight=0.8,
        columnspacing=1.2,
    )


def accuracy_latency(marks: Sequence[Mark]) -> str:
    """Top-1 over latency; the area of a marker is proportional to the size of the model.

    Args:
        marks: At least one mark with a positive latency.
    """
    latencies = [mark.latency_ms for mark in marks]
    largest = max(mark.size_mib for mark in marks) or 1.0
    with figure(440, 300) as drawn:
        axes = drawn.subplots()
        for mark in marks:
            area = 1300 * mark.size_mib / largest
            colour = COLOURS[series(mark.model)]
            axes.scatter([mark.latency_ms], [100 * mark.top1], s=area, color=colour, alpha=0.85, linewidths=0)
        _frame_marks(axes, latencies, [100 * mark.top1 for mark in marks])
        for mark, above in zip(marks, _label_sides(marks), strict=True):
            radius = math.sqrt(1300 * mark.size_mib / largest / math.pi)
            _label_mark(axes, mark, radius + 5, above)
        axes.set_xlabel("p50 latency of one image, ms (left is faster)")
        axes.set_title("top-1 accuracy (up is better)", loc="left", fontsize=10.5, color=COLOURS["muted"])
        axes.grid()
        axes.spines[:].set_visible(False)
        told = "; ".join(f"{mark.text}: {formatting.percent(mark.top1)}, {formatting.milliseconds(mark.latency_ms)}" for mark in marks)
        return inline_svg(drawn, "accuracy-latency", f"Accuracy over latency. {told}.")


def _running_mean(values: Sequence[float], half_width: int) -> list[float]:
    """Mean over a centred window, cut off at the end; at the start, where a loss falls fastest, it shrinks and stays centred."""
    means = []
    for index in range(len(values)):
        reach = min(half_width, index)
        window = values[index - reach : index + reach + 1]
        means.append(sum(window) / len(window))
    return means


def _log_axis(axes: Axes, losses: Sequence[float]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0) if max(losses) / min(losses) < 100 else (1.0,)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _frame_marks(axes: Axes, latencies: Sequence[float], accuracies: Sequence[float]) -> None:
    """Leave room for markers and labels; the time axis starts at 0 unless it spans decades."""
    if max(latencies) / min(latencies) > 20:
        axes.set_xscale("log")
        axes.set_xlim(min(latencies) / 2, max(latencies) * 2.5)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        axes.set_xlim(0, max(latencies) * 1.25)
    room = max((max(accuracies) - min(accuracies)) * 0.45, 1.5)
    axes.set_ylim(min(accuracies) - room, max(accuracies) + room)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    axes.locator_params(axis="y", nbins=6)


def _label_sides(marks: Sequence[Mark]) -> list[bool]:
    """Above or below each mark: neighbours in time alternate, so labels of equal accuracy do not collide."""
    order = sorted(range(len(marks)), key=lambda index: (marks[index].latency_ms, marks[index].top1))
    sides = [True] * len(marks)
    for place, index in enumerate(order):
        sides[index] = place % 2 == 1
    return sides


def _label_mark(axes: Axes, mark: Mark, gap: float, above: bool) -> None:
    detail = f"{formatting.milliseconds(mark.latency_ms)} · {formatting.mib(mark.size_mib)}"
    place = float(axes.transAxes.inverted().transform(axes.transData.transform((mark.latency_ms, 100 * mark.top1)))[0])
    side = "left" if place < 0.18 else "right" if place > 0.82 else "center"
    axes.annotate(
        f"{mark.text}\n{detail}",
        (mark.latency_ms, 100 * mark.top1),
        xytext=({"left": -8, "right": 8}.get(side, 0), gap if above else -gap),
        textcoords="offset points",
        ha=side,
        va="bottom" if above else "top",
        fontsize=10.5,
        linespacing=1.35,
        annotation_clip=False,
    )
