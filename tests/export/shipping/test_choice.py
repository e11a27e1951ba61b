from typing import Any

from g2sd_export.shipping.choice import Outcome, choose
from g2sd_export.targets import Candidate


def outcome(precision: str, p50_ms: float | None, verdict: str = "passed", reason: str = "") -> Outcome:
    values: dict[str, Any] = {"runtime": "openvino", "precision": precision}
    return Outcome(Candidate(**values), verdict, reason, p50_ms=p50_ms)  # type: ignore[arg-type]


def chosen(outcomes: list[Outcome]) -> list[str]:
    return [one.name for one in choose(outcomes) if one.chosen]


def test_the_fastest_that_passed_ships_and_the_others_say_by_how_much_they_lost() -> None:
    found = choose([outcome("int8", 10.0), outcome("fp32", 25.0)])
    assert [one.chosen for one in found] == [True, False]
    assert found[1].reason == "25 ms is 2.50 times the 10 ms of int8-openvino"


def test_int8_does_not_ship_where_it_is_slower() -> None:
    found = choose([outcome("int8", 18.0), outcome("bf16", 12.0)])
    assert [one.chosen for one in found] == [False, True]
    assert found[0].reason == "18 ms is 1.50 times the 12 ms of bf16-openvino"


def test_a_tie_goes_to_the_format_of_more_bits() -> None:
    assert chosen([outcome("int8", 10.0), outcome("bf16", 10.2), outcome("fp32", 10.25)]) == ["fp32-openvino"]
    assert chosen([outcome("int8", 10.0), outcome("bf16", 10.4)]) == ["int8-openvino"]


def test_one_that_failed_is_never_chosen_however_fast_and_keeps_its_reason() -> None:
    found = choose([outcome("int8", 1.0, "failed", "costs 2 points"), outcome("fp32", 25.0)])
    assert [one.chosen for one in found] == [False, True]
    assert found[0].reason == "costs 2 points"


def test_nothing_is_chosen_where_nothing_passed() -> None:
    assert chosen([outcome("int8", 1.0, "failed"), outcome("fp32", 2.0, "not_run")]) == []


def test_without_latencies_the_order_of_the_target_decides() -> None:
    found = choose([outcome("int8", None, "failed", "flips"), outcome("bf16", None), outcome("fp32", None)])
    assert [one.chosen for one in found] == [False, True, False]
    assert found[2].reason == "bf16-openvino comes first in the target's order"
    assert found[1].reason == "first in the target's order"


def test_one_that_could_not_be_timed_gives_way_to_one_that_was() -> None:
    assert chosen([outcome("bf16", None), outcome("fp32", 20.0)]) == ["fp32-openvino"]
