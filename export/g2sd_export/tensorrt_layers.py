"""What an engine computes in which precision: the layers that TensorRT made, against those that the graph asked for.

Where the engine can be opened, its inspector tells. Without a GPU no engine opens, but TensorRT for RTX writes the same list to its log
while it builds. Runs on the device too: Python 3.10, nothing but the standard library.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Source = Literal["inspector", "build log", "none"]

# As the log (Float), the inspector of 10.x ("Row major linear FP16 format") and the Python enumeration (HALF) write them.
_PRECISIONS = {
    "fp32": ("float", "fp32", "float32"),
    "fp16": ("half", "fp16", "float16"),
    "bf16": ("bfloat16", "bf16"),
    "fp8": ("fp8", "e4m3"),
    "fp4": ("fp4",),
    "int8": ("int8",),
    "int4": ("int4",),
    "uint8": ("uint8",),
    "int32": ("int32",),
    "int64": ("int64",),
    "bool": ("bool",),
}
_WORDS = {word: precision for precision, words in _PRECISIONS.items() for word in words}
_LINE = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>.*?), Inputs: \[(?P<inputs>.*?)\], (?:Constants: \[(?P<constants>.*)\], )?"
    r"Outputs: \[(?P<outputs>.*)\], TacticName: (?P<tactic>.*?), StreamId: \d+, Metadata: ?(?P<metadata>.*)"
)
_TENSOR = re.compile(r"Dimensions: \[([-\d,]*)\].*?(?:Format/Datatype|Datatype): (.*?)(?:, Format:| \}|$)")
_ONNX_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_PRODUCTS = ("MATRIX_MULTIPLY", "CONVOLUTION", "EINSUM")
_PASSING = ("SHUFFLE", "IDENTITY", "SQUEEZE", "UNSQUEEZE")  # what only moves a tensor on its way from a dequantisation


@dataclass(frozen=True)
class Operand:
    """A tensor that a layer reads or writes.

    Attributes:
        precision: ``fp32``, ``fp16``, ``bf16``, ``fp8``, ``int8`` and so on; as TensorRT says it where it is none of these.
        shape: Its dimensions, -1 where they are free.
    """

    precision: str
    shape: tuple[int, ...]

    @property
    def is_matrix(self) -> bool:
        """More than a scalar or a vector, as the operands of a matrix product are and a bias is not."""
        return sum(dim != 1 for dim in self.shape) > 1


@dataclass(frozen=True)
class EngineLayer:
    """A kernel of the engine.

    Attributes:
        name: As TensorRT calls it.
        kind: ``gemm``, ``kgen`` (a generated kernel), ``correlation`` and so on.
        inputs: What it reads from other layers.
        constants: What it reads of the weights; None where TensorRT does not say.
        outputs: What it writes.
        nodes: ONNX nodes that it computes, whole or in part.
        tactic: Which implementation was taken.
    """

    name: str
    kind: str
    inputs: tuple[Operand, ...]
    constants: tuple[Operand, ...] | None
    outputs: tuple[Operand, ...]
    nodes: tuple[str, ...]
    tactic: str

    def multiplies_in(self, precision: str) -> bool:
        """Whether two matrices of a precision come in; one is enough where the weights are not told of."""
        operands = (*self.inputs, *(self.constants or ()))
        found = sum(operand.precision == precision and operand.is_matrix for operand in operands)
        return found >= (1 if self.constants is None else 2)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        constants = None if self.constants is None else [_told(one) for one in self.constants]
        return {
            "name": self.name,
            "kind": self.kind,
            "inputs": [_told(one) for one in self.inputs],
            "constants": constants,
            "outputs": [_told(one) for one in self.outputs],
            "nodes": list(self.nodes),
            "tactic": self.tactic,
        }


@dataclass(frozen=True)
class FellBack:
    """A matrix product or convolution that does not run as the graph asks.

    Attributes:
        node: Its ONNX node.
        asked: The precision of its operands in the graph.
        ran: Precisions of the matrices that the engine's layers read for it.
    """

    node: str
    asked: str
    ran: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.node} ({self.asked} asked, {' and '.join(self.ran) or 'nothing'} read)"


@dataclass(frozen=True)
class LayerReport:
    """An engine's layers, and whether they compute in the precisions that the graph asks for.

    Attributes:
        source: Who told: the engine's inspector, the log of the build, or nobody.
        layers: Every kernel, in the order of execution.
        asked: Precision of each matrix product and convolution of the graph, by ONNX node.
        fell_back: Those that run in another one.
        unseen: Those that no layer of the engine names, so that nothing can be said of them.
    """

    source: Source
    layers: tuple[EngineLayer, ...]
    asked: Mapping[str, str]
    fell_back: tuple[FellBack, ...]
    unseen: tuple[str, ...]

    @property
    def ran(self) -> dict[str, int]:
        """How many products run as asked, by precision."""
        missing = {*(one.node for one in self.fell_back), *self.unseen}
        return _counted([precision for node, precision in self.asked.items() if node not in missing])

    def summary(self) -> dict[str, Any]:
        """Plain JSON values, without the layers themselves."""
        return {
            "source": self.source,
            "num_layers": len(self.layers),
            "asked": _counted(self.asked.values()),
            "ran": self.ran,
            "fell_back": [{"node": one.node, "asked": one.asked, "ran": list(one.ran)} for one in self.fell_back],
            "unseen": list(self.unseen),
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**self.summary(), "layers": [layer.to_dict() for layer in self.layers]}


def report_layers(asked: Mapping[str, str], layers: Sequence[EngineLayer], source: Source) -> LayerReport:
    """Compare what was asked with what there is.

    Args:
        asked: Precision by ONNX node, as ``asked_precisions`` gives it.
        layers: As ``layers_from_json`` or ``layers_from_log`` gives them; none where nobody told.
        source: Who told.

    Returns:
        The report. A product counts as run in a precision if a layer that names its node reads two matrices of it.
    """
    by_node: dict[str, list[EngineLayer]] = {}
    for layer in layers:
        for node in layer.nodes:
            by_node.setdefault(node, []).append(layer)
    fell_back = [
        FellBack(node, precision, _matrices_of(by_node[node]))
        for node, precision in asked.items()
        if node in by_node and not any(layer.multiplies_in(precision) for layer in by_node[node])
    ]
    return LayerReport(source, tuple(layers), dict(asked), tuple(fell_back), tuple(node for node in asked if node not in by_node))


def asked_precisions(network: Any) -> dict[str, str]:
    """In which precision a parsed network multiplies, by ONNX node, matrix products and convolutions alone.

    Args:
        network: TensorRT's network definition, strongly typed.

    Returns:
        ``int8`` or ``fp8`` where an operand comes from a dequantisation of that type (the other one should too, or the product falls
        back), else the type of the tensor that comes in.
    """
    made_by = {}
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    for layer in layers:
        for index in range(layer.num_outputs):
            made_by[layer.get_output(index).name] = layer
    asked = {}
    for layer in layers:
        if layer.type.name in _PRODUCTS:
            named = _ONNX_NODE.findall(getattr(layer, "metadata", "") or "")
            asked[named[0] if named else layer.name] = _asked_of(layer, made_by)
    return asked


def _asked_of(layer: Any, made_by: Mapping[str, Any]) -> str:
    operands = [layer.get_input(index) for index in range(min(layer.num_inputs, 2))]
    stored = [name for operand in operands if (name := _stored_as(operand, made_by)) is not None]
    return stored[0] if stored else precision_of(operands[0].dtype.name)


def _stored_as(tensor: Any, made_by: Mapping[str, Any]) -> str | None:
    """Precision of what a tensor was dequantised from; None if it was not."""
    maker = made_by.get(tensor.name)
    while maker is not None and maker.type.name in _PASSING:
        maker = made_by.get(maker.get_input(0).name)
    if maker is None or maker.type.name != "DEQUANTIZE":
        return None
    return precision_of(maker.get_input(0).dtype.name)


def layers_from_json(text: str) -> tuple[EngineLayer, ...]:
    """Layers from the inspector's JSON, of TensorRT 10 or 11.

    Returns:
        The layers; none if the engine was built without their details.
    """
    entries = json.loads(text).get("Layers", [])
    return tuple(_layer(entry) for entry in entries if isinstance(entry, dict))


def _layer(entry: Mapping[str, Any]) -> EngineLayer:
    constants = entry.get("Constants")
    return EngineLayer(
        name=str(entry.get("Name", "")),
        kind=str(entry.get("LayerType", "")),
        inputs=_operands(entry.get("Inputs", [])),
        constants=None if constants is None else _operands(constants),
        outputs=_operands(entry.get("Outputs", [])),
        nodes=_nodes(str(entry.get("Metadata", ""))),
        tactic=str(entry.get("TacticName", "")),
    )


def _operands(tensors: Sequence[Mapping[str, Any]]) -> tuple[Operand, ...]:
    found = []
    for tensor in tensors:
        told = tensor.get("Datatype") or tensor.get("DataType") or tensor.get("Format/Datatype") or ""
        found.append(Operand(precision_of(str(told)), tuple(int(dim) for dim in tensor.get("Dimensions", []))))
    return tuple(found)


def layers_from_log(text: str) -> tuple[EngineLayer, ...]:
    """Layers from the list that is logged at the end of a build, one a line; other lines are passed over."""
    found = []
    for line in text.splitlines():
        if (match := _LINE.fullmatch(line.strip())) is not None:
            constants = match["constants"]
            found.append(
                EngineLayer(
                    name=match["name"],
                    kind=match["kind"],
                    inputs=_operands_in(match["inputs"]),
                    constants=None if constants is None else _operands_in(constants),
                    outputs=_operands_in(match["outputs"]),
                    nodes=_nodes(match["metadata"]),
                    tactic=match["tactic"],
                )
            )
    return tuple(found)


def _operands_in(text: str) -> tuple[Operand, ...]:
    return tuple(Operand(precision_of(kind), tuple(int(dim) for dim in shape.split(",") if dim)) for shape, kind in _TENSOR.findall(text))


def precision_of(told: str) -> str:
    """``fp16`` from ``Half``, ``HALF`` or "Row major linear FP16 format"; what is told where it is no precision known here."""
    words = re.findall(r"[a-z]+\d*[a-z]*\d*", told.lower())
    return next((_WORDS[word] for word in words if word in _WORDS), told)


def _nodes(metadata: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_ONNX_NODE.findall(metadata)))


def _matrices_of(layers: Sequence[EngineLayer]) -> tuple[str, ...]:
    operands = [operand for layer in layers for operand in (*layer.inputs, *(layer.constants or ())) if operand.is_matrix]
    return tuple(dict.fromkeys(operand.precision for operand in operands))


def _counted(precisions: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(precisions).items()))


def _told(operand: Operand) -> list[Any]:
    return [operand.precision, list(operand.shape)]
