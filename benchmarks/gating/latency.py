"""The latency gate on a real clock: a model against itself, and against calls that do more work.

Every session times the reference network, a ViT-Ti of 10 blocks, and one with extra work, an eleventh block, in turns. A repetition holds
a session against another one, as a check holds a run against its baseline; all pairs are taken, so the sessions, not the repetitions, are
what is independent.
"""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from g2sd_deploy.gates.latency import slowdown_test
from g2sd_deploy.gates.settings import LatencyGate
from g2sd_deploy.gates.snapshot import Ratio
from g2sd_deploy.gates.statistics import Sureness
from g2sd_deploy.models.vit import Classifier, EncoderSpec
from g2sd_deploy.profiling.reference import reference_onnx
from g2sd_export.edge.measuring import MeasureSettings, Subject, measure

SLOWDOWNS = (0.0, 0.1)
_DEPTH, _IMAGE_PX = 10, 224
_NAME = "{:g} % more work"
_LOAD = """
import random, sys, time
share, rng = float(sys.argv[1]), random.Random(0)
while True:
    burst = rng.expovariate(1 / 0.3)
    end = time.monotonic() + burst
    while time.monotonic() < end:
        pass
    time.sleep(burst * (1 - share) / share)
"""


def study(work: Path, *, sessions: int, load: float, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure sessions that are still missing, then count.

    Args:
        work: Folder with the sessions so far.
        sessions: How many there shall be.
        load: Share of the time in which another process works.
        seconds: The most time for each network of a session, as of a profile.
        say: Told what was done.
    """
    file = work / (f"sessions-load{load:g}.jsonl" if load else "sessions.jsonl")
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    with _loaded(load), file.open("a") as log:
        subjects = _subjects(work) if len(done) < sessions else []
        while len(done) < sessions:
            done.append(_session(subjects, seconds))
            log.write(json.dumps(done[-1]) + "\n")
            log.flush()
            if len(done) % 10 == 0:
                say(f"{len(done)} of {sessions} sessions, the last took {done[-1]['seconds']:.1f} s")
    settings = LatencyGate()
    rows = [_count(done[:sessions], slowdown, settings.max_slowdown) for slowdown in SLOWDOWNS]
    took = float(np.median([one["seconds"] for one in done[:sessions]]))
    return {"num_sessions": sessions, "session_s": took, "load": load, "max_slowdown": settings.max_slowdown, "rows": rows}


@contextmanager
def _loaded(share: float) -> Iterator[None]:
    """Another process that works in bursts, as other jobs on a shared runner do."""
    if not share:
        yield
        return
    other = subprocess.Popen([sys.executable, "-c", _LOAD, str(share)])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def _subjects(work: Path) -> list[Subject]:
    """The product's reference network, the model and the model with more blocks, on ONNX Runtime with one thread."""
    slowed = [Subject(_NAME.format(100 * share), 1, _opened(_model(work, round(_DEPTH * (1 + share))))) for share in SLOWDOWNS]
    return [Subject("reference", 1, _opened(reference_onnx())), *slowed]


def _model(work: Path, depth: int) -> bytes:
    from g2sd_export.onnx_file import export_onnx

    path = work / f"depth{depth}.onnx"
    if not path.is_file():
        torch.manual_seed(0)
        model = Classifier(EncoderSpec(_IMAGE_PX, 16, 3, 192, depth, 3), 1000, pooling="mean").eval()
        export_onnx(model, path=path, image_px=_IMAGE_PX, num_channels=3, opset=20, metadata={})
    return path.read_bytes()


def _opened(model: bytes) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    taken = session.get_inputs()[0]
    image = np.random.default_rng(0).normal(size=(1, 3, _IMAGE_PX, _IMAGE_PX)).astype(np.float32)
    return lambda: session.run(None, {taken.name: image})


def _session(subjects: list[Subject], seconds: float) -> dict[str, Any]:
    """One session, in an order of its own, so that no subject always follows the same other."""
    started = time.monotonic()
    shuffled = random.sample(subjects, len(subjects))
    settings = MeasureSettings(percentile=50.0, seconds=seconds, reference="reference")
    found = measure(shuffled, settings)
    kept = ("verdict", "reasons", "p50_ms", "ratio", "round_p50_ms")
    rows = {name: {key: row[key] for key in kept} for name, row in found.rows.items()}
    return {"seconds": time.monotonic() - started, "verdict": found.conditions["verdict"], "rows": rows}


def _count(sessions: list[dict[str, Any]], slowdown: float, tolerated: float) -> dict[str, Any]:
    """Every session's slowed model against the unslowed one of every other session."""
    sureness, base, name = Sureness(), _NAME.format(0.0), _NAME.format(100 * slowdown)
    failed, missing, changes, finds = 0, 0, [], []
    for one, other in permutations(sessions, 2):
        before, after = _ratio(one, base), _ratio(other, name)
        if before is None or after is None:
            missing += 1
            continue
        tested = slowdown_test(before, after, tolerated, sureness)
        failed += tested.p <= sureness.alpha
        changes.append(tested.value)
        finds.append(tested.detectable)
    return {
        "slowdown": slowdown,
        "repetitions": len(sessions) * (len(sessions) - 1),
        "not_judged": missing,
        "failed": failed,
        "median_slowdown": float(np.expm1(np.median(changes))) if changes else float("nan"),
        "spread": float(np.std(changes)) if changes else float("nan"),
        "detectable_slowdown": float(np.expm1(np.median(finds))) if finds else float("nan"),
    }


def _ratio(session: dict[str, Any], name: str) -> Ratio | None:
    row = session["rows"][name]
    if session["verdict"] == "invalid" or row["ratio"]["reasons"]:
        return None
    return Ratio(value=row["ratio"]["value"], interval=tuple(row["ratio"]["interval"]), num_rounds=len(row["round_p50_ms"]))
