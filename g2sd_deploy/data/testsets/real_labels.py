"""ReaL: the reassessed labels of ImageNet's validation images (arXiv 2006.07159).

Source: google-research/reassessed-imagenet README: element i of real.json belongs to ILSVRC2012_val_{i+1:08d}.JPEG.
"""

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

from g2sd_deploy.data.images import Samples
from g2sd_deploy.data.testsets.label_spaces import imagenet_wnids, timm_info
from g2sd_deploy.data.testsets.scorings import LabelSets
from g2sd_deploy.errors import UserError

REAL_FILE = "real.json"
NUM_IMAGES = 50_000
_NAME = re.compile(r"ILSVRC2012_val_(\d{8})(_n\d{8})?")


def read_real(path: Path | None) -> list[list[int]]:
    """Right classes of the validation images in the order of their numbers; none where the assessors found none.

    Args:
        path: real.json; None takes timm's copy of it.

    Raises:
        UserError: It cannot be read, or is not what it should be.
    """
    shown = path or "imagenet_real_labels.json of timm"
    try:
        lists = json.loads(timm_info("imagenet_real_labels.json") if path is None else path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{shown}: cannot be read ({reason}); fetch it with `g2sd data pull imagenet-real`") from None
    _check(lists, shown)
    return list(lists)


def real_labels(samples: Samples, path: Path | None) -> LabelSets:
    """Right classes of validation images, found by the number in each one's file name.

    Raises:
        UserError: A name has no such number, or the labels cannot be read.
    """
    lists = read_real(path)
    return LabelSets.of([lists[_number(samples.name(index)) - 1] for index in range(len(samples))])


def _check(lists: Any, shown: object) -> None:
    fetch = "fetch it with `g2sd data pull imagenet-real`"
    if not isinstance(lists, list) or len(lists) != NUM_IMAGES:
        what = f"a list of {len(lists):,}" if isinstance(lists, list) else "no list"
        raise UserError(f"{shown}: is {what}, wanted {NUM_IMAGES:,} lists of labels, one per validation image; {fetch}")
    num_classes = len(imagenet_wnids())
    for number, labels in enumerate(lists, 1):
        if not isinstance(labels, list):
            raise UserError(f"{shown}: image {number} has {json.dumps(labels)}, wanted a list of labels; {fetch}")
        wrong = [label for label in labels if type(label) is not int or not 0 <= label < num_classes]
        if wrong:
            raise UserError(f"{shown}: image {number} has the label {json.dumps(wrong[0])}, wanted 0 to {num_classes - 1}; {fetch}")


def _number(name: str) -> int:
    """Number of a validation image, from 1."""
    found = _NAME.fullmatch(PurePosixPath(name).stem)
    number = int(found[1]) if found else 0
    if not 1 <= number <= NUM_IMAGES:
        raise UserError(
            f"{name}: ReaL finds the labels of an image by its name, ILSVRC2012_val_00000001.JPEG to ILSVRC2012_val_{NUM_IMAGES:08d}.JPEG, "
            "and this is none of them; give the folder of the validation images under their own names"
        )
    return number
