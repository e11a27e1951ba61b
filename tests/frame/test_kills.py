"""`g2sd run` is killed at random moments and begun again until it is done; what it makes is what a run makes that nobody killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from g2sd_deploy.artifact import read_artifact

ROOT = Path(__file__).parents[2]
STAGES = ("data", "pretrain", "finetune", "generic", "specific")


def files_of(run: Path) -> dict[str, bytes]:
    """Every file of every stage but its marker, which holds times, and the digest that the marker gives it."""
    found: dict[str, bytes] = {}
    for stage in STAGES:
        artifact = read_artifact(run / stage)
        assert artifact is not None, f"{run}/{stage} is not done"
        found[f"{stage} digest"] = artifact.digest.encode()
        paths = [path for path in (run / stage).rglob("*") if path.is_file() and path.name != "artifact.json"]
        found |= {str(path.relative_to(run)): path.read_bytes() for path in paths}
    return found


@pytest.mark.skipif(not hasattr(os, "fork") or not Path("/proc/self/stat").is_file(), reason="needs Linux")
def test_a_run_that_is_killed_again_and_again_makes_the_same_bytes(process_environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "kill_and_resume.py"), "--kills", "20", "--seed", "1", "--keep", str(tmp_path)]
    ended = subprocess.run(command, env=process_environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-3000:]
    summary = json.loads(ended.stdout.splitlines()[-1])
    assert (summary["kills"], summary["differing"], summary["workers_that_stayed"]) == (20, [], 0)
    killed = [life for life in summary["lives"] if life["phase"] != "done"]
    assert {life["precision"] for life in killed} == {"fp32", "bf16"} and {life["workers"] for life in killed} == {0, 1, 2}
    assert {life["phase"] for life in killed} >= {"starts", "keeps a checkpoint", "commits an artifact"}
    for number in range(summary["runs"]):
        wanted, found = files_of(tmp_path / f"reference_{('fp32', 'bf16')[number % 2]}"), files_of(tmp_path / f"killed_{number}")
        assert len(wanted) > 12 and "specific/classifier.safetensors" in wanted and "specific/history.jsonl" in wanted
        assert wanted.keys() == found.keys()
        assert [name for name in wanted if wanted[name] != found[name]] == []
