"""Tables about the file of a segmenter or detector that ships: every candidate, the proof, and every hop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from g2sd_deploy.report import formatting
from g2sd_deploy.report.dense_scores import TaskKind
from g2sd_deploy.report.document import VERDICT_TONES, Block, Column, Row, Table
from g2sd_deploy.report.summary import Candidate, Export, Parity


@dataclass(frozen=True)
class Check:
    """A number of a proof: its name in results and in the tolerance, its column, the whole of what it says, and how it is written."""

    key: str
    limit: str
    title: str
    told: str
    shown: Callable[[float | None], str]


def _fine(value: float | None) -> str:
    return formatting.percent(value, 3)


def _pixels(value: float | None) -> str:
    return formatting.MISSING if value is None else f"{formatting.scientific(value)} px"


CHECKS: Mapping[TaskKind, tuple[Check, ...]] = {
    "segmentation": (
        Check("changed_share", "changed_share", "Pixels changed", "Pixels that change their class", _fine),
        Check("worst_changed_share", "changed_share_of_image", "In the worst image", "The same, of the worst image", _fine),
    ),
    "detection": (
        Check("unmatched_share", "unmatched_share", "Unmatched objects", "Objects of either without a counterpart", _fine),
        Check(
            "max_score_diff",
            "max_score_diff",
            "Score difference",
            "Largest difference of the scores of counterparts",
            formatting.scientific,
        ),
        Check("max_box_shift_px", "max_box_shift_px", "Box shift", "Largest shift of a border of their boxes", _pixels),
        Check("mask_changed_share", "changed_mask_share", "Masks changed", "Cells of their masks that change sides", _fine),
    ),
}
METRICS: Mapping[TaskKind, Mapping[str, str]] = {"segmentation": {"miou": "mIoU"}, "detection": {"ap": "Box AP", "mask_ap": "Mask AP"}}
"""What a proof scores answers by, on its own images."""
_MAX_CHECKS = 2  # beside a candidate; the table of the proof has all


def proof_tables(export: Export, task: TaskKind) -> tuple[Block, ...]:
    """Every candidate, every number of the proof beside what is allowed, and every hop."""
    blocks: list[Block] = [_candidates(export, task)] if export.candidates else []
    blocks += [_parity_table(export.parity, task)] if export.parity.figures else []
    blocks += [_hops(export.hops, task)] if export.hops else []
    return tuple(blocks)


def _candidates(export: Export, task: TaskKind) -> Table:
    checks, metrics = CHECKS[task][:_MAX_CHECKS], METRICS[task]
    titles = ("Candidate", "Verdict", *metrics.values(), "Lost, pp", *(check.title for check in checks), "p50 ms", "Size", "Why")
    caption = (
        f"Every way that target {export.target} lists. Lost: percentage points against the torch model, on the same images"
        + (", the larger of the two. " if len(metrics) > 1 else ". ")
        + "Latency: one image, the candidates in turn. Bold: what ships."
    )
    columns = tuple(Column(title, numeric=title not in ("Candidate", "Verdict", "Why")) for title in titles)
    rows = tuple(_candidate_row(one, task) for one in export.candidates)
    return Table("Ways to run it", columns, rows, caption).without_empty_columns()


def _candidate_row(one: Candidate, task: TaskKind) -> Row:
    cells = (
        one.name,
        one.verdict.replace("_", " "),
        *(formatting.percent(one.figures.get(f"{metric}_candidate")) for metric in METRICS[task]),
        f"{one.drop_points:+.2f}" if one.drop_points is not None else formatting.MISSING,
        *(check.shown(one.figures.get(check.key)) for check in CHECKS[task][:_MAX_CHECKS]),
        formatting.significant(one.p50_ms),
        formatting.mib(one.file_bytes / formatting.MIB if one.file_bytes is not None else None),
        one.why,
    )
    return Row(cells, tone=VERDICT_TONES[one.verdict], strong=one.chosen)


def _parity_table(parity: Parity, task: TaskKind) -> Table:
    rows = [_check_row(parity, check) for check in CHECKS[task] if check.key in parity.figures]
    for metric, word in METRICS[task].items():
        for side, who in (("reference", parity.reference), ("candidate", parity.candidate)):
            value = formatting.percent(parity.figures.get(f"{metric}_{side}"))
            rows.append(Row((f"{word} of {who or f'the {side}'}", value, "no limit of its own")))
    num_images = formatting.count(parity.num_images)
    caption = f"{parity.reference} against {parity.candidate} on {num_images} test images. Smaller differences are better."
    columns = (Column("Check"), Column("Measured", numeric=True), Column("Allowed", numeric=True))
    return Table("Parity of what ships", columns, tuple(rows), caption)


def _check_row(parity: Parity, check: Check) -> Row:
    measured, allowed = parity.figures[check.key], parity.tolerance.get(check.limit)
    if allowed is None:
        return Row((check.told, check.shown(measured), "no limit"))
    within = measured is not None and measured <= allowed
    return Row((check.told, check.shown(measured), f"at most {check.shown(allowed)}"), tone="plain" if within else "bad")


def _hops(hops: Sequence[Parity], task: TaskKind) -> Table:
    """From torch to the file that ships, one step at a time."""
    checks, metrics = CHECKS[task], METRICS[task]
    titles = ("Hop", "Verdict", *(check.title for check in checks), *metrics.values(), "Runs on")
    rows = [
        Row(
            (
                hop.name,
                hop.verdict.replace("_", " "),
                *(check.shown(hop.figures.get(check.key)) for check in checks),
                *(formatting.percent(hop.figures.get(f"{metric}_candidate")) for metric in metrics),
                hop.candidate or hop.reason,
            ),
            tone=VERDICT_TONES[hop.verdict],
        )
        for hop in hops
    ]
    columns = tuple(Column(title, numeric=index > 0 and title not in ("Verdict", "Runs on")) for index, title in enumerate(titles))
    return Table("Hop by hop", columns, tuple(rows), "Each form of the model against the one before it, on the same images.")
