"""From a segmenter or a detector to the bundle of a device: what the export stage calls for a task that is not classification."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn

from g2sd_deploy import __version__, environment
from g2sd_deploy.data.dense.annotations import DenseSamples
from g2sd_deploy.data.images import evenly_spread, picks_of
from g2sd_deploy.dense_images import metric_of, quantising_images, usable
from g2sd_deploy.errors import UserError
from g2sd_deploy.exporting import Exported, Tick, calibration_told, plain_outcome
from g2sd_deploy.models.dense.network_file import DenseFile
from g2sd_deploy.models.dense.segmenter_file import SegmenterFile
from g2sd_deploy.models.dense.segmenter_shipping import as_shipped
from g2sd_deploy.settings import ExportSettings
from g2sd_export.bundle import BuiltVariant, Variant, open_bundle
from g2sd_export.dense.bundle import PickedSample, input_of, output_of, write_dense_bundle
from g2sd_export.dense.exam import DenseExam, calibrates, open_network, tolerance_of
from g2sd_export.dense.half import kept_by_rule
from g2sd_export.dense.onnx_file import PixelOutput, dense_metadata, export_dense_onnx
from g2sd_export.dense.picking import device_tolerance, pick_windows
from g2sd_export.dense.proof import Scorer
from g2sd_export.dense.quantising import HeldOut, dense_int8
from g2sd_export.dense.questions import Questions, ask_of, chosen, questions_of
from g2sd_export.edge.dense.preparing import resized
from g2sd_export.edge.dense.task import DenseTask
from g2sd_export.edge.preprocess import normalise
from g2sd_export.int8.calibration import inputs_of
from g2sd_export.shipping.material import Material, TrainingImages
from g2sd_export.shipping.race import RaceSettings
from g2sd_export.shipping.ship import Shipment, Way, ship_from
from g2sd_export.shipping.workshop import Formats, Workshop
from g2sd_export.targets import Target

_LARGEST_PICTURE = 2.0
"""Sides of the network's input that the picture in a bundle may be long."""


@dataclass(frozen=True)
class DenseJob:
    """What to export, and what to prove it with.

    Attributes:
        name: Of the model.
        file: The segmenter or detector as it was trained.
        weights_sha256: Digest of the file with its weights.
        samples: Test images with their truth, which every file has to answer like the torch model.
        target: What the device needs.
        settings: Of the export.
        output: What a segmenter's file gives; None takes logits where windows slide, else classes.
        train: Training images with their truth, for INT8; None where there are none.
        train_source: Where the training images come from, for people.
        test_source: Where the images of the proof come from, for people.
        provenance: JSON values for the manifest.
    """

    name: str
    file: DenseFile
    weights_sha256: str
    samples: DenseSamples
    target: Target
    settings: ExportSettings
    output: PixelOutput | None = None
    train: DenseSamples | None = None
    train_source: str = ""
    test_source: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> DenseTask:
        """How an image becomes the network's input."""
        return self.file.task

    @property
    def asked_output(self) -> PixelOutput:
        """What a segmenter's file gives."""
        return self.output or ("logits" if self.task.inference == "slide" else "classes")

    @property
    def module(self) -> nn.Module:
        """The network as it is exported: normalised images to a tensor, or a tuple of them."""
        return as_shipped(self.file.model, self.asked_output) if isinstance(self.file, SegmenterFile) else self.file.model


class TorchNetwork:
    """A torch network as the proof asks it: float32, on the CPU.

    Args:
        module: Normalised images to a tensor, or a tuple of them; put into evaluation mode.
        task: How its images are normalised.
    """

    name = "torch"
    version = torch.__version__

    def __init__(self, module: nn.Module, task: DenseTask) -> None:
        self._module, self._preprocessing = module.eval(), task.preprocessing()

    def infer(self, images: UInt8[np.ndarray, "batch px px channels"]) -> tuple[np.ndarray, ...]:
        """Its outputs for square images."""
        with torch.inference_mode():
            found = self._module(torch.from_numpy(normalise(images, self._preprocessing)))
        return tuple(output.numpy() for output in (found if isinstance(found, tuple) else (found,)))


def export_dense(job: DenseJob, *, scratch: Path, folder: Path, tick: Tick | None = None) -> Exported:
    """Make every file that the target asks for, prove and time them, and write the bundle, marked failed where the proof failed.

    Args:
        job: What to export.
        scratch: Folder for files on the way.
        folder: The bundle; must not exist, or be empty.
        tick: Told (done, total, note).

    Returns:
        What `exporting.figures`, `failure_of` and `timings` tell of.

    Raises:
        UserError: A file cannot be made, no candidate of the target is for this task, or no test image can be used.
    """
    images, names = usable(job.samples, picks_of(len(job.samples), job.settings.max_images).tolist()), job.file.class_names
    if not images.indices:
        raise UserError("none of the test images can be used, and nothing can be proven without them; give other ones")
    questions = questions_of(images.pixels, job.task)
    scorer = Scorer(metric_of(images, job.task, names), questions)
    exam = DenseExam(questions, names, job.target, scorer)
    calibration, held_out = _training_images(job)
    none = np.zeros(0, np.int64)
    material = Material(_float_file(job, scratch), job.task.preprocessing(), questions.windows, none, calibration=calibration)
    timing = RaceSettings(batch=job.target.batch.best, seconds=job.settings.timing_seconds)
    told = tick or (lambda done, total, note: None)
    workshop = Workshop(material, job.target, scratch, told, timing, Formats(dense_int8(held_out, names), kept_by_rule))
    shipment = ship_from(workshop, exam, TorchNetwork(job.module, job.task))
    _write(job, shipment, questions, images.pixels[0], folder, calibration)
    return Exported(open_bundle(folder), shipment)


