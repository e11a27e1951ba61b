"""An ONNX graph as the search for blocks needs it: who comes from whom, and what is known before any image comes in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from g2sd_deploy.profiling.layers.operators import PRODUCTS

if TYPE_CHECKING:
    import onnx

_QLINEAR = frozenset({"QLinearMatMul", "QLinearConv"})


@dataclass(frozen=True)
class Node:
    """A node of the graph.

    Attributes:
        index: Its place in the graph, which is in topological order.
        name: As the file has it; one of ours where it has none, or the same twice.
        op: Type of operator.
        inputs: Tensors that it reads, without those left out.
        outputs: Tensors that it makes.
        attributes: Plain values.
    """

    index: int
    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(hash=False)

    @property
    def operands(self) -> tuple[str, ...]:
        """The two matrices of a product; of other operators, all inputs."""
        if self.op in _QLINEAR:
            return self.inputs[0], self.inputs[3]
        return self.inputs[:2] if self.op in PRODUCTS else self.inputs


class Network:
    """Nodes of an ONNX graph and how they hang together; ancestors and descendants are sets of bits, one for each node.

    Args:
        graph: The graph; what lies inside its If and Loop nodes is not seen.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        names = unique_names(graph)
        self.nodes = [_node(index, names[index], proto) for index, proto in enumerate(graph.node)]
        self.outputs = {item.name for item in graph.output}
        self.makers = {name: node for node in self.nodes for name in node.outputs}
        self._readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                self._readers.setdefault(name, []).append(node)
        self.constants = {item.name for item in graph.initializer}
        self.constant_nodes = self._find_constants()
        self.ancestors = self._reachable([node.inputs for node in self.nodes])
        self.descendants = self._below()

    def readers(self, name: str) -> list[Node]:
        """Nodes that read a tensor."""
        return self._readers.get(name, [])

    def made_from(self, node: Node) -> list[Node]:
        """Nodes whose outputs a node reads."""
        return list({maker.index: maker for name in node.inputs if (maker := self.makers.get(name))}.values())

    def read_by(self, node: Node) -> list[Node]:
        """Nodes that read a node's outputs."""
        return list({reader.index: reader for name in node.outputs for reader in self.readers(name)}.values())

    def has_weight(self, node: Node) -> bool:
        """Whether an operand is known before any image comes in, as the weights of a layer are."""
        return any(name in self.constants for name in node.operands)

    def comes_from(self, node: Node, other: Node) -> bool:
        """Whether a node depends on another one."""
        return bool(self.ancestors[node.index] >> other.index & 1)

    def _find_constants(self) -> set[int]:
        found = set()
        for node in self.nodes:
            if all(name in self.constants for name in node.inputs) and not node.op.startswith("Random"):
                self.constants.update(node.outputs)
                found.add(node.index)
        return found

    def _reachable(self, inputs: list[tuple[str, ...]]) -> list[int]:
        found: list[int] = []
        for names in inputs:
            bits = 0
            for name in names:
                if (maker := self.makers.get(name)) is not None and maker.index < len(found):
                    bits |= found[maker.index] | 1 << maker.index
            found.append(bits)
        return found

    def _below(self) -> list[int]:
        found = [0] * len(self.nodes)
        for node in reversed(self.nodes):
            for reader in self.read_by(node):
                found[node.index] |= found[reader.index] | 1 << reader.index
        return found


def nodes_of(network: Network, bits: int) -> Iterator[Node]:
    """The nodes of a set of bits, in order."""
    while bits:
        lowest = bits & -bits
        yield network.nodes[lowest.bit_length() - 1]
        bits ^= lowest


def unique_names(graph: onnx.GraphProto) -> list[str]:
    """A name for each node: its own, unless it has none or an earlier node has the same."""
    found: dict[str, None] = {}
    for index, node in enumerate(graph.node):
        found[node.name if node.name and node.name not in found else f"{node.op_type}#{index}"] = None
    return list(found)


def _node(index: int, name: str, proto: onnx.NodeProto) -> Node:
    from g2sd_export.onnx_graph import attributes

    inputs = tuple(name for name in proto.input if name)
    return Node(index, name, proto.op_type, inputs, tuple(name for name in proto.output if name), attributes(proto))
