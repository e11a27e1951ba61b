"""What a runtime ran: its layers, each perhaps several nodes of the graph in one, and what each is of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from g2sd_deploy.profiling.layers.graph import Network, Node
from g2sd_deploy.profiling.layers.labels import CORE_PARTS, FUSED_ATTENTION, Folding, Label
from g2sd_deploy.profiling.layers.operators import MOVES, QUANTISERS, kind_of, rank_of

_TRIMMED = 2  # parts of a path that runtimes put behind a node's name
# What runtimes call layers that stand for no node by name: OpenVINO's MVN is the middle of a LayerNormalization.
_PARTS = {"MVN": "norm", "RMS": "norm", "LayerNormalization": "norm", "Softmax": "softmax"}


@dataclass(frozen=True)
class ExecutedLayer:
    """A layer as a runtime's profiler tells of it.

    Attributes:
        name: As the runtime calls it; unique.
        op: What the runtime calls such layers.
        precision: Number format in which it computes: fp32, bf16, fp16, int8, fp8; empty where nobody says.
        ms: Time of one call.
        mbyte: What it reads and writes, weights among it, in 10^6 bytes; None where nobody says.
        nodes: Names of ONNX nodes that the runtime says it stands for.
        makes: Names of the tensors that it writes, where the runtime keeps the graph's names.
        feeds: Names of the layers that read from it.
    """

    name: str
    op: str
    precision: str
    ms: float
    mbyte: float | None
    nodes: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    feeds: tuple[str, ...] = ()


@dataclass
class Attribution:
    """Where each layer belongs.

    Attributes:
        labels: Of each layer; an empty region where nobody knows.
        flops: Of each layer; None where a shape of its products is not known.
        nodes: Names of the ONNX nodes in each layer.
    """

    labels: list[Label] = field(default_factory=list)
    flops: list[float | None] = field(default_factory=list)
    nodes: list[tuple[str, ...]] = field(default_factory=list)


def attribute(
    network: Network, folding: Folding, labels: Sequence[Label], flops: Sequence[float | None], layers: Sequence[ExecutedLayer]
) -> Attribution:
    """Find the nodes of each layer, and from them what it is and how much it computes.

    A node that no layer names was fused: a quantisation into the layer that makes its input, anything else into the one that reads its
    output. A layer that names no node was inserted: it belongs to what reads it.

    Args:
        network: The graph.
        folding: How much of it was understood.
        labels: Of its nodes.
        flops: Of its nodes.
        layers: What ran, in order.
    """
    named = [_named(network, layer) for layer in layers]
    members = _members(network, named, layers)
    found = Attribution()
    for layer, known, nodes in zip(layers, named, members, strict=True):
        label = _label_of(known, nodes, labels, folding) if known else _by_kind(layer, folding)
        found.labels.append(_as_run(label, layer) if folding == "blocks" else label)
        counts = [flops[node.index] for node in nodes]
        found.flops.append(None if None in counts else sum(count for count in counts if count))
        found.nodes.append(tuple(node.name for node in nodes))
    if folding == "blocks":
        _inherit(found.labels, [bool(known) for known in named], layers)
    return found


def _named(network: Network, layer: ExecutedLayer) -> list[Node]:
    by_name = {node.name: node for node in network.nodes}
    names = [known for name in layer.nodes if (known := _known(name, by_name))]
    if names:
        return [by_name[name] for name in dict.fromkeys(names)]
    return list({maker.index: maker for name in layer.makes if (maker := network.makers.get(name))}.values())


def _known(name: str, by_name: dict[str, Node]) -> str:
    """The name, or what is left of it without a runtime's additions: ``node_MatMul_98/MatMulScaleFusion/``."""
    for _ in range(_TRIMMED + 1):
        if name in by_name:
            return name
        name = name.rpartition("/")[0]
    return ""


def _members(network: Network, named: Sequence[Sequence[Node]], layers: Sequence[ExecutedLayer]) -> list[list[Node]]:
    """Nodes of each layer; each node is in one layer, the slowest of those that name it."""
    owner: dict[int, int] = {}
    for number in sorted(range(len(layers)), key=lambda one: layers[one].ms, reverse=True):
        for node in named[number]:
            owner.setdefault(node.index, number)
    for quantisers in (False, True):
        for node in reversed(network.nodes):
            if node.index not in owner and (quantisers or node.op != "QuantizeLinear"):
                _take_over(owner, node, network.read_by(node))
        for node in network.nodes:
            if node.index not in owner and node.op == "QuantizeLinear":
                _take_over(owner, node, network.made_from(node))
    for node in network.nodes:
        if node.index not in owner:
            _take_over(owner, node, network.made_from(node))
    members: list[list[Node]] = [[] for _ in layers]
    for index, number in sorted(owner.items()):
        members[number].append(network.nodes[index])
    return members


def _take_over(owner: dict[int, int], node: Node, neighbours: Sequence[Node]) -> None:
    number = next((owner[one.index] for one in neighbours if one.index in owner), None)
    if number is not None:
        owner[node.index] = number


def _label_of(named: Sequence[Node], members: Sequence[Node], labels: Sequence[Label], folding: Folding) -> Label:
    """Label of the node that is likely to be most of the work, of equal ones the last; attention whose parts are one is told as one.

    What was fused in front of the nodes that a layer names, in the same branch, may be most of its work; what comes behind them is not.
    """
    last = max(node.index for node in named)
    places = {(labels[node.index].region, labels[node.index].block) for node in named}
    fused = [node for node in members if node.index < last]
    if folding == "blocks":
        fused = [node for node in fused if (labels[node.index].region, labels[node.index].block) in places]
    nodes = [*named, *fused]
    best = labels[min(nodes, key=lambda node: (rank_of(node.op), -node.index)).index]
    core = {labels[node.index].part for node in nodes} & set(CORE_PARTS)
    return Label(best.region, FUSED_ATTENTION, best.block) if best.part in CORE_PARTS and len(core) > 1 else best


def _as_run(label: Label, layer: ExecutedLayer) -> Label:
    """A layer that does nothing but convert or move numbers is told as that, whatever was fused around it."""
    part = "quantise" if layer.op in QUANTISERS else "reshape" if layer.op in MOVES - {"Cast"} else label.part
    return Label(label.region, part, label.block)


def _by_kind(layer: ExecutedLayer, folding: Folding) -> Label:
    return Label("", _PARTS.get(layer.op, "reshape")) if folding == "blocks" else Label(kind_of(layer.op), layer.op)


def _inherit(labels: list[Label], known: list[bool], layers: Sequence[ExecutedLayer]) -> None:
    """Give layers that stand for no node the region of those that read them, or of those that they read."""
    numbers = {layer.name: number for number, layer in enumerate(layers)}
    below = [[numbers[name] for name in layer.feeds if name in numbers] for layer in layers]
    above: list[list[int]] = [[] for _ in layers]
    for number, readers in enumerate(below):
        for reader in readers:
            above[reader].append(number)
    for order, neighbours in ((range(len(layers) - 1, -1, -1), below), (range(len(layers)), above)):
        for number in order:
            if not known[number] and (source := next((one for one in neighbours[number] if known[one]), None)) is not None:
                labels[number] = Label(labels[source].region, labels[number].part, labels[source].block)
                known[number] = True
