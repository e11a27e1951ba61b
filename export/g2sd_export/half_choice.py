"""Which parts of a model stay in float32 when the rest goes to 16 bits: those that would overflow, and those that measurably help."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .edge.errors import UserError
from .half import LARGEST, HalfPrecision, half_graph
from .half_emulation import emulate, in_steps, peaks, run_float32, tensor_types
from .onnx_graph import Graph, read_onnx

if TYPE_CHECKING:
    import onnx

# Other images than those that were measured may excite an activation more.
HEADROOM = 4.0

# A part that lessens the error by less than this costs casts and gains nothing.
_WORTHWHILE = 0.15


@dataclass(frozen=True)
class Kept:
    """What stays in float32 and why.

    Attributes:
        nodes: Names of nodes, for ``half_onnx``'s ``keep``.
        groups: The parts that these nodes make up, in the order in which they were chosen; ``overflow`` comes first.
        overflow: Nodes that would leave the range of the precision, with the largest magnitude seen, largest first.
        error: Error of the logits with these nodes kept: root mean square of the difference over that of the centred logits.
        error_of_all: The same with nothing kept but what overflows.
        rounds: Per round the error that each part, kept in addition, would have left.
    """

    nodes: tuple[str, ...]
    groups: tuple[str, ...]
    overflow: Mapping[str, float]
    error: float
    error_of_all: float
    rounds: tuple[Mapping[str, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "kept_fp32": list(self.groups),
            "num_nodes": len(self.nodes),
            "overflow": {name: peak if np.isfinite(peak) else str(peak) for name, peak in self.overflow.items()},
            "error": self.error,
            "error_of_all": self.error_of_all,
            "rounds": [dict(each) for each in self.rounds],
        }


def choose_kept(
    source: Path, precision: HalfPrecision, images: npt.NDArray[Any], *, target_error: float = 0.005, max_groups: int = 4
) -> Kept:
    """Measure on real images what must stay in float32.

    First everything whose magnitude comes near the largest number of the precision (``HEADROOM``). Then, while the logits differ by more
    than ``target_error``, the part that lessens the error most, as long as it is worth its casts. Parts are: layer norms, softmaxes, GELUs,
    the residual stream, the patch projection, products of activations (attention), and the head with its norm and pooling.

    Args:
        source: A float32 ONNX file, as for ``half_onnx``.
        precision: Of the file that will be made.
        images: What the file takes, [N, ...]: 8 to 32 real training images.
        target_error: Good enough, as ``Kept.error``.
        max_groups: Parts to keep at most.

    Returns:
        The nodes to keep, with what was measured. Errors are those of a careless runtime; see ``half_emulation``.

    Raises:
        UserError: The file is not ONNX, has nodes without names, or its own logits on these images are not finite.
    """
    proto = read_onnx(source).proto
    if unnamed := sum(not node.name for node in proto.graph.node):
        raise UserError(f"{source}: {unnamed} of its nodes have no name, and what is kept is listed by name; export the model again")
    (reference,) = run_float32(proto, images, ["logits"])
    if not np.isfinite(reference).all():
        raise UserError(f"{source}: its float32 logits are not finite on these images; nothing can be compared with them")
    overflow = overflowing(proto, precision, images)

    def error_with(keep: Collection[str]) -> float:
        return _error(reference, _emulated_logits(proto, precision, images, keep))

    return _greedy(parts_of(proto), overflow, error_with, target_error=target_error, max_groups=max_groups)


def overflowing(proto: onnx.ModelProto, precision: HalfPrecision, images: npt.NDArray[Any]) -> dict[str, float]:
    """Nodes of a float32 model that may not compute in a precision, as what they read or write comes near its largest number.

    Args:
        proto: The model; left as it is.
        precision: What it would compute in.
        images: What it takes.

    Returns:
        Name of the node and the largest magnitude seen, largest first; empty where everything fits.
    """
    twin = _copied(proto)
    owners = in_steps(twin, only_half=False)
    readers = Graph(twin.graph).consumers
    limit = LARGEST[precision] / HEADROOM
    import onnx

    names = [name for name, kind in tensor_types(twin).items() if kind == onnx.TensorProto.FLOAT]
    found: dict[str, float] = {}
    makers = {name: node.name for node in proto.graph.node for name in node.output}
    known = {node.name for node in proto.graph.node}
    for name, peak in peaks(twin, images, names).items():
        if peak <= limit:  # false for NaN too
            continue
        touching = {owners.get(name) or makers[name]}
        touching |= {owners.get(node.output[0]) or makers.get(node.output[0], node.name) for node in readers.get(name, [])}
        for node in touching & known:
            found[node] = max(found.get(node, 0.0), peak)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def parts_of(proto: onnx.ModelProto) -> dict[str, list[str]]:
    """Names of the nodes of each part that may be kept in float32; a part that the model lacks is left out."""
    graph = Graph(proto.graph)
    head = _head(graph)
    computed = {name for node in proto.graph.node for name in node.output if graph.constant(name) is None}
    parts: dict[str, list[str]] = {"head": head}
    for node in proto.graph.node:
        if node.name in head:
            continue
        if part := _part(node, sum(name in computed for name in node.input)):
            parts.setdefault(part, []).append(node.name)
    parts["patch_projection"] = _patch_projection(graph)
    return {name: nodes for name, nodes in parts.items() if nodes}


def _part(node: onnx.NodeProto, num_computed: int) -> str:
    match node.op_type:
        case "LayerNormalization":
            return "layer_norm"
        case "Softmax":
            return "softmax"
        case "Gelu" | "Erf" | "Tanh" | "Sigmoid":
            return "gelu"
        case "Add" if num_computed == 2:
            return "residual"
        case "MatMul" if num_computed == 2:
            return "attention"
    return ""


def _head(graph: Graph) -> list[str]:
    """From the logits back to the last sum of the residual stream: norm, pooling and classifier, which cost next to nothing."""
    found, front = [], [item.name for item in graph.graph.output]
    while front:
        node = graph.producers.get(front.pop())
        if node is None or node.name in found:
            continue
        sums_features = node.op_type == "Add" and not any(_leads_from_gemm(graph, name) for name in node.input)
        if node.op_type == "Conv" or (sums_features and all(graph.constant(name) is None for name in node.input)):
            continue
        found.append(node.name)
        front += node.input
    return found


def _leads_from_gemm(graph: Graph, name: str) -> bool:
    """Whether a tensor is a classifier's product, so that the sum of two is the average of two heads."""
    node = graph.producers.get(name)
    return node is not None and node.op_type == "Gemm"


