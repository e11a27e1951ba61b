"""Charts of what happens inside the models: similarity of layers and attention distance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from g2sd_deploy.report import formatting
from g2sd_deploy.report.scores import HeadDistances, LayerPair
from g2sd_deploy.report.svg import COLOURS, figure, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_TICKS = 9
_BAR_STEPS = 10


def similarity_map(name: str, pair: LayerPair) -> str:
    """CKA of every pair of layers as a map: from the colour of the page (0) to full colour (1), so it reads on light and on dark pages.

    Args:
        name: Of the chart, unique within the page.
        pair: The similarities.
    """
    with figure(300, 290) as drawn:
        axes, bar = drawn.subplots(1, 2, width_ratios=[24, 1])
        axes.pcolormesh(_shades(pair.cka), edgecolors=COLOURS["paper"], linewidth=0.4)
        for axis, layers, model in ((axes.xaxis, pair.columns, pair.name), (axes.yaxis, pair.rows, pair.reference)):
            shown = _ticks(len(layers))
            axis.set_ticks([index + 0.5 for index in shown], [str(index) for index in shown])
            axis.set_label_text(f"layer of {model} (0: {layers[0]})")
        axes.spines[:].set_visible(False)
        _colour_bar(bar)
        equal = [value for value in pair.at_equal_depth() if value is not None]
        mean = formatting.significant(sum(equal) / len(equal)) if equal else "unknown"
        sizes = f"{len(pair.rows)} layers of {pair.reference} and {len(pair.columns)} of {pair.name}"
        return inline_svg(drawn, name, f"CKA of {pair.name} and {pair.reference}", f"Between {sizes}; at equal depth {mean} on average.")


def distance_dots(name: str, found: HeadDistances, series: str, top_px: float) -> str:
    """Mean attention distance of every head over the blocks, and the mean of the heads as a line, broken where nothing is known.

    Args:
        name: Of the chart, unique within the page.
        found: Distances; at least one block.
        series: Colour of the model.
        top_px: Upper end of the axis, the same for charts that are compared.
    """
    blocks = range(1, len(found.px) + 1)
    known = [[value for value in heads if value is not None] for heads in found.px]
    means = [sum(heads) / len(heads) if heads else math.nan for heads in known]
    with figure(300, 220) as drawn:
        axes = drawn.subplots()
        for block, heads in zip(blocks, known, strict=True):
            axes.scatter([block] * len(heads), heads, s=22, color=COLOURS[series], alpha=0.6, linewidths=0)
        axes.plot(blocks, means, color=COLOURS[series], linewidth=1.6)
        axes.set_ylim(0, top_px)
        axes.set_xlim(0.4, len(found.px) + 0.6)
        axes.set_xticks([index + 1 for index in _ticks(len(found.px))])
        axes.set_xlabel("block")
        axes.set_title(f"px of {found.image_px}", loc="left", fontsize=10.5, color=COLOURS["muted"])
        axes.grid(axis="y")
        axes.spines["left"].set_visible(False)
        first, last = formatting.significant(means[0]), formatting.significant(means[-1])
        told = f"Over {len(found.px)} blocks; mean of the heads from {first} px to {last} px."
        return inline_svg(drawn, name, f"Attention distance of {found.name}", told)


def _shades(values: Sequence[Sequence[float | None]]) -> list[list[tuple[float, float, float, float]]]:
    """A colour for each value of 0 to 1: one hue, as opaque as the value is large; clear where there is none."""
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(COLOURS["heat"])
    return [[(red, green, blue, min(max(value or 0.0, 0.0), 1.0)) for value in row] for row in values]


def _colour_bar(bar: Axes) -> None:
    bar.pcolormesh(_shades([[(step + 0.5) / _BAR_STEPS] for step in range(_BAR_STEPS)]), edgecolors=COLOURS["paper"], linewidth=0.4)
    bar.set_title("CKA", loc="left", fontsize=10.5, color=COLOURS["muted"])
    bar.set_xticks([])
    bar.yaxis.tick_right()
    bar.set_yticks([0, _BAR_STEPS / 2, _BAR_STEPS], ["0", "0.5", "1"])
    bar.spines[:].set_visible(False)


def _ticks(count: int) -> range:
    """Places that are named: all, or every second, third, ... so that they do not touch."""
    return range(0, count, -(-count // _MAX_TICKS))
