"""The report as data: what the page says, for programs. docs/report.md names the keys."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass

from g2sd_deploy.report.dense_scores import DenseEvaluation
from g2sd_deploy.report.document import Document, Verdict
from g2sd_deploy.report.front import Point, points_of
from g2sd_deploy.report.provenance import digests_of, licences_of
from g2sd_deploy.report.summary import RunSummary

FORMAT = 1


def report_json(run: RunSummary, document: Document) -> str:
    """The report of a run as one JSON object.

    Args:
        run: What was read.
        document: The page that was made of it.

    Returns:
        Indented JSON with a line break at its end. Shares are fractions, a number that does not exist is null, and no NaN is written.
    """
    headline = document.headline
    found = {
        "format": FORMAT,
        "kind": "run",
        "title": run.title,
        "recipe": run.recipe,
        "description": run.description,
        "command": run.command,
        "finished_at": max(stage.finished_at for stage in run.stages),
        "headline": {"sentence": headline.sentence, "support": headline.support},
        "verdicts": [_verdict(verdict) for verdict in headline.verdicts],
        "figures": _figures(run),
        **({"task": run.task} if run.task else {}),
        "evaluation": _dense(run.dense) if run.task else run.evaluation,
        "front": [_front_point(run, point) for point in points_of(run)],
        "latency": run.profile,
        "export": run.export,
        "training": run.training,
        "data": {key: value for key, value in asdict(run.data).items() if key != "preview_png"} if run.data else None,
        "provenance": {"licences": licences_of(run), "digests": digests_of(run), "teacher": run.teacher},
        "stages": run.stages,
        "absent": run.absent,
        "resolved": run.resolved,
    }
    return json.dumps(_plain(found), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _figures(run: RunSummary) -> dict[str, float | None]:
    """The key figures as numbers; null where what they are made of was not measured or may not be used."""
    student, baseline, row = run.main_score("student"), run.main_score("baseline"), run.shipped_latency("student")
    return {
        "share_of_teacher": run.share_of_teacher("student"),
        "times_smaller": run.times_smaller("student"),
        "gain_over_baseline": student - baseline if student is not None and baseline is not None else None,
        "p50_ms": row.p50_ms if row else None,
        "times_faster": run.times_faster,
    }


def _dense(dense: DenseEvaluation | None) -> dict[str, object] | None:
    """The evaluation of a task; pictures by the names of their files."""
    if dense is None:
        return None
    found = {name: getattr(dense, name) for name in ("num_images", "class_names", "models")}
    return {**found, "pictures": [picture.files for picture in dense.pictures]}


def _front_point(run: RunSummary, point: Point) -> dict[str, object]:
    """A point with its accuracy under the name of what it is."""
    key = run.dense.main.key if run.dense else "top1"
    return {key if name == "top1" else name: value for name, value in asdict(point).items()}


def _verdict(verdict: Verdict) -> dict[str, object]:
    parts = [{"name": name, "verdict": outcome} for name, outcome in verdict.parts]
    return {"subject": verdict.subject, "verdict": verdict.outcome, "reason": verdict.reason, "section": verdict.anchor, "parts": parts}


def _plain(value: object) -> object:
    """JSON values only: objects by the names of their fields, NaN and infinity as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, str | int | bool) or value is None else str(value)
