"""Scoring through a model that answers what its pixels say."""

import numpy as np
import pytest

from g2sd_deploy.data.corruptions.api import corrupt
from g2sd_deploy.data.images import ImageSet
from g2sd_deploy.evaluation.metrics import classification_metrics
from g2sd_deploy.evaluation.scoring import logits_of, mean_top1, score_corruptions
from g2sd_export.edge.preprocess import Preprocessing, normalise

PREPROCESSING = Preprocessing(image_px=16, resize_px=16, num_channels=1, mean=(0.5,), std=(0.5,))


class Brightness:
    """Logits from the mean of each image; remembers what it was shown."""

    name, version, preprocessing = "brightness", "1", PREPROCESSING

    def __init__(self) -> None:
        self.shown: list[np.ndarray] = []

    def prepare(self, images: np.ndarray) -> np.ndarray:
        return normalise(images, PREPROCESSING)

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        mean = inputs.mean(axis=(1, 2, 3))
        return np.stack([-mean, mean], axis=1).astype(np.float32)

    def infer(self, images: np.ndarray) -> np.ndarray:
        self.shown.append(images)
        return self.forward(self.prepare(images))


def image_set(num: int = 12) -> ImageSet:
    """Dark images of class 0 and bright ones of class 1."""
    random, labels = np.random.default_rng(0), np.arange(num, dtype=np.int64) % 2
    pixels = random.integers(0, 100, (num, 16, 16, 1)) + 150 * labels[:, None, None, None]
    return ImageSet(pixels.astype(np.uint8), labels)


def scored(runners: dict[str, Brightness], *, max_images: int = 6, batch_size: int = 4, seed: int = 0) -> dict[str, object]:
    told: list[tuple[int, int, str]] = []
    scores = score_corruptions(
        dict(runners),
        image_set(),
        names=("gaussian_noise", "contrast"),
        severities=(1, 5),
        max_images=max_images,
        batch_size=batch_size,
        seed=seed,
        tick=lambda done, total, note: told.append((done, total, note)),
    )
    assert [(done, total) for done, total, _ in told] == [(i, 4) for i in range(5)]
    assert told[2][2] == "gaussian_noise severity 5"
    return dict(scores)


@pytest.mark.parametrize("batch_size", [1, 5, 12, 100])
def test_logits_are_those_of_each_image_in_order_whatever_the_batch(batch_size: int) -> None:
    runner, images = Brightness(), image_set().images
    logits = logits_of(runner, images, batch_size)
    np.testing.assert_array_equal(logits, Brightness().infer(images))
    sizes = [len(shown) for shown in runner.shown]
    assert sum(sizes) == 12
    assert set(sizes[:-1]) <= {batch_size}


def test_every_model_is_scored_on_the_same_corrupted_images() -> None:
    runners = {"teacher": Brightness(), "student": Brightness()}
    scores = scored(runners)
    assert scores["teacher"] == scores["student"]
    assert all(np.array_equal(one, two) for one, two in zip(runners["teacher"].shown, runners["student"].shown, strict=True))
    assert {name: set(cases) for name, cases in scores["teacher"].items()} == {"gaussian_noise": {"1", "5"}, "contrast": {"1", "5"}}


def test_a_score_is_the_metrics_of_the_corrupted_images_spread_over_the_set() -> None:
    scores, images, picks = scored({"m": Brightness()}), image_set(), np.array([0, 2, 4, 6, 8, 10])
    corrupted = corrupt(images.images[picks], "gaussian_noise", 5, keys=picks.tolist(), seed=0)
    expected = classification_metrics(Brightness().infer(corrupted), images.labels[picks])
    assert scores["m"]["gaussian_noise"]["5"] == expected.to_dict()


def test_an_image_keeps_its_corruption_however_many_are_corrupted() -> None:
    few, many = Brightness(), Brightness()
    scored({"m": few}, max_images=3, batch_size=100)
    scored({"m": many}, max_images=99, batch_size=100)
    assert many.shown[0].shape[0] == 12
    assert all(np.array_equal(some, whole[[0, 4, 8]]) for some, whole in zip(few.shown, many.shown, strict=True))


def test_another_seed_draws_other_noise() -> None:
    one, other = Brightness(), Brightness()
    scored({"m": one}, seed=0)
    scored({"m": other}, seed=1)
    assert not np.array_equal(one.shown[0], other.shown[0])


def test_the_mean_over_corruptions_weighs_every_case_alike() -> None:
    scores = {"noise": {"1": {"top1": 0.9, "nll": 3.0}, "2": {"top1": 0.6}}, "blur": {"1": {"top1": 0.3}}}
    assert mean_top1(scores) == pytest.approx(0.6)
