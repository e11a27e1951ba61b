"""One annotation file of the COCO layout, as arrays: about 40 bytes an object beside its segmentation, and no Python object."""

import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, UInt8

from g2sd_deploy.data.dense.json_stream import list_elements
from g2sd_deploy.data.dense.segments import Kind, broken, pack
from g2sd_deploy.errors import UserError

_LISTS = ("images", "annotations", "categories")
_LARGEST_ID = 2**63 - 1
_LARGEST_SIDE = 2**15
_ODD = re.compile("[\x00-\x1f\ud800-\udfff]")


@dataclass(frozen=True)
class Category:
    """One kind of object."""

    id: int
    name: str


@dataclass(frozen=True)
class CocoImages:
    """Images in the order of the file.

    Attributes:
        ids: Number of each.
        names: Path of each below the folder of the split.
        shapes: Height and width of each.
    """

    ids: Int64[np.ndarray, " images"]
    names: Sequence[str]
    shapes: Int32[np.ndarray, "images 2"]


@dataclass(frozen=True)
class CocoObjects:
    """Objects in the order of the file.

    Attributes:
        ids: Number of each.
        images: Index of its image among `CocoImages`.
        categories: Index of its category in the order of the file.
        crowd: True of a region with many objects.
        boxes: Left, top, width, height as the file has them; NaN where it has none.
        kinds: What the segments are, see `segments.Kind`.
        segments: Bytes of all segmentations, one after another.
        ends: Where each one's bytes end.
    """

    ids: Int64[np.ndarray, " objects"]
    images: Int64[np.ndarray, " objects"]
    categories: Int64[np.ndarray, " objects"]
    crowd: Bool[np.ndarray, " objects"]
    boxes: Float32[np.ndarray, "objects 4"]
    kinds: UInt8[np.ndarray, " objects"]
    segments: UInt8[np.ndarray, " bytes"]
    ends: Int64[np.ndarray, " objects"]


@dataclass(frozen=True)
class CocoFile:
    """What an annotation file says."""

    categories: tuple[Category, ...]
    images: CocoImages
    objects: CocoObjects


def read_categories(path: Path) -> tuple[Category, ...]:
    """The kinds of objects of a file, in its order.

    Raises:
        UserError: As `read_coco`, of what concerns the categories.
    """
    return _categories([entry for name, entry in list_elements(path, _LISTS) if name == "categories"], path)


def read_coco(path: Path) -> CocoFile:
    """Read an annotation file.

    Raises:
        UserError: It is no JSON or has not that layout: lists or numbers are missing, an id is there twice, or an object is of an image or
            category that is not there. What is wrong with one object's segmentation or box is kept, and told when its image is read.
    """
    images, objects, categories = _Images(path), _Objects(path), list[Any]()
    for name, entry in list_elements(path, _LISTS):
        match name:
            case "images":
                images.add(entry)
            case "annotations":
                objects.add(entry)
            case _:
                categories.append(entry)
    kinds = _categories(categories, path)
    held = images.done()
    return CocoFile(kinds, held, objects.done(held.ids, np.array([kind.id for kind in kinds], dtype=np.int64)))


