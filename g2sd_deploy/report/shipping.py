"""Sections about what ships: the proof of the file, every other way that was tried, and how both stand calibration and corruption."""

from collections.abc import Callable, Mapping

from g2sd_deploy.report import formatting, shipping_dense
from g2sd_deploy.report.document import VERDICT_TONES, Block, Column, Note, Row, Section, Table
from g2sd_deploy.report.summary import Candidate, Export, Parity, RunSummary
from g2sd_deploy.report.verdicts import sentence

_UNITS: Mapping[str, Callable[[float | None], str]] = {
    "max_abs_logit_diff": formatting.scientific,
    "mean_abs_logit_diff": formatting.scientific,
    "min_cosine": lambda value: formatting.significant(value, 7),
    "mean_kl": formatting.scientific,
    "flipped_share": formatting.percent,
    "top1_reference": formatting.percent,
    "top1_candidate": formatting.percent,
}
_LIMITS = {"mean_kl": "max_mean_kl"}


def parity_section(run: RunSummary) -> Section:
    """Every number of the proof beside what is allowed, every hop, and every candidate."""
    parity, export = run.parity, run.export
    blocks: tuple[Block, ...] = (parity_notice(parity),)
    if export is not None and run.task is not None:
        blocks += shipping_dense.proof_tables(export, run.task)
    elif export is not None:
        blocks += (_candidates(export),) if export.candidates else ()
        blocks += (_parity_table(parity),) if parity.num_images is not None else ()
        blocks += (_hops(export),) if export.hops else ()
        blocks += _standing(export)
    lead = "The exported file is run on real test images and compared with the model that was scored."
    return Section("parity", "Parity", lead, blocks)


def parity_notice(parity: Parity) -> Note:
    """The verdict on the exported file as one block, with its reason."""
    reason = sentence(parity.reason or "no reason was recorded")
    match parity.verdict:
        case "passed":
            does = "gives the answers" if parity.figures else "makes the decisions"
            return Note(f"The exported file {does} of the model that was scored, within the tolerance below.", "Parity passed", "good")
        case "failed":
            return Note(reason, "Parity failed", "bad")
        case "not_run":
            return Note(f"{reason} Not run does not count as passed.", "Parity not run", "idle")


def _candidates(export: Export) -> Table:
    titles = ("Candidate", "Verdict", "Top-1", "Lost, pp", "Flips", "p50 ms", "Size", "Why")
    caption = (
        f"Every way that target {export.target} lists. Lost: percentage points of top-1 against the torch model, on the same images. "
        "Latency: one image, the candidates in turn. Bold: what ships."
    )
    columns = tuple(Column(title, numeric=title not in ("Candidate", "Verdict", "Why")) for title in titles)
    return Table("Ways to run it", columns, tuple(_candidate_row(one) for one in export.candidates), caption)


def _candidate_row(one: Candidate) -> Row:
    cells = (
        one.name,
        one.verdict.replace("_", " "),
        formatting.percent(one.top1) if one.top1 is not None else formatting.MISSING,
        f"{one.drop_points:+.2f}" if one.drop_points is not None else formatting.MISSING,
        formatting.count(one.flipped),
        formatting.significant(one.p50_ms),
        formatting.mib(one.file_bytes / formatting.MIB if one.file_bytes is not None else None),
        one.why,
    )
    return Row(cells, tone=VERDICT_TONES[one.verdict], strong=one.chosen)


def _parity_table(parity: Parity) -> Table:
    flips = f"Decisions that flip ({formatting.count(parity.flipped)} of {formatting.count(parity.num_images)})"
    rows = [
        _parity_row(parity, "flipped_share", flips, parity.flipped_share),
        _parity_row(parity, "max_abs_logit_diff", "Largest logit difference", parity.max_abs_logit_diff),
        _parity_row(parity, "mean_abs_logit_diff", "Mean logit difference", parity.mean_abs_logit_diff),
        _parity_row(parity, "min_cosine", "Smallest cosine of logits", parity.min_cosine),
        _parity_row(parity, "mean_kl", "Mean KL divergence, nats", parity.mean_kl),
        _parity_row(parity, "top1_reference", f"Top-1 of {parity.reference or 'the reference'}", parity.top1_reference),
        _parity_row(parity, "top1_candidate", f"Top-1 of {parity.candidate or 'the candidate'}", parity.top1_candidate),
    ]
    num_images = formatting.count(parity.num_images)
    caption = f"{parity.reference} against {parity.candidate} on {num_images} test images. Smaller differences are better."
    columns = (Column("Check"), Column("Measured", numeric=True), Column("Allowed", numeric=True))
    return Table("Parity of what ships", columns, tuple(rows), caption)


def _parity_row(parity: Parity, key: str, label: str, measured: float | None) -> Row:
    shown = _UNITS[key]
    allowed = parity.tolerance.get(_LIMITS.get(key, key))
    if allowed is None:
        return Row((label, shown(measured), "no limit"))
    floor = key.startswith("min_")
    within = measured is not None and (measured >= allowed if floor else measured <= allowed)
    mark = "at least" if floor else "at most"
    return Row((label, shown(measured), f"{mark} {shown(allowed)}"), tone="plain" if within else "bad")


def _hops(export: Export) -> Table:
    """From torch to the file that ships, one step at a time."""
    titles = ("Hop", "Verdict", "Flips", "Largest logit difference", "Smallest cosine", "KL, nats", "Top-1", "Runs on")
    rows = [
        Row(
            (
                hop.name,
                hop.verdict.replace("_", " "),
                formatting.count(hop.flipped),
                formatting.scientific(hop.max_abs_logit_diff),
                formatting.significant(hop.min_cosine, 6),
                formatting.scientific(hop.mean_kl),
                formatting.percent(hop.top1_candidate) if hop.top1_candidate is not None else formatting.MISSING,
                hop.candidate or hop.reason,
            ),
            tone=VERDICT_TONES[hop.verdict],
        )
        for hop in export.hops
    ]
    columns = tuple(Column(title, numeric=index > 0 and title not in ("Verdict", "Runs on")) for index, title in enumerate(titles))
    return Table("Hop by hop", columns, tuple(rows), "Each form of the model against the one before it, on the same images.")


def _standing(export: Export) -> tuple[Block, ...]:
    """Calibration and robustness of the file that ships beside the float model's."""
    if {"float", "shipped"} - set(export.standing):
        return (Note("The file that ships cannot run on this machine, so its calibration and robustness are unknown.", "Not run", "idle"),)
    before, after = export.standing["float"], export.standing["shipped"]
    rows = [_pair("Top-1", before.top1, after.top1), _pair("ECE", before.ece, after.ece)]
    if before.mean_corruption_top1 is not None:
        rows.append(_pair("Top-1, mean over corruptions", before.mean_corruption_top1, after.mean_corruption_top1))
        for name in (name for name in before.corruptions if name in after.corruptions):
            rows.append(_pair(f"Top-1, {formatting.label(name).lower()}", before.corruptions[name], after.corruptions[name]))
    columns = (Column("Measure"), *(Column(title, numeric=True) for title in ("Float, torch", "What ships", "Change, pp")))
    return (
        Table(
            "Calibration and robustness of what ships",
            columns,
            tuple(rows),
            "Calibration and robustness of what ships beside the float model's, on the same images.",
        ),
    )


def _pair(label: str, before: float, after: float | None) -> Row:
    change = formatting.MISSING if after is None else f"{100 * (after - before):+.2f}"
    return Row((label, formatting.percent(before), formatting.percent(after) if after is not None else formatting.MISSING, change))
