"""Images are cut once, asked in batches that do not care where an image ends, and answered at their own size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from g2sd_export.answers import Count
from g2sd_export.dense.questions import DenseAnswers, answers_to, ask_of, calls_of, questions_of
from g2sd_export.edge.dense.applying import detect, segment
from g2sd_export.edge.dense.task import DenseTask

from .conftest import DETECTION, PX, SEGMENTATION, SIZES, SLIDING, TorchNet, make_images, make_module


def asked(task: DenseTask, batch_size: int) -> tuple[DenseAnswers, TorchNet]:
    questions, network = questions_of(make_images(), task), TorchNet(make_module(task.kind), task)
    return answers_to(network, questions, batch_size=batch_size, count=Count(None, 0)), network


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("task", [SEGMENTATION, SLIDING], ids=["whole", "slide"])
def test_maps_are_those_that_the_device_makes_whatever_the_batch(task: DenseTask, batch_size: int) -> None:
    answers, network = asked(task, batch_size)
    assert [one.shape for one in answers.maps] == list(SIZES)
    for found, pixels in zip(answers.maps, make_images(), strict=True):
        assert (found == segment(network.infer, pixels, task)).mean() > 0.999


def test_objects_are_those_that_the_device_finds() -> None:
    answers, network = asked(DETECTION, 4)
    found = list(answers.results(questions_of(make_images(), DETECTION)))
    for one, pixels in zip(found, make_images(), strict=True):
        wanted = detect(network.infer, pixels, DETECTION)
        assert not isinstance(one, np.ndarray) and len(one) == len(wanted)
        np.testing.assert_allclose(one.boxes, wanted.boxes, atol=1e-4)
    assert sum(len(one) for one in found) > 3  # the metric has something to look at


def test_each_image_owns_its_windows_and_the_calls_are_counted() -> None:
    questions = questions_of(make_images(), SLIDING)
    counts = [len(placement.windows) for placement in questions.placements]
    assert max(counts) > 1 and [stop - start for start, stop in questions.bounds] == counts
    assert questions.bounds[0][0] == 0 and questions.bounds[-1][1] == len(questions.windows)
    told: list[tuple[int, int]] = []
    count = Count(lambda done, total: told.append((done, total)), calls_of(questions, 4))
    answers_to(TorchNet(make_module("segmentation"), SLIDING), questions, batch_size=4, count=count)
    assert told[-1] == (-(-sum(counts) // 4),) * 2


def test_what_a_network_says_of_the_padding_is_nobodys_answer() -> None:
    image = make_images()[3]  # 24 rows of 90 columns: most of the square is padding
    questions = questions_of([image], SEGMENTATION)

    class Noise:
        name, version = "noise", "1"

        def infer(self, images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], ...]:
            return (np.full((len(images), PX, PX), 3, np.uint8),)

    answers = answers_to(Noise(), questions, batch_size=1, count=Count(None, 0))
    rows = questions.placements[0].resized[0]
    assert rows < PX and (answers.answer["classes"][0, :rows] == 3).all() and not answers.answer["classes"][0, rows:].any()


def test_the_digest_is_of_the_pixels() -> None:
    questions, other = questions_of(make_images(), SEGMENTATION), questions_of(make_images()[::-1], SEGMENTATION)
    assert questions.digest == questions_of(make_images(), SEGMENTATION).digest != other.digest


def test_answers_are_the_same_in_one_call_and_in_many() -> None:
    questions, network = questions_of(make_images(), DETECTION), TorchNet(make_module("detection"), DETECTION)
    many, one = (ask_of(network.infer, questions.windows, DETECTION, batch_size=size) for size in (2, 64))
    np.testing.assert_allclose(many["boxes"], one["boxes"], atol=1e-4)
