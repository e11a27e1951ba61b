"""What docs/training.md tells to type is what the launchers and `g2sd run` take; its Slurm script works, with a stand-in for Slurm."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from g2sd_deploy.cli import app
from g2sd_deploy.recipe import find_recipe, load_recipe

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]


def check_words(words: list[str]) -> None:
    """Refuses what the command would not take, without running it."""
    root = typer.main.get_command(app)
    run = root.get_command(root.make_context("g2sd", [], resilient_parsing=True), words[0])  # type: ignore[attr-defined]
    parsed = run.make_context("run", words[1:]).params
    if words[0] != "watch":
        load_recipe(find_recipe(parsed["recipe"]), [])


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_page_is_understood(line: str) -> None:
    launcher, *words = shlex.split(line)
    match launcher:
        case "g2sd":
            check_words(words)
        case "torchrun":
            from torch.distributed.run import get_args_parser

            parsed = get_args_parser().parse_args(words)
            assert (parsed.module, parsed.training_script) == (True, "g2sd_deploy")
            check_words(parsed.training_script_args)
        case "accelerate":
            from accelerate.commands.launch import launch_command_parser

            parsed = launch_command_parser().parse_args(words[1:])
            assert (parsed.module, parsed.training_script) == (True, "g2sd_deploy")
            check_words(parsed.training_script_args)
        case _:
            pytest.fail(f"nobody knows {launcher}")


def test_the_page_shows_every_way_to_start() -> None:
    assert {line.split()[0] for line in COMMANDS} == {"g2sd", "torchrun", "accelerate"}
    options = {word for line in COMMANDS for word in line.split() if word.startswith("--")} | set(re.findall(r"`(--[a-z-]+)", TEXT))
    assert options >= {"--workers", "--micro-batch", "--compile", "--shard", "--checkpoint-every", "--track", "--rank-timeout", "--out"}


def test_what_the_pages_link_to_is_there() -> None:
    for name in ("training.md", "scaling.md"):
        links = re.findall(r"\]\(([^)]+)\)", (ROOT / "docs" / name).read_text(encoding="utf-8"))
        assert links and [link for link in links if not (ROOT / "docs" / link).exists()] == []


SRUN = """#!/usr/bin/env bash
# Two tasks; a signal goes to both, and the exit code is that of the worst.
shift
for task in 0 1; do SLURM_PROCID=$task SLURM_LOCALID=$task "$@" & tasks+=($!); done
trap 'kill -TERM "${tasks[@]}"' TERM
worst=0
for task in "${tasks[@]}"; do
    while true; do wait "$task"; code=$?; kill -0 "$task" 2>/dev/null || break; done
    ((code > worst)) && worst=$code
done
exit "$worst"
"""
SCONTROL = """#!/usr/bin/env bash
echo "$@" >> scontrol.log
if [[ $1 == show ]]; then echo 127.0.0.1; fi
"""
RECIPE = """
name: queued
data: {source: idx, root: "bundled:fashion-mnist", image_px: 28, num_channels: 1, mean: [0.286], std: [0.353], max_train_images: 64,
       max_test_images: 20}
pretrain: {encoder: {patch_px: 7, width: 16, depth: 2, heads: 2}, decoder: {width: 8, depth: 1, heads: 1}, epochs: 150, batch_size: 16,
           base_lr: 1.0e-2}
finetune: {epochs: 1, batch_size: 16, base_lr: 1.0e-3}
student: {patch_px: 7, width: 8, depth: 1, heads: 1}
generic: {method: mae, decoder: {width: 8, depth: 1, heads: 1}, epochs: 1, batch_size: 16, base_lr: 1.0e-3}
specific: {method: hard, epochs: 1, batch_size: 16, base_lr: 1.0e-3}
"""


@pytest.mark.skipif(not Path("/bin/bash").exists() or not hasattr(os, "fork"), reason="needs bash")
def test_the_slurm_script_saves_puts_the_job_back_into_the_queue_and_goes_on(
    process_environment: dict[str, str], tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    tools = {"srun": SRUN, "scontrol": SCONTROL, "g2sd": f'#!/usr/bin/env bash\nexec "{sys.executable}" -m g2sd_deploy "$@"\n'}
    for name, text in tools.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "queued.yaml").write_text(RECIPE)
    slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "node", "SLURM_NTASKS": "2", "SLURM_NNODES": "1"}
    environment = {**process_environment, **slurm, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    options = ["queued.yaml", "--out", "out", "--device", "cpu", "--until", "pretrain", "--checkpoint-every", "2"]
    script = ["bash", str(ROOT / "docs" / "slurm" / "train.sbatch"), *options]

    with (tmp_path / "job.log").open("w") as log:
        job = subprocess.Popen(script, cwd=tmp_path, env=environment, stdout=log, stderr=log)
        checkpoints = tmp_path / "out" / ".pretrain.checkpoints"
        wait_until(lambda: len(list(checkpoints.glob("*.json"))) > 1 or job.poll() is not None, 300, "no checkpoint")
        job.send_signal(signal.SIGUSR1)
        assert job.wait(300) == 143, (tmp_path / "job.log").read_text()
    said = (tmp_path / "job.log").read_text()
    assert re.search(r"error: stopped at step \d+ of 600; a checkpoint is kept", said) and "Traceback" not in said
    assert (tmp_path / "scontrol.log").read_text().splitlines() == ["show hostnames node", f"requeue {os.getpid()}"]

    ended = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and "goes on from its last checkpoint" in ended.stderr, ended.stderr
    assert json.loads((tmp_path / "out" / "pretrain" / "artifact.json").read_text())["metrics"]["num_processes"] == 2
    assert (tmp_path / "scontrol.log").read_text().count("requeue") == 1
