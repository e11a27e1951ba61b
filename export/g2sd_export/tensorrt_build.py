"""From an ONNX file to a TensorRT engine: one builder for TensorRT 10.3 to 11 and for TensorRT for RTX.

Precisions are those of the file: the network is strongly typed, which 10.x has to be told and 11 always does. TensorRT builds for the GPU
that is there; TensorRT for RTX builds ahead of time for named architectures, on a machine without any GPU.

Runs on the device too: Python 3.10, the standard library and the TensorRT package; no torch, no onnx, no numpy.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .edge.errors import UserError
from .edge.files import write_whole
from .tensorrt_layers import LayerReport, asked_precisions, layers_from_json, layers_from_log, report_layers
from .tensorrt_package import build_logger, find_gpu, name_of, open_package, parser_errors
from .tensorrt_settings import EngineSettings

_MIB = 1 << 20
_HALVED = ("fp8", "fp4", "int8", "int4", "fp16", "bf16")  # an engine is named after the first of these that its graph multiplies in


@dataclass(frozen=True)
class EngineInfo:
    """What was built.

    Attributes:
        path: The engine.
        sha256: Digest of its content; TensorRT, which times kernels to choose them, gives another one at each build.
        bytes: Its size. An engine of TensorRT for RTX also holds source code of its kernels, compiled where it runs.
        weights_bytes: Size of the weights in it; None where TensorRT does not say.
        source_sha256: Digest of the ONNX file.
        precision: The narrowest in which the graph asks for a matrix product.
        version: Of the TensorRT package.
        gpu: Name of the GPU it was built on; empty where none was needed.
        compute_capabilities: Architectures it runs on; empty means every one that TensorRT for RTX builds for.
        settings: What was asked.
        layers: What the engine computes in which precision.
        build_seconds: How long it took.
    """

    path: Path
    sha256: str
    bytes: int
    weights_bytes: int | None
    source_sha256: str
    precision: str
    version: str
    gpu: str
    compute_capabilities: tuple[str, ...]
    settings: EngineSettings
    layers: LayerReport
    build_seconds: float

    def facts(self) -> dict[str, Any]:
        """What the manifest says of an engine: plain JSON values, no path and no clock."""
        asked = self.settings.to_dict()
        del asked["runtime"], asked["compute_capabilities"]
        return {
            **asked,
            "source_sha256": self.source_sha256,
            "version": self.version,
            "gpu": self.gpu,
            "compute_capability": ", ".join(self.compute_capabilities),
            "weights_bytes": self.weights_bytes,
            "layers": self.layers.summary(),
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for a program that started the build."""
        return {
            "path": str(self.path),
            "sha256": self.sha256,
            "bytes": self.bytes,
            "runtime": self.settings.runtime,
            "precision": self.precision,
            "build_seconds": round(self.build_seconds, 3),
            **self.facts(),
        }


def build_engine(source: Path, settings: EngineSettings, *, path: Path) -> EngineInfo:
    """Build an engine from an ONNX file.

    Args:
        source: One input of images with a free or fixed batch and every other dimension fixed; precision is in its types and Q/DQ nodes.
        settings: Package, GPU and batch sizes.
        path: The engine, written whole or not at all.

    Returns:
        Size, digest and layers of the engine.

    Raises:
        UnavailableError: The package or the GPU that it takes is not on this machine.
        UserError: The file cannot be read, TensorRT refuses it (the message names the node and the parser's reason), or the build fails.
    """
    content = read_model(source)
    trt = open_package(settings)
    logger = build_logger(trt)
    try:
        began = time.monotonic()
        plan, asked = _built(trt, logger, content, settings)
        seconds = time.monotonic() - began
    except UserError as error:
        raise type(error)(f"{source}: {error}") from None
    write_whole(path, plan)
    gpu = None if settings.runtime == "tensorrt_rtx" and settings.compute_capabilities else find_gpu()
    return EngineInfo(
        path=path,
        sha256=hashlib.sha256(plan).hexdigest(),
        bytes=len(plan),
        weights_bytes=logger.weights_bytes,
        source_sha256=hashlib.sha256(content).hexdigest(),
        precision=next((name for name in _HALVED if name in asked.values()), "fp32"),
        version=str(trt.__version__),
        gpu="" if gpu is None else gpu.name,
        compute_capabilities=_capabilities_of(settings),
        settings=settings,
        layers=_inspected(trt, plan, logger, asked),
        build_seconds=seconds,
    )


