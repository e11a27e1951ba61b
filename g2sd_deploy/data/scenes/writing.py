"""Scenes as files that other tools read: a COCO data set, and images with masks. Written as a whole, or not at all."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from g2sd_deploy.artifact import unfinished_folder
from g2sd_deploy.data.scenes import coco_file
from g2sd_deploy.data.scenes.settings import SPLITS, VERSION
from g2sd_deploy.data.scenes.source import SEGMENTATION_CLASSES, SceneSamples, SceneSource
from g2sd_deploy.data.sources.idx import BUNDLED
from g2sd_deploy.errors import RunFailed, UserError

Tick = Callable[[int, int], None]
"""Called with the scenes that are done and those wanted."""

COCO, MASKS = "coco", "masks"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_scenes(source: SceneSource, target: Path, *, tick: Tick) -> None:
    """Write all scenes of a source.

    `target/coco` gets SPLIT/NUMBER.png and annotations/instances_SPLIT.json, `target/masks` gets images/SPLIT/NUMBER.png and
    annotations/SPLIT/NUMBER.png (0 background, 1 to 10 garments) with classes.txt; beside them lie what was asked for (scenes.json) and the
    garments' licence.

    Raises:
        UserError: The target holds something, or cannot be written.
        RunFailed: The disk is full.
    """
    check_target(target)
    with _disk_errors(target), unfinished_folder(target) as folder:
        done, total = 0, source.num_train + source.num_test
        for split in SPLITS:
            samples = source.samples(split, None)
            for _ in _write_split(samples, folder):
                done += 1
                tick(done, total)
        _write_about(source, folder)
        if target.is_dir():
            target.rmdir()  # it is empty; not every system renames a folder to one that is there
        folder.rename(target)


def check_target(target: Path) -> None:
    """Refuse a place that is taken.

    Raises:
        UserError: It is a file, or a folder that holds something.
    """
    if target.is_dir() and any(target.iterdir()):
        raise UserError(f"{target}: the folder is not empty; give a new or an empty one")
    if target.exists() and not target.is_dir():
        raise UserError(f"{target}: is a file; give a new or an empty folder")


def _write_split(samples: SceneSamples, folder: Path) -> Iterator[int]:
    """Write scene by scene, then the list of their objects; yields the number of each."""
    coco_images = folder / COCO / samples.split
    mask_images, masks = (folder / MASKS / kind / samples.split for kind in ("images", "annotations"))
    for made in (coco_images, mask_images, masks, folder / COCO / "annotations"):
        made.mkdir(parents=True, exist_ok=True)
    listed = {**coco_file.header(), "images": [], "annotations": []}
    for index in range(len(samples)):
        scene, name = samples.read(index), f"{index:06d}.png"
        assert scene.classes is not None
        assert scene.instances is not None
        _save(scene.pixels, coco_images / name)
        shutil.copyfile(coco_images / name, mask_images / name)
        _save(scene.classes, masks / name)
        listed["images"].append(coco_file.image_entry(1 + index, name, samples.spec.image_px))
        listed["annotations"] += coco_file.annotation_entries(scene.instances, 1 + index, 1 + len(listed["annotations"]))
        yield index
    (folder / COCO / "annotations" / f"instances_{samples.split}.json").write_text(json.dumps(listed) + "\n", encoding="utf-8")


def _save(pixels: UInt8[np.ndarray, "height width *channels"], path: Path) -> None:
    Image.fromarray(pixels).save(path)


def _write_about(source: SceneSource, folder: Path) -> None:
    """Class names of the masks, what was asked for, and the licence."""
    (folder / MASKS / "classes.txt").write_text("".join(f"{name}\n" for name in SEGMENTATION_CLASSES), encoding="utf-8")
    about = {"version": VERSION, "spec": source.spec.to_dict(), "num_train": source.num_train, "num_test": source.num_test}
    (folder / "scenes.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(BUNDLED / "LICENSE", folder / "LICENSE")
    if hasattr(os, "sync"):
        os.sync()  # once for all files, before the folder gets its name


@contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    """Say of the target what the system says when it cannot be written."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise RunFailed(f"{target}: the disk is full; nothing was written; make room or ask for fewer scenes") from None
        raise UserError(f"{error.filename or target}: {error.strerror}; nothing was written") from None
