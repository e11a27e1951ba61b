"""Speed of a training step, ours and the authors', side by side: images/s, peak memory, model FLOP utilisation.

    python benchmarks/train_throughput.py --original G2SD --timm TIMM [--device cpu|cuda] [--threads 2] [--cases ...] [--sides ...]

G2SD is a checkout of https://github.com/pengzhiliang/G2SD at commit 6146adf; TIMM holds the version of timm that it asks for:
    git clone https://github.com/pengzhiliang/G2SD && git -C G2SD checkout 6146adf
    pip install --no-deps --target TIMM timm==0.3.2
Their own train_one_epoch runs, patched at run time as throughput/original.py lists; without --original only our side is timed.

The whole step counts: copy to the device, (ours) normalisation of bytes, mixup, both networks, loss, backward, optimiser, and what the
authors' loop does at every step; decoding and augmentation do not. Both sides take the published batch per GPU (generic 256, specific 128;
a small one on a CPU; one optimiser step per batch) and precision: fp16 autocast with a loss scaler on a GPU. A CPU has no such scaler:
there both run in float32 (the authors' autocast switches itself off), and once more with autocast to bfloat16, what they publish as far as
a CPU goes. Each of our rows is compared with the original of its precision on a CPU, with the published fp16 on a GPU. Each side has a
process of its own; they take turns, in an order that is reversed every other round. Model FLOPs are what the method needs
(throughput/flops.py), so both sides have the same. Utilisation is the share of the rate of large matrix products measured here in the same
run: bf16 on a GPU; on a CPU the row's own number format. Peak memory is the GPU allocator's; on a CPU the process's above its libraries,
with compiled rows the compiler's too.

Prints a table on stderr and one JSON line on stdout.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from throughput.cases import CASES, Case
from throughput.flops import step_flops
from throughput.rates import matmul_flops, published_flops

from g2sd_deploy.environment import machine

SIDES = ("original", "ours", "ours-compiled", "original-bf16", "ours-bf16", "ours-bf16-compiled")
DEFAULT_SIDES = {"cpu": ["original", "ours", "original-bf16", "ours-bf16"], "cuda": [side for side in SIDES if side != "original-bf16"]}
HERE = Path(__file__).parent


class Worker:
    """A side of a case, at work in its own process."""

    def __init__(self, case: Case, side: str, batch: int, args: argparse.Namespace) -> None:
        self.side = side
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by `stop`)
        command = [sys.executable, "-m", "throughput.worker", "--case", case.name, "--side", side.partition("-")[0], "--batch", str(batch)]
        command += ["--device", args.device, "--precision", precision_of(side, args.device), "--threads", str(args.threads)]
        command += ["--compiled"] if side.endswith("compiled") else []
        if side.startswith("original"):
            command += ["--original", str(args.original.resolve()), "--timm", str(args.timm.resolve())]
        path = os.pathsep.join([str(HERE), str(HERE.parent), str(HERE.parent / "export"), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(args.threads)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment, cwd=HERE
        )
        self.seconds: list[list[float]] = []
        self.peak_mib = 0.0

    def turn(self, steps: int) -> list[float]:
        """Take some steps; the seconds of each."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(f"{steps}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise SystemExit(f"{self.side} ended with {self.process.wait()}: {self.log.read()[-2000:]}")
        answer = json.loads(line)
        self.peak_mib = answer["peak_mib"]
        found: list[float] = answer["seconds"]
        return found

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.log.close()


def precision_of(side: str, device: str) -> str:
    if "bf16" in side:
        return "bf16"
    return "fp16" if device == "cuda" else "fp32"


def measure(case: Case, args: argparse.Namespace, rates: dict[str, float], peak_rate: float | None) -> list[dict[str, Any]]:
    """The rows of one case: all sides, interleaved."""
    batch = args.batch or (case.batch_gpu if args.device == "cuda" else case.batch_cpu)
    workers = []
    try:
        for side in args.sides:
            workers.append(Worker(case, side, batch, args))
            workers[-1].turn(1)  # one at a time, so that no side starts while another works
        steps = max(1, round(args.turn_seconds / max(workers[0].turn(1))))
        for turn in range(args.rounds):
            for worker in workers if turn % 2 == 0 else workers[::-1]:
                worker.seconds.append(worker.turn(steps))
    finally:
        for worker in workers:
            worker.stop()
    originals = {precision_of(worker.side, args.device): worker.seconds for worker in workers if worker.side.startswith("original")}
    rows = []
    for worker in workers:
        row = row_of(case, worker, batch, args.device, rates, peak_rate)
        theirs = originals.get(row["precision"] if args.device == "cpu" else "fp16")
        rows.append(row if theirs is None or worker.side.startswith("original") else row | compared(worker.seconds, theirs))
    return rows


