"""Engines, really built for three GPU architectures on a machine that has none, and what is refused on the way."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import g2sd_export
from g2sd_export import tensorrt_build, tensorrt_package
from g2sd_export.edge.errors import UserError
from g2sd_export.edge.preprocess import Preprocessing
from g2sd_export.tensorrt_build import build_engine
from g2sd_export.tensorrt_package import Gpu, UnavailableError
from g2sd_export.tensorrt_settings import BatchRange, EngineSettings

Settings = Callable[..., EngineSettings]


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU, whatever this one has."""
    for module in (tensorrt_build, tensorrt_package):
        monkeypatch.setattr(module, "find_gpu", lambda: None)


@pytest.mark.parametrize("architecture", ["SM86", "SM89", "SM120"])
@pytest.mark.parametrize(("precision", "products"), [("fp32", {"fp32": 15}), ("fp16", {"fp16": 15}), ("int8", {"fp16": 5, "int8": 10})])
def test_students_build_without_a_gpu_and_compute_as_their_graph_asks(
    precision: str, products: dict[str, int], architecture: str, graphs: dict[str, Path], rtx: Settings, tmp_path: Path, no_gpu: None
) -> None:
    info = build_engine(graphs[precision], rtx(architecture), path=tmp_path / "tiny.engine")
    content = (tmp_path / "tiny.engine").read_bytes()
    assert (info.sha256, info.bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert info.source_sha256 == hashlib.sha256(graphs[precision].read_bytes()).hexdigest()
    assert (info.precision, info.compute_capabilities, info.gpu) == (precision, (architecture,), "")
    assert info.layers.source == "build log"
    assert info.layers.summary()["asked"] == info.layers.ran == products
    assert info.layers.fell_back == info.layers.unseen == ()


def test_an_int8_engine_holds_int8_weights(graphs: dict[str, Path], rtx: Settings, tmp_path: Path, no_gpu: None) -> None:
    size = {name: build_engine(graphs[name], rtx(), path=tmp_path / "one").weights_bytes or 0 for name in ("fp32", "fp16", "int8")}
    parameters = {name: sum(numpy_helper.to_array(item).size for item in onnx.load(graphs[name]).graph.initializer) for name in size}
    assert size["fp32"] == pytest.approx(4 * parameters["fp32"], rel=0.05)
    assert size["fp16"] == pytest.approx(size["fp32"] / 2, rel=0.1)
    assert size["int8"] < 0.75 * size["fp16"]  # position embeddings and the patch projection, a third of this tiny model, stay FP16


def test_one_engine_may_be_for_several_architectures(graphs: dict[str, Path], rtx: Settings, tmp_path: Path) -> None:
    settings = rtx(compute_capabilities=("8.6", "sm_120"))
    assert build_engine(graphs["fp16"], settings, path=tmp_path / "one").facts()["compute_capability"] == "SM86, SM120"


def test_an_engine_built_ahead_of_time_has_the_same_bytes_again(graphs: dict[str, Path], rtx: Settings, tmp_path: Path) -> None:
    one, two = (build_engine(graphs["int8"], rtx(), path=tmp_path / name) for name in ("one", "two"))
    assert one.sha256 == two.sha256
    assert one.facts() == two.facts()
    assert str(tmp_path) not in json.dumps(one.facts())


def test_fp8_builds_where_the_gpu_has_it_and_is_refused_where_not(graphs: dict[str, Path], rtx: Settings, tmp_path: Path) -> None:
    assert build_engine(graphs["fp8"], rtx("SM89"), path=tmp_path / "one").layers.ran == {"fp16": 5, "fp8": 10}
    with pytest.raises(UserError, match=r"fp8\.onnx: tensorrt_rtx .* cannot build the engine: .*sm86.*fp8"):
        build_engine(graphs["fp8"], rtx("SM86"), path=tmp_path / "two")
    assert not (tmp_path / "two").exists()


def test_weights_that_are_int8_alone_are_named_as_fallen_back(graphs: dict[str, Path], rtx: Settings, tmp_path: Path, no_gpu: None) -> None:
    layers = build_engine(graphs["weights"], rtx(), path=tmp_path / "one").layers
    weighted = [node.name for node in onnx.load(graphs["weights"]).graph.node if any("dense" in name for name in node.input)]
    assert [one.node for one in layers.fell_back] == weighted
    assert {one.asked for one in layers.fell_back} == {"int8"}
    assert all("fp16" in one.ran for one in layers.fell_back)
    assert layers.ran == {"fp16": 5}


def test_images_of_bytes_are_taken_if_they_are_cast_first(graphs: dict[str, Path], rtx: Settings, tmp_path: Path) -> None:
    steps = {
        "cast": helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        "transpose": helper.make_node("Transpose", ["floats"], ["pixels"], perm=[0, 3, 1, 2]),
    }
    path = changed(graphs["fp32"], tmp_path, lambda graph: with_bytes(graph, list(steps.values())))
    assert build_engine(path, rtx(), path=tmp_path / "one").layers.ran == {"fp32": 15}
    swapped = [
        helper.make_node("Transpose", ["images"], ["bytes"], perm=[0, 3, 1, 2], name="turn"),
        helper.make_node("Cast", ["bytes"], ["pixels"], to=TensorProto.FLOAT),
    ]
    path = changed(graphs["fp32"], tmp_path, lambda graph: with_bytes(graph, swapped))
    with pytest.raises(UserError, match=r"refuses node 'turn' \(Transpose\): .*UInt8"):
        build_engine(path, rtx(), path=tmp_path / "two")


def changed(source: Path, folder: Path, change: Callable[[Any], Any]) -> Path:
    model = onnx.load(source)
    change(model.graph)
    onnx.save(model, folder / "changed.onnx")
    return folder / "changed.onnx"


def with_bytes(graph: Any, steps: list[Any]) -> None:
    graph.input[0].CopyFrom(helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 28, 28, 1]))
    for node in graph.node:
        node.input[:] = ["pixels" if name == "images" else name for name in node.input]
    nodes = [*steps, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _unknown_operator(graph: Any) -> None:
    next(node for node in graph.node if node.op_type == "Softmax").op_type = "Softmaximum"


def _missing_weight(graph: Any) -> None:
    next(node for node in graph.node if node.op_type == "MatMul").input[1] = "absent"


def _wrong_shape(graph: Any) -> None:
    item = next(item for item in graph.initializer if item.name == "position")
    item.CopyFrom(numpy_helper.from_array(np.zeros((1, 5, 32), np.float32), "position"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_unknown_operator, r"refuses node 'node_Softmax_\d+' \(Softmaximum\): .*Plugin not found"),
        (_missing_weight, r"refuses node 'node_MatMul_\d+' \(MatMul\): .*Node input was not registered"),
        (_wrong_shape, r"refuses node 'node_add' \(Add\): .*broadcast dimensions must be conformable"),
    ],
)
def test_a_broken_graph_is_refused_with_its_node_and_the_parsers_reason(
    change: Callable[[Any], Any], message: str, graphs: dict[str, Path], rtx: Settings, tmp_path: Path
) -> None:
    path = changed(graphs["fp32"], tmp_path, change)
    with pytest.raises(UserError, match=rf"changed\.onnx: tensorrt_rtx [\d.]+ {message}") as caught:
        build_engine(path, rtx(), path=tmp_path / "one")
    assert "CUDA driver" not in str(caught.value)  # what a missing GPU adds to every error is no reason
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "one").exists()


