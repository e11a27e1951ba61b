"""Layers of a TensorRT engine, with a stand-in that keeps TensorRT's rules.

Its profiler has to be made as TensorRT's own (its constructor called), hears of a layer only while it is attached, and in the order of
execution; its inspector tells shapes only of a context that has run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from g2sd_deploy.errors import UserError
from g2sd_deploy.profiling.layers import LayerSubject, Running, layer_tables
from g2sd_export.edge import tensorrt_runner
from g2sd_export.edge.image_input import read_image_input
from g2sd_export.edge.preprocess import Preprocessing
from g2sd_export.edge.tensorrt_runner import Engine, Profile, TensorRTRunner

PRE = Preprocessing(64, 64, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
# Kernels as TensorRT fuses a block: name, kind, ONNX nodes by their operators and places, ms, shapes of inputs, weights and output.
FP16 = "Half"


class Profiler:
    """Stands in for trt.IProfiler."""

    made = False

    def __init__(self) -> None:
        self.made = True


class Context:
    def __init__(self, kernels: list[tuple[str, float]]) -> None:
        self.kernels = kernels
        self._profiler: Profiler | None = None
        self.batch = 0

    @property
    def profiler(self) -> Profiler | None:
        return self._profiler

    @profiler.setter
    def profiler(self, value: Profiler | None) -> None:
        assert value is None or (isinstance(value, Profiler) and value.made), "IProfiler.__init__ was not called"
        self._profiler = value

    def set_input_shape(self, _: str, shape: tuple[int, ...]) -> bool:
        self.batch = shape[0]
        return True

    def set_tensor_address(self, _: str, address: int) -> bool:
        return address > 0

    def get_tensor_shape(self, _: str) -> tuple[int, ...]:
        return (self.batch, 6)

    def execute_async_v3(self, stream: int) -> bool:
        for name, ms in self.kernels:
            if self._profiler is not None:
                self._profiler.report_layer_time(name, ms)  # type: ignore[attr-defined]
        return stream == 7


class Inspector:
    execution_context: Context | None = None

    def __init__(self, layers: Callable[[int], list[dict[str, Any]]]) -> None:
        self._layers = layers

    def get_engine_information(self, form: str) -> str:
        assert form == "json"
        batch = self.execution_context.batch if self.execution_context else 0
        return json.dumps({"Layers": self._layers(batch or -1)})


class Memory:
    """Stands in for the GPU's: what is computed is nothing."""

    stream = 7

    def allocate(self, num_bytes: int) -> int:
        return 4096 + num_bytes

    def upload(self, address: int, values: npt.NDArray[Any]) -> None:
        assert address and values.size

    def download(self, values: npt.NDArray[Any], address: int) -> None:
        values[:] = 0

    def wait(self) -> None:
        pass


def tensor(*shape: int) -> dict[str, Any]:
    return {"Name": "t", "Dimensions": list(shape), "Datatype": FP16, "Format": "Linear"}


def kernels_of(student: Any) -> list[tuple[str, str, tuple[str, ...]]]:
    """Each product of the first block as a gemm with the norm before it, attention as one kernel, and the sum in a generated one."""
    from g2sd_deploy.profiling.layers.graph import Network
    from g2sd_deploy.profiling.layers.labels import label_nodes

    network = Network(student.onnx("float").graph)
    _, labels = label_nodes(network)
    block = [(node, label) for node, label in zip(network.nodes, labels, strict=True) if label.block == 0]
    names = {
        part: tuple(node.name for node, label in block if label.part == part) for part in ("qkv", "projection", "fc1", "activation", "fc2")
    }
    core = tuple(node.name for node, label in block if label.part in ("scores", "softmax", "values"))
    norms = [node.name for node, label in block if label.part == "norm"]
    return [
        ("norm_1", "kgen", (norms[0],)),
        ("qkv_gemm", "gemm", names["qkv"]),
        ("fmha", "fmha", core),
        ("proj_gemm", "gemm", names["projection"]),
        ("norm_2", "kgen", (norms[1],)),
        ("fc1_gelu", "gemm", (*names["fc1"], *names["activation"])),
        ("reformat", "Reformat", ()),
        ("fc2_gemm", "gemm", names["fc2"]),
    ]


