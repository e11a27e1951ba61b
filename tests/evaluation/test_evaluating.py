"""Several models on several sets, by figures that can be worked out by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from g2sd_deploy.data.images import BadImage, ImageSet
from g2sd_deploy.data.testsets import LabelSpace, Scoring, TestSet
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.evaluation.evaluating import Competitor, Evaluator, Teacher
from g2sd_deploy.evaluation.predictions import PredictionWriter, columns_of, predictions_file
from g2sd_deploy.settings import CorruptionSettings, EvaluateSettings, OcclusionSettings
from g2sd_export.edge.preprocess import Preprocessing, normalise

PRE = Preprocessing(image_px=16, resize_px=16, num_channels=1, mean=(0.5,), std=(0.5,))
CLASSES = ("top left", "top right", "bottom left", "bottom right")
NUM = 16


class BrightQuarter:
    """Says which quarter of the image is the brightest; with `blind` it says the same for every image."""

    name, version, preprocessing = "quarters", "1", PRE

    def __init__(self, *, blind: bool = False, order: tuple[int, ...] = (0, 1, 2, 3)) -> None:
        self._blind, self._order = blind, list(order)

    def prepare(self, images: np.ndarray) -> np.ndarray:
        return normalise(images, PRE)

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        quarters = inputs.reshape(len(inputs), 2, 8, 2, 8).mean(axis=(2, 4)).reshape(len(inputs), 4)
        return (0 * quarters if self._blind else 4 * quarters)[:, self._order].astype(np.float32)

    def infer(self, images: np.ndarray) -> np.ndarray:
        return self.forward(self.prepare(images))


def competitor(names: tuple[str, ...] | None = CLASSES, **options: Any) -> Competitor:
    return Competitor(BrightQuarter(**options), LabelSpace.of(names, 4), 0, 2**20, "digest")


def images() -> ImageSet:
    """One bright patch of 4 x 4 px in the middle of the right quarter, which is not the first in reading order."""
    labels = np.arange(NUM, dtype=np.int64) % 4
    pixels = np.full((NUM, 16, 16, 1), 100, np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        image[8 * (label // 2) + 4 :, 8 * (label % 2) + 4 :][:4, :4] = 255
    return ImageSet(pixels, labels)


def hand_made(**options: Any) -> TestSet:
    found = images()
    return TestSet("set", found, (Scoring("set", found.labels, CLASSES, False, "by hand", **options),), "fingerprint")


def evaluator(competitors: dict[str, Competitor] | None = None, **options: Any) -> Evaluator:
    defaults = {"seed": 0, "batch_size": 5, "workers": 2, "tick": lambda done, total, note: None}
    return Evaluator(competitors or {"m": competitor()}, **{**defaults, **options})


def test_a_model_that_sees_is_right_and_one_that_does_not_is_at_chance() -> None:
    scored = evaluator({"sees": competitor(), "blind": competitor(blind=True)}, teacher=Teacher("sees")).score([hand_made()])
    sees, blind = (scored.models[name]["set"] for name in ("sees", "blind"))
    assert sees["top1"] == 1 and blind["top1"] == 0.25
    assert blind["nll"] == pytest.approx(np.log(4)) and blind["brier"] == pytest.approx(0.75) and blind["ece"] == pytest.approx(0)
    assert blind["agreement"]["same"] == 0.25 and sees["agreement"] is None
    assert sees["per_class"]["top1"] == [1.0] * 4 and blind["per_class"]["top1"] == [1.0, 0.0, 0.0, 0.0]
    assert scored.about["set"] == {
        "note": "by hand",
        "num_images": NUM,
        "num_classes": 4,
        "class_names": list(CLASSES),
        "num_skipped": 0,
        "skipped": [],
    }


def test_logits_in_another_order_are_brought_into_the_sets() -> None:
    shuffled = (2, 0, 3, 1)
    other = competitor(tuple(CLASSES[i] for i in shuffled), order=shuffled)
    scored = evaluator({"m": competitor(), "other": other}, teacher=Teacher("m")).score([hand_made()])
    assert scored.models["other"]["set"]["top1"] == 1
    assert scored.models["other"]["set"]["agreement"]["kl"] == pytest.approx(0, abs=1e-12)


def test_a_model_without_a_class_of_the_set_is_refused() -> None:
    with pytest.raises(UserError, match="lacks 1 of the set's 4: bottom right"):
        evaluator({"m": competitor(("top left", "top right", "bottom left", "nothing"))}).score([hand_made()])


def test_corruptions_are_scored_case_by_case() -> None:
    asked = CorruptionSettings(names=("contrast", "brightness"), severities=(1, 5), max_images=8)
    found = evaluator().corrupted(hand_made(), asked)["m"]
    assert {name: list(levels) for name, levels in found["corruptions"].items()} == {"contrast": ["1", "5"], "brightness": ["1", "5"]}
    values = [case["top1"] for levels in found["corruptions"].values() for case in levels.values()]
    assert found["mean_corruption_top1"] == pytest.approx(np.mean(values))
    assert all(case["num_images"] == 8 for levels in found["corruptions"].values() for case in levels.values())
    low, high = found["mean_corruption_interval"]
    assert low <= found["mean_corruption_top1"] <= high


def look(pixels: np.ndarray) -> np.ndarray:
    """A teacher that looks at the brightest patch of 4 x 4 px."""
    return pixels.reshape(len(pixels), 4, 4, 4, 4).mean(axis=(2, 4)).reshape(len(pixels), 16)


def test_what_the_teacher_looks_at_is_what_the_model_needs() -> None:
    teacher = Teacher("m", look, PRE, 4)
    shares = (0.0, 1 / 16, 15 / 16, 1.0)
    curves, about = evaluator(teacher=teacher).occluded(hand_made(), OcclusionSettings(shares=shares, max_images=NUM))
    curve = curves["m"]
    assert about == {
        "shares": list(shares),
        "grid": 4,
        "num_images": NUM,
        "seed": 0,
        "salience": "m",
        "fill": "mean colour of the model",
    }
    # Without its one bright patch an image is uniform but for the patch that is painted 128, brighter than the rest: still its quarter.
    # Painted over last, the bright patch is all that is left.
    assert curve["salient_last"]["top1"][:3] == [1.0, 1.0, 1.0]
    assert curve["salient_first"]["top1"][3] == curve["random"]["top1"][3] == 0.25, "nothing is left: every image is the same"
    assert curve["random"]["relative"][0] == 1 and curve["random"]["relative"][3] == 0.25
    assert curve["random"]["interval"][0][0] < 1


def test_without_a_teacher_that_can_be_looked_into_patches_go_at_random_only() -> None:
    for options in ({}, {"teacher": Teacher("m")}):
        curves, about = evaluator(**options).occluded(hand_made(), OcclusionSettings(shares=(0.0, 1.0), max_images=4))
        assert list(curves["m"]) == ["random"] and about["salience"] is None and about["num_images"] == 4


@pytest.mark.parametrize(("sides", "grid"), [((224,), 14), ((28,), 4), ((32,), 4), ((260,), 13), ((224, 240), 8), ((30,), 3)])
def test_patches_that_nobody_tells_are_of_about_16_px_and_cut_every_input_evenly(sides: tuple[int, ...], grid: int) -> None:
    competitors = {}
    for side in sides:
        runner = BrightQuarter()
        runner.preprocessing = replace(PRE, image_px=side, resize_px=side)
        competitors[str(side)] = replace(competitor(), runner=runner)
    assert evaluator(competitors)._grid() == grid


def stored(name: str, severity: int) -> TestSet:
    """A folder of ImageNet-C whose first `severity` images of each class show nothing."""
    found = images()
    pixels = found.images.copy()
    pixels[: 4 * (severity - 1)] = 100
    scoring = Scoring("imagenet-c", found.labels, CLASSES, False, "stored")
    return TestSet(f"{name}/{severity}", ImageSet(pixels, found.labels), (scoring,), "f", as_stored=True, corruption=(name, severity))


def test_the_folders_of_imagenet_c_are_one_set() -> None:
    scored = evaluator().score([stored("fog", 1), stored("fog", 3), stored("snow", 1)])
    found = scored.models["m"]["imagenet-c"]
    assert {name: {level: case["top1"] for level, case in levels.items()} for name, levels in found["corruptions"].items()} == {
        "fog": {"1": 1.0, "3": 0.5 + 0.5 * 0.25},
        "snow": {"1": 1.0},
    }
    assert found["mean_error"] == pytest.approx((0.375 / 2 + 0) / 2)
    assert found["mce"] is None, "15 corruptions at 5 severities are needed"
    assert scored.about["imagenet-c"]["num_images"] == NUM


def test_every_answer_is_written_down(tmp_path: Path) -> None:
    with PredictionWriter(tmp_path, ("m",)) as writer:
        one = evaluator(writer=writer)
        one.score([hand_made(), stored("fog", 3)])
        one.corrupted(hand_made(), CorruptionSettings(names=("contrast",), severities=(2,), max_images=4))
    file = tmp_path / predictions_file("m")
    assert columns_of(file, "set")["correct"].tolist() == [True] * NUM
    assert columns_of(file, "imagenet-c", "fog/3")["correct"].sum() == 10
    assert columns_of(file, "set", "contrast/2")["index"].tolist() == [0, 4, 8, 12]


def test_images_that_are_skipped_are_told() -> None:
    class Holes(ImageSet):
        def read(self, index: int) -> np.ndarray:
            if index == 3:
                raise BadImage("it is gone")
            return super().read(index)

    found = images()
    holes = replace(hand_made(), samples=Holes(found.images, found.labels))
    scored = evaluator(max_bad=1).score([holes])
    assert scored.about["set"]["num_skipped"] == 1 and scored.about["set"]["skipped"] == [{"name": "image 3", "reason": "it is gone"}]
    assert scored.models["m"]["set"]["num_images"] == NUM - 1


def test_a_set_of_which_nothing_can_be_scored_is_no_score() -> None:
    class Gone(ImageSet):
        def read(self, index: int) -> np.ndarray:
            raise BadImage(f"{index} is gone")

    found = images()
    gone = replace(hand_made(), samples=Gone(found.images, found.labels))
    one = evaluator(max_bad=NUM)
    works = (
        lambda: one.score([gone]),
        lambda: one.corrupted(gone, CorruptionSettings(names=("contrast",), severities=(2,), max_images=4)),
        lambda: one.occluded(gone, OcclusionSettings(shares=(0.0, 1.0), max_images=4)),
    )
    for work in works:
        with pytest.raises(RunFailed, match=r"^set: none of the 16 images can be scored"):
            work()


def test_what_is_asked_for_is_added_to_the_models() -> None:
    settings = EvaluateSettings(
        corruptions=CorruptionSettings(names=("contrast",), severities=(2,), max_images=4),
        occlusion=OcclusionSettings(shares=(0.0, 1.0), max_images=4),
    )
    one, models = evaluator(), {"m": dict[str, Any]()}
    common = one.stressed(hand_made(), settings, models)
    assert set(models["m"]) == {"corruptions", "mean_corruption_top1", "mean_corruption_interval", "occlusion"}
    assert common["num_corruption_images"] == 4 and "regenerated" in common["corruption_note"] and common["occlusion"]["num_images"] == 4
    assert evaluator().stressed(hand_made(), EvaluateSettings(), {"m": {}}) == {}
