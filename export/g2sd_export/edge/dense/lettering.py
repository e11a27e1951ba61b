"""Text in pictures, in the font that comes with Pillow."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from .palette import Colour, ink_on

PAD_PX = 3
"""Room around a text."""
_LEAST_PX, _MOST_PX = 11, 28
_SHARE = 32
_TALLEST = "Agj|"


def font_px_of(rows: int, columns: int) -> int:
    """Height of the letters that suit a picture."""
    return min(max(min(rows, columns) // _SHARE, _LEAST_PX), _MOST_PX)


def text_size(text: str, font_px: int) -> tuple[int, int]:
    """Columns and rows that a text takes, with the room around it.

    Args:
        text: One line.
        font_px: Height of the letters.
    """
    font = _font(font_px)
    left, _, right, _ = _measure().textbbox((0, 0), drawable(text), font=font)
    _, top, _, bottom = _measure().textbbox((0, 0), _TALLEST, font=font)  # the same for every text
    return int(right - left + 2 * PAD_PX), int(bottom - top + 2 * PAD_PX)


def draw_text(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, font_px: int, ink: Colour) -> None:
    """Write a text.

    Args:
        draw: Of the picture.
        place: Left and top of the text with the room around it.
        text: One line.
        font_px: Height of the letters.
        ink: Its colour.
    """
    font = _font(font_px)
    left, _, _, _ = _measure().textbbox((0, 0), drawable(text), font=font)
    _, top, _, _ = _measure().textbbox((0, 0), _TALLEST, font=font)
    draw.text((place[0] + PAD_PX - left, place[1] + PAD_PX - top), drawable(text), font=font, fill=ink)


def draw_tag(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, font_px: int, colour: Colour) -> None:
    """Write a text on a filled rectangle, in black or white, whichever is read better.

    Args:
        draw: Of the picture.
        place: Left and top of the rectangle.
        text: One line.
        font_px: Height of the letters.
        colour: Of the rectangle.
    """
    columns, rows = text_size(text, font_px)
    draw.rectangle((place[0], place[1], place[0] + columns - 1, place[1] + rows - 1), fill=colour)
    draw_text(draw, place, text, font_px, ink_on(colour))


def shortened(text: str, columns: int, font_px: int) -> str:
    """A text that fits into so many columns: its end is replaced by dots where it does not."""
    if text_size(text, font_px)[0] <= columns:
        return text
    while text and text_size(f"{text}...", font_px)[0] > columns:
        text = text[:-1]
    return f"{text.rstrip()}..." if text else ""


def drawable(text: str) -> str:
    """A text in one line as Pillow's own font can draw it: letters without their accents, question marks for those of other scripts."""
    plain = unicodedata.normalize("NFKD", " ".join(text.split()))
    letters = (letter for letter in plain if not unicodedata.combining(letter))
    return "".join(letter if letter.isascii() else "?" for letter in letters)


@lru_cache(maxsize=None)
def _font(font_px: int) -> Any:
    try:
        return ImageFont.load_default(font_px)
    except (TypeError, OSError, ImportError):  # before Pillow 10.1, or without FreeType: one small font of dots
        return ImageFont.load_default()


@lru_cache(maxsize=None)
def _measure() -> ImageDraw.ImageDraw:
    return ImageDraw.Draw(Image.new("RGB", (1, 1)))
