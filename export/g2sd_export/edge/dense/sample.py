"""Real images in a bundle, with the answers that the reference gave for them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import IntegrityError
from .outputs import CLASSES, DETECTION_OUTPUTS
from .task import DenseTask

if TYPE_CHECKING:
    from ..manifest import Bundle, Variant


@dataclass(frozen=True)
class DenseSample:
    """Real images with the answers that the reference gave.

    Attributes:
        images: uint8 [N, px, px, c]: square inputs.
        answer: By name, as ``answer_of`` gives it.
        decoded: uint8 [windows, px, px, c]: what ``sample.png`` must be prepared to on this machine too.
    """

    images: npt.NDArray[np.uint8]
    answer: Mapping[str, npt.NDArray[Any]]
    decoded: npt.NDArray[np.uint8]


def answer_keys(task: DenseTask) -> tuple[str, ...]:
    """Names of the arrays of an answer."""
    return DETECTION_OUTPUTS if task.kind == "detection" else (CLASSES,)


def sample_arrays(
    images: npt.NDArray[np.uint8],
    answer: Mapping[str, npt.NDArray[Any]],
    decoded: npt.NDArray[np.uint8],
    golden: Mapping[str, Mapping[str, npt.NDArray[Any]]],
) -> dict[str, npt.NDArray[Any]]:
    """The arrays of ``sample.npz``, by name.

    Args:
        images: uint8 [N, px, px, c]: square inputs.
        answer: What the reference, not an exported form of it, answers for them.
        decoded: uint8 [windows, px, px, c]: what ``sample.png`` is prepared to.
        golden: By name of a variant, what it answered itself.
    """
    own = {f"{key}.{variant}": array for variant, mine in golden.items() for key, array in mine.items()}
    return {"images": images, **answer, "decoded": decoded, **own}


def read_sample(bundle: Bundle) -> DenseSample:
    """The stored images and their expected answers, of a bundle that has a task.

    Raises:
        IntegrityError: The file changed since the bundle was opened, or lacks an array.
    """
    arrays = _arrays(bundle)
    keys = answer_keys(_task_of(bundle))
    if missing := [key for key in ("images", "decoded", *keys) if key not in arrays]:
        raise IntegrityError(f"{bundle.folder}: its sample lacks {', '.join(missing)}; copy or download the bundle again")
    return DenseSample(arrays["images"], {key: arrays[key] for key in keys}, arrays["decoded"])


def golden_of(bundle: Bundle, variant: Variant) -> dict[str, npt.NDArray[Any]] | None:
    """What a variant itself answered for the sample at export; None where it did not run there."""
    arrays = _arrays(bundle)
    keys = answer_keys(_task_of(bundle))
    found = {key: arrays[f"{key}.{variant.name}"] for key in keys if f"{key}.{variant.name}" in arrays}
    return found if len(found) == len(keys) else None


def _task_of(bundle: Bundle) -> DenseTask:
    assert bundle.task is not None
    return bundle.task


def _arrays(bundle: Bundle) -> dict[str, npt.NDArray[Any]]:
    with np.load(io.BytesIO(bundle.read("sample.npz")), allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}
