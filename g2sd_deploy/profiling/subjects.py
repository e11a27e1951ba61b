"""From what a person names to what can be timed, over every runtime that could run it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from g2sd_deploy.errors import UserError
from g2sd_deploy.profiling.candidate import RUNTIMES, TORCH, Candidate, Case, Opened, refused
from g2sd_deploy.profiling.here import why_not
from g2sd_deploy.profiling.raw_onnx import RawOnnx, Shapes, open_onnxruntime, open_openvino, read_raw_onnx
from g2sd_deploy.profiling.reference import REFERENCE, reference_onnx, reference_sha256
from g2sd_deploy.settings.profile import RuntimeName

if TYPE_CHECKING:
    from g2sd_deploy.predictors import Predictor
    from g2sd_deploy.profiling.layers import LayerSubject
    from g2sd_deploy.profiling.torch_calls import Network
    from g2sd_export.bundle import Bundle, Variant

_ONNX_SUFFIX = ".onnx"
_ENGINES = (".engine", ".plan", ".trt")
_ARITHMETICS = ("f32", "bf16")
_TENSORRT: dict[RuntimeName, Any] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_PROVIDERS: dict[RuntimeName, Any] = {
    "onnxruntime": "CPUExecutionProvider",
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
}


@dataclass(frozen=True)
class Wanted:
    """How models are to be run.

    Attributes:
        runtimes: Those asked for; empty for every one that fits the model.
        shapes: Sizes of inputs of foreign files.
        scratch: Folder for files that exist only while they are timed.
    """

    runtimes: tuple[RuntimeName, ...]
    shapes: Shapes
    scratch: Path

    def fitting(self, runtimes: Sequence[RuntimeName]) -> tuple[RuntimeName, ...]:
        """Runtimes that were asked for, of these."""
        return tuple(one for one in runtimes if not self.runtimes or one in self.runtimes)


def candidates_of(name: str, wanted: Wanted) -> list[Candidate]:
    """Everything that a name stands for, on every runtime asked for.

    Args:
        name: A classifier, a stage's folder, a bundle, any ONNX file, a TensorRT engine, or a name of timm.
        wanted: How to run it.

    Returns:
        At least one; those that cannot run here say why.

    Raises:
        UserError: There is no such model, or it is damaged, or a size of its input is not known.
    """
    from g2sd_deploy.predictors import bundle_folder, open_predictor
    from g2sd_deploy.predictors.dense_models import dense_place

    path = Path(name).expanduser()
    if path.suffix.lower() == _ONNX_SUFFIX and path.is_file():
        return onnx_candidates(read_raw_onnx(name, path, wanted.shapes), wanted, file=path)
    if (folder := bundle_folder(path)) is not None:
        from g2sd_export.bundle import open_bundle

        return bundle_candidates(name, open_bundle(folder), wanted)
    if path.suffix.lower() in _ENGINES and path.is_file():
        return [_engine(name, path)]
    if (weights := dense_place(name)) is not None:
        return dense_candidates(name, weights, wanted)
    import torch

    return predictor_candidates(name, open_predictor(name, torch.device("cpu")), wanted)


def predictor_candidates(name: str, predictor: "Predictor", wanted: Wanted) -> list[Candidate]:
    """Weights on torch, and the ONNX file that they are exported to on the other runtimes.

    Args:
        name: Of the model in the rows.
        predictor: With a torch module.
        wanted: How to run it.
    """
    from g2sd_deploy.profiling.torch_calls import Network

    assert predictor.module is not None
    pre = predictor.preprocessing
    found = torch_candidates(name, Network(predictor.module(), pre.image_px, pre.num_channels), wanted)
    if others := wanted.fitting([runtime for runtime in RUNTIMES if runtime not in TORCH]):
        raw = lru_cache(maxsize=1)(lambda: _exported(name, predictor, wanted.scratch))
        found += _of_file(name, others, "fp32", raw, wanted.scratch)
    return [replace(one, digest=predictor.digest, file_bytes=predictor.model_bytes) for one in found]


def torch_candidates(name: str, network: "Network", wanted: Wanted) -> list[Candidate]:
    """Weights on torch alone.

    Args:
        name: Of the model in the rows.
        network: What is called.
        wanted: How to run it.
    """
    from g2sd_deploy.profiling.torch_calls import open_torch

    return [_here(Candidate(name, runtime, "fp32", partial(open_torch, network, runtime))) for runtime in wanted.fitting(TORCH)]


def dense_candidates(name: str, path: Path, wanted: Wanted) -> list[Candidate]:
    """Weights of a segmenter or a detector on torch; what is asked for besides runs files, and its bundle has those.

    Args:
        name: Of the model in the rows.
        path: The weight file.
        wanted: How to run it.

    Raises:
        UserError: It is damaged, or does not fit this version.
    """
    from g2sd_deploy.artifact import sha256_of
    from g2sd_deploy.predictors.dense_models import read_dense
    from g2sd_deploy.profiling.torch_calls import Network

    file, digest = read_dense(path), sha256_of(path)
    found = torch_candidates(name, Network(file.model, file.task.image_px, file.task.num_channels), wanted)
    reason = "weights of a segmenter or detector run on torch only; name its bundle, whose files are timed on what they were proven on"
    others = [refused(name, runtime, reason, digest=digest) for runtime in wanted.runtimes if runtime not in TORCH]
    return [replace(one, digest=digest, file_bytes=path.stat().st_size) for one in found] + others


def onnx_candidates(raw: RawOnnx, wanted: Wanted, *, file: Path) -> list[Candidate]:
    """A file on every runtime that reads ONNX."""
    from g2sd_deploy.artifact import sha256_of

    digest, size = sha256_of(file), file.stat().st_size
    runtimes = wanted.fitting([runtime for runtime in RUNTIMES if runtime not in TORCH])
    found = [
        replace(one, digest=digest, file_bytes=size) for one in _of_file(raw.name, runtimes, raw.precision, lambda: raw, wanted.scratch)
    ]
    weights = [runtime for runtime in wanted.runtimes if runtime in TORCH]
    reason = "it is an ONNX file, and torch runs weights: name the classifier that it was exported from"
    return found + [refused(raw.name, runtime, reason, digest=digest, precision=raw.precision) for runtime in weights]


def bundle_candidates(name: str, bundle: "Bundle", wanted: Wanted) -> list[Candidate]:
    """Every variant of a bundle on the runtime that it was proven on, and no other."""
    found = [_variant(name, bundle, variant) for variant in bundle.variants]
    have = {one.runtime for one in found}
    kept = [one for one in found if one.runtime in wanted.fitting(RUNTIMES)]
    reason = f"the bundle has no variant for it; it has {', '.join(variant.name for variant in bundle.variants)}"
    return kept + [refused(name, runtime, reason, digest=bundle.digest) for runtime in wanted.runtimes if runtime not in have]


def reference_candidate() -> Candidate:
    """The reference network on ONNX Runtime's CPU."""
    raw = lru_cache(maxsize=1)(lambda: read_raw_onnx(REFERENCE, reference_onnx()))
    return Candidate(
        REFERENCE,
        "onnxruntime",
        "fp32",
        lambda case: open_onnxruntime(raw(), "CPUExecutionProvider", case),
        digest=reference_sha256(),
        file_bytes=len(reference_onnx()),
    )


