"""Kill `g2sd run` at random moments, begin it again, and compare what comes out with a run that nobody killed, byte by byte.

    python benchmarks/kill_and_resume.py [--kills 200] [--seed 0] [--keep FOLDER]

The recipe reads image files (class folders, store encoded) with RandAugment in loader workers, another number of them after each kill; it
has mixup, CutMix, drop path and a moving average; every other run is in bf16. It saves every step or every few. Every life is the command
itself in a process of its own, forked from this one, which has loaded the libraries, and ended by a real SIGKILL: at a random moment of its
time, at a random change of its files (any, a checkpoint's, the commit of an artifact, the records at its start), or with a checkpoint or
the weights of an artifact half written. Prints a table (Markdown) and, last, one JSON line; ends with 1 where a byte differs.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image

from g2sd_deploy import pipeline
from g2sd_deploy.artifact import read_artifact
from g2sd_deploy.cli import app
from g2sd_deploy.data import loading
from g2sd_deploy.models import checkpoint
from g2sd_deploy.stages import baseline, data, evaluate, finetune, generic, pretrain, specific  # noqa: F401 (loaded once, for all lives)
from g2sd_deploy.training import checkpoints, engine

NET = "{patch_px: 8, width: 16, depth: 2, heads: 2}"
DECODER = "{width: 8, depth: 1, heads: 1}"
TRAIN = "epochs: 1.5, batch_size: 16, base_lr: 1.0e-2"
CLASSIFY = "augment: {rand_augment: rand-m9-mstd0.5-inc1, erasing: 0.25}, drop_path: 0.2, clip_grad: 1.0, ema_decay: 0.9"
RECIPE = f"""name: killed
data: {{source: folder, root: ROOT, store: encoded, image_px: 24, num_channels: 3, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}}
pretrain: {{encoder: {NET}, decoder: {DECODER}, {TRAIN}, precision: PRECISION}}
finetune: {{pooling: mean, {TRAIN}, precision: PRECISION, {CLASSIFY}}}
student: {NET}
generic: {{method: g2sd, decoder: {DECODER}, teacher_decoder_block: 1, {TRAIN}, precision: PRECISION}}
specific: {{method: hard, {TRAIN}, precision: PRECISION, {CLASSIFY}}}
"""
PRECISIONS = ("fp32", "bf16")
WORKERS = (0, 1, 2)
CHECKPOINT_EVERY = (1, 1, 3)
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
_MOST = {"change": 60, "starts": 6, "keeps a checkpoint": 60, "half of a checkpoint": 8, "half of the weights": 3, "commits an artifact": 4}
"""Kinds of moments beside random times, and up to which one of a life is drawn."""


@dataclass(frozen=True)
class Kill:
    """When a life ends: after so many seconds, or at the `count`-th thing it does of one kind; `change` is any change of its files."""

    after_s: float | None = None
    doing: str = ""
    count: int = 0


@dataclass
class Life:
    """One process: how it was started, and how it ended.

    Attributes:
        phase: What it was doing when it was killed; `done` where it came to its end before.
    """

    precision: str
    workers: int
    checkpoint_every: int
    kill: Kill
    phase: str = ""
    seconds: float = 0.0
    survivors: int = 0


@dataclass
class Outcome:
    """All lives, and whatever differed from the runs that nobody killed."""

    lives: list[Life] = field(default_factory=list)
    runs: int = 0
    compared: int = 0
    differing: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return sum(life.phase != "done" for life in self.lives)


def write_images(root: Path) -> None:
    """64 JPEG photographs of nothing, of two classes and many sizes, to train on; 8 to test on."""
    drawn = np.random.default_rng(0)
    for split, num in (("train", 64), ("test", 8)):
        for index in range(num):
            path = root / split / f"class{index % 2}" / f"{index:03}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            height, width = drawn.integers(26, 44, 2)
            Image.fromarray(drawn.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


class BlackBox:
    """Keeps, in the process that will be killed, what it is doing, and kills it when its time has come."""

    def __init__(self, path: Path, run_folder: Path, kill: Kill) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self._below, self._kill = str(run_folder), kill
        self._left = kill.count

    def note(self, phase: str) -> None:
        os.pwrite(self._file, f"{phase:<80}\n".encode(), 0)

    def watch(self) -> None:
        sys.addaudithook(self._heard)
        checkpoints.save_file = self._cut_short("half of a checkpoint")
        checkpoint.save_weights = self._cut_short_weights(checkpoint.save_weights, "half of the weights")
        checkpoints.Checkpoints.save = self._noted_after(checkpoints.Checkpoints.save, "trains")
        engine.Engine.prepare = self._noted_after(engine.Engine.prepare, "trains")
        pipeline.commit = self._noted_after(pipeline.commit, "between stages")

    def _is_time(self, doing: str) -> bool:
        self._left -= doing == self._kill.doing
        return doing == self._kill.doing and self._left == 0

    def _heard(self, event: str, arguments: Any) -> None:
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if not (writes or event in _CHANGES) or not str(arguments[0]).startswith(self._below):
            return
        phase = _phase_of(event, str(arguments[0])[len(self._below) + 1 :])
        self.note(phase)
        if self._is_time("change") or self._is_time(phase):
            os.kill(os.getpid(), signal.SIGKILL)

    def _cut_short(self, doing: str) -> Callable[..., None]:
        def save_file(tensors: Any, path: Path, *rest: Any, **named: Any) -> None:
            if self._is_time(doing):
                self.note(doing)
                whole = safetensors.torch.save(tensors, *rest, **named)
                Path(path).write_bytes(whole[: len(whole) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            safetensors.torch.save_file(tensors, path, *rest, **named)

        return save_file

    def _cut_short_weights(self, save_weights: Callable[..., None], doing: str) -> Callable[..., None]:
        def save(path: Path, *rest: Any) -> None:
            save_weights(path, *rest)
            if self._is_time(doing):
                self.note(doing)
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
                os.kill(os.getpid(), signal.SIGKILL)

        return save

    def _noted_after(self, function: Callable[..., Any], phase: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            made = function(*arguments, **named)
            self.note(phase)
            return made

        return call


def _phase_of(event: str, path: str) -> str:
    first = path.split("/")[0]
    if ".checkpoints" in first:
        return "keeps a checkpoint"
    if first in (".lock", ".run.json.unfinished"):
        return "starts"
    if event == "os.rename" and ".unfinished" in first and "/" not in path:
        return "commits an artifact"
    if ".unfinished" in first and "/" in path:
        return "writes an artifact"
    return "trains" if first == "metrics.jsonl" else "between stages"


def live(arguments: Sequence[str], folder: Path, kill: Kill) -> tuple[str, float, int]:
    """Run the command in a forked process until it ends or is killed; its phase then, its seconds, and how many of its workers stayed."""
    log = folder.with_suffix(".phase")
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _be_the_command(arguments, folder, log, kill)
    status = None
    while status is None:
        found, code = os.waitpid(child, os.WNOHANG)
        if found:
            status = code
        elif kill.after_s is not None and time.monotonic() - start >= kill.after_s:
            os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
        else:
            time.sleep(0.002)
    seconds = time.monotonic() - start
    survivors = _wait_for_workers(child)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return (log.read_text().strip() or "starts") if log.is_file() else "starts", seconds, survivors
    if status != 0:
        raise SystemExit(f"g2sd ended with status {status}: {folder.with_suffix('.log').read_text()[-3000:]}")
    return "done", seconds, survivors


def _be_the_command(arguments: Sequence[str], folder: Path, log: Path, kill: Kill) -> None:
    os.setsid()
    output = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    box = BlackBox(log, folder, kill)
    box.note("starts")
    box.watch()
    # Workers of a fork server would load torch anew in each life; forked from this process of one thread they begin at once.
    loading._process_context = lambda _: multiprocessing.get_context("fork")
    code = 1
    try:
        sys.argv = ["g2sd", *arguments]
        app(standalone_mode=True)
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _wait_for_workers(session: int, limit_s: float = 30.0) -> int:
    """Processes of the killed one's session that are still there after the limit; they look for their parent every few seconds."""
    end = time.monotonic() + limit_s
    while (num := _num_in_session(session)) and time.monotonic() < end:
        time.sleep(0.02)
    return num


