"""Export stage: ONNX file, parity on the test images, and the bundle."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from g2sd_deploy import environment
from g2sd_deploy.artifact import Made, sha256_of
from g2sd_deploy.data.images import ImageSet, evenly_spread
from g2sd_deploy.evaluation.torch_runner import TorchRunner
from g2sd_deploy.models.checkpoint import load_classifier
from g2sd_deploy.settings import ExportSettings
from g2sd_deploy.stages.context import BUNDLE, CLASSIFIER_FILE, Context, open_dataset
from g2sd_export.bundle import write_bundle
from g2sd_export.edge.runner import OnnxRunner
from g2sd_export.onnx_file import OnnxInfo, export_onnx, model_metadata
from g2sd_export.parity import ParityResult, ParityTolerance, compare


@dataclass(frozen=True)
class Exported:
    """An ONNX file and what the comparison with its torch model said."""

    onnx: OnnxInfo
    parity: ParityResult

    @property
    def failure(self) -> str:
        """Why there is no bundle; empty where there is one."""
        return "" if self.parity.verdict == "passed" else f"parity {self.parity.verdict}: {self.parity.reason}; no bundle is written"


def run(context: Context) -> Made:
    """Export the student; where parity fails, its figures are kept and no bundle is written."""
    settings = context.recipe.export
    assert settings is not None
    student = context.inputs["student"]
    dataset = open_dataset(context.inputs["data"])
    exported = export_classifier(
        student.file(CLASSIFIER_FILE),
        dataset.test,
        settings,
        folder=context.folder,
        name=context.recipe.name,
        provenance={"student": student.digest},
        tick=lambda done, total: context.progress.update(done, total, "parity"),
    )
    metrics = {
        "onnx_bytes": exported.onnx.bytes,
        "onnx_sha256": exported.onnx.sha256,
        "opset": exported.onnx.opset,
        "bundle": BUNDLE,
        "parity": exported.parity.to_dict(),
    }
    return Made(metrics, failure=exported.failure)


def export_classifier(
    weights: Path,
    images: ImageSet,
    settings: ExportSettings,
    *,
    folder: Path,
    name: str,
    provenance: dict[str, Any],
    tick: Callable[[int, int], None] | None = None,
) -> Exported:
    """Write `folder/bundle` if its ONNX file decides on real images as the torch model does; look at the result's `failure`."""
    file = load_classifier(weights)
    pre = file.preprocessing
    weights_sha256 = sha256_of(weights)
    metadata = model_metadata(pre, file.class_names, weights_sha256=weights_sha256, recipe=name)
    path = folder / "model.onnx"
    onnx = export_onnx(file.model, image_px=pre.image_px, num_channels=pre.num_channels, path=path, opset=settings.opset, metadata=metadata)
    # The reference is torch on the CPU, whatever trained it: the sample's expected logits must not depend on a GPU's arithmetic.
    reference = TorchRunner(file.model, pre, device=torch.device("cpu"))
    tolerance = ParityTolerance(max_abs_logit_diff=settings.max_abs_logit_diff, flipped_share=settings.max_flipped_share)
    parity = compare(reference, OnnxRunner(path, pre), images.images, images.labels, tolerance=tolerance, tick=tick)
    exported = Exported(onnx, parity)
    if exported.failure:
        return exported
    picks = evenly_spread(len(images), min(settings.num_samples, len(images)))
    samples = images.images[picks]
    write_bundle(
        folder / BUNDLE,
        name=name,
        onnx_path=path,
        preprocessing=pre,
        class_names=file.class_names,
        sample_images=samples,
        expected_logits=reference.infer(samples),
        tolerance=tolerance,
        parity=parity.to_dict(),
        provenance=provenance | {"recipe": name, "weights_sha256": weights_sha256, "tools": environment.tool_versions()},
    )
    path.unlink()  # the bundle holds the file that ships
    return exported
