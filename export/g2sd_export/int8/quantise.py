"""INT8 files of one model, made in every way that was asked for; which of them ships is decided by measuring."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from jaxtyping import UInt8

from ..edge.errors import UserError
from ..onnx_file import OnnxInfo, write_onnx
from .graph import Product, fed_by_concat, no_layers, prepared, products
from .observing import Calibrator, Range, activation_ranges
from .packing import Scheme, check_scheme, num_quantised, packed, signed, unsigned
from .qdq import Activations, with_qdq
from .smoothing import smoothed

if TYPE_CHECKING:
    import onnx

Method = Literal["nncf", "nncf-smooth", "ort-minmax", "ort-entropy", "ort-percentile", "ort-smooth", "modelopt"]
Tick = Callable[[int, int, str], None]
Images = UInt8[np.ndarray, "num height width channels"]

METHODS: tuple[Method, ...] = get_args(Method)
_CALIBRATORS: dict[Method, Calibrator] = {"ort-minmax": "minmax", "ort-entropy": "entropy", "ort-percentile": "percentile"}
_SMOOTHED: Calibrator = "minmax"
ACTIVATIONS: dict[Scheme, Activations] = {"cpu": "uint8", "tensorrt": "int8"}
_PACKAGES: dict[str, str] = {"nncf": "nncf", "ort": "onnxruntime", "modelopt": "nvidia-modelopt"}
_INSTALL: dict[str, str] = {**_PACKAGES, "modelopt": "nvidia-modelopt[onnx]"}


@dataclass(frozen=True)
class Quantised:
    """A quantised file, or why there is none.

    Attributes:
        method: Who chose the scales.
        scheme: For whom.
        info: The file; None where the method could not be used.
        kept: Groups of layers that stayed float because they were asked to.
        num_quantised: Matrix products that compute in eight bits.
        num_float: Matrix products that do not.
        seconds: Time that quantising took.
        why_not: Why there is no file; empty where there is one.
    """

    method: str
    scheme: Scheme
    info: OnnxInfo | None
    kept: tuple[str, ...] = ()
    num_quantised: int = 0
    num_float: int = 0
    seconds: float = 0.0
    why_not: str = ""

    @property
    def path(self) -> Path:
        """The file.

        Raises:
            UserError: There is none.
        """
        if self.info is None:
            raise UserError(f"there is no INT8 file by {self.method}: {self.why_not}")
        return self.info.path

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values that are the same at every run."""
        return {
            "method": self.method,
            "scheme": self.scheme,
            "sha256": self.info.sha256 if self.info else None,
            "bytes": self.info.bytes if self.info else None,
            "kept": list(self.kept),
            "num_quantised": self.num_quantised,
            "num_float": self.num_float,
            "why_not": self.why_not,
        }


class Source:
    """A float file and what was found out about it: each method reuses what another needed too.

    Args:
        path: A float ONNX file; its input may take pixels.
        images: uint8 [N, H, W, C] of the training set.
        attention: Quantise the two products inside each attention too. Measured on a CPU it costs a fifth of the speed, because
            runtimes fuse the float ones.

    Raises:
        UserError: The file is not a float vision transformer, or there are no images.
    """

    def __init__(self, path: Path, images: Images, *, attention: bool = False) -> None:
        if not len(images):
            raise UserError("INT8: there are no calibration images; wanted at least one of the training set")
        self.content = path.read_bytes()
        self.images = images
        self.model = prepared(self.content)
        self.products = products(self.model.graph)
        inside = {product.group: None for product in self.products if product.weight is None}
        # OpenVINO 2026.4 moves a zero point behind a Concat through it and then fails to compile. These products are small.
        others = [*fed_by_concat(self.model.graph), *no_layers(self.model.graph)]
        self.always_float = tuple(dict.fromkeys([*(() if attention else inside), *others]))
        self._ranges: dict[Calibrator, dict[str, Range]] = {}
        self._smoothed: onnx.ModelProto | None = None

    @property
    def groups(self) -> list[str]:
        """Groups of layers that can be quantised, in the graph's order."""
        return [group for group in dict.fromkeys(product.group for product in self.products) if group not in self.always_float]

    def ranges(self, *calibrators: Calibrator) -> dict[Calibrator, dict[str, Range]]:
        """Ranges of all activations that products read; the graph is run once for those not known yet."""
        missing = [kind for kind in calibrators if kind not in self._ranges]
        if missing:
            self._ranges |= activation_ranges(self.model, activations_of(self.products), self.images, missing)
        return {kind: self._ranges[kind] for kind in calibrators}

    @property
    def smoothed(self) -> onnx.ModelProto:
        """The model with its outliers moved into the weights."""
        if self._smoothed is None:
            self._smoothed = smoothed(self.model, self.images)
        return self._smoothed

    def nodes(self, groups: Collection[str]) -> list[str]:
        """Names of the products in some groups."""
        return [product.name for product in self.products if product.group in groups]


