"""Layer tables of real students on the runtimes of this machine: nothing is lost, nothing is counted twice, nothing is claimed too much."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from rich.console import Console

from g2sd_deploy.profiling.layers import layer_tables, refused_subject, render_layers, subject_of_file, subjects_of_bundle
from g2sd_deploy.profiling.layers.roofline import Machine
from g2sd_export.bundle import BuiltVariant, Variant, open_bundle, write_bundle
from g2sd_export.edge.agreement import ParityTolerance
from g2sd_export.edge.errors import IntegrityError
from g2sd_export.edge.onnx_runner import OnnxRunner
from g2sd_export.edge.openvino_runner import shared_core
from g2sd_export.edge.preprocess import Preprocessing

Feeds = Callable[[str, int], dict[str, np.ndarray]]
CASES = [
    ("onnxruntime", None, "float", "fp32"),
    ("onnxruntime", None, "int8", "int8"),
    ("openvino", {"inference_precision": "f32"}, "float", "fp32"),
    ("openvino", {"inference_precision": "bf16"}, "pixels", "bf16"),
    ("openvino", {"inference_precision": "f32"}, "int8", "int8"),
    ("openvino", {"inference_precision": "bf16"}, "int8", "int8"),
]
PRE = Preprocessing(64, 64, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
WEIGHTED = ("projection", "qkv", "fc1", "fc2")


@pytest.fixture(scope="session")
def machine() -> Machine:
    """Peaks by products so small that they take no time."""
    return Machine(1, sizes=((64, 64, 64),), working_set_bytes=3 << 20)


def profiled(subject: Any, machine: Machine, batch: int = 1) -> dict[str, Any]:
    (table,) = layer_tables([subject], batch=batch, threads=1, seconds=0.2, machine=machine)
    json.dumps(table)  # plain values
    return table


@pytest.mark.parametrize(("runtime", "settings", "file", "precision"), CASES)
def test_a_student_is_folded_to_its_blocks_on_every_runtime_and_in_every_format(
    runtime: str,
    settings: Any,
    file: str,
    precision: str,
    student: Any,
    feeds: Feeds,
    product_flops: Callable[[int], float],
    machine: Machine,
) -> None:
    pytest.importorskip(runtime)
    if (
        settings
        and settings["inference_precision"] == "bf16"
        and "BF16" not in shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    ):
        pytest.skip("this processor does not compute in BF16")
    subject = subject_of_file("student", student.files[file], runtime, lambda batch: feeds(file, batch), settings=settings)
    table = profiled(subject, machine, batch=2)
    assert (table["verdict"], table["folding"], table["attributed_share"]) == ("measured", "blocks", 1.0)
    assert sum(layer["gflop"] for layer in table["layers"]) == pytest.approx(product_flops(2) / 1e9, abs=1e-5)
    groups = {row["group"]: row for row in table["groups"]}
    assert {"patch projection", "norm", "attention", "mlp", "head", "between layers"} <= set(groups) and "other" not in groups
    assert [row["block"] for row in table["blocks"]] == [0, 1]
    for row in table["blocks"]:
        parts_ms = sum(value for key, value in row.items() if key not in ("block", "ms"))
        assert row["ms"] > 0 and row["ms"] == pytest.approx(parts_ms, abs=1e-5)  # each is rounded
    formats = {layer["precision"] for layer in table["layers"] if layer["gflop"] and layer["part"] in WEIGHTED}
    assert formats == {precision}


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_times_add_up_to_one_call_and_never_to_more(runtime: str, student: Any, feeds: Feeds, machine: Machine) -> None:
    pytest.importorskip(runtime)
    table = profiled(subject_of_file("student", student.files["float"], runtime, lambda batch: feeds("float", batch)), machine)
    assert sum(row["share"] for row in table["groups"]) == pytest.approx(1, abs=1e-4)
    assert sum(row["ms"] for row in table["groups"]) == pytest.approx(table["unprofiled_ms"], abs=1e-4)
    layers_ms = sum(layer["ms"] for layer in table["layers"])
    assert layers_ms <= table["unprofiled_ms"] + 1e-4
    assert sum(sum(row["parts"].values()) for row in table["groups"]) == pytest.approx(layers_ms, abs=1e-4)
    assert table["overhead"] == pytest.approx(table["profiled_ms"] / table["unprofiled_ms"])


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_foreign_network_is_told_by_kinds_of_operators(
    runtime: str, foreign_cnn: onnx.ModelProto, machine: Machine, tmp_path: Path
) -> None:
    pytest.importorskip(runtime)
    path = tmp_path / "cnn.onnx"
    onnx.save(foreign_cnn, path)
    fed = {"images": np.zeros((1, 3, 32, 32), np.float32)}
    table = profiled(subject_of_file("cnn", path, runtime, lambda _: fed), machine)
    assert (table["folding"], table["attributed_share"], table["blocks"]) == ("operators", 0.0, [])
    groups = {row["group"]: row for row in table["groups"]}
    assert {"convolution", "matrix product", "pooling"} <= set(groups)
    assert groups["convolution"]["gflop"] == pytest.approx(2e-9 * 32 * 32 * 8 * 27)
    assert "no vision transformer was found" in shown(table)


def test_bytes_are_those_of_the_number_format(student: Any, feeds: Feeds, machine: Machine) -> None:
    """The first layer of an MLP: T x D in, D x 4 D weights, T x 4 D out; the bias is 4 D float32 numbers."""
    pytest.importorskip("openvino")
    found = {}
    for file in ("float", "int8"):
        subject = subject_of_file("student", student.files[file], "onnxruntime", lambda batch, file=file: feeds(file, batch))
        table = profiled(subject, machine)
        (found[file],) = [one["mbyte"] for one in table["layers"] if one["part"] == "fc1" and one["block"] == 0 and one["gflop"]]
    tokens, width = 65, 96
    assert found["float"] == pytest.approx(1e-6 * 4 * (tokens * width + 4 * width**2 + 4 * tokens * width), rel=0.01)
    assert found["int8"] == pytest.approx(1e-6 * (tokens * width + 4 * width**2 + 4 * (4 * tokens * width)), rel=0.03)


def variant(name: str, file: str, precision: str, runtime: str, settings: dict[str, Any], **changes: Any) -> Variant:
    fields: dict[str, Any] = {
        "name": name,
        "file": file,
        "precision": precision,
        "runtime": runtime,
        "settings": settings,
        "input": {"name": "images", "dtype": "uint8", "layout": "NHWC", "shape": ["batch", 64, 64, 3]},
        "output": {"name": "logits", "dtype": "float32", "shape": ["batch", 6]},
        "verdict": "passed",
        "reason": "",
        "hops": (),
        "tolerance": ParityTolerance(1e6, 1.0),  # INT8 of random weights decides otherwise
        "device_tolerance": ParityTolerance(),
    }
    return Variant(**(fields | changes))


@pytest.fixture(scope="session")
def bundle_folder(student: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a float and an INT8 variant on ONNX Runtime, and one that failed."""
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    runners = {file: OnnxRunner(student.files[file], PRE, threads=1) for file in ("pixels", "int8")}
    logits = {file: runner.infer(images) for file, runner in runners.items()}
    cpu = {"provider": "CPUExecutionProvider"}
    built = [
        BuiltVariant(
            variant("fp32-onnxruntime", "models/fp32.onnx", "fp32", "onnxruntime", cpu), student.files["pixels"], logits["pixels"]
        ),
        BuiltVariant(variant("int8-onnxruntime", "models/int8.onnx", "int8", "onnxruntime", cpu), student.files["int8"], logits["int8"]),
        BuiltVariant(
            variant(
                "int8-openvino", "models/int8.onnx", "int8", "openvino", {"inference_precision": "f32"}, verdict="failed", reason="bad"
            ),
            student.files["int8"],
            logits["int8"],
        ),
    ]
    return write_bundle(
        tmp_path_factory.mktemp("bundle") / "bundle",
        name="student",
        variants=built,
        default="fp32-onnxruntime",
        preprocessing=PRE,
        class_names=tuple("abcdef"),
        sample_images=images,
        expected_logits=logits["pixels"],
        target={"name": "cpu-x86", "description": "Any x86 processor."},
        licences={"model": "MIT", "code": "MIT", "data": "MIT"},
        provenance={"recipe": "tiny"},
        verdict="passed",
        program_version="1.2.3",
        threads=1,
    )


