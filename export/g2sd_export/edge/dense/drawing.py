"""Answers drawn on the image: classes as colours with a legend, objects as boxes, masks and names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from .detections import Detections
from .lettering import draw_tag, draw_text, font_px_of, shortened, text_size
from .palette import colour_of, colours

_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
_LEAST_SIDE_PX = 320
_BACKGROUND = "background"


def draw_segmentation(
    pixels: npt.NDArray[np.uint8], classes: npt.NDArray[np.uint8], class_names: Sequence[str], *, opacity: float = 0.6
) -> npt.NDArray[np.uint8]:
    """Classes as colours over the grey image, with a thin line where two of them meet.

    Args:
        pixels: uint8 [h, w, c], 1 or 3 channels.
        classes: uint8 [h, w]; values without a name, as 255 for what is ignored, and a class called "background" leave the image as it is.
        class_names: Of classes 0, 1, ...
        opacity: Of the colours, in [0, 1].

    Returns:
        uint8 [h, w, 3].
    """
    picture = coloured(pixels)
    named = _is_painted(class_names)[classes]
    grey = np.asarray(Image.fromarray(picture).convert("L"), np.float32)[..., None]
    tints = colours(256)[classes].astype(np.float32)
    mixed = np.where(named[..., None], (1 - opacity) * grey + opacity * tints, picture)
    mixed[_borders(classes) & named] = 255
    return np.round(mixed).astype(np.uint8)


def legend(classes: npt.NDArray[np.uint8], class_names: Sequence[str], columns: int, font_px: int) -> npt.NDArray[np.uint8]:
    """Colour and name of each class that is there and painted, the most frequent first.

    Args:
        classes: uint8 [h, w].
        class_names: Of classes 0, 1, ...
        columns: Width of the picture.
        font_px: Height of the letters.

    Returns:
        uint8 [rows, columns, 3], dark on white; no rows where no class has a name.
    """
    counts = np.bincount(classes.ravel(), minlength=256) * _is_painted(class_names)
    present = [int(index) for index in np.argsort(-counts, kind="stable") if counts[index]]
    height = text_size("", font_px)[1]
    places, left, top = [], 0, 0
    for index in present:
        name = shortened(class_names[index], columns - height, font_px)
        wide = height + text_size(name, font_px)[0]
        if left and left + wide > columns:
            left, top = 0, top + height
        places.append((left, top, index, name))
        left += wide
    image = Image.new("RGB", (columns, top + height if present else 0), _WHITE)
    draw = ImageDraw.Draw(image)
    for left, top, index, name in places:
        draw.rectangle((left + 2, top + 2, left + height - 3, top + height - 3), fill=colour_of(index), outline=_BLACK)
        draw_text(draw, (left + height, top), name, font_px, _BLACK)
    return np.asarray(image, np.uint8).reshape(image.height, columns, 3)


def draw_detections(
    pixels: npt.NDArray[np.uint8], found: Detections, class_names: Sequence[str], *, opacity: float = 0.45
) -> npt.NDArray[np.uint8]:
    """Boxes, masks that the image shows through, and "name 0.93"; the surest lie on top.

    Args:
        pixels: uint8 [h, w, c], 1 or 3 channels.
        found: In pixels of this image.
        class_names: Of classes 0, 1, ...
        opacity: Of the masks, in [0, 1].

    Returns:
        uint8 [h, w, 3].
    """
    mixed = coloured(pixels).astype(np.float32)
    for index in reversed(range(len(found))):
        mask = found.masks[index]
        mixed[mask] = (1 - opacity) * mixed[mask] + opacity * np.asarray(colour_of(int(found.labels[index])), np.float32)
    image = Image.fromarray(np.round(mixed).astype(np.uint8))
    draw, (rows, columns) = ImageDraw.Draw(image), pixels.shape[:2]
    font_px, wide = font_px_of(rows, columns), 1 + min(rows, columns) // 300
    for index in reversed(range(len(found))):
        left, top, right, bottom = (float(value) for value in found.boxes[index])
        colour = colour_of(int(found.labels[index]))
        corners = _inside(left, columns), _inside(top, rows), _inside(right - 1, columns), _inside(bottom - 1, rows)
        corners = (*corners[:2], max(corners[0], corners[2]), max(corners[1], corners[3]))
        draw.rectangle(corners, outline=colour, width=wide)
        text = f"{class_names[int(found.labels[index])]} {float(found.scores[index]):.2f}"
        tag_columns, tag_rows = text_size(text, font_px)
        above = corners[1] - tag_rows if corners[1] >= tag_rows else corners[1]
        draw_tag(draw, (max(0, min(corners[0], columns - tag_columns)), above), text, font_px, colour)
    return np.asarray(image, np.uint8)


def _is_painted(class_names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Of the 256 values of a map of classes, those that are drawn."""
    painted = np.zeros(256, np.bool_)
    painted[: len(class_names)] = [name != _BACKGROUND for name in class_names]
    return painted


def coloured(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """uint8 [h, w, 1 or 3] as uint8 [h, w, 3], a copy."""
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels.copy()


def magnification(rows: int, columns: int) -> int:
    """How many times a small image is enlarged before it is drawn on, so that names can be read."""
    return max(1, -(-_LEAST_SIDE_PX // max(rows, columns)))


def magnified(values: npt.NDArray[np.uint8], times: int) -> npt.NDArray[np.uint8]:
    """Each pixel of [h, w, ...] as a square of ``times`` pixels."""
    return values if times == 1 else values.repeat(times, axis=0).repeat(times, axis=1)


def magnified_detections(found: Detections, times: int) -> Detections:
    """Objects on the magnified image."""
    if times == 1:
        return found
    masks = found.masks.repeat(times, axis=1).repeat(times, axis=2)
    return Detections(found.boxes * np.float32(times), found.scores, found.labels, masks)


def _inside(value: float, length: int) -> int:
    return int(min(max(round(value), 0), length - 1))


def _borders(classes: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Pixels whose neighbour at the right or below is of another class."""
    borders = np.zeros(classes.shape, np.bool_)
    borders[:, :-1] |= classes[:, 1:] != classes[:, :-1]
    borders[:-1] |= classes[1:] != classes[:-1]
    return borders
