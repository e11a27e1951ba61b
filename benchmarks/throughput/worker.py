"""One side of one case in a process of its own, so that memory is its own and neither side's libraries touch the other's.

Reads numbers of steps from stdin, one a line; answers each with one JSON line. Run by train_throughput.py.
"""

import argparse
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import torch

from throughput.cases import CASES

MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", required=True)
    parser.add_argument("--side", choices=["original", "ours"], required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--original", type=Path)
    parser.add_argument("--timm", type=Path)
    args = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the authors' code prints must not be taken for an answer
    torch.set_num_threads(args.threads)
    side = _side(args)
    before = resident_mib()
    side.build()
    side.run(2)
    for line in sys.stdin:
        seconds = side.run(int(line))
        answers.write(json.dumps({"seconds": seconds, "peak_mib": peak_mib(args.device, before)}) + "\n")
        answers.flush()


def _side(args: argparse.Namespace) -> Any:
    case, device = CASES[args.case], torch.device(args.device)
    if args.side == "original":
        from throughput.original import Original

        return Original(case, args.batch, device, args.precision, args.original, args.timm)
    from throughput.ours import Ours

    return Ours(case, args.batch, device, args.precision, args.compiled)


def resident_mib() -> float:
    """Memory of this process now: what the libraries take."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) if sys.platform == "linux" else 0
    return pages * resource.getpagesize() / MIB


def peak_mib(device: str, before: float) -> float:
    """Most memory that was in use: of the GPU's allocator, or of this process above its libraries."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / MIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB - before


if __name__ == "__main__":
    main()
