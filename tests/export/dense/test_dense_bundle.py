"""The bundle of a segmenter or a detector: whole, self-tested, the same at every export, and used by `python -m edge`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from g2sd_export.bundle import BuiltVariant, Variant
from g2sd_export.bundle.diffing import diff_bundles
from g2sd_export.bundle.schema import manifest_problems
from g2sd_export.bundle.verifying import verify
from g2sd_export.dense.bundle import PickedSample, input_of, output_of, write_dense_bundle
from g2sd_export.dense.exam import open_network, tolerance_of
from g2sd_export.dense.picking import device_tolerance, difference_of, pick_windows
from g2sd_export.dense.questions import ask_of
from g2sd_export.edge.dense.outputs import output_names
from g2sd_export.edge.dense.task import DenseTask
from g2sd_export.edge.errors import UserError
from g2sd_export.edge.manifest import open_bundle
from g2sd_export.edge.selftest import run_selftests
from g2sd_export.targets import DenseLimits

from .conftest import CLASS_NAMES, DETECTION, SEGMENTATION, Made, TorchNet, make_images

Shipped = Callable[[DenseTask], Made]
BOTH = pytest.mark.parametrize("task", [SEGMENTATION, DETECTION], ids=lambda task: task.kind)


def write(made: Made, folder: Path, **changes: Any) -> Path:
    task, questions, reference = made.task, made.questions, TorchNet(made.module, made.task)
    ways = made.shipment.shipped("passed")
    answers = [next(iter(ways[0].proof.answers.values())).answer, *(way.proof.answers[way.name].answer for way in ways)]  # type: ignore[union-attr]
    windows = questions.windows[pick_windows(questions, answers, tolerance_of(DenseLimits(), task), 2)]
    sample = PickedSample(task, windows, ask_of(reference.infer, windows, task), make_images()[0])
    variants = []
    for way in ways:
        assert way.file is not None and way.proof is not None
        golden, path, candidate = ask_of(way.runner.infer, windows, task), way.file.path, way.outcome.candidate

        def opened(threads: int, candidate: Any = candidate, path: Path = path) -> Any:
            return open_network(candidate, path, task, len(CLASS_NAMES), threads=threads)

        outputs = reference.infer(windows[:1])
        names = output_names(task, ("boxes", "scores", "labels", "masks") if task.kind == "detection" else ("logits",))
        variant = Variant(
            name=way.name,
            file=f"models/{path.name}",
            precision=candidate.precision,
            runtime=candidate.runtime,
            settings=way.settings,
            input=input_of(task),
            output=output_of(names, outputs),
            verdict="passed",
            reason="",
            hops=tuple(hop.to_dict() for hop in (*way.proof.hops, way.proof.whole)),
            tolerance=way.proof.whole.tolerance,
            device_tolerance=device_tolerance(opened, windows, golden, sample.answer, task),
        )
        variants.append(BuiltVariant(variant, path, golden))
    arguments: dict[str, Any] = {
        "name": "tiny",
        "variants": variants,
        "default": variants[0].variant.name,
        "class_names": CLASS_NAMES,
        "sample": sample,
        "target": made.target.to_dense_dict(),
        "licences": {"model": "MIT"},
        "provenance": {"evaluated_on": "made-up", "candidates": [{**way.outcome.to_dict(), "p50_ms": None} for way in made.shipment.ways]},
        "verdict": "passed",
        "program_version": "1.2.3",
        "threads": 1,
    }
    return write_dense_bundle(folder, **{**arguments, **changes})


@pytest.fixture(scope="session")
def bundle_of(shipped: Shipped, tmp_path_factory: pytest.TempPathFactory) -> Callable[[DenseTask], Path]:
    known: dict[str, Path] = {}

    def made(task: DenseTask) -> Path:
        if task.kind not in known:
            known[task.kind] = write(shipped(task), tmp_path_factory.mktemp("bundle") / task.kind)
        return known[task.kind]

    return made


@BOTH
def test_a_bundle_is_whole_says_its_task_and_passes_its_self_test(task: DenseTask, bundle_of: Callable[[DenseTask], Path]) -> None:
    folder = bundle_of(task)
    assert verify(folder).deviations == ()
    bundle = open_bundle(folder)
    assert (bundle.verdict, bundle.reason, bundle.task, bundle.class_names) == ("passed", "", task, CLASS_NAMES)
    results = run_selftests(folder, threads=1)
    assert [result.verdict for result in results] == ["passed"] * 3 and all(result.device_agreement for result in results)


@BOTH
def test_the_same_inputs_give_the_same_bundle(
    task: DenseTask, bundle_of: Callable[[DenseTask], Path], shipped: Shipped, tmp_path: Path
) -> None:
    again = write(shipped(task), tmp_path / "again")
    assert open_bundle(again).digest == open_bundle(bundle_of(task)).digest and diff_bundles(bundle_of(task), again) == []


@BOTH
def test_the_copied_code_answers_inside_the_bundle(task: DenseTask, bundle_of: Callable[[DenseTask], Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edge", "predict", "sample.png", "--threads", "1", "--json", "--out", str(tmp_path / "drawn")]
    done = subprocess.run(command, cwd=bundle_of(task), env={"PATH": "/usr/bin"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["image"] == "sample.png" and list((tmp_path / "drawn").glob("sample*.png"))


@BOTH
def test_card_and_bill_tell_the_task_and_its_metrics(task: DenseTask, bundle_of: Callable[[DenseTask], Path]) -> None:
    card = (bundle_of(task) / "README.md").read_text(encoding="utf-8")
    words = ("image-segmentation", "mIoU 100.00%") if task.kind == "segmentation" else ("object-detection", "box AP 100.00%")
    assert all(word in card for word in words) and "| top-1" not in card and "image-classification" not in card
    assert "padded at the right and the bottom" in card and "predict IMAGE --out DIR" in card
    assert "int8-openvino" in card
    bill = json.loads((bundle_of(task) / "sbom.cdx.json").read_bytes())
    assert task.kind in bill["metadata"]["component"]["description"].replace("semantic ", "").replace("object ", "")
    metrics = bill["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert {metric["type"] for metric in metrics} == {words[1].split(" 100")[0]}


def test_a_file_of_another_model_fails_its_own_self_test_and_the_bundle_says_so(shipped: Shipped, tmp_path: Path) -> None:
    made = shipped(SEGMENTATION)
    windows = made.questions.windows[:2]
    wrong = {"classes": 3 - ask_of(TorchNet(made.module, made.task).infer, windows, made.task)["classes"]}
    folder = write(made, tmp_path / "bundle", sample=PickedSample(SEGMENTATION, windows, wrong, make_images()[0]))
    bundle = open_bundle(folder)
    assert bundle.verdict == "failed" and "fails its own self-test" in bundle.reason and "change their class" in bundle.reason


def test_labels_in_another_order_than_the_file_has_them_are_refused(shipped: Shipped, tmp_path: Path) -> None:
    bundle = open_bundle(write(shipped(DETECTION), tmp_path / "bundle", class_names=CLASS_NAMES[::-1]))
    assert bundle.verdict == "failed" and "was made with other class names" in bundle.reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda facts: facts.pop("task"), "is none of classification"),
        (lambda facts: facts["task"].update(image_px=64), "ask for other images"),
        (lambda facts: facts["task"].update(kind="panoptic"), "task.kind is"),
        (lambda facts: facts["variants"][0]["output"].update(name="scores"), "none of segmentation"),
        (
            lambda facts: facts["variants"][0].update(tolerance={"max_abs_logit_diff": 1.0, "flipped_share": 0.0}),
            "its tolerance is none of",
        ),
    ],
)
def test_a_manifest_that_mixes_tasks_contradicts_itself(
    change: Callable[[dict[str, Any]], None], words: str, bundle_of: Callable[[DenseTask], Path]
) -> None:
    facts = json.loads((bundle_of(SEGMENTATION) / "manifest.json").read_bytes())
    assert manifest_problems(facts) == []
    change(facts)
    assert any(words in problem for problem in manifest_problems(facts)), manifest_problems(facts)


def test_a_sample_whose_answers_do_not_fit_is_refused(shipped: Shipped, tmp_path: Path) -> None:
    made = shipped(SEGMENTATION)
    windows = made.questions.windows[:2]
    short = PickedSample(SEGMENTATION, windows, {"classes": np.zeros((1, 32, 32), np.uint8)}, make_images()[0])
    with pytest.raises(UserError, match="the sample has 2 images, and the answers of the reference"):
        write(made, tmp_path / "bundle", sample=short)
    unknown = replace(short, answer={"classes": np.full((2, 32, 32), 9, np.uint8)})
    with pytest.raises(UserError, match="the reference answers class 9"):
        write(made, tmp_path / "bundle", sample=unknown)


def test_samples_are_images_on_which_all_files_agree(shipped: Shipped) -> None:
    made = shipped(SEGMENTATION)
    answers = made.shipment.base.answers
    own = {"classes": next(iter(answers.values())).answer["classes"]}
    other = {"classes": own["classes"].copy()}
    other["classes"][1] = 3 - other["classes"][1]
    tolerance = tolerance_of(DenseLimits(), SEGMENTATION)
    assert pick_windows(made.questions, [own, own], tolerance, 5) == [0, 1, 2, 3, 4]
    assert pick_windows(made.questions, [own, other], tolerance, 5) == [0, 2, 3, 4]
    assert pick_windows(made.questions, [own, other], tolerance, 2) == [0, 4]
    found = difference_of(own, other, SEGMENTATION).to_dict()
    assert found["changed_share_of_image"] == pytest.approx(5 * found["changed_share"]) and found["changed_share"] > 0.1
