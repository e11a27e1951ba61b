"""The latency gate: ratios of two sessions, and when they do not compare."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from g2sd_deploy.errors import UserError
from g2sd_deploy.gates.latency import latency_gates
from g2sd_deploy.gates.outcome import Gate
from g2sd_deploy.gates.profiles import profile_of, read_profile
from g2sd_deploy.gates.settings import LatencyGate
from g2sd_deploy.gates.snapshot import Snapshot
from g2sd_deploy.gates.statistics import Sureness

Make = Callable[..., Any]


def gates_of(before: dict[str, Any] | None, after: dict[str, Any] | None, **settings: float) -> list[Gate]:
    known, found = (
        Snapshot(recipe="r", made_of={}, models={}, profiles=(profile_of(one, "here"),) if one else ()) for one in (before, after)
    )
    return latency_gates(known, found, LatencyGate(**settings), Sureness())


def test_a_slowdown_beyond_the_tolerance_fails_and_one_within_it_passes(profile: Make) -> None:
    (failed,) = gates_of(profile(0.5), profile(0.55))
    assert failed.verdict == "failed" and failed.figures["slowdown"] == pytest.approx(0.1)
    assert failed.name == "latency bundle fp32-onnxruntime onnxruntime CPU fp32 batch 1"
    (within,) = gates_of(profile(0.5), profile(0.512))
    assert within.verdict == "passed" and "+2.4%, 3.0% tolerated" in within.reason
    (faster,) = gates_of(profile(0.5), profile(0.3))
    assert faster.verdict == "passed"


def test_a_machine_that_is_slower_as_a_whole_fails_nothing(profile: Make) -> None:
    (gate,) = gates_of(profile(0.5), profile(0.5, p50_ms=50.0, p90_ms=55.0))
    assert gate.verdict == "passed"


def test_a_new_kernel_is_no_other_machine(profile: Make) -> None:
    (gate,) = gates_of(profile(system="Linux 6.1.0"), profile(system="Linux 6.2.0-rc1"))
    assert gate.verdict == "passed"


def test_the_p_value_is_that_of_two_means_of_logarithms(profile: Make) -> None:
    (gate,) = gates_of(profile(0.5, 0.02), profile(0.54, 0.02))
    error = math.log(1.02 / 0.98) / (2 * stats.norm.ppf(0.975)) * math.sqrt(12 / 11)
    z = (math.log(0.54 / 0.5) - math.log(1.03)) / (math.sqrt(2) * error)
    assert gate.figures["p"] == pytest.approx(stats.t.sf(z, 22))
    assert math.log1p(gate.figures["detectable_slowdown"]) == pytest.approx(
        math.log(1.03) + 2 * stats.t.ppf(0.95, 22) * math.sqrt(2) * error
    )


def test_a_wide_interval_excuses_a_slowdown_and_is_named(profile: Make) -> None:
    (gate,) = gates_of(profile(0.5, 0.1), profile(0.55, 0.1))
    assert gate.verdict == "passed" and "more certainty is asked for than the sessions give: 10.0% is to be found" in gate.caveat


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cpu": "Another CPU"}, "measured on another machine: Another CPU, 2 CPUs; the baseline has Some CPU, 2 CPUs"),
        ({"cpus": 4}, "measured on another machine: Some CPU, 4 CPUs; the baseline has Some CPU, 2 CPUs"),
        ({"threads": 1}, "measured with 1 threads, the baseline's with 2"),
        ({"version": "1.40"}, "measured with onnxruntime 1.40, the baseline's with 1.31.1"),
        ({"verdict": "invalid", "reasons": ["it throttled"]}, "the run's row is invalid: it throttled"),
        ({"verdict": "not_run", "reasons": []}, "the run's row is not run: no reason was given"),
        ({"ratio": None}, "the run's row has no ratio to the reference"),
        ({"reference": None}, "no reference was timed with the run, so a slow machine would look like a slow model"),
        ({"batch": 8}, "the run has no such row"),
        ({"conditions": {"verdict": "invalid", "reasons": ["another process"]}}, "the run's row is invalid: another process"),
    ],
)
def test_what_does_not_compare_has_no_verdict(profile: Make, changes: dict[str, Any], reason: str) -> None:
    gate = gates_of(profile(), profile(**changes))[0]
    assert gate.verdict == "not_run" and gate.reason == reason


def test_a_row_whose_milliseconds_drifted_is_judged_by_its_ratio(profile: Make) -> None:
    found = profile(0.55, verdict="invalid", reasons=["the latency drifted by +30 % over the rounds"])
    found["rows"][1]["ratio"]["reasons"] = []
    (gate,) = gates_of(profile(0.5), found)
    assert gate.verdict == "failed" and gate.figures["slowdown"] == pytest.approx(0.1)


def test_another_reference_does_not_compare(profile: Make) -> None:
    other = profile()
    other["rows"][0]["digest"] = "x" * 64
    (gate,) = gates_of(profile(), other)
    assert gate.verdict == "not_run" and "the reference is not the baseline's" in gate.reason


def test_a_run_without_a_profile_has_no_verdict_and_two_without_have_no_gate(profile: Make) -> None:
    (gate,) = gates_of(profile(), None)
    assert gate.verdict == "not_run" and "the run has no profile" in gate.reason
    assert gates_of(None, None) == []


def test_rows_of_several_numbers_of_threads_are_told_apart(profile: Make) -> None:
    def both(one: float, two: float) -> dict[str, Any]:
        found = profile(one, threads=1)
        return found | {"rows": [*found["rows"], profile(two)["rows"][1]]}

    verdicts = {gate.subject.partition(", ")[2]: gate.verdict for gate in gates_of(both(0.5, 0.3), both(0.5, 0.4))}
    assert verdicts == {"1 threads": "passed", "2 threads": "failed"}


def test_of_the_baselines_machines_the_one_at_hand_counts(profile: Make) -> None:
    known = Snapshot(recipe="r", made_of={}, models={}, profiles=(profile_of(profile(0.9, cpu="Old"), ""), profile_of(profile(0.5), "")))
    found = Snapshot(recipe="r", made_of={}, models={}, profiles=(profile_of(profile(0.5), ""),))
    (gate,) = latency_gates(known, found, LatencyGate(), Sureness())
    assert gate.verdict == "passed" and gate.figures["baseline_ratio"] == 0.5


@pytest.mark.parametrize(
    "text", ['{"format": 1}', '{"format": 2, "rows": [], "machine": {}}', '{"format": 1, "machine": {}, "rows": [{"model": "m"}]}']
)
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "profile.json"
    file.write_text(text)
    with pytest.raises(UserError, match=r"is no profile.*make one with `g2sd profile MODEL --json > FILE`"):
        read_profile(file)
