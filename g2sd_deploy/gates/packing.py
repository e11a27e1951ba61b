"""Answers as bits: small enough for a file in a repository, and enough for a paired test."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from g2sd_deploy.data.corruptions import CORRUPTION_NAMES
from g2sd_deploy.errors import UserError
from g2sd_deploy.gates.snapshot import Answers

Bits = npt.NDArray[np.bool_]


def packed(right: Bits) -> str:
    """A bit for each image as base64."""
    return base64.b64encode(np.packbits(right).tobytes()).decode("ascii")


def unpacked(answers: Answers) -> Bits:
    """Whether the model was right, by image.

    Raises:
        UserError: The bits are not those of as many images.
    """
    try:
        data = np.frombuffer(base64.b64decode(answers.right, validate=True), np.uint8)
    except ValueError:
        data = np.zeros(0, np.uint8)
    if len(data) != -(-answers.num_images // 8):
        raise UserError(
            f"the stored answers of {answers.set} {answers.variant} are no bits of {answers.num_images} images; "
            "make the baseline again with `g2sd baseline update`"
        )
    return np.unpackbits(data, count=answers.num_images).astype(bool)


def images_digest(names: Sequence[str], places: Sequence[int], labels: Sequence[int | None], pixels: str) -> str:
    """Digest of which images were answered, in order.

    Args:
        names: Within the set.
        places: Within the set.
        labels: Class of each; None where several are right.
        pixels: Digest of the images themselves, where names do not tell them apart; else empty.
    """
    digest = hashlib.sha256(pixels.encode())
    for name, place, label in zip(names, places, labels, strict=True):
        digest.update(f"\n{place}\t{label}\t{name}".encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def answers_of(file: Path, own_set: str, own_pixels: str) -> tuple[Answers, ...]:
    """Stored predictions of one model, of clean and of corrupted images.

    Args:
        file: As the evaluation wrote it.
        own_set: Scoring of the run's own test images.
        own_pixels: Digest of those images; empty where they are files with names.

    Raises:
        UserError: The file cannot be read.
    """
    import pyarrow.compute as pc

    from g2sd_deploy.evaluation.predictions import read_predictions

    table = read_predictions(file).select(["set", "variant", "image", "index", "label", "correct"])
    found = []
    for scoring in pc.unique(table["set"]).to_pylist():
        of_set = table.filter(pc.equal(table["set"], scoring))
        for variant in pc.unique(of_set["variant"]).to_pylist():
            if variant and variant.partition("/")[0] not in CORRUPTION_NAMES:
                continue  # occluded images: no gate asks about them
            rows = of_set.filter(pc.equal(of_set["variant"], variant)).sort_by("index")
            pixels = own_pixels if scoring == own_set else ""
            names, places, labels = (rows[column].to_pylist() for column in ("image", "index", "label"))
            right = np.asarray(rows["correct"].to_numpy(zero_copy_only=False), dtype=bool)
            images = images_digest(names, places, labels, pixels)
            found.append(Answers(set=scoring, variant=variant, num_images=len(right), images=images, right=packed(right)))
    return tuple(sorted(found, key=lambda one: (one.set, one.variant)))