def test_zero_points_are_refused_with_their_node(graphs: dict[str, Path], rtx: Settings, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"refuses node 'node_MatMul_\d+_Q' \(QuantizeLinear\): .*Non-zero zero point is not supported"):
        build_engine(graphs["asymmetric"], rtx(), path=tmp_path / "one")


@pytest.mark.parametrize("kept", [0, 100, 50_000])
def test_a_file_that_is_cut_short_is_refused(kept: int, graphs: dict[str, Path], rtx: Settings, tmp_path: Path) -> None:
    (tmp_path / "short.onnx").write_bytes(graphs["fp32"].read_bytes()[:kept])
    with pytest.raises(UserError, match=r"short\.onnx: (tensorrt_rtx .* refuses the file|holds no model with one input)"):
        build_engine(tmp_path / "short.onnx", rtx(), path=tmp_path / "one")


def test_a_fixed_batch_takes_no_other(graphs: dict[str, Path], rtx: Settings, tmp_path: Path) -> None:
    def fix(graph: Any) -> None:
        graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2

    path = changed(graphs["fp32"], tmp_path, fix)
    with pytest.raises(UserError, match="its batch is fixed at 2; ask for batches of 2 alone"):
        build_engine(path, rtx(), path=tmp_path / "one")
    assert build_engine(path, rtx(batches=(BatchRange(2, 2, 2),)), path=tmp_path / "one").bytes > 0


