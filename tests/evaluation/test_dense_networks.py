"""torch segmenters and detectors as functions of uint8 images."""

import numpy as np
import pytest
import torch

from g2sd_deploy.evaluation.dense_networks import detector_infer, segmenter_infer
from g2sd_deploy.models.dense.detector import Detector
from g2sd_deploy.models.dense.detector_spec import DetectorSpec
from g2sd_deploy.models.dense.segmenter import Segmenter, SegmenterSpec
from g2sd_deploy.models.vit import EncoderSpec
from g2sd_export.edge.preprocess import Preprocessing, normalise

PX = 64
ENCODER = EncoderSpec(image_px=PX, patch_px=16, num_channels=3, width=8, depth=4, heads=2)
SEGMENTER = SegmenterSpec(ENCODER, num_classes=3, taps=(0, 1, 2, 3), channels=8, aux_channels=4, relative_positions=True, layer_scale=None)
DETECTOR = DetectorSpec(
    ENCODER, num_classes=2, window=2, global_blocks=(1, 3), channels=8, box_width=8, mask_channels=4, max_detections=5, min_score=0.0
)
MEAN, STD, CPU = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), torch.device("cpu")


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, PX, PX, 3), np.uint8)


def normalised(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(normalise(images, Preprocessing(PX, PX, 3, MEAN, STD)))


def test_a_segmenter_gets_what_the_device_would_give_it(images: np.ndarray) -> None:
    model = Segmenter(SEGMENTER)
    (logits,) = segmenter_infer(model.train(), CPU, MEAN, STD)(images)
    assert not model.training
    assert logits.dtype == np.float32 and logits.shape == (3, 3, PX // 4, PX // 4)
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), model(normalised(images)))


def test_a_detector_gets_what_the_device_would_give_it(images: np.ndarray) -> None:
    model = Detector(DETECTOR)
    answer = detector_infer(model.train(), CPU, MEAN, STD)(images)
    assert not model.training
    assert [of.shape for of in answer] == [(3, 5, 4), (3, 5), (3, 5), (3, 5, 28, 28)]
    assert [of.dtype for of in answer] == [np.float32, np.float32, np.int64, np.float32]
    with torch.no_grad():
        found = model(normalised(images))
    for ours, wanted in zip(answer, (found.boxes, found.scores, found.labels, found.masks), strict=True):
        torch.testing.assert_close(torch.from_numpy(ours), wanted)


def test_an_image_is_told_alike_in_any_batch_and_however_its_pixels_lie(images: np.ndarray) -> None:
    infer = segmenter_infer(Segmenter(SEGMENTER), CPU, MEAN, STD)
    (whole,), (first,), (turned,) = infer(images), infer(images[:1]), infer(images[:, :, ::-1])
    np.testing.assert_allclose(first, whole[:1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(turned, infer(np.ascontiguousarray(images[:, :, ::-1]))[0])
    assert np.abs(turned - whole).max() > 1e-3