def _num_in_session(session: int) -> int:
    num = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        is_dead = words[0] == "Z" and words[17] == "1"  # a dead main thread whose others are not yet is a process that holds its files
        num += int(words[3]) == session and not is_dead
    return num


def result_of(folder: Path) -> dict[str, str]:
    """Every file of every artifact by its hash, the artifacts' digests, and the history in metrics.jsonl without times and speed."""
    found: dict[str, str] = {}
    for stage in sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        artifact = read_artifact(folder / stage)
        assert artifact is not None, f"{stage} was not finished"
        artifact.verify()
        found[stage] = artifact.digest
        found |= {f"{stage}/{name}": described["sha256"] for name, described in artifact.files.items()}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found["metrics.jsonl"] = json.dumps([{k: v for k, v in row.items() if k not in ("time", "images_per_s")} for row in rows])
    found["hidden"] = ", ".join(sorted(path.name for path in folder.iterdir() if path.name.startswith(".") and path.name != ".lock"))
    return found


def draw_kill(dice: random.Random, kind: str, whole_s: float) -> Kill:
    """One moment of a kind; a life may come to its end before it."""
    return Kill(after_s=dice.uniform(0.0, 0.5 * whole_s)) if kind == "time" else Kill(doing=kind, count=dice.randint(1, _MOST[kind]))


