"""The top of the page: one sentence, every verdict, and a few key figures."""

from g2sd_deploy.report import formatting
from g2sd_deploy.report.document import Headline, KeyFigure, Note, Tone
from g2sd_deploy.report.latency import Energy
from g2sd_deploy.report.summary import RunSummary
from g2sd_deploy.report.verdicts import answers_words, sentence, verdicts_of


def build_headline(run: RunSummary) -> Headline:
    """Say what the run achieved; a failed check takes over the sentence."""
    failed = run.parity.verdict == "failed"
    reason = sentence(run.parity.reason or "no reason was recorded")
    found = (_kept(run), _kept_masks(run), _smaller(run), _gain(run), _latency(run), _speed(run), _energy(run))
    return Headline(
        sentence="Do not ship: the exported model is not equal to the student." if failed else _sentence(run),
        support=_sentence(run) if failed else _support(run),
        figures=tuple(figure for figure in found if figure),
        notices=(Note(reason, "Parity failed", "bad"),) if failed else (),
        verdicts=verdicts_of(run),
        tone="bad" if failed else "plain",
    )


def _sentence(run: RunSummary) -> str:
    kept, smaller = run.share_of_teacher("student"), run.times_smaller("student")
    if kept is not None and smaller is not None:
        what = _words(run, "accuracy")
        return f"The student keeps {formatting.percent(kept, 1)} of its teacher’s {what} with {formatting.times(smaller)} fewer parameters."
    for name in ("student", "teacher"):
        if (score := run.main_score(name)) is not None:
            num_images = _num_images(run, name)
            images = f" on {formatting.count(num_images)} test images" if num_images else ""
            return f"The {name} reaches {formatting.percent(score, 1)} {run.measure}{images}."
    return "This run has not been evaluated."


def _words(run: RunSummary, of_a_classifier: str) -> str:
    """What is kept: accuracy, of a task its measure."""
    return run.measure if run.task else of_a_classifier


def _num_images(run: RunSummary, model: str) -> int | None:
    scores = run.scores(model)
    return run.dense.num_images if run.dense else scores.clean.num_images if scores else None


def _support(run: RunSummary) -> str:
    parity = run.parity
    if parity.verdict != "passed" or parity.num_images is None:
        return ""
    num_images = formatting.count(parity.num_images)
    if run.task:
        return f"The exported file answers alike on {num_images} test images: {answers_words(parity)}."
    if parity.flipped == 0:
        return f"The exported ONNX file makes the same decision on all {num_images} test images."
    return f"The exported ONNX file makes another decision on {formatting.count(parity.flipped)} of {num_images} test images."


def _kept(run: RunSummary) -> KeyFigure | None:
    student, teacher, share = run.main_score("student"), run.main_score("teacher"), run.share_of_teacher("student")
    if student is not None and teacher is not None and share is not None:
        detail = f"{run.measure} {formatting.percent(student, 1)} vs {formatting.percent(teacher, 1)}"
        return KeyFigure(formatting.percent(share, 1), f"of the teacher’s {_words(run, 'accuracy')}", detail)
    return KeyFigure(formatting.percent(teacher, 1), f"teacher’s {run.measure}", _teacher_detail(run)) if teacher is not None else None


def _kept_masks(run: RunSummary) -> KeyFigure | None:
    """Of a detector, the same for its masks."""
    models = run.dense.models if run.dense else {}
    if run.task != "detection" or not {"student", "teacher"} <= set(models):
        return None
    student, teacher = (models[name].figures["mask_ap"] for name in ("student", "teacher"))
    if student is None or not teacher:
        return None
    detail = f"mask AP {formatting.percent(student, 1)} vs {formatting.percent(teacher, 1)}"
    return KeyFigure(formatting.percent(student / teacher, 1), "of the teacher’s mask AP", detail)


def _teacher_detail(run: RunSummary) -> str:
    return f"{formatting.millions(run.num_parameters('teacher'))} parameters, {formatting.mib(run.model_mib('teacher'))}"


def _smaller(run: RunSummary) -> KeyFigure | None:
    factor = run.times_smaller("student")
    if factor is None:
        return None
    detail = f"{formatting.millions(run.num_parameters('student'))} vs {formatting.millions(run.num_parameters('teacher'))} parameters"
    return KeyFigure(formatting.times(factor), "smaller than the teacher", detail)


def _gain(run: RunSummary) -> KeyFigure | None:
    student, baseline = run.main_score("student"), run.main_score("baseline")
    if student is None or baseline is None:
        return None
    gain, reached = student - baseline, f"{run.measure} " * bool(run.task) + formatting.percent(baseline, 1)
    tone: Tone = "bad" if gain < 0 else "plain"
    if run.baseline_is_generic:
        detail = f"{reached} where the same generic student learns from labels alone"
        return KeyFigure(f"{formatting.points(gain)} pp", "over plain fine-tuning", detail, tone)
    detail = f"{reached} in {formatting.duration(run.train_seconds('baseline'))} of training on labels alone"
    return KeyFigure(f"{formatting.points(gain)} pp", "over plain training", detail, tone)


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
