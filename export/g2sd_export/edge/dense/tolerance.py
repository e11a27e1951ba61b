"""How far two answers for pixels or objects may differ."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Union

from ..agreement import ParityTolerance
from ..errors import UserError


@dataclass(frozen=True)
class PixelTolerance:
    """How far two maps of classes may differ.

    Attributes:
        changed_share: Share in [0, 1] of all pixels whose class may change.
        changed_share_of_image: The same, of the pixels of any one image.

    Raises:
        UserError: A value lies outside its range.
    """

    changed_share: float = 0.0
    changed_share_of_image: float = 0.0

    def __post_init__(self) -> None:
        for key, value in dataclasses.asdict(self).items():
            _check_share(key, value)

    def to_dict(self) -> dict[str, float]:
        """Plain JSON values; ``tolerance_from_dict`` reads them."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class BoxTolerance:
    """How far two lists of objects may differ.

    Attributes:
        unmatched_share: Share in [0, 1] of the objects of both that have no partner of their class in the other.
        max_score_diff: Largest difference of the scores of two partners, in [0, 1].
        max_box_shift_px: Largest difference of a border of their boxes, in pixels of the network's input.
        changed_mask_share: Share in [0, 1] of the cells of the partners' masks that may change sides.

    Raises:
        UserError: A value lies outside its range.
    """

    unmatched_share: float = 0.0
    max_score_diff: float = 0.0
    max_box_shift_px: float = 0.0
    changed_mask_share: float = 0.0

    def __post_init__(self) -> None:
        for key in ("unmatched_share", "max_score_diff", "changed_mask_share"):
            _check_share(key, getattr(self, key))
        if not (math.isfinite(self.max_box_shift_px) and self.max_box_shift_px >= 0):
            raise UserError(f"tolerance: max_box_shift_px is {self.max_box_shift_px}; it must be a finite number of at least 0")

    def to_dict(self) -> dict[str, float]:
        """Plain JSON values; ``tolerance_from_dict`` reads them."""
        return dataclasses.asdict(self)


DenseTolerance = Union[PixelTolerance, BoxTolerance]
AnyTolerance = Union[ParityTolerance, PixelTolerance, BoxTolerance]


def tolerance_from_dict(values: Mapping[str, Any]) -> DenseTolerance:
    """Read what one of the two wrote: the keys tell which.

    Raises:
        UserError: The keys are those of neither, or a value is no number or lies outside its range.
    """
    for cls in (PixelTolerance, BoxTolerance):
        if set(values) == {field.name for field in dataclasses.fields(cls)}:
            if not all(type(value) in (int, float) for value in values.values()):
                break
            return cls(**{key: float(value) for key, value in values.items()})
    wanted = "; or ".join(", ".join(field.name for field in dataclasses.fields(cls)) for cls in (PixelTolerance, BoxTolerance))
    raise UserError(f"tolerance: it holds {dict(values)}; wanted numbers for {wanted}")


def read_tolerance(values: Mapping[str, Any]) -> AnyTolerance:
    """Read a tolerance of a manifest, of whichever task.

    Raises:
        UserError: As ``tolerance_from_dict`` and ``ParityTolerance.from_dict`` say it.
    """
    return tolerance_from_dict(values) if {"changed_share", "unmatched_share"} & set(values) else ParityTolerance.from_dict(values)


def fits(tolerance: AnyTolerance | None, kind: str | None) -> bool:
    """Whether a tolerance, where there is one, is of the task of this kind; None is a classifier's."""
    wanted = {None: ParityTolerance, "segmentation": PixelTolerance, "detection": BoxTolerance}[kind]
    return tolerance is None or isinstance(tolerance, wanted)


def _check_share(key: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"tolerance: {key} is {value}; it must lie between 0 and 1")
