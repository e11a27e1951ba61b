"""One small model with its float file, its file for pixels and its bundle, and ways to break them.

Each test breaks one thing, leaves the rest whole, and asks for a reason that names it: these are faults that exports have had.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from g2sd_export.bundle import BuiltVariant, Variant, write_bundle
from g2sd_export.deployable import deployable_onnx
from g2sd_export.edge.agreement import ParityTolerance
from g2sd_export.edge.manifest import record_of
from g2sd_export.edge.onnx_runner import OnnxRunner
from g2sd_export.edge.openvino_runner import OpenVINORunner, shared_core
from g2sd_export.edge.preprocess import Preprocessing, normalise
from g2sd_export.edge.runner import Runner
from g2sd_export.onnx_file import export_onnx, model_metadata
from g2sd_export.proof import Link, Proof, Whole, prove

CLASS_NAMES = ("tench", "springer", "cassette player", "chain saw", "church", "French horn")
PRE = Preprocessing(image_px=28, resize_px=32, num_channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
FLOAT32 = ParityTolerance(max_abs_logit_diff=1e-3)  # what the targets tolerate of float32
PIXELS = "onnx for pixels"
MODEL = "models/fp32.onnx"

Images = npt.NDArray[np.uint8]


@dataclasses.dataclass
class TorchModel:
    """The model that was trained."""

    model: nn.Module
    preprocessing: Preprocessing = PRE
    name: str = "torch"
    version: str = torch.__version__

    def prepare(self, images: Images) -> npt.NDArray[np.float32]:
        return normalise(images, self.preprocessing)

    def forward(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            logits: npt.NDArray[np.float32] = self.model(torch.from_numpy(inputs)).numpy()
        return logits

    def infer(self, images: Images) -> npt.NDArray[np.float32]:
        return self.forward(self.prepare(images))


@dataclasses.dataclass(frozen=True)
class Case:
    """The model and its files, none of which a test may change; the labels are what the model answers."""

    trained: TorchModel
    float_onnx: Path
    pixel_onnx: Path
    images: Images
    labels: npt.NDArray[np.int64]
    pre: Preprocessing = PRE
    class_names: tuple[str, ...] = CLASS_NAMES
    tolerance: ParityTolerance = FLOAT32

    def proof(self, pixel_onnx: Path | Runner, *, labels: npt.NDArray[np.int64] | None = None, whole: Whole | None = None) -> Proof:
        """The chain, with another file or runner for pixels at its end."""
        last = OnnxRunner(pixel_onnx, PRE, threads=1) if isinstance(pixel_onnx, Path) else pixel_onnx
        links = [
            Link("torch", self.trained),
            Link("float onnx", OnnxRunner(self.float_onnx, PRE, threads=1), FLOAT32),
            Link(PIXELS, last, FLOAT32),
        ]
        return prove(links, self.images, self.labels if labels is None else labels, whole=whole or Whole())

    def assert_caught(self, pixel_onnx: Path | Runner, reason: str) -> None:
        """The float file is as good as it was, what came in place of the file for pixels fails for the reason, and so does the whole."""
        proof = self.proof(pixel_onnx)
        assert [hop.verdict for hop in proof.hops] == ["passed", "failed"]
        assert (proof.verdict, proof.whole.verdict) == ("failed", "failed")
        assert reason in proof.hops[1].reason
        assert proof.reason.startswith(f"{PIXELS} against float onnx: ")


@pytest.fixture(scope="session")
def case(make_model: Callable[..., nn.Module], tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Random weights with a head that uses every class, and pictures of coloured patches; the labels are what the model answers."""
    images = np.random.default_rng(0).integers(0, 256, (240, 4, 4, 3), dtype=np.uint8).repeat(7, 1).repeat(7, 2)
    model = make_model(num_channels=3)
    inputs = torch.from_numpy(normalise(images, PRE))
    with torch.no_grad():
        head, logits = model.head, model(inputs)
        scale = 4 / logits.std(0)
        head.bias.copy_((head.bias - logits.mean(0)) * scale)
        head.weight.mul_(scale[:, None])
    trained = TorchModel(model)
    labels = trained.infer(images).argmax(axis=1)
    assert len(np.unique(labels)) == len(CLASS_NAMES)
    folder = tmp_path_factory.mktemp("case")
    metadata = model_metadata(PRE, CLASS_NAMES, weights_sha256="ab" * 32, recipe="tiny")
    export_onnx(model, image_px=28, num_channels=3, path=folder / "float.onnx", metadata=metadata)
    deployable_onnx(folder / "float.onnx", PRE, path=folder / "pixels.onnx")
    return Case(trained, folder / "float.onnx", folder / "pixels.onnx", images, labels)


