"""Pictures of an evaluation as a block of the page: embedded, each with its text alternative."""

from __future__ import annotations

import base64
import io

from g2sd_deploy.report import formatting
from g2sd_deploy.report.dense_scores import DenseEvaluation, Picture
from g2sd_deploy.report.document import Panel, Pictures
from g2sd_deploy.report.scores import MODELS

_LARGEST_BYTES = 150 * 1024
_LARGEST_PX = 800
_QUALITY = 85
_FIRST = ("image", "truth")


def pictures_block(dense: DenseEvaluation) -> Pictures:
    """One row a test image: the image, its truth, then each model's answer."""
    names = [name for name in (*_FIRST, *MODELS) if any(name in picture.pngs for picture in dense.pictures)]
    rows = tuple(
        tuple(_panel(dense, picture, name, number) for name in names if name in picture.pngs)
        for number, picture in enumerate(dense.pictures, start=1)
    )
    return Pictures(tuple(formatting.label(name) for name in names), rows)


def data_uri(png: bytes) -> str:
    """A PNG inside a page: as it is where it is small, else shrunk to what a page shows and compressed."""
    if len(png) <= _LARGEST_BYTES:
        return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    from PIL import Image

    with Image.open(io.BytesIO(png)) as opened:
        image = opened.convert("RGB")
    image.thumbnail((_LARGEST_PX, _LARGEST_PX))
    written = io.BytesIO()
    image.save(written, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode("ascii")


def _panel(dense: DenseEvaluation, picture: Picture, name: str, number: int) -> Panel:
    drawn = {"segmentation": "classes", "detection": "boxes and masks"}[dense.task]
    words = {"image": f"Test image {number}", "truth": f"Test image {number} with its true {drawn}"}
    alternative = words.get(name, f"Test image {number} with the {drawn} that the {name} finds")
    return Panel(formatting.label(name), data_uri(picture.pngs[name]), alternative, f"evaluate/{picture.files[name]}")
