"""From the layers that a runtime tells of to parts of the network, with runtimes that fuse and insert as the real ones do."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import TensorProto, helper

from g2sd_deploy.profiling.layers.executed import Attribution, ExecutedLayer, attribute
from g2sd_deploy.profiling.layers.graph import Network
from g2sd_deploy.profiling.layers.labels import Label, label_nodes


def network(*, quantised: bool = False) -> Network:
    """One block: x, norm, qkv, attention in one, projection, sum, norm, fc1, relu, fc2, sum."""
    stored = [helper.make_tensor(f"w{number}", TensorProto.FLOAT, [8, 8], [0.1] * 64) for number in range(6)]
    stored += [helper.make_tensor("s", TensorProto.FLOAT, [8], [1.0] * 8), helper.make_tensor("scale", TensorProto.FLOAT, [], [0.1])]
    nodes = [
        helper.make_node("LayerNormalization", ["x", "s"], ["n"], "norm1"),
        helper.make_node("MatMul", ["n", "w0"], ["q"], "queries"),
        helper.make_node("MatMul", ["n", "w1"], ["k"], "keys"),
        helper.make_node("Attention", ["q", "k", "k"], ["a"], "attend", q_num_heads=2, kv_num_heads=2),
        helper.make_node("MatMul", ["a", "w2"], ["o"], "out"),
        helper.make_node("Add", ["x", "o"], ["x1"], "sum1"),
        helper.make_node("LayerNormalization", ["x1", "s"], ["n1"], "norm2"),
        helper.make_node("MatMul", ["n1", "w3"], ["h"], "up"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        *(
            [
                helper.make_node("QuantizeLinear", ["r", "scale"], ["rq"], "quantise"),
                helper.make_node("DequantizeLinear", ["rq", "scale"], ["rd"], "dequantise"),
            ]
            if quantised
            else []
        ),
        helper.make_node("MatMul", ["rd" if quantised else "r", "w4"], ["m"], "down"),
        helper.make_node("Add", ["x1", "m"], ["y"], "sum2"),
    ]
    shape = [1, 4, 8]
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name in ("x", "y"))
    return Network(helper.make_graph(nodes, "one", inputs, outputs, stored))


def layer(name: str, *nodes: str, op: str = "MatMul", ms: float = 1.0, makes: tuple[str, ...] = (), feeds: tuple[str, ...] = ()) -> Any:
    return ExecutedLayer(name, op, "fp32", ms, 0.1, nodes, makes, feeds)


def attributed(graph: Network, *layers: ExecutedLayer) -> Attribution:
    folding, labels = label_nodes(graph)
    flops: list[float | None] = [100.0 if node.op == "MatMul" else 0.0 for node in graph.nodes]
    return attribute(graph, folding, labels, flops, layers)


def test_a_layer_that_names_the_last_of_its_nodes_has_the_product_before_it() -> None:
    found = attributed(network(), layer("fc1 and relu", "relu"), layer("fc2 and sum", "sum2", op="Gemm"))
    assert found.nodes[0][-2:] == ("up", "relu") and found.nodes[1] == ("down", "sum2")
    assert found.labels == [Label("mlp", "fc1", 0), Label("mlp", "fc2", 0)]


def test_every_product_is_counted_once_however_layers_are_named() -> None:
    found = attributed(network(), layer("a", "norm1"), layer("b", "attend", "queries"), layer("c", "queries", ms=2.0), layer("d", "sum2"))
    assert sum(flops for flops in found.flops if flops) == 500
    assert "queries" in found.nodes[2] and "queries" not in found.nodes[1]  # the slower of the two that name it


def test_a_quantisation_that_was_fused_lies_with_what_makes_its_input() -> None:
    found = attributed(network(quantised=True), layer("fc1", "up"), layer("relu", "relu", op="Relu"), layer("fc2", "down"))
    assert found.nodes[1] == ("relu", "quantise")
    assert found.nodes[2][:2] == ("dequantise", "down")


def test_a_layer_that_was_inserted_belongs_to_what_reads_it() -> None:
    layers = [
        layer("MVN_1", op="MVN", feeds=("scale and shift",)),
        layer("scale and shift", "norm2", op="Subgraph", feeds=("reorder",)),
        layer("reorder", op="Reorder", feeds=("fc1",)),
        layer("fc1", "up", feeds=("last",)),
        layer("last", op="Reorder"),
    ]
    found = attributed(network(), *layers, layer("attention", "sum1"))
    assert found.labels[0] == Label("mlp", "norm", 0) and found.labels[0].group == "norm"
    assert found.labels[2] == Label("mlp", "reshape", 0)
    assert found.labels[4] == Label("mlp", "reshape", 0)  # nothing reads it: it belongs to what it reads
    assert found.flops[2] == 0


@pytest.mark.parametrize("name", ["attend/MatMulScaleFusion/", "attend/WithoutBiases", "attend"])
def test_what_runtimes_put_behind_a_name_is_no_part_of_it(name: str) -> None:
    assert attributed(network(), layer("one", name)).labels == [Label("attention", "fused attention", 0)]


def test_a_layer_with_a_new_name_is_known_by_the_tensor_that_it_makes() -> None:
    found = attributed(network(), layer("BiasGelu_token_3", "BiasGelu_token_3", op="BiasGelu", makes=("r",)))
    assert found.labels == [Label("mlp", "fc1", 0)] and "up" in found.nodes[0]


def test_a_layer_that_only_moves_numbers_is_told_as_that_whatever_was_fused_into_it() -> None:
    found = attributed(
        network(quantised=True), layer("moved", "quantise", op="Transpose"), layer("alone", "dequantise", op="QuantizeLinear")
    )
    assert found.labels == [Label("mlp", "reshape", 0), Label("mlp", "quantise", 0)]
    assert [label.group for label in found.labels] == ["mlp", "quantise"]


def test_what_nobody_knows_is_other() -> None:
    found = attributed(network(), layer("mystery", op="Mystery"))
    assert found.labels[0].group == "other" and found.nodes == [()]
