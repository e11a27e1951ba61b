"""Eight-bit floating point (E4M3) for GPUs that multiply it: Hopper, Ada, Blackwell."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

from ..edge.errors import UserError
from .qdq import with_qdq
from .quantise import Images, Quantised, Source, written

_LEAST_OPSET = 19  # the first QuantizeLinear that knows E4M3


def fp8_onnx(source: Path | Source, images: Images, *, path: Path, keep: Collection[str] = ()) -> Quantised:
    """Write a model with E4M3 matrix products: symmetric activations of one scale, weights of one scale per output channel.

    E4M3 keeps three bits of mantissa at every magnitude, so the extremes set the scale and no outlier is cut.

    Args:
        source: A float ONNX file; its input may take pixels.
        images: uint8 [N, H, W, C] of the training set.
        path: The file to write.
        keep: Groups of layers that stay float.

    Returns:
        The file, for scheme "tensorrt". ONNX Runtime computes it on a CPU only with its graph optimisations off.

    Raises:
        UserError: The file's opset is below 19, it is no float vision transformer, or there are no images.
    """
    started = time.monotonic()
    known = source if isinstance(source, Source) else Source(source, images)
    opset = next(item.version for item in known.model.opset_import if not item.domain)
    if opset < _LEAST_OPSET:
        raise UserError(f"FP8 needs opset {_LEAST_OPSET} or later and the float file has {opset}; export it with a later one")
    if unknown := sorted(set(keep) - set(known.groups)):
        raise UserError(f"FP8: there is no layer {unknown[0]!r} to keep in float; the file has {', '.join(known.groups)}")
    ranges = known.ranges("minmax")["minmax"]
    model = with_qdq(known.model, ranges, activations="fp8", keep={*keep, *known.always_float})
    return written(known, model, method="ort-minmax", scheme="tensorrt", kept=tuple(keep), path=path, started=started, precision="fp8")