def _of_file(name: str, runtimes: Sequence[RuntimeName], precision: str, raw: Callable[[], RawOnnx], scratch: Path) -> list[Candidate]:
    """One candidate for each runtime; OpenVINO has one for each arithmetic in which it computes float layers."""
    found = []
    for runtime in runtimes:
        if runtime == "openvino":
            found += [_in_openvino(name, precision, raw, arithmetic) for arithmetic in _ARITHMETICS]
        elif runtime in _PROVIDERS:
            found.append(_in_onnxruntime(name, precision, raw, runtime))
        else:
            found.append(_here(Candidate(name, runtime, precision, partial(_open_built, raw, runtime, scratch))))
    return found


def _in_onnxruntime(name: str, precision: str, raw: Callable[[], RawOnnx], runtime: RuntimeName) -> Candidate:
    provider = _PROVIDERS[runtime]
    layers = partial(_layers_of_file, name, raw, "onnxruntime", {"provider": provider}, precision)
    return _here(Candidate(name, runtime, precision, lambda case: open_onnxruntime(raw(), provider, case), layers=layers))


def _in_openvino(name: str, precision: str, raw: Callable[[], RawOnnx], arithmetic: Any) -> Candidate:
    """Float layers of an INT8 file are part of its name where they are narrower than usual."""
    mixed = "int8" if arithmetic == "f32" else "int8-bf16"
    shown = mixed if precision == "int8" else "bf16" if arithmetic == "bf16" else "fp32"
    layers = partial(_layers_of_file, name, raw, "openvino", {"inference_precision": arithmetic}, shown)
    one = Candidate(name, "openvino", shown, lambda case: open_openvino(raw(), arithmetic, case), layers=layers)
    return _here(one, "bf16" if arithmetic == "bf16" else "fp32")


def _layers_of_file(name: str, raw: Callable[[], RawOnnx], runtime: str, settings: dict[str, Any], precision: str) -> "LayerSubject":
    from g2sd_deploy.profiling.layers import subject_of_file

    file = raw()
    return subject_of_file(name, file.source, runtime, file.feeds, settings=settings, precision=precision)


