"""From a classifier to the bundle of a device: what the export stage and `g2sd export` share."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from g2sd_deploy import __version__, environment
from g2sd_deploy.data.decoding import decoded
from g2sd_deploy.data.images import ImageSet, Samples, Skipped, evenly_spread
from g2sd_deploy.data.selection import Selection
from g2sd_deploy.evaluation.calibration import equal_width_bins, expected_calibration_error
from g2sd_deploy.evaluation.outcomes import outcomes_of
from g2sd_deploy.settings import ExportSettings
from g2sd_deploy.token_merging import closest_calls, cost_of_merging, judged, merging_module
from g2sd_export.bundle import BuiltVariant, Bundle, Variant, open_bundle, write_bundle
from g2sd_export.device_tolerance import calibrate_tolerance, spread
from g2sd_export.edge.agreement import ParityTolerance
from g2sd_export.edge.preprocess import Preprocessing
from g2sd_export.edge.runner import INPUT_NAME, OUTPUT_NAME
from g2sd_export.int8.calibration import pick_calibration
from g2sd_export.shipping.material import Material, TrainingImages
from g2sd_export.shipping.race import RaceSettings
from g2sd_export.shipping.runtimes import open_candidate
from g2sd_export.shipping.ship import Shipment, Way, ship
from g2sd_export.targets import Target

if TYPE_CHECKING:
    from torch import nn

    from g2sd_export.edge.runner import Runner

Tick = Callable[[int, int, str], None]

_CHOICE = 4
"""Images for each sample of a student that merges tokens: those are taken on which no merge is a close call."""
NUM_HELD_OUT = 512
"""Training images, besides those of the calibration, on which a quantiser is chosen."""


@dataclass(frozen=True)
class Source:
    """A classifier as it was trained.

    Attributes:
        module: In evaluation mode, on the CPU.
        preprocessing: How it wants its images.
        class_names: One per logit.
        weights_sha256: Digest of the file with its weights.
    """

    module: "nn.Module"
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    weights_sha256: str


@dataclass(frozen=True)
class Job:
    """What to export, and what to prove it with.

    Attributes:
        name: Of the model.
        source: The classifier.
        quantised: The same after quantisation-aware distillation, from which INT8 files are made; None where there was none.
        test: Images that every file has to answer like the classifier.
        train: Training images, for calibration; None where there are none.
        train_source: Where they come from, for people.
        test_source: Where the images of the proof come from, for people.
        target: What the device needs.
        settings: Of the export.
        provenance: JSON values for the manifest.
    """

    name: str
    source: Source
    test: ImageSet
    target: Target
    settings: ExportSettings
    train: Samples | None = None
    train_source: str = ""
    test_source: str = ""
    quantised: Source | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def images(self) -> ImageSet:
        """Those of the test images that the proof asks about, cut out once."""
        return self.test.subset(self.settings.max_images)

    @cached_property
    def asked(self) -> Source:
        """The classifier as it is asked for: it merges tokens where the settings say so.

        Raises:
            UserError: It cannot.
        """
        return replace(self.source, module=merging_module(self.source.module, self.settings.token_merging))

    @property
    def judge(self) -> Target:
        """The target with the tolerances that its files are judged by."""
        return judged(self.target, self.settings.token_merging)


@dataclass(frozen=True)
class Exported:
    """A bundle that was written.

    Attributes:
        bundle: As it was opened after it was written.
        shipment: Every candidate and what became of it.
        merging: What token merging costs, as ``cost_of_merging`` gives it; None where no token is merged.
    """

    bundle: Bundle
    shipment: Shipment
    merging: dict[str, Any] | None = None


def images_of(root: str, split: str) -> str:
    """Where images come from, for a bundle that others will read: no path of this machine."""
    return f"{Path(root).name or root}, split {split}"


def export_bundle(job: Job, reference: "Runner", *, scratch: Path, folder: Path, tick: Tick | None = None) -> Exported:
    """Make every file that the target asks for, prove and time them, and write the bundle, marked failed where the proof failed.

    Args:
        job: What to export.
        reference: ``job.asked`` on torch and the CPU, whatever trained it: expected answers must not depend on a GPU's arithmetic.
        scratch: Folder for files on the way.
        folder: The bundle; must not exist, or be empty.
        tick: Told (done, total, note).

    Raises:
        UserError: A file cannot be made, or INT8 is asked for and there are no training images.
    """
    from g2sd_deploy.models.deploy import as_shipped
    from g2sd_export.onnx_file import export_onnx, model_metadata

    def float_file(source: Source, name: str) -> Path:
        pre = source.preprocessing
        metadata = model_metadata(pre, source.class_names, weights_sha256=source.weights_sha256, recipe=job.name)
        path, sizes = scratch / name, {"image_px": pre.image_px, "num_channels": pre.num_channels}
        module = as_shipped(merging_module(source.module, job.settings.token_merging))
        export_onnx(module, path=path, opset=job.target.opset, metadata=metadata, **sizes)
        return path

    pre, test = job.source.preprocessing, job.images
    calibration, held_out = _training_images(job)
    material = Material(
        float_onnx=float_file(job.source, "float.onnx"),
        preprocessing=pre,
        images=np.asarray(test.images),
        labels=np.asarray(test.labels),
        calibration=calibration,
        held_out=held_out,
        quantised_onnx=float_file(job.quantised, "quantised.onnx") if job.quantised is not None else None,
    )
    timing = RaceSettings(seconds=job.settings.timing_seconds)
    shipment = ship(material, job.judge, reference, folder=scratch, tick=tick, ece=_ece, race_settings=timing)
    merging = _cost_of_merging(job, shipment)
    _write(job, shipment, reference, folder, calibration, merging)
    return Exported(open_bundle(folder), shipment, merging)


def _cost_of_merging(job: Job, shipment: Shipment) -> dict[str, Any] | None:
    """What the student loses by merging, on the images of the proof; None where it merges nothing."""
    if not job.settings.token_merging:
        return None
    import torch

    from g2sd_deploy.evaluation.torch_runner import TorchRunner

    plain = TorchRunner(job.source.module, job.source.preprocessing, device=torch.device("cpu"))
    merged = next(iter(shipment.base.answers.values()))
    images = job.images
    return cost_of_merging(plain, merged, np.asarray(images.images), np.asarray(images.labels), job.settings.token_merging)


def _ece(logits: np.ndarray, labels: np.ndarray) -> float:
    outcomes = outcomes_of(logits, labels)
    return expected_calibration_error(equal_width_bins(outcomes.top1_prob, outcomes.correct))


def _training_images(job: Job) -> tuple[TrainingImages | None, TrainingImages | None]:
    """Images to calibrate with, and others to choose a quantiser on; none where no candidate needs them."""
    if job.train is None or not job.target.calibrates:
        return None, None
    ids = [job.train.name(index) for index in range(len(job.train))]
    count = job.settings.calibration_images or job.target.int8.num_images
    pick = pick_calibration(np.asarray(job.train.labels), ids, count=min(len(ids), count + NUM_HELD_OUT))
    return _decoded(job, job.train, pick.indices[:count]), _decoded(job, job.train, pick.indices[count:])


def _decoded(job: Job, train: Samples, indices: tuple[int, ...]) -> TrainingImages | None:
    """Those that can be decoded; an unusable one is passed over, as it is in training."""
    ascending = Selection(train, np.sort(np.array(indices, np.int64)))
    images = dict(zip(ascending.indices.tolist(), decoded(ascending, job.source.preprocessing), strict=True))
    kept = [index for index in indices if not isinstance(images[index], Skipped)]
    if not kept:
        return None
    names = tuple(train.name(index) for index in kept)
    return TrainingImages(np.stack([images[index] for index in kept]), np.asarray(train.labels)[kept], names, job.train_source)


def _write(
    job: Job,
    shipment: Shipment,
    reference: "Runner",
    folder: Path,
    calibration: TrainingImages | None,
    merging: dict[str, Any] | None,
) -> None:
    ways = shipment.shipped(job.target.ship)
    samples = np.asarray(job.images.images)[_sample_of(ways, job)]
    expected = reference.infer(samples)
    licences = job.settings.licences.model_dump(exclude_none=True)
    write_bundle(
        folder,
        name=job.name,
        variants=[_variant(way, job, samples, expected) for way in ways],
        default=shipment.default.name,
        preprocessing=job.source.preprocessing,
        class_names=job.source.class_names,
        sample_images=samples,
        expected_logits=expected,
        target=job.target.to_dict(),
        licences={"code": "Apache-2.0 AND MIT", **licences},
        provenance={
            **job.provenance,
            "evaluated_on": job.test_source,
            "data": job.train_source,
            "weights_sha256": job.source.weights_sha256,
            "target_sha256": job.target.digest,
            "candidates": [plain_outcome(way) for way in shipment.ways],
            "notes": shipment.notes,
            "calibration": calibration_told(calibration),
            "tools": environment.tool_versions(),
            **({} if merging is None else {"token_merging": merging}),
        },
        verdict=shipment.verdict,
        reason=shipment.reason,
        program_version=__version__,
        threads=job.target.threads,
        sources={f"models/{way.file.graph.name}": way.file.graph for way in ways if way.file is not None and way.file.graph is not None},
    )


def _sample_of(ways: list[Way], job: Job) -> np.ndarray:
    """Images for the self-test, spread over those on which every file decides as torch does.

    A decision that a tolerated rounding flips would fail a sample of sixteen; how many there are is what the proof says. Where tokens are
    merged, another machine's rounding may turn a close call: such images are no samples either.
    """
    num_images, num_samples = len(job.images), job.settings.num_samples
    agreed = np.ones(num_images, dtype=bool)
    for way in ways:
        if way.runner is not None and way.proof is not None:
            answers = way.proof.answers
            first, own = next(iter(answers.values())), answers[way.name]
            agreed &= own.logits.shape == first.logits.shape and own.logits.argmax(axis=1) == first.logits.argmax(axis=1)
    usable = np.flatnonzero(agreed) if agreed.any() else np.arange(num_images)
    picks: np.ndarray = usable[evenly_spread(len(usable), min(num_samples * (_CHOICE if job.settings.token_merging else 1), len(usable)))]
    if job.settings.token_merging:
        calls = closest_calls(job.asked.module, job.source.preprocessing, np.asarray(job.images.images)[picks])
        picks = np.sort(picks[np.argsort(-calls, kind="stable")[:num_samples]])
    return picks


def calibration_told(images: TrainingImages | None) -> dict[str, Any] | None:
    """What a manifest says of the images that INT8 was calibrated with; None where there were none."""
    return None if images is None else {"source": images.source, "ids": list(images.ids)}


def plain_outcome(way: Way) -> dict[str, Any]:
    """A candidate without what depends on the moment, so that the same inputs give the same bundle."""
    outcome = way.outcome.to_dict()
    del outcome["p50_ms"]
    return outcome if outcome["verdict"] != "passed" else {**outcome, "reason": ""}


def _variant(way: Way, job: Job, samples: np.ndarray, expected: np.ndarray) -> BuiltVariant:
    assert way.file is not None and way.proof is not None
    pre, candidate = job.source.preprocessing, way.outcome.candidate
    verdict, reason = way.outcome.verdict, way.outcome.reason
    golden = way.runner.infer(samples) if way.runner is not None else None
    variant = Variant(
        name=way.name,
        file=f"models/{way.file.path.name}",
        precision=candidate.precision,
        runtime=candidate.runtime,
        settings=way.settings,
        input={"name": INPUT_NAME, "dtype": "uint8", "layout": "NHWC", "shape": ["batch", pre.image_px, pre.image_px, pre.num_channels]},
        output={"name": OUTPUT_NAME, "dtype": "float32", "shape": ["batch", len(job.source.class_names)]},
        verdict=verdict,
        reason="" if verdict == "passed" else reason,
        hops=tuple(hop.to_dict() for hop in (*way.proof.hops, way.proof.whole)),
        tolerance=job.judge.tolerance[candidate.precision].parity(),
        device_tolerance=None if golden is None else _device_tolerance(way, pre, samples, golden, expected),
    )
    return BuiltVariant(variant, way.file.path, golden)


def _device_tolerance(way: Way, pre: Preprocessing, samples: np.ndarray, golden: np.ndarray, expected: np.ndarray) -> ParityTolerance:
    """How far another machine of the same kind may be from these answers: measured by threads and batch sizes on this one."""
    candidate, file = way.outcome.candidate, way.file
    assert file is not None
    others = spread(lambda threads: open_candidate(candidate, file.path, pre, threads=threads), samples)
    return calibrate_tolerance(golden, others, expected)


def figures(exported: Exported) -> dict[str, Any]:
    """What is the same whenever the same classifier is exported: verdicts, hops, sizes."""
    bundle, shipment = exported.bundle, exported.shipment
    default, variant = shipment.default, bundle.variant(None)
    assert default.proof is not None
    record = bundle.files[variant.file]
    return {
        "verdict": bundle.verdict,
        "reason": bundle.reason,
        "target": bundle.target["name"],
        "default": variant.name,
        "model_file": variant.file,
        "model_bytes": record.bytes,
        "model_sha256": record.sha256,
        "parity": default.proof.whole.to_dict(),
        "hops": [hop.to_dict() for hop in default.proof.hops],
        "candidates": [plain_outcome(way) for way in shipment.ways],
        "notes": shipment.notes,
        **({} if exported.merging is None else {"token_merging": exported.merging}),
    }


def failure_of(figures: dict[str, Any]) -> str:
    """Why the bundle is marked failed; empty where it is not."""
    return f"the bundle is marked failed: {figures['reason']}" if figures["verdict"] == "failed" else ""


def timings(exported: Exported) -> dict[str, Any]:
    """What was measured of the moment: latency of every candidate that passed, and why one of them ships."""
    ways = exported.shipment.ways
    return {
        "latency": {way.name: way.latency for way in ways if way.latency is not None},
        "reasons": {way.name: way.outcome.reason for way in ways},
        "remarks": exported.shipment.remarks,
    }
