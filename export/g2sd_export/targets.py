"""What a device needs: runtimes, number formats, batch sizes, tolerances and the accuracy it may cost; one YAML file per device."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from .edge.agreement import ParityTolerance
from .edge.errors import UserError
from .edge.manifest import Precision, RuntimeName
from .edge.onnx_runner import Provider
from .int8.packing import Scheme
from .int8.quantise import Method

ComputeCapability = Literal["SM75", "SM80", "SM86", "SM87", "SM89", "SM90", "SM100", "SM120", "SM121"]
Machine = Literal["x86_64", "aarch64", "any"]


_Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Candidate(_Part):
    """One way to run the model on the device."""

    runtime: RuntimeName
    """Who computes."""
    precision: Precision
    """Number format of the matrix products."""
    provider: Provider = "CPUExecutionProvider"
    """Execution provider of ONNX Runtime."""
    float_precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of what an INT8 file leaves in floating point; OpenVINO alone can choose it."""

    @property
    def name(self) -> str:
        """``int8-openvino``, ``fp16-onnxruntime-cuda``, ``int8-bf16-openvino``."""
        mixed = "-bf16" if self.precision == "int8" and self.float_precision == "bf16" else ""
        where = {"CUDAExecutionProvider": "-cuda", "TensorrtExecutionProvider": "-tensorrt"}.get(self.provider, "")
        return f"{self.precision}{mixed}-{self.runtime}{where}"

    @property
    def on_gpu(self) -> bool:
        """Whether an NVIDIA GPU has to be there."""
        return self.runtime.startswith("tensorrt") or self.provider != "CPUExecutionProvider"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.provider != "CPUExecutionProvider" and self.runtime != "onnxruntime":
            raise ValueError(f"provider is a setting of onnxruntime, not of {self.runtime}")
        if self.float_precision != "fp32" and (self.runtime, self.precision) != ("openvino", "int8"):
            raise ValueError("float_precision belongs to runtime openvino and precision int8")
        return self


class BatchRange(_Part):
    """Images at a time."""

    least: Annotated[int, Field(ge=1)] = 1
    """Fewest."""
    best: Annotated[int, Field(ge=1)] = 1
    """What an engine is tuned for, and what is timed."""
    most: Annotated[int, Field(ge=1)] = 64
    """Most."""

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if not self.least <= self.best <= self.most:
            raise ValueError(f"batch is {self.least}, {self.best}, {self.most}; least, best and most have to ascend")
        return self


class Tolerance(_Part):
    """How far the answers may be from those of the torch model."""

    max_abs_logit_diff: Annotated[float, Field(ge=0)]
    """Largest difference of a logit, in units of the logits."""
    flipped_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of images whose decision may change."""
    min_cosine: Annotated[float, Field(ge=-1, le=1)] = -1.0
    """Smallest cosine of an image's logits."""
    max_mean_kl: Annotated[float, Field(ge=0)] | None = None
    """Largest mean Kullback-Leibler divergence, in nats."""

    def parity(self) -> ParityTolerance:
        """As the comparison takes it."""
        return ParityTolerance(**self.model_dump())


class DenseLimits(_Part):
    """How far the answers of a segmenter or a detector may be from those of the torch model, in one number format."""

    changed_share: _Share = 0.001
    """Segmentation: share of all pixels whose class may change."""
    changed_share_of_image: _Share = 0.01
    """Segmentation: the same of the worst image."""
    unmatched_share: _Share = 0.01
    """Detection: share of boxes, of both, that may have no partner."""
    max_score_diff: _Share = 0.005
    """Detection: largest difference of two partners' scores."""
    max_box_shift: _Share = 0.002
    """Detection: largest distance of two partners' edges, as a share of the side of the network's input."""
    changed_mask_share: _Share = 0.005
    """Detection: share of the pixels of partners' small masks that may change sides."""
    max_metric_drop_points: Annotated[float, Field(ge=0)] = 0.1
    """Most points of mIoU, or of box or mask AP, that may be lost."""


