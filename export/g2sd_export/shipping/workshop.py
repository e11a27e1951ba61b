"""Model files in every number format that a target's candidates need, each made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from ..deployable import deployable_onnx
from ..edge.errors import UserError
from ..edge.manifest import record_of
from ..half_choice import choose_kept
from ..targets import Candidate, Target
from .material import Material
from .quantising import accepted_int8
from .race import RaceSettings

_NUM_MEASURED = 16
"""Images on which it is measured what must stay in float32."""


@dataclass(frozen=True)
class ModelFile:
    """A file that a runtime takes.

    Attributes:
        path: An ONNX file, or an engine.
        graph: The ONNX file that an engine is built from; None for an ONNX file that runs as it is.
        settings: What the manifest says beside the runtime's own settings.
        why_not: Why there is no engine yet, where ``path`` is the ONNX file that one is to be built from.
    """

    path: Path
    graph: Path | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    why_not: str = ""

    @property
    def num_bytes(self) -> int:
        """Size of the file."""
        return self.path.stat().st_size


@runtime_checkable
class Kept(Protocol):
    """What of a file stays in float32, and why."""

    @property
    def nodes(self) -> tuple[str, ...]: ...
    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Formats:
    """How files of fewer bits are made; the task of the model decides.

    Attributes:
        int8: Makes the INT8 file from a workshop, or raises UserError with the reason why there is none.
        kept: From a float32 file, a 16-bit format and images to what has to stay in float32.
    """

    int8: Callable[[Workshop], Path] = accepted_int8
    kept: Callable[[Path, Any, Any], Kept] = choose_kept


class Workshop:
    """Makes the files of a target's candidates.

    Args:
        material: The float file and the images.
        target: What the device needs.
        folder: Model files go into its folder ``models``, what is tried on the way into others.
        told: Told (done, total, note).
        race_settings: How long files among which one is chosen are timed.
        formats: How files of fewer bits are made; those of a classifier are judged by top-1.

    Attributes:
        notes: How files were made, the same at every run: quantisers that were tried, layers that stayed in float.
        remarks: Why they were made so, with what was timed, by number format.
    """

    def __init__(
        self,
        material: Material,
        target: Target,
        folder: Path,
        told: Callable[[int, int, str], None],
        race_settings: RaceSettings,
        formats: Formats = Formats(),
    ) -> None:
        self.material, self.target, self.told, self.formats = material, target, told, formats
        self.race_settings = race_settings
        self.scratch, self.models = folder, folder / "models"
        self.models.mkdir(parents=True, exist_ok=True)
        self.notes: dict[str, Any] = {}
        self.remarks: dict[str, str] = {}
        self.pixels = deployable_onnx(material.float_onnx, material.preprocessing, path=self.models / "fp32.onnx").path
        self._graphs: dict[str, Path | UserError] = {"fp32": self.pixels}

    def make(self, candidate: Candidate) -> ModelFile:
        """The file that a candidate runs.

        Raises:
            UserError: It cannot be made, or is worse than the target allows; once said, it is said again without trying again.
        """
        graph = self._graph(candidate)
        if not candidate.runtime.startswith("tensorrt"):
            return ModelFile(graph)
        return self._engine(candidate, graph)

    def _graph(self, candidate: Candidate) -> Path:
        precision = candidate.precision
        if precision == "bf16" and candidate.runtime == "openvino":  # which rounds a float file itself, when it is told to
            return self.pixels
        if precision not in self._graphs:
            try:
                self._graphs[precision] = self._made(precision, candidate.on_gpu)
            except UserError as error:
                self._graphs[precision] = error
        found = self._graphs[precision]
        if isinstance(found, UserError):
            raise found
        return found

    def _made(self, precision: str, on_gpu: bool) -> Path:
        path = self.models / f"{precision}.onnx"
        match precision:
            case "fp16" | "bf16":
                return self._half(self.pixels, precision, path)
            case "int8":
                found = self.formats.int8(self)
                return self._half(found, "fp16", path) if on_gpu else found.rename(path)
            case _:
                return self._half(self._fp8(), "fp16", path)

    def _half(self, source: Path, precision: Any, path: Path) -> Path:
        """What a file computes in float32, in 16 bits but for what measurably suffers."""
        from ..half import half_onnx

        keep: tuple[str, ...] = ()
        if source == self.pixels:
            kept = self.formats.kept(source, precision, self._some_images())
            self.notes[precision], keep = kept.to_dict(), kept.nodes
        return half_onnx(source, precision=precision, path=path, keep=keep).path

    def _fp8(self) -> Path:
        from ..int8.fp8 import fp8_onnx

        calibration = self.material.calibration
        if calibration is None:
            raise UserError("FP8 needs training images to calibrate with, and there are none; name some")
        return fp8_onnx(self.pixels, calibration.images, path=self.scratch / "fp8.onnx").path

    def _some_images(self) -> UInt8[np.ndarray, "num height width channels"]:
        training = self.material.calibration
        return (self.material.images if training is None else training.images)[:_NUM_MEASURED]

    def _engine(self, candidate: Candidate, graph: Path) -> ModelFile:
        """An engine where this machine can build one, else the file that the device builds it from."""
        from ..tensorrt_build import build_engine
        from ..tensorrt_package import UnavailableError
        from ..tensorrt_settings import settings_from_target

        settings = settings_from_target(self.target.to_dict(), candidate.runtime)
        source = {"source": f"models/{graph.name}", "source_sha256": record_of(graph).sha256}
        self.told(0, 1, f"building {candidate.name}")
        try:
            info = build_engine(graph, settings, path=self.models / f"{candidate.name}.engine")
        except UnavailableError as error:
            reason = f"{error}; build it on the device with: python -m g2sd_export build BUNDLE"
            return ModelFile(graph, graph, {**source, **settings.to_dict()}, reason)
        self.notes.setdefault("engines", {})[candidate.name] = info.layers.summary()
        return ModelFile(info.path, graph, {**source, **info.facts()})
