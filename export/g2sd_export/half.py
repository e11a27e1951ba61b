"""From a float32 graph to one that computes in FP16 or BF16, every tensor of which has its type written down (strongly typed).

TensorRT 11 takes precision from the graph alone. What is kept in float32 is chosen by measurement: see ``half_choice``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from .edge.errors import UserError
from .onnx_file import OnnxInfo, write_onnx
from .onnx_graph import Graph, read_onnx, replace_nodes, with_inputs

if TYPE_CHECKING:
    import onnx

HalfPrecision = Literal["fp16", "bf16"]

LARGEST = {"fp16": 65504.0, "bf16": 3.3895313892515355e38}
"""The largest finite number of a precision; anything above becomes infinite."""


def half_onnx(source: Path, *, precision: HalfPrecision, path: Path, keep: Collection[str] = ()) -> OnnxInfo:
    """Write the same model with weights and activations in 16 bits; its input and its logits keep their types.

    Args:
        source: An ONNX file with float32 weights and logits; its input is float32 or uint8. An INT8 file (QuantizeLinear and
            DequantizeLinear) may come too: what it computes in float goes to 16 bits.
        precision: ``fp16`` (11 bits of mantissa, up to 65504) or ``bf16`` (8 bits, the range of float32).
        path: The file to write, whole or not at all; its metadata is that of ``source`` with ``precision``, ``float_precision``,
            ``kept_fp32`` and ``source_sha256``.
        keep: What stays in float32: names of operator types and of nodes. ``half_choice.choose_kept`` measures a good set.

    Returns:
        Digest, size and shapes of the file.

    Raises:
        UserError: The file is not ONNX or not float32, ``keep`` names nothing in it, or a constant does not fit into the precision.
    """
    read = read_onnx(source)
    half_graph(read.proto, precision, keep=keep, name=str(source))
    before = read.metadata.get("precision", "fp32")
    written = {
        "precision": before if before in ("int8", "fp8") else precision,
        "float_precision": precision,
        "kept_fp32": " ".join(sorted(keep)),
        "source_sha256": read.sha256,
    }
    return write_onnx(read.proto, path, metadata=read.metadata | written)


def half_graph(proto: onnx.ModelProto, precision: HalfPrecision, *, keep: Collection[str] = (), name: str = "the model") -> None:
    """Change a float32 model to 16 bits in place; arguments and errors as of ``half_onnx``."""
    _check_kept(proto, keep, name)
    change = _Change(proto, precision, frozenset(keep), name)
    nodes = change.nodes()
    replace_nodes(proto.graph, nodes, change.constants)
    for item in change.typed:
        proto.graph.initializer.append(item)


@dataclass
class _Change:
    """The pass: every float32 tensor has a home, 16 bits or float32, and is cast once for readers of the other kind."""

    proto: onnx.ModelProto
    precision: HalfPrecision
    keep: frozenset[str]
    name: str
    constants: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    typed: list[onnx.TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.graph = Graph(self.proto.graph)
        self.types = _element_types(self.proto, self.name)
        self.opset = next(item.version for item in self.proto.opset_import if item.domain in ("", "ai.onnx"))
        self.half_type = _half_type(self.precision)
        self.home: dict[str, int] = {}
        self.casts: dict[tuple[str, int], str] = {}
        self.new: list[onnx.NodeProto] = []
        self.outputs = {item.name for item in self.proto.graph.output}

    def nodes(self) -> list[onnx.NodeProto]:
        """The changed nodes, in order, with the casts between them."""
        for node in self.proto.graph.node:
            if node.op_type == "Constant" and self._is_float(node.output[0]):
                continue  # read through ``Graph.constant`` and stored again where it is used
            self._add(node)
        return self.new

    def _add(self, node: onnx.NodeProto) -> None:
        import onnx

        half = self.is_half(node)
        wanted = self.half_type if half else onnx.TensorProto.FLOAT
        accepts = _half_inputs(node, self.opset, self.precision)
        untouched = node.op_type in ("Shape", "Size")  # the type of what they measure is nothing to them
        inputs = [
            name if untouched else self._as(name, wanted if accepts[min(index, len(accepts) - 1)] else onnx.TensorProto.FLOAT, node)
            for index, name in enumerate(node.input)
        ]
        twin = with_inputs(node, inputs)
        if half and node.op_type == "Cast":
            _set_int(twin, "to", self.half_type)
        late = []
        for index, name in enumerate(node.output):
            if not self._is_float(name):
                continue
            self.home[name] = wanted
            if half and name in self.outputs:
                twin.output[index] = self.graph.new_name(f"{name}_{self.precision}")
                late.append(_cast(twin.output[index], name, onnx.TensorProto.FLOAT))
        self.new += [twin, *late]

    def is_half(self, node: onnx.NodeProto) -> bool:
        """Whether a node computes in 16 bits: it makes or reads floats, may do so by its definition, and is not kept."""
        if node.op_type in self.keep or node.name in self.keep:
            return False
        if not any(self._is_float(name) for name in node.output):
            accepts = _half_inputs(node, self.opset, self.precision)  # of a QuantizeLinear the image and the scale
            return all(accepts[min(index, len(accepts) - 1)] for index, name in enumerate(node.input) if self._is_float(name))
        return _makes_half(node, self.opset, self.precision)

    def _is_float(self, name: str) -> bool:
        import onnx

        return bool(name) and self.types.get(name) == onnx.TensorProto.FLOAT

    def _as(self, name: str, wanted: int, reader: onnx.NodeProto) -> str:
        """Name of a tensor in the type wanted; constants are stored in it, computed tensors are cast behind their producer."""
        import onnx

        if not self._is_float(name):
            return name
        value = self.graph.constant(name)
        home = onnx.TensorProto.FLOAT if value is not None else self.home.get(name, onnx.TensorProto.FLOAT)
        if home == wanted:
            if value is not None:
                self.constants[name] = value
            return name
        if (name, wanted) not in self.casts:
            twin = self.graph.new_name(f"{name}_{self.precision if wanted == self.half_type else 'fp32'}")
            self.casts[name, wanted] = twin
            if value is None:
                self.new.append(_cast(name, twin, wanted))
            else:
                self.typed.append(_half_tensor(value, twin, self.precision, f"{self.name}: {reader.op_type} {reader.name}"))
        return self.casts[name, wanted]


def _check_kept(proto: onnx.ModelProto, keep: Collection[str], name: str) -> None:
    known = {text for node in proto.graph.node for text in (node.op_type, node.name)}
    if missing := sorted(set(keep) - known):
        raise UserError(f"{name}: nothing in it is called {', '.join(missing)}; keep takes names of operator types and of nodes")


def _element_types(proto: onnx.ModelProto, name: str) -> dict[str, int]:
    """Element type of every tensor."""
    import onnx

    output = proto.graph.output[0].type.tensor_type.elem_type
    if output not in (onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8):  # uint8 is a map of classes
        found = onnx.TensorProto.DataType.Name(output).lower()
        raise UserError(
            f"{name}: its logits are {found}; wanted a file with float32 weights and logits: give the one before it in the chain"
        )
    graph = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    types = {item.name: item.type.tensor_type.elem_type for item in (*graph.input, *graph.value_info, *graph.output)}
    return types | {item.name: item.data_type for item in graph.initializer}


def _half_inputs(node: onnx.NodeProto, opset: int, precision: HalfPrecision) -> list[bool]:
    """Per input of the operator's definition, whether it takes the precision (a Resize's scales stay float32)."""
    from onnx import defs

    schema = defs.get_schema(node.op_type, opset, node.domain)
    return [_type_name(precision) in item.types for item in schema.inputs] or [False]


def _makes_half(node: onnx.NodeProto, opset: int, precision: HalfPrecision) -> bool:
    from onnx import defs

    schema = defs.get_schema(node.op_type, opset, node.domain)
    types = schema.outputs[0].types
    # A type that is no input's comes from an attribute; of these operators only Cast is rewritten.
    given = node.op_type == "Cast" or any(item.type_str == schema.outputs[0].type_str for item in schema.inputs)
    scaled = node.op_type == "DequantizeLinear"  # its output has the type of its scale
    return _type_name(precision) in types and (given or scaled)


def _type_name(precision: HalfPrecision) -> str:
    return "tensor(float16)" if precision == "fp16" else "tensor(bfloat16)"


def _half_type(precision: HalfPrecision) -> int:
    import onnx

    return int(onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.BFLOAT16)


def _half_tensor(value: npt.NDArray[Any], name: str, precision: HalfPrecision, where: str) -> onnx.TensorProto:
    """A constant rounded to the nearest number of the precision."""
    from onnx import helper

    bits, restored = _rounded(value, precision)
    peak = float(np.abs(value).max(initial=0))
    if not np.isfinite(restored).all():
        raise UserError(
            f"{where}: a constant of it reaches {peak:.3g}, above {precision}'s {LARGEST[precision]:.6g}; keep the node in float32"
        )
    if value.size == 1 and value.any() and not restored.any():  # a division by an epsilon that became 0
        raise UserError(f"{where}: its constant {peak:.3g} is 0 in {precision}; keep the node in float32")
    return helper.make_tensor(name, _half_type(precision), list(value.shape), bits.tobytes(), raw=True)


def _rounded(value: npt.NDArray[Any], precision: HalfPrecision) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    """The 16-bit numbers, and what they are in float32."""
    if precision == "bf16":
        upper = bf16_from_float32(value)
        return upper, float32_from_bf16(upper)
    with np.errstate(over="ignore"):
        short = np.ascontiguousarray(value, dtype=np.float16)
    return short, short.astype(np.float32)


def bf16_from_float32(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The upper halves of float32 numbers, rounded to the nearest and to even; finite input."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32).astype(np.uint64)
    rounded: npt.NDArray[np.uint16] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return rounded.reshape(values.shape)


def float32_from_bf16(values: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """The float32 numbers whose upper halves these are."""
    return (values.astype(np.uint32) << 16).view(np.float32)


def _cast(source: str, target: str, to: int) -> onnx.NodeProto:
    from onnx import helper

    return helper.make_node("Cast", [source], [target], f"cast_{target}", to=to)


def _set_int(node: onnx.NodeProto, name: str, value: int) -> None:
    next(item for item in node.attribute if item.name == name).i = value
