"""Where the time of one training step goes: its phases, and its operations.

    python benchmarks/step_profile.py [--case "generic B->Ti 224"] [--device cpu|cuda] [--precision fp32] [--threads 2] [--steps 5]

The phases are: inputs (copy, normalisation, draws, mixup), teacher (its forward pass), student (its forward pass and the loss), backward,
optimizer. Not compiled, for a compiled step has no such phases. On a GPU the times are those of its kernels. Prints two tables on stderr
and one JSON line on stdout.
"""

import argparse
import json
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from throughput.cases import CASES
from throughput.ours import Ours
from torch.profiler import ProfilerActivity, profile, record_function

from g2sd_deploy.environment import machine

PHASES = ("inputs", "forward", "teacher", "backward", "optimizer")


def phases_of(events: Any, steps: int, on_gpu: bool) -> dict[str, float]:
    """Milliseconds of each phase of a step."""
    found = {event.key: event.device_time_total if on_gpu else event.cpu_time_total for event in events if event.key in PHASES}
    ms = {name: found[name] / steps / 1000 for name in PHASES}
    student = ms.pop("forward") - ms["teacher"]
    return {"inputs": ms["inputs"], "teacher": ms["teacher"], "student": student, "backward": ms["backward"], "optimizer": ms["optimizer"]}


def operations_of(events: Any, steps: int, on_gpu: bool, num: int) -> dict[str, float]:
    """Milliseconds of the slowest operations of a step, without what they call."""
    ms = {event.key: (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / steps / 1000 for event in events}
    slowest = sorted((name for name in ms if name not in PHASES), key=lambda name: -ms[name])
    return {name: ms[name] for name in slowest[:num]}


def shown(title: str, parts: dict[str, float], total: float) -> Table:
    table = Table("part", "ms", "share", title=title)
    for name, ms in parts.items():
        table.add_row(name, f"{ms:,.2f}", f"{ms / total:.1%}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=list(CASES), default="generic B->Ti 224")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    case, on_gpu = CASES[args.case], args.device == "cuda"
    batch = case.batch_gpu if on_gpu else case.batch_cpu
    ours = Ours(case, batch, torch.device(args.device), args.precision, False, record_function)
    ours.build()
    ours.run(3)
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiler:
        ours.run(args.steps)
    events = profiler.key_averages()
    phases, operations = phases_of(events, args.steps, on_gpu), operations_of(events, args.steps, on_gpu, 12)
    total = sum(phases.values())
    console = Console(stderr=True)
    console.print(shown(f"{case.name}, {args.precision}, batch {batch}: {total:,.1f} ms", phases, total))
    console.print(shown("Slowest operations", operations, total))
    described = machine() | {"torch": torch.__version__, "threads": args.threads, "device": args.device}
    print(json.dumps({"case": case.name, "batch": batch, "machine": described, "phases_ms": phases, "operations_ms": operations}))


if __name__ == "__main__":
    main()
