"""Chart of the terms of a loss over the epochs of a stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from g2sd_deploy.report import formatting
from g2sd_deploy.report.charts import drawable, legend, loss_axes, running_mean
from g2sd_deploy.report.summary import LossPoint
from g2sd_deploy.report.svg import COLOURS, figure, inline_svg

_SERIES = ("student", "baseline", "green", "rose", "other", "teal", "brown", "teacher")
_WIDTH_PX, _LEGEND_ROW_PX = 340, 15
_NAMES = {
    "ce": "Cross-entropy",
    "aux": "Auxiliary head",
    "cwd": "Distillation, channel-wise",
    "rpn_objectness": "Proposals, objectness",
    "rpn_box": "Proposals, boxes",
    "region_class": "Regions, classes",
    "region_box": "Regions, boxes",
    "region_mask": "Regions, masks",
    "frs_feature": "Distillation, features",
    "frs_objectness": "Distillation, objectness",
}
_SMOOTHING = 40  # a window on either side of 1/40 of the points


@dataclass(frozen=True)
class TermLine:
    """One term: where it was logged and how large it was, smoothed."""

    name: str
    epochs: Sequence[float]
    values: Sequence[float]


def term_name(term: str) -> str:
    """What a term is called on the page."""
    return _NAMES.get(term, formatting.label(term))


def drawable_terms(history: Sequence[LossPoint]) -> tuple[TermLine, ...]:
    """Terms with a finite value that is not 0, the largest at the end first; as many as there are colours."""
    names = dict.fromkeys(name for point in history for name in point.terms)
    lines = [line for name in names if (line := _line(name, history)) is not None]
    return tuple(sorted(lines, key=lambda line: -line.values[-1])[: len(_SERIES)])


def term_curves(stage: str, lines: Sequence[TermLine]) -> str:
    """Running means of the terms.

    Args:
        stage: Training stage.
        lines: At least one, no more than `drawable_terms` gives.
    """
    shown = [term_name(line.name) for line in lines]
    every = [value for line in lines for value in line.values]
    with figure(_WIDTH_PX, 200 + _LEGEND_ROW_PX * len(lines)) as drawn:
        axes = drawn.subplots()
        for line, name, series in zip(lines, shown, _SERIES, strict=False):
            axes.plot(line.epochs, line.values, color=COLOURS[series], linewidth=1.8, label=name)
        loss_axes(axes, max(*(line.epochs[-1] for line in lines), 1e-9), every)
        legend(drawn, shown, _WIDTH_PX)
        ends = (
            f"{name} from {formatting.loss(line.values[0])} to {formatting.loss(line.values[-1])}"
            for line, name in zip(lines, shown, strict=True)
        )
        return inline_svg(drawn, f"terms-{stage}", f"Terms of the loss of stage {stage}", f"Smoothed: {'; '.join(ends)}.")


def _line(name: str, history: Sequence[LossPoint]) -> TermLine | None:
    """A term as if it were the loss; None where there is nothing to draw."""
    points = drawable([replace(point, loss=point.terms[name]) for point in history if name in point.terms])
    if not any(math.isfinite(point.loss) and point.loss != 0 for point in points):
        return None
    smooth = running_mean([point.loss for point in points], half_width=max(len(points) // _SMOOTHING, 1))
    return TermLine(name, [point.epoch for point in points], smooth)
