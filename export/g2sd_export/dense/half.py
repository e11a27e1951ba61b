"""What of a segmenter or detector may be computed in 16 bits: matrix products, convolutions and what lies between them.

Coordinates, scores and the choice among classes stay in float32: FP16 has no fractions of a pixel in a large image. A classifier's parts
are chosen by how its logits change (``half_choice``); boxes do not change smoothly, so here the rule is fixed and the proof decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..onnx_graph import Graph, read_onnx

if TYPE_CHECKING:
    import onnx

_PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose")
_BETWEEN = ("Relu", "Gelu", "Erf", "Tanh", "LayerNormalization", "BatchNormalization", "Softmax", "MaxPool", "AveragePool", "RoiAlign")
_MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Split", "Slice", "Gather", "Expand", "Pad", "Identity")
_SUMS = ("Add", "Mul", "Sub", "Div")


@dataclass(frozen=True)
class KeptByRule:
    """What stays in float32.

    Attributes:
        nodes: Names of nodes, for ``half_onnx``'s ``keep``.
        num_half: Nodes that do not.
    """

    nodes: tuple[str, ...]
    num_half: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"rule": "products and what lies between them", "num_fp32": len(self.nodes), "num_half": self.num_half}


def kept_by_rule(source: Path, precision: str, images: object) -> KeptByRule:
    """The nodes of a float32 file that stay in float32.

    Args:
        source: An ONNX file as ``export_dense_onnx`` or ``deployable_onnx`` writes it, each of its nodes with a name.
        precision: ``fp16`` or ``bf16``; the rule is the same for both.
        images: Not looked at.
    """
    graph = read_onnx(source).proto.graph
    half = _half_nodes(graph)
    kept = [node.name for node in graph.node if node.name not in half]
    return KeptByRule(tuple(kept), len(half))


def _half_nodes(graph: onnx.GraphProto) -> set[str]:
    """Products; then, until nothing changes, what only hands their numbers from one to another. The last ones before an answer are not."""
    view = Graph(graph)
    feeding = _before_products(graph, view)
    half: set[str] = set()
    made: set[str] = set()
    for node in graph.node:
        computed = [name for name in node.input if name and view.constant(name) is None]
        short = [name in made for name in computed]
        match node.op_type:
            case op if op in _PRODUCTS:
                fits = True
            case op if op in (*_BETWEEN, *_MOVES):
                fits = bool(short) and short[0] and node.name in feeding
            case op if op in _SUMS:
                fits = bool(short) and all(short) and node.name in feeding
            case _:
                fits = False
        if fits:
            half.add(node.name)
            made.update(node.output)
    return half


def _before_products(graph: onnx.GraphProto, view: Graph) -> set[str]:
    """Names of nodes from which a product is reached without an operator of another kind between."""
    found: set[str] = set()
    for node in reversed(graph.node):
        readers = [reader for name in node.output for reader in view.consumers.get(name, [])]
        if any(reader.op_type in _PRODUCTS or reader.name in found for reader in readers) and node.op_type in (*_BETWEEN, *_MOVES, *_SUMS):
            found.add(node.name)
    return found
