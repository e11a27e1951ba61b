"""Does this bundle, on this machine, still answer as it did where it was made?"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .agreement import Agreement, ParityTolerance, Verdict, judge
from .dense.agreement import BoxAgreement, PixelAgreement
from .errors import IntegrityError, UserError
from .manifest import SAMPLE_IMAGE, Bundle, Sample, Variant, open_bundle
from .preprocess import load_image
from .runner import Runner, describe


@dataclass(frozen=True)
class SelftestResult:
    """Outcome of a self-test of one variant.

    Attributes:
        verdict: "passed" or "failed"; "not_run" only where several variants are run and this machine cannot run one.
        reason: What failed, empty when passed.
        bundle: SHA-256 of the bundle's manifest; empty when the files could not be trusted.
        variant: Name of the variant; empty when the files could not be trusted.
        runtime: Runtime, version and provider; empty when it was not reached.
        agreement: The reference's answers against those computed here; batch 1 and the full batch are both counted.
        device_agreement: The variant's own answers at export against those computed here; None where it did not run there.
    """

    verdict: Verdict
    reason: str
    bundle: str = ""
    variant: str = ""
    runtime: str = ""
    agreement: Agreement | PixelAgreement | BoxAgreement | None = None
    device_agreement: Agreement | PixelAgreement | BoxAgreement | None = None

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return dataclasses.asdict(self)


def run_selftest(folder: Path, *, threads: int | None = None, variant: str | None = None) -> SelftestResult:
    """Verify every file's digest, then run the stored sample and compare with its expected answers.

    Args:
        folder: The bundle.
        threads: Threads of the runtime; None takes one per CPU this process may use.
        variant: Name of the variant; None takes the default one.

    Returns:
        The result; a changed, truncated, missing or unlisted file is a failed verdict, not an exception, and so is a bundle or variant
        that failed its proof at export.

    Raises:
        UserError: There is no such variant, or its runtime is not installed or cannot load the model.
    """
    try:
        bundle = open_bundle(folder)
        return _run(bundle, bundle.variant(variant), threads)
    except IntegrityError as error:
        return SelftestResult("failed", str(error))


def run_selftests(folder: Path, *, threads: int | None = None) -> list[SelftestResult]:
    """Every variant's self-test, in the manifest's order.

    Args:
        folder: The bundle.
        threads: Threads of the runtime; None takes one per CPU this process may use.

    Returns:
        As ``run_selftest`` gives them; "not_run" with the reason for a variant that this machine cannot run. One failed result where the
        files cannot be trusted.
    """
    try:
        bundle = open_bundle(folder)
        return [_run_if_possible(bundle, variant, threads) for variant in bundle.variants]
    except IntegrityError as error:
        return [SelftestResult("failed", str(error))]


def check_sample(bundle: Bundle, sample: Sample, runner: Runner, variant: Variant) -> SelftestResult:
    """Run the sample one image at a time and as one batch, and decode the sample image file.

    Args:
        bundle: Gives the variant's own logits and the sample image file.
        sample: Images and expected logits.
        runner: The model.
        variant: What the runner runs: gives the tolerances.

    Returns:
        The result, whatever it is.
    """
    assert isinstance(variant.tolerance, ParityTolerance)
    singles = np.concatenate([runner.infer(image[None]) for image in sample.images])
    answers = np.concatenate([singles, runner.infer(sample.images)])
    verdict, reason, agreement = judge(_twice(sample.logits), answers, variant.tolerance)
    device_agreement = None
    golden = bundle.golden(variant)
    if verdict == "passed" and golden is not None and isinstance(variant.device_tolerance, ParityTolerance):
        verdict, reason, device_agreement = judge(_twice(golden), answers, variant.device_tolerance)
        reason = f"other answers than this variant gave at export: {reason}" if reason else ""
    if verdict == "passed" and (wrong := _decoding_error(bundle, sample.decoded)):
        verdict, reason = "failed", wrong
    return SelftestResult(
        verdict="passed" if verdict == "passed" else "failed",
        reason=reason,
        bundle=bundle.digest,
        variant=variant.name,
        runtime=describe(runner),
        agreement=agreement,
        device_agreement=device_agreement,
    )


def _run_if_possible(bundle: Bundle, variant: Variant, threads: int | None) -> SelftestResult:
    try:
        return _run(bundle, variant, threads)
    except IntegrityError:
        raise
    except UserError as error:
        return SelftestResult("not_run", str(error), bundle.digest, variant.name)


def _run(bundle: Bundle, variant: Variant, threads: int | None) -> SelftestResult:
    if refusal := bundle.refusal(variant):
        return SelftestResult("failed", refusal, bundle.digest, variant.name)
    if bundle.task is not None:
        from .dense.checking import check_dense_sample
        from .dense.sample import read_sample

        return check_dense_sample(bundle, read_sample(bundle), bundle.network(threads=threads, variant=variant.name), variant)
    return check_sample(bundle, bundle.sample(), bundle.runner(threads=threads, variant=variant.name), variant)


def _twice(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.concatenate([logits] * 2)


def _decoding_error(bundle: Bundle, expected: npt.NDArray[np.uint8]) -> str:
    """Why this machine's Pillow does not prepare ``sample.png`` as the exporting machine did; empty if it does.

    One grey level is tolerated: resampling may round differently between Pillow's builds.
    """
    decoded = load_image(bundle.read(SAMPLE_IMAGE), bundle.preprocessing)
    worst = int(np.abs(decoded.astype(np.int16) - expected).max())
    return f"{SAMPLE_IMAGE} decodes to pixels that differ by up to {worst} of 255; install a current Pillow" if worst > 1 else ""
