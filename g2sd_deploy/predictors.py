"""Open anything that predicts (a classifier's weights, a finished stage, a bundle) behind one interface."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from g2sd_deploy.errors import UserError

if TYPE_CHECKING:
    import torch

    from g2sd_export.edge.preprocess import Preprocessing
    from g2sd_export.edge.runner import Runner

_MANIFEST = "manifest.json"
_CLASSIFIER = "classifier.safetensors"


@dataclass(frozen=True)
class Predictor:
    """A model that can be scored and timed.

    Attributes:
        path: File or folder it was opened from.
        preprocessing: How it wants its images.
        class_names: One per logit.
        num_parameters: Weights in it.
        model_bytes: Size of the file that holds it.
        open: Makes a runner with a number of threads (None: the runtime's own choice).
    """

    path: Path
    preprocessing: "Preprocessing"
    class_names: tuple[str, ...]
    num_parameters: int
    model_bytes: int
    open: Callable[[int | None], "Runner"]


def open_predictor(path: Path, device: "torch.device") -> Predictor:
    """Open a classifier (`.safetensors`), a stage's folder that holds one, a bundle, or an export stage's folder.

    Raises:
        UserError: The path is none of these, or its content was changed or does not fit together.
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such model; give a classifier (.safetensors), a stage's folder or a bundle")
    if path.is_file() and path.suffix == ".safetensors":
        return classifier_predictor(path, device)
    verify_artifact(path)
    for folder in (path, path / "bundle"):
        if (folder / _MANIFEST).is_file():
            return bundle_predictor(folder)
    if (path / _CLASSIFIER).is_file():
        return classifier_predictor(path / _CLASSIFIER, device)
    raise UserError(
        f"{path}: holds neither {_CLASSIFIER} nor a bundle's {_MANIFEST}; give a classifier (.safetensors), a stage's folder or a bundle"
    )


def classifier_predictor(path: Path, device: "torch.device") -> Predictor:
    """A classifier's weights on torch."""
    from g2sd_deploy.evaluation.torch_runner import TorchRunner
    from g2sd_deploy.models.checkpoint import load_classifier

    file = load_classifier(path)
    num_parameters = sum(p.numel() for p in file.model.parameters())
    model, pre = file.model, file.preprocessing
    return Predictor(
        path,
        pre,
        file.class_names,
        num_parameters,
        path.stat().st_size,
        lambda threads: TorchRunner(model, pre, device=device, threads=threads),
    )


def bundle_predictor(folder: Path) -> Predictor:
    """A bundle's ONNX file on ONNX Runtime."""
    from g2sd_export.bundle import open_bundle
    from g2sd_export.onnx_file import count_parameters

    bundle = open_bundle(folder)
    content = bundle.read("model.onnx")
    return Predictor(
        folder,
        bundle.preprocessing,
        bundle.class_names,
        count_parameters(content),
        len(content),
        lambda threads: bundle.runner(threads=threads),
    )


def verify_artifact(folder: Path) -> None:
    """Verify a stage's folder; anything else is let through.

    Raises:
        UserError: A file of the stage is missing, changed or truncated.
    """
    from g2sd_deploy.artifact import read_artifact

    artifact = read_artifact(folder) if folder.is_dir() else None
    if artifact is not None:
        artifact.verify()
