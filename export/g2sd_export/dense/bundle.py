"""The bundle of a segmenter or a detector: the same folder as a classifier's, with its task and a sample of its own kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..bundle.writing import BuiltVariant, first_facts, npz_bytes, write_folder
from ..edge.agreement import Verdict
from ..edge.dense.checking import check_dense_sample
from ..edge.dense.outputs import CLASSES
from ..edge.dense.preparing import load_pixels, prepared
from ..edge.dense.sample import answer_keys, read_sample, sample_arrays
from ..edge.dense.task import DenseTask
from ..edge.errors import UserError
from ..edge.manifest import SAMPLE, SAMPLE_IMAGE, Bundle
from ..edge.runner import INPUT_NAME


@dataclass(frozen=True)
class PickedSample:
    """Real images of a bundle, with the answers of the model that was trained.

    Attributes:
        task: What the model does.
        windows: uint8 [N, px, px, c]: square inputs, at least one.
        answer: What the reference answers for them, by name, as ``answer_of`` gives it.
        picture: uint8 [h, w, c]: an image as it comes, which ``sample.png`` holds.
    """

    task: DenseTask
    windows: npt.NDArray[np.uint8]
    answer: Mapping[str, npt.NDArray[Any]]
    picture: npt.NDArray[np.uint8]

    def check(self, class_names: Sequence[str], variants: Sequence[BuiltVariant]) -> None:
        """Raise UserError unless windows, answers, classes and the variants' own answers fit each other."""
        num = len(self.windows)
        for who, answer in (("the reference", self.answer), *((one.variant.name, one.golden) for one in variants)):
            if answer is None:
                continue
            shapes = {key: list(values.shape) for key, values in answer.items()}
            if set(answer) != set(answer_keys(self.task)) or num == 0 or any(shape[0] != num for shape in shapes.values()):
                raise UserError(f"the sample has {num} images, and the answers of {who} have shapes {shapes}")
            if (worst := _largest_class(answer)) >= len(class_names):
                raise UserError(f"{who} answers class {worst} for the sample, and {len(class_names)} classes are named")

    def write(self, folder: Path, variants: Sequence[BuiltVariant]) -> None:
        """Write ``sample.npz`` and ``sample.png``."""
        grey = self.picture.shape[-1] == 1
        Image.fromarray(self.picture[:, :, 0] if grey else self.picture).save(folder / SAMPLE_IMAGE)
        _, decoded = prepared(load_pixels(folder / SAMPLE_IMAGE, self.task.num_channels), self.task)
        golden = {built.variant.name: built.golden for built in variants if built.golden is not None}
        (folder / SAMPLE).write_bytes(npz_bytes(sample_arrays(self.windows, self.answer, decoded, golden)))

    def failure(self, bundle: Bundle, built: BuiltVariant, threads: int | None) -> str:
        """Why a variant does not pass the self-test of the bundle; empty where it does."""
        network = bundle.network(threads=threads, variant=built.variant.name)
        return check_dense_sample(bundle, read_sample(bundle), network, built.variant).reason


def write_dense_bundle(
    folder: Path,
    *,
    name: str,
    variants: Sequence[BuiltVariant],
    default: str,
    class_names: Sequence[str],
    sample: PickedSample,
    target: Mapping[str, Any],
    licences: Mapping[str, str],
    provenance: Mapping[str, Any],
    verdict: Verdict,
    reason: str = "",
    program_version: str | None = None,
    threads: int | None = None,
) -> Path:
    """Write a bundle, whole or not at all. The same arguments give the same bytes.

    Arguments, errors and what becomes of a variant that fails its own self-test are those of ``g2sd_export.bundle.write_bundle``; the task
    and the preparation of images are the sample's.
    """
    facts = {
        **first_facts(name, program_version, verdict, reason, target, licences),
        "preprocessing": sample.task.preprocessing().to_dict(),
        "task": sample.task.to_dict(),
        "default": default,
        "variants": [built.variant.to_dict() for built in variants],
        "provenance": dict(provenance),
    }
    return write_folder(folder, facts, variants, class_names, sample, threads=threads)


def input_of(task: DenseTask) -> dict[str, Any]:
    """A variant's ``input``: the pixels of square images."""
    shape = ["batch", task.image_px, task.image_px, task.num_channels]
    return {"name": INPUT_NAME, "dtype": "uint8", "layout": "NHWC", "shape": shape}


def output_of(outputs: Sequence[str], arrays: Sequence[npt.NDArray[Any]]) -> dict[str, Any]:
    """A variant's ``output``: the first of a network's outputs, of which ``arrays`` are an example."""
    return {"name": outputs[0], "dtype": str(arrays[0].dtype), "shape": ["batch", *arrays[0].shape[1:]]}


def _largest_class(answer: Mapping[str, npt.NDArray[Any]]) -> int:
    """The highest class that occurs; -1 where nothing was found."""
    found = answer[CLASSES] if CLASSES in answer else answer["labels"][answer["scores"] > 0]
    return int(found.max(initial=0)) if found.size else -1