@pytest.fixture
def silent_bfloat16(case: Case) -> Any:
    """The file for pixels on an OpenVINO that computes in BF16 and says float32."""
    pytest.importorskip("openvino")
    if "BF16" not in shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor does not compute in BF16")
    runner = OpenVINORunner(case.pixel_onnx, PRE, threads=1, inference_precision="bf16")
    runner.provider = "CPU f32"
    return runner


# ---- graphs that any runtime loads, and that answer something else


def weights_of(proto: onnx.ModelProto, name: str) -> npt.NDArray[np.float32]:
    (found,) = (item for item in proto.graph.initializer if item.name == name)
    return numpy_helper.to_array(found).copy()


def put_weights(proto: onnx.ModelProto, name: str, values: npt.NDArray[np.float32]) -> None:
    (found,) = (item for item in proto.graph.initializer if item.name == name)
    found.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values, dtype=np.float32), name))


def matmul_weights(proto: onnx.ModelProto) -> list[str]:
    """Names of the blocks' weights in the order of the graph: qkv, projection and two of the MLP, block by block."""
    stored = {item.name for item in proto.graph.initializer}
    return [node.input[1] for node in proto.graph.node if node.op_type == "MatMul" and node.input[1] in stored]


def permute_classes(proto: onnx.ModelProto) -> None:
    for name in ("head.weight", "head.bias"):
        put_weights(proto, name, weights_of(proto, name)[[1, 0, 2, 3, 4, 5]])


def swap_channels(proto: onnx.ModelProto) -> None:
    name = next(node.input[1] for node in proto.graph.node if node.op_type == "Conv")
    put_weights(proto, name, weights_of(proto, name)[:, ::-1])


def transpose_images(proto: onnx.ModelProto) -> None:
    conv = next(node for node in proto.graph.node if node.op_type == "Conv")
    turned = helper.make_node("Transpose", [conv.input[0]], ["turned"], perm=[0, 1, 3, 2])
    conv.input[0] = "turned"
    proto.graph.node.insert(list(proto.graph.node).index(conv), turned)


def spoil_a_weight(proto: onnx.ModelProto) -> None:
    name = matmul_weights(proto)[4]
    weights = weights_of(proto, name)
    weights[3, 5] = np.nan
    put_weights(proto, name, weights)


def zero_a_layer(proto: onnx.ModelProto) -> None:
    name = matmul_weights(proto)[5]  # the second block's attention no longer adds anything
    put_weights(proto, name, np.zeros_like(weights_of(proto, name)))


def zero_a_bias(proto: onnx.ModelProto) -> None:
    name = next(item.name for item in proto.graph.initializer if item.name.endswith("1.mlp.fc1.bias"))
    put_weights(proto, name, np.zeros_like(weights_of(proto, name)))


def take_one_head(proto: onnx.ModelProto) -> None:
    """Answer with the class token's head alone, not with the mean of both."""
    mean = next(node for node in proto.graph.node if node.output[0] == "logits")
    both = next(node for node in proto.graph.node if node.output[0] == mean.input[0])
    both.input[1] = both.input[0]


