"""Blocks are found by the structure of the graph: exported students in every format, foreign transformers, and graphs that are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from g2sd_deploy.profiling.layers.graph import Network
from g2sd_deploy.profiling.layers.labels import Label, label_nodes
from g2sd_deploy.profiling.layers.operators import PRODUCTS
from g2sd_export.onnx_file import export_onnx

BLOCK_PRODUCTS = {"qkv": 1, "scores": 1, "values": 1, "projection": 1, "fc1": 1, "fc2": 1}


def labelled(model: onnx.ModelProto) -> tuple[str, list[tuple[str, Label]]]:
    """How much was understood, and each node's operator with its label."""
    network = Network(model.graph)
    folding, labels = label_nodes(network)
    return folding, [(node.op, label) for node, label in zip(network.nodes, labels, strict=True)]


def products_in(found: list[tuple[str, Label]], block: int | None) -> Counter[str]:
    return Counter(label.part for op, label in found if op in PRODUCTS and label.block == block)


@pytest.mark.parametrize("file", ["float", "pixels", "int8"])
def test_every_product_and_norm_of_an_exported_student_is_in_its_part(file: str, student: Any) -> None:
    folding, found = labelled(student.onnx(file))
    assert folding == "blocks"
    assert [products_in(found, block) for block in (0, 1)] == [BLOCK_PRODUCTS, BLOCK_PRODUCTS]
    assert products_in(found, None) == {"projection": 1, "classifier": 1}
    norms = Counter((label.group, label.block) for op, label in found if op == "LayerNormalization")
    assert norms == {("norm", 0): 2, ("norm", 1): 2, ("final norm", None): 1}
    assert Counter(label.part for op, label in found if op in ("Gelu", "Softmax")) == {"activation": 2, "softmax": 2}
    assert not [op for op, label in found if label.group == "other"]


def test_what_quantises_is_a_group_of_its_own(student: Any) -> None:
    _, found = labelled(student.onnx("int8"))
    quantisers = [(op, label) for op, label in found if op.endswith("Linear")]
    assert {label.group for _, label in quantisers} == {"quantise"}
    assert {label.region for _, label in quantisers} == {"patch projection", "attention", "mlp", "head"}
    weights = Counter(label.block for op, label in quantisers if op == "DequantizeLinear")
    assert weights == {None: 4, 0: 8, 1: 8}  # one of the weights and one of the activations for each product with weights


def test_the_last_block_of_a_student_that_reads_two_tokens_has_queries_of_its_own(make_student: Callable[..., Any]) -> None:
    folding, found = labelled(make_student("cls", "g2sd").onnx("float"))
    assert folding == "blocks"
    assert products_in(found, 0) == BLOCK_PRODUCTS
    assert products_in(found, 1) == {**BLOCK_PRODUCTS, "qkv": 2}  # of the tokens that are read, and of all tokens
    assert {label.block for _, label in found if label.region in ("attention", "mlp")} == {0, 1}
    assert not [op for op, label in found if label.group == "other"]


def test_names_do_not_matter(student: Any) -> None:
    model = student.onnx("int8")
    known = labelled(model)
    taken = {item.name for item in (*model.graph.input, *model.graph.output)}
    names = {name: f"t{number}" for number, name in enumerate(sorted({name for node in model.graph.node for name in node.output} - taken))}
    for number, node in enumerate(model.graph.node):
        node.name = f"n{number}"
        for field in (node.input, node.output):
            for at, name in enumerate(field):
                field[at] = names.get(name, name)
    assert labelled(model) == known


class Merging(nn.Module):
    """Keeps the tokens with the largest sums between attention and MLP."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 8, 8)
        self.blocks = nn.ModuleList(Block(dim, 4, qk_norm=True, init_values=0.1) for _ in range(2))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 6)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch(images).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = x + block.ls1(block.attn(block.norm1(x)))
            kept = x.sum(2).topk(x.shape[1] // 2, dim=1).indices
            x = torch.gather(x, 1, kept.unsqueeze(2).expand(-1, -1, x.shape[2]))
            x = x + block.ls2(block.mlp(block.norm2(x)))
        logits: Tensor = self.head(self.norm(x.mean(1)))
        return logits


class SideBySide(nn.Module):
    """Attention and MLP of a block read the same tokens and are added one after the other."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.patch, self.block, self.head = nn.Conv2d(3, dim, 8, 8), Block(dim, 4), nn.Linear(dim, 6)
        nn.init.uniform_(self.block.norm2.weight)  # equal norms would become one

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch(images).flatten(2).transpose(1, 2)
        block = self.block
        logits: Tensor = self.head((x + block.attn(block.norm1(x)) + block.mlp(block.norm2(x))).mean(1))
        return logits


