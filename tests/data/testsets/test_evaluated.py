"""Every variant at once through the evaluation that people use, by figures worked out by hand."""

from typing import Any

import numpy as np
import pytest

from g2sd_deploy.data.testsets.label_spaces import imagenet_subset, imagenet_wnids
from g2sd_deploy.evaluation.evaluating import Competitor, Evaluator
from g2sd_export.edge.preprocess import Preprocessing

FIT = Preprocessing(image_px=32, resize_px=36, num_channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)


class ToyRunner:
    """The toy model behind the interface of every model."""

    name, version, preprocessing = "toy", "1", FIT

    def __init__(self, toy: Any) -> None:
        self._toy = toy

    def prepare(self, images: np.ndarray) -> np.ndarray:
        return images.astype(np.float32)

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        return np.stack([self._toy.logits(image.astype(np.uint8)) for image in inputs]).astype(np.float32)

    def infer(self, images: np.ndarray) -> np.ndarray:
        return self.forward(self.prepare(images))


@pytest.fixture
def evaluator(toy: Any) -> Evaluator:
    model = toy()
    competitor = Competitor(ToyRunner(model), model.space, 0, 1, "digest")
    return Evaluator({"toy": competitor}, seed=0, batch_size=64, workers=2, tick=lambda done, total, note: None)


def test_every_variant_of_imagenet_scores_what_was_painted(miniatures: Any, evaluator: Evaluator) -> None:
    order = imagenet_wnids()
    a, r = ({order.index(wnid) for wnid in imagenet_subset(which)} for which in "ar")  # type: ignore[arg-type]
    outside, other = min(set(range(1000)) - a - r), (lambda label: (label + 1) % 1000)
    # Validation: the truth is first below 500; above, a class that neither A nor R has is first, and the truth second.
    miniatures.val(lambda label: (label, other(label)) if label < 500 else (outside, label))
    # ReaL knows the first 10 images of the folder by number: 4 with the truth or with what is answered, 3 with another class, 3 with none.
    by_number = {1 + label * 37 % 1000: label for label in range(1000)}
    real = {number: [by_number[number]] for number in (1, 2)} | {number: [outside, by_number[number]] for number in (3, 4)}
    real |= {number: [other(by_number[number])] for number in (5, 6, 7)} | {number: [] for number in (8, 9, 10)}
    miniatures.real(real)
    miniatures.v2(lambda label: (label if label in (2, 10, 100) else other(label), label))
    miniatures.subset("a", lambda label: (outside, label))
    miniatures.subset("r", lambda label: (label if label % 2 else other(label), 0))
    miniatures.sketch(lambda label: (other(label), other(label)))
    miniatures.stored(["fog/1", "fog/5"], 7, lambda label: (label, 0) if label < 250 else (other(label), 0))
    names = ["imagenet-val", "imagenet-real", "imagenetv2-matched-frequency", "imagenet-a", "imagenet-r", "imagenet-sketch", "imagenet-c"]

    scored = evaluator.score(miniatures.open(*names))
    scores = scored.models["toy"]
    assert scores["imagenet-val"]["top1"] == 0.5 + (outside >= 500) / 1000
    assert scores["imagenet-val"]["top5"] >= 0.999, "the truth is first or second"
    right = [by_number[number] for number in (1, 2) if by_number[number] < 500 or by_number[number] == outside]
    assert scores["imagenet-real"]["num_images"] == 7
    assert scores["imagenet-real"]["top1"] == pytest.approx((len(right) + 2) / 7), "two images may be answered with either class"
    assert scores["imagenet-real"]["nll"] is None and scores["imagenet-real"]["per_class"] is None
    assert scores["imagenetv2-matched-frequency"]["top1"] == 3 / 1000
    assert scores["imagenet-a"]["top1"] == 1.0 and scores["imagenet-a"]["num_images"] == 200, "the wrong first answer is cut away"
    assert scores["imagenet-a-clean"]["top1"] == scores["imagenet-r-clean"]["top1"] == 1.0, "cut to their classes, the truth is first"
    odd = sum(label % 2 for label in r)
    assert scores["imagenet-r"]["num_images"] == 200 and scores["imagenet-r"]["top1"] >= odd / 200
    assert scores["imagenet-sketch"]["top1"] == 0.0
    stored = scores["imagenet-c"]
    assert {level: case["top1"] for level, case in stored["corruptions"]["fog"].items()} == {"1": 0.25, "5": 0.25}
    assert stored["mean_error"] == 0.75 and stored["mce"] is None, "resized, the frame of class 7 would be what the model reads"
    assert [scored.about[name]["num_images"] for name in ("imagenet-real", "imagenet-val", "imagenet-c")] == [7, 1000, 1000]


def test_all_the_corruptions_of_imagenet_c_give_the_mean_corruption_error(miniatures: Any, evaluator: Evaluator) -> None:
    from g2sd_deploy.data.corruptions import MEAN_CORRUPTIONS, SEVERITIES

    cases = [f"{name}/{severity}" for name in (*MEAN_CORRUPTIONS, "spatter") for severity in SEVERITIES]
    few = imagenet_wnids()
    miniatures.val(lambda label: (label, 0))
    root = miniatures.stored(["fog/1"], 7, lambda label: (label, 0) if label % 4 else (999, 0), few)
    for case in cases:
        if case != "fog/1":
            (root / case).parent.mkdir(exist_ok=True)
            (root / case).symlink_to(root / "fog" / "1", target_is_directory=True)
    scored = evaluator.score(miniatures.open("imagenet-val", "imagenet-c", max_images=40))
    found = scored.models["toy"]["imagenet-c"]
    assert scored.models["toy"]["imagenet-val"]["top1"] == 1.0
    alexnet = [0.886428, 0.894468, 0.92264, 0.81988, 0.826268, 0.785948, 0.79836, 0.866816, 0.826572, 0.819324]
    alexnet += [0.564592, 0.853204, 0.646056, 0.71784, 0.6065]
    error = found["corruptions"]["snow"]["3"]["top1"]
    assert 0 < error < 1 and found["mean_error"] == pytest.approx(1 - error)
    assert found["mce"] == pytest.approx(np.mean([(1 - error) / own for own in alexnet]))
    assert found["relative_mce"] == pytest.approx(np.mean([(1 - error) / (own - 0.43478) for own in alexnet]))
    assert "spatter" in found["corruptions"]
