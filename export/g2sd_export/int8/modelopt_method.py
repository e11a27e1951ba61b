"""NVIDIA Model Optimizer: Q and DQ where TensorRT fuses them."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import tempfile
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .feeding import feed_of

if TYPE_CHECKING:
    import onnx


def modelopt_quantised(
    model: onnx.ModelProto, images: npt.NDArray[np.uint8], *, keep: Collection[str] = (), fp8: bool = False
) -> onnx.ModelProto:
    """Quantise with Model Optimizer's ONNX back end, calibrated by entropy (INT8) or by the extremes (FP8) on the CPU.

    Args:
        model: A prepared float graph; not changed.
        images: uint8 [N, H, W, C].
        keep: Names of nodes that stay float.
        fp8: E4M3 in place of int8.

    Returns:
        The graph with explicit symmetric Q and DQ.

    Raises:
        ImportError: The package, or one that it needs for ONNX, is not installed.
    """
    import onnx

    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), _silence():
        warnings.simplefilter("ignore")
        from modelopt.onnx.quantization import quantize

        source, result = Path(folder) / "float.onnx", Path(folder) / "quantised.onnx"
        source.write_bytes(model.SerializeToString())
        quantize(
            str(source),
            quantize_mode="fp8" if fp8 else "int8",
            calibration_data=feed_of(model).of(images),
            calibration_method="max" if fp8 else "entropy",
            calibration_eps=["cpu"],
            op_types_to_quantize=["MatMul", "Gemm", "Conv"],
            nodes_to_exclude=[re.escape(name) for name in keep] or None,
            high_precision_dtype="fp32",
            output_path=str(result),
            log_level="ERROR",
        )
        return onnx.load_model_from_string(result.read_bytes())


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
