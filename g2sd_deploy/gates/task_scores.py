"""The accuracy gate of a task: mIoU or average precision, held against the baseline's by the intervals of both."""

import math
from collections.abc import Mapping
from typing import Any

from g2sd_deploy.gates.accuracy import drop_in_words, figures_of, found_surely, too_sure
from g2sd_deploy.gates.outcome import Gate, not_run, percent
from g2sd_deploy.gates.settings import AccuracyGate
from g2sd_deploy.gates.snapshot import Interval, Model, Score, Snapshot
from g2sd_deploy.gates.statistics import Sureness, student_test

NAMES = {"miou": "mIoU", "box_ap": "box AP", "mask_ap": "mask AP"}
"""What a task is scored by, in words."""
_STUDENT = "student"


def scores_of(metrics: Mapping[str, Any], num_images: int) -> dict[str, Score]:
    """What an evaluation says of one model of a task.

    Args:
        metrics: Of the model.
        num_images: That it was scored on.
    """
    box, mask = metrics.get("box") or {}, metrics.get("mask") or {}
    found = {
        "miou": (metrics.get("miou"), metrics.get("miou_interval")),
        "box_ap": (box.get("ap"), metrics.get("box_ap_interval")),
        "mask_ap": (mask.get("ap"), None),
    }
    return _scores(found, num_images)


def shipped_scores_of(proof: Mapping[str, Any]) -> dict[str, Score]:
    """What the proof of an export says of the exported file; it computes no intervals."""
    keys = {"miou": "miou_candidate", "box_ap": "ap_candidate", "mask_ap": "mask_ap_candidate"}
    return _scores({name: (proof.get(key), None) for name, key in keys.items()}, int(proof.get("num_images") or 0))


def _scores(found: Mapping[str, tuple[float | None, Any]], num_images: int) -> dict[str, Score]:
    return {
        name: Score(value=value, num_images=num_images, interval=None if ends is None else (float(ends[0]), float(ends[1])))
        for name, (value, ends) in found.items()
        if value is not None
    }


def task_gates(name: str, before: Snapshot, after: Snapshot, settings: AccuracyGate, sureness: Sureness) -> list[Gate]:
    """A gate for every figure that the baseline's or the run's model has.

    Which pixels or objects of each image were told right is not stored, so the two runs are compared as if on different images: that
    sees less than a paired test, and never more.

    Args:
        name: The model.
        before: The baseline.
        after: The run.
        settings: What is tolerated.
        sureness: Level and power.
    """
    known, found = before.models.get(name, Model()), after.models.get(name, Model())
    return [_gate(name, score, before, after, settings, sureness) for score in known.scores | found.scores]


def _gate(name: str, score: str, before: Snapshot, after: Snapshot, settings: AccuracyGate, sureness: Sureness) -> Gate:
    subject, title = f"{name} {NAMES.get(score, score)}", NAMES.get(score, score)
    known, found = (one.models.get(name, Model()).scores.get(score) for one in (before, after))
    if known is None or found is None:
        return not_run("accuracy", subject, f"the {'baseline' if known is None else 'run'} has no {title} of {name}")
    tolerance = settings.max_drop_points / 100
    (error_before, source), (error_after, _) = _error(name, score, before), _error(name, score, after)
    freedom = max(1, min(known.num_images, found.num_images) - 1)
    tested = student_test(known.value - found.value, math.hypot(error_before, error_after), freedom, tolerance, sureness)
    failed = tested.p <= sureness.alpha
    how = f"not paired, {known.num_images:,} and {found.num_images:,} images{source}"
    said = drop_in_words(tested, failed, settings.max_drop_points)
    reason = f"{percent(known.value)} → {percent(found.value)}, {said}; {how}; {found_surely(tested, sureness)}"
    shares = {score: found.value, f"baseline_{score}": known.value, f"{score}_interval": found.interval}
    figures = shares | figures_of(tested) | {"num_images": found.num_images, "paired": False}
    caveat = "" if failed else too_sure(tested, tolerance, settings.must_find_points / 100)
    return Gate("accuracy", subject, "failed" if failed else "passed", reason, figures, caveat)


def _error(name: str, score: str, snapshot: Snapshot) -> tuple[float, str]:
    """Standard error of a figure, and whose it is if not its own: boxes and masks are of the same objects, an exported file answers as the
    student. Without any it is 0, so that any drop beyond the tolerance fails."""
    for model, own, said in (
        (name, score, ""),
        (name, "box_ap", "box AP"),
        (_STUDENT, score, _STUDENT),
        (_STUDENT, "box_ap", "student's box AP"),
    ):
        held = snapshot.models.get(model, Model()).scores.get(own)
        if held is not None and held.interval is not None:
            return _of_interval(held.interval, held.num_images), f", spread as of the {said}" if said else ""
    return 0.0, ", without an interval"


def _of_interval(interval: Interval, num_images: int) -> float:
    """Of Student's 95 % interval over as many images."""
    from scipy.special import stdtrit

    assert interval is not None
    return (interval[1] - interval[0]) / 2 / float(stdtrit(max(1, num_images - 1), 0.975))
