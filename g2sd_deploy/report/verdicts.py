"""Every verdict of a run in one list: parity, the course of the losses, ways to run it, latency."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from g2sd_deploy.reasons import kind_of, together
from g2sd_deploy.report import formatting
from g2sd_deploy.report.document import Note, Outcome, Verdict
from g2sd_deploy.report.latency import Profile, TimedRow
from g2sd_deploy.report.summary import Candidate, Parity, RunSummary


def verdicts_of(run: RunSummary) -> tuple[Verdict, ...]:
    """All verdicts, in the order of the page; what did not run is there with its reason."""
    return (_parity(run.parity), *_candidates(run), *_losses(run), _latency(run))


def not_run(run: RunSummary, stage: str) -> Note:
    """The block that stands in for a stage that did not run."""
    return Note(sentence(run.absent[stage]), "Not run", "idle")


def sentence(reason: str) -> str:
    """A reason as a sentence: capital letter, full stop."""
    return f"{reason[:1].upper()}{reason[1:].rstrip('.')}."


def row_name(row: TimedRow) -> str:
    """'student, int8-openvino, batch 8'."""
    return ", ".join((row.model, row.way, f"batch {row.batch}"))


def _parity(parity: Parity) -> Verdict:
    reason = sentence(parity.reason or "no reason was recorded")
    if parity.verdict == "passed":
        num_images = formatting.count(parity.num_images)
        if parity.figures:
            return Verdict(
                "Parity of the file that ships", parity.verdict, f"On {num_images} test images {answers_words(parity)}.", "parity"
            )
        reason = f"The exported file decides otherwise on {formatting.count(parity.flipped)} of {num_images} test images."
    return Verdict("Parity of the file that ships", parity.verdict, reason, "parity")


def answers_words(parity: Parity) -> str:
    """How far the answers of a task's file are from the trained model's, within a sentence."""
    found = parity.figures
    if "changed_share" in found:
        return f"{_share(found['changed_share'])} of the pixels change their class"
    told = [f"{_share(found.get('unmatched_share'))} of the objects have no counterpart"]
    if (score := found.get("max_score_diff")) is not None:
        told.append(f"scores differ by at most {formatting.scientific(score)}")
    return ", ".join(told)


def _share(value: float | None) -> str:
    return "none" if value == 0 else formatting.percent(value, 3)


def _candidates(run: RunSummary) -> tuple[Verdict, ...]:
    """One verdict over every way to run the model: one that ships is enough."""
    candidates = run.export.candidates if run.export else ()
    if not candidates:
        return ()
    found = {one.verdict for one in candidates}
    outcome: Outcome = "passed" if "passed" in found else "failed" if "failed" in found else "not_run"
    parts = tuple((one.name, one.verdict) for one in candidates)
    return (Verdict("Ways to run it", outcome, _counted([one.verdict for one in candidates], _shipped(candidates)), "parity", parts),)


def _shipped(candidates: Sequence[Candidate]) -> str:
    chosen = next((one.name for one in candidates if one.chosen), "")
    return f"{chosen} ships" if chosen else ""


def _losses(run: RunSummary) -> tuple[Verdict, ...]:
    return tuple(
        Verdict(f"Loss band of {stage}", training.loss_band[0], sentence(training.loss_band[1] or "inside the band"), "training")
        for stage, training in run.training.items()
        if training.loss_band is not None
    )


def _latency(run: RunSummary) -> Verdict:
    profile = run.profile
    if profile is None:
        return Verdict("Latency", "not_run", sentence(run.absent["profile"]), "latency")
    reasons = (*profile.conditions.reasons, *_invalid(profile))
    counted = _counted([row.verdict for row in profile.rows], "; ".join(reasons))
    parts = tuple((row_name(row), row.verdict) for row in profile.rows)
    return Verdict("Latency", _latency_outcome(profile, run.export.default if run.export else ""), counted, "latency", parts)


def _invalid(profile: Profile) -> list[str]:
    """Why rows are invalid, each kind of reason once with whom it concerns; what the conditions say already is not said again."""
    concerned: dict[str, list[tuple[TimedRow, str]]] = {}
    for row in profile.rows:
        for reason in row.reasons if row.verdict == "invalid" else ():
            if reason not in profile.conditions.reasons:
                concerned.setdefault(kind_of(reason), []).append((row, reason))
    return [
        f"{row_name(found[0][0]) if len(found) == 1 else f'{len(found)} rows'}: {together([reason for _, reason in found])}"
        for found in concerned.values()
    ]


def _latency_outcome(profile: Profile, default: str) -> Outcome:
    """Invalid where the conditions were, where a row of what ships is, or where no row is left to believe."""
    rows = {row.verdict for row in profile.rows}
    of_default = {row.verdict for row in profile.rows if default and row.variant == default}
    if profile.conditions.verdict == "invalid" or "invalid" in of_default or rows == {"invalid"}:
        return "invalid"
    return "valid" if "valid" in rows else "invalid" if "invalid" in rows else "not_run"


def _counted(outcomes: Sequence[Outcome], more: str) -> str:
    """'3 passed, 1 not run; int8-openvino ships.'."""
    counts = Counter(outcomes)
    told = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in counts.items())
    return sentence("; ".join(filter(None, (told, more))))