def test_too_little_workspace_is_told(graphs: dict[str, Path], rtx: Settings, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"fp16\.onnx: tensorrt_rtx .* cannot build the engine: .*workspace"):
        build_engine(graphs["fp16"], rtx(workspace_mib=1), path=tmp_path / "one")


def test_a_machine_that_cannot_build_is_told_apart_from_a_file_that_cannot_be_built(
    graphs: dict[str, Path], rtx: Settings, tmp_path: Path, no_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnavailableError, match=r"does not build for SM90; it offers .*SM86"):
        build_engine(graphs["fp32"], rtx("SM90"), path=tmp_path / "one")
    with pytest.raises(UnavailableError, match="refittable engine only where there is a GPU"):
        build_engine(graphs["fp32"], rtx(refittable=True), path=tmp_path / "one")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(UnavailableError, match=r"tensorrt cannot be imported .*pip install tensorrt"):
        build_engine(graphs["fp32"], EngineSettings("tensorrt"), path=tmp_path / "one")
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace())
    with pytest.raises(UnavailableError, match="only where there is an NVIDIA GPU"):
        build_engine(graphs["fp32"], EngineSettings("tensorrt"), path=tmp_path / "one")
    monkeypatch.setattr(tensorrt_package, "find_gpu", lambda: Gpu("Orin", "SM87"))
    with pytest.raises(UnavailableError, match=r"the GPU that is there \(Orin, SM87\), not for SM86"):
        build_engine(graphs["fp32"], EngineSettings("tensorrt", compute_capabilities=("8.6",)), path=tmp_path / "one")


def test_what_cannot_be_read_or_written_is_told(graphs: dict[str, Path], rtx: Settings, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.onnx: cannot be read \(No such file or directory\); wanted an ONNX file"):
        build_engine(tmp_path / "absent.onnx", rtx(), path=tmp_path / "one")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        build_engine(graphs["fp32"], rtx(), path=tmp_path / "file" / "one")


FOLDER = Path(str(g2sd_export.__file__)).parent
ON_THE_DEVICE = sorted([*FOLDER.glob("tensorrt_*.py"), FOLDER / "__main__.py"])


@pytest.mark.parametrize("path", ON_THE_DEVICE, ids=lambda path: path.name)
def test_the_builder_is_written_for_the_python_of_jetpack_6(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))


def test_building_imports_neither_torch_nor_onnx_nor_anything_else_that_a_device_lacks(
    graphs: dict[str, Path], rtx: Settings, tmp_path: Path
) -> None:
    rtx()
    code = f"""
import sys, json
from g2sd_export.__main__ import main
assert main(["build", {str(graphs["fp16"])!r}, "--runtime", "tensorrt_rtx", "--compute-capability", "8.6", "--batch", "1", "1", "2",
             "--out", {str(tmp_path / "one")!r}, "--json"]) == 0
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    told, loaded = (json.loads(line) for line in done.stdout.splitlines())
    assert told["layers"]["ran"] == {"fp16": 15}
    absent = {"torch", "onnx", "onnxruntime", "pydantic", "jaxtyping", "ruamel", "scipy", "numpy", "PIL", "g2sd_deploy"}
    assert not absent & set(loaded)


@pytest.mark.gpu
@pytest.mark.parametrize("package", ["tensorrt", "tensorrt_rtx"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_answers_as_its_graph_does_on_the_cpu(
    precision: str,
    package: Any,
    graphs: dict[str, Path],
    tmp_path: Path,
    images: npt.NDArray[np.uint8],
    preprocessing: Preprocessing,
    gpu: None,
) -> None:
    from g2sd_export.edge.onnx_runner import OnnxRunner
    from g2sd_export.edge.tensorrt_runner import Engine

    pytest.importorskip(package, reason=f"{package} is not installed")
    cache = tmp_path / "timings" if package == "tensorrt" else None
    settings = EngineSettings(package, (BatchRange(1, 1, 8),), timing_cache=cache)
    info = build_engine(graphs[precision], settings, path=tmp_path / "tiny.engine")
    assert info.layers.source == "inspector"
    assert info.layers.fell_back == ()
    assert cache is None or cache.stat().st_size > 0
    got = Engine(info.path).runner(preprocessing).infer(images)
    wanted = OnnxRunner(graphs[precision], preprocessing, threads=1).infer(images)
    np.testing.assert_allclose(got, wanted, atol={"fp32": 1e-4, "fp16": 2e-2, "int8": 0.1}[precision])