# Of thousands of pairs of boxes a few pair other neighbours of one object: their distance says little of a format, their share does.
_SIXTEEN_BITS = DenseLimits(
    changed_share=0.02,
    changed_share_of_image=0.1,
    unmatched_share=0.05,
    max_score_diff=0.3,
    max_box_shift=0.35,
    changed_mask_share=0.05,
    max_metric_drop_points=0.3,
)
_EIGHT_BITS = _SIXTEEN_BITS.model_copy(
    update={"changed_share": 0.06, "changed_share_of_image": 0.25, "unmatched_share": 0.1, "max_score_diff": 0.5}
)
_DENSE_LIMITS: dict[Precision, DenseLimits] = {
    "fp32": DenseLimits(),
    "bf16": _SIXTEEN_BITS,
    "fp16": _SIXTEEN_BITS,
    "int8": _EIGHT_BITS,
    "fp8": _EIGHT_BITS,
}


class Int8Plan(_Part):
    """How INT8 files are made."""

    scheme: Scheme = "cpu"
    """``tensorrt``: symmetric activations, zero point 0."""
    methods: Annotated[tuple[Method, ...], Field(strict=False, min_length=1)] = ("nncf",)
    """Quantisers to try; the most accurate file that keeps the budget is taken, the faster one among equals."""
    num_images: Annotated[int, Field(ge=8)] = 300
    """Training images to calibrate with."""
    max_float_layers: Annotated[int, Field(ge=0)] = 4
    """Most layers that may stay in floating point because they cost the most accuracy."""


class EnginePlan(_Part):
    """How TensorRT engines are built."""

    compute_capability: ComputeCapability | None = None
    """GPU architecture to build for ahead of time (TensorRT for RTX); None builds on the device."""
    version_compatible: bool = False
    """The engine runs under later TensorRT versions too."""
    hardware_compatible: bool = False
    """The engine runs on later GPU architectures too."""
    refittable: bool = False
    """Weights can be replaced by those of another student of the same shape."""
    workspace_mib: Annotated[int, Field(ge=1)] | None = None
    """Most memory for a layer's scratch space."""


