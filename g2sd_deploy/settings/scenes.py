"""What the scenes that a recipe composes look like."""

from pydantic import NonNegativeInt, PositiveInt

from g2sd_deploy.settings.base import Fraction, Positive, Settings


class SceneSettings(Settings):
    """Contents of composed scenes, for data.source scenes; `g2sd data scenes` has the same options. docs/scenes.md says more."""

    max_garments: PositiveInt = 5
    """Most garments of a scene, up to 20; each number from 1 is as likely."""
    smallest: Positive = 0.3
    """Smallest side of a garment's picture, as a share of the scene's side; at least 0.2."""
    largest: Positive = 0.65
    """Largest side of a garment's picture, as a share of the scene's side; at most 0.7."""
    max_turn_deg: float = 40.0
    """Most degrees by which a garment is turned to either side; 0 to 180."""
    min_visible: Fraction = 0.3
    """Share of a garment's own pixels that have to be visible; a garment that shows less is left out."""
    seed: NonNegativeInt = 0
    """Seed of the scenes, apart from the recipe's: another one gives other scenes."""
