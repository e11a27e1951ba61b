"""Dense data sets that a person names on the command line: a folder with masks or with COCO's annotations."""

from typing import Literal, get_args

from g2sd_deploy.data.dense.opening import guess_dense_kind
from g2sd_deploy.data.dense.reading import DenseSource
from g2sd_deploy.data.sources.base import expand
from g2sd_deploy.errors import UserError

FolderKind = Literal["masks", "coco"]
DENSE_KINDS: tuple[FolderKind, ...] = get_args(FolderKind)
"""Values of `DataSettings.source` that are folders with a truth for each image."""
_SCENES = "scenes.json"


def dense_kind_of(root: str, asked: str | None = None) -> str | None:
    """`masks` or `coco` where that is asked for, or the folders at a root look like it; else None.

    Args:
        root: The folder.
        asked: A kind that a person named.

    Raises:
        UserError: It is what `g2sd data scenes` writes, which is both.
    """
    if asked is not None:
        return asked if asked in DENSE_KINDS else None
    folder = expand(root)
    if (folder / _SCENES).is_file():
        raise UserError(
            f"{root}: holds its scenes twice, for detection in coco and for segmentation in masks; give {folder / 'coco'} or "
            f"{folder / 'masks'}"
        )
    return guess_dense_kind(root)


def open_dense_folder(kind: str, root: str, *, ignore_zero: bool = False) -> DenseSource:
    """Open a folder.

    Args:
        kind: One of `DENSE_KINDS`.
        root: As `DataSettings.root`.
        ignore_zero: As `DataSettings.ignore_zero`; for masks.

    Raises:
        UserError: It is not there, is built otherwise than its kind says, or has no masks of which 0 could be ignored.
    """
    if kind == "coco":
        from g2sd_deploy.data.dense.coco import CocoFolder

        if ignore_zero:
            raise UserError(f"--ignore-zero: is for masks, and {root} is a data set of COCO's layout; leave it out")
        return CocoFolder(root)
    from g2sd_deploy.data.dense.mask_folder import MaskFolder

    return MaskFolder(root, ignore_zero=ignore_zero)