class Target(_Part):
    """A device, or a family of them."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    """Short name."""
    description: str
    """One sentence."""
    machine: Machine = "any"
    """Processor architecture of the device; latency is measured only on a machine of the same."""
    opset: Annotated[int, Field(ge=18, le=23)] = 20
    """ONNX operator set."""
    threads: Annotated[int, Field(ge=1)] = 2
    """CPU threads of a forward pass."""
    batch: BatchRange = BatchRange()
    """Images at a time."""
    candidates: Annotated[tuple[Candidate, ...], Field(strict=False, min_length=1)]
    """What to try, the likely best first: the order decides where latency cannot be measured."""
    ship: Literal["default", "passed"] = "passed"
    """Whether the bundle holds the chosen variant alone, or every variant that passed."""
    tolerance: dict[Precision, Tolerance]
    """By precision."""
    accuracy_budget_points: Annotated[float, Field(ge=0)] = 0.3
    """Most percentage points of top-1 that a faster number format may cost."""
    dense: dict[Precision, DenseLimits] = {}
    """By precision, for segmenters and detectors; a precision that is left out has limits of its own already."""
    int8: Int8Plan = Int8Plan()
    """How INT8 files are made."""
    engine: EnginePlan = EnginePlan()
    """How TensorRT engines are built."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        names = [candidate.name for candidate in self.candidates]
        if len(set(names)) < len(names):
            raise ValueError(f"candidates repeat: {', '.join(sorted({name for name in names if names.count(name) > 1}))}")
        if missing := sorted({"fp32", *(candidate.precision for candidate in self.candidates)} - set(self.tolerance)):
            raise ValueError(f"tolerance lacks {', '.join(missing)}; every hop needs one, and the float file is always a hop")
        return self

    def narrowed(self, only: Sequence[str], max_quantisers: int | None) -> Target:
        """The same target with some of its candidates and quantisers.

        Args:
            only: Names of candidates; all of them where there are none.
            max_quantisers: How many methods of INT8 stay, from the first on; None keeps all.

        Raises:
            UserError: It has no such candidate.
        """
        names = [candidate.name for candidate in self.candidates]
        if unknown := [name for name in only if name not in names]:
            raise UserError(f"target {self.name} has no candidate {unknown[0]}; its candidates are {', '.join(names)}")
        kept = tuple(candidate for candidate in self.candidates if not only or candidate.name in only)
        int8 = self.int8.model_copy(update={"methods": self.int8.methods[:max_quantisers]})
        return self.model_copy(update={"candidates": kept, "int8": int8})

    @property
    def calibrates(self) -> bool:
        """Whether a candidate is made with training images."""
        return any(candidate.precision in ("int8", "fp8") for candidate in self.candidates)

    def limits(self, precision: Precision) -> DenseLimits:
        """What a segmenter or a detector is judged by."""
        return self.dense.get(precision, _DENSE_LIMITS[precision])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for the manifest of a classifier: limits of other tasks say nothing about it."""
        return self.model_dump(mode="json", exclude={"dense"})

    def to_dense_dict(self) -> dict[str, Any]:
        """Plain JSON values, for the manifest of a segmenter or a detector."""
        used = dict.fromkeys(("fp32", *(candidate.precision for candidate in self.candidates)))
        limits = {precision: self.limits(precision).model_dump() for precision in used}
        return {**self.model_dump(mode="json", exclude={"dense", "tolerance", "accuracy_budget_points"}), "dense": limits}

    @property
    def digest(self) -> str:
        """SHA-256 of what it says of classifiers, whatever its file looks like."""
        return hashlib.sha256(self.model_dump_json(exclude={"dense"}).encode()).hexdigest()

    @property
    def dense_digest(self) -> str:
        """SHA-256 of what it says of segmenters and detectors."""
        return hashlib.sha256(json.dumps(self.to_dense_dict()).encode()).hexdigest()


def target_folder() -> Path:
    """Folder of the targets that ship with the package: inside the wheel, or beside the package in a source tree."""
    package = Path(__file__).parent
    return package / "target_files" if (package / "target_files").is_dir() else package.parent / "targets"


def bundled_targets() -> list[Path]:
    """Target files that ship with the package, sorted by name."""
    return sorted(target_folder().glob("*.yaml"))


def find_target(name: str) -> Path:
    """A target file by path, or a bundled one by name (``cpu-x86``, ``cpu-x86.yaml``).

    Raises:
        UserError: Neither exists; the message names the nearest.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    stem = path.name.removesuffix(".yaml")
    names = [one.stem for one in bundled_targets()]
    if stem in names:
        return target_folder() / f"{stem}.yaml"
    near = difflib.get_close_matches(stem, names, 1)
    hint = f"; did you mean {near[0]}?" if near else f"; bundled targets: {', '.join(names)}"
    raise UserError(f"there is no target {name}{hint}")


def load_target(name: str) -> Target:
    """Read a target.

    Args:
        name: Path of a file, or the name of a bundled one.

    Raises:
        UserError: No such target, or its file is no YAML or holds an unknown, missing or wrong value; the message names file and key.
    """
    path = find_target(name)
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (MarkedYAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds no target; wanted keys such as name, candidates and tolerance")
    try:
        return Target.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: {_explained(error)}") from None


def _explained(error: ValidationError) -> str:
    """The first problem in one line, unknown keys before the rest, with the nearest key."""
    problems = error.errors(include_url=False)
    problem = min(problems, key=lambda one: one["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(problem["loc"][-1]), _keys(), 1)
        message = "there is no such key" + (f"; did you mean {near[0]}?" if near else "")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{where}: {message}{more}" if where else f"{message}{more}"


def _keys() -> list[str]:
    return sorted(
        {key for part in (Target, Candidate, BatchRange, Tolerance, DenseLimits, Int8Plan, EnginePlan) for key in part.model_fields}
    )
