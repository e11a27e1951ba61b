"""Average precision against a second implementation, against scenes whose figure is known, and where there is nothing to find."""

import io
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import pytest

from g2sd_deploy.data.dense.annotations import Instances
from g2sd_deploy.evaluation import average_precision
from g2sd_deploy.evaluation.average_precision import PrecisionTally, resampled_precision
from g2sd_deploy.evaluation.resampling import bootstrap_interval, times_drawn
from g2sd_export.edge.dense.detections import Detections

PX = 160
NAMES = ("shirt", "bag", "boot", "never there")
KEYS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
Scene = tuple[Detections, Instances]


def masks_of(boxes: np.ndarray, *, cut: int = 0) -> np.ndarray:
    """Boxes as masks, without their first `cut` rows."""
    masks = np.zeros((len(boxes), PX, PX), bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes.round().astype(int), strict=True):
        mask[min(top + cut, bottom - 1) : bottom, left:right] = True
    return masks


def truth_of(boxes: Any = (), labels: Any = (), crowd: Any = None) -> Instances:
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    crowd = np.zeros(len(boxes), bool) if crowd is None else np.asarray(crowd, bool)
    return Instances(boxes, np.asarray(labels, np.int64).reshape(-1), masks_of(boxes), crowd)


def found_of(boxes: Any = (), scores: Any = (), labels: Any = (), *, cut: int = 0) -> Detections:
    boxes, scores = np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(scores, np.float32).reshape(-1)
    return Detections(boxes, scores, np.asarray(labels, np.int64).reshape(-1), masks_of(boxes, cut=cut))


def scenes(num: int, seed: int = 0, *, digits: int = 2) -> list[Scene]:
    """Objects of all sizes, some crowds, scenes without any; most are found, not exactly, some twice, with other things."""
    random = np.random.default_rng(seed)

    def boxes(count: int) -> np.ndarray:
        corner = random.uniform(0, 30, (count, 2))
        return np.concatenate([corner, corner + random.uniform(6, 128, (count, 2))], axis=1)

    made = []
    for _ in range(num):
        count, more = random.integers(0, 5), random.integers(0, 3)
        true, labels = boxes(count), random.integers(0, 3, count)
        seen = np.flatnonzero(random.random(count) < 0.8).repeat(random.integers(1, 3))
        told = np.concatenate([true[seen] + random.normal(0, 2.0, (len(seen), 4)), boxes(more)]).clip(0, PX)
        told[:, 2:] = np.maximum(told[:, 2:], told[:, :2] + 2).clip(0, PX)
        scores = np.sort(random.random(len(told)).round(digits))[::-1]
        kinds = np.concatenate([labels[seen], random.integers(0, 3, more)])
        crowd = random.random(count) < 0.15
        made.append((found_of(told, scores, kinds, cut=1), truth_of(true, labels, crowd)))
    return made


def tally_of(pairs: list[Scene], names: tuple[str, ...] = NAMES) -> PrecisionTally:
    tally = PrecisionTally(names)
    for pair in pairs:
        tally.add(*pair)
    return tally


def second_opinion(pairs: list[Scene], kind: str) -> tuple[dict[str, float], list[float]]:
    """The figures, and those of each class, of faster-coco-eval; -1 where there are none."""
    faster = pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed")
    from faster_coco_eval import mask as run_lengths  # in the fixture's stead: it is there now

    truths: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image, (told, true) in enumerate(pairs):
        for rows, objects in ((truths, true), (found, told)):
            for place, (left, top, right, bottom) in enumerate(objects.boxes.astype(float)):
                mask = run_lengths.encode(np.asfortranarray(objects.masks[place].astype(np.uint8)))
                row = {"id": len(rows) + 1, "image_id": image, "category_id": int(objects.labels[place])}
                row |= {"bbox": [left, top, right - left, bottom - top], "segmentation": mask, "iscrowd": 0}
                row["area"] = float(objects.masks[place].sum())
                if isinstance(objects, Instances):
                    row["iscrowd"] = int(objects.crowd[place])
                else:
                    row |= {"score": float(objects.scores[place])} | ({"area": (right - left) * (bottom - top)} if kind == "bbox" else {})
                rows.append(row)
    images = [{"id": image, "height": PX, "width": PX} for image in range(len(pairs))]
    shared = {"images": images, "categories": [{"id": label, "name": name} for label, name in enumerate(NAMES)]}
    with redirect_stdout(io.StringIO()):
        truth, told_all = (faster.COCO({**shared, "annotations": rows}) for rows in (truths, found))
        evaluator = faster.COCOeval_faster(truth, told_all, kind)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    precision = evaluator.eval["precision"].reshape(evaluator.eval["counts"])[..., 0, -1]
    return dict(zip(KEYS, evaluator.stats[:6], strict=True)), [float(of[of > -1].mean()) for of in precision.transpose(2, 0, 1)[:3]]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("kind", "name"), [("bbox", "box"), ("segm", "mask")])
