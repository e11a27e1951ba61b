"""Do two answers say the same? Counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torchvision

from g2sd_export.edge.agreement import ParityTolerance
from g2sd_export.edge.dense.agreement import box_agreement, box_iou, judge_dense, pixel_agreement
from g2sd_export.edge.dense.task import DenseTask
from g2sd_export.edge.dense.tolerance import BoxTolerance, PixelTolerance, fits, read_tolerance, tolerance_from_dict
from g2sd_export.edge.errors import UserError

Answer = dict[str, npt.NDArray[Any]]


def objects(*rows: tuple[tuple[float, ...], float, int]) -> Answer:
    """An answer for one image: box, score and label of each object, with full masks."""
    boxes, scores, labels = zip(*rows, strict=True)
    return {
        "boxes": np.asarray([boxes], np.float32),
        "scores": np.asarray([scores], np.float32),
        "labels": np.asarray([labels]),
        "masks": np.ones((1, len(rows), 28, 28), np.float32),
    }


LEFT, RIGHT = (0, 0, 10, 10), (20, 0, 30, 10)


def test_changed_pixels_are_counted_over_all_and_for_the_worst_image() -> None:
    reference = [np.zeros((10, 10), np.uint8), np.zeros((5, 20), np.uint8)]
    candidate = [one.copy() for one in reference]
    candidate[0][0, :3], candidate[1][0, 0] = 1, 2
    found = pixel_agreement(reference, candidate)
    assert (found.num_images, found.num_pixels, found.changed) == (2, 200, 4)
    assert (found.changed_share, found.changed_share_of_image) == (0.02, 0.03)


def test_the_overlap_of_boxes_is_torchvisions() -> None:
    draws = np.random.default_rng(0).random((2, 30, 4)) * 20
    left, right = (np.concatenate([one[:, :2], one[:, :2] + one[:, 2:]], axis=1) for one in draws)
    wanted = torchvision.ops.box_iou(torch.from_numpy(left), torch.from_numpy(right)).numpy()
    assert np.abs(box_iou(left, right) - wanted).max() < 1e-12
    assert box_iou(np.asarray([[1, 1, 1, 1]]), np.asarray([[1, 1, 1, 1]])).tolist() == [[0]]


def test_the_same_objects_in_another_order_agree() -> None:
    one, other = objects((LEFT, 0.9, 0), (RIGHT, 0.8, 1)), objects((RIGHT, 0.8, 1), (LEFT, 0.9, 0))
    found = box_agreement(one, other, 0.05)
    assert (found.num_objects, found.unmatched, found.max_score_diff, found.max_box_shift_px, found.changed_mask_share) == (4, 0, 0, 0, 0)


def test_differences_of_partners_are_told() -> None:
    other = objects(((0, 1, 10, 10.5), 0.7, 0), (RIGHT, 0.85, 1))
    other["masks"][0, 0, :7] = 0.4
    found = box_agreement(objects((LEFT, 0.9, 0), (RIGHT, 0.8, 1)), other, 0.05)
    assert found.unmatched == 0
    assert found.max_score_diff == pytest.approx(0.2) and found.max_box_shift_px == pytest.approx(1.0)
    assert found.changed_mask_share == pytest.approx(7 / 28 / 2)


@pytest.mark.parametrize(
    "other",
    [objects((LEFT, 0.9, 1)), objects(((6, 0, 16, 10), 0.9, 0)), objects((RIGHT, 0.9, 0))],
    ids=["another class", "too little overlap", "elsewhere"],
)
def test_objects_of_another_class_or_place_are_no_partners(other: Answer) -> None:
    found = box_agreement(objects((LEFT, 0.9, 0)), other, 0.05)
    assert (found.unmatched, found.num_objects, found.unmatched_share) == (2, 2, 1.0)


def test_an_object_has_one_partner_only() -> None:
    found = box_agreement(objects((LEFT, 0.9, 0), (LEFT, 0.5, 0)), objects((LEFT, 0.9, 0)), 0.05)
    assert (found.unmatched, found.num_objects) == (1, 3)


def test_an_object_next_to_the_reporting_limit_is_not_lost() -> None:
    found = box_agreement(objects((LEFT, 0.051, 0)), objects((LEFT, 0.049, 0)), 0.05)
    assert (found.num_objects, found.unmatched) == (1, 0) and found.max_score_diff == pytest.approx(0.002, abs=1e-6)
    both_below = box_agreement(objects((LEFT, 0.04, 0)), objects((RIGHT, 0.04, 0)), 0.05)
    assert (both_below.num_objects, both_below.unmatched_share) == (0, 0.0)
    assert box_agreement(objects((LEFT, 0.04, 0)), objects((LEFT, 0.01, 0)), 0.05).max_score_diff == 0  # neither is reported


def test_rows_that_fill_up_are_no_objects() -> None:
    found = box_agreement(objects((LEFT, 0.9, 0), (LEFT, 0.0, 0)), objects((LEFT, 0.9, 0)), 0.0)
    assert found.unmatched == 0 and found.changed_mask_share == 0


def test_a_judgement_names_what_is_too_much(segmentation: DenseTask, detection: DenseTask) -> None:
    maps = {"classes": np.zeros((1, 10, 10), np.uint8)}
    other = {"classes": maps["classes"].copy()}
    other["classes"][0, 0, :2] = 1
    assert judge_dense(maps, other, segmentation, PixelTolerance(0.02, 0.02))[:2] == ("passed", "")
    verdict, reason, agreement = judge_dense(maps, other, segmentation, PixelTolerance(0.01, 0.01))
    assert verdict == "failed" and agreement is not None and "2 of 100 pixels" in agreement.told()
    assert reason.startswith("2 of 100 pixels change their class (2.000%), tolerated 1.000%; 2.000% of the pixels of one image")
    far = objects(((0, 1, 10, 10), 0.5, 0), (RIGHT, 0.3, 1))
    far["masks"][0, 0] = 0
    verdict, reason, _ = judge_dense(objects((LEFT, 0.9, 0)), far, detection, BoxTolerance())
    assert verdict == "failed"
    for words in ("1 of 3 objects have no partner", "a score differs by 0.4", "a box differs by 1 pixels", "100.000% of the cells"):
        assert words in reason


def test_what_cannot_be_compared_fails(segmentation: DenseTask, detection: DenseTask) -> None:
    maps = {"classes": np.zeros((1, 10, 10), np.uint8)}
    assert "not one of detection" in judge_dense(objects((LEFT, 1, 0)), objects((LEFT, 1, 0)), detection, PixelTolerance())[1]
    assert "have shape [1, 10, 10]" in judge_dense(maps, {"classes": np.zeros((2, 10, 10), np.uint8)}, segmentation, PixelTolerance())[1]
    assert "the reference gives classes" in judge_dense(maps, objects((LEFT, 1, 0)), segmentation, PixelTolerance())[1]
    empty = {"classes": np.zeros((0, 4, 4), np.uint8)}
    assert judge_dense(empty, empty, segmentation, PixelTolerance())[0] == "not_run"


def test_tolerances_survive_their_dictionaries_and_refuse_what_they_cannot_be() -> None:
    for tolerance in (PixelTolerance(0.1, 0.2), BoxTolerance(0.1, 0.2, 3.0, 0.4)):
        assert tolerance_from_dict(tolerance.to_dict()) == read_tolerance(tolerance.to_dict()) == tolerance
    logits = ParityTolerance(1e-3, 0.0)
    assert read_tolerance(logits.to_dict()) == logits
    assert fits(logits, None) and fits(None, "detection") and fits(PixelTolerance(), "segmentation") and fits(BoxTolerance(), "detection")
    assert not fits(logits, "segmentation") and not fits(PixelTolerance(), "detection") and not fits(BoxTolerance(), None)
    for values, message in (
        ({"changed_share": 0.1}, "wanted numbers for"),
        ({"changed_share": "0.1", "changed_share_of_image": 0.1}, "wanted numbers for"),
        ({"changed_share": 1.1, "changed_share_of_image": 0.1}, r"changed_share is 1\.1"),
        ({**BoxTolerance().to_dict(), "max_box_shift_px": -1}, "max_box_shift_px is -1"),
        ({**BoxTolerance().to_dict(), "max_score_diff": 2}, "max_score_diff is 2"),
    ):
        with pytest.raises(UserError, match=message):
            read_tolerance(values)
