"""Does this bundle, on this machine, still answer as it did where it was made?"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .agreement import Agreement, Verdict, judge
from .errors import IntegrityError
from .manifest import SAMPLE_IMAGE, Bundle, Sample, open_bundle
from .preprocess import load_image
from .runner import Runner, describe


@dataclass(frozen=True)
class SelftestResult:
    """Outcome of a self-test.

    Attributes:
        verdict: "passed" or "failed".
        reason: What failed, empty when passed.
        bundle: SHA-256 of the bundle's manifest; empty when the files could not be trusted.
        runtime: Runtime, version and provider; empty when it was not reached.
        agreement: Expected against computed logits; batch 1 and the full batch are both counted.
    """

    verdict: Verdict
    reason: str
    bundle: str = ""
    runtime: str = ""
    agreement: Agreement | None = None

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return dataclasses.asdict(self)


def run_selftest(folder: Path, *, threads: int | None = None) -> SelftestResult:
    """Verify every file's digest, then run the stored sample and compare with its expected logits.

    Args:
        folder: The bundle.
        threads: Threads of the runtime; None takes one per CPU this process may use.

    Returns:
        The result; a changed, truncated or missing file is a failed verdict, not an exception.

    Raises:
        UserError: The runtime is not installed or cannot load the model.
    """
    try:
        bundle = open_bundle(folder)
        return check_sample(bundle, bundle.sample(), bundle.runner(threads=threads))
    except IntegrityError as error:
        return SelftestResult("failed", str(error))


def check_sample(bundle: Bundle, sample: Sample, runner: Runner) -> SelftestResult:
    """Run the sample one image at a time and as one batch, and decode the sample image file.

    Args:
        bundle: Gives the tolerance and the sample image file.
        sample: Images and expected logits.
        runner: The model.

    Returns:
        The result, whatever it is.
    """
    singles = np.concatenate([runner.infer(image[None]) for image in sample.images])
    together = runner.infer(sample.images)
    verdict, reason, agreement = judge(np.concatenate([sample.logits] * 2), np.concatenate([singles, together]), bundle.tolerance)
    if verdict == "passed" and (wrong := _decoding_error(bundle, sample.decoded)):
        verdict, reason = "failed", wrong
    return SelftestResult("passed" if verdict == "passed" else "failed", reason, bundle.digest, describe(runner), agreement)


def _decoding_error(bundle: Bundle, expected: npt.NDArray[np.uint8]) -> str:
    """Why this machine's Pillow does not prepare ``sample.png`` as the exporting machine did; empty if it does.

    One grey level is tolerated: resampling may round differently between Pillow's builds.
    """
    decoded = load_image(bundle.read(SAMPLE_IMAGE), bundle.preprocessing)
    worst = int(np.abs(decoded.astype(np.int16) - expected).max())
    return f"{SAMPLE_IMAGE} decodes to pixels that differ by up to {worst} of 255; install a current Pillow" if worst > 1 else ""
