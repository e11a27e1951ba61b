"""The report as data: what the page says, for programs. docs/report.md names the keys."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass

from g2sd_deploy.report.document import Document, Verdict
from g2sd_deploy.report.front import points_of
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
        "evaluation": run.evaluation,
        "front": points_of(run),
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
    student, baseline, row = run.scores("student"), run.scores("baseline"), run.shipped_latency("student")
    return {
        "share_of_teacher": run.share_of_teacher("student"),
        "times_smaller": run.times_smaller("student"),
        "gain_over_baseline": student.clean.top1 - baseline.clean.top1 if student and baseline else None,
        "p50_ms": row.p50_ms if row else None,
        "times_faster": run.times_faster,
    }


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
