"""Pictures side by side with a caption over each: image, truth, teacher, student."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from .detections import Detections
from .drawing import coloured, draw_detections, draw_segmentation, legend, magnification, magnified, magnified_detections
from .lettering import draw_text, font_px_of, shortened, text_size

GAP_PX = 4
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def side_by_side(panels: Sequence[tuple[str, npt.NDArray[np.uint8]]]) -> npt.NDArray[np.uint8]:
    """Pictures in a row.

    Args:
        panels: Caption and uint8 [h, w, 3] of each, at least one, all of the same size.

    Returns:
        uint8 [rows, columns, 3], white between them; a caption that is too wide is cut short.

    Raises:
        ValueError: There are none, or their sizes differ.
    """
    shapes = {picture.shape for _, picture in panels}
    if len(shapes) != 1:
        raise ValueError(f"the pictures have shapes {sorted(shapes)}; wanted at least one, and all of one size")
    rows, columns, _ = shapes.pop()
    font_px = font_px_of(rows, columns)
    head = text_size("", font_px)[1]
    sheet = Image.new("RGB", (len(panels) * (columns + GAP_PX) - GAP_PX, head + rows), _WHITE)
    draw = ImageDraw.Draw(sheet)
    for index, (caption, picture) in enumerate(panels):
        left = index * (columns + GAP_PX)
        draw_text(draw, (left, 0), shortened(caption, columns, font_px), font_px, _BLACK)
        sheet.paste(Image.fromarray(picture), (left, head))
    return np.asarray(sheet, np.uint8)


def segmentation_panels(
    pixels: npt.NDArray[np.uint8], maps: Sequence[tuple[str, npt.NDArray[np.uint8]]], class_names: Sequence[str]
) -> npt.NDArray[np.uint8]:
    """The image and what each says of it, with one legend below; small images are magnified.

    Args:
        pixels: uint8 [h, w, c].
        maps: Caption and classes uint8 [h, w] of each.
        class_names: Of classes 0, 1, ...

    Returns:
        uint8 [rows, columns, 3].
    """
    times = magnification(*pixels.shape[:2])
    large = magnified(pixels, times)
    drawn = [(caption, draw_segmentation(large, magnified(classes, times), class_names)) for caption, classes in maps]
    row = side_by_side([("image", coloured(large)), *drawn])
    present = np.concatenate([classes.ravel() for _, classes in maps])[None] if maps else np.full((1, 1), 255, np.uint8)
    return np.concatenate([row, legend(present, class_names, row.shape[1], font_px_of(*large.shape[:2]))])


def detection_panels(
    pixels: npt.NDArray[np.uint8], found: Sequence[tuple[str, Detections]], class_names: Sequence[str]
) -> npt.NDArray[np.uint8]:
    """The image and what each finds in it; small images are magnified.

    Args:
        pixels: uint8 [h, w, c].
        found: Caption and objects of each, in pixels of the image.
        class_names: Of classes 0, 1, ...

    Returns:
        uint8 [rows, columns, 3].
    """
    times = magnification(*pixels.shape[:2])
    large = magnified(pixels, times)
    drawn = [(caption, draw_detections(large, magnified_detections(objects, times), class_names)) for caption, objects in found]
    return side_by_side([("image", coloured(large)), *drawn])
