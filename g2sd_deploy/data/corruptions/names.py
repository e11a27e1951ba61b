"""Names of the corruptions. Standard library only, so that settings can be read without loading numpy or scipy."""

import difflib
from typing import Literal, get_args

from g2sd_deploy.data.corruptions.severities import severity_table
from g2sd_export.edge.errors import UserError

CorruptionName = Literal[
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
]
CORRUPTION_NAMES: tuple[CorruptionName, ...] = get_args(CorruptionName)
SEVERITIES = (1, 2, 3, 4, 5)
MEAN_CORRUPTIONS = (*CORRUPTION_NAMES[:8], "frost", *CORRUPTION_NAMES[8:])
"""The 15 that ImageNet-C stores and that the mean corruption error is the mean of; frost alone is not regenerated here."""
EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""Four more that ImageNet-C stores, for validation; part of no mean."""


def corruption_from_name(text: str) -> CorruptionName:
    """Check a name that a person typed.

    Raises:
        UserError: No such corruption; the message names the nearest one.
    """
    for name in CORRUPTION_NAMES:
        if text == name:
            return name
    if text == "frost":
        raise UserError("The corruption 'frost' is not available: it needs the picture files of ImageNet-C. Take it off the list.")
    nearest = difflib.get_close_matches(str(text), CORRUPTION_NAMES, n=1, cutoff=0)[0]
    raise UserError(f"Unknown corruption {text!r}: did you mean {nearest!r}? Known: {', '.join(CORRUPTION_NAMES)}.")


def corruption_note(image_px: int) -> str:
    """One line for reports: what was regenerated, with which constants, and what is left out."""
    table_px = severity_table(image_px).image_px
    origin = {32: "CIFAR-10-C", 64: "Tiny-ImageNet-C", 224: "ImageNet-C"}[table_px]
    return f"ImageNet-C-style (regenerated): {origin} severity constants ({table_px} px) on {image_px} px images, without frost"
