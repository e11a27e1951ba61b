"""The bench times what runs here, in turn, and says why the rest does not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from g2sd_export.edge import bench
from g2sd_export.edge.bench import BenchSettings, run_bench
from g2sd_export.edge.errors import UserError
from g2sd_export.edge.manifest import open_bundle
from g2sd_export.edge.timing import measure_in_turns

Reseal = Callable[[Path, Callable[[dict[str, Any]], object]], Path]
QUICK = BenchSettings(batch=3, warmup=1, repeats=7, threads=1)


def test_every_variant_is_timed_at_the_batch_and_threads_asked_for(pristine_bundle: Path) -> None:
    pytest.importorskip("openvino")
    rounds: list[tuple[int, int]] = []
    found = run_bench(open_bundle(pristine_bundle), QUICK, tick=lambda done, total: rounds.append((done, total)))
    assert [result["variant"] for result in found["results"]] == ["fp32-onnxruntime", "fp32-openvino", "fp32-onnxruntime-float"]
    for result in found["results"]:
        assert (result["batch"], result["threads"], result["num_samples"]) == (3, 1, 7)
        assert 0 < result["min_ms"] <= result["p50_ms"] <= result["p90_ms"] <= result["p99_ms"]
        assert result["images_per_s"] == pytest.approx(3000 / result["mean_ms"])
        assert result["prepare_p50_ms"] >= 0
    assert rounds == [(done, 5) for done in range(1, 6)]
    assert found["bundle"] == open_bundle(pristine_bundle).digest and found["machine"]["cpus"] >= 1


def test_the_calls_are_spread_over_five_turns_of_each_variant(pristine_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def spy(runs: Any, turns: Any, **more: Any) -> Any:
        asked.append((sorted(runs), turns))
        return measure_in_turns(runs, turns, **more)

    monkeypatch.setattr(bench, "measure_in_turns", spy)
    names = ["fp32-onnxruntime", "fp32-onnxruntime-float"]
    run_bench(open_bundle(pristine_bundle), QUICK, variants=names)
    ((found, turns),) = asked
    assert found == names and len(turns) == 5 and sum(turns) == 7 and max(turns) <= 2


def test_a_variant_that_cannot_run_or_failed_its_proof_is_left_out_with_the_reason(
    bundle: Path, reseal: Reseal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    reseal(bundle, lambda facts: facts["variants"][2].update(verdict="failed", reason="7 decisions flip"))
    opened = open_bundle(bundle)
    first, second, third = run_bench(opened, QUICK)["results"]
    assert "p50_ms" in first and "pip install openvino" in second["reason"] and "7 decisions flip" in third["reason"]
    with pytest.raises(UserError, match="pip install openvino"):
        run_bench(opened, QUICK, variants=["fp32-openvino"])
    with pytest.raises(UserError, match="has no variant 'int8'"):
        run_bench(opened, QUICK, variants=["int8"])


@pytest.mark.parametrize(("key", "value"), [("batch", 0), ("warmup", -1), ("repeats", 0)])
def test_settings_out_of_range_are_refused(key: str, value: int) -> None:
    with pytest.raises(UserError, match=f"--{key} is {value}; it must be at least"):
        BenchSettings(**{key: value})