def test_the_figures_are_those_of_a_second_implementation(kind: str, name: str, seed: int) -> None:
    pairs = scenes(20, seed)
    told = tally_of(pairs).scores()
    figures, classes = second_opinion(pairs, kind)
    assert told[name] == pytest.approx(figures, abs=1e-9)
    by_class = told[f"{name}_ap_by_class"]
    assert [by_class[known] for known in NAMES[:3]] == pytest.approx(classes, abs=1e-9)
    assert by_class["never there"] is None
    assert len({round(value, 3) for value in told[name].values()}) == 6  # figures that could not be mistaken for each other


def test_boxes_and_masks_are_scored_by_themselves() -> None:
    """The box is exact, and a quarter of the object's rows are missing from its mask: found up to an overlap of .75."""
    box = [[10, 10, 50, 50]]
    told = tally_of([(found_of(box, [0.9], [1], cut=10), truth_of(box, [1]))]).scores()
    assert told["box"]["ap"] == pytest.approx(1.0)
    assert told["mask"]["ap"] == pytest.approx(0.6)
    assert (told["mask"]["ap50"], told["mask"]["ap75"]) == pytest.approx((1.0, 1.0))
    assert told["box"]["ap_medium"] == pytest.approx(1.0) and told["box"]["ap_small"] is None and told["box"]["ap_large"] is None


def test_the_first_object_of_the_first_image_counts() -> None:
    """COCO's evaluator takes a match with annotation 0 for none."""
    box = [[1, 1, 20, 20]]
    assert tally_of([(found_of(box, [0.5], [0]), truth_of(box, [0]))]).scores()["box"]["ap"] == pytest.approx(1.0)


def test_half_of_what_is_found_is_wrong_in_an_empty_scene() -> None:
    box = [[5, 5, 60, 60]]
    right = (found_of(box, [0.5], [0]), truth_of(box, [0]))
    surer, less_sure = ((found_of(box, [score], [0]), truth_of()) for score in (0.9, 0.1))
    assert tally_of([right, surer]).scores()["box"]["ap"] == pytest.approx(0.5)
    assert tally_of([right, less_sure]).scores()["box"]["ap"] == pytest.approx(1.0)


def test_what_is_found_in_a_crowd_is_neither_right_nor_wrong() -> None:
    box, crowd = [5, 5, 30, 30], [40, 40, 100, 100]
    truth = truth_of([box, crowd], [0, 0], [False, True])
    told = found_of([[42, 42, 60, 60], [70, 70, 90, 90], box], [0.9, 0.8, 0.7], [0, 0, 0])
    assert tally_of([(told, truth)]).scores()["box"]["ap"] == pytest.approx(1.0)
    without = tally_of([(told, truth_of([box], [0]))]).scores()["box"]["ap"]
    assert without == pytest.approx(1 / 3)


def test_a_class_without_objects_has_no_figure_and_takes_no_part() -> None:
    box = [[5, 5, 30, 30]]
    told = tally_of([(found_of(box * 2, [0.9, 0.8], [0, 2]), truth_of(box, [0]))]).scores()
    assert told["box_ap_by_class"] == pytest.approx({"shirt": 1.0, "bag": None, "boot": None, "never there": None})
    assert told["box"]["ap"] == pytest.approx(1.0)