def _layers_of_variant(name: str, bundle: "Bundle", variant: "Variant") -> "LayerSubject":
    from g2sd_deploy.profiling.layers import subjects_of_bundle

    (subject,) = subjects_of_bundle(bundle, [variant.name], model=name)
    return subject


def _here(candidate: Candidate, precision: str = "fp32") -> Candidate:
    """The candidate, refused where this machine cannot run it."""
    reason = why_not(candidate.runtime, precision)
    return replace(candidate, refusal=reason) if reason else candidate


def _open_built(raw: Callable[[], RawOnnx], runtime: RuntimeName, scratch: Path, case: Case) -> Opened:
    """An engine that is built here, for this batch alone."""
    from g2sd_export.edge.image_input import read_image_input
    from g2sd_export.edge.preprocess import Preprocessing
    from g2sd_export.edge.tensorrt_runner import Engine
    from g2sd_export.tensorrt_build import build_engine
    from g2sd_export.tensorrt_settings import BatchRange, EngineSettings

    file = raw()
    if len(file.inputs) != 1 or not isinstance(file.source, Path):
        raise UserError(f"takes {len(file.inputs)} inputs; engines are built of models with one input of images")
    (one,) = file.inputs
    image = read_image_input(one.name, file.feeds(case.batch)[one.name].shape, dtype=one.dtype)
    channels, side = image.num_channels or 3, image.image_px or 1
    pre = Preprocessing(image_px=side, resize_px=side, num_channels=channels, mean=(0.0,) * channels, std=(1.0,) * channels)
    settings = EngineSettings(_TENSORRT[runtime], (BatchRange(case.batch, case.batch, case.batch),))
    path = scratch / f"{runtime}-{case.batch}.engine"
    build_engine(file.source, settings, path=path)
    return _opened_runner(Engine(path).runner(pre), case)


def _engine(name: str, path: Path) -> Candidate:
    """An engine that a person brings; it belongs to the TensorRT that opens it."""
    from g2sd_deploy.artifact import sha256_of

    def open_(case: Case) -> Opened:
        import torch

        from g2sd_deploy.predictors import open_predictor

        return _opened_runner(open_predictor(name, torch.device("cpu")).open(None), case)

    return Candidate(name, "tensorrt", "", open_, digest=sha256_of(path), file_bytes=path.stat().st_size)


def _variant(name: str, bundle: "Bundle", variant: "Variant") -> Candidate:
    runtime = _runtime_of(variant)
    one = Candidate(
        name,
        runtime,
        variant.precision,
        lambda case: _opened_runner(_runner_of(bundle, case.threads, variant.name), case),
        variant.name,
        bundle.digest,
        bundle.files[variant.file].bytes,
        bundle.refusal(variant),
        partial(_layers_of_variant, name, bundle, variant),
    )
    bfloat16 = variant.settings.get("inference_precision") == "bf16"
    return one if one.refusal else _here(one, "bf16" if bfloat16 else "fp32")


def _runner_of(bundle: "Bundle", threads: int | None, name: str) -> Any:
    """What runs a variant, whatever the task of the bundle."""
    return bundle.runner(threads=threads, variant=name) if bundle.task is None else bundle.network(threads=threads, variant=name)


def _runtime_of(variant: "Variant") -> RuntimeName:
    if variant.runtime == "onnxruntime":
        provider = variant.settings.get("provider", "CPUExecutionProvider")
        return next((name for name, one in _PROVIDERS.items() if one == provider), "onnxruntime")
    return {"openvino": "openvino", "tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}[variant.runtime]  # type: ignore[return-value]


def _opened_runner(runner: Any, case: Case) -> Opened:
    """A runner of ours on prepared images of noise: the network alone, as for the others."""
    pre = runner.preprocessing
    pixels = np.random.default_rng(0).integers(0, 256, (case.batch, pre.image_px, pre.image_px, pre.num_channels), dtype=np.uint8)
    inputs = runner.prepare(pixels)
    runner.forward(inputs)
    phases = partial(runner.phases, inputs) if hasattr(runner, "phases") else None
    return Opened(partial(runner.forward, inputs), runner.version, getattr(runner, "provider", ""), phases)


def _exported(name: str, predictor: "Predictor", scratch: Path) -> RawOnnx:
    """The float ONNX file that the exporter makes of the weights."""
    from g2sd_deploy.models.deploy import as_shipped
    from g2sd_export.onnx_file import export_onnx

    assert predictor.module is not None
    pre = predictor.preprocessing
    path = scratch / f"{predictor.digest[:16]}.onnx"
    export_onnx(as_shipped(predictor.module()), image_px=pre.image_px, num_channels=pre.num_channels, path=path)
    return read_raw_onnx(name, path)
