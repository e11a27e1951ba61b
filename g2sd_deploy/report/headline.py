"""The top of the page: one sentence, every verdict, and a few key figures."""

from g2sd_deploy.report import formatting
from g2sd_deploy.report.document import Headline, KeyFigure, Note
from g2sd_deploy.report.latency import Energy
from g2sd_deploy.report.summary import RunSummary
from g2sd_deploy.report.verdicts import sentence, verdicts_of


def build_headline(run: RunSummary) -> Headline:
    """Say what the run achieved; a failed check takes over the sentence."""
    failed = run.parity.verdict == "failed"
    reason = sentence(run.parity.reason or "no reason was recorded")
    return Headline(
        sentence="Do not ship: the exported model is not equal to the student." if failed else _sentence(run),
        support=_sentence(run) if failed else _support(run),
        figures=tuple(figure for figure in (_kept(run), _smaller(run), _gain(run), _latency(run), _speed(run), _energy(run)) if figure),
        notices=(Note(reason, "Parity failed", "bad"),) if failed else (),
        verdicts=verdicts_of(run),
        tone="bad" if failed else "plain",
    )


def _sentence(run: RunSummary) -> str:
    student, teacher = run.scores("student"), run.scores("teacher")
    kept, smaller = run.share_of_teacher("student"), run.times_smaller("student")
    if kept is not None and smaller is not None:
        return (
            f"The student keeps {formatting.percent(kept, 1)} of its teacher’s accuracy with {formatting.times(smaller)} fewer parameters."
        )
    for name, scores in (("student", student), ("teacher", teacher)):
        if scores:
            images = f" on {formatting.count(scores.clean.num_images)} test images" if scores.clean.num_images else ""
            return f"The {name} reaches {formatting.percent(scores.clean.top1, 1)} top-1{images}."
    return "This run has not been evaluated."


def _support(run: RunSummary) -> str:
    parity = run.parity
    if parity.verdict != "passed" or parity.num_images is None:
        return ""
    num_images = formatting.count(parity.num_images)
    if parity.flipped == 0:
        return f"The exported ONNX file makes the same decision on all {num_images} test images."
    return f"The exported ONNX file makes another decision on {formatting.count(parity.flipped)} of {num_images} test images."


def _kept(run: RunSummary) -> KeyFigure | None:
    student, teacher, share = run.scores("student"), run.scores("teacher"), run.share_of_teacher("student")
    if student and teacher and share is not None:
        detail = f"top-1 {formatting.percent(student.clean.top1, 1)} vs {formatting.percent(teacher.clean.top1, 1)}"
        return KeyFigure(formatting.percent(share, 1), "of the teacher’s accuracy", detail)
    return KeyFigure(formatting.percent(teacher.clean.top1, 1), "teacher’s top-1", _teacher_detail(run)) if teacher else None


def _teacher_detail(run: RunSummary) -> str:
    scores = run.scores("teacher")
    return f"{formatting.millions(scores.num_parameters)} parameters, {formatting.mib(scores.model_mib)}" if scores else ""


def _smaller(run: RunSummary) -> KeyFigure | None:
    student, teacher, factor = run.scores("student"), run.scores("teacher"), run.times_smaller("student")
    if not (student and teacher and factor is not None):
        return None
    detail = f"{formatting.millions(student.num_parameters)} vs {formatting.millions(teacher.num_parameters)} parameters"
    return KeyFigure(formatting.times(factor), "smaller than the teacher", detail)


def _gain(run: RunSummary) -> KeyFigure | None:
    student, baseline = run.scores("student"), run.scores("baseline")
    if not (student and baseline):
        return None
    gain = student.clean.top1 - baseline.clean.top1
    detail = (
        f"{formatting.percent(baseline.clean.top1, 1)} in {formatting.duration(run.train_seconds('baseline'))} of training on labels alone"
    )
    return KeyFigure(f"{formatting.points(gain)} pp", "over plain training", detail, "bad" if gain < 0 else "plain")


def _latency(run: RunSummary) -> KeyFigure | None:
    row = run.shipped_latency("student")
    if row is None or row.p50_ms is None:
        return None
    where = " ".join(filter(None, (row.runtime, row.version)))
    threads = f", {row.threads} thread" + ("s" if row.threads != 1 else "") if row.threads else ""
    return KeyFigure(formatting.milliseconds(row.p50_ms), "per image, p50", f"{row.variant or 'as trained'} on {where}, batch 1{threads}")


def _speed(run: RunSummary) -> KeyFigure | None:
    """How much faster than the teacher, where both were timed and may be believed."""
    teacher, factor = run.shipped_latency("teacher"), run.times_faster
    if teacher is None or factor is None:
        return None
    detail = f"the teacher takes {formatting.milliseconds(teacher.p50_ms)} on {teacher.runtime}"
    return KeyFigure(formatting.times(factor), "faster than the teacher", detail, "bad" if factor < 1 else "plain")


def _energy(run: RunSummary) -> KeyFigure | None:
    row = run.shipped_latency("student")
    found = row.believed.energy if row and row.believed else None
    return KeyFigure(f"{formatting.significant(found.mj_per_image)} mJ", "per image", found.source) if isinstance(found, Energy) else None
