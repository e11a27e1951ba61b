"""Neural Network Compression Framework (Intel): its own choice of what to quantise, and a correction of the biases."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .feeding import feed_of

if TYPE_CHECKING:
    import onnx


def nncf_quantised(
    model: onnx.ModelProto, images: npt.NDArray[np.uint8], *, symmetric: bool, keep: Collection[str] = ()
) -> onnx.ModelProto:
    """Quantise with NNCF's post-training algorithm for transformers.

    Args:
        model: A prepared float graph; not changed.
        images: uint8 [N, H, W, C], fed one by one.
        symmetric: Zero points are 0; else those of tensors with a bias of sign lie where they serve.
        keep: Names of nodes that stay float.

    Returns:
        The graph with explicit Q and DQ and int8 weights.

    Raises:
        ImportError: NNCF is not installed.
    """
    import onnx

    nncf = _nncf()
    feed = feed_of(model)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    preset = nncf.QuantizationPreset.PERFORMANCE if symmetric else nncf.QuantizationPreset.MIXED
    settings = nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.quantization.advanced_parameters.OverflowFix.DISABLE,
        # Its smoothing adds a Mul before each product on this back end; `smoothing` puts the same into the norms.
        smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1),
    )
    with _silence():
        quantised: onnx.ModelProto = nncf.quantize(
            copy,
            nncf.Dataset(list(feed.each(images))),
            preset=preset,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(images),
            fast_bias_correction=True,
            ignored_scope=nncf.IgnoredScope(names=sorted(keep)) if keep else None,
            advanced_parameters=settings,
        )
    return quantised


def _nncf() -> Any:
    """Import it without its report to the vendor and without PyTorch's remark that there is no GPU."""
    remark = logging.getLogger("torch.utils.cpp_extension")
    level, told = remark.level, os.environ.get("NNCF_CI")
    remark.setLevel(logging.ERROR)
    os.environ["NNCF_CI"] = "1"
    try:
        import nncf
    finally:
        remark.setLevel(level)
        if told is None:
            del os.environ["NNCF_CI"]
        else:
            os.environ["NNCF_CI"] = told
    return nncf


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """It draws progress bars and logs on standard output, where our results go."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