def row_of(case: Case, worker: Worker, batch: int, device: str, rates: dict[str, float], peak_rate: float | None) -> dict[str, Any]:
    steps = flat(worker.seconds)
    median = statistics.median(steps)
    precision = precision_of(worker.side, device)
    flops = step_flops(case) * batch / median
    return {
        "case": case.name,
        "side": worker.side,
        "precision": precision,
        "batch": batch,
        "steps": len(steps),
        "step_ms": 1000 * median,
        "min_step_ms": 1000 * min(steps),
        "images_per_s": batch / median,
        "peak_mib": worker.peak_mib,
        "gflop_per_image": step_flops(case) / 1e9,
        "mfu_measured": flops / rates["bf16" if device == "cuda" else precision],
        "mfu_published": None if peak_rate is None else flops / peak_rate,
    }


def compared(ours: list[list[float]], theirs: list[list[float]]) -> dict[str, Any]:
    """How many times faster our steps are, by medians, by minima and in each round."""
    by_round = [statistics.median(a) / statistics.median(b) for a, b in zip(theirs, ours, strict=True)]
    return {
        "times_faster": statistics.median(flat(theirs)) / statistics.median(flat(ours)),
        "times_faster_of_minima": min(flat(theirs)) / min(flat(ours)),
        "times_faster_by_round": [min(by_round), max(by_round)],
    }


def flat(turns: list[list[float]]) -> list[float]:
    return [second for turn in turns for second in turn]


def shown(rows: list[dict[str, Any]], left_out: list[dict[str, str]]) -> Table:
    table = Table(title="One training step")
    for name in ("case", "side", "format", "batch", "step, ms", "images/s", "x original", "of minima", "peak, MiB", "MFU", "of published"):
        table.add_column(name, justify="left" if name in ("case", "side", "format") else "right")
    for row in rows:
        ratio = f"{row['times_faster']:.2f}" if "times_faster" in row else "1" if row["side"].startswith("original") else "-"
        minima = f"{row['times_faster_of_minima']:.2f}" if "times_faster" in row else "1" if row["side"].startswith("original") else "-"
        published = "-" if row["mfu_published"] is None else f"{row['mfu_published']:.1%}"
        table.add_row(
            *(row["case"], row["side"], row["precision"], str(row["batch"]), f"{row['step_ms']:,.1f}", f"{row['images_per_s']:,.1f}"),
            *(ratio, minima, f"{row['peak_mib']:,.0f}", f"{row['mfu_measured']:.1%}", published),
        )
    for entry in left_out:
        table.add_row(entry["what"], f"not_run: {entry['reason']}")
    return table


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", type=Path, help="checkout of pengzhiliang/G2SD")
    parser.add_argument("--timm", type=Path, help="folder that timm 0.3.2 was installed into")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), metavar="CASE", help="; ".join(CASES))
    parser.add_argument("--sides", nargs="+", choices=SIDES, help="which to time; on a CPU all but the compiled ones")
    parser.add_argument("--batch", type=int, help="images per step instead of the published number")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--turn-seconds", type=float, default=3.0)
    args = parser.parse_args()
    args.sides = args.sides or DEFAULT_SIDES[args.device]
    if (args.original is None) != (args.timm is None):
        parser.error("--original and --timm belong together")
    if args.original is not None and not (args.original / "G2SD" / "engine_distill.py").is_file():
        parser.error(f"--original: {args.original} holds no G2SD/engine_distill.py; give the folder of the checkout")
    return args


def main() -> None:
    args = arguments()
    left_out = []
    if not torch.cuda.is_available():
        left_out.append({"what": "GPU", "reason": f"torch {torch.__version__} finds no usable GPU"})
    if args.device == "cuda" and left_out:
        raise SystemExit(f"--device cuda: {left_out[0]['reason']}")
    if args.original is None and any(side.startswith("original") for side in args.sides):
        left_out.append({"what": "original", "reason": "--original and --timm are not given"})
        args.sides = [side for side in args.sides if not side.startswith("original")]
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    dtypes = {"bf16": torch.bfloat16} if args.device == "cuda" else {"bf16": torch.bfloat16, "fp32": torch.float32}
    rates = {name: matmul_flops(device, dtype) for name, dtype in dtypes.items()}
    peak_rate = published_flops(device)
    console, rows = Console(stderr=True, width=160), []
    for name in args.cases:
        rows += measure(CASES[name], args, rates, peak_rate)
        console.print(f"{name}: " + ", ".join(f"{row['side']} {row['step_ms']:,.0f} ms" for row in rows if row["case"] == name))
    console.print(shown(rows, left_out))
    described = machine() | {"torch": torch.__version__, "threads": args.threads, "device": args.device}
    if args.device == "cuda":
        described["gpu"] = torch.cuda.get_device_name(device)
    measured = {name: rate / 1e9 for name, rate in rates.items()}
    print(json.dumps({"machine": described, "matmul_gflops": measured, "rows": rows, "not_run": left_out}))


if __name__ == "__main__":
    main()
