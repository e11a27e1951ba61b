"""Models that answer for pixels or objects, from whatever holds them: weights, a finished stage, a bundle."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from g2sd_deploy.errors import UserError
from g2sd_deploy.predictors.opening import bundle_folder

if TYPE_CHECKING:
    import torch

    from g2sd_deploy.evaluation.dense_scoring import Infer
    from g2sd_deploy.models.dense.network_file import DenseFile
    from g2sd_export.bundle import Bundle, Variant
    from g2sd_export.edge.dense.task import DenseTask

_NETWORKS = ("segmenter", "detector")


@dataclass(frozen=True)
class DensePredictor:
    """A segmenter or a detector that can be scored.

    Attributes:
        name: As it was asked for; of a bundle's other variants with the variant behind it.
        runtime: Who computes: torch, or a variant of a bundle.
        task: How an image becomes its input and its answer a result.
        class_names: In the order of its classes.
        num_parameters: Weights in it.
        model_bytes: Size of the file that holds it.
        digest: SHA-256 of that file, or of a bundle's manifest.
        open: Makes the network, with a number of threads for a runtime on the CPU (None: its own choice).
    """

    name: str
    runtime: str
    task: "DenseTask"
    class_names: tuple[str, ...]
    num_parameters: int
    model_bytes: int
    digest: str
    open: "Callable[[int | None], Infer]"


def dense_place(model: str) -> Path | None:
    """The weight file or the bundle of a segmenter or detector; None where a name stands for something else.

    Args:
        model: A weight file (`.safetensors`), the folder of a stage that made one or of an export, or a bundle.

    Raises:
        UserError: It is damaged.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return _in_folder(path)
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        return None
    from g2sd_deploy.models.weight_file import held_kind

    return path if held_kind(path) in _NETWORKS else None


def _in_folder(path: Path) -> Path | None:
    from g2sd_export.edge.manifest import read_manifest

    if (folder := bundle_folder(path)) is not None:
        return folder if "task" in read_manifest(folder)[0] else None
    return next((path / file for name in _NETWORKS if (path / (file := f"{name}.safetensors")).is_file()), None)


def open_dense(name: str, place: Path, device: "torch.device") -> list[DensePredictor]:
    """Open a model of pixels or objects; of a bundle every variant that passed its proof, the default one first.

    Args:
        name: For people.
        place: As `dense_place` found it.
        device: Where torch computes.

    Raises:
        UserError: It was changed, does not fit this version, or failed its proof at export.
    """
    return _of_bundle(name, place) if place.is_dir() else [_of_weights(name, place, device)]


def read_dense(path: Path) -> "DenseFile":
    """Read a weight file, as `dense_place` found it.

    Raises:
        UserError: It is damaged, or does not fit this version.
    """
    from g2sd_deploy.models.dense.network_file import load_network
    from g2sd_deploy.models.weight_file import held_kind

    return load_network(path, held_kind(path) or "segmenter")


def _of_weights(name: str, path: Path, device: "torch.device") -> DensePredictor:
    from g2sd_deploy.artifact import sha256_of
    from g2sd_deploy.evaluation.dense_networks import detector_infer, segmenter_infer
    from g2sd_deploy.models.dense.segmenter import Segmenter

    file = read_dense(path)
    model, task = file.model, file.task

    def opened(_: int | None) -> "Infer":
        if isinstance(model, Segmenter):
            return segmenter_infer(model, device, task.mean, task.std)
        return detector_infer(model, device, task.mean, task.std)

    num_parameters = sum(p.numel() for p in model.parameters())
    return DensePredictor(name, "torch", task, file.class_names, num_parameters, path.stat().st_size, sha256_of(path), opened)


def _of_bundle(name: str, folder: Path) -> list[DensePredictor]:
    from g2sd_export.bundle import open_bundle

    bundle = open_bundle(folder)
    default = bundle.variant()
    if refusal := bundle.refusal(default):
        raise UserError(f"{folder}: {refusal}; it is not scored")
    others = [variant for variant in bundle.variants if variant is not default and variant.verdict == "passed"]
    return [_of_variant(name, bundle, default), *(_of_variant(f"{name}:{variant.name}", bundle, variant) for variant in others)]


def _of_variant(name: str, bundle: "Bundle", variant: "Variant") -> DensePredictor:
    from g2sd_export.onnx_file import count_parameters

    assert bundle.task is not None
    return DensePredictor(
        name,
        variant.name,
        bundle.task,
        bundle.class_names,
        count_parameters(bundle.read(variant.file)),
        bundle.files[variant.file].bytes,
        bundle.digest,
        lambda threads: bundle.network(threads=threads, variant=variant.name).infer,
    )