def test_nothing_found_is_zero_and_nothing_to_find_is_nothing() -> None:
    box = [[5, 5, 30, 30]]
    unseen = tally_of([(found_of(), truth_of(box, [0]))] * 2).scores(seed=0)
    assert unseen["box"]["ap"] == unseen["mask"]["ap"] == 0.0 and unseen["box_ap_interval"] == (0.0, 0.0)
    for pairs in ([], [(found_of(), truth_of())] * 2, [(found_of(box, [0.4], [1]), truth_of())] * 2):
        told = tally_of(pairs).scores(seed=0)
        assert told["box"] == told["mask"] == dict.fromkeys(KEYS)
        assert told["box_ap_interval"] is None
        assert told["box_ap_by_class"] == told["mask_ap_by_class"] == dict.fromkeys(NAMES)


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    tally_of(scenes(3)).scores(seed=0)
    assert capsys.readouterr() == ("", "")


def test_figures_may_be_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(average_precision, "NUM_RESAMPLES", 10)
    tally = tally_of(scenes(8))
    assert tally.scores(seed=1) == tally.scores(seed=1)
    assert tally.scores(seed=1)["box_ap_interval"] != tally.scores(seed=2)["box_ap_interval"]
    assert tally.scores()["box_ap_interval"] is None


def test_labels_and_masks_that_do_not_fit_are_refused() -> None:
    box, tally = [[5, 5, 30, 30]], PrecisionTally(("shirt",))
    with pytest.raises(ValueError, match="a detection has a label of 1 to 1; there are 1 classes from 0"):
        tally.add(found_of(box, [0.5], [1]), truth_of(box, [0]))
    with pytest.raises(ValueError, match="an object has a label of -1 to 0"):
        tally.add(found_of(), truth_of(box * 2, [-1, 0]))
    small = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros((0, 9, 9), bool))
    with pytest.raises(ValueError, match=r"masks found are \[9, 9\] and true ones \[160, 160\]"):
        tally.add(small, truth_of(box, [0]))
    assert len(tally) == 0


def box_ap(tally: PrecisionTally) -> float:
    """The evaluator's own figure, without an interval."""
    precision = tally._evaluated("bbox").eval["precision"][..., 0, -1]
    return float(precision[precision > -1].mean())


@pytest.mark.parametrize("seed", [0, 1])
def test_a_resample_is_what_the_evaluator_says_of_images_drawn_anew(seed: int) -> None:
    pairs = scenes(8, seed, digits=9)  # among equal scores of several images the order would be another
    tally = tally_of(pairs)
    ranked = list(tally._ranked(tally._evaluated("bbox")))
    assert resampled_precision(ranked, np.ones(8, np.int64)) == pytest.approx(box_ap(tally), abs=1e-12)
    for times in times_drawn(seed, "some", range(2), 8):
        again = [pair for pair, number in zip(pairs, times.tolist(), strict=True) for _ in range(number)]
        assert resampled_precision(ranked, times) == pytest.approx(box_ap(tally_of(again)), abs=1e-12)


def test_a_resample_without_any_object_has_no_figure() -> None:
    box = [[5, 5, 30, 30]]
    tally = tally_of([(found_of(box, [0.5], [0]), truth_of(box, [0])), (found_of(), truth_of())])
    ranked = list(tally._ranked(tally._evaluated("bbox")))
    assert np.isnan(resampled_precision(ranked, np.array([0, 2])))
    assert tally.scores(seed=0)["box_ap_interval"] == pytest.approx((1.0, 1.0))


def test_the_interval_is_that_of_the_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(average_precision, "NUM_RESAMPLES", 40)
    tally = tally_of(scenes(8))
    ranked, told = list(tally._ranked(tally._evaluated("bbox"))), tally.scores(seed=3)
    values = [resampled_precision(ranked, times) for times in times_drawn(3, "box ap", range(40), 8)]
    assert told["box_ap_interval"] == pytest.approx(bootstrap_interval(told["box"]["ap"], np.array(values), 8), abs=1e-12)
    assert told["box_ap_interval"][0] < told["box"]["ap"] < told["box_ap_interval"][1]
