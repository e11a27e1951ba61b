"""Images with objects in the layout of COCO: SPLIT/NAME.jpg and annotations/instances_SPLIT.json."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from g2sd_deploy.data.dense.annotations import Annotated, Instances
from g2sd_deploy.data.dense.coco_file import Category, CocoFile, read_categories, read_coco
from g2sd_deploy.data.dense.masks import box_of_mask, mask_of_box
from g2sd_deploy.data.dense.reading import ABSENT, existing_folder, file_arrays, listed_files, rgb_pixels, save_listing
from g2sd_deploy.data.dense.segments import Kind, mask_of
from g2sd_deploy.data.images import BadImage, picks_of
from g2sd_deploy.data.sources.base import fingerprint_of
from g2sd_deploy.data.sources.listing import Listing
from g2sd_deploy.errors import UserError

SOURCE = "coco"
_PREFIX = "instances_"
_SLACK_PX = 1.0
"""Boxes may reach this far over the border: COCO's own do, by rounding."""


class CocoFolder:
    """Folders of images, and one annotation file for each."""

    def __init__(self, root: str | Path) -> None:
        """`root`: as `DataSettings.root`.

        Raises:
            UserError: It is no folder.
        """
        self._root = existing_folder(root)

    @property
    def description(self) -> str:
        return f"Images with objects of the folder {self._root.resolve().name}, annotated as COCO."

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the categories, in the order of the smallest annotation file."""
        return tuple(category.name for category in self._categories)

    def fingerprint(self) -> str:
        files = sorted(self._annotations().values())
        held = [file for split in self._annotations() for file in sorted((self._root / split).rglob("*")) if file.is_file()]
        return fingerprint_of(self._root, [*files, *held])

    def samples(self, split: str, limit: int | None) -> "CocoSamples":
        path = self._annotations().get(split)
        folder = self._root / split
        if path is None or not folder.is_dir():
            missing = self._file(split) if path is None else folder
            have = ", ".join(self._annotations()) or "none"
            raise UserError(
                f"{missing}: is not there (found annotations of {have}); correct data.root, data.train_split and data.test_split"
            )
        held = read_coco(path)
        labels = self._labels(held, path)
        picks = picks_of(len(held.images.ids), limit)
        files = file_arrays(self._root, [folder / held.images.names[i] for i in picks])
        if (files["sizes"] == ABSENT).all():
            first = folder / held.images.names[picks[0]]
            raise UserError(
                f"{folder}: holds none of the images of {path.name} (the first is {first.name}); put them there, or correct data.root"
            )
        about = {"num_classes": len(self._categories)}
        where = {"source": SOURCE, "root": str(self._root.resolve())}
        return CocoSamples(Listing(SOURCE, about, where, files | _arrays(held, labels, picks)))

    @cached_property
    def _categories(self) -> tuple[Category, ...]:
        files = sorted(self._annotations().values(), key=lambda file: (file.stat().st_size, file.name))
        if not files:
            raise UserError(f"{self._file('SPLIT')}: there is no annotation file of that name; put it there, or correct data.root")
        return read_categories(files[0])

    def _annotations(self) -> dict[str, Path]:
        """Annotation file of each split."""
        return {file.stem.removeprefix(_PREFIX): file for file in sorted(self._root.glob(f"annotations/{_PREFIX}*.json"))}

    def _file(self, split: str) -> Path:
        return self._root / "annotations" / f"{_PREFIX}{split}.json"

    def _labels(self, held: CocoFile, path: Path) -> Int64[np.ndarray, " objects"]:
        """Class of each object, by the order of `class_names`."""
        if set(held.categories) != set(self._categories):
            odd = sorted(set(held.categories) ^ set(self._categories), key=lambda category: (category.id, category.name))[0]
            raise UserError(
                f"{path}: its categories are not those of the other splits (one of them: {odd.id} {odd.name}); write the same ids and "
                "names into each file"
            )
        labels = np.array([self._categories.index(category) for category in held.categories], dtype=np.int64)
        found: Int64[np.ndarray, " objects"] = labels[held.objects.categories]
        return found


def _arrays(held: CocoFile, labels: Int64[np.ndarray, " objects"], picks: Int64[np.ndarray, " picks"]) -> dict[str, np.ndarray]:
    """What a listing keeps: objects of the picked images, those of one image after one another."""
    objects = held.objects
    place = np.full(len(held.images.ids), -1, dtype=np.int64)
    place[picks] = np.arange(len(picks))
    places = place[objects.images]
    order = np.argsort(places, kind="stable")[int((places < 0).sum()) :]
    starts = np.concatenate([[0], objects.ends[:-1]])[order]
    segments = memoryview(objects.segments.data)
    gathered = b"".join(segments[start:end] for start, end in zip(starts, objects.ends[order], strict=True))
    return {
        "shapes": held.images.shapes[picks],
        "object_ends": np.cumsum(np.bincount(places[order], minlength=len(picks))).astype(np.int64),
        "ids": objects.ids[order],
        "labels": labels[order],
        "crowd": objects.crowd[order],
        "boxes": objects.boxes[order],
        "kinds": objects.kinds[order],
        "segments": np.frombuffer(gathered, np.uint8),
        "segment_ends": np.cumsum(objects.ends[order] - starts).astype(np.int64),
    }


class CocoSamples:
    """Image files and their objects, as they were when they were listed."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._files = listed_files(listing)
        self._held = listing.arrays

    def __reduce__(self) -> tuple[Any, ...]:
        return (CocoSamples, (self._listing,))

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        return self._files.name(index)

    def content(self, index: int) -> bytes:
        """The image's file."""
        if self._held["sizes"][index] == ABSENT:
            raise BadImage("the file is not there, but the annotation file lists it")
        return self._files.read(index)

    def read(self, index: int) -> Annotated:
        pixels = rgb_pixels(self.content(index))
        height, width = self._size(index)
        if pixels.shape[:2] != (height, width):
            raise BadImage(
                f"it has {pixels.shape[1]} x {pixels.shape[0]} pixels, but the annotation file says {width} x {height}; "
                "was it resized, or turned?"
            )
        return Annotated(pixels, None, self._instances(index))

    def remarks(self, index: int) -> list[tuple[str, str]]:
        """Objects that are left out, boxes that were cut, objects without a mask."""
        found = []
        for number, box, mask in self._objects(index):
            told = f"annotation {self._held['ids'][number]}"
            if box is None:
                found.append(("object left out", told))
                continue
            if mask is None:
                found.append(("object without a mask", told))
                if (beyond := self._beyond(number, self._size(index))) > _SLACK_PX:
                    found.append(("box beyond the image", f"{told}, by {beyond:.0f} pixels"))
        return found

    def save(self, folder: Path) -> dict[str, Any]:
        return save_listing(self._listing, folder)

    def _size(self, index: int) -> tuple[int, int]:
        height, width = self._held["shapes"][index].tolist()
        return height, width

    def _instances(self, index: int) -> Instances:
        size = self._size(index)
        kept = [(number, box, mask) for number, box, mask in self._objects(index) if box is not None]
        numbers = np.array([number for number, _, _ in kept], dtype=np.int64)
        boxes = np.array([box for _, box, _ in kept], dtype=np.float32).reshape(-1, 4)
        masks = np.zeros((len(kept), *size), dtype=bool)
        for place, (_, box, mask) in enumerate(kept):
            masks[place] = mask_of_box(box, size) if mask is None else mask
        return Instances(boxes, np.array(self._held["labels"][numbers]), masks, np.array(self._held["crowd"][numbers]))

    def _objects(self, index: int) -> Iterator[tuple[int, Float32[np.ndarray, "4"] | None, Bool[np.ndarray, "h w"] | None]]:
        """Each object's number, its box (None where nothing of it is in the image), and its mask (None where the file has none)."""
        ends, size = self._held["object_ends"], self._size(index)
        numbers = range(int(ends[index - 1]) if index else 0, int(ends[index]))
        for number in numbers:
            mask = self._mask(number, size)
            yield number, self._given_box(number, size) if mask is None else box_of_mask(mask), mask

    def _mask(self, number: int, size: tuple[int, int]) -> Bool[np.ndarray, "h w"] | None:
        ends = self._held["segment_ends"]
        data = self._held["segments"][int(ends[number - 1]) if number else 0 : int(ends[number])].tobytes()
        try:
            return mask_of(Kind(int(self._held["kinds"][number])), data, size)
        except BadImage as bad:
            raise BadImage(f"annotation {self._held['ids'][number]}: {bad}") from None

    def _given_box(self, number: int, size: tuple[int, int]) -> Float32[np.ndarray, "4"] | None:
        """The file's box, cut at the border of the image; None where nothing is left."""
        left, top, width, height = self._held["boxes"][number].tolist()
        box = np.array([max(left, 0), max(top, 0), min(left + width, size[1]), min(top + height, size[0])], dtype=np.float32)
        return box if box[2] > box[0] and box[3] > box[1] else None

    def _beyond(self, number: int, size: tuple[int, int]) -> float:
        """Pixels by which the file's box reaches over the border."""
        left, top, width, height = self._held["boxes"][number].tolist()
        return float(max(-left, -top, left + width - size[1], top + height - size[0]))
