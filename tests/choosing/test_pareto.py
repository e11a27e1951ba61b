"""`g2sd pareto` on bundles, profiles and the history of a device."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from g2sd_deploy.devices import store
from g2sd_export.paired import score_interval

Make = Callable[..., Path]
Pareto = Callable[..., Any]
FP32, INT8 = "fp32-openvino", "int8-openvino"


def merging(lost: int, gained: int, per_block: int = 8) -> dict[str, Any]:
    drop = {"num_images": 1000, "lost": lost, "gained": gained, "drop": (lost - gained) / 1000, "interval": [0, 0], "p_value": 1.0}
    return {"merged_per_block": per_block, "num_images": 1000, "top1_plain": 0.9, "top1_merged": 0.89, "drop": drop}


def test_points_come_with_accuracy_latency_front_and_pick(make_bundle: Make, make_profile: Make, pareto: Pareto) -> None:
    bundle = make_bundle("small", {FP32: (900, 0, 0), INT8: (885, 17, 2)})
    profile = make_profile({(bundle, FP32): 20.0, (bundle, INT8): 10.0})
    answer = pareto(bundle, "--profile", profile, "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert [(one["name"], one["top1"], one["p50_ms"], one["on_front"], one["tied_with"]) for one in found["points"]] == [
        ("small int8-openvino", 0.885, 10.0, True, []),
        ("small fp32-openvino", 0.9, 20.0, True, []),
    ]
    assert found["pick"] == "small fp32-openvino" and found["latency"] == {"source": str(profile), "batch": 1, "threads": 2}
    low, high = (-100 * end for end in reversed(score_interval(17, 2, 1000)))
    told = f"10 ms (0.50 times the latency) and -1.50 points of top-1 (95 % interval {low:+.2f} to {high:+.2f})"
    assert found["others"] == [f"next faster: small int8-openvino instead has {told}"]


def test_a_budget_changes_the_pick_and_tells_what_is_beyond_it(make_bundle: Make, make_profile: Make, pareto: Pareto) -> None:
    bundle = make_bundle("small", {FP32: (900, 0, 0), INT8: (885, 17, 2)})
    profile = make_profile({(bundle, FP32): 20.0, (bundle, INT8): 10.0})
    answer = pareto(bundle, "--profile", profile, "--max-latency", "12ms")
    assert "pick: small int8-openvino: the most accurate of 1 with a median of at most 12 ms" in answer.out
    assert "next more accurate: small fp32-openvino instead has 20 ms (2.00 times the latency)" in answer.out
    assert "it does not keep to the budget" in answer.out
    assert pareto(bundle, "--profile", profile, "--max-latency", "0.012s", "--json").out.count("small int8-openvino") > 1


def test_nothing_within_the_budget_fails_with_the_nearest(make_bundle: Make, make_profile: Make, pareto: Pareto) -> None:
    bundle = make_bundle("small", {FP32: (900, 0, 0), INT8: (885, 17, 2)})
    profile = make_profile({(bundle, FP32): 20.0, (bundle, INT8): 10.0})
    answer = pareto(bundle, "--profile", profile, "--max-latency", "12", "--min-top1", "90")
    assert answer.code == 1
    assert answer.err == (
        "error: nothing has a median of at most 12 ms and a top-1 of at least 90.00%; nearest: small fp32-openvino has 20 ms and 90.00%, "
        "small int8-openvino has 10 ms and 88.50%\n"
    )


def test_merging_that_does_not_pay_is_dropped_aloud(make_bundle: Make, make_profile: Make, pareto: Pareto) -> None:
    plain, merged = make_bundle("plain", {FP32: (900, 0, 0)}), make_bundle("merged", {FP32: (890, 0, 0)}, merging=merging(20, 10))
    profile = make_profile({(plain, FP32): 10.0, (merged, FP32): 10.1})
    out = " ".join(pareto(plain, merged, "--profile", profile).out.split())
    assert (
        "token merging: merged fp32-openvino (merging 8) is DROPPED, plain fp32-openvino is at least as accurate (90.00% and 89.00%) and "
        "no slower (10 and 10.1 ms); against plain fp32-openvino it has 10.1 ms (1.01 times the latency) and -1.00 points of top-1" in out
    )


def test_merging_that_pays_is_kept_and_its_gain_told(make_bundle: Make, make_profile: Make, pareto: Pareto) -> None:
    plain, merged = make_bundle("plain", {FP32: (900, 0, 0)}), make_bundle("merged", {FP32: (895, 0, 0)}, merging=merging(10, 5))
    profile = make_profile({(plain, FP32): 10.0, (merged, FP32): 7.0})
    out = " ".join(pareto(plain, merged, "--profile", profile).out.split())
    assert "merged fp32-openvino (merging 8) is kept, it is on the front; against plain fp32-openvino it has 7 ms (0.70 times" in out
    assert "pick: merged fp32-openvino (merging 8): the fastest whose accuracy is tied with" in out


def test_merging_and_its_number_format_add_up_in_the_comparison_with_the_plain_file(
    make_bundle: Make, make_profile: Make, pareto: Pareto
) -> None:
    """Images that changed sides by merging and those by rounding: at most all of them did."""
    plain, merged = make_bundle("plain", {FP32: (900, 0, 0)}), make_bundle("merged", {INT8: (880, 15, 5)}, merging=merging(20, 10))
    profile = make_profile({(plain, FP32): 10.0, (merged, INT8): 5.0})
    low, high = (-100 * end for end in reversed(score_interval(35, 15, 1000)))
    assert f"-2.00 points of top-1 (95 % interval {low:+.2f} to {high:+.2f})" in pareto(plain, merged, "--profile", profile).out


def test_what_is_left_out_is_named_with_its_reason(make_bundle: Make, make_profile: Make, pareto: Pareto) -> None:
    tried = [{"name": "bf16-openvino", "precision": "bf16", "runtime": "openvino", "verdict": "failed", "reason": "a logit differs by 3"}]
    variants = {FP32: (900, 0, 0), INT8: (890, 12, 2), "fp16-onnxruntime": (0, 0, 0), "fp32-onnxruntime": (900, 0, 0)}
    bundle = make_bundle("small", variants, tried=tried)
    invalid = {"verdict": "invalid", "reasons": ["other processes used 83 % of the processors"]}
    profile = make_profile({(bundle, FP32): 20.0, (bundle, INT8): invalid})
    left_out = {one["name"]: one["reason"] for one in json.loads(pareto(bundle, "--profile", profile, "--json").out)["left_out"]}
    assert left_out == {
        "small fp16-onnxruntime": "its accuracy was not measured: there is no such GPU here",
        "small bf16-openvino": "its proof failed: a logit differs by 3",
        "small int8-openvino": "its latency is invalid: other processes used 83 % of the processors",
        "small fp32-onnxruntime": f"it was not timed; time it: g2sd profile {bundle} --out FILE.json, and give --profile FILE.json",
    }


@pytest.mark.parametrize(
    ("changes", "arguments", "reason"),
    [
        ({"batch": 8}, (), "it was timed with batches of 8, not of 1"),
        ({"threads": 1}, ("--threads", "2"), "it was timed with 1 threads, not with 2"),
        ({"scenario": "offline"}, (), "it was not timed;"),
        ({"verdict": "not_run", "reasons": ["no GPU"]}, (), "its latency is not run: no GPU"),
    ],
)
def test_a_row_that_does_not_answer_the_question_says_so(
    changes: dict[str, Any], arguments: tuple[str, ...], reason: str, make_bundle: Make, make_profile: Make, pareto: Pareto
) -> None:
    bundle = make_bundle("small", {FP32: (900, 0, 0), INT8: (890, 12, 2)})
    profile = make_profile({(bundle, FP32): 20.0, (bundle, INT8): changes})
    found = json.loads(pareto(bundle, "--profile", profile, "--json", *arguments).out)
    assert found["left_out"][0]["name"] == "small int8-openvino" and found["left_out"][0]["reason"].startswith(reason)


def test_files_that_are_left_out_for_one_reason_are_named_together(make_bundle: Make, make_profile: Make, pareto: Pareto) -> None:
    bundle = make_bundle("small", {FP32: (900, 0, 0), INT8: (890, 12, 2)})
    invalid = {"verdict": "invalid", "reasons": ["it throttled"]}
    answer = pareto(bundle, "--profile", make_profile({(bundle, FP32): invalid, (bundle, INT8): invalid}))
    assert answer.code == 2
    assert answer.err == "error: nothing can be compared: small fp32-openvino, small int8-openvino: its latency is invalid: it throttled\n"


def test_latencies_of_another_machine_are_not_mixed_in(make_bundle: Make, make_profile: Make, pareto: Pareto) -> None:
    bundle = make_bundle("small", {FP32: (900, 0, 0), INT8: (890, 12, 2), "fp32-onnxruntime": (900, 0, 0)})
    here = make_profile({(bundle, FP32): 20.0, (bundle, "fp32-onnxruntime"): 25.0})
    there = make_profile({(bundle, INT8): 1.0}, name="fast.json", machine={"cpu": "Xeon", "cpus": 64})
    found = json.loads(pareto(bundle, "--profile", here, "--profile", there, "--json").out)
    assert found["left_out"] == [{"name": "small int8-openvino", "reason": "it was timed on another machine: Xeon, 64 CPUs"}]
    assert {one["machine"] for one in found["points"]} == {"Cortex-A76, 4 CPUs"}


def test_a_later_profile_replaces_an_earlier_one(make_bundle: Make, make_profile: Make, pareto: Pareto) -> None:
    bundle = make_bundle("small", {FP32: (900, 0, 0)})
    first, second = make_profile({(bundle, FP32): 20.0}), make_profile({(bundle, FP32): 15.0}, name="second.json")
    found = json.loads(pareto(bundle, "--profile", first, "--profile", second, "--json").out)
    assert [one["p50_ms"] for one in found["points"]] == [15.0]


def test_a_device_answers_from_its_history(make_bundle: Make, make_profile: Make, pareto: Pareto) -> None:
    bundle = make_bundle("small", {FP32: (900, 0, 0), INT8: (890, 12, 2)})
    command = ("--device", "pi", "--json")
    unknown = pareto(bundle, *command)
    assert unknown.code == 2 and "'pi' is no device" in unknown.err and unknown.err.count("\n") == 1
    store.record("pi", json.loads(make_profile({(bundle, FP32): 300.0}).read_text()))
    found = json.loads(pareto(bundle, *command).out)
    assert [(one["name"], one["p50_ms"]) for one in found["points"]] == [("small fp32-openvino", 300.0)]
    assert found["left_out"][0]["reason"] == f"it was not timed; time it: g2sd profile {bundle} --device pi"


def test_a_device_without_results_of_a_bundle_says_how_to_get_them(make_bundle: Make, make_profile: Make, pareto: Pareto) -> None:
    timed, other = make_bundle("timed", {FP32: (900, 0, 0)}), make_bundle("other", {FP32: (910, 0, 0)}, weights="v")
    store_profile = json.loads(make_profile({(timed, FP32): 300.0}).read_text())
    answer = pareto(other, "--device", "pi")
    assert answer.code == 2
    store.record("pi", store_profile)
    answer = pareto(other, "--device", "pi")
    assert answer.code == 2 and answer.err == (
        f"error: nothing can be compared: other fp32-openvino: it was not timed; time it: g2sd profile {other} --device pi\n"
    )


def test_the_chart_is_a_file_that_stands_alone(make_bundle: Make, make_profile: Make, pareto: Pareto, tmp_path: Path) -> None:
    bundle = make_bundle("small", {FP32: (900, 0, 0), INT8: (885, 17, 2)})
    profile = make_profile({(bundle, FP32): 20.0, (bundle, INT8): 10.0})
    assert pareto(bundle, "--profile", profile, "--svg", tmp_path / "front.svg").code == 0
    root = ElementTree.parse(tmp_path / "front.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    text = (tmp_path / "front.svg").read_text()
    assert "On the front: small int8-openvino: 88.5" in text and "--paper: #ffffff" in text and "prefers-color-scheme: dark" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is no JSON"), ("[]", "holds no rows"), ('{"rows": 3}', "holds no rows"), (None, "cannot be read")],
)
def test_a_profile_that_is_none_is_one_clear_line(
    content: str | None, message: str, make_bundle: Make, pareto: Pareto, tmp_path: Path
) -> None:
    path = tmp_path / "p.json"
    if content is not None:
        path.write_text(content)
    answer = pareto(make_bundle("small", {FP32: (900, 0, 0)}), "--profile", path)
    assert answer.code == 2 and answer.err.count("\n") == 1 and message in answer.err and "g2sd profile" in answer.err


@pytest.mark.parametrize("text", ["fast", "0ms", "-3ms", "10 m", ""])
def test_a_latency_that_is_none_is_refused(text: str, pareto: Pareto, tmp_path: Path) -> None:
    answer = pareto(tmp_path, f"--max-latency={text}")
    assert answer.code == 2 and "is no latency; wanted a number above 0 with us, ms or s" in answer.err


def test_a_folder_without_an_export_is_named(pareto: Pareto, tmp_path: Path) -> None:
    assert "holds no export that is finished" in pareto(tmp_path).err
    assert "there is no such folder" in pareto(tmp_path / "gone").err


def test_one_bundle_twice_is_refused(make_bundle: Make, make_profile: Make, pareto: Pareto) -> None:
    bundle = make_bundle("small", {FP32: (900, 0, 0)})
    answer = pareto(bundle, bundle, "--profile", make_profile({(bundle, FP32): 1.0}))
    assert answer.code == 2 and "hold the same bundle" in answer.err
