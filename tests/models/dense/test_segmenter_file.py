"""Weight files of segmenters, the encoder that can be read out of one, and the form that is exported."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from g2sd_deploy.errors import UserError
from g2sd_deploy.models.checkpoint import load_classifier, load_encoder
from g2sd_deploy.models.dense.segmenter import Segmenter, SegmenterSpec
from g2sd_deploy.models.dense.segmenter_file import SegmenterFile, load_segmenter, save_segmenter
from g2sd_deploy.models.dense.segmenter_shipping import Output, as_shipped
from g2sd_deploy.models.vit import EncoderSpec
from g2sd_deploy.models.weight_file import held_kind
from g2sd_deploy.zoo.opening import Hints, open_file
from g2sd_export.edge.dense.task import DenseTask
from g2sd_export.onnx_file import traced_graph

ENCODER = EncoderSpec(image_px=32, patch_px=16, num_channels=3, width=16, depth=4, heads=2)
SPEC = SegmenterSpec(ENCODER, 3, (0, 1, 2, 3), 8, 4, relative_positions=True, layer_scale=1.0)
PLAIN = replace(SPEC, relative_positions=False, layer_scale=None, aux_channels=None)
TASK = DenseTask("segmentation", 32, 3, (0.5, 0.4, 0.3), (0.2, 0.2, 0.3), inference="slide", stride=21)
NAMES = ("wall", "Türe", "sky")


def saved(path: Path, spec: SegmenterSpec = SPEC, **other: Any) -> SegmenterFile:
    file = SegmenterFile(Segmenter(spec), **{"task": TASK, "class_names": NAMES, **other})
    for parameter in file.model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    save_segmenter(path, file)
    return file


def rewrite(path: Path, change: Callable[[dict[str, Tensor], dict[str, Any]], None]) -> None:
    with safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()["g2sd_deploy"])
    weights = load_file(path)
    change(weights, described)
    save_file(weights, path, metadata={"g2sd_deploy": json.dumps(described)})


@pytest.mark.parametrize("spec", [SPEC, PLAIN])
def test_a_segmenter_comes_back_whole_and_in_evaluation_mode(tmp_path: Path, spec: SegmenterSpec) -> None:
    file = saved(tmp_path / "s.safetensors", spec)
    loaded = load_segmenter(tmp_path / "s.safetensors")
    assert (loaded.task, loaded.class_names, loaded.model.spec, loaded.model.training) == (TASK, NAMES, spec, False)
    wanted = file.model.state_dict()
    assert wanted.keys() == loaded.model.state_dict().keys()
    assert all(torch.equal(value, wanted[name]) for name, value in loaded.model.state_dict().items())
    assert held_kind(tmp_path / "s.safetensors") == "segmenter"


def test_the_plain_encoder_of_a_segmenter_can_be_read(tmp_path: Path) -> None:
    file = saved(tmp_path / "s.safetensors", PLAIN)
    encoder, images = load_encoder(tmp_path / "s.safetensors"), torch.randn(1, 3, 32, 32)
    assert encoder.spec == ENCODER
    torch.testing.assert_close(encoder(images), file.model.encoder(images))
    opened = open_file(tmp_path / "s.safetensors", Hints())
    assert (opened.kind, opened.own, opened.description) == ("encoder", False, "encoder of a segmenter of g2sd")


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        (replace(PLAIN, relative_positions=True), r"blocks\.0\.attn\.positions\.table and 3 more"),
        (replace(PLAIN, layer_scale=1.0), r"blocks\.0\.attn\.gamma and 7 more"),
    ],
)
def test_an_encoder_with_more_than_a_plain_one_is_not_read_as_one(tmp_path: Path, spec: SegmenterSpec, part: str) -> None:
    saved(tmp_path / "s.safetensors", spec)
    with pytest.raises(UserError, match=f"encoder of this segmenter does not work without .* {part}.*; name the student") as caught:
        load_encoder(tmp_path / "s.safetensors")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda weights, _: weights.pop("head.fusion.0.weight"),
            "weights are not those of the model it describes: missing head.fusion.0.weight",
        ),
        (lambda _, described: described["segmenter"].pop("taps"), "description of the model does not fit this version"),
        (lambda _, described: described["segmenter"].update(taps=[0, 1, 2]), "wanted 4 ascending blocks"),
        (lambda _, described: described["segmenter"].update(colour=1), "description of the model does not fit this version"),
        (
            lambda _, described: described["class_names"].append("floor"),
            r"classes\) \('segmentation', 32, 3, 4\), and its model is for .* 3\)",
        ),
        (lambda _, described: described["task"].update(image_px=64), r"\('segmentation', 64, 3, 3\)"),
        (lambda _, described: described.update(kind="classifier"), "holds a classifier model; wanted a segmenter model here"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_line(tmp_path: Path, change: Callable[..., None], message: str) -> None:
    path = tmp_path / "s.safetensors"
    saved(path)
    rewrite(path, change)
    with pytest.raises(UserError, match=f"^{re.escape(str(path))}: .*{message}") as caught:
        load_segmenter(path)
    assert "\n" not in str(caught.value)


def test_a_segmenter_is_no_classifier(tmp_path: Path) -> None:
    saved(tmp_path / "s.safetensors")
    with pytest.raises(UserError, match="holds a segmenter model; wanted a classifier model here"):
        load_classifier(tmp_path / "s.safetensors")


def test_what_ships_is_the_segmenter_without_the_head_of_training() -> None:
    model, images = Segmenter(SPEC).eval(), torch.randn(2, 3, 32, 32)
    shipped = as_shipped(model, "logits")
    assert torch.equal(shipped(images), model(images)) and not any("aux_head" in name for name in shipped.state_dict())
    classes = as_shipped(model, "classes")(images)
    whole = F.interpolate(model(images), size=(32, 32), mode="bilinear", align_corners=False)
    assert classes.dtype == torch.uint8 and torch.equal(classes.long(), whole.argmax(1))
    assert not model.training and Segmenter(SPEC).training


@pytest.mark.parametrize(("output", "px", "patch_px"), [("classes", 48, 16), ("logits", 40, 8)])
def test_the_exported_graph_answers_as_torch_does_for_any_batch(output: Output, px: int, patch_px: int) -> None:
    model = Segmenter(replace(SPEC, encoder=replace(ENCODER, image_px=px, patch_px=patch_px, depth=1), taps=(0, 0, 0, 0)))
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    shipped = as_shipped(model.eval(), output)
    graph = traced_graph(shipped, image_px=px, num_channels=3, outputs=(output,))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        images = torch.randn(batch, 3, px, px)
        (found,) = session.run(None, {"images": images.numpy()})
        wanted = shipped(images).detach().numpy()
        assert found.shape == wanted.shape and found.dtype == wanted.dtype
        if output == "logits":
            np.testing.assert_allclose(found, wanted, atol=2e-5)
        else:
            assert (found == wanted).mean() > 0.998 and len(np.unique(wanted)) > 1
