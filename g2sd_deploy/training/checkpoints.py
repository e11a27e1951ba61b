"""Checkpoints of a training stage on disk: written whole or not at all, hashed, the last two kept."""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from g2sd_deploy.artifact import sha256_of, sync, write_text_whole
from g2sd_deploy.runtime import CheckpointEvery

FORMAT = 1
NUM_KEPT = 2


@dataclass(frozen=True)
class Reached:
    """How far a stage had come, beside its tensors.

    Attributes:
        num_steps: Optimiser steps done.
        images_seen: Images of all processes.
        seconds: Time spent training, of all attempts.
        history: Rows that were logged.
        bad: Images that could not be used, by index, with the reason.
    """

    num_steps: int = 0
    images_seen: int = 0
    seconds: float = 0.0
    history: list[dict[str, int | float]] = field(default_factory=list)
    bad: dict[int, str] = field(default_factory=dict)


@dataclass
class Checkpoints:
    """The checkpoints of one stage.

    Attributes:
        folder: Where they lie; nothing else is in it.
        key: What the stage is a function of; checkpoints of another key are of another training and are removed.
        every: When one is due.
    """

    folder: Path
    key: str
    every: CheckpointEvery
    _last_s: float = field(default_factory=time.monotonic)

    def due(self, num_steps: int) -> bool:
        """Whether it is time for another one after this many steps."""
        if self.every.steps is not None and num_steps % self.every.steps == 0:
            return True
        return self.every.minutes is not None and time.monotonic() - self._last_s >= 60 * self.every.minutes

    def save(self, tensors: Mapping[str, Tensor], reached: Reached) -> None:
        """Write one, then remove all but the newest two. What tells its hash is written last, and without that there is no checkpoint.

        Raises:
            OSError: It cannot be written; those before it stay.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"step-{reached.num_steps:09d}"
        weights, beside = self.folder / f"{name}.safetensors", self.folder / f"{name}.unfinished"
        try:
            _save_file(tensors, beside)
            described = {
                "format": FORMAT,
                "key": self.key,
                "bytes": beside.stat().st_size,
                "sha256": sha256_of(beside),
                "reached": asdict(reached),
            }
            beside.replace(weights)
            write_text_whole(self.folder / f"{name}.json", json.dumps(described))
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        self._last_s = time.monotonic()
        for marker in sorted(self.folder.glob("step-*.json"))[:-NUM_KEPT]:
            _remove(marker)

    def newest(self, warn: Callable[[str], None]) -> tuple[Path, Reached] | None:
        """The newest checkpoint that is whole; what is damaged is named and passed over, what is left of others is removed."""
        for marker in sorted(self.folder.glob("step-*.json"), reverse=True):
            found, problem = self._read(marker)
            if found is not None:
                self._clear_leftovers()
                return found
            if problem:
                warn(f"the checkpoint {marker.with_suffix('.safetensors')} is damaged ({problem}); going back to the one before it")
            _remove(marker)
        self._clear_leftovers()
        return None

    def _read(self, marker: Path) -> tuple[tuple[Path, Reached] | None, str]:
        """The checkpoint, or why it is none; the reason is empty where it belongs to another training."""
        weights = marker.with_suffix(".safetensors")
        try:
            described = json.loads(marker.read_bytes())
            if described["format"] != FORMAT or described["key"] != self.key:
                return None, ""
            saved = described["reached"]
            reached = Reached(**{**saved, "bad": {int(index): reason for index, reason in saved["bad"].items()}})
            wanted = described["bytes"], described["sha256"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return None, "its description cannot be read"
        if not weights.is_file():
            return None, "its weights are gone"
        if weights.stat().st_size != wanted[0]:
            return None, f"{weights.stat().st_size} bytes instead of {wanted[0]}"
        return ((weights, reached), "") if sha256_of(weights) == wanted[1] else (None, "its hash is another one")

    def _clear_leftovers(self) -> None:
        """Remove what a killed process left half written."""
        for path in self.folder.glob("*"):
            if path.suffix != ".json" and not (path.suffix == ".safetensors" and path.with_suffix(".json").is_file()):
                path.unlink(missing_ok=True)


def keys_of(folder: Path) -> set[str]:
    """What the checkpoints of a folder are of, as far as they can be read."""
    found = set()
    for marker in folder.glob("step-*.json"):
        with suppress(ValueError, KeyError, TypeError):
            found.add(json.loads(marker.read_bytes())["key"])
    return found


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint that `newest` gave."""
    return load_file(path)


def _save_file(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises: OSError, also where the library calls a full disk by a name of its own."""
    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:
        raise _os_error(error, path) from None
    sync(path)


def _os_error(error: SafetensorError, path: Path) -> OSError:
    """safetensors reports what the system said as text: `I/O error: No space left on device (os error 28)`."""
    _, _, number = str(error).partition("(os error ")
    digits = number.partition(")")[0]
    return OSError(int(digits), str(error), str(path)) if digits.isdigit() else OSError(str(error))


def _remove(marker: Path) -> None:
    """The description first: weights without one are no checkpoint."""
    marker.unlink(missing_ok=True)
    marker.with_suffix(".safetensors").unlink(missing_ok=True)
