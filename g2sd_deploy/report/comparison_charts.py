"""Charts that only a comparison has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from g2sd_deploy.report import formatting
from g2sd_deploy.report.charts import drawable, legend, loss_axes, running_mean
from g2sd_deploy.report.summary import LossPoint
from g2sd_deploy.report.svg import COLOURS, figure, inline_svg

WIDTH_PX = 340  # three stand side by side
_SMOOTHING = 40  # of a curve, a window on either side of 1/40 of its points
_LEGEND_ROW_PX = 15


@dataclass(frozen=True)
class LossLine:
    """The losses of one run in a colour; at least one is finite."""

    run: str
    series: str
    history: Sequence[LossPoint]


def overlaid_losses(stage: str, lines: Sequence[LossLine]) -> str:
    """Running means of the losses of one stage in several runs, over epochs.

    Args:
        stage: Training stage.
        lines: At least one.
    """
    curves = [(line, *_smooth(line.history)) for line in lines]
    every = [loss for _, _, losses in curves for loss in losses]
    with figure(WIDTH_PX, height_px(len(lines))) as drawn:
        axes = drawn.subplots()
        for line, epochs, losses in curves:
            axes.plot(epochs, losses, color=COLOURS[line.series], linewidth=1.8, label=line.run)
        loss_axes(axes, max(*(epochs[-1] for _, epochs, _ in curves), 1e-9), every)
        legend(drawn, [line.run for line in lines], WIDTH_PX)
        ends = "; ".join(f"{line.run} from {formatting.loss(losses[0])} to {formatting.loss(losses[-1])}" for line, _, losses in curves)
        return inline_svg(drawn, f"losses-{stage}", f"Loss of stage {stage} in {len(lines)} runs", f"Smoothed: {ends}.")


def height_px(num_lines: int) -> int:
    """Height of a chart of curves with room for a legend of so many rows."""
    return 220 + _LEGEND_ROW_PX * num_lines


def _smooth(history: Sequence[LossPoint]) -> tuple[list[float], list[float]]:
    points = drawable(history)
    losses = [point.loss for point in points]
    return [point.epoch for point in points], running_mean(losses, half_width=max(len(losses) // _SMOOTHING, 1))
