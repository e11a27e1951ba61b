"""The class folders of a known set, listed so strictly that nothing can shift a label or be left out unseen."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from g2sd_deploy.data.images import picks_of
from g2sd_deploy.data.sources.base import IMAGE_SUFFIXES
from g2sd_deploy.data.sources.folder import FileSamples
from g2sd_deploy.data.sources.listing import Listing, Names
from g2sd_deploy.data.testsets.protocols import VAL, KnownSet
from g2sd_deploy.errors import UserError


@dataclass(frozen=True)
class ClassFolders:
    """The images of a set.

    Attributes:
        root: The folder of the class folders.
        names: Images relative to the root, class by class in the order of the labels, each class in the order of the names. Text, not
            paths, which cost several times as much for the millions of ImageNet-C.
        labels: Class of each.
        num_ignored: Files beside the images that are none.
    """

    root: Path
    names: list[str]
    labels: Int64[np.ndarray, "num"]
    num_ignored: int

    def samples(self, limit: int | None) -> FileSamples:
        """At most `limit` of the images, spread evenly."""
        picks = picks_of(len(self.names), limit)
        names = [self.names[i] for i in picks.tolist()]
        sizes = np.array([_size(f"{self.root}/{name}") for name in names], dtype=np.int64)
        packed = Names.pack(names)
        arrays = {"names": packed.text, "name_ends": packed.ends, "sizes": sizes, "labels": self.labels[picks]}
        return FileSamples(Listing("files", {}, {"root": str(self.root.resolve())}, arrays))


def class_root(known: KnownSet, place: Path) -> Path | None:
    """The folder of the class folders of a set: the given one, or a usual one in it; None where there is none."""
    inside = (place / one for one in known.inside)
    return next((root for root in inside if any(is_folder and known.label_of(name) is not None for name, is_folder in entries(root))), None)


def locate(known: KnownSet, place: Path) -> Path:
    """As `class_root`.

    Raises:
        UserError: There is none.
    """
    if (root := class_root(known, place)) is not None:
        return root
    if any(not is_folder and is_image(name) for inside in known.inside for name, is_folder in entries(place / inside)):
        fetch = f"`g2sd data pull {known.name} --from ...` of the archives sorts them" if known.name == VAL else "fetch the set again"
        raise UserError(f"{place}: holds images that are in no class folders, such as {known.folder_of(0)}/; {fetch}")
    raise UserError(
        f"{place}: holds no class folder of {known.name}, such as {known.folder_of(0)}; give the folder of the set, or fetch it with "
        f"`g2sd data pull {known.name}`"
    )


def list_class_folders(known: KnownSet, root: Path) -> ClassFolders:
    """List the images of every class.

    Raises:
        UserError: A class folder is missing, double or empty; images lie beside the class folders or deeper in them; an image comes twice
            or there are more of them than the set has: whatever would make a score that is not the set's.
    """
    folders, num_ignored = _class_folders(known, root)
    check = f"`g2sd data check {known.name} {root}` tells all"
    num = len(known.class_names())
    if missing := [known.folder_of(label) for label in range(num) if label not in folders]:
        raise UserError(f"{root}: lacks {len(missing)} of the {num} class folders of {known.name}: {missing[0]}; {check}")
    names: list[str] = []
    labels: list[int] = []
    for label in sorted(folders):
        found, ignored = _images(folders[label])
        if not found:
            raise UserError(f"{folders[label]}: the class folder holds no image; {check}")
        names += found
        labels += [label] * len(found)
        num_ignored += ignored
    _check_images(known, root, names)
    return ClassFolders(root, names, np.array(labels, dtype=np.int64), num_ignored)


def entries(folder: Path) -> list[tuple[str, bool]]:
    """Name of everything in a folder that is not hidden, sorted, and whether it is a folder; nothing where there is no such folder.

    Raises:
        UserError: It cannot be read.
    """
    try:
        with os.scandir(folder) as found:
            return sorted((entry.name, entry.is_dir()) for entry in found if not entry.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); correct it and run the same command again") from None


def is_image(name: str) -> bool:
    """Whether a file's suffix is that of an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 (a million times for ImageNet-C)


def refuse_images(folder: Path, what: str) -> None:
    """Let a folder that is no part of a set be, as long as it holds no images.

    Raises:
        UserError: It holds some, at any depth.
    """
    if (found := next(_images_below(folder), None)) is not None:
        raise UserError(f"{folder}: {what}, and holds images ({found}); move it out of the set's folder")


def _class_folders(known: KnownSet, root: Path) -> tuple[dict[int, Path], int]:
    """Folder of each class, and the number of files beside them."""
    folders: dict[int, Path] = {}
    num_ignored = 0
    for name, is_folder in entries(root):
        label = known.label_of(name)
        if not is_folder and is_image(name):
            raise UserError(f"{root / name}: is an image beside the class folders of {known.name}; put it into its class, or move it away")
        if not is_folder:
            num_ignored += 1
        elif label is None:
            refuse_images(root / name, f"is no class of {known.name}")
        elif label in folders:
            raise UserError(f"{root / name}: is class {label} of {known.name}, as {folders[label].name} is; keep one of the two folders")
        else:
            folders[label] = root / name
    return folders, num_ignored


def _images(folder: Path) -> tuple[list[str], int]:
    """Images of one class folder as CLASS/IMAGE, sorted, and the number of its other files."""
    images: list[str] = []
    num_ignored = 0
    for name, is_folder in entries(folder):
        if is_folder:
            refuse_images(folder / name, "lies in a class folder")
        elif is_image(name):
            images.append(f"{folder.name}/{name}")
        else:
            num_ignored += 1
    return images, num_ignored


def _images_below(folder: Path) -> Iterator[str]:
    for name, is_folder in entries(folder):
        if is_folder:
            yield from (f"{name}/{found}" for found in _images_below(folder / name))
        elif is_image(name):
            yield name


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 (a million times for ImageNet-C)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); fetch the image again") from None


def _check_images(known: KnownSet, root: Path, names: list[str]) -> None:
    if len(names) > known.num_images:
        raise UserError(
            f"{root}: holds {len(names):,} images, and {known.name} has {known.num_images:,}; give the folder of the test images, not that "
            "of the training images"
        )
    first: dict[str, str] = {}
    for name in names:
        folder, _, file = name.partition("/")
        if not file.startswith(known.image_name):
            raise UserError(f"{root / name}: is no image of {known.name}, whose names begin with {known.image_name}; give the set's folder")
        if known.has_unique_names and (other := first.setdefault(file, folder)) != folder:
            raise UserError(f"{root / name}: is also in the class {other}, and would be scored twice; remove it from the wrong one")
