"""Which part of a vision transformer each node of its graph is; of a graph that is none, which kind of operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from g2sd_deploy.profiling.layers.branches import Branch, find_branches, find_cores
from g2sd_deploy.profiling.layers.graph import Network, Node, nodes_of
from g2sd_deploy.profiling.layers.operators import ATTENTIONS, CHOOSING, MOVES, NORMS, PRODUCTS, QUANTISERS, kind_of

Folding = Literal["blocks", "attention", "operators"]
"""A ViT whose blocks were found; a graph whose attention alone was found; a graph that is told by kinds of operators."""

PATCHES, ATTENTION, MLP, MERGING, HEAD = "patch projection", "attention", "mlp", "token merging", "head"
FUSED_ATTENTION = "fused attention"
CORE_PARTS = ("scores", "softmax", "values")


@dataclass(frozen=True)
class Label:
    """Where a node belongs.

    Attributes:
        region: A branch or what lies before, between or behind the blocks; empty where nobody knows.
        part: What it does there: ``qkv``, ``softmax``, ``fc1``, ``norm``, ``quantise`` and so on.
        block: Number of its block; None outside of blocks.
    """

    region: str
    part: str
    block: int | None = None

    @property
    def group(self) -> str:
        """The row of the table that it counts to."""
        if self.part == "quantise":
            return "quantise"
        if self.part == "norm" and self.region != PATCHES:
            return "final norm" if self.region == HEAD else "norm"
        return self.region or "other"


def label_nodes(network: Network) -> tuple[Folding, list[Label]]:
    """Label every node.

    Returns:
        How much of the graph was understood, and a label for each node, in order. Where it is no ViT, regions are kinds of operators.
    """
    if branches := find_branches(network):
        return "blocks", _by_blocks(network, branches)
    labels = [Label(kind_of(node.op), node.op) for node in network.nodes]
    cores = find_cores(network)
    for block, core in enumerate(cores):
        parts = [(core.scores, "scores"), ((core.softmax,), _own_part(core.softmax)), (core.values, "values")]
        for nodes, part in parts:
            for node in nodes:
                labels[node.index] = Label(ATTENTION, part, block)
    return ("attention" if cores else "operators"), labels


def _by_blocks(network: Network, branches: list[Branch]) -> list[Label]:
    found: dict[int, Label] = {}
    for branch in branches:
        for node in nodes_of(network, branch.bits):
            found.setdefault(node.index, _in_branch(network, branch, node))
    for node in reversed(network.nodes):
        if node.index not in found and (label := _beside(network, branches, node, found)) is not None:
            found[node.index] = label
    merging = _merging_gaps(network, branches, found)
    return [found.get(node.index) or _outside(network, branches, node, merging) for node in network.nodes]


def _in_branch(network: Network, branch: Branch, node: Node) -> Label:
    region = ATTENTION if branch.core else MLP
    part = _own_part(node)
    if not part:
        part = _attention_part(network, branch, node) if branch.core else _mlp_part(network, branch, node)
    return Label(region, part, branch.block)


def _own_part(node: Node) -> str:
    """What an operator does wherever it stands; empty where that depends."""
    if node.op in QUANTISERS:
        return "quantise"
    if node.op in NORMS:
        return "norm"
    if node.op in ATTENTIONS:
        return FUSED_ATTENTION
    if node.op == "Cast":
        return "cast"
    return "softmax" if node.op == "Softmax" else "reshape" if node.op in MOVES else ""


def _attention_part(network: Network, branch: Branch, node: Node) -> str:
    core = branch.core
    assert core is not None
    lasts = core.values or (core.softmax,)
    if node in core.scores:
        return "scores"
    if node in core.values:
        return "values"
    behind = any(network.comes_from(node, last) for last in lasts)
    if node.op in PRODUCTS:
        return "projection" if behind else "qkv" if network.has_weight(node) else "other products"
    if node == branch.add:
        return "residual"
    if behind:
        return "projection"
    made_by = _product_above(network, node)
    if made_by is not None and network.has_weight(made_by) and node.op == "Add" and network.has_weight(node):
        return "qkv"
    return "softmax" if any(network.comes_from(node, one) for one in core.scores) else "scores"


def _mlp_part(network: Network, branch: Branch, node: Node) -> str:
    if node == branch.add:
        return "residual"
    product = node if node.op in PRODUCTS else None
    if product is None and node.op in ("Add", "Mul") and network.has_weight(node):
        product = _product_above(network, node)
    if product is None:
        return "activation"
    inside = nodes_of(network, network.ancestors[product.index] & branch.bits)
    return "fc2" if any(one.op in PRODUCTS for one in inside) else "fc1"


def _product_above(network: Network, node: Node) -> Node | None:
    """The product whose result a node reads, whatever moved or converted it on the way."""
    while True:
        data = [maker for maker in network.made_from(node) if maker.index not in network.constant_nodes]
        if len(data) != 1:
            return None
        (node,) = data
        if node.op in PRODUCTS:
            return node
        if node.op not in MOVES | QUANTISERS:
            return None


def _beside(network: Network, branches: list[Branch], node: Node, found: dict[int, Label]) -> Label | None:
    """Label of a node that serves one branch alone: weights on their way to it, or a few tokens picked for its sum."""
    readers = network.read_by(node)
    served = {(label.region, label.block) for reader in readers if (label := found.get(reader.index)) is not None}
    if len(served) != 1 or not all(reader.index in found for reader in readers):
        return None
    ((region, block),) = served
    if node.index not in network.constant_nodes:
        own = [branch for branch in branches if branch.block == block and (ATTENTION if branch.core else MLP) == region]
        if any(network.comes_from(branch.norm, node) for branch in own) or not own:
            return None
    return Label(region, _own_part(node) or "residual", block)


def _gap_of(branches: list[Branch], network: Network, node: Node) -> int:
    """How many branches a node lies behind; weights lie where they are read, and what serves no later branch lies behind all of them.

    The head of a segmenter reads several blocks: what it makes of an early one is no part of the stream between the blocks.
    """
    while node.index in network.constant_nodes and (readers := network.read_by(node)):
        node = readers[0]
    gap = max((number for number, branch in enumerate(branches, 1) if network.comes_from(node, branch.add)), default=0)
    served = gap == 0 or any(network.comes_from(branch.add, node) for branch in branches[gap:])
    return gap if served else len(branches)


def _merging_gaps(network: Network, branches: list[Branch], found: dict[int, Label]) -> set[int]:
    """Gaps between two branches in which tokens are chosen or multiplied, as merging them does."""
    gaps = set()
    for node in network.nodes:
        if node.index not in found and (node.op in CHOOSING or node.op in PRODUCTS):
            gaps.add(_gap_of(branches, network, node))
    return gaps - {0, len(branches)}


def _outside(network: Network, branches: list[Branch], node: Node, merging: set[int]) -> Label:
    gap = _gap_of(branches, network, node)
    part = _own_part(node)
    if gap == 0:
        return Label(PATCHES, part or ("projection" if _projects(network, node) else "tokens"))
    if gap == len(branches):
        if part == "norm" and _behind_products(network, branches, node):
            part = "layer norm"  # of a head with several layers, and not the final norm of the blocks
        return Label(HEAD, part or ("classifier" if _projects(network, node) else "pooling"))
    block = branches[gap - 1].block
    return Label(MERGING, part or "merging", block) if gap in merging else Label("", part or "between", block)


def _behind_products(network: Network, branches: list[Branch], node: Node) -> bool:
    """Whether there is a product between the blocks and a node."""
    inside = {one.index for branch in branches for one in nodes_of(network, branch.bits)}
    above = nodes_of(network, network.ancestors[node.index])
    return any(
        one.op in PRODUCTS and one.index not in inside and any(network.comes_from(one, branch.add) for branch in branches) for one in above
    )


def _projects(network: Network, node: Node) -> bool:
    """Whether a node is a product with weights, or adds its bias."""
    if node.op in PRODUCTS:
        return True
    made_by = _product_above(network, node) if node.op == "Add" and network.has_weight(node) else None
    return made_by is not None
