"""The latency gate: a row's median relative to a reference timed in the same session, so that a slow machine fails nothing."""

import math

from g2sd_deploy.gates.outcome import Gate, not_run, p_text
from g2sd_deploy.gates.settings import LatencyGate
from g2sd_deploy.gates.snapshot import Profile, Ratio, Row, Snapshot
from g2sd_deploy.gates.statistics import NORMAL, Sureness, Tested, student_test

_TWO_SIDED_95 = NORMAL.inv_cdf(0.975)
_NO_PROFILE = "the {} has no profile with ratios to a reference; give --profile with what `g2sd profile --json` wrote"


def latency_gates(before: Snapshot, after: Snapshot, settings: LatencyGate, sureness: Sureness) -> list[Gate]:
    """A gate for every row of the baseline's profile and of the run's, but for the reference.

    Args:
        before: The baseline; of its profiles, the one of the run's machine counts.
        after: The run.
        settings: What is tolerated.
        sureness: Level and power.
    """
    if not before.profiles and not after.profiles:
        return []
    if not before.profiles or not after.profiles:
        return [not_run("latency", "", _NO_PROFILE.format("run" if before.profiles else "baseline"))]
    found = after.profiles[0]
    known = next((one for one in before.profiles if _same_machine(one, found)), None)
    if known is None:
        machines = "; ".join(dict.fromkeys(one.machine for one in before.profiles))
        return [not_run("latency", "", f"measured on another machine: {found.machine}; the baseline has {machines}")]
    if reason := _no_reference(known, found):
        return [not_run("latency", "", reason)]
    rows = {side: _named(profile) for side, profile in (("baseline", known), ("run", found))}
    names = dict.fromkeys([*rows["baseline"], *rows["run"]])
    return [_gate(name, {side: of_side.get(name, []) for side, of_side in rows.items()}, settings, sureness) for name in names]


def _named(profile: Profile) -> dict[str, list[Row]]:
    """Rows by name; one that was timed with several numbers of threads is called by those, too."""
    timed = [row for row in profile.rows if row.model != profile.reference]
    several = {row.name for row in timed if len({other.threads for other in timed if other.name == row.name}) > 1}
    found: dict[str, list[Row]] = {}
    for row in timed:
        found.setdefault(f"{row.name}, {row.threads} threads" if row.name in several else row.name, []).append(row)
    return found


def _same_machine(one: Profile, other: Profile) -> bool:
    return bool(one.cpu) and (one.cpu, one.cpus, one.system) == (other.cpu, other.cpus, other.system)


def _no_reference(known: Profile, found: Profile) -> str:
    if known.reference is None or found.reference is None:
        side = "baseline" if known.reference is None else "run"
        return f"no reference was timed with the {side}, so a slow machine would look like a slow model"
    if known.reference_digest is None or known.reference_digest != found.reference_digest:
        return "the reference is not the baseline's, so ratios to it do not compare; make the baseline again"
    return ""


def _gate(name: str, rows: dict[str, list[Row]], settings: LatencyGate, sureness: Sureness) -> Gate:
    for side, of_side in rows.items():
        if len(of_side) != 1:
            many = f"{len(of_side)} such rows" if of_side else "no such row"
            return not_run("latency", name, f"the {side} has {many}")
    before, after = (of_side[0] for of_side in rows.values())
    if reason := _not_comparable(before, after):
        return not_run("latency", name, reason)
    return _judged(name, before, after, settings, sureness)


def _not_comparable(before: Row, after: Row) -> str:
    """Why two rows do not compare; empty where they do."""
    for side, row in (("baseline", before), ("run", after)):
        if row.verdict == "not_run":
            return f"the {side}'s row is not run: {'; '.join(row.reasons) or 'no reason was given'}"
        if row.ratio is None:
            return f"the {side}'s row has no ratio to the reference"
        if row.ratio.reasons:
            return f"the {side}'s row is invalid: {'; '.join(row.ratio.reasons)}"
    if before.threads != after.threads:
        return f"measured with {after.threads} threads, the baseline's with {before.threads}"
    if before.version != after.version:
        return f"measured with {after.runtime} {after.version}, the baseline's with {before.version}"
    return ""


def _judged(name: str, before: Row, after: Row, settings: LatencyGate, sureness: Sureness) -> Gate:
    assert before.ratio is not None and after.ratio is not None
    tested = slowdown_test(before.ratio, after.ratio, settings.max_slowdown, sureness)
    failed = tested.p <= sureness.alpha
    change, finds = math.expm1(tested.value), math.expm1(tested.detectable)
    low, high = after.ratio.interval
    how = f"{change:+.1%}, {settings.max_slowdown:.1%} tolerated, p {p_text(tested.p)}"
    span = f"(95 % interval {low:.4g} to {high:.4g})"
    sure = f"a slowdown of {finds:.1%} is found in {100 * sureness.power:g} of 100 checks"
    at = f"; p50 {after.p50_ms:.3g} ms" if after.p50_ms is not None else ""
    reason = f"{before.ratio.value:.4g} → {after.ratio.value:.4g} of the reference {span}, {how}{at}; {sure}"
    figures = {
        "ratio": after.ratio.value,
        "ratio_interval": [low, high],
        "baseline_ratio": before.ratio.value,
        "slowdown": change,
        "slowdown_at_least": math.expm1(tested.bound),
        "p": tested.p,
        "detectable_slowdown": finds,
        "p50_ms": after.p50_ms,
    }
    caveat = ""
    if not failed and finds > settings.must_find_slowdown:
        caveat = f"more certainty is asked for than the sessions give: {settings.must_find_slowdown:.1%} is to be found; measure longer"
    return Gate("latency", name, "failed" if failed else "passed", reason, figures, caveat)


def slowdown_test(before: Ratio, after: Ratio, tolerated: float, sureness: Sureness) -> Tested:
    """Whether a ratio rose by more than is tolerated; values are logarithms of slowdowns.

    Ratios multiply, so their logarithms are compared. The intervals come from resampled rounds, which makes them too narrow by
    sqrt((rounds - 1) / rounds); this is put right, and the rounds of both sessions are the degrees of freedom.

    Args:
        before: The baseline's ratio.
        after: The run's ratio.
        tolerated: Slowdown that is accepted, as 0.05.
        sureness: Level and power.
    """
    errors = [_log_error(ratio) for ratio in (before, after)]
    freedom = _welch(errors, [ratio.num_rounds for ratio in (before, after)])
    return student_test(math.log(after.value / before.value), math.hypot(*errors), freedom, math.log1p(tolerated), sureness)


def _log_error(ratio: Ratio) -> float:
    low, high = ratio.interval
    return math.log(high / low) / (2 * _TWO_SIDED_95) * math.sqrt(ratio.num_rounds / max(1, ratio.num_rounds - 1))


def _welch(errors: list[float], rounds: list[int]) -> float:
    """Degrees of freedom of a difference of two means. Source: Welch 1947."""
    total = sum(error**2 for error in errors)
    parts = sum(error**4 / max(1, num - 1) for error, num in zip(errors, rounds, strict=True))
    return total**2 / parts if parts else float(max(1, sum(rounds) - 2))