def candidates(
    source: Path | Source,
    images: Images,
    *,
    scheme: Scheme,
    methods: Sequence[Method],
    folder: Path,
    keep: Collection[str] = (),
    half_range_weights: bool = False,
    tick: Tick | None = None,
) -> list[Quantised]:
    """Quantise one model in several ways.

    Args:
        source: A float ONNX file with input [B, C, H, W] and preprocessing in its metadata, or one that takes uint8 [B, H, W, C], which
            the quantised one then takes too.
        images: uint8 [N, H, W, C] of the training set, as ``pick_calibration`` chose them.
        scheme: Who computes.
        methods: "nncf"; "ort-minmax", "ort-entropy" and "ort-percentile" with ONNX Runtime's calibrators; "nncf-smooth" and
            "ort-smooth" after outliers were moved into the weights; "modelopt".
        folder: Where ``int8-METHOD.onnx`` is written.
        keep: Groups of layers that stay float; see ``sensitivity``.
        half_range_weights: Weights in [-63, 63], for x86 processors without VNNI; methods of ONNX Runtime only.
        tick: Told (done, total, method).

    Returns:
        One for each method, in order; a method whose package is missing has no file but the reason.

    Raises:
        UserError: The file is no float vision transformer, a group to keep does not exist, or there are no images.
    """
    known = source if isinstance(source, Source) else Source(source, images)
    if unknown := sorted(set(keep) - set(known.groups)):
        raise UserError(f"INT8: there is no layer {unknown[0]!r} to keep in float; the file has {', '.join(known.groups)}")
    known.ranges(*(_CALIBRATORS[method] for method in methods if method in _CALIBRATORS))
    found = []
    for done, method in enumerate(methods):
        if tick is not None:
            tick(done, len(methods), method)
        found.append(_one(known, method, scheme, folder, tuple(keep), 63 if half_range_weights else 127))
    if tick is not None:
        tick(len(methods), len(methods), "")
    return found


def activations_of(found: Sequence[Product]) -> set[str]:
    """Names of the activations that products read."""
    return {name for product in found for name in product.activations.values()}


def metadata_of(known: Source, method: str, kept: Sequence[str], *, precision: str) -> dict[str, str]:
    """The float file's metadata, and how it was quantised."""
    package = _PACKAGES[method.partition("-")[0]]
    return {
        **{item.key: item.value for item in known.model.metadata_props},
        "precision": precision,
        "source_sha256": hashlib.sha256(known.content).hexdigest(),
        "quantiser": f"{method} ({package} {_version_of(package)})",
        "quantiser_float_layers": json.dumps(list(kept)),
        "calibration_images": str(len(known.images)),
        "calibration_sha256": hashlib.sha256(np.ascontiguousarray(known.images).tobytes()).hexdigest(),
    }


def _version_of(package: str) -> str:
    """Version of a quantiser's package; ONNX Runtime says its own, for it is installed under several names."""
    if package == "onnxruntime":
        import onnxruntime

        return str(onnxruntime.__version__)
    return version(package)


def written(
    known: Source, model: onnx.ModelProto, *, method: str, scheme: Scheme, kept: tuple[str, ...], path: Path, started: float, precision: str
) -> Quantised:
    """Check a quantised graph for its target, write it, and count what it computes in eight bits."""
    model = unsigned(packed(model)) if scheme == "cpu" else signed(packed(model))
    check_scheme(model, scheme)
    eight = num_quantised(model.graph)
    info = write_onnx(model, path, metadata=metadata_of(known, method, kept, precision=precision))
    return Quantised(method, scheme, info, kept, eight, len(known.products) - eight, time.monotonic() - started)


def _one(known: Source, method: Method, scheme: Scheme, folder: Path, kept: tuple[str, ...], largest_weight: int) -> Quantised:
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        model = quantised_graph(known, method, scheme, kept, largest_weight=largest_weight)
    except ImportError as error:
        advice = f"install it with: pip install '{_INSTALL[method.partition('-')[0]]}'"
        return Quantised(method, scheme, None, kept, why_not=f"its package is not installed ({' '.join(str(error).split())}); {advice}")
    except UserError as error:
        return Quantised(method, scheme, None, kept, why_not=str(error))
    path = folder / f"int8-{method}.onnx"
    return written(known, model, method=method, scheme=scheme, kept=kept, path=path, started=started, precision="int8")


def quantised_graph(known: Source, method: Method, scheme: Scheme, kept: Collection[str], *, largest_weight: int = 127) -> onnx.ModelProto:
    """The graph by one method, before it is packed.

    Raises:
        ImportError: The method's package is not installed.
    """
    keep = {*kept, *known.always_float}
    kind = ACTIVATIONS[scheme]
    model = known.smoothed if method.endswith("smooth") else known.model
    match method:
        case "ort-minmax" | "ort-entropy" | "ort-percentile":
            calibrator = _CALIBRATORS[method]
            return with_qdq(model, known.ranges(calibrator)[calibrator], activations=kind, keep=keep, largest_weight=largest_weight)
        case "ort-smooth":
            ranges = activation_ranges(model, activations_of(known.products), known.images, [_SMOOTHED])[_SMOOTHED]
            return with_qdq(model, ranges, activations=kind, keep=keep, largest_weight=largest_weight)
        case "nncf" | "nncf-smooth":
            from .nncf_method import nncf_quantised

            return nncf_quantised(model, known.images, symmetric=scheme == "tensorrt", keep=known.nodes(keep))
        case "modelopt":
            from .modelopt_method import modelopt_quantised

            return modelopt_quantised(model, known.images, keep=known.nodes(keep))
