"""Robustness, calibration, size, parity, loss curves and limits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from g2sd_deploy.errors import UserError
from g2sd_deploy.gates.calibration import ece_gates
from g2sd_deploy.gates.limits import limit_gates
from g2sd_deploy.gates.losses import curve_of, loss_gates
from g2sd_deploy.gates.outcome import Gate
from g2sd_deploy.gates.parity import parity_gates
from g2sd_deploy.gates.profiles import profile_of
from g2sd_deploy.gates.robustness import robustness_gates
from g2sd_deploy.gates.settings import EceGate, Limits, LossGate, ParametersGate, ParityGate, RobustnessGate, SizeGate
from g2sd_deploy.gates.sizes import parameters_gate, size_gate
from g2sd_deploy.gates.snapshot import Corruptions, Curve, Model, Parity, SetFigures
from g2sd_deploy.gates.statistics import Sureness

Make = Callable[..., Any]
SURE = Sureness()


def robustness(before: Model, after: Model, **settings: float) -> list[Gate]:
    return robustness_gates("student", before, after, RobustnessGate(**settings), SURE)


def test_the_mean_over_corruptions_is_tested_by_image(student: Make) -> None:
    rng = np.random.default_rng(0)
    before = {name: rng.random(40) < 0.8 for name in ("fog_1", "fog_3", "contrast_2")}
    after = {name: bits & (rng.random(40) < 0.85) for name, bits in before.items()}
    text = [{name: "".join("01"[bit] for bit in bits.astype(int)) for name, bits in one.items()} for one in (before, after)]
    mean, _ = robustness(student("1" * 40, **text[0]), student("1" * 40, **text[1]))
    drops = np.mean([before[name].astype(float) - after[name] for name in before], axis=0)
    assert mean.figures["p"] == pytest.approx(stats.ttest_1samp(drops, 0, alternative="greater").pvalue)
    assert mean.figures["drop_points"] == pytest.approx(100 * drops.mean())
    assert mean.verdict == ("failed" if mean.figures["p"] <= 0.05 else "passed") == "failed"


def test_one_corruption_that_breaks_is_found_among_many_that_do_not(student: Make) -> None:
    fine = {f"fog_{level}": "1" * 60 for level in range(1, 6)}
    mean, each = robustness(student("1" * 60, **fine), student("1" * 60, **fine | {"fog_4": "0" * 9 + "1" * 51}))
    assert each.verdict == "failed" and each.figures["failed"] == ["fog/4"]
    assert each.figures["p"]["fog/4"] == 5 * 2**-10 and "1 of 5 lost accuracy: fog/4 15.00 points" in each.reason
    assert mean.verdict == "failed"


def test_the_worst_of_many_corruptions_may_look_bad_by_chance(student: Make) -> None:
    fine = {f"fog_{level}": "1" * 60 for level in range(1, 6)}
    _, each = robustness(student("1" * 60, **fine), student("1" * 60, **fine | {"fog_4": "0" * 5 + "1" * 55}))
    assert each.verdict == "passed" and each.figures["p"]["fog/4"] == 5 * 2**-6 and "worst fog/4 8.33 points" in each.reason


def test_without_answers_the_intervals_of_the_means_decide() -> None:
    def model(mean: float, *cases: str) -> Model:
        interval = (mean - 0.02, mean + 0.02)
        return Model(corruptions=Corruptions(top1=dict.fromkeys(cases or ("fog/3",), mean), num_images=500, mean=mean, interval=interval))

    (gate,) = robustness(model(0.8), model(0.74))
    error = 0.04 / (2 * stats.norm.ppf(0.975))
    assert gate.verdict == "failed" and gate.figures["p"] == pytest.approx(stats.norm.sf(0.06 / (2**0.5 * error)))
    assert "not paired (no answers are stored)" in gate.reason
    (same,) = robustness(model(0.8), model(0.79))
    assert same.verdict == "passed" and "more certainty is asked for" in same.caveat
    (other,) = robustness(model(0.8), model(0.8, "snow/1"))
    assert other.verdict == "not_run" and "fog/3, snow/1 on one side alone" in other.reason
    (gone,) = robustness(model(0.8), Model())
    assert gone.reason == "the run has no accuracy of student under corruptions"


def ece(value: float, width: float = 0.004) -> Model:
    return Model(sets={"clean": SetFigures(num_images=5000, top1=0.9, ece=value, ece_interval=(value - width, value + width))})


def test_calibration_fails_where_the_rise_is_beyond_the_tolerance_and_its_intervals() -> None:
    (failed,) = ece_gates("student", ece(0.02), ece(0.06), EceGate(), SURE)
    assert failed.verdict == "failed" and "0.0200 → 0.0600 (95 % interval 0.0560 to 0.0640)" in failed.reason
    (within,) = ece_gates("student", ece(0.02), ece(0.03), EceGate(), SURE)
    assert within.verdict == "passed"
    (unsure,) = ece_gates("student", ece(0.02, 0.05), ece(0.06, 0.05), EceGate(), SURE)
    assert unsure.verdict == "passed" and unsure.figures["detectable_rise"] > 0.1
    (gone,) = ece_gates("student", ece(0.02), Model(), EceGate(), SURE)
    assert gone.reason == "the run has no ECE of student on clean"


def test_sizes_may_grow_as_far_as_is_tolerated() -> None:
    small, large = Model(file_bytes=1000, num_parameters=100), Model(file_bytes=1021, num_parameters=101)
    gates = [size_gate("student", small, large, SizeGate()), parameters_gate("student", small, large, ParametersGate())]
    assert [gate.verdict for gate in gates if gate] == ["failed", "failed"]
    tolerant = [
        size_gate("student", small, large, SizeGate(max_growth=0.03)),
        parameters_gate("s", small, large, ParametersGate(max_growth=0.01)),
    ]
    assert [gate.verdict for gate in tolerant if gate] == ["passed", "passed"]
    shrunk = size_gate("student", large, small, SizeGate())
    assert shrunk is not None and shrunk.verdict == "passed"
    missing = size_gate("student", small, Model(), SizeGate())
    assert missing is not None and missing.verdict == "not_run" and missing.reason == "the run does not tell it"
    assert size_gate("student", Model(), Model(), SizeGate()) is None


def parity(verdict: str = "passed", reason: str = "", **candidates: str) -> dict[str, Any]:
    return {"parity": Parity(verdict=verdict, reason=reason, default="fp32", candidates={"fp32": verdict, **candidates})}


def test_a_failed_proof_fails_and_so_does_a_candidate_that_used_to_pass(snapshot: Make) -> None:
    known = snapshot(parity(int8="passed", bf16="passed", fp16="failed"))
    found = snapshot(parity("failed", "35 decisions flip", int8="failed", bf16="not_run", fp16="failed"))
    gates = {gate.subject: gate for gate in parity_gates(known, found, ParityGate())}
    assert {name: gate.verdict for name, gate in gates.items()} == {"shipped": "failed", "int8": "failed", "bf16": "not_run"}
    assert gates["shipped"].reason == "35 decisions flip"
    (alone,) = parity_gates(known, found, ParityGate(candidates=False))
    assert alone.subject == "shipped"
    (gone,) = parity_gates(known, snapshot(), ParityGate())
    assert gone.verdict == "not_run" and gone.reason == "the run has no export"


def curve(means: list[float], error: float = 0.0, **changes: Any) -> Curve:
    values = {"method": "m", "num_steps": 100, "epochs": 1.0, "means": tuple(means), "errors": (error,) * len(means)} | changes
    return Curve(**values)


def loss_gate(snapshot: Make, before: Curve, after: Curve, **settings: Any) -> Gate:
    (gate,) = loss_gates(snapshot({"losses": {"generic": before}}), snapshot({"losses": {"generic": after}}), LossGate(**settings))
    return gate


def test_a_loss_curve_has_to_stay_inside_the_band(snapshot: Make) -> None:
    base = curve([2.0, 1.0, 0.5])
    assert loss_gate(snapshot, base, curve([2.1, 1.05, 0.54])).verdict == "passed"
    gate = loss_gate(snapshot, base, curve([2.0, 1.2, 0.56]))
    assert gate.verdict == "failed" and "tenth 2: 1.2 is above 1.1, the baseline's 1 + 10 % + noise and 1 more tenths" in gate.reason
    assert loss_gate(snapshot, curve([2.0, 1.0, 0.5], 0.05), curve([2.0, 1.2, 0.56], 0.05)).verdict == "passed"


def test_a_lower_loss_passes_unless_a_floor_is_asked_for(snapshot: Make) -> None:
    base, lower = curve([2.0, 1.0, 0.5]), curve([2.0, 1.0, 0.1])
    assert loss_gate(snapshot, base, lower).verdict == "passed"
    gate = loss_gate(snapshot, base, lower, max_fall=0.5)
    assert gate.verdict == "failed" and "tenth 3: 0.1 is below 0.25" in gate.reason


def test_losses_of_other_methods_do_not_compare(snapshot: Make) -> None:
    gate = loss_gate(snapshot, curve([1.0]), curve([9.0], method="another"))
    assert gate.verdict == "not_run" and gate.reason == "losses of 'm' and 'another' do not compare"


def test_a_history_is_summed_up_in_tenths(tmp_path: Path) -> None:
    history = tmp_path / "history.jsonl"
    rows = [{"step": step, "epoch": step / 50, "loss": float(step // 10), "lr": 1.0} for step in range(100)]
    history.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = curve_of(history, "m", 100)
    assert found is not None and found.means == tuple(map(float, range(10))) and found.errors == (0.0,) * 10
    rows[55]["loss"] = 15.0
    history.write_text("".join(json.dumps(row) + "\n" for row in rows))
    noisy = curve_of(history, "m", 100)
    values = [5.0] * 9 + [15.0]
    assert noisy is not None and noisy.means[5] == 6.0 and noisy.errors[5] == pytest.approx(stats.sem(values))
    rows[55]["loss"] = float("nan")
    history.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert curve_of(history, "m", 100) is None
    history.write_text("no json")
    with pytest.raises(UserError, match="no loss curve can be read from it"):
        curve_of(history, "m", 100)


def test_floors_and_ceilings_hold_without_a_baseline(snapshot: Make, profile: Make) -> None:
    interval = (0.88, 0.92)
    figures = SetFigures(num_images=100, top1=0.9, top1_interval=interval, ece=0.05, ece_interval=(0.04, 0.06))
    timed = profile_of(profile(value=0.5), "here")
    run = snapshot(
        {"profiles": (timed,), **parity(**{"fp32-onnxruntime": "passed"})}, shipped=Model(sets={"clean": figures}, file_bytes=2 << 20)
    )
    run = run.model_copy(update={"parity": run.parity.model_copy(update={"default": "fp32-onnxruntime"})})
    limits = Limits(min_top1=0.91, max_ece=0.1, max_size_mib=1.0, max_parameters=5, max_latency_ms=6.0, min_corruption_top1=0.5)
    found = {gate.subject.split()[1]: gate for gate in limit_gates("shipped", run, limits)}
    verdicts = {name: gate.verdict for name, gate in found.items()}
    assert verdicts == {
        "min_top1": "failed",
        "max_ece": "passed",
        "max_size_mib": "failed",
        "max_parameters": "not_run",
        "max_latency_ms": "passed",
        "min_corruption_top1": "not_run",
    }
    assert "the limit lies inside the 95 % interval, 88.00 % to 92.00 %" in found["min_top1"].caveat
    assert found["max_latency_ms"].reason == "5 ms at p50 is not above 6"


def test_a_latency_that_was_not_measured_validly_has_no_verdict(snapshot: Make, profile: Make) -> None:
    timed = profile_of(profile(verdict="invalid", reasons=["the clock fell"], model="student"), "here")
    (gate,) = limit_gates("student", snapshot({"profiles": (timed,)}), Limits(max_latency_ms=6.0))
    assert gate.verdict == "not_run" and gate.reason == "the row is invalid: the clock fell"
    (other,) = limit_gates("teacher", snapshot({"profiles": (timed,)}), Limits(max_latency_ms=6.0))
    assert other.reason == "no profile of the run times teacher on single images"
    (p99,) = limit_gates(
        "student",
        snapshot({"profiles": (profile_of(profile(model="student"), "here"),)}),
        Limits(max_latency_ms=6.0, latency_percentile="p99"),
    )
    assert p99.verdict == "not_run" and "there is no p99" in p99.reason
