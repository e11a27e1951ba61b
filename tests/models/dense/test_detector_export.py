"""The detector as an ONNX file, non-maximum suppression inside, with a free batch size."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

from g2sd_deploy.models.dense.detector import Detector

OUTPUTS = ("boxes", "scores", "labels", "masks")
# torchvision's shape rule for suppression calls a function that torch has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`create_unbacked_symint` is deprecated:FutureWarning:torchvision._meta_registrations")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, make_detector: Callable[..., Detector]) -> Iterator[tuple[Detector, Any]]:
    model = make_detector(min_score=0.39)
    program = torch.onnx.export(
        model,
        (torch.randn(2, 3, 64, 64),),
        dynamo=True,
        opset_version=20,
        input_names=["images"],
        output_names=list(OUTPUTS),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
        optimize=False,  # a third of the time
    )
    assert program is not None
    path: Path = tmp_path_factory.mktemp("exported") / "detector.onnx"
    program.save(path)
    yield model, onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("batch", [1, 3])
def test_onnx_runtime_finds_what_torch_finds_at_any_batch_size(exported: tuple[Detector, Any], batch: int) -> None:
    model, session = exported
    torch.manual_seed(batch)
    images = torch.randn(batch, 3, 64, 64)
    wanted, got = model(images), session.run(list(OUTPUTS), {"images": images.numpy()})
    assert 0 < (wanted.scores > 0).sum() < wanted.scores.numel()  # detections and padding
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(torch.from_numpy(one), other.detach(), rtol=1e-4, atol=2e-3)


def test_the_graph_fixes_everything_but_the_batch(exported: tuple[Detector, Any]) -> None:
    _, session = exported
    shapes = {item.name: item.shape for item in (*session.get_inputs(), *session.get_outputs())}
    assert shapes == {
        "images": ["batch", 3, 64, 64],
        "boxes": ["batch", 10, 4],
        "scores": ["batch", 10],
        "labels": ["batch", 10],
        "masks": ["batch", 10, 28, 28],
    }