def _built(trt: Any, logger: Any, content: bytes, settings: EngineSettings) -> tuple[bytes, dict[str, str]]:
    """The engine's bytes, and the precision that the graph asks for by node."""
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)  # holds the weights, so it must outlive the build
    if not parser.parse(content):
        raise UserError(f"{name_of(trt)} refuses {parser_errors(parser) or logger.told()}")
    config = _configured(trt, builder, network, settings)
    if problem := logger.told():
        raise UserError(f"{name_of(trt)} refuses the settings: {problem}")
    asked = asked_precisions(network)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise UserError(f"{name_of(trt)} cannot build the engine: {logger.told() or 'it does not say why'}")
    _keep_timings(config, settings)
    return bytes(plan), asked


def _configured(trt: Any, builder: Any, network: Any, settings: EngineSettings) -> Any:
    config = builder.create_builder_config()
    for profile in _profiles(builder, network, settings):
        config.add_optimization_profile(profile)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else the inspector knows names alone
    if not settings.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if settings.refittable:
        config.set_flag(trt.BuilderFlag.REFIT)
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.hardware_compatibility != "none":
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, settings.hardware_compatibility.upper())
    if settings.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mib * _MIB)
    if settings.optimisation_level is not None:
        config.builder_optimization_level = settings.optimisation_level
    if settings.runtime == "tensorrt_rtx" and settings.compute_capabilities:
        config.num_compute_capabilities = len(settings.compute_capabilities)
        for index, name in enumerate(settings.compute_capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
    _take_timings(config, settings)
    return config


def _take_timings(config: Any, settings: EngineSettings) -> None:
    """Give the build what earlier ones measured; timings of another GPU or version are refused by TensorRT and begun anew."""
    if settings.timing_cache is None:
        return
    stored = settings.timing_cache.read_bytes() if settings.timing_cache.is_file() else b""
    if not config.set_timing_cache(config.create_timing_cache(stored), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _profiles(builder: Any, network: Any, settings: EngineSettings) -> list[Any]:
    """One optimisation profile for each range of batch sizes; none where the graph fixes the batch."""
    if network.num_inputs != 1:
        raise UserError(f"holds no model with one input of images; it has {network.num_inputs} inputs")
    image = network.get_input(0)
    batch, *rest = (int(dim) for dim in image.shape)
    if len(rest) != 3 or min(rest) < 1:
        raise UserError(f"its input {image.name!r} has shape {[batch, *rest]}; wanted four dimensions of which only the batch is free")
    if batch > 0:
        if any((one.least, one.most) != (batch, batch) for one in settings.batches):
            raise UserError(f"its batch is fixed at {batch}; ask for batches of {batch} alone, or export it with a free batch")
        return []
    profiles = []
    for one in settings.batches:
        profile = builder.create_optimization_profile()
        profile.set_shape(image.name, *((size, *rest) for size in (one.least, one.best, one.most)))
        profiles.append(profile)
    return profiles


def _keep_timings(config: Any, settings: EngineSettings) -> None:
    if settings.timing_cache is not None:
        write_whole(settings.timing_cache, bytes(config.get_timing_cache().serialize()))


def _inspected(trt: Any, plan: bytes, logger: Any, asked: dict[str, str]) -> LayerReport:
    """Layers by the inspector where the engine opens, which takes a GPU of its architecture; else by the log of the build."""
    layers = layers_from_log(logger.layers)
    if find_gpu() is not None:
        engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
        if engine is not None:
            told = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
            if inspected := layers_from_json(told):
                return report_layers(asked, inspected, "inspector")
    return report_layers(asked, layers, "build log" if layers else "none")


def _capabilities_of(settings: EngineSettings) -> tuple[str, ...]:
    if settings.compute_capabilities or settings.runtime == "tensorrt_rtx":
        return settings.compute_capabilities
    gpu = find_gpu()
    return () if gpu is None else (gpu.compute_capability,)


def read_model(source: Path) -> bytes:
    """Content of an ONNX file.

    Raises:
        UserError: There is none.
    """
    try:
        return source.read_bytes()
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror}); wanted an ONNX file") from error