class PostNorm(nn.Module):
    """Norms behind the sums, as in the first transformers: no norm begins a branch."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 8, 8)
        self.qkv, self.norm, self.head = nn.Linear(dim, 3 * dim), nn.LayerNorm(dim), nn.Linear(dim, 6)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch(images).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        x = self.norm(x + (q @ k.transpose(1, 2)).softmax(-1) @ v)
        logits: Tensor = self.head(x.mean(1))
        return logits


def exported(model: nn.Module, path: Path) -> onnx.ModelProto:
    return onnx.load(export_onnx(model.eval(), image_px=32, num_channels=3, path=path).path)


def test_tokens_that_are_chosen_between_attention_and_mlp_are_a_group(tmp_path: Path) -> None:
    folding, found = labelled(exported(Merging(), tmp_path / "merging.onnx"))
    assert folding == "blocks"
    assert [products_in(found, block) for block in (0, 1)] == [BLOCK_PRODUCTS, BLOCK_PRODUCTS]
    chosen = {(label.group, label.block) for op, label in found if op in ("TopK", "GatherElements")}
    assert chosen == {("token merging", 0), ("token merging", 1)}
    norms = Counter((label.group, label.block) for op, label in found if op == "LayerNormalization")
    assert norms == {("norm", 0): 4, ("norm", 1): 4, ("final norm", None): 1}  # those of queries and keys begin no branch


def test_attention_and_mlp_side_by_side_are_told_apart(tmp_path: Path) -> None:
    folding, found = labelled(exported(SideBySide(), tmp_path / "parallel.onnx"))
    assert folding == "blocks"
    assert products_in(found, 0) == BLOCK_PRODUCTS


def test_of_a_transformer_with_norms_behind_its_sums_the_attention_alone_is_known(tmp_path: Path) -> None:
    folding, found = labelled(exported(PostNorm(), tmp_path / "post.onnx"))
    assert folding == "attention"
    assert {label.part for _, label in found if label.region == "attention"} == {"scores", "softmax", "values"}
    assert {label.region for op, label in found if op == "Conv"} == {"convolution"}


def test_a_graph_without_attention_is_told_by_kinds_of_operators(foreign_cnn: onnx.ModelProto) -> None:
    folding, found = labelled(foreign_cnn)
    assert folding == "operators"
    assert [label.group for _, label in found] == ["convolution", "activation", "pooling", "data movement", "matrix product", "activation"]


def test_one_operator_that_does_all_of_attention_is_a_core() -> None:
    """As graphs of opset 23 and graphs that ONNX Runtime fused have it."""
    tokens = [1, 4, 8]
    weights = [helper.make_tensor(name, TensorProto.FLOAT, [8, 8], [0.1] * 64) for name in ("wq", "wk", "wv", "wo", "w1", "w2")]
    scale = helper.make_tensor("scale", TensorProto.FLOAT, [8], [1.0] * 8)
    nodes = [
        helper.make_node("LayerNormalization", ["x", "scale"], ["n"], "norm1"),
        *(helper.make_node("MatMul", ["n", f"w{one}"], [one], f"{one}_proj") for one in "qkv"),
        helper.make_node("Attention", ["q", "k", "v"], ["a"], "attend", q_num_heads=2, kv_num_heads=2),
        helper.make_node("MatMul", ["a", "wo"], ["o"], "out"),
        helper.make_node("Add", ["x", "o"], ["x1"], "sum1"),
        helper.make_node("LayerNormalization", ["x1", "scale"], ["n1"], "norm2"),
        helper.make_node("MatMul", ["n1", "w1"], ["h"], "up"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "w2"], ["m"], "down"),
        helper.make_node("Add", ["x1", "m"], ["y"], "sum2"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, tokens)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, tokens)]
    graph = helper.make_graph(nodes, "one", inputs, outputs, [*weights, scale])
    folding, found = labelled(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)]))
    assert folding == "blocks"
    parts = [label.part for _, label in found]
    attention, mlp = ["norm", "qkv", "qkv", "qkv", "fused attention", "projection", "residual"], ["norm", "fc1", "activation", "fc2"]
    assert parts == [*attention, *mlp, "residual"]