def _categories(entries: Sequence[Any], path: Path) -> tuple[Category, ...]:
    if not entries:
        raise UserError(f"{path}: names no categories; write the kinds of objects into it")
    found = []
    for i, entry in enumerate(entries):
        where = f"{path}: category {i + 1} of the list"
        held = _object(entry, where)
        if not _is_text(held.get("name")):
            raise UserError(f"{where} has the name {held.get('name')!r:.80}; wanted a text of one line")
        found.append(Category(_whole(held, "id", where), held["name"].strip()))
    _check_once([kind.id for kind in found], f"{path}: category")
    names = [kind.name for kind in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{path}: two categories are called {twice}; give each a name of its own")
    return tuple(found)


class _Images:
    """Collects images."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids, self._shapes = array("q"), array("i")
        self._names: dict[str, None] = {}

    def add(self, entry: object) -> None:
        where = f"{self._path}: image {len(self._ids) + 1} of the list"
        held = _object(entry, where)
        name = held.get("file_name")
        if not _is_text(name) or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UserError(f"{where} has the file_name {name!r:.80}; wanted a path below the folder of the split")
        shape = [_whole(held, side, f"{where} ({name})") for side in ("height", "width")]
        if not all(0 < side < _LARGEST_SIDE for side in shape):
            raise UserError(f"{where} ({name}) has height {shape[0]} and width {shape[1]}; write the image's own into the file")
        if name in self._names:
            raise UserError(f"{where} has the file_name {name}, as another one has; keep one entry for each file")
        self._ids.append(_whole(held, "id", where))
        self._shapes.extend(shape)
        self._names[name] = None

    def done(self) -> CocoImages:
        if not self._ids:
            raise UserError(f"{self._path}: lists no images; write the images into it")
        _check_once(self._ids, f"{self._path}: image")
        shapes = np.frombuffer(self._shapes, np.int32).reshape(-1, 2)
        return CocoImages(np.frombuffer(self._ids, np.int64), list(self._names), shapes)


class _Objects:
    """Collects objects."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids, self._images, self._categories, self._ends = array("q"), array("q"), array("q"), array("q")
        self._boxes, self._crowd, self._kinds, self._segments = array("f"), bytearray(), bytearray(), bytearray()

    def add(self, entry: object) -> None:
        where = f"{self._path}: annotation {len(self._ids) + 1} of the list"
        held = _object(entry, where)
        self._ids.append(_whole(held, "id", where))
        self._images.append(_whole(held, "image_id", where))
        self._categories.append(_whole(held, "category_id", where))
        crowd = held.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise UserError(f"{where} has iscrowd {crowd!r}; wanted 0 or 1")
        kind, data = pack(held.get("segmentation"))
        box = _box(held.get("bbox"))
        if kind is Kind.NONE and box is None:
            kind, data = broken(f"it has no segmentation and the bbox {held.get('bbox')!r:.80}; wanted left, top, width, height")
        self._crowd.append(int(crowd))
        self._boxes.extend(box or [float("nan")] * 4)
        self._kinds.append(kind)
        self._segments += data
        self._ends.append(len(self._segments))

    def done(self, image_ids: Int64[np.ndarray, " images"], category_ids: Int64[np.ndarray, " classes"]) -> CocoObjects:
        ids = np.frombuffer(self._ids, np.int64) if self._ids else np.zeros(0, np.int64)
        _check_once(ids, f"{self._path}: annotation")
        return CocoObjects(
            ids,
            self._found(self._images, image_ids, ids, "image"),
            self._found(self._categories, category_ids, ids, "category"),
            np.array(self._crowd, dtype=np.bool_),
            np.array(self._boxes, dtype=np.float32).reshape(-1, 4),
            np.array(self._kinds, dtype=np.uint8),
            np.frombuffer(self._segments, np.uint8) if self._segments else np.zeros(0, np.uint8),
            np.array(self._ends, dtype=np.int64),
        )

    def _found(self, wanted: "array[int]", ids: Int64[np.ndarray, " n"], objects: Int64[np.ndarray, " m"], what: str) -> np.ndarray:
        """Index of each wanted id."""
        order = np.argsort(ids)
        asked = np.array(wanted, dtype=np.int64)
        places = order[np.minimum(np.searchsorted(ids, asked, sorter=order), len(ids) - 1)]
        unknown = np.flatnonzero(ids[places] != asked)
        if len(unknown):
            raise UserError(
                f"{self._path}: annotation {objects[unknown[0]]} has {what}_id {asked[unknown[0]]}, but no {what} has that id "
                f"({len(unknown)} such); remove it, or take the file that belongs to it"
            )
        return places.astype(np.int64)


def _object(entry: object, where: str) -> Mapping[str, Any]:
    if not isinstance(entry, dict):
        raise UserError(f"{where} is {entry!r:.80}; wanted an object")
    return entry


def _is_text(value: object) -> TypeGuard[str]:
    """Whether it is a text of one line that can be written as UTF-8."""
    return isinstance(value, str) and bool(value.strip()) and not _ODD.search(value)


def _whole(entry: Mapping[str, Any], key: str, where: str) -> int:
    value = entry.get(key)
    if type(value) is not int or abs(value) > _LARGEST_ID:
        raise UserError(f"{where} has {f'the {key} {value!r:.80}' if key in entry else f'no {key}'}; wanted a whole number")
    return value


def _box(value: object) -> list[float] | None:
    """Left, top, width, height; None where it is nothing like that."""
    if not isinstance(value, list) or len(value) != 4 or any(type(side) not in (int, float) for side in value):
        return None
    return [float(side) for side in value] if all(abs(side) < 1e9 for side in value) else None


def _check_once(ids: "Sequence[int] | array[int] | np.ndarray", what: str) -> None:
    found, counts = np.unique(np.asarray(ids), return_counts=True)
    if (counts > 1).any():
        raise UserError(f"{what} {found[counts > 1][0]} is there twice ({int((counts > 1).sum())} such); give each an id of its own")