def test_variants_of_a_bundle_are_run_as_their_manifest_says(bundle_folder: Path, machine: Machine) -> None:
    told: list[tuple[int, int, str]] = []
    subjects = subjects_of_bundle(open_bundle(bundle_folder))
    tables = layer_tables(subjects, threads=1, seconds=0.2, machine=machine, tick=lambda *args: told.append(args))
    assert [(table["variant"], table["precision"], table["verdict"]) for table in tables] == [
        ("fp32-onnxruntime", "fp32", "measured"),
        ("int8-onnxruntime", "int8", "measured"),
        ("int8-openvino", "int8", "not_run"),
    ]
    assert "failed" in tables[2]["reason"]
    assert [(done, total) for done, total, _ in told] == [(1, 3), (2, 3), (3, 3)]
    assert set(tables[1]["roofline"]["peak_gflops"]) == {"fp32", "int8"}  # the attention's own products stayed float
    chosen = subjects_of_bundle(open_bundle(bundle_folder), ["int8-onnxruntime"], model="asked")
    assert [(one.model, one.variant) for one in chosen] == [("asked", "int8-onnxruntime")]


def test_a_bundle_that_changed_is_no_result(bundle_folder: Path, machine: Machine, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle_folder, tmp_path / "bundle"))
    subjects = subjects_of_bundle(open_bundle(folder), ["fp32-onnxruntime"])
    (folder / "models" / "fp32.onnx").write_bytes(b"other")
    with pytest.raises(IntegrityError):
        layer_tables(subjects, threads=1, machine=machine)


