"""A picture of scenes for people: each beside its truth, and the colours of the classes."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from g2sd_deploy.data.dense.annotations import Annotated
from g2sd_deploy.data.scenes.source import DETECTION_CLASSES, SceneSamples
from g2sd_deploy.errors import UserError

_COLOURS = np.array(
    [
        (230, 25, 75),
        (60, 180, 75),
        (255, 225, 25),
        (67, 99, 216),
        (245, 130, 49),
        (145, 30, 180),
        (66, 212, 244),
        (240, 50, 230),
        (191, 239, 69),
        (250, 190, 212),
    ],
    np.uint8,
)
_GRID = (4, 3)
_SIDE_PX = 192
"""Side of a drawn scene; others are enlarged or shrunk to about that."""
_GAP_PX = 8
_LEGEND_PX = 46
_NUM_COLOURS = 220
"""Colours of the file beside those of the classes; few make it small."""


def draw_preview(samples: SceneSamples, file: Path) -> None:
    """Write the first scenes with their truth: what is seen of each garment, its outline and its box.

    Raises:
        UserError: The file cannot be written.
    """
    rows, columns = _GRID
    side = max(1, _SIDE_PX // samples.spec.image_px) * samples.spec.image_px
    cell = 2 * side + _GAP_PX
    sheet = Image.new("RGB", (columns * (cell + _GAP_PX) + _GAP_PX, rows * (side + _GAP_PX) + _GAP_PX + _LEGEND_PX), "white")
    for i in range(min(rows * columns, len(samples))):
        place = (_GAP_PX + (i % columns) * (cell + _GAP_PX), _GAP_PX + (i // columns) * (side + _GAP_PX))
        scene = samples.read(i)
        sheet.paste(_enlarged(scene.pixels, side), place)
        sheet.paste(_with_truth(scene, side), (place[0] + side + _GAP_PX // 2, place[1]))
    _draw_legend(sheet)
    try:
        _few_colours(sheet).save(file, "PNG", optimize=True)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror or error}; give a file that can be written") from None


def _few_colours(sheet: Image.Image) -> Image.Image:
    """The sheet in the colours that suit it best, and exactly those of the classes."""
    suited = sheet.quantize(_NUM_COLOURS).getpalette()
    assert suited is not None
    palette = Image.new("P", (1, 1))
    palette.putpalette([*suited[: 3 * _NUM_COLOURS], *_COLOURS.ravel().tolist(), 0, 0, 0, 255, 255, 255])
    return sheet.quantize(palette=palette, dither=Image.Dither.NONE)


def _enlarged(pixels: UInt8[np.ndarray, "height width 3"], side: int) -> Image.Image:
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)


def _with_truth(scene: Annotated, side: int) -> Image.Image:
    """A greyish scene with each garment in the colour of its class, and its box."""
    assert scene.instances is not None
    tinted = scene.pixels.mean(-1, keepdims=True).repeat(3, -1) * 0.5
    for label, mask in zip(scene.instances.labels, scene.instances.masks, strict=True):
        tinted[mask] = 0.5 * tinted[mask] + 0.6 * _COLOURS[label]
        tinted[mask & ~_inner(mask)] = _COLOURS[label]
    drawn = _enlarged(np.clip(tinted, 0, 255).astype(np.uint8), side)
    pen, scale = ImageDraw.Draw(drawn), side / scene.pixels.shape[0]
    for box, label in zip(scene.instances.boxes, scene.instances.labels, strict=True):
        left, top, right, bottom = (float(edge) * scale for edge in box)
        pen.rectangle((left, top, right - 1, bottom - 1), outline=tuple(_COLOURS[label].tolist()))
    return drawn


def _inner(mask: np.ndarray) -> np.ndarray:
    """Pixels whose four neighbours belong to the mask, too."""
    padded = np.pad(mask, 1)
    inner: np.ndarray = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inner


def _draw_legend(sheet: Image.Image) -> None:
    """Class names beside their colours, in two rows at the bottom."""
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    step = (sheet.width - 2 * _GAP_PX) // (len(DETECTION_CLASSES) // 2)
    for i, name in enumerate(DETECTION_CLASSES):
        left = _GAP_PX + (i // 2) * step
        top = sheet.height - _LEGEND_PX + (i % 2) * (_LEGEND_PX // 2)
        pen.rectangle((left, top, left + 16, top + 16), fill=tuple(_COLOURS[i].tolist()))
        pen.text((left + 22, top), name, fill="black", font=font)
