"""What the readers of dense data sets share: files of images, their pixels, class names, and where a listing is kept."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from g2sd_deploy.data.dense.annotations import IGNORED, DenseSamples
from g2sd_deploy.data.pixels import open_sample
from g2sd_deploy.data.sources.base import CLASSES, expand, listed_classes
from g2sd_deploy.data.sources.folder import FileSamples
from g2sd_deploy.data.sources.listing import Listing, Names
from g2sd_deploy.errors import UserError

ABSENT = -1
"""Size of a file that was not there when the images were listed."""
_LISTING = "listing"
_ID_TO_LABEL = "id2label.json"
_ADE20K = "objectInfo150.txt"


class DenseSource(Protocol):
    """A data set with a truth for each image, in named splits."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class."""
        ...

    @property
    def description(self) -> str:
        """What the data is, for the report; names no path of this machine."""
        ...

    def fingerprint(self) -> str:
        """Changes when a file of the source changes; cheap (names, sizes and times, not contents)."""
        ...

    def samples(self, split: str, limit: int | None) -> DenseSamples:
        """Images of one split, at most `limit` of them, spread evenly over the source's order.

        Raises:
            UserError: The split is not there, or its files do not belong together.
        """
        ...


@runtime_checkable
class FromFiles(Protocol):
    """Samples whose images are files, which can be looked at one by one."""

    def content(self, index: int) -> bytes:
        """The image's file.

        Raises:
            BadImage: It is not there.
            UserError: The place where it lies cannot be read.
        """
        ...

    def remarks(self, index: int) -> list[tuple[str, str]]:
        """Problems of `checking.PROBLEMS` that keep no image from being used, with details."""
        ...


def existing_folder(root: str | Path) -> Path:
    """A root that is a folder.

    Raises:
        UserError: It is none.
    """
    folder = expand(str(root))
    if not folder.is_dir():
        raise UserError(f"data.root {root}: there is no such folder; set data.root to the folder of the images and their annotations")
    return folder


def rgb_pixels(content: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Decode an image file; grey becomes RGB.

    Raises:
        BadImage: It cannot be decoded.
    """
    return np.array(open_sample(content, 3).decode())  # copied: that memory is used again for the next image


def file_arrays(root: Path, files: Sequence[Path], prefix: str = "") -> dict[str, np.ndarray]:
    """Names and sizes of files under a root, for a listing; ABSENT is the size of one that is not there."""
    names = Names.pack([file.relative_to(root).as_posix() for file in files])
    sizes = np.array([_size(file) for file in files], dtype=np.int64)
    return {f"{prefix}names": names.text, f"{prefix}name_ends": names.ends, f"{prefix}sizes": sizes}


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return ABSENT


def listed_files(listing: Listing, prefix: str = "") -> FileSamples:
    """The files of `file_arrays`."""
    arrays = {name: listing.arrays[f"{prefix}{name}"] for name in ("names", "name_ends", "sizes")}
    return FileSamples(Listing("files", {}, {"root": listing.where["root"]}, arrays))


def save_listing(listing: Listing, folder: Path) -> dict[str, Any]:
    """Save a listing; returns what `reopened` has to be told."""
    folder.mkdir(parents=True, exist_ok=True)
    listing.save(folder / _LISTING)
    return dict(listing.where)


def reopened(folder: Path, where: Mapping[str, Any]) -> Listing:
    """What `save_listing` wrote; the arrays stay on disk until they are read."""
    return Listing.open(folder / _LISTING, where)


def find_class_names(folder: Path) -> tuple[str, ...] | None:
    """Class names of a folder's classes.txt, ADE20K's objectInfo150.txt, or id2label.json; None where it has none of them.

    Raises:
        UserError: A name is empty or there twice, or there are none or more than a mask can tell apart.
    """
    found = next((folder / name for name in (CLASSES, _ADE20K, _ID_TO_LABEL) if (folder / name).is_file()), None)
    return None if found is None else read_class_names(found)


def read_class_names(file: Path) -> tuple[str, ...]:
    """Class names of one file; its own name says what it holds: id2label.json, objectInfo150.txt, or one name a line.

    Raises:
        UserError: As `find_class_names`, or it cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); name a file of class names") from None
    except UnicodeDecodeError:
        raise UserError(f"{file}: is not UTF-8 text; save it as UTF-8") from None
    if file.suffix == ".json":
        names = _by_number(text, file)
    elif file.name == _ADE20K:
        names = tuple(line.rpartition("\t")[2].strip() for line in text.rstrip().splitlines()[1:])
    else:
        names = listed_classes(text)
    return _checked(names, file)


def _by_number(text: str, file: Path) -> tuple[str, ...]:
    try:
        held = json.loads(text)
    except ValueError as error:
        raise UserError(f"{file}: is no JSON ({error}); fetch or write it again") from None
    numbers = [str(i) for i in range(len(held))] if isinstance(held, dict) else []
    if not numbers or sorted(held) != sorted(numbers) or not all(isinstance(name, str) for name in held.values()):
        raise UserError(f'{file}: is no object that names every number from 0 on, as {{"0": "wall", "1": "sky"}}; write it again')
    return tuple(held[number] for number in numbers)


def _checked(names: tuple[str, ...], file: Path) -> tuple[str, ...]:
    if not names or not all(names):
        place = f"number {names.index('')} of its classes has no name" if names else "names no class"
        raise UserError(f"{file}: {place}; write one name a line")
    if len(names) > IGNORED:
        raise UserError(f"{file}: names {len(names)} classes, but a mask of 8 bits tells {IGNORED} apart; remove or merge some")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{file}: names {twice} twice; give each class a name of its own")
    return names