def _patch_projection(graph: Graph) -> list[str]:
    """From the images to the sum with the positions, or to the first node that reads anything else that is computed."""
    found: list[str] = []
    reached = {item.name for item in graph.graph.input}
    for node in graph.graph.node:
        computed = [name for name in node.input if name and graph.constant(name) is None]
        if not computed or not reached.issuperset(computed) or node.op_type in ("Shape", "Concat", "Expand", "LayerNormalization"):
            continue
        found.append(node.name)
        reached.update(node.output)
    return found


def _greedy(
    parts: Mapping[str, list[str]],
    overflow: Mapping[str, float],
    error_with: Callable[[Collection[str]], float],
    *,
    target_error: float,
    max_groups: int,
) -> Kept:
    keep, groups = set(overflow), ["overflow"] if overflow else []
    error = first = error_with(keep)
    rounds = []
    for _ in range(max_groups):
        left = {name: nodes for name, nodes in parts.items() if name not in groups}
        if error <= target_error or not left:
            break
        errors = {name: error_with(keep.union(nodes)) for name, nodes in left.items()}
        rounds.append(errors)
        best = min(errors, key=lambda name: errors[name])
        if not errors[best] < (1 - _WORTHWHILE) * error:
            break
        groups.append(best)
        keep.update(parts[best])
        error = errors[best]
    return Kept(tuple(sorted(keep)), tuple(groups), dict(overflow), error, first, tuple(rounds))


def _emulated_logits(
    proto: onnx.ModelProto, precision: HalfPrecision, images: npt.NDArray[Any], keep: Collection[str]
) -> npt.NDArray[np.float32]:
    twin = _copied(proto)
    half_graph(twin, precision, keep=keep)
    in_steps(twin)
    emulate(twin)
    return run_float32(twin, images, ["logits"])[0]


def _error(reference: npt.NDArray[np.float32], logits: npt.NDArray[np.float32]) -> float:
    """Root mean square of the difference, in units of that of the logits about their mean per image; infinite where not finite."""
    if not np.isfinite(logits).all():
        return float("inf")
    wide, other = reference.astype(np.float64), logits.astype(np.float64)
    spread = np.sqrt(((wide - wide.mean(axis=1, keepdims=True)) ** 2).mean())
    return float(np.sqrt(((wide - other) ** 2).mean()) / max(spread, 1e-30))


def _copied(proto: onnx.ModelProto) -> onnx.ModelProto:
    twin = type(proto)()
    twin.CopyFrom(proto)
    return twin
