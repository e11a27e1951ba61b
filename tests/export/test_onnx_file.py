"""The ONNX file is the model, for every batch size, and carries what is needed to use it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from g2sd_export.edge.errors import UserError
from g2sd_export.edge.preprocess import Preprocessing
from g2sd_export.onnx_file import DEFAULT_OPSET, OnnxInfo, count_parameters, export_onnx


class FixedBatch(nn.Module):
    """Works for the traced batch only, as a model with a number in a reshape does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images.reshape(2, 1, 28, 28))
        return logits


def test_a_vit_with_expanded_tokens_answers_as_torch_at_every_batch_size(make_model: Callable[..., nn.Module], onnx_path: Path) -> None:
    session = onnxruntime.InferenceSession(onnx_path, providers=["CPUExecutionProvider"])
    for batch in (1, 2, 3, 8):
        images = torch.randn(batch, 1, 28, 28, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            wanted = make_model()(images).numpy()
        (got,) = session.run(["logits"], {"images": images.numpy()})
        np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_names_types_and_the_free_batch_dimension_are_in_the_graph(onnx_path: Path) -> None:
    graph = onnx.load(onnx_path).graph
    found = {
        item.name: (item.type.tensor_type.elem_type, [dim.dim_param or dim.dim_value for dim in item.type.tensor_type.shape.dim])
        for item in (*graph.input, *graph.output)
    }
    assert found == {"images": (onnx.TensorProto.FLOAT, ["batch", 1, 28, 28]), "logits": (onnx.TensorProto.FLOAT, ["batch", 6])}


def test_the_metadata_is_readable_and_whole(onnx_path: Path, preprocessing: Preprocessing) -> None:
    metadata = {item.key: item.value for item in onnx.load(onnx_path).metadata_props}
    assert Preprocessing.from_dict(json.loads(metadata["preprocessing"])) == preprocessing
    assert json.loads(metadata["class_names"])[3] == "Kleid für Übermorgen"
    assert (metadata["weights_sha256"], metadata["recipe"]) == ("ab" * 32, "tiny")
    assert (metadata["torch"], metadata["onnx"]) == (version("torch"), onnx.__version__)


def test_it_is_one_file_without_traces_of_the_machine(onnx_path: Path) -> None:
    assert [path.name for path in onnx_path.parent.iterdir()] == ["model.onnx"]
    content = onnx_path.read_bytes()
    assert b"stack_trace" not in content and b".py" not in content and str(Path(__file__).parent).encode() not in content


def test_the_info_describes_the_file(onnx_info: OnnxInfo) -> None:
    content = onnx_info.path.read_bytes()
    assert (onnx_info.bytes, onnx_info.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert (onnx_info.opset, onnx_info.num_classes) == (DEFAULT_OPSET, 6)
    assert {item.domain: item.version for item in onnx.load(onnx_info.path).opset_import} == {"": DEFAULT_OPSET}


def test_the_weights_are_counted_without_the_integers_of_shapes(make_model: Callable[..., nn.Module], onnx_path: Path) -> None:
    distinct = {tuple(parameter.flatten().tolist()) for parameter in make_model().parameters()}  # fresh norms are equal to each other
    assert 0 <= count_parameters(onnx_path.read_bytes()) - sum(len(values) for values in distinct) <= 3


def test_a_model_in_training_mode_gives_the_very_same_file_and_is_left_as_it_was(
    make_model: Callable[..., nn.Module], onnx_path: Path, metadata: dict[str, str], tmp_path: Path
) -> None:
    model = make_model().train()
    model.get_submodule("norm").eval()  # a mixture must survive too
    modes = [module.training for module in model.modules()]
    export_onnx(model, image_px=28, num_channels=1, path=tmp_path / "model.onnx", metadata=metadata)
    assert [module.training for module in model.modules()] == modes
    assert (tmp_path / "model.onnx").read_bytes() == onnx_path.read_bytes()


def test_a_model_that_fixes_the_batch_size_is_refused(make_model: Callable[..., nn.Module], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"maps \[2, 1, 28, 28\] .*; look in the model for a number where images.shape\[0\] belongs"):
        export_onnx(FixedBatch(make_model()), image_px=28, num_channels=1, path=tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_another_input_is_refused(make_model: Callable[..., nn.Module], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the model refuses images of shape \[2, 3, 28, 28\]"):
        export_onnx(make_model(), image_px=28, num_channels=3, path=tmp_path / "model.onnx")


def test_a_model_that_gives_no_logits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"maps 2 images to shape \[2, 4, 4, 4\]; wanted logits"):
        export_onnx(nn.Conv2d(1, 4, 7, 7), image_px=28, num_channels=1, path=tmp_path / "model.onnx")
