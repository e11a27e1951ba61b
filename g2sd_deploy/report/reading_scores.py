"""Read the metrics of an evaluation into an Evaluation; each field is checked here, once."""

from __future__ import annotations

from collections.abc import Mapping

from g2sd_deploy.errors import UserError
from g2sd_deploy.report.fields import Fields
from g2sd_deploy.report.scores import (
    Agreement,
    Bin,
    CorruptedSet,
    Corruptions,
    Evaluation,
    HeadDistances,
    Interval,
    LayerPair,
    ModelScores,
    OcclusionCurve,
    OcclusionFacts,
    PerClass,
    Preparation,
    RiskCoverage,
    Scores,
    SetFacts,
    Similarity,
)


def read_evaluation(metrics: Fields, *, of_a_run: bool) -> Evaluation:
    """Everything that the metrics of an evaluation say.

    Args:
        metrics: What the evaluate stage or `g2sd evaluate` wrote; what a later version adds may be missing.
        of_a_run: Every model has been scored on the run's own test set.

    Raises:
        UserError: A field is missing, of another type, or does not fit the others.
    """
    occlusion = _occlusion_facts(metrics.child("occlusion")) if metrics.has("occlusion") else None
    models = {name: _model(name, fields, of_a_run, occlusion) for name, fields in metrics.child("models").named_children().items()}
    return Evaluation(
        models=models,
        num_corruption_images=metrics.maybe_count("num_corruption_images") or 0,
        corruption_note=metrics.maybe_text("corruption_note"),
        agreement=metrics.numbers("agreement"),
        sets={name: _set_facts(fields) for name, fields in metrics.maybe_child("sets").named_children().items()},
        occlusion=occlusion,
        similarity=_similarity(metrics.child("similarity")) if metrics.has("similarity") else None,
        teacher=metrics.maybe_text("teacher") or "teacher",
    )


def _model(name: str, fields: Fields, of_a_run: bool, occlusion: OcclusionFacts | None) -> ModelScores:
    sets = fields.maybe_child("sets").named_children()
    curves = fields.maybe_child("occlusion").named_children()
    return ModelScores(
        name=name,
        num_parameters=fields.maybe_count("num_parameters"),
        model_mib=fields.number("model_mib"),
        clean_scores=_scores(fields.child("clean")) if of_a_run or fields.has("clean") else None,
        corruptions=_corruptions(fields.maybe_child("corruptions")),
        mean_corruption_top1=fields.maybe_number("mean_corruption_top1"),
        mean_corruption_interval=_interval(fields, "mean_corruption_interval") if fields.has("mean_corruption_interval") else None,
        sets={key: _scores(found) for key, found in sets.items() if "mean_error" not in found.values},
        corrupted_sets={key: _corrupted_set(found) for key, found in sets.items() if "mean_error" in found.values},
        occlusion={order: _occlusion_curve(curve, occlusion) for order, curve in curves.items()},
        runtime=fields.maybe_text("runtime"),
        digest=fields.maybe_text("digest"),
        preparation=_preparation(fields.child("preprocessing")) if fields.has("preprocessing") else None,
    )


def _scores(fields: Fields) -> Scores:
    return Scores(
        top1=fields.number("top1"),
        top5=fields.maybe_number("top5"),
        nll=fields.maybe_number("nll"),
        ece=fields.maybe_number("ece"),
        num_images=fields.maybe_count("num_images"),
        brier=fields.maybe_number("brier"),
        ece_equal_mass=fields.maybe_number("ece_equal_mass"),
        aurc=fields.maybe_number("aurc"),
        intervals=_intervals(fields),
        per_class=_per_class(fields.child("per_class")) if fields.has("per_class") else None,
        reliability=tuple(_bin(item) for item in fields.children("reliability")) if fields.has("reliability") else (),
        risk_coverage=_risk_coverage(fields.child("risk_coverage")) if fields.has("risk_coverage") else None,
        agreement=_agreement(fields.child("agreement")) if fields.has("agreement") else None,
    )


def _interval(fields: Fields, key: str) -> Interval:
    ends = fields.number_list(key)
    if len(ends) != 2:
        fields.refuse(key, "two numbers, the ends of an interval")
    return ends[0], ends[1]


def _intervals(fields: Fields) -> dict[str, Interval]:
    """Interval of each metric that has one."""
    found = fields.maybe_child("intervals")
    return {key: _interval(found, key) for key in found.values if found.has(key)}


def _bin(fields: Fields) -> Bin:
    return Bin(
        low=fields.number("low"),
        high=fields.number("high"),
        num=fields.count("num"),
        confidence=fields.maybe_number("confidence"),
        accuracy=fields.maybe_number("accuracy"),
    )


