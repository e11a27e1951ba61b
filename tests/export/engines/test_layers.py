"""What an engine's layers are read from, and when a product counts as fallen back."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from g2sd_export.tensorrt_layers import Operand, asked_precisions, layers_from_json, layers_from_log, precision_of, report_layers


def tensor_text(kind: str, *dims: int) -> str:
    shape = ",".join(map(str, dims))
    linear = f"Strides: [1], StrideOrder: [0], Datatype: {kind}, Format: (Linear) Row major linear format"
    return f"{{ Name: x_myl0, Dimensions: [{shape}], {linear} }}"


def line(kind: str, weight: str) -> str:
    inputs, constants, output = tensor_text(kind, -1, 32), tensor_text(weight, 32, 96), tensor_text("Float", -1, 96)
    bias = tensor_text("Float", 1)
    return (
        f"Name: product_myl0_4, LayerType: gemm, Inputs: [ {inputs}], Constants: [ {constants}, {bias}], Outputs: [ {output}], "
        "TacticName: __cask, StreamId: 0, Metadata: [ONNX Layer: product][ONNX Layer: product_DQ]"
    )


NOTHING = "Name: shapes, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, Metadata: "


def json_of(version: int, kind: str, weight: str | None) -> str:
    """The inspector's JSON of TensorRT 10, where type and format are one text, or of 11, where they are two."""

    def tensor(told: str, *dims: int) -> dict[str, Any]:
        kinds = {"Int8": "Int8", "Half": "Row major linear FP16 format", "Float": "Row major linear FP32"}
        types = {"Format/Datatype": kinds[told]} if version == 10 else {"Datatype": told, "Format": "(Linear) Row major linear format"}
        return {"Name": "x", "Dimensions": list(dims), **types}

    layer = {
        "Name": "product_myl0_4",
        "LayerType": "gemm",
        "Inputs": [tensor(kind, -1, 32)],
        "Outputs": [tensor("Float", -1, 96)],
        "TacticName": "__cask",
        "StreamId": 0,
        "Metadata": "[ONNX Layer: product]\u001e[ONNX Layer: product_DQ]",
    }
    if weight is not None:
        layer["Constants"] = [tensor(weight, 32, 96), tensor("Float", 1)]
    return json.dumps({"Layers": [layer], "Bindings" if version == 10 else "I/O Tensors": []})


def test_the_log_and_both_inspectors_tell_the_same() -> None:
    (logged,) = layers_from_log(f"Layers:\n{line('Int8', 'Int8')}\n\nI/O Tensors:\n Name: images")
    (old,), (new,) = (layers_from_json(json_of(version, "Int8", "Int8")) for version in (10, 11))
    assert logged == old == new
    assert logged.inputs == (Operand("int8", (-1, 32)),)
    assert logged.constants == (Operand("int8", (32, 96)), Operand("fp32", (1,)))
    assert (logged.nodes, logged.kind, logged.tactic) == (("product", "product_DQ"), "gemm", "__cask")
    assert json.loads(json.dumps(logged.to_dict()))["inputs"] == [["int8", [-1, 32]]]


def test_layers_without_tensors_and_engines_without_details_are_read() -> None:
    (layer,) = layers_from_log(NOTHING)
    assert (layer.inputs, layer.constants, layer.nodes) == ((), (), ())
    assert layers_from_json(json.dumps({"Layers": ["only a name"], "Bindings": []})) == ()
    assert layers_from_log("") == ()


@pytest.mark.parametrize(
    ("told", "precision"),
    [
        ("Half", "fp16"),
        ("HALF", "fp16"),
        ("Row major linear FP16 format", "fp16"),
        ("Float", "fp32"),
        ("FLOAT", "fp32"),
        ("Row major linear FP32", "fp32"),
        ("Four wide channel vectorized row major Int8 format", "int8"),
        ("INT8", "int8"),
        ("UINT8", "uint8"),
        ("BFloat16", "bf16"),
        ("BF16", "bf16"),
        ("FP8", "fp8"),
        ("Int64", "int64"),
        ("N/A due to dynamic shapes", "N/A due to dynamic shapes"),
    ],
)
def test_a_precision_has_one_name_however_tensorrt_writes_it(told: str, precision: str) -> None:
    assert precision_of(told) == precision


@pytest.mark.parametrize(
    ("kind", "weight", "fell_back"), [("Int8", "Int8", []), ("Half", "Int8", ["fp16", "int8"]), ("Half", "Half", ["fp16"])]
)
def test_a_product_that_reads_less_than_two_matrices_of_its_precision_fell_back(kind: str, weight: str, fell_back: list[str]) -> None:
    report = report_layers({"product": "int8"}, layers_from_log(line(kind, weight)), "build log")
    assert [list(one.ran) for one in report.fell_back] == ([fell_back] if fell_back else [])
    assert report.ran == ({} if fell_back else {"int8": 1})
    assert report.summary()["asked"] == {"int8": 1}


def test_one_matrix_is_enough_where_the_weights_are_not_told_of() -> None:
    asked = {"product": "int8"}
    assert report_layers(asked, layers_from_json(json_of(10, "Int8", None)), "inspector").fell_back == ()
    (fell_back,) = report_layers(asked, layers_from_json(json_of(10, "Half", None)), "inspector").fell_back
    assert str(fell_back) == "product (int8 asked, fp16 read)"


def test_a_product_that_no_layer_names_is_neither_run_nor_fallen_back() -> None:
    report = report_layers({"other": "fp16"}, layers_from_log(line("Int8", "Int8")), "build log")
    assert (report.unseen, report.fell_back, report.ran) == (("other",), (), {})
    assert report_layers({"other": "fp16"}, (), "none").to_dict()["unseen"] == ["other"]


def test_what_is_asked_is_followed_through_what_only_moves_a_tensor() -> None:
    tensors = {name: SimpleNamespace(name=name, dtype=SimpleNamespace(name="HALF")) for name in ("dense", "turned", "images", "logits")}
    tensors |= {name: SimpleNamespace(name=name, dtype=SimpleNamespace(name="HALF")) for name in ("soft", "end")}
    tensors["stored"] = SimpleNamespace(name="stored", dtype=SimpleNamespace(name="INT8"))

    def layer(kind: str, reads: list[str], makes: str, metadata: str = "") -> Any:
        return SimpleNamespace(
            type=SimpleNamespace(name=kind),
            name=f"layer {makes}",
            metadata=metadata,
            num_inputs=len(reads),
            num_outputs=1,
            get_input=lambda index: tensors[reads[index]],
            get_output=lambda index: tensors[makes],
        )

    layers = [
        layer("DEQUANTIZE", ["stored"], "dense"),
        layer("SHUFFLE", ["dense"], "turned"),
        layer("MATRIX_MULTIPLY", ["images", "turned"], "logits", "[ONNX Layer: head]"),
        layer("SOFTMAX", ["turned"], "soft"),
        layer("MATRIX_MULTIPLY", ["soft", "images"], "end"),
    ]
    network = SimpleNamespace(num_layers=len(layers), get_layer=lambda index: layers[index])
    assert asked_precisions(network) == {"head": "int8", "layer end": "fp16"}
