"""Truths of a batch: parts of it, and the way from a loader's worker to the process that trains."""

import pickle

import pytest
import torch

from g2sd_deploy.data.dense.targets import DetectionTruth, ImageTruth, SegmentationTruth


def image(num: int, size: tuple[int, int] = (6, 8)) -> ImageTruth:
    masks = torch.zeros(num, 8, 8, dtype=torch.bool)
    masks[:, 1, num] = True
    boxes = torch.tensor([[num, 1.0, num + 1.0, 2.0]]).repeat(num, 1)
    return ImageTruth(boxes, torch.arange(num), masks, size)


def same(first: DetectionTruth, second: DetectionTruth) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.boxes, b.boxes) and torch.equal(a.labels, b.labels) and torch.equal(a.masks, b.masks) and a.size == b.size
        for a, b in zip(first.images, second.images, strict=True)
    )


@pytest.mark.parametrize("counts", [(2, 0, 3), (0, 0), (1,)])
def test_a_pickled_truth_is_the_same_truth_image_by_image(counts: tuple[int, ...]) -> None:
    truth = DetectionTruth(tuple(image(count, (count + 1, 8)) for count in counts))
    assert same(pickle.loads(pickle.dumps(truth)), truth)
    assert not same(DetectionTruth((image(3), *truth.images[1:])), truth)


def test_many_images_travel_in_three_tensors() -> None:
    """Each tensor that a worker sends holds a file open in both processes; many systems allow 1024 of them."""
    _, (tensors, _) = DetectionTruth(tuple(image(2) for _ in range(50))).__reduce__()
    assert len(tensors) == 3
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors)


def test_a_part_is_that_of_its_images() -> None:
    truth = DetectionTruth(tuple(image(count) for count in (2, 0, 3)))
    assert [len(one.labels) for one in truth.part(1, 3).images] == [0, 3]
    assert len(truth.part(1, 3)) == 2
    classes = torch.arange(4, dtype=torch.uint8).view(4, 1, 1).expand(4, 2, 2)
    assert SegmentationTruth(classes).part(1, 3).classes[:, 0, 0].tolist() == [1, 2]
    assert len(SegmentationTruth(classes)) == 4


def test_a_truth_goes_to_a_device_with_all_that_it_holds() -> None:
    there = DetectionTruth((image(2), image(0))).to("meta")
    assert {tensor.device.type for one in there.images for tensor in (one.boxes, one.labels, one.masks)} == {"meta"}
    assert there.images[0].size == (6, 8)
    assert SegmentationTruth(torch.zeros(1, 2, 2, dtype=torch.uint8)).to("meta").classes.device.type == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs a GPU")
def test_pinned_truths_are_the_same() -> None:
    truth = DetectionTruth((image(2), image(0), image(1)))
    pinned = truth.pin_memory()
    assert same(pinned, truth)
    assert all(one.masks.is_pinned() for one in pinned.images if len(one.labels))
    assert SegmentationTruth(torch.zeros(1, 2, 2, dtype=torch.uint8)).pin_memory().classes.is_pinned()
