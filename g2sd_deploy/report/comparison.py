"""Several runs on one page: verdicts first, then their students, fronts and curves together, and what the runs differ in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace

from g2sd_deploy.errors import UserError
from g2sd_deploy.report import comparison_curves, comparison_dense, comparison_front, comparison_origin, formatting
from g2sd_deploy.report.comparison_headline import build_headline
from g2sd_deploy.report.comparison_paired import PairedStudents
from g2sd_deploy.report.comparison_runs import MAX_DRAWN, Compared, compared, groups, same_test
from g2sd_deploy.report.comparison_students import students_section, timed_on_one_machine
from g2sd_deploy.report.document import Document, Section
from g2sd_deploy.report.render import Rendered, render_document
from g2sd_deploy.report.summary import RunSummary
from g2sd_deploy.report.verdicts import verdicts_of

FORMAT = 1


def render_comparison(runs: Sequence[RunSummary], folders: Sequence[str] = (), paired: Sequence[PairedStudents] = ()) -> Rendered:
    """Render several runs side by side.

    Args:
        runs: At least two, in the order to show them.
        folders: Of each, to tell runs of the same name apart.
        paired: Students compared image by image, by the places of their runs.

    Returns:
        One page in the form of a run's report, the same as Markdown, and its content as JSON.

    Raises:
        UserError: The runs are of different tasks.
    """
    items = compared(runs, folders)
    _refuse_other_tasks(items)
    if items[0].run.task:  # no predictions are kept image by image, so there is nothing to say of pairs
        paired = [pair for pair in paired if not pair.reason]
    document = build_comparison(items, paired)
    return replace(render_document(document), json=_as_json(items, document, paired))


def _refuse_other_tasks(items: Sequence[Compared]) -> None:
    found: dict[str, list[str]] = {}
    for item in items:
        found.setdefault(item.run.task or "classification", []).append(item.name)
    if len(found) > 1:
        told = "; ".join(f"{task}: {formatting.listed(names)}" for task, names in found.items())
        raise UserError(f"these runs are of different tasks ({told}), whose scores do not compare; give runs of one task")


def build_comparison(items: Sequence[Compared], paired: Sequence[PairedStudents]) -> Document:
    """Everything that the page says."""
    more = f" More than {MAX_DRAWN} runs are compared in tables only." if len(items) > MAX_DRAWN else ""
    optional: tuple[Section | None, ...] = (
        comparison_front.front_section(items),
        comparison_curves.robustness_section(items),
        comparison_curves.occlusion_section(items),
        comparison_curves.layers_section(items),
        comparison_curves.losses_section(items),
    )
    return Document(
        title=f"Comparison of {len(items)} runs",
        recipe="",
        description=formatting.listed([item.name for item in items]) + "." + more,
        finished=formatting.moment(max(stage.finished_at for item in items for stage in item.run.stages)),
        footer="g2sd-deploy. Every number comes from the artifacts of these runs; the report measures nothing.",
        headline=build_headline(items, paired),
        sections=(
            students_section(items, paired),
            *(section for section in (comparison_dense.models_section(items), comparison_dense.classes_section(items)) if section),
            *(section for section in optional[:1] if section),
            comparison_origin.settings_section(items),
            *(section for section in optional[1:] if section),
            comparison_origin.environment_section(items),
            comparison_origin.provenance_section(items),
        ),
    )


def _as_json(items: Sequence[Compared], document: Document, paired: Sequence[PairedStudents]) -> str:
    """The comparison as one JSON object; shares are fractions, what was not measured is null."""
    headline = document.headline
    found = {
        "format": FORMAT,
        "kind": "comparison",
        "headline": {"sentence": headline.sentence, "support": headline.support},
        **({"task": items[0].run.task} if items[0].run.task else {}),
        "one_test": len(groups(items, same_test)) == 1,
        "one_machine": timed_on_one_machine(items),
        "runs": [_run_data(item) for item in items],
        "paired": [asdict(pair) | {"first": items[pair.first].name, "second": items[pair.second].name} for pair in paired],
        "settings": {name: list(values) for name, *values in comparison_origin.differing_settings(items)},
    }
    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _scores_data(item: Compared) -> dict[str, object]:
    scores = item.scores
    clean = scores.clean if scores else None
    return {
        "top1": clean.top1 if clean else None,
        "top1_interval": clean.intervals.get("top1") if clean else None,
        "ece": clean.ece if clean else None,
        "mean_corruption_top1": scores.mean_corruption_top1 if scores else None,
    }


def _run_data(item: Compared) -> dict[str, object]:
    row, run = item.timed, item.run
    figures = row.believed if row else None
    return {
        "name": item.name,
        "folder": item.folder,
        "model": item.model,
        "verdicts": {verdict.subject: verdict.outcome for verdict in verdicts_of(item.run)},
        "num_parameters": run.num_parameters(item.model),
        "model_bytes": run.export.model_bytes if run.export else None,
        **(comparison_dense.scores_data(item) if run.task else _scores_data(item)),
        "share_of_teacher": run.share_of_teacher(item.model),
        "timing": row.verdict if row else "not_run",
        "way": row.way if row else None,
        "p50_ms": figures.p50_ms if figures else None,
        "p50_interval_ms": figures.p50_interval_ms if figures else None,
        "ratio": asdict(figures.ratio) if figures and figures.ratio else None,
    }