def loosen_the_norms(proto: onnx.ModelProto) -> None:
    """Another epsilon: what a conversion that drops the attribute leaves, if the default is larger."""
    for node in proto.graph.node:
        if node.op_type == "LayerNormalization":
            next(item for item in node.attribute if item.name == "epsilon").f = 1e-2


def approximate_the_gelu(proto: onnx.ModelProto) -> None:
    for node in proto.graph.node:
        if node.op_type == "Gelu":
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("approximate", "tanh"))


def fix_the_batch(proto: onnx.ModelProto) -> None:
    """Answer for the first image whatever comes: what an exporter does that takes the batch for a broadcast."""
    last = next(node for node in proto.graph.node if node.output[0] == "logits")
    last.output[0] = "all_logits"
    for name, values in (("zero", [0]), ("one", [1])):
        proto.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    shape = helper.make_node("Shape", ["all_logits"], ["logits_shape"])
    first = helper.make_node("Slice", ["all_logits", "zero", "one", "zero"], ["first_logits"])
    proto.graph.node.extend([shape, first, helper.make_node("Expand", ["first_logits", "logits_shape"], ["logits"])])


MUTATIONS: tuple[Callable[[onnx.ModelProto], None], ...] = (
    permute_classes,
    swap_channels,
    transpose_images,
    spoil_a_weight,
    zero_a_layer,
    zero_a_bias,
    take_one_head,
    loosen_the_norms,
    approximate_the_gelu,
    fix_the_batch,
)


@pytest.fixture(scope="session")
def mutate() -> Callable[[str, Path, Path], Path]:
    """Writes a model, changed by the mutation of this name, to another path (or the same), which it returns."""
    known = {mutation.__name__: mutation for mutation in MUTATIONS}

    def change(name: str, source: Path, target: Path) -> Path:
        proto = onnx.load(source)
        known[name](proto)
        onnx.checker.check_model(proto, full_check=True)
        onnx.save(proto, target)
        return target

    return change


# ---- the bundle


def variant(name: str, **changes: Any) -> Variant:
    values: dict[str, Any] = {
        "name": name,
        "file": MODEL,
        "precision": name.split("-")[0],
        "runtime": name.split("-")[1],
        "settings": {"provider": "CPUExecutionProvider"},
        "input": {"name": "images", "dtype": "uint8", "layout": "NHWC", "shape": ["batch", 28, 28, 3]},
        "output": {"name": "logits", "dtype": "float32", "shape": ["batch", len(CLASS_NAMES)]},
        "verdict": "passed",
        "reason": "",
        "hops": (),
        "tolerance": FLOAT32,
        "device_tolerance": ParityTolerance(1e-4),
    }
    return Variant(**(values | changes))


@pytest.fixture(scope="session")
def sealed(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the file for pixels and an engine that was built from it; not to be changed."""
    folder = tmp_path_factory.mktemp("sealed")
    (folder / "engine.plan").write_bytes(b"an engine")
    sample, golden = case.images[:8], OnnxRunner(case.pixel_onnx, PRE, threads=1).infer(case.images[:8])
    source = {"source": MODEL, "source_sha256": record_of(case.pixel_onnx).sha256}
    engine = variant("fp32-tensorrt_rtx", file="models/fp32.plan", settings=source, verdict="not_run", reason="there is no GPU")
    return write_bundle(
        folder / "bundle",
        name="tiny",
        variants=[BuiltVariant(variant("fp32-onnxruntime"), case.pixel_onnx, golden), BuiltVariant(engine, folder / "engine.plan")],
        default="fp32-onnxruntime",
        preprocessing=PRE,
        class_names=CLASS_NAMES,
        sample_images=sample,
        expected_logits=case.trained.infer(sample),
        target={"name": "test", "description": "a test"},
        licences={},
        provenance={"recipe": "tiny"},
        verdict="passed",
    )


@pytest.fixture
def bundle(sealed: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(sealed, tmp_path / "bundle"))
