"""The residual branches of a vision transformer, found by the structure of its graph and not by names.

A branch begins at a norm that reads the residual stream and ends at the sum that adds its result to that stream. It is attention where it
holds a softmax between two products of activations, and an MLP where it holds products with weights alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from g2sd_deploy.profiling.layers.graph import Network, Node, nodes_of
from g2sd_deploy.profiling.layers.operators import ATTENTIONS, MOVES, NORMS, PRODUCTS, QUANTISERS

_SUMS = frozenset({"Add", "Sum"})


@dataclass(frozen=True)
class Core:
    """What attention is made of: products of activations above and below a softmax, or one operator that does all of it.

    Attributes:
        softmax: The softmax, or that operator.
        scores: Products that make the scores; none where one operator does all.
        values: Products that weigh the values; none where one operator does all.
    """

    softmax: Node
    scores: tuple[Node, ...] = ()
    values: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Branch:
    """A residual branch.

    Attributes:
        norm: Its norm.
        add: The sum that ends it.
        bits: Its nodes, norm and sum among them.
        core: Its attention; None for an MLP.
        block: Number of its block, from 0.
    """

    norm: Node
    add: Node
    bits: int
    core: Core | None
    block: int


def find_cores(network: Network) -> list[Core]:
    """Every attention of a graph, in order."""
    found = []
    for node in network.nodes:
        if node.op in ATTENTIONS:
            found.append(Core(node))
        elif node.op == "Softmax":
            scores = _nearest_products(network, node, network.made_from)
            values = _nearest_products(network, node, network.read_by)
            if scores and values:
                found.append(Core(node, scores, values))
    return found


def find_branches(network: Network) -> list[Branch]:
    """The residual branches of a graph's blocks, in order; none where it has no attention inside such a branch."""
    cores = find_cores(network)
    found: list[Branch] = []
    block = -1
    for norm in (node for node in network.nodes if node.op in NORMS):
        add = _residual_sum(network, norm)
        if add is None:
            continue
        bits = network.descendants[norm.index] & network.ancestors[add.index] | 1 << norm.index | 1 << add.index
        core = next((core for core in cores if bits >> core.softmax.index & 1), None)
        if core is None and not any(node.op in PRODUCTS for node in nodes_of(network, bits)):
            continue
        block += core is not None
        found.append(Branch(norm, add, bits, core, max(block, 0)))
    return found if any(branch.core for branch in found) else []


def _nearest_products(network: Network, start: Node, step: Callable[[Node], Iterable[Node]]) -> tuple[Node, ...]:
    """Products of two activations next to a node, with no other product between."""
    found: dict[int, Node] = {}
    seen, todo = {start.index}, list(step(start))
    while todo:
        node = todo.pop()
        if node.index in seen or node.index in network.constant_nodes:
            continue
        seen.add(node.index)
        if node.op in PRODUCTS:
            if not network.has_weight(node):
                found[node.index] = node
        elif node.op not in NORMS and node.op != "Shape":
            todo.extend(step(node))
    return tuple(found[index] for index in sorted(found))


def _residual_sum(network: Network, norm: Node) -> Node | None:
    """The sum that adds what comes of a norm to what the norm read; None where nothing does, as behind the last block."""
    seen: set[int] = set()
    todo = [reader for name in _aliases(network, norm.inputs[0]) for reader in network.readers(name)]
    found: list[Node] = []
    while todo:
        node = todo.pop()
        if node.index in seen:
            continue
        seen.add(node.index)
        if node.op in _SUMS and not network.has_weight(node) and network.comes_from(node, norm):
            found.append(node)
        elif node.op in MOVES | QUANTISERS | _SUMS and not network.comes_from(node, norm):
            todo.extend(network.read_by(node))
    return min(found, key=lambda node: node.index) if found else None


def _aliases(network: Network, name: str) -> list[str]:
    """A tensor, and what it was before conversions of its numbers."""
    found = [name]
    while (maker := network.makers.get(name)) is not None and (maker.op in QUANTISERS or maker.op in ("Cast", "Identity")):
        name = maker.inputs[0]
        found.append(name)
    return found