def _training_images(job: DenseJob) -> tuple[TrainingImages | None, HeldOut | None]:
    """Images to calibrate with, and others to choose a quantiser on; none where no candidate needs them."""
    if job.train is None or not calibrates(job.target, job.task):
        return None, None
    asked = job.settings.calibration_images or inputs_of(job.target.int8.num_images, job.task.image_px)
    return quantising_images(job.train, job.task, job.file.class_names, num_calibrated=asked, source=job.train_source)


def _float_file(job: DenseJob, scratch: Path) -> Path:
    path, names = scratch / "float.onnx", job.file.class_names
    metadata = dense_metadata(job.task, names, weights_sha256=job.weights_sha256, recipe=job.name)
    options: dict[str, Any] = {"output": job.asked_output, "opset": job.target.opset, "metadata": metadata}
    export_dense_onnx(job.module, job.task, num_classes=len(names), path=path, **options)
    return path


def _write(
    job: DenseJob,
    shipment: Shipment,
    questions: Questions,
    picture: UInt8[np.ndarray, "h w c"],
    folder: Path,
    calibration: TrainingImages | None,
) -> None:
    ways = shipment.shipped(job.target.ship)
    sample = _sample(job, ways, questions, picture)
    licences = job.settings.licences.model_dump(exclude_none=True)
    write_dense_bundle(
        folder,
        name=job.name,
        variants=[_variant(way, job, sample) for way in ways],
        default=shipment.default.name,
        class_names=job.file.class_names,
        sample=sample,
        target=job.target.to_dense_dict(),
        licences={"code": "Apache-2.0 AND MIT", **licences},
        provenance={
            **job.provenance,
            "evaluated_on": job.test_source,
            "data": job.train_source,
            "weights_sha256": job.weights_sha256,
            "target_sha256": job.target.dense_digest,
            "candidates": [plain_outcome(way) for way in shipment.ways],
            "notes": shipment.notes,
            "calibration": calibration_told(calibration),
            "tools": environment.tool_versions(),
        },
        verdict=shipment.verdict,
        reason=shipment.reason,
        program_version=__version__,
        threads=job.target.threads,
    )


def _sample(job: DenseJob, ways: list[Way], questions: Questions, picture: UInt8[np.ndarray, "h w c"]) -> PickedSample:
    """Square inputs on which every file says what torch says, and one image as it comes, shrunk where it is very large."""
    proofs = [way.proof for way in ways if way.proof is not None and way.name in way.proof.answers]
    told = [next(iter(proof.answers.values())).answer for proof in proofs[:1]]
    told += [way.proof.answers[way.name].answer for way in ways if way.proof is not None and way.name in way.proof.answers]
    told = [answer for answer in told if answer]
    reference = TorchNetwork(job.module, job.task)
    if told:
        picks = pick_windows(questions, told, tolerance_of(job.target.limits("fp32"), job.task), job.settings.num_samples)
    else:
        first = [start for start, _ in questions.bounds]
        picks = [first[place] for place in evenly_spread(len(first), min(job.settings.num_samples, len(first))).tolist()]
    windows = questions.windows[picks]
    answer = chosen(told[0], picks) if told and job.task.kind == "detection" else ask_of(reference.infer, windows, job.task)
    return PickedSample(job.task, windows, answer, _shrunk(picture, job.task))


def _shrunk(picture: UInt8[np.ndarray, "h w c"], task: DenseTask) -> UInt8[np.ndarray, "h w c"]:
    share = min(1.0, _LARGEST_PICTURE * task.image_px / max(picture.shape[:2]))
    size = tuple(max(1, round(share * side)) for side in picture.shape[:2])
    return resized(picture, (size[0], size[1]))


def _variant(way: Way, job: DenseJob, sample: PickedSample) -> BuiltVariant:
    assert way.file is not None and way.proof is not None
    candidate, file, task = way.outcome.candidate, way.file, job.task
    verdict, reason = way.outcome.verdict, way.outcome.reason
    num_classes = len(job.file.class_names)
    golden = None if way.runner is None else ask_of(way.runner.infer, sample.windows, task)
    outputs = TorchNetwork(job.module, task).infer(sample.windows[:1])
    names = ("boxes",) if task.kind == "detection" else (job.asked_output,)

    def opened(threads: int) -> Any:
        return open_network(candidate, file.path, task, num_classes, threads=threads)

    variant = Variant(
        name=way.name,
        file=f"models/{file.path.name}",
        precision=candidate.precision,
        runtime=candidate.runtime,
        settings=way.settings,
        input=input_of(task),
        output=output_of(names, outputs),
        verdict=verdict,
        reason="" if verdict == "passed" else reason,
        hops=tuple(hop.to_dict() for hop in (*way.proof.hops, way.proof.whole)),
        tolerance=way.proof.whole.tolerance,
        device_tolerance=None if golden is None else device_tolerance(opened, sample.windows, golden, sample.answer, task),
    )
    return BuiltVariant(variant, file.path, golden)
