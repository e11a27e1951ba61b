"""Does a network for pixels or objects, on this machine, still answer as it did where its bundle was made?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..agreement import ParityTolerance
from ..errors import UserError
from ..manifest import SAMPLE_IMAGE, Bundle, Variant
from ..runner import describe
from ..selftest import SelftestResult
from .agreement import judge_dense
from .outputs import answer_of
from .preparing import load_pixels, prepared
from .sample import DenseSample, golden_of
from .task import DenseTask

if TYPE_CHECKING:
    from .network import Network


def check_dense_sample(bundle: Bundle, sample: DenseSample, network: Network, variant: Variant) -> SelftestResult:
    """Run the sample one image at a time and as one batch, and prepare the sample image file.

    Args:
        bundle: Gives the variant's own answers and the sample image file.
        sample: Square inputs and expected answers.
        network: The model.
        variant: What the network runs: gives the tolerances.

    Returns:
        The result, whatever it is; failed where the network gives something else than answers.
    """
    assert not isinstance(variant.tolerance, ParityTolerance) and not isinstance(variant.device_tolerance, ParityTolerance)
    task, device_agreement = network.task, None
    try:
        answer = _answer(sample.images, network)
    except UserError as error:
        return SelftestResult("failed", str(error), bundle.digest, variant.name, describe(network))
    verdict, reason, agreement = judge_dense(_twice(sample.answer), answer, task, variant.tolerance)
    golden = golden_of(bundle, variant)
    if verdict == "passed" and golden is not None and variant.device_tolerance is not None:
        verdict, reason, device_agreement = judge_dense(_twice(golden), answer, task, variant.device_tolerance)
        reason = f"other answers than this variant gave at export: {reason}" if reason else ""
    if verdict == "passed" and (wrong := _preparing_error(bundle, sample.decoded, task)):
        verdict, reason = "failed", wrong
    return SelftestResult(
        verdict="passed" if verdict == "passed" else "failed",
        reason=reason,
        bundle=bundle.digest,
        variant=variant.name,
        runtime=describe(network),
        agreement=agreement,
        device_agreement=device_agreement,
    )


def _answer(images: npt.NDArray[np.uint8], network: Network) -> dict[str, npt.NDArray[Any]]:
    """To each image alone, then to all of them at once."""
    parts = [images[index : index + 1] for index in range(len(images))]
    answers = [answer_of(network.infer(part), network.task) for part in [*parts, images]]
    return {key: np.concatenate([one[key] for one in answers]) for key in answers[0]}


def _twice(answer: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    return {key: np.concatenate([array] * 2) for key, array in answer.items()}


def _preparing_error(bundle: Bundle, expected: npt.NDArray[np.uint8], task: DenseTask) -> str:
    """Why this machine's Pillow does not prepare ``sample.png`` as the exporting machine did; empty if it does.

    One grey level is tolerated: resampling may round differently between Pillow's builds.
    """
    _, windows = prepared(load_pixels(bundle.read(SAMPLE_IMAGE), task.num_channels), task)
    if windows.shape != expected.shape:
        return f"{SAMPLE_IMAGE} is prepared to shape {list(windows.shape)}, and at export it was {list(expected.shape)}"
    worst = int(np.abs(windows.astype(np.int16) - expected).max())
    return f"{SAMPLE_IMAGE} is prepared to pixels that differ by up to {worst} of 255; install a current Pillow" if worst > 1 else ""
