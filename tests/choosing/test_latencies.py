"""Where a latency comes from when there is no profile."""

from pathlib import Path

from g2sd_deploy.choosing.latencies import Asked, Profile, timed
from g2sd_deploy.choosing.points import Accuracy, Found, Images, Point

ACCURACY = Accuracy(Images("w", "pets", 100), 90, 0, 0)
RACE = {"p50_ms": 10.0, "spread": 0.2, "batch": 1, "threads": 2, "verdict": "valid", "reasons": []}


def found(model: str, race: dict[str, dict[str, object]]) -> Found:
    point = Point(model, "fp32-openvino", "fp32", "openvino", 0, f"digest of {model}", ACCURACY, 1)
    return Found(model, Path(model), (point,), None, race)


def test_without_a_profile_the_race_while_exporting_counts_and_its_spread_is_the_interval() -> None:
    got = timed([found("a", {"fp32-openvino": RACE})], [], Asked(), advice="")
    latency = got.latencies["a fp32-openvino"]
    assert (latency.p50_ms, latency.low_ms, latency.high_ms, got.threads) == (10.0, 9.0, 11.0, 2)
    assert got.source == "the export's own race, a session for each bundle"


def test_a_race_that_was_disturbed_does_not_count() -> None:
    got = timed([found("a", {"fp32-openvino": {**RACE, "verdict": "invalid", "reasons": ["it throttled"]}})], [], Asked(), advice="")
    assert not got.latencies and got.why_not == {"a fp32-openvino": "its latency is invalid: it throttled"}


def test_a_race_is_never_compared_with_a_profile() -> None:
    row = {**RACE, "digest": "digest of a", "variant": "fp32-openvino", "p50_ms": 7.0}
    profile = Profile("p.json", "a board", (row,))
    got = timed([found("a", {}), found("b", {"fp32-openvino": RACE})], [profile], Asked(), advice="time it")
    assert {name: one.p50_ms for name, one in got.latencies.items()} == {"a fp32-openvino": 7.0}
    assert got.why_not == {"b fp32-openvino": "it was not timed; time it"}