@pytest.fixture
def runner(student: Any, monkeypatch: pytest.MonkeyPatch) -> TensorRTRunner:
    """An engine of the first block's kernels, each of which takes as many ms as its place."""
    kernels = kernels_of(student)
    context = Context([(name, float(place)) for place, (name, _, _) in enumerate(kernels, 1)])

    def told(batch: int) -> list[dict[str, Any]]:
        return [
            {
                "Name": name,
                "LayerType": kind,
                "Inputs": [tensor(batch, 65, 96)],
                "Constants": [tensor(96, 288)] if kind == "gemm" else [],
                "Outputs": [tensor(batch, 65, 288)],
                "TacticName": "",
                "Metadata": "\x1e".join(f"[ONNX Layer: {node}]" for node in nodes),
            }
            for name, kind, nodes in kernels
        ]

    image = read_image_input("images", (-1, 3, 64, 64), "NCHW", "float32")
    native = SimpleNamespace(create_execution_context=lambda: context, create_engine_inspector=lambda: Inspector(told))
    engine = Engine.__new__(Engine)
    engine.trt = SimpleNamespace(IProfiler=Profiler, LayerInformationFormat=SimpleNamespace(JSON="json"))
    engine.name, engine.version, engine.image, engine.engine = "tensorrt", "11.5", image, native
    engine.outputs, engine.output, engine.num_classes = ("logits",), "logits", 6
    engine.dtypes, engine.profiles = {"images": "float32", "logits": "float32"}, (Profile(0, 1, 8),)
    monkeypatch.setattr(tensorrt_runner, "open_memory", Memory)
    return TensorRTRunner(engine, PRE)


def table_of(runner: TensorRTRunner, student: Any, batch: int = 2) -> dict[str, Any]:
    def open_(batch: int, threads: int) -> Running:
        inputs = runner.prepare(np.zeros((batch, 64, 64, 3), np.uint8))
        return Running(lambda: runner.forward(inputs), {"images": inputs}, runner.version, runner)

    (table,) = layer_tables([LayerSubject("student", "", "tensorrt", "fp16", student.files["float"], open_)], batch=batch, seconds=0.01)
    return table


def test_kernels_are_told_with_their_times_formats_and_nodes(runner: TensorRTRunner, student: Any) -> None:
    table = table_of(runner, student)
    assert (table["verdict"], table["folding"], table["threads"]) == ("measured", "blocks", None)
    assert table["total_ms"] == pytest.approx(sum(range(1, 9)))
    found = {layer["name"]: layer for layer in table["layers"]}
    parts = [found[name]["part"] for name in ("norm_1", "qkv_gemm", "fmha", "proj_gemm", "fc1_gelu", "fc2_gemm")]
    assert parts == ["norm", "qkv", "fused attention", "projection", "fc1", "fc2"]
    assert {layer["precision"] for layer in found.values()} == {"fp16"}
    assert (found["reformat"]["group"], found["reformat"]["block"]) == ("mlp", 0)  # it names no node, and fc2 comes next
    assert found["qkv_gemm"]["mbyte"] == pytest.approx(1e-6 * 2 * (2 * 65 * 96 + 96 * 288 + 2 * 65 * 288))
    assert found["qkv_gemm"]["gflop"] == pytest.approx(1e-9 * 2 * 2 * 65 * 96 * 288)
    assert found["fc2_gemm"]["ms"] == pytest.approx(8 * found["norm_1"]["ms"], rel=1e-3, abs=4.5e-6)  # told to a nanosecond each


def test_the_timed_runner_is_not_watched_between_the_calls_of_the_profiler(runner: TensorRTRunner, student: Any) -> None:
    table = table_of(runner, student)
    assert runner._context.profiler is None
    assert table["num_calls"] >= 10  # and all other calls went unheard, or the times would hold more calls than were made
    heard: list[str] = []
    watch = type("Watch", (Profiler,), {"report_layer_time": lambda self, name, ms: heard.append(name)})()
    runner.watched_by(watch)
    runner.forward(runner.prepare(np.zeros((1, 64, 64, 3), np.uint8)))
    runner.watched_by(None)
    runner.forward(runner.prepare(np.zeros((1, 64, 64, 3), np.uint8)))
    assert heard == [name for name, _ in runner._context.kernels]


def test_peaks_of_a_gpu_are_not_guessed(runner: TensorRTRunner, student: Any) -> None:
    table = table_of(runner, student)
    assert table["roofline"] is None and "GPU" in table["roofline_reason"]
    assert {row["roofline_share"] for row in table["groups"]} == {None}


def test_an_engine_without_details_is_not_told(runner: TensorRTRunner, student: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TensorRTRunner, "inspected", lambda self: json.dumps({"Layers": ["fc1", "fc2"]}))  # names alone
    table = table_of(runner, student)
    assert table["verdict"] == "not_run" and "build it again" in table["reason"]


def test_a_machine_without_a_gpu_says_so(student: Any) -> None:
    def open_(batch: int, threads: int) -> Running:
        raise UserError("TensorRT needs an NVIDIA GPU, and this machine has none")

    (table,) = layer_tables([LayerSubject("student", "", "tensorrt", "fp16", student.files["float"], open_)])
    assert (table["verdict"], table["reason"]) == ("not_run", "TensorRT needs an NVIDIA GPU, and this machine has none")
