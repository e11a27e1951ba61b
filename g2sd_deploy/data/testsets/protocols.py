"""The known test sets: their folders, their classes, and how they are scored.

Source: hendrycks/natural-adv-examples eval.py and hendrycks/imagenet-r eval.py (logits cut to the 200 classes), hendrycks/robustness
ImageNet-C/test.py (centre crop without resize), modestyachts/ImageNetV2 README (a folder's name is the class index),
google-research/reassessed-imagenet README (ReaL); what its `{(i+i):08d}` stands for is `{(i+1):08d}`.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal

from g2sd_deploy.data.corruptions import EXTRA_CORRUPTIONS, MEAN_CORRUPTIONS
from g2sd_deploy.data.testsets.label_spaces import imagenet_subset, imagenet_wnids

VAL, REAL, STORED = "imagenet-val", "imagenet-real", "imagenet-c"
CLEAN = {"imagenet-a": "imagenet-a-clean", "imagenet-r": "imagenet-r-clean"}
"""A set whose logits are cut, to the same cut on the clean validation images that have its classes."""

_IMAGENETTE = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)


@dataclass(frozen=True)
class KnownSet:
    """A set of class folders with a published protocol.

    Attributes:
        name: As it is asked for.
        homes: Names under which it may have been pulled.
        inside: Where class folders may lie in the folder that a person gives.
        class_names: Gives the WordNet ids of its classes, in the order of the labels.
        num_images: The published number of images (of each severity of each corruption); the most that there may be.
        note: The protocol in one line.
        is_numbered: Whether a class folder is named by its index, not by its WordNet id.
        cut: Whether logits are cut to its classes; `also` scores it both ways.
        has_unique_names: Whether no two images share a file name.
        corruptions: Those of its folders; none where it has no such folders.
        image_name: What the name of an image begins with, where that tells the set from others with the same classes.
    """

    name: str
    homes: tuple[str, ...]
    inside: tuple[str, ...]
    class_names: Callable[[], tuple[str, ...]]
    num_images: int
    note: str
    is_numbered: bool = False
    cut: Literal["never", "always", "also"] = "never"
    has_unique_names: bool = False
    corruptions: tuple[str, ...] = ()
    image_name: str = ""

    def label_of(self, folder: str) -> int | None:
        """Index of the class that a folder holds; None where it is none of the set's."""
        if not self.is_numbered:
            return self._labels.get(folder)
        is_class = folder.isascii() and folder.isdecimal() and int(folder) < len(self.class_names())
        return int(folder) if is_class else None

    def folder_of(self, label: int) -> str:
        """Name of a class folder."""
        return str(label) if self.is_numbered else self.class_names()[label]

    @cached_property
    def _labels(self) -> dict[str, int]:
        return {name: label for label, name in enumerate(self.class_names())}


def imagenette_wnids() -> tuple[str, ...]:
    """The 10 classes of Imagenette.

    Source: fastai/imagenette README; facts of tensorflow/datasets imagenette_dataset_builder.py.
    """
    return tuple(imagenet_wnids()[index] for index in _IMAGENETTE)


def _known() -> dict[str, KnownSet]:
    val = KnownSet(
        VAL,
        (VAL,),
        ("val", "."),
        imagenet_wnids,
        50_000,
        "ImageNet validation, all logits",
        has_unique_names=True,
        image_name="ILSVRC2012_val_",
    )
    stored = KnownSet(
        STORED,
        (STORED,),
        (".", "imagenet-c", "ImageNet-C"),
        imagenet_wnids,
        50_000,
        "ImageNet-C, all logits; stored at 224 px, the centre is cropped without a resize, so no model with a larger input can be scored",
        has_unique_names=True,
        corruptions=MEAN_CORRUPTIONS + EXTRA_CORRUPTIONS,
    )
    imagenette = KnownSet(
        "imagenette",
        ("imagenette", "imagenette2-320", "imagenette2-160", "imagenette2"),
        ("val", ".", "imagenette2-320/val", "imagenette2-160/val", "imagenette2/val"),
        imagenette_wnids,
        3_925,
        "Imagenette validation (10 classes of ImageNet), all logits",
        cut="also",
        has_unique_names=True,
    )
    sets = (
        val,
        replace(
            val,
            name=REAL,
            homes=(REAL,),
            note="ReaL labels of the ImageNet validation images: any of an image's labels is right, all logits",
        ),
        KnownSet(
            "imagenetv2-matched-frequency",
            ("imagenetv2-matched-frequency",),
            (".", "imagenetv2-matched-frequency-format-val"),
            imagenet_wnids,
            10_000,
            "ImageNet-V2 matched-frequency, folders read as class numbers, all logits",
            is_numbered=True,
        ),
        KnownSet(
            "imagenet-a",
            ("imagenet-a",),
            (".", "imagenet-a"),
            partial(imagenet_subset, "a"),
            7_500,
            "ImageNet-A, logits cut to its 200 classes",
            cut="always",
        ),
        KnownSet(
            "imagenet-r",
            ("imagenet-r",),
            (".", "imagenet-r"),
            partial(imagenet_subset, "r"),
            30_000,
            "ImageNet-R, logits cut to its 200 classes",
            cut="always",
        ),
        KnownSet(
            "imagenet-sketch",
            ("imagenet-sketch",),
            (".", "sketch"),
            imagenet_wnids,
            50_889,
            "ImageNet-Sketch, all logits",
        ),
        stored,
        replace(stored, name="imagenet-c-extra", homes=("imagenet-c-extra",), corruptions=EXTRA_CORRUPTIONS),
        imagenette,
        replace(imagenette, name="imagenette2-320", homes=("imagenette2-320",)),
        replace(imagenette, name="imagenette2-160", homes=("imagenette2-160",)),
    )
    return {one.name: one for one in sets}


KNOWN = _known()


def nearest_known(name: str) -> str:
    """What to say after a name that is none: the nearest one, or all."""
    near = difflib.get_close_matches(name.lower(), KNOWN, 1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"the known sets are {', '.join(KNOWN)}"
