"""NVIDIA Model Optimizer: Q and DQ where TensorRT fuses them.

It runs in a process of its own, this module as a program: when it is imported it puts its own functions into ONNX Runtime's quantiser,
and what another method made afterwards would be another file.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..edge.errors import UserError
from .feeding import feed_of

if TYPE_CHECKING:
    import onnx

_SOURCE, _IMAGES, _SETTINGS, _RESULT = "float.onnx", "images.npz", "settings.json", "quantised.onnx"
_NOT_INSTALLED = 3


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
        UserError: It gave up.
    """
    import onnx

    settings = {
        "quantize_mode": "fp8" if fp8 else "int8",
        "calibration_method": "max" if fp8 else "entropy",
        "calibration_eps": ["cpu"],
        "op_types_to_quantize": ["MatMul", "Gemm", "Conv"],
        "nodes_to_exclude": [re.escape(name) for name in sorted(keep)] or None,
        "high_precision_dtype": "fp32",
        "log_level": "ERROR",
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / _SOURCE).write_bytes(model.SerializeToString())
        np.savez(folder / _IMAGES, **feed_of(model).of(images))  # type: ignore[arg-type]  # numpy types its own option alone
        (folder / _SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-m", __name__, name]
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        told = done.stderr.strip().rpartition("\n")[2]
        if done.returncode == _NOT_INSTALLED:
            raise ImportError(told)
        if done.returncode != 0:
            raise UserError(f"Model Optimizer cannot quantise this model: {told or f'it ended with status {done.returncode}'}")
        return onnx.load_model_from_string((folder / _RESULT).read_bytes())


def _main(folder: Path) -> int:
    settings: dict[str, Any] = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            from modelopt.onnx.quantization import quantize

            with np.load(folder / _IMAGES) as images:
                quantize(str(folder / _SOURCE), calibration_data=dict(images), output_path=str(folder / _RESULT), **settings)
    except ImportError as error:
        sys.stderr.write(f"{' '.join(str(error).split())}\n")
        return _NOT_INSTALLED
    return 0


if __name__ == "__main__":
    raise SystemExit(_main(Path(sys.argv[1])))
