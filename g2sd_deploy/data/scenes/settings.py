"""What a set of scenes is a function of, beside the garments that ship with the package."""

from dataclasses import asdict, dataclass
from typing import Any

from g2sd_deploy.errors import UserError

VERSION = 1
"""Version of the generator; another one means other bytes for the same seed."""
SPLITS = ("train", "test")
LEAST_VISIBLE_PX = 12
"""Pixels of a garment that have to be visible, whatever its share."""
_WIDEST = 0.7
"""Side above which a picture that is turned by 45 degrees no longer fits into the scene."""


@dataclass(frozen=True)
class SceneSpec:
    """Size and contents of scenes.

    Attributes:
        image_px: Side of a scene in pixels; 32 to 1024.
        max_garments: Most garments of a scene; 1 to 20.
        seed: Seed of everything that is drawn.
        smallest: Smallest side of a garment's picture (of 28 by 28 pixels), as a share of the scene's side.
        largest: Largest side of a garment's picture, as a share of the scene's side; at most 0.7.
        max_turn_deg: Most degrees by which a garment is turned to either side.
        min_visible: Share of a garment's own pixels that have to be visible; a garment that shows less is left out.
    """

    image_px: int = 64
    max_garments: int = 5
    seed: int = 0
    smallest: float = 0.3
    largest: float = 0.65
    max_turn_deg: float = 40.0
    min_visible: float = 0.3

    def __post_init__(self) -> None:
        _check("image_px", self.image_px, 32, 1024)
        _check("max_garments", self.max_garments, 1, 20)
        _check("seed", self.seed, 0, None)
        _check("largest", self.largest, 0.2, _WIDEST)
        _check("smallest", self.smallest, 0.2, self.largest)
        _check("max_turn_deg", self.max_turn_deg, 0, 180)
        _check("min_visible", self.min_visible, 0, 1)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; `SceneSpec(**...)` reads them."""
        return asdict(self)


def _check(name: str, value: int | float, least: int | float, most: int | float | None) -> None:
    if value < least or (most is not None and value > most):
        wanted = f"at least {least:g}" if most is None else f"{least:g} to {most:g}"
        raise UserError(f"scenes: {name} is {value}; give {wanted}")
