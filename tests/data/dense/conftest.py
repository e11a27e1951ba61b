"""Small data sets in each layout, written without the package's own code."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from g2sd_deploy.data.images import BadImage
from g2sd_deploy.errors import UserError


def photograph(number: int, size: tuple[int, int]) -> np.ndarray:
    """Pixels of image `number`, of a height and width."""
    return np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)


def refuse(call: Callable[[], object], message: str, kind: type[Exception] = UserError) -> None:
    """Expect one clear line."""
    with pytest.raises(kind, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.fixture
def refused() -> Callable[..., None]:
    """Expect a UserError of one line that matches."""
    return refuse


@pytest.fixture
def bad() -> Callable[[Callable[[], object], str], None]:
    """Expect a BadImage of one line that matches."""
    return lambda call, message: refuse(call, message, BadImage)


@dataclass
class CocoSet:
    """A COCO folder that can be damaged: change `held`, then `write`."""

    root: Path
    held: dict[str, Any] = field(default_factory=dict)
    masks: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.root / "annotations" / "instances_val.json"

    def write(self, split: str = "val", text: str | None = None) -> "CocoSet":
        self.file.parent.mkdir(parents=True, exist_ok=True)
        path = self.file.with_name(f"instances_{split}.json")
        path.write_text(json.dumps(self.held) if text is None else text, encoding="utf-8")
        for number, image in enumerate(self.held["images"]):
            file = self.root / split / image["file_name"]
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                Image.fromarray(photograph(number, (image["height"], image["width"]))).save(file, "PNG")
        return self

    def object(self, number: int) -> dict[str, Any]:
        """The annotation with this id."""
        found: dict[str, Any] = next(one for one in self.held["annotations"] if one["id"] == number)
        return found

    def copy(self, root: Path) -> "CocoSet":
        return CocoSet(root, copy.deepcopy(self.held), self.masks)


@pytest.fixture
def coco(tmp_path: Path) -> CocoSet:
    """Three images: objects as polygons, both kinds of run lengths, a crowd and a bare box; nothing in the second."""
    sizes = [(20, 30), (8, 8), (16, 12)]
    blob = np.zeros((20, 30), dtype=np.uint8)
    blob[3:9, 4:20] = 1
    blob[5, 25] = 1
    crowd = np.zeros((16, 12), dtype=np.uint8)
    crowd[:, 3:7] = 1
    runs = coco_mask.encode(np.asfortranarray(blob))
    square = np.zeros((20, 30), dtype=np.uint8)
    square[2:12, 10:15] = 1
    corner = np.zeros((20, 30), dtype=np.uint8)
    corner[12:18, 20:28] = 1
    corner[1:3, 1:5] = 1
    bare = np.zeros((16, 12), dtype=np.uint8)
    bare[4:9, 2:5] = 1
    flat = crowd.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, len(flat)]).tolist()
    held = {
        "info": {"year": 2026},
        "images": [
            {"id": 7 - i, "file_name": f"{i:04d}.png", "height": height, "width": width, "licence": None}
            for i, (height, width) in enumerate(sizes)
        ],
        "annotations": [
            {"id": 40, "image_id": 5, "category_id": 9, "iscrowd": 1, "segmentation": {"size": [16, 12], "counts": counts}},
            {"id": 10, "image_id": 7, "category_id": 3, "iscrowd": 0, "segmentation": [[10, 2, 15, 2, 15, 12, 10, 12]]},
            {"id": 20, "image_id": 7, "category_id": 9, "segmentation": {"size": [20, 30], "counts": runs["counts"].decode()}},
            {
                "id": 30,
                "image_id": 7,
                "category_id": 4,
                "bbox": [0, 0, 1, 1],
                "segmentation": [[20.0, 12.0, 28.0, 12.0, 28.0, 18.0, 20.0, 18.0], [1.0, 1.0, 5.0, 1.0, 5.0, 3.0, 1.0, 3.0]],
            },
            {"id": 50, "image_id": 5, "category_id": 3, "segmentation": [], "bbox": [2.0, 4.25, 3.0, 5.0]},
        ],
        "categories": [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 4, "name": "kite"}],
    }
    masks = {10: square, 20: blob, 30: corner, 40: crowd, 50: bare}
    return CocoSet(tmp_path / "coco", held, {number: mask.astype(bool) for number, mask in masks.items()}).write()


@dataclass
class MaskSet:
    """A folder of images and masks."""

    root: Path

    def put(self, split: str, name: str, values: np.ndarray, number: int = 0, palette: bool = False) -> None:
        """Write image `number` and its mask."""
        for kind in ("images", "annotations"):
            (self.root / kind / split / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(number, values.shape)).save(self.root / "images" / split / f"{name}.png")
        mask = Image.fromarray(values)
        if palette:
            mask.putpalette(np.random.default_rng(1).integers(0, 256, 768, dtype=np.uint8).tobytes())
        mask.save(self.mask(split, name))

    def mask(self, split: str, name: str) -> Path:
        return self.root / "annotations" / split / f"{name}.png"

    def image(self, split: str, name: str) -> Path:
        return self.root / "images" / split / f"{name}.png"


@pytest.fixture
def mask_set(tmp_path: Path) -> MaskSet:
    """Three pairs in `training`, one in `validation`, four classes; 255 and each class occur."""
    made = MaskSet(tmp_path / "set")
    for number, name in enumerate(("a", "b", "deep/c")):
        values = np.random.default_rng(number).integers(0, 4, (6 + number, 9), dtype=np.uint8)
        values[0, :3] = 255
        made.put("training", name, values, number, palette=name == "b")
    made.put("validation", "a", np.arange(20, dtype=np.uint8).reshape(4, 5) % 4, 9)
    (made.root / "classes.txt").write_text("ground\ncat\ndog\nkite\n")
    return made
