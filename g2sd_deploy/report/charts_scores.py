"""Charts of calibration, selective prediction and occlusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from g2sd_deploy.report import formatting
from g2sd_deploy.report.charts import legend
from g2sd_deploy.report.scores import Bin, Interval, RiskCoverage
from g2sd_deploy.report.svg import COLOURS, figure, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LARGEST_DOT = 260.0  # square points


@dataclass(frozen=True)
class Line:
    """One model's curve in a colour; x and y are fractions, intervals of y may be empty."""

    model: str
    series: str
    x: Sequence[float]
    y: Sequence[float]
    intervals: Sequence[Interval] = ()


def reliability_diagram(name: str, model: str, series: str, bins: Sequence[Bin]) -> str:
    """Accuracy over confidence: a dot per bin whose area is its share of the images, and a line from each to the diagonal.

    Args:
        name: Of the chart, unique within the page.
        model: What is described.
        series: Its colour.
        bins: At least one bin holds an image.
    """
    filled = [(item.num, item.confidence, item.accuracy) for item in bins if item.confidence is not None and item.accuracy is not None]
    largest = max(num for num, _, _ in filled)
    with figure(280, 250) as drawn:
        axes = drawn.subplots()
        axes.plot([0, 100], [0, 100], color=COLOURS["muted"], linewidth=1.0, linestyle=(0, (4, 3)))
        for num, confidence, accuracy in filled:
            axes.plot([100 * confidence] * 2, [100 * confidence, 100 * accuracy], color=COLOURS[series], linewidth=1.2, alpha=0.6)
            area = max(_LARGEST_DOT * num / largest, 5.0)
            axes.scatter([100 * confidence], [100 * accuracy], s=area, color=COLOURS[series], alpha=0.9, linewidths=0, clip_on=False)
        _percent_axes(axes, "confidence")
        axes.set_ylim(0, 100)
        axes.set_title("accuracy", loc="left", fontsize=10.5, color=COLOURS["muted"])
        worst = max(abs(accuracy - confidence) for _, confidence, accuracy in filled)
        gap = formatting.percent(worst, 1)
        told = f"In {len(filled)} bins of confidence; the largest gap to the diagonal is {gap}."
        return inline_svg(drawn, name, f"Reliability of {model}", told)


def risk_coverage_curves(name: str, curves: Sequence[tuple[str, str, RiskCoverage]]) -> str:
    """Share of wrong decisions over the share of images that a model decides, the surest first.

    Args:
        name: Of the chart, unique within the page.
        curves: Model, colour and curve; at least one.
    """
    lines = [Line(model, series, curve.coverage, curve.risk) for model, series, curve in curves]
    return line_chart(name, lines, ("images decided, surest first", "wrong decisions"), "Risk over coverage", (280, 250))


def line_chart(name: str, lines: Sequence[Line], axis_titles: tuple[str, str], title: str, size_px: tuple[int, int]) -> str:
    """Curves of fractions, with bands where there are intervals.

    Args:
        name: Of the chart, unique within the page.
        lines: At least one.
        axis_titles: Of x and of y.
        title: For readers who do not see it.
        size_px: Width and height.
    """
    with figure(*size_px) as drawn:
        axes = drawn.subplots()
        for line in lines:
            share = [100 * value for value in line.x]
            if line.intervals:
                low, high = ([100 * ends[side] for ends in line.intervals] for side in (0, 1))
                axes.fill_between(share, low, high, color=COLOURS[line.series], alpha=0.16, linewidth=0)
            axes.plot(share, [100 * value for value in line.y], color=COLOURS[line.series], linewidth=1.9, label=line.model)
        _percent_axes(axes, axis_titles[0])
        axes.set_ylim(bottom=0)
        axes.set_title(axis_titles[1], loc="left", fontsize=10.5, color=COLOURS["muted"])
        legend(drawn, [line.model for line in lines], size_px[0])
        ends = (f"{line.model} from {formatting.percent(line.y[0], 1)} to {formatting.percent(line.y[-1], 1)}" for line in lines)
        return inline_svg(drawn, name, title, f"{axis_titles[1].capitalize()} over {axis_titles[0]}: {'; '.join(ends)}.")


def _percent_axes(axes: Axes, x_title: str) -> None:
    """Both axes in percent, a light grid, no frame on the left."""
    axes.set_xlim(0, 100)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel(f"{x_title}, %")
    axes.tick_params(axis="x", pad=6)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    axes.locator_params(axis="y", nbins=6)
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
