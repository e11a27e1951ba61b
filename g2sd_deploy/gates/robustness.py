"""The robustness gate: accuracy under corruptions, their mean by image and each of them, paired where the answers are stored."""

import math

import numpy as np

from g2sd_deploy.gates.accuracy import found_surely, too_sure
from g2sd_deploy.gates.outcome import Gate, Verdict, not_run, p_text, percent, points
from g2sd_deploy.gates.packing import unpacked
from g2sd_deploy.gates.settings import RobustnessGate
from g2sd_deploy.gates.snapshot import Answers, Corruptions, Model
from g2sd_deploy.gates.statistics import NORMAL, Sureness, Tested, drop_p, holm, normal_test, student_test

_TWO_SIDED_95 = NORMAL.inv_cdf(0.975)
_NAMED = 3


def robustness_gates(name: str, before: Model, after: Model, settings: RobustnessGate, sureness: Sureness) -> list[Gate]:
    """Gates on the mean over corruptions and, where answers are paired, on each corruption.

    Args:
        name: Of the model.
        before: As it is in the baseline.
        after: As it is in the run.
        settings: What is tolerated.
        sureness: Level and power.
    """
    pairs = _pairs(before, after)
    if pairs:
        return [_paired_mean(name, pairs, settings, sureness), _each(name, pairs, settings, sureness)]
    if before.corruptions is None and after.corruptions is None:
        return []
    if before.corruptions is None or after.corruptions is None:
        lacks = "baseline" if before.corruptions is None else "run"
        return [not_run("robustness", f"{name} mean", f"the {lacks} has no accuracy of {name} under corruptions")]
    return [_unpaired_mean(name, before.corruptions, after.corruptions, settings, sureness)]


def _pairs(before: Model, after: Model) -> dict[str, tuple[Answers, Answers]]:
    """Answers to the same corrupted images, by corruption and severity."""
    known = {(one.set, one.variant): one for one in before.answers if one.variant}
    found = {(one.set, one.variant): one for one in after.answers if one.variant}
    same = [key for key in known if key in found and known[key].images == found[key].images]
    return {f"{key[1]}" if key[0] == "clean" else " ".join(key): (known[key], found[key]) for key in same}


def _paired_mean(name: str, pairs: dict[str, tuple[Answers, Answers]], settings: RobustnessGate, sureness: Sureness) -> Gate:
    """The images are the independent units: one that is hard under one corruption is hard under most."""
    groups: dict[str, list[np.ndarray]] = {}
    shares = []
    for was, now in pairs.values():
        bits = unpacked(was).astype(float), unpacked(now).astype(float)
        groups.setdefault(was.images, []).append(bits[0] - bits[1])
        shares.append((bits[0].mean(), bits[1].mean()))
    drops = [np.mean(of_images, axis=0) for of_images in groups.values()]
    weights = [len(of_images) / len(pairs) for of_images in groups.values()]
    value = sum(weight * float(drop.mean()) for weight, drop in zip(weights, drops, strict=True))
    errors = [
        weight * float(drop.std(ddof=1)) / math.sqrt(len(drop)) if len(drop) > 1 else 0.0
        for weight, drop in zip(weights, drops, strict=True)
    ]
    freedom = max(1, min(len(drop) for drop in drops) - 1)
    tested = student_test(value, math.hypot(*errors), freedom, settings.max_drop_points / 100, sureness)
    before, after = (float(np.mean(column)) for column in zip(*shares, strict=True))
    how = f"paired by image over {len(pairs)} corruptions and severities, {len(drops[0]):,} images"
    return _mean_gate(name, tested, (before, after), how, settings, sureness)


def _unpaired_mean(name: str, before: Corruptions, after: Corruptions, settings: RobustnessGate, sureness: Sureness) -> Gate:
    subject = f"{name} mean"
    if before.top1.keys() != after.top1.keys():
        other = sorted(before.top1.keys() ^ after.top1.keys())
        return not_run("robustness", subject, f"the corruptions are not the same: {', '.join(other[:_NAMED])} on one side alone")
    if before.interval is None or after.interval is None:
        return not_run("robustness", subject, "there is no interval of the mean, so no drop can be told from chance")
    error = math.hypot(error_of(before.interval), error_of(after.interval))
    tested = normal_test(before.mean - after.mean, error, settings.max_drop_points / 100, sureness)
    how = f"not paired (no answers are stored), {before.num_images:,} and {after.num_images:,} images"
    return _mean_gate(name, tested, (before.mean, after.mean), how, settings, sureness)


def _mean_gate(name: str, tested: Tested, shares: tuple[float, float], how: str, settings: RobustnessGate, sureness: Sureness) -> Gate:
    verdict: Verdict = "failed" if tested.p <= sureness.alpha else "passed"
    change = f"{points(tested.value)} points lost" if tested.value >= 0 else f"{points(-tested.value)} points gained"
    tolerance = settings.max_drop_points / 100
    finds = found_surely(tested, sureness) if tested.detectable > tolerance else "no answer changed sides"
    tolerated = f", {settings.max_drop_points:g} tolerated" if settings.max_drop_points else ""
    reason = f"{percent(shares[0])} → {percent(shares[1])} in the mean, {change}{tolerated}, p {p_text(tested.p)}; {how}; {finds}"
    figures = {
        "top1": shares[1],
        "baseline_top1": shares[0],
        "drop_points": 100 * tested.value,
        "drop_at_least_points": 100 * tested.bound,
        "p": tested.p,
        "detectable_points": 100 * tested.detectable,
    }
    caveat = "" if verdict == "failed" else too_sure(tested, tolerance, settings.must_find_points / 100)
    return Gate("robustness", f"{name} mean", verdict, reason, figures, caveat)


def _each(name: str, pairs: dict[str, tuple[Answers, Answers]], settings: RobustnessGate, sureness: Sureness) -> Gate:
    """Every corruption by itself; together they raise no more false alarms than one."""
    p_values, drops = {}, {}
    for case, (was, now) in pairs.items():
        before, after = unpacked(was), unpacked(now)
        lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
        p_values[case] = drop_p(lost, gained, len(before), settings.max_drop_points / 100)
        drops[case] = (lost - gained) / len(before)
    adjusted = holm(p_values)
    worst = sorted(adjusted, key=lambda case: (adjusted[case], -drops[case]))
    failed = [case for case in worst if adjusted[case] <= sureness.alpha]
    shown = ", ".join(f"{case} {points(drops[case])} points (p {p_text(adjusted[case])})" for case in (failed or worst)[:_NAMED])
    more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    said = (
        f"{len(failed)} of {len(pairs)} lost accuracy: {shown}{more}"
        if failed
        else f"none of {len(pairs)} lost accuracy beyond chance; worst {shown}"
    )
    figures = {"drop_points": {case: 100 * drop for case, drop in drops.items()}, "p": adjusted, "failed": failed}
    return Gate("robustness", f"{name} each", "failed" if failed else "passed", f"{said}; p after Holm", figures)


def error_of(interval: tuple[float, float]) -> float:
    """Standard error that a 95 % interval stands for."""
    return (interval[1] - interval[0]) / (2 * _TWO_SIDED_95)
