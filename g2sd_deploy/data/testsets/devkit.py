"""What ImageNet's development kit knows: the class of every validation image."""

import io
from pathlib import Path

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from g2sd_deploy.data.testsets.catalogue import ListedSet
from g2sd_deploy.data.testsets.unpacking import read_file
from g2sd_deploy.errors import UserError

_MOST_BYTES = 64 << 20
_TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
_META = "data/meta.mat"
_MAT_ERRORS = (MatReadError, ValueError, TypeError, KeyError, IndexError, OSError)


def labels_of_devkit(archive: Path, listed: ListedSet) -> dict[str, str]:
    """Class folder of every validation image of ImageNet, by its name without suffix.

    The ground truth numbers the classes as the development kit does (ILSVRC2012_ID), which is not the order of the WordNet ids; its
    `meta.mat` translates. Synsets with children are no classes.

    Args:
        archive: ILSVRC2012_devkit_t12.tar.gz.
        listed: The set whose images are to be sorted.

    Raises:
        UserError: The archive is another, or does not fit the set.

    Source: pytorch/vision, torchvision/datasets/imagenet.py (parse_devkit_archive): the order of the fields of a synset.
    """
    read = {name: read_file(archive, name, most_bytes=_MOST_BYTES) for name in (_META, _TRUTH)}
    try:
        meta = loadmat(io.BytesIO(read[_META]), squeeze_me=True)  # type: ignore[arg-type] # it takes open files, too
        rows = np.atleast_1d(meta["synsets"])
        wnids = {int(row[0]): str(row[1]) for row in rows if int(row[4]) == 0}
        truth = [wnids[int(line)] for line in read[_TRUTH].split()]
    except _MAT_ERRORS as error:
        raise UserError(f"{archive}: its labels cannot be read ({type(error).__name__}: {error}); fetch it again") from None
    (images,) = listed.groups.values()
    if sorted(wnids.values()) != sorted(listed.class_names) or len(truth) != images.most:
        raise UserError(
            f"{archive}: labels {len(truth):,} images of {len(wnids):,} classes, wanted {images.most:,} of the {len(listed.class_names):,} "
            "classes of the set; it is another archive"
        )
    return {f"ILSVRC2012_val_{number:08d}": wnid for number, wnid in enumerate(truth, 1)}
