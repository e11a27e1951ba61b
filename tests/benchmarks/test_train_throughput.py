"""The benchmark of training steps, as far as it needs no checkout of the authors' code."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from throughput.cases import CASES  # noqa: E402
from throughput.flops import step_flops  # noqa: E402
from throughput.ours import Ours  # noqa: E402

SCRIPT = BENCHMARKS / "train_throughput.py"
CPU = torch.device("cpu")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["generic 32 px", "specific 32 px"])
def test_the_arithmetic_of_a_step_is_what_torch_counts(name: str) -> None:
    case = replace(CASES[name], num_classes=7)
    ours = Ours(case, 6, CPU, "fp32", False)
    ours.build()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        ours.run(1)
    assert counter.get_total_flops() == 6 * step_flops(case)


def test_a_step_of_the_published_shapes_needs_what_the_papers_sizes_say() -> None:
    """ViT-B, ViT-S and ViT-Ti have 17.5, 4.6 and 1.25 G multiply-adds at 224 px (DeiT, arXiv 2012.12877; with attention's products)."""
    small, tiny = (step_flops(CASES[f"specific B->{name} 224"]) / 2e9 for name in ("S", "Ti"))
    assert small == pytest.approx(17.5 + 3 * 4.6, rel=0.03)
    assert tiny == pytest.approx(17.5 + 3 * 1.25, rel=0.03)


@pytest.mark.parametrize("name", ["generic 32 px", "specific 32 px"])
def test_the_same_step_has_the_same_bits_twice(name: str) -> None:
    weights = []
    for _ in range(2):
        ours = Ours(CASES[name], 8, CPU, "fp32", False)
        ours.build()
        ours.run(3)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in ours.learner.parameters()]))
    assert torch.equal(*weights)


def test_our_side_alone_is_timed_and_what_did_not_run_is_said() -> None:
    short = ["--device", "cpu", "--threads", "1", "--rounds", "2", "--turn-seconds", "0.01", "--batch", "4"]
    done = run(*short, "--cases", "generic 32 px")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [(row["side"], row["precision"], row["batch"]) for row in found["rows"]] == [("ours", "fp32", 4), ("ours-bf16", "bf16", 4)]
    for row in found["rows"]:
        assert row["images_per_s"] == pytest.approx(4000 / row["step_ms"])
        rate = found["matmul_gflops"][row["precision"]]
        assert row["mfu_measured"] == pytest.approx(row["gflop_per_image"] * row["images_per_s"] / rate)
        assert 1 < row["peak_mib"] < 2000
        assert row["mfu_published"] is None and "times_faster" not in row
    missing = ["original"] if torch.cuda.is_available() else ["GPU", "original"]
    assert [entry["what"] for entry in found["not_run"]] == missing
    assert "not_run" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--original", "x"], "--original and --timm belong together"),
        (["--original", "x", "--timm", "y"], "x holds no G2SD/engine_distill.py; give the folder of the checkout"),
    ],
)
def test_half_of_the_originals_folders_is_refused(arguments: list[str], told: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert told in done.stderr
