"""One profile out of several sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy.devices import DeviceOptions
from g2sd_deploy.devices.merging import profile_from
from g2sd_deploy.errors import UserError
from g2sd_export.edge.manifest import open_bundle

MACHINE = {"system": "Linux", "machine": "aarch64"}


def session(verdict: str, batch: int, **changes: Any) -> dict[str, Any]:
    conditions = {
        "verdict": verdict,
        "reasons": [],
        "num_rounds": 10,
        "num_void": 1,
        "voids": {"stolen time": 1},
        "before": batch,
        "after": -batch,
    }
    row = {"model": "m", "variant": "fp32-onnxruntime", "batch": batch, "verdict": verdict}
    return {"machine": {"cpu": "A76"}, "conditions": {**conditions, **changes}, "reference": None, "rows": [row]}


def merged(bundle: Path, result: dict[str, Any], options: DeviceOptions) -> dict[str, Any]:
    opened = open_bundle(bundle)
    return profile_from(result, {"t": (bundle, opened, opened.variants[:1])}, options, MACHINE)


def test_conditions_of_several_sessions_are_joined_and_the_worst_verdict_stands(bundle: Path) -> None:
    benches = [
        {"tree": "t", "case": {"batch": 1}, "variants": ["fp32-onnxruntime"], "profile": session("valid", 1)},
        {"tree": "t", "case": {"batch": 8}, "variants": ["fp32-onnxruntime"], "profile": session("invalid", 8, reasons=["it drifted"])},
    ]
    selftests = {"t": [{"variant": "fp32-onnxruntime", "verdict": "passed", "reason": ""}]}
    got = merged(bundle, {"selftests": selftests, "benches": benches, "absent": {}}, DeviceOptions(batches=(1, 8)))
    assert got["conditions"] == {
        "verdict": "invalid",
        "reasons": ["it drifted"],
        "num_rounds": 20,
        "num_void": 2,
        "voids": {"stolen time": 2},
        "before": 1,
        "after": -8,
    }
    assert [(row["model"], row["batch"]) for row in got["rows"]] == [(str(bundle), 1), (str(bundle), 8)]
    assert got["machine"] == {"cpu": "A76"}


def test_a_bench_that_failed_leaves_a_row_for_each_number_of_threads(bundle: Path) -> None:
    benches = [
        {"tree": "t", "case": {"batch": 1}, "variants": ["fp32-onnxruntime"], "profile": session("valid", 1)},
        {"tree": "t", "case": {"batch": 64}, "variants": ["fp32-onnxruntime"], "error": "out of memory"},
    ]
    selftests = {"t": [{"variant": "fp32-onnxruntime", "verdict": "passed", "reason": ""}]}
    got = merged(bundle, {"selftests": selftests, "benches": benches, "absent": {}}, DeviceOptions(batches=(1, 64), threads=(1, 4)))
    assert [(row["batch"], row.get("threads"), row["verdict"]) for row in got["rows"][1:]] == [(64, 1, "not_run"), (64, 4, "not_run")]
    assert got["rows"][1]["reasons"] == ["the bench failed: out of memory"]


def test_a_runtime_that_could_not_be_installed_is_the_reason_and_not_that_it_cannot_be_imported(bundle: Path) -> None:
    selftests = {"t": [{"variant": "fp32-onnxruntime", "verdict": "not_run", "reason": "ONNX Runtime cannot be imported"}]}
    result = {"selftests": selftests, "benches": [], "absent": {"onnxruntime": "there is no onnxruntime for linux-armv7l"}}
    with pytest.raises(UserError, match=r"nothing could be timed: there is no onnxruntime for linux-armv7l$"):
        merged(bundle, result, DeviceOptions())
