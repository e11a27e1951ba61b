"""Operators of ONNX, ONNX Runtime, OpenVINO and TensorRT by what they do."""

from __future__ import annotations


def _these(text: str) -> frozenset[str]:
    return frozenset(text.split())


PRODUCTS = _these("MatMul Gemm Conv ConvTranspose Einsum FusedMatMul MatMulInteger QLinearMatMul ConvInteger QLinearConv")
"""Matrix products and convolutions: what is counted as arithmetic."""
ATTENTIONS = _these("Attention MultiHeadAttention GroupQueryAttention QAttention PackedMultiHeadAttention")
NORMS = _these("LayerNormalization RMSNormalization SimplifiedLayerNormalization")
QUANTISERS = _these("QuantizeLinear DequantizeLinear DynamicQuantizeLinear FakeQuantize")
MOVES = _these(
    "Cast Compress Concat DepthToSpace Expand Flatten Gather GatherElements GatherND Identity Pad Reshape Shape Slice SpaceToDepth Split "
    "Squeeze Tile Transpose Unsqueeze"
)
"""What puts numbers elsewhere or writes them in another format."""
CHOOSING = _these("ArgMax ArgMin GatherElements GatherND NonZero OneHot ScatterElements ScatterND TopK")
"""What picks some tokens out of all."""

_ACTIVATIONS = _these(
    "Relu LeakyRelu PRelu Clip Sigmoid HardSigmoid HardSwish Swish QuickGelu Gelu BiasGelu FastGelu Erf Tanh Elu Selu Mish Softplus"
)
_POOLING = _these("AveragePool GlobalAveragePool MaxPool GlobalMaxPool ReduceMean ReduceMax ReduceSum Pooling Reduce")
_OTHERS = 4
# Most work first; what is named nowhere (sums, factors) stands at _OTHERS.
_RANKS = (PRODUCTS | ATTENTIONS, _these("Softmax"), NORMS, _ACTIVATIONS | _POOLING | {"TopK"}, frozenset[str](), QUANTISERS, MOVES)

_KINDS: dict[str, frozenset[str]] = {
    "convolution": _these(
        "Conv ConvTranspose FusedConv ConvInteger QLinearConv NhwcFusedConv Convolution Deconvolution CaskConvolution correlation"
    ),
    "matrix product": _these(
        "MatMul Gemm Einsum FusedMatMul FusedGemm MatMulInteger MatMulIntegerToFloat QLinearMatMul QGemm DynamicQuantizeMatMul "
        "FullyConnected gemm MatrixMultiply"
    ),
    "attention": ATTENTIONS | _these("ScaledDotProductAttention MHA"),
    "normalisation": NORMS | _these("BatchNormalization InstanceNormalization GroupNormalization SkipLayerNormalization MVN LRN"),
    "activation": _ACTIVATIONS | {"Softmax"},
    "pooling": _POOLING,
    "quantise": QUANTISERS,
    "data movement": MOVES
    | _these("Reorder ReorderInput ReorderOutput Concatenation Crop StridedSlice VariadicSplit Convert MemcpyToHost MemcpyFromHost"),
    "elementwise": _these("Add Sum Sub Mul Div Pow Sqrt Max Min Neg Abs Exp Log Where Eltwise Subgraph kgen"),
}


def kind_of(op: str) -> str:
    """The kind of an operator, for graphs that are told by kinds."""
    return next((kind for kind, ops in _KINDS.items() if op in ops), "other")


def rank_of(op: str) -> int:
    """How much of a fused layer's work an operator is likely to be; a small number is much."""
    return next((rank for rank, ops in enumerate(_RANKS) if op in ops), _OTHERS)
