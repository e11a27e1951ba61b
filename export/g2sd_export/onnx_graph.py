"""A small view of an ONNX graph for the passes that rewrite one: who makes a tensor, who reads it, which ones are constants."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .edge.errors import UserError

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Source:
    """An ONNX file that was read, and the digest of the very bytes that were parsed."""

    path: Path
    proto: onnx.ModelProto
    sha256: str

    @property
    def metadata(self) -> dict[str, str]:
        """The file's ``metadata_props``."""
        return {item.key: item.value for item in self.proto.metadata_props}


def read_onnx(path: Path) -> Source:
    """Parse an ONNX file.

    Raises:
        UserError: There is no such file, or it is not ONNX.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # its stubs are a package of their own

    try:
        content = path.read_bytes()
        proto = onnx.load_model_from_string(content)
    except (OSError, DecodeError) as error:
        raise UserError(f"{path}: cannot be read as an ONNX file ({' '.join(str(error).split())}); export the model again") from error
    return Source(path, proto, hashlib.sha256(content).hexdigest())


class Graph:
    """Who makes and who reads each tensor of a graph.

    The view is of the graph as it was when made; passes collect what they change and build a new list of nodes.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        from onnx import numpy_helper

        self.graph = graph
        self._initialisers = {item.name: item for item in graph.initializer}
        self._to_array = numpy_helper.to_array
        self.producers: dict[str, onnx.NodeProto] = {name: node for node in graph.node for name in node.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in dict.fromkeys(node.input):  # a node that reads a tensor twice is one reader
                self.consumers.setdefault(name, []).append(node)

    def constant(self, name: str) -> npt.NDArray[Any] | None:
        """The value of an initialiser or of a Constant node; None where the tensor is computed."""
        if name in self._initialisers:
            return np.asarray(self._to_array(self._initialisers[name]))
        node = self.producers.get(name)
        if node is not None and node.op_type == "Constant" and node.attribute[0].name == "value":
            return np.asarray(self._to_array(node.attribute[0].t))
        return None

    def only_consumer(self, name: str) -> onnx.NodeProto | None:
        """The node that reads a tensor, where it is one and the tensor is no output of the graph."""
        readers = self.consumers.get(name, [])
        return readers[0] if len(readers) == 1 and all(item.name != name for item in self.graph.output) else None

    def new_name(self, wanted: str) -> str:
        """``wanted``, or it with a number, that no tensor of the graph bears."""
        taken = {*self._initialisers, *self.producers, *(item.name for item in self.graph.input)}
        candidates = (wanted, *(f"{wanted}_{number}" for number in range(1, len(taken) + 2)))
        return next(name for name in candidates if name not in taken)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes as plain Python values."""
    from onnx import helper

    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def replace_nodes(
    graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto], initialisers: Mapping[str, npt.NDArray[Any]] | None = None
) -> None:
    """Give a graph another list of nodes and drop what nobody reads any longer.

    Args:
        graph: Changed in place; shapes that were noted for its inner tensors are forgotten.
        nodes: In topological order.
        initialisers: Constants to add; a name that exists is replaced.
    """
    from onnx import numpy_helper

    kept = [_copy(node) for node in nodes]
    added = initialisers or {}
    read = Counter(name for node in kept for name in node.input)
    old = [_copy(item) for item in graph.initializer if item.name not in added]
    constants = [*old, *(numpy_helper.from_array(value, name) for name, value in added.items())]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(kept)
    graph.initializer.extend(item for item in constants if read[item.name])


def fold_constants(proto: onnx.ModelProto) -> None:
    """Make an initialiser of everything that depends on constants alone, in place; weights in INT8 stay INT8.

    The exporter leaves those that are larger than a limit, the turned weights of a student's patch projection and its positions among them.
    What would swell the file, such as a table of positions spread over all pairs of tokens, is left to the runtime.
    """
    import onnx
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    graph = Graph(proto.graph)
    found: dict[str, npt.NDArray[Any]] = {}
    left = []
    for node in proto.graph.node:
        values = {name: value for name in node.input if (value := found.get(name, graph.constant(name))) is not None}
        computed = not values and node.op_type != "Constant"
        if node.op_type in _NOT_FOLDED or computed or len(values) < len({*node.input} - {""}) or len(node.output) != 1:
            left.append(node)
            continue
        inputs = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), None) for name, value in values.items()]
        single = helper.make_graph([node], "constant", inputs, [onnx.ValueInfoProto(name=node.output[0])])
        evaluator = ReferenceEvaluator(helper.make_model(single, opset_imports=proto.opset_import, ir_version=proto.ir_version))
        (computed_value,) = evaluator.run(None, dict(values))
        result = np.ascontiguousarray(computed_value)
        if values and result.nbytes > max(_MOST_ADDED, sum(value.nbytes for value in values.values())):
            left.append(node)
            continue
        found[node.output[0]] = result
    if found:
        replace_nodes(proto.graph, left, found)


_MOST_ADDED = 1 << 20
"""Bytes of a constant that may be larger than what it is made from."""
_NOT_FOLDED = ("QuantizeLinear", "DequantizeLinear", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "If", "Loop", "Scan")


def with_inputs(node: onnx.NodeProto, inputs: Sequence[str]) -> onnx.NodeProto:
    """The same node, reading other tensors."""
    twin: onnx.NodeProto = _copy(node)
    del twin.input[:]
    twin.input.extend(inputs)
    return twin


def _copy(message: Any) -> Any:
    """A message that outlives the list it came from."""
    twin = type(message)()
    twin.CopyFrom(message)
    return twin
