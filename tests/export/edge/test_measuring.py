"""Rounds on a machine whose clock and neighbours the test moves: what is disturbed is void, and what is left is judged."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from g2sd_export.edge.conditions import Watch
from g2sd_export.edge.errors import UserError
from g2sd_export.edge.measuring import MeasureSettings, Subject, join_conditions, measure
from g2sd_export.edge.rounds import MIN_ROUNDS, WARMUP_BLOCKS, warm_up
from g2sd_export.edge.rows import unsteady

Machine = Any
BRIEF = MeasureSettings(percentile=90.0, seconds=20.0)


def subject(machine: Machine, name: str, ms: Callable[[float], float] | float, **more: Any) -> Subject:
    """Takes a time, or what a function of the time of day says, and 1 % more or less."""
    draw = np.random.default_rng(len(name))

    def call() -> None:
        now = ms(machine.now_s) if callable(ms) else ms
        machine.work(now * (1 + 0.01 * float(draw.uniform(-1, 1))))

    return Subject(name, more.pop("batch", 1), call, **more)


def measured(machine: Machine, *subjects: Subject, **settings: Any) -> Any:
    return measure(subjects, MeasureSettings(**{"percentile": 90.0, "seconds": 20.0, **settings}), watch=Watch(machine, None))


def test_a_quiet_machine_gives_valid_rows_whose_numbers_are_those_of_the_calls(machine: Machine) -> None:
    session = measured(machine, subject(machine, "a", 10.0, batch=4), subject(machine, "bb", 20.0), reference="bb")
    row, other = session.rows["a"], session.rows["bb"]
    assert (row["verdict"], row["reasons"], session.conditions["verdict"]) == ("valid", [], "valid")
    assert row["p50_ms"] == pytest.approx(10.0, rel=0.01) and row["images_per_s"] == pytest.approx(400, rel=0.01)
    assert row["p50_interval_ms"][0] <= row["p50_ms"] <= row["p50_interval_ms"][1]
    assert row["ratio"]["to"] == "bb" and row["ratio"]["value"] == pytest.approx(0.5, rel=0.01) and other["ratio"] is None
    assert row["ratio"]["interval"][0] <= row["ratio"]["value"] <= row["ratio"]["interval"][1]
    assert row["round_index"] == other["round_index"] == list(range(len(row["round_p50_ms"]))) and len(row["round_index"]) >= MIN_ROUNDS
    assert row["num_samples"] == sum(row["histogram"]["counts"]) >= 64 and row["p90_ms"] is not None
    assert row["scenario"] == "single_stream" and row["warmup_calls"] >= WARMUP_BLOCKS
    assert session.conditions["num_void"] == 0 and session.conditions["voids"] == {}


def test_a_round_that_another_process_disturbed_is_void_for_all_and_is_measured_again(machine: Machine) -> None:
    machine.others = lambda now_s: 1.6 if 4.0 <= now_s < 6.0 else 0.0

    def disturbed(now_s: float) -> float:
        return 30.0 if 4.0 <= now_s < 6.0 else 10.0

    session = measured(machine, subject(machine, "a", disturbed), subject(machine, "bb", disturbed))
    voids = session.conditions["num_void"]
    ((reason, count),) = session.conditions["voids"].items()
    assert count == voids >= 3 and re.fullmatch(r"other processes used (83|84|85) % of the processors", reason)
    for row in session.rows.values():
        assert row["verdict"] == "valid" and len(row["round_index"]) == session.conditions["num_rounds"] - voids >= MIN_ROUNDS
        assert row["p50_ms"] == pytest.approx(10.0, rel=0.01) and max(row["round_p50_ms"]) < 11
        assert row["histogram"]["edges_ms"][-1] < 11  # not one call of the disturbed rounds
    assert len(set(range(session.conditions["num_rounds"])) - set(session.rows["a"]["round_index"])) == voids


def test_a_disturbance_of_one_subjects_turn_makes_the_round_void_for_the_others_too(machine: Machine) -> None:
    calls: list[str] = []
    machine.others = lambda now_s: 1.0 if calls and calls[-1] == "loud" and 5 < now_s < 9 else 0.0

    def named(name: str) -> Subject:
        inner = subject(machine, name, 10.0)

        def call() -> None:
            calls.append(name)
            inner.call()

        return Subject(name, 1, call)

    session = measured(machine, named("quiet"), named("loud"))
    assert session.conditions["num_void"] > 0
    assert session.rows["quiet"]["round_index"] == session.rows["loud"]["round_index"]


def test_a_load_that_stays_makes_every_row_invalid_with_the_reason_and_shows_what_was_measured(machine: Machine) -> None:
    machine.others = lambda now_s: 1.0
    session = measured(machine, subject(machine, "a", 10.0), seconds=5.0)
    row = session.rows["a"]
    num = session.conditions["num_rounds"]
    assert session.conditions["verdict"] == row["verdict"] == "invalid" and session.conditions["num_void"] == num
    (reason,) = row["reasons"]
    assert reason.startswith(f"0 of {num} rounds were undisturbed and {MIN_ROUNDS} are needed: other processes used 50 % of the processors")
    assert reason.endswith("; the numbers are those of disturbed rounds") and row["p50_ms"] == pytest.approx(10.0, rel=0.01)
    assert 5.0 <= machine.now_s <= 5.0 + 2.5 + 1.0  # time, warm-up, and the round that was under way


def test_load_too_slight_for_any_round_to_show_is_found_in_all_of_them(machine: Machine) -> None:
    machine.others = lambda now_s: 0.15
    session = measured(machine, subject(machine, "a", 10.0), percentile=99.0)
    (reason,) = session.rows["a"]["reasons"]
    assert session.conditions["num_rounds"] - session.conditions["num_void"] >= MIN_ROUNDS
    assert session.conditions["verdict"] == "invalid" and reason.startswith("over all rounds together, other processes used ")


def test_a_machine_that_slowed_itself_down_is_told_apart_from_a_loaded_one(machine: Machine) -> None:
    path = "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count"
    machine.files[path] = "0"

    def heating(now_s: float) -> float:
        machine.files[path] = str(int(now_s * 100))
        return 10.0

    session = measured(machine, subject(machine, "a", heating), seconds=4.0)
    assert session.conditions["num_void"] == session.conditions["num_rounds"]
    assert session.rows["a"]["reasons"][0].count("the processor slowed itself down") == 1


def test_a_latency_that_creeps_up_is_invalid(machine: Machine) -> None:
    row = measured(machine, subject(machine, "a", lambda now_s: 10 + now_s), percentile=99.0).rows["a"]
    assert row["verdict"] == "invalid" and any("the latency drifted by +" in reason for reason in row["reasons"])


def test_a_latency_that_jumps_is_invalid(machine: Machine) -> None:
    slow = subject(machine, "a", lambda now_s: 10.0 if now_s < 5 else 12.0)
    row = measured(machine, slow, percentile=99.0, seconds=10.0).rows["a"]
    assert row["verdict"] == "invalid" and any("between rounds" in reason or "over the rounds" in reason for reason in row["reasons"])


def test_a_late_jump_is_told_from_a_drift() -> None:
    scatter = np.random.default_rng(6).uniform(-0.05, 0.05, 16)
    steady, late = 10 + scatter, np.where(np.arange(16) < 12, 10.0, 12.0) + scatter
    assert unsteady(list(steady)) == [] and unsteady(list(late)) == ["the latency jumped by +20 % between rounds"]
    assert unsteady(list(10 + 0.01 * np.arange(16))) == []  # orderly, and too little to matter


def test_what_drifts_alike_for_both_leaves_their_ratio_alone(machine: Machine) -> None:
    one, two = (subject(machine, name, lambda now_s, factor=factor: factor * (10 + 0.5 * now_s)) for name, factor in (("a", 1), ("bb", 2)))
    row = measured(machine, one, two, reference="bb", percentile=99.0).rows["a"]
    assert row["ratio"]["value"] == pytest.approx(0.5, rel=0.03) and row["verdict"] == "invalid"
    assert row["reasons"] and row["ratio"]["reasons"] == [], "the milliseconds are not believed, the ratio is"


def test_a_ratio_that_drifts_is_not_believed(machine: Machine) -> None:
    one = subject(machine, "a", lambda now_s: 10 + 0.5 * now_s)
    row = measured(machine, one, subject(machine, "bb", 10.0), reference="bb", percentile=99.0).rows["a"]
    assert any("the ratio to bb drifted by +" in reason for reason in row["ratio"]["reasons"])
    assert set(row["ratio"]["reasons"]) < set(row["reasons"])


def test_an_imprecise_ratio_is_measured_until_time_is_up_and_then_invalid(machine: Machine) -> None:
    draw = np.random.default_rng(5)
    level = {"now": 1.0}

    def moody(now_s: float) -> float:
        if round(now_s * 100) % 40 == 0:
            level["now"] = float(draw.uniform(0.6, 1.4))
        return 10 * level["now"]

    row = measured(machine, subject(machine, "a", moody), subject(machine, "bb", 10.0), reference="bb", seconds=6.0).rows["a"]
    assert row["verdict"] == "invalid" and any("the ratio to bb is known to within" in reason for reason in row["reasons"])


def test_measuring_goes_on_until_the_samples_carry_the_percentile(machine: Machine) -> None:
    few = measured(machine, subject(machine, "a", 10.0), percentile=90.0).rows["a"]
    many = measured(machine, subject(machine, "a", 10.0), percentile=99.0).rows["a"]
    assert 64 <= few["num_samples"] < 662 <= many["num_samples"] < 800
    assert few["p99_ms"] is None and few["withheld"]["p99_ms"] == f"{few['num_samples']} of the 662 samples that it takes"
    assert many["p99_ms"] == pytest.approx(10.1, rel=0.01) and many["p999_ms"] is None


def test_subjects_take_turns_and_the_first_of_a_round_changes(machine: Machine) -> None:
    order: list[str] = []
    rounds: list[int] = []  # where each round ended

    def named(name: str) -> Subject:
        def call() -> None:
            if not order or order[-1] != name:
                order.append(name)
            machine.work(10)

        return Subject(name, 1, call)

    subjects = [named(name) for name in "abcd"]
    measure(subjects, BRIEF, watch=Watch(machine, None), tick=lambda *_: rounds.append(len(order)))
    assert "".join(order[:4]) == "abcd"  # the warm-ups
    firsts = [order[end] for end in rounds[:3]]
    assert firsts == ["b", "c", "d"] and "".join(order[rounds[0] : rounds[1]]) == "bcda"


def test_warm_up_ends_when_the_series_is_stationary_and_not_before(machine: Machine) -> None:
    calls: list[float] = []

    def call() -> None:
        calls.append(machine.now_s)
        machine.work(10 + 20 * max(0.0, 1 - machine.now_s))  # falls for a second

    num = warm_up(call, Watch(machine, None))
    assert num == len(calls) and 1.0 < machine.now_s < 2.5


def test_a_warm_up_that_never_ends_is_cut_off(machine: Machine) -> None:
    warm_up(lambda: machine.work(10 + 5 * machine.now_s), Watch(machine, None), most_s=3.0)
    assert 3.0 <= machine.now_s <= 3.2


def test_slow_calls_are_bounded_in_time_too(machine: Machine) -> None:
    session = measured(machine, subject(machine, "a", 3000.0), seconds=10.0)
    assert machine.now_s < 10 + 5 + 2 * 3 * 3 and session.rows["a"]["verdict"] == "invalid"
    assert "time was up" in session.rows["a"]["reasons"][0]


def test_phases_are_told_apart_where_the_runtime_can(machine: Machine) -> None:
    phases = iter([{"to_device_ms": 1.0, "compute_ms": value, "from_device_ms": 0.5} for value in (3.0, 5.0, *([4.0] * 18))])
    session = measured(machine, subject(machine, "a", 10.0, phases=lambda: next(phases)), subject(machine, "bb", 10.0))
    assert session.rows["a"]["phases"] == {"verdict": "measured", "to_device_ms": 1.0, "compute_ms": 4.0, "from_device_ms": 0.5}
    assert session.rows["bb"]["phases"]["verdict"] == "not_run" and session.rows["bb"]["phases"]["reason"]


def test_energy_is_that_of_timed_calls_in_undisturbed_rounds(machine: Machine) -> None:
    folder = "sys/class/powercap/intel-rapl:0"
    machine.files.update({f"{folder}/name": "package-0", f"{folder}/energy_uj": "0", f"{folder}/max_energy_range_uj": "9e12"})
    machine.others = lambda now_s: 1.0 if 3 < now_s < 5 else 0.0
    spent = {"uj": 0.0}

    def call() -> None:
        machine.work(10)
        spent["uj"] += 200_000 if 3 < machine.now_s < 5 else 50_000
        machine.files[f"{folder}/energy_uj"] = str(spent["uj"])

    session = measured(machine, Subject("a", 5, call))
    assert session.conditions["num_void"] > 0
    assert session.rows["a"]["energy"]["mj_per_image"] == pytest.approx(10.0) and session.rows["a"]["energy"]["source"] == "RAPL package-0"


def test_on_a_machine_that_tells_nothing_the_conditions_are_not_judged(machine: Machine) -> None:
    machine.has_stat, machine.name = False, "Windows"
    session = measured(machine, subject(machine, "a", 10.0))
    assert session.conditions["verdict"] == "not_run" and "Windows" in session.conditions["reasons"][0]
    assert session.rows["a"]["verdict"] == "valid"


def test_progress_ends_at_the_number_of_rounds_that_counted(machine: Machine) -> None:
    told: list[tuple[int, int]] = []
    session = measure([subject(machine, "a", 10.0)], BRIEF, watch=Watch(machine, None), tick=lambda *now: told.append(now))
    assert told[0] == (1, MIN_ROUNDS) and told[-1] == (len(session.rows["a"]["round_index"]),) * 2


@pytest.mark.parametrize(
    ("names", "reference", "message"),
    [
        ([], None, "there is nothing to measure"),
        (["a", "b", "a"], None, "a would be measured twice under one name"),
        (["a", "b"], "c", "the reference 'c' is not among what is measured: a, b"),
    ],
)
def test_what_no_session_can_be_is_refused(names: list[str], reference: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        measure([Subject(name, 1, lambda: None) for name in names], MeasureSettings(reference=reference))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seconds": 0}, "the seconds to measure are 0; they must be above 0"),
        ({"seconds": float("nan")}, "the seconds to measure are nan"),
        ({"ratio_precision": 1.0}, "the precision of a ratio is 1; it must be above 0 and below 1"),
        ({"percentile": 100}, "the percentile is 100"),
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MeasureSettings(**values)


def test_conditions_of_several_sessions_are_as_bad_as_the_worst_of_them() -> None:
    parts = [
        {"verdict": verdict, "reasons": reasons, "num_rounds": 10, "num_void": 2, "voids": voids, "before": {"n": n}, "after": {"n": n + 1}}
        for n, (verdict, reasons, voids) in enumerate(
            [
                ("valid", [], {"other processes used 31 % of the processors": 2}),
                ("invalid", ["r"], {"other processes used 7 % of the processors": 2}),
            ]
        )
    ]
    assert join_conditions(parts) == {
        "verdict": "invalid",
        "reasons": ["r"],
        "num_rounds": 20,
        "num_void": 4,
        "voids": {"other processes used 31 % of the processors": 4},
        "before": {"n": 0},
        "after": {"n": 2},
    }
    assert join_conditions([])["verdict"] == "not_run"
