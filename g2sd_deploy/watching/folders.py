"""Where a run keeps what is not finished: folders in work and checkpoints."""

from collections.abc import Iterable
from pathlib import Path

METRICS_FILE = "metrics.jsonl"


def in_work(run_folder: Path, stages: Iterable[str]) -> frozenset[str]:
    """Stages that write an artifact, or did when they were killed."""
    return frozenset(name for name in stages if (run_folder / f".{name}.unfinished").is_dir())


def newest_checkpoint(run_folder: Path, stage: str) -> tuple[int, float] | None:
    """Steps that the newest checkpoint of a stage holds, and when it was written (seconds since 1970 by the file system's clock).

    The name tells the steps: the file itself holds the whole history.
    """
    found: list[tuple[int, float]] = []
    for marker in (run_folder / f".{stage}.checkpoints").glob("step-*.json"):
        digits = marker.stem.removeprefix("step-")
        try:
            found.append((int(digits), marker.stat().st_mtime))
        except (ValueError, OSError):  # another file, or one that was removed just now
            continue
    return max(found, default=None)