def test_what_cannot_run_here_says_why(student: Any, feeds: Feeds, machine: Machine) -> None:
    cuda = subject_of_file(
        "student", student.files["float"], "onnxruntime", lambda batch: feeds("float", batch), settings={"provider": "XyzExecutionProvider"}
    )
    subjects = [
        cuda,
        refused_subject("student", "torch", "eager torch has no layer table"),
        subject_of_file("student", student.files["float"], "torch", lambda batch: feeds("float", batch)),
        subject_of_file("broken", b"no graph", "onnxruntime", lambda batch: feeds("float", batch)),
    ]
    tables = layer_tables(subjects, threads=1, machine=machine)
    assert {table["verdict"] for table in tables} == {"not_run"}
    wanted = ["has no XyzExecutionProvider on this machine", "eager torch", "runs no ONNX file by itself", "cannot load it"]
    for table, reason in zip(tables, wanted, strict=True):
        assert reason in table["reason"]
        assert reason.split()[0] in shown(table)


def shown(table: dict[str, Any], width: int = 120) -> str:
    console = Console(width=width, record=True, file=StringIO())
    console.print(render_layers(table))
    return console.export_text()


def test_the_printed_table_fits_a_terminal_and_names_what_it_measured(student: Any, feeds: Feeds, machine: Machine) -> None:
    table = profiled(subject_of_file("student", student.files["float"], "onnxruntime", lambda batch: feeds("float", batch)), machine)
    text = shown(table)
    assert max(map(len, text.splitlines())) <= 120
    for words in (
        "student onnxruntime, batch 1, 1 thread",
        "attention",
        "between layers",
        "GFLOP/s",
        "in 2 blocks",
        "Roofline measured here",
    ):
        assert words in text
    assert Counter(line.split()[0] for line in text.splitlines() if line.strip())["mlp"] == 2  # its row, and its blocks
    without = Console(width=120, record=True, file=StringIO())
    without.print(render_layers(table, blocks=False))
    assert "in 2 blocks" not in without.export_text()
