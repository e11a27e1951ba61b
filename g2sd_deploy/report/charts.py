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
    smooth = running_mean(losses, half_width=max(len(losses) // 40, 1))
    colour = COLOURS[stage_series(stage)]
    with figure(340, 220) as drawn:
        axes = drawn.subplots()
        axes.plot(epochs, losses, color=colour, linewidth=0.9, alpha=0.35)
        axes.plot(epochs, smooth, color=colour, linewidth=2.0)
        loss_axes(axes, max(*epochs, 1e-9), losses)
        first, last = formatting.loss(smooth[0]), formatting.loss(smooth[-1])
        told = f"Over {epochs[-1]:g} epochs, smoothed: from {first} to {last}."
        return inline_svg(drawn, f"loss-{stage}", f"Loss of stage {stage}", told)


def top1_bars(name: str, groups: Sequence[str], bars: Sequence[Bars], title: str) -> str:
    """Horizontal bars of top-1: one group per condition, one bar per model, the first group on top.

    Args:
        name: Of the chart, unique within the page.
        groups: Names of the conditions.
        bars: One per model, with a value for each group.
        title: For readers who do not see it.
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
        return inline_svg(drawn, name, title, "The table beside it holds the numbers.")


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


def running_mean(values: Sequence[float], half_width: int) -> list[float]:
    """Mean over a centred window, cut off at the end; at the start, where a loss falls fastest, it shrinks and stays centred."""
    means = []
    for index in range(len(values)):
        reach = min(half_width, index)
        window = values[index - reach : index + reach + 1]
        means.append(sum(window) / len(window))
    return means


def loss_axes(axes: Axes, last_epoch: float, losses: Sequence[float]) -> None:
    """Epochs from 0 on, and losses on a scale that shows all of them."""
    axes.set_xlabel("epoch")
    axes.set_xlim(0, last_epoch)
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    if needs_log(losses):
        log_axis(axes, losses)
    else:
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.locator_params(axis="y", nbins=5)
    axes.set_title("loss" + (", log scale" if needs_log(losses) else ""), loc="left", fontsize=10.5, color=COLOURS["muted"])


def log_axis(axes: Axes, losses: Sequence[float]) -> None:
    """A log scale with round numbers on it."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0) if max(losses) / min(losses) < 100 else (1.0,)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
