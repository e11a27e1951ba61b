"""What this machine can do, measured: the best rate of matrix products in each number format, and the bandwidth of its memory.

Source: Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model for multicore architectures".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from g2sd_deploy.profiling.layers.operators import kind_of
from g2sd_deploy.profiling.layers.probes import WARM_CALLS, open_probe
from g2sd_deploy.profiling.layers.subjects import subject_of_file

# Rows, depth and columns: the middle and the large products of vision transformers, and one whose matrices fill a second-level cache.
_SIZES = ((512, 512, 512), (1024, 1024, 1024), (1024, 2048, 2048))
_SECONDS_PER_SIZE = 0.25
_ON_CPU = ("onnxruntime", "openvino")
_PRODUCT = "matrix product"
_COPIES = 4
_ARRAYS = 3  # of the triad: two that are read and one that is written
_SMALLEST_BYTES = 192 << 20
_LARGEST_SHARE = 8  # of the free memory, one part in so many


@dataclass
class Machine:
    """Peaks of this machine, each measured once.

    Attributes:
        threads: CPU threads that compute.
        sizes: Rows, depth and columns of the products that are tried.
        working_set_bytes: Of the measurement of bandwidth; None takes what no cache of this machine holds.
    """

    threads: int
    sizes: tuple[tuple[int, int, int], ...] = _SIZES
    working_set_bytes: int | None = None
    _peaks: dict[tuple[str, str], float | None] = field(default_factory=dict)
    _bandwidth: float | None = None

    def peak_gflops(self, runtime: str, precision: str) -> float | None:
        """10^9 operations per second that products reach on a runtime in a number format; None where it computes none in it here."""
        key = (runtime, precision)
        if key not in self._peaks:
            known = runtime in _ON_CPU and precision in _FORMATS
            self._peaks[key] = (
                max(filter(None, (self._rate(runtime, precision, size) for size in self.sizes)), default=None) if known else None
            )
        return self._peaks[key]

    def bandwidth_gb_s(self) -> float:
        """10^9 bytes per second between memory and processor, for a sum of two arrays that no cache holds."""
        if self._bandwidth is None:
            self._bandwidth = memory_bandwidth(self.threads, self.working_set_bytes or _beyond_caches())
        return self._bandwidth

    def _rate(self, runtime: str, precision: str, size: tuple[int, int, int]) -> float | None:
        """Of one product; None where another number format was taken."""
        rows, depth, columns = size
        model = product_graph(rows, depth, columns, quantised=precision == "int8")
        settings = {"inference_precision": "bf16" if precision == "bf16" else "f32"} if runtime == "openvino" else None
        values = np.random.default_rng(0).standard_normal((rows, depth), dtype=np.float32)
        subject = subject_of_file("product", model, runtime, lambda _: {"left": values}, settings=settings)
        if runtime == "openvino" and precision == "bf16" and not _has_bfloat16():
            return None
        with open_probe(subject, subject.open(1, self.threads), self.threads) as probe:
            for _ in range(WARM_CALLS):
                probe.call()
            best_ms = _best_of(probe.call, _SECONDS_PER_SIZE)
            layers = [layer for layer in probe.layers() if kind_of(layer.op) == _PRODUCT and layer.precision == precision]
        # The layer's own clock leaves out what is around it; the best call leaves out what else the machine did.
        return 2e-6 * rows * depth * columns / min(layers[0].ms or best_ms, best_ms) if layers else None


_FORMATS = ("fp32", "bf16", "int8")


def product_graph(rows: int, depth: int, columns: int, *, quantised: bool = False) -> bytes:
    """An ONNX file that multiplies its input ``left`` [rows, depth] by weights.

    Args:
        rows: Of the input.
        depth: Columns of the input and rows of the weights.
        columns: Of the weights.
        quantised: Round both to eight bits, as the exporter's INT8 files do: uint8 with a zero point, int8 with a scale per column.
    """
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(1).standard_normal((depth, columns), dtype=np.float32)
    constants: dict[str, npt.ArrayLike] = {"right": weight}
    nodes = [helper.make_node("MatMul", ["left", "right"], ["out"], "product")]
    if quantised:
        scales = (np.abs(weight).max(0) / 127).astype(np.float32)
        constants = {
            "scale": np.float32(0.04),
            "zero": np.uint8(128),
            "scales": scales,
            "zeros": np.zeros(columns, np.int8),
            "right": np.rint(weight / scales).astype(np.int8),
        }
        nodes = [
            helper.make_node("QuantizeLinear", ["left", "scale", "zero"], ["left.q"]),
            helper.make_node("DequantizeLinear", ["left.q", "scale", "zero"], ["left.dq"]),
            helper.make_node("DequantizeLinear", ["right", "scales", "zeros"], ["right.dq"], axis=1),
            helper.make_node("MatMul", ["left.dq", "right.dq"], ["out"], "product"),
        ]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    inputs = [helper.make_tensor_value_info("left", TensorProto.FLOAT, [rows, depth])]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, [rows, columns])]
    graph = helper.make_graph(nodes, "product", inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


def memory_bandwidth(threads: int, working_set_bytes: int) -> float:
    """10^9 bytes per second of a sum of two arrays, the best of a few.

    Args:
        threads: That work side by side, each on its own part.
        working_set_bytes: Of the three arrays together.

    Returns:
        Bytes read and written over the time; what a processor reads because it is about to overwrite it is not counted.

    Source: McCalpin's STREAM, the add kernel.
    """
    length = working_set_bytes // _ARRAYS // 8 // threads
    parts = [tuple(np.ones(length) for _ in range(_ARRAYS)) for _ in range(threads)]
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_COPIES):
            start = time.perf_counter()
            list(pool.map(lambda part: np.add(part[0], part[1], out=part[2]), parts))
            best = min(best, time.perf_counter() - start)
    return threads * _ARRAYS * length * 8 / best / 1e9


def _beyond_caches() -> int:
    """Twice the largest cache, within reason of the memory that is free."""
    caches = [_size_of(file) for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    wanted = max(_SMALLEST_BYTES, 2 * max(caches, default=0))
    free = _free_bytes()
    return min(wanted, free // _LARGEST_SHARE) if free else wanted


def _size_of(file: Path) -> int:
    """Bytes of ``307200K`` or ``8M``."""
    try:
        text = file.read_text(encoding="ascii").strip()
    except OSError:
        return 0
    return int(text[:-1]) * {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[text[-1]] if text[-1:] in "KMG" and text[:-1].isdecimal() else 0


def _free_bytes() -> int:
    """Memory that programs may take, where the system tells; 0 where it does not."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), 0)


def _has_bfloat16() -> bool:
    from g2sd_export.edge.openvino_runner import shared_core

    return "BF16" in shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _best_of(call: Callable[[], None], seconds: float) -> float:
    """The shortest of the calls that fit into the time, in ms."""
    best, start = float("inf"), time.perf_counter()
    while (now := time.perf_counter()) < start + seconds:
        call()
        best = min(best, time.perf_counter() - now)
    return best * 1e3
