"""A chain of networks is judged by pixels or boxes and by the task's metric; whatever is not the model that was trained fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from g2sd_export.dense.exam import tolerance_of
from g2sd_export.dense.proof import DenseHop, DenseWhole, Scorer, prove_dense
from g2sd_export.dense.questions import DenseAnswers, questions_of
from g2sd_export.edge.dense.task import DenseTask
from g2sd_export.edge.errors import UserError
from g2sd_export.proof import Link, Proof
from g2sd_export.targets import DenseLimits

from .conftest import DETECTION, SEGMENTATION, SLIDING, TorchNet, make_images, make_module, metric_of

Infer = Callable[[npt.NDArray[np.uint8]], tuple[npt.NDArray[Any], ...]]
LIMITS = DenseLimits()


class Net:
    """A network made of a function."""

    name, version = "fake", "1"

    def __init__(self, infer: Infer) -> None:
        self.infer = infer


def prove(task: DenseTask, candidate: Any, *, metric: Any = None, drop: float | None = LIMITS.max_metric_drop_points) -> Proof[Any, Any]:
    questions, module = questions_of(make_images(), task), make_module(task.kind)
    tolerance = tolerance_of(LIMITS, task)
    links = [Link("torch", TorchNet(module, task)), Link("file", candidate, tolerance, "" if candidate else "no runtime")]
    scorer = Scorer(metric or metric_of(task, questions, module), questions)
    return prove_dense(links, questions, scorer, DenseWhole(tolerance, drop), batch_size=2)


def shaken(task: DenseTask) -> TorchNet:
    module = make_module(task.kind)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return TorchNet(module, task)


def mutated(task: DenseTask, change: str) -> Any:
    own = TorchNet(make_module(task.kind), task)
    dense = task.kind == "segmentation"
    match change:
        case "swapped channels":
            return Net(lambda images: own.infer(images[..., ::-1].copy()))
        case "labels in another order" if dense:
            return Net(lambda images: (own.infer(images)[0][:, [1, 0, 2, 3]],))
        case "labels in another order":
            return Net(lambda images: tuple((3 - one) if index == 2 else one for index, one in enumerate(own.infer(images))))
        case "weights perturbed":
            return shaken(task)
        case "another mean":
            return TorchNet(own.module, replace(task, mean=(0.6, 0.5, 0.4)))
        case "turned maps" if dense:
            return Net(lambda images: (own.infer(images)[0].swapaxes(2, 3).copy(),))
        case "turned maps":
            return Net(lambda images: (own.infer(images)[0][..., [1, 0, 3, 2]], *own.infer(images)[1:]))
        case "masks upside down":
            return Net(lambda images: (*own.infer(images)[:3], own.infer(images)[3][:, :, ::-1].copy()))
        case "scores halved":
            return Net(lambda images: tuple(one / 2 if index == 1 else one for index, one in enumerate(own.infer(images))))
    raise AssertionError(change)


MUTATIONS = ("swapped channels", "labels in another order", "weights perturbed", "another mean", "turned maps")


@pytest.mark.parametrize("task", [SEGMENTATION, SLIDING, DETECTION], ids=["segmentation", "slide", "detection"])
def test_the_same_network_passes_with_nothing_changed(task: DenseTask) -> None:
    proof = prove(task, TorchNet(make_module(task.kind), task))
    assert (proof.verdict, proof.reason) == ("passed", "")
    found = proof.whole.to_dict()
    shares = ["changed_share", "worst_changed_share"] if task.kind == "segmentation" else ["unmatched_share", "mask_changed_share"]
    assert [found[key] for key in shares] == [0.0, 0.0] and found["num_images"] == 5
    assert found["miou_candidate" if task.kind == "segmentation" else "ap_candidate"] == 1.0


@pytest.mark.parametrize(
    ("task", "change"),
    [*((task, change) for task in (SEGMENTATION, SLIDING, DETECTION) for change in MUTATIONS), (DETECTION, "masks upside down")],
    ids=lambda value: f"{value.kind}-{value.inference}" if isinstance(value, DenseTask) else value,
)
def test_a_network_that_is_not_the_one_that_was_trained_fails_by_its_answers(task: DenseTask, change: str) -> None:
    proof = prove(task, mutated(task, change), metric=lambda results: {"miou": 1.0}, drop=None)
    assert proof.verdict == "failed" and "tolerated" in proof.reason


def test_a_detector_that_is_less_sure_fails_by_its_scores() -> None:
    proof = prove(DETECTION, mutated(DETECTION, "scores halved"), drop=None)
    assert proof.verdict == "failed" and ("a score differs by" in proof.reason or "no partner" in proof.reason)


def test_points_that_are_lost_fail_the_whole_though_the_answers_agree() -> None:
    scores = iter([{"ap": 0.5, "mask_ap": 0.4}, {"ap": 0.5, "mask_ap": 0.39}])
    proof = prove(DETECTION, TorchNet(make_module("detection"), DETECTION), metric=lambda results: next(scores))
    assert proof.hops[0].verdict == "passed" and proof.verdict == "failed"
    assert proof.whole.reason == "1 points of mask_ap are lost, tolerated 0.1"
    assert proof.whole.drops == {"ap": 0.0, "mask_ap": pytest.approx(1.0)}


def test_a_metric_that_is_undefined_neither_passes_nor_fails_anything() -> None:
    proof = prove(DETECTION, TorchNet(make_module("detection"), DETECTION), metric=lambda results: {"ap": None, "mask_ap": None})
    assert proof.verdict == "passed" and proof.whole.drops == {} and proof.whole.to_dict()["ap_reference"] is None


def broken(change: str) -> Infer:
    own = TorchNet(make_module("segmentation"), SEGMENTATION)

    def gives_up(images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[Any], ...]:
        raise UserError("out of memory")

    return {"gives up": gives_up, "one row too few": lambda images: (own.infer(images)[0][1:],)}[change]


@pytest.mark.parametrize(("change", "words"), [("gives up", "gives up: out of memory"), ("one row too few", "wanted one answer per image")])
def test_an_answer_that_does_not_come_is_a_failure(change: str, words: str) -> None:
    proof = prove(SEGMENTATION, Net(broken(change)))
    assert proof.verdict == "failed" and words in proof.reason and proof.whole.agreement is None


def test_what_cannot_run_here_is_not_run_with_the_reason() -> None:
    proof = prove(SEGMENTATION, None)
    assert (proof.verdict, proof.reason) == ("not_run", "file against torch: no runtime")


def test_answers_to_other_images_are_refused_and_answers_are_asked_for_once() -> None:
    questions, module = questions_of(make_images(), SEGMENTATION), make_module("segmentation")
    asked: list[int] = []

    def counted(images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[Any], ...]:
        asked.append(len(images))
        return TorchNet(module, SEGMENTATION).infer(images)

    def metric(results: Iterable[Any]) -> dict[str, float | None]:
        scored.append(len(list(results)))
        return {"miou": 1.0}

    scored: list[int] = []
    scorer, tolerance = Scorer(metric, questions), tolerance_of(LIMITS, SEGMENTATION)
    first = prove_dense([Link("a", Net(counted)), Link("b", Net(counted), tolerance)], questions, scorer, DenseWhole(tolerance))
    again = prove_dense([Link("a", first.answers["a"]), Link("b", first.answers["b"], tolerance)], questions, scorer, DenseWhole(tolerance))
    assert again.verdict == "passed" and asked == [4, 1, 4, 1] and scored == [5, 5]
    other = questions_of(make_images()[:2], SEGMENTATION)
    with pytest.raises(ValueError, match="answers of a belong to other images"):
        prove_dense([Link("a", first.answers["a"]), Link("b", Net(counted))], other, scorer, DenseWhole(tolerance))


def test_a_hop_as_json_holds_the_shares_the_metrics_and_what_was_tolerated() -> None:
    found = prove(SEGMENTATION, shaken(SEGMENTATION)).whole
    assert isinstance(found, DenseHop) and isinstance(found.agreement, object)
    plain = found.to_dict()
    assert list(plain)[:5] == ["name", "after", "verdict", "reason", "num_images"]
    assert 0 < plain["changed_share"] <= plain["worst_changed_share"] <= 1
    assert plain["miou_reference"] == 1.0 and 0 < plain["miou_candidate"] < 1
    assert plain["tolerance"] == {"changed_share": 0.001, "changed_share_of_image": 0.01} and plain["reference"] == "torch test"


def test_no_image_is_no_proof() -> None:
    questions = questions_of([], SEGMENTATION)
    nets = [Link(name, TorchNet(make_module("segmentation"), SEGMENTATION), tolerance_of(LIMITS, SEGMENTATION)) for name in "ab"]
    proof = prove_dense(nets, questions, Scorer(lambda _: {}, questions), DenseWhole(tolerance_of(LIMITS, SEGMENTATION)))
    assert proof.verdict == "not_run" and isinstance(proof.answers["a"], DenseAnswers)