def _per_class(fields: Fields) -> PerClass:
    found = PerClass(tuple(int(num) for num in fields.number_list("num")), fields.gappy_list("top1"))
    if len(found.num) != len(found.top1):
        fields.refuse("top1", f"{len(found.num)} values, one for each of num")
    return found


def _risk_coverage(fields: Fields) -> RiskCoverage:
    found = RiskCoverage(fields.number_list("coverage"), fields.number_list("risk"))
    if len(found.coverage) != len(found.risk):
        fields.refuse("risk", f"{len(found.coverage)} values, one for each of coverage")
    return found


def _agreement(fields: Fields) -> Agreement:
    return Agreement(fields.number("same"), fields.maybe_number("kl"), _intervals(fields))


def _corruptions(fields: Fields) -> Corruptions:
    return {name: _severities(levels) for name, levels in fields.named_children().items()}


def _severities(fields: Fields) -> Mapping[int, Scores]:
    levels = fields.named_children()
    if not levels or not all(level.isdecimal() for level in levels):
        raise UserError(
            f"{fields.where} has the severities {sorted(levels)}, wanted whole numbers from 1. Run evaluate again with --force."
        )
    return {int(level): _scores(levels[level]) for level in sorted(levels, key=int)}


def _corrupted_set(fields: Fields) -> CorruptedSet:
    return CorruptedSet(
        mean_error=fields.maybe_number("mean_error"),
        mce=fields.maybe_number("mce"),
        relative_mce=fields.maybe_number("relative_mce"),
        intervals=_intervals(fields),
        corruptions=_corruptions(fields.maybe_child("corruptions")),
    )


def _preparation(fields: Fields) -> Preparation:
    return Preparation(
        image_px=fields.count("image_px"),
        resize_px=fields.maybe_count("resize_px"),
        interpolation=fields.maybe_text("interpolation"),
        mean=fields.number_list("mean"),
        std=fields.number_list("std"),
    )


def _set_facts(fields: Fields) -> SetFacts:
    skipped = fields.children("skipped") if fields.has("skipped") else ()
    return SetFacts(
        note=fields.maybe_text("note"),
        num_images=fields.maybe_count("num_images"),
        num_classes=fields.maybe_count("num_classes"),
        num_skipped=fields.maybe_count("num_skipped") or 0,
        skipped=tuple((item.text("name"), item.text("reason")) for item in skipped),
        class_names=fields.texts("class_names") if fields.has("class_names") else (),
    )


def _occlusion_facts(fields: Fields) -> OcclusionFacts:
    return OcclusionFacts(
        shares=fields.number_list("shares"),
        grid=fields.count("grid"),
        num_images=fields.count("num_images"),
        seed=fields.maybe_count("seed"),
        salience=fields.maybe_text("salience"),
        fill=fields.maybe_text("fill"),
    )


def _occlusion_curve(fields: Fields, facts: OcclusionFacts | None) -> OcclusionCurve:
    curve = OcclusionCurve(
        top1=fields.number_list("top1"),
        interval=tuple((low, high) for low, high in fields.matrix("interval", width=2)) if fields.has("interval") else (),
        relative=fields.gappy_list("relative") if fields.has("relative") else (),
    )
    num_shares = len(facts.shares) if facts else 0
    for key, values in (("top1", curve.top1), ("interval", curve.interval), ("relative", curve.relative)):
        if values and len(values) != num_shares:
            fields.refuse(key, f"{num_shares} values, one for each of occlusion: shares")
    return curve


def _similarity(fields: Fields) -> Similarity:
    return Similarity(
        num_images=fields.count("num_images"),
        batch_size=fields.maybe_count("batch_size"),
        note=fields.maybe_text("note"),
        pairs=tuple(_layer_pair(item) for item in fields.children("pairs")) if fields.has("pairs") else (),
        attention_distance=(
            tuple(_head_distances(item) for item in fields.children("attention_distance")) if fields.has("attention_distance") else ()
        ),
    )


def _layer_pair(fields: Fields) -> LayerPair:
    rows, columns = fields.texts("rows"), fields.texts("columns")
    cka = fields.gappy_matrix("cka", width=len(columns))
    if len(cka) != len(rows) or not (rows and columns):
        fields.refuse("cka", f"{len(rows)} rows of {len(columns)} numbers")
    return LayerPair(fields.text("name"), fields.maybe_text("when"), fields.text("reference"), rows, columns, cka)


def _head_distances(fields: Fields) -> HeadDistances:
    return HeadDistances(fields.text("name"), fields.maybe_text("when"), fields.count("image_px"), fields.gappy_matrix("px"))
