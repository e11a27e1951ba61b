"""New weights for an engine that was built to take them: those of another student of the same shape, without choosing kernels again.

Runs on the device too: Python 3.10, the standard library and the TensorRT package. Takes the GPU that the engine is for.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .edge.errors import UserError
from .edge.files import write_whole
from .tensorrt_build import read_model
from .tensorrt_package import UnavailableError, build_logger, find_gpu, name_of, open_package, parser_errors
from .tensorrt_settings import EngineRuntime, EngineSettings

_MAX_NAMES_TOLD = 3


@dataclass(frozen=True)
class RefitInfo:
    """What was written.

    Attributes:
        path: The engine.
        sha256: Digest of its content.
        bytes: Its size.
        source_sha256: Digest of the ONNX file whose weights it has.
        version: Of the TensorRT package.
    """

    path: Path
    sha256: str
    bytes: int
    source_sha256: str
    version: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "path": str(self.path),
            "sha256": self.sha256,
            "bytes": self.bytes,
            "source_sha256": self.source_sha256,
            "version": self.version,
        }


def refit_engine(engine: Path, source: Path, *, runtime: EngineRuntime, path: Path) -> RefitInfo:
    """Put the weights of an ONNX file into an engine.

    Args:
        engine: Built with ``refittable``. Opening it runs code that it holds: take only one that you built or that a bundle lists.
        source: The same graph as the engine's, with other weights.
        runtime: The package that built the engine.
        path: The new engine, which can be refitted again; written whole or not at all.

    Returns:
        Digest and size of the new engine.

    Raises:
        UnavailableError: The package or a GPU is missing.
        UserError: The engine does not open or was not built to be refitted, or the file is of another shape.
    """
    content, plan = read_model(source), read_model(engine)
    trt = open_package(EngineSettings(runtime))
    if find_gpu() is None:
        raise UnavailableError(f"{engine}: an engine opens, and is refitted, only where there is its GPU; do it on the device")
    logger = build_logger(trt)
    opened = trt.Runtime(logger).deserialize_cuda_engine(plan)
    if opened is None:
        raise UserError(
            f"{engine}: {name_of(trt)} cannot open it ({logger.told() or 'no reason given'}); build it again from the ONNX file"
        )
    if not opened.refittable:
        raise UserError(f"{engine}: its weights are built in; build it again with --refittable")
    try:
        _refit(trt, logger, opened, content)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    refitted = bytes(_serialised(trt, opened))
    write_whole(path, refitted)
    return RefitInfo(
        path=path,
        sha256=hashlib.sha256(refitted).hexdigest(),
        bytes=len(refitted),
        source_sha256=hashlib.sha256(content).hexdigest(),
        version=str(trt.__version__),
    )


def _refit(trt: Any, logger: Any, engine: Any, content: bytes) -> None:
    refitter = trt.Refitter(engine, logger)
    parser = trt.OnnxParserRefitter(refitter, logger)  # holds the new weights, so it must outlive the refit
    if not parser.refit_from_bytes(content):
        reason = parser_errors(parser) or logger.told() or "it does not say why"
        raise UserError(
            f"{name_of(trt)} cannot take its weights into the engine: {reason}; it must be the engine's graph with other weights"
        )
    if missing := sorted(refitter.get_missing_weights()):
        more = f" and {len(missing) - _MAX_NAMES_TOLD} more" if len(missing) > _MAX_NAMES_TOLD else ""
        raise UserError(f"lacks weights that the engine has: {', '.join(missing[:_MAX_NAMES_TOLD])}{more}; it must be the engine's graph")
    if not refitter.refit_cuda_engine():
        raise UserError(f"{name_of(trt)} cannot refit the engine: {logger.told() or 'it does not say why'}")


def _serialised(trt: Any, engine: Any) -> Any:
    """With its weights, and with what the next refit takes: newer versions leave that out unless they are told."""
    config = engine.create_serialization_config()
    config.clear_flag(trt.SerializationFlag.EXCLUDE_WEIGHTS)
    if hasattr(trt.SerializationFlag, "INCLUDE_REFIT"):
        config.set_flag(trt.SerializationFlag.INCLUDE_REFIT)
    return engine.serialize_with_config(config)
