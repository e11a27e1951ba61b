"""From what a person names to a predictor."""

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from g2sd_deploy.errors import UserError
from g2sd_deploy.predictors.predictor import Predictor
from g2sd_deploy.predictors.preprocessing import AskedPreprocessing, Said, settle

if TYPE_CHECKING:
    import torch

_MANIFEST = "manifest.json"
_CLASSIFIER = "classifier.safetensors"
_ENGINES = (".engine", ".plan", ".trt")
_WANTED = "a classifier (.safetensors), a stage's folder, a bundle, an ONNX file, a TensorRT engine or a timm name"


def open_predictor(name: str | Path, device: "torch.device", asked: AskedPreprocessing | None = None) -> Predictor:
    """Open whatever predicts.

    Args:
        name: A classifier of ours (`.safetensors`), the folder of a stage that made one or of an export, a bundle, any `.onnx`, a TensorRT
            engine (`.engine`, `.plan`, `.trt`), or a model of timm: `timm:NAME`, `NAME`, either with `@WEIGHTS` for weights in a file.
        device: Where torch computes.
        asked: How a person says that images are to be prepared; completes what the model does not say.

    Raises:
        UserError: It is none of these, its content was changed or does not fit together, or what is asked for contradicts what it says.
    """
    from g2sd_deploy.predictors.onnx_models import onnx_predictor

    name = str(name)
    path = Path(name).expanduser()
    suffix = path.suffix.lower()
    if name.startswith("timm:"):
        return _timm(name, device, asked)
    if path.is_dir():
        return _from_folder(name, path, device, asked)
    if not path.exists():
        if _may_be_of_timm(name):
            return _timm(name, device, asked)
        raise UserError(f"{name}: there is no such model{_near(name)}; give {_WANTED}")
    if suffix == ".safetensors":
        return classifier_predictor(path, device, name=name, asked=asked)
    if suffix == ".onnx":
        return onnx_predictor(name, path, asked)
    if suffix in _ENGINES:
        from g2sd_deploy.predictors.engines import engine_predictor

        return engine_predictor(name, path, asked)
    raise UserError(f"{name}: is a file of no known kind; give {_WANTED}")


def classifier_predictor(
    path: Path, device: "torch.device", *, name: str | None = None, asked: AskedPreprocessing | None = None
) -> Predictor:
    """A classifier's weights on torch."""
    from g2sd_deploy.artifact import sha256_of
    from g2sd_deploy.evaluation.torch_runner import TorchRunner
    from g2sd_deploy.models.checkpoint import load_classifier

    file = load_classifier(path)
    model, pre = file.model, file.preprocessing
    settle(name or str(path), [Said("its file", pre.to_dict())], asked)
    return Predictor(
        name=name or str(path),
        kind="classifier",
        preprocessing=pre,
        class_names=file.class_names,
        num_classes=len(file.class_names),
        num_parameters=sum(p.numel() for p in model.parameters()),
        model_bytes=path.stat().st_size,
        digest=sha256_of(path),
        open=lambda threads: TorchRunner(model, pre, device=device, threads=threads),
        module=lambda: model,
    )


def bundle_predictor(folder: Path, *, name: str | None = None, asked: AskedPreprocessing | None = None) -> Predictor:
    """A bundle's default variant on its runtime.

    Raises:
        UserError: The bundle was changed, or failed its proof at export.
    """
    from g2sd_export.bundle import open_bundle
    from g2sd_export.onnx_file import count_parameters

    bundle = open_bundle(folder)
    variant = bundle.variant()
    if refusal := bundle.refusal(variant):
        raise UserError(f"{folder}: {refusal}; it is not scored")
    settle(name or str(folder), [Said(f"its {_MANIFEST}", bundle.preprocessing.to_dict())], asked)
    return Predictor(
        name=name or str(folder),
        kind="bundle",
        preprocessing=bundle.preprocessing,
        class_names=bundle.class_names,
        num_classes=len(bundle.class_names),
        num_parameters=count_parameters(bundle.read(variant.settings.get("source", variant.file))),  # an engine is built from an ONNX file
        model_bytes=bundle.files[variant.file].bytes,
        digest=bundle.digest,
        open=lambda threads: bundle.runner(threads=threads),
    )


def bundle_folder(path: Path) -> Path | None:
    """The bundle in a folder: the folder itself, or what an export stage made; None where there is none.

    Raises:
        UserError: It is a stage's folder, and a file of the stage is missing, changed or truncated.
    """
    verify_artifact(path)
    return next((folder for folder in (path, path / "bundle") if (folder / _MANIFEST).is_file()), None)


def verify_artifact(folder: Path) -> None:
    """Verify a stage's folder; anything else is let through.

    Raises:
        UserError: A file of the stage is missing, changed or truncated.
    """
    from g2sd_deploy.artifact import read_artifact

    artifact = read_artifact(folder) if folder.is_dir() else None
    if artifact is not None:
        artifact.verify()


def _from_folder(name: str, path: Path, device: "torch.device", asked: AskedPreprocessing | None) -> Predictor:
    if (folder := bundle_folder(path)) is not None:
        return bundle_predictor(folder, name=name, asked=asked)
    if (path / _CLASSIFIER).is_file():
        return classifier_predictor(path / _CLASSIFIER, device, name=name, asked=asked)
    raise UserError(f"{path}: holds neither {_CLASSIFIER} nor a bundle's {_MANIFEST}; give {_WANTED}")


def _timm(name: str, device: "torch.device", asked: AskedPreprocessing | None) -> Predictor:
    from g2sd_deploy.predictors.timm_models import timm_predictor

    return timm_predictor(name, device, asked)


def _may_be_of_timm(name: str) -> bool:
    """Whether timm knows the name; a path is never asked about, so that a mistyped one costs no import."""
    model = name.partition("@")[0]
    if "/" in model or "\\" in model or Path(model).suffix in (".safetensors", ".onnx", *_ENGINES):
        return False
    import timm

    return bool(timm.is_model(model))


def _near(name: str) -> str:
    model = name.partition("@")[0]
    if "/" in model or "\\" in model or Path(model).suffix in (".safetensors", ".onnx", *_ENGINES):
        return ""
    import timm

    near = get_close_matches(model, timm.list_models(), n=1, cutoff=0.8)
    return f"; did you mean {near[0]}?" if near else ""
