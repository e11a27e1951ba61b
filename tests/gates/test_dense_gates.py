"""Gates on runs with a task: mIoU and average precision against the baseline's, by their intervals."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from g2sd_deploy.artifact import Identity, Made, commit, unfinished_folder
from g2sd_deploy.gates.checking import check
from g2sd_deploy.gates.collecting import snapshot_of
from g2sd_deploy.gates.limits import limit_gates
from g2sd_deploy.gates.outcome import Gate
from g2sd_deploy.gates.settings import AccuracyGate, GateSettings, Limits
from g2sd_deploy.gates.snapshot import Model, Score, Snapshot
from g2sd_deploy.gates.statistics import Sureness
from g2sd_deploy.gates.task_scores import scores_of, shipped_scores_of, task_gates

Make = Callable[..., Any]
NUM = 101


def score(value: float, half: float | None = None, num: int = NUM) -> Score:
    return Score(value=value, num_images=num, interval=None if half is None else (value - half, value + half))


def gates(before: Snapshot, after: Snapshot, name: str = "student", **settings: float) -> list[Gate]:
    return task_gates(name, before, after, AccuracyGate(**settings), Sureness())


def test_a_drop_fails_where_the_two_intervals_do_not_explain_it(snapshot: Make) -> None:
    before = snapshot(student=Model(scores={"miou": score(0.50, 0.02)}))
    (gate,) = gates(before, snapshot(student=Model(scores={"miou": score(0.45, 0.03)})))
    errors = [half / stats.t.ppf(0.975, NUM - 1) for half in (0.02, 0.03)]
    p = stats.t.sf(0.05 / math.hypot(*errors), NUM - 1)
    assert gate.figures["p"] == pytest.approx(p) and p < 0.05
    assert gate.verdict == "failed" and gate.figures["drop_points"] == pytest.approx(5) and not gate.figures["paired"]
    assert gate.name == "accuracy student mIoU" and gate.reason.startswith("50.00 % → 45.00 %, 5.00 points lost, p 0.00")
    (noisy,) = gates(before, snapshot(student=Model(scores={"miou": score(0.45, 0.06)})))
    assert noisy.verdict == "passed" and "more certainty is asked for than the sample gives" in noisy.caveat
    (better,) = gates(before, snapshot(student=Model(scores={"miou": score(0.60, 0.03)})))
    assert better.verdict == "passed" and "10.00 points gained" in better.reason


def test_a_tolerated_drop_passes(snapshot: Make) -> None:
    before, after = (snapshot(student=Model(scores={"miou": score(value, 0.002)})) for value in (0.50, 0.46))
    assert [gates(before, after, max_drop_points=points)[0].verdict for points in (5.0, 3.0, 0.0)] == ["passed", "failed", "failed"]


def test_masks_are_judged_by_the_spread_of_the_boxes(snapshot: Make) -> None:
    def detector(box: float, mask: float) -> Any:
        return snapshot(student=Model(scores={"box_ap": score(box, 0.03), "mask_ap": score(mask)}))

    box, mask = gates(detector(0.40, 0.35), detector(0.40, 0.20))  # the mask head alone broke
    assert (box.verdict, mask.verdict) == ("passed", "failed")
    assert mask.name == "accuracy student mask AP" and "spread as of the box AP" in mask.reason
    _, steady = gates(detector(0.40, 0.35), detector(0.40, 0.345))
    assert steady.verdict == "passed"


def test_an_exported_file_is_judged_by_the_spread_of_the_student(snapshot: Make) -> None:
    def shipped(value: float, half: float | None) -> Any:
        return snapshot(student=Model(scores={"miou": score(0.5, half)}), shipped=Model(scores={"miou": score(value)}))

    (gate,) = gates(shipped(0.50, 0.05), shipped(0.49, 0.05), "shipped")
    assert gate.verdict == "passed" and "spread as of the student" in gate.reason
    (bare,) = gates(shipped(0.50, None), shipped(0.49, None), "shipped")
    assert bare.verdict == "failed" and "without an interval" in bare.reason, "any drop, where nothing tells how sure it is"


def test_models_of_two_tasks_do_not_compare(snapshot: Make) -> None:
    before = snapshot(student=Model(scores={"miou": score(0.5, 0.1)}))
    after = snapshot(student=Model(scores={"box_ap": score(0.5, 0.1)}))
    checked = check(before, after, GateSettings())
    assert [(gate.verdict, gate.reason) for gate in checked.gates] == [
        ("not_run", "the run has no mIoU of student"),
        ("not_run", "the baseline has no box AP of student"),
    ]
    assert checked.failure


def test_scores_are_read_as_they_are_written() -> None:
    pixels = scores_of({"miou": 0.4, "miou_interval": [0.3, 0.5], "aacc": 0.9}, 7)
    assert pixels == {"miou": Score(value=0.4, num_images=7, interval=(0.3, 0.5))}
    objects = scores_of({"box": {"ap": 0.2}, "mask": {"ap": None}, "box_ap_interval": None}, 7)
    assert objects == {"box_ap": Score(value=0.2, num_images=7)}, "no object to find has no precision"
    proof = {"ap_candidate": 0.2, "mask_ap_candidate": 0.1, "ap_reference": 0.3, "num_images": 5}
    assert shipped_scores_of(proof) == {"box_ap": Score(value=0.2, num_images=5), "mask_ap": Score(value=0.1, num_images=5)}
    assert shipped_scores_of({"top1_candidate": 0.9, "num_images": 5}) == {}


def test_a_floor_holds_without_a_baseline(snapshot: Make) -> None:
    run = snapshot(student=Model(scores={"miou": score(0.4, 0.02), "box_ap": score(0.3, 0.2)}))
    found = limit_gates("student", run, Limits(min_miou=0.5, min_box_ap=0.25, min_mask_ap=0.1))
    assert [(gate.subject, gate.verdict) for gate in found] == [
        ("student min_miou", "failed"),
        ("student min_box_ap", "passed"),
        ("student min_mask_ap", "not_run"),
    ]
    assert found[1].caveat.startswith("the limit lies inside the 95 % interval")


@pytest.fixture
def dense_run(tmp_path: Path) -> Path:
    """What the gates read of a run with a task."""
    folder = tmp_path / "run"
    student = {"num_parameters": 1000, "miou": 0.42, "miou_interval": [0.4, 0.44], "aacc": 0.9, "macc": 0.5, "iou_by_class": {}}
    evaluated = {"task": "segmentation", "num_images": 60, "class_names": ["a"], "models": {"student": student}, "pictures": []}
    for stage, metrics in (("specific", {"model_bytes": 4321}), ("evaluate", evaluated)):
        with unfinished_folder(folder / stage, 0) as unfinished:
            identity = Identity(stage, {}, {}, "0.1")
            commit(unfinished, folder / stage, identity, Made(metrics), tools={}, environment={}, seconds=1.0)
    (folder / "run.json").write_text(json.dumps({"recipe": "tiny", "resolved": {"specific": {}, "evaluate": {}}}))
    return folder


def test_a_baseline_of_a_run_with_a_task_is_made_shown_and_checked(g2sd: Make, dense_run: Path, tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.json"
    assert g2sd("baseline", "update", dense_run, "--out", baseline).code == 0
    student = snapshot_of(dense_run).models["student"]
    assert (student.file_bytes, student.num_parameters, student.sets) == (4321, 1000, {})
    shown = g2sd("baseline", "show", baseline).out
    assert "mIoU" in shown and "42.00 % (40.00 to 44.00)" in shown and "top-1" not in shown
    answer = g2sd("check", dense_run, "--baseline", baseline, "--json")
    found = {gate["name"]: gate["verdict"] for gate in json.loads(answer.out)["gates"]}
    assert answer.code == 0
    assert found == {"accuracy student mIoU": "passed", "size student": "passed", "parameters student": "passed"}