def kill_until(num_kills: int, seed: int, folder: Path) -> Outcome:
    """Kill and resume until so many have been killed and the last run is done; each run is compared with one of its kind."""
    dice, outcome, kinds = random.Random(seed), Outcome(), ["time", "time", *_MOST]
    write_images(folder / "images")
    wanted: dict[str, dict[str, str]] = {}
    whole_s: dict[str, float] = {}
    for precision in PRECISIONS:
        recipe = RECIPE.replace("ROOT", str(folder / "images")).replace("PRECISION", precision)
        (folder / f"{precision}.yaml").write_text(recipe)
        reference = folder / f"reference_{precision}"
        _, whole_s[precision], _ = live(_arguments(folder, precision, reference, 0, 10**6), reference, Kill())
        wanted[precision] = result_of(reference)
    while outcome.kills < num_kills:
        precision = PRECISIONS[outcome.runs % len(PRECISIONS)]
        out = folder / f"killed_{outcome.runs}"
        while True:
            kind = kinds[len(outcome.lives) % len(kinds)]
            kill = draw_kill(dice, kind, whole_s[precision]) if outcome.kills < num_kills else Kill()
            life = Life(precision, dice.choice(WORKERS), dice.choice(CHECKPOINT_EVERY), kill)
            life.phase, life.seconds, life.survivors = live(
                _arguments(folder, precision, out, life.workers, life.checkpoint_every), out, kill
            )
            outcome.lives.append(life)
            if life.phase == "done":
                break
        outcome.runs += 1
        found = result_of(out)
        outcome.compared += len(found)
        keys = sorted(found.keys() | wanted[precision].keys())
        outcome.differing += [f"{out.name}: {key}" for key in keys if found.get(key) != wanted[precision].get(key)]
        print(f"run {outcome.runs} ({precision}): {outcome.kills} of {num_kills} kills so far", file=sys.stderr)
    return outcome


def _arguments(folder: Path, precision: str, out: Path, workers: int, checkpoint_every: int) -> list[str]:
    options = {"--out": out, "--device": "cpu", "--workers": workers, "--checkpoint-every": checkpoint_every}
    return ["run", str(folder / f"{precision}.yaml"), "--until", "specific", *(str(word) for option in options.items() for word in option)]


def print_table(outcome: Outcome) -> None:
    killed = [life for life in outcome.lives if life.phase != "done"]
    phases = Counter(life.phase for life in killed)
    print("| killed while it | kills | fp32 | bf16 | workers 0 / 1 / 2 |\n| --- | --- | --- | --- | --- |")
    for phase, num in phases.most_common():
        lives = [life for life in killed if life.phase == phase]
        precisions = [sum(life.precision == name for life in lives) for name in PRECISIONS]
        workers = " / ".join(str(sum(life.workers == count for life in lives)) for count in WORKERS)
        print(f"| {phase} | {num} | {precisions[0]} | {precisions[1]} | {workers} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="Keep the runs in this folder.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="kill_and_resume")) if options.keep is None else options.keep
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    outcome = kill_until(options.kills, options.seed, folder)
    print_table(outcome)
    survivors = sum(life.survivors for life in outcome.lives)
    summary = {
        "kills": outcome.kills,
        "runs": outcome.runs,
        "compared": outcome.compared,
        "differing": outcome.differing,
        "workers_that_stayed": survivors,
        "seconds": round(time.monotonic() - start, 1),
        "phases": dict(Counter(life.phase for life in outcome.lives)),
        "seed": options.seed,
        "lives": [asdict(life) for life in outcome.lives] if options.keep else None,
    }
    print(json.dumps(summary))
    if options.keep is None:
        shutil.rmtree(folder)
    return 1 if outcome.differing or survivors else 0


if __name__ == "__main__":
    sys.exit(main())
