"""What a 16-bit file answers where every tensor of it really is rounded to 16 bits, computed on any CPU.

A CPU's runtime computes a 16-bit graph in float32 and drops roundings between operators, so an activation that a GPU turns into infinity
passes unseen. Here each result is rounded; sums are kept in float32, as tensor cores do; and an operator that ONNX defines by smaller ones
(softmax, layer norm, GELU) is computed step by step, each step rounded, as the most careless runtime would.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .half import float32_from_bf16
from .onnx_file import OnnxInfo, write_onnx
from .onnx_graph import Graph, attributes, read_onnx, replace_nodes

if TYPE_CHECKING:
    import onnx


def emulated_onnx(source: Path, *, path: Path) -> OnnxInfo:
    """Write a float32 twin of a 16-bit file that rounds each of its 16-bit tensors as the file demands.

    Args:
        source: A strongly typed FP16 or BF16 file, as ``half_onnx`` writes it.
        path: The file to write; for proofs, not to ship. It needs a runtime that leaves pairs of casts alone: ``run_float32``, or
            ONNX Runtime with its optimisations off.

    Raises:
        UserError: The file is not ONNX.
    """
    read = read_onnx(source)
    in_steps(read.proto)
    emulate(read.proto)
    return write_onnx(read.proto, path, metadata=read.metadata | {"emulated": "true", "source_sha256": read.sha256})


def emulate(proto: onnx.ModelProto) -> None:
    """Change a 16-bit model in place to float32 arithmetic with a rounding behind every 16-bit result."""
    import onnx
    from onnx import helper

    half = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    types = tensor_types(proto)
    graph, nodes = Graph(proto.graph), []
    for node in proto.graph.node:
        twin = type(node)()
        twin.CopyFrom(node)
        if node.op_type == "Cast" and attributes(node)["to"] in half:
            next(item for item in twin.attribute if item.name == "to").i = onnx.TensorProto.FLOAT
        nodes.append(twin)
        for index, name in enumerate(node.output):
            if types.get(name) not in half:
                continue
            twin.output[index], rounded = graph.new_name(f"{name}_exact"), graph.new_name(f"{name}_rounded")
            nodes.append(helper.make_node("Cast", [twin.output[index]], [rounded], f"round_{name}", to=types[name]))
            nodes.append(helper.make_node("Cast", [rounded], [name], f"widen_{name}", to=onnx.TensorProto.FLOAT))
    replace_nodes(proto.graph, nodes, {item.name: _widened(item) for item in proto.graph.initializer if item.data_type in half})


def in_steps(proto: onnx.ModelProto, *, only_half: bool = True) -> dict[str, str]:
    """Replace softmax, layer norm and GELU by the smaller operators that define them, in place.

    Args:
        proto: The model.
        only_half: Leave those alone that compute in float32.

    Returns:
        For each inner tensor that is new the name of the node whose step it is.
    """
    import onnx

    half = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    types = tensor_types(proto)
    nodes: list[onnx.NodeProto] = []
    owners: dict[str, str] = {}
    constants: list[onnx.TensorProto] = []
    for node in proto.graph.node:
        kind = types.get(node.output[0], 0)
        if not _is_last_axis(node) or (only_half and kind not in half):
            nodes.append(node)
            continue
        steps = _Steps(node, kind)
        steps.expand()
        nodes += steps.nodes
        constants += steps.constants
        owners |= {name: node.name for step in steps.nodes[:-1] for name in step.output}
    replace_nodes(proto.graph, nodes)
    proto.graph.initializer.extend(constants)
    return owners


def tensor_types(proto: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor that a model computes."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    return {item.name: item.type.tensor_type.elem_type for item in (*graph.value_info, *graph.output)}


def _is_last_axis(node: onnx.NodeProto) -> bool:
    if node.op_type == "Gelu":
        return bool(attributes(node).get("approximate", b"none") == b"none")
    return node.op_type in ("Softmax", "LayerNormalization") and attributes(node).get("axis", -1) == -1 and len(node.output) == 1


class _Steps:
    """The smaller operators of one operator over the last axis."""

    def __init__(self, node: onnx.NodeProto, kind: int) -> None:
        self.node, self.kind = node, kind
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def expand(self) -> None:
        match self.node.op_type:
            case "Softmax":
                self._softmax(self.node.input[0])
            case "LayerNormalization":
                self._layer_norm(*self.node.input)
            case "Gelu":
                self._gelu(self.node.input[0])
        self.nodes[-1].output[0] = self.node.output[0]

    def _do(self, operator: str, *inputs: str, **settings: Any) -> str:
        from onnx import helper

        name = f"{self.node.output[0]}.step{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name, **settings))
        return name

    def _number(self, value: float, *, whole: bool = False) -> str:
        import onnx
        from onnx import helper

        name = f"{self.node.output[0]}.number{len(self.constants)}"
        kind = onnx.TensorProto.INT64 if whole else self.kind
        self.constants.append(helper.make_tensor(name, kind, [1], [value]))
        return name

    def _softmax(self, x: str) -> None:
        last = self._number(-1, whole=True)
        powers = self._do("Exp", self._do("Sub", x, self._do("ReduceMax", x, last)))
        self._do("Div", powers, self._do("ReduceSum", powers, last))

    def _layer_norm(self, x: str, scale: str, bias: str = "") -> None:
        last, epsilon = self._number(-1, whole=True), self._number(attributes(self.node).get("epsilon", 1e-5))
        centred = self._do("Sub", x, self._do("ReduceMean", x, last))
        variance = self._do("ReduceMean", self._do("Mul", centred, centred), last)
        scaled = self._do("Mul", self._do("Div", centred, self._do("Sqrt", self._do("Add", variance, epsilon))), scale)
        if bias:
            self._do("Add", scaled, bias)

    def _gelu(self, x: str) -> None:
        share = self._do("Add", self._do("Erf", self._do("Mul", x, self._number(0.5**0.5))), self._number(1))
        self._do("Mul", self._do("Mul", x, self._number(0.5)), share)


def _widened(item: onnx.TensorProto) -> npt.NDArray[np.float32]:
    import onnx
    from onnx import numpy_helper

    if item.data_type == onnx.TensorProto.BFLOAT16:
        bits = np.frombuffer(item.raw_data, dtype=np.uint16) if item.raw_data else np.array(item.int32_data, dtype=np.uint16)
        return float32_from_bf16(bits.reshape(tuple(item.dims)))
    return np.asarray(numpy_helper.to_array(item)).astype(np.float32)


def peaks(proto: onnx.ModelProto, inputs: npt.NDArray[Any], names: Collection[str]) -> dict[str, float]:
    """Largest magnitude of some of a model's tensors over real inputs; not finite where the tensor is not.

    Args:
        proto: A float32 model; left as it is.
        inputs: What its input takes, [N, ...].
        names: float32 tensors that it computes.
    """
    import onnx
    from onnx import helper

    twin = onnx.ModelProto()
    twin.CopyFrom(proto)
    wanted = sorted(names)
    for index, name in enumerate(wanted):
        nodes = [
            helper.make_node("Abs", [name], [f"abs.{index}"]),
            helper.make_node("ReduceMax", [f"abs.{index}"], [f"peak.{index}"], keepdims=0),
        ]
        twin.graph.node.extend(nodes)
        twin.graph.output.append(helper.make_tensor_value_info(f"peak.{index}", onnx.TensorProto.FLOAT, []))
    found = run_float32(twin, inputs, [f"peak.{index}" for index in range(len(wanted))])
    return {name: float(value) for name, value in zip(wanted, found, strict=True)}


def run_float32(proto: onnx.ModelProto, inputs: npt.NDArray[Any], outputs: list[str] | None = None) -> list[npt.NDArray[np.float32]]:
    """Run a model as written, operator by operator, on the CPU.

    Args:
        proto: The model; one input.
        inputs: [N, ...], in one batch.
        outputs: Names of the outputs wanted; None: all.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # it would drop pairs of casts
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(outputs, {session.get_inputs()[0].name: inputs})]
