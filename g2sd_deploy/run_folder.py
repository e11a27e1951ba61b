"""A run's folder: whose it is, what it records, and who may write there."""

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from g2sd_deploy.artifact import digest_of, write_text_whole
from g2sd_deploy.errors import UserError
from g2sd_deploy.locks import lock
from g2sd_deploy.settings import Recipe

RUN_FILE = "run.json"
LOCK_FILE = ".lock"


def check_folder(recipe: Recipe, run_folder: Path) -> None:
    """Refuse a folder that another recipe, or something else, wrote.

    Raises:
        UserError: It holds another recipe's run, or files that are not a run's.
    """
    if run_folder.exists() and not run_folder.is_dir():
        raise UserError(f"--out {run_folder}: is a file; give a folder")
    marker = run_folder / RUN_FILE
    if marker.is_file():
        try:
            owner = json.loads(marker.read_bytes())["recipe"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{marker}: is damaged, so it is not known whose run this is; give another --out") from None
        if owner != recipe.name:
            raise UserError(f"--out {run_folder}: holds the run of the recipe {owner}, not {recipe.name}; give another --out")
    elif run_folder.is_dir() and any(not path.name.startswith(".") for path in run_folder.iterdir()):
        raise UserError(f"--out {run_folder}: holds files, but no run of g2sd; give a new or empty folder")


def record_run(recipe: Recipe, run_folder: Path, command: str, stages: Mapping[str, Sequence[str]]) -> None:
    """Record the resolved recipe in the run's folder.

    Args:
        recipe: What is run.
        run_folder: Where.
        command: As it was typed.
        stages: The stages that were asked for, in order, each with those that it builds on.

    Raises:
        UserError: It cannot be written.
    """
    resolved = recipe.model_dump(mode="json", exclude_none=True)
    record = {"format": 1, "recipe": recipe.name, "recipe_sha256": digest_of(resolved), "resolved": resolved, "command": command}
    record["stages"] = {name: list(parents) for name, parents in stages.items()}
    try:
        write_text_whole(run_folder / RUN_FILE, json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise _unwritable(run_folder, error) from None


def _unwritable(run_folder: Path, error: OSError) -> UserError:
    return UserError(f"--out {run_folder}: cannot be written ({error.strerror}); give a folder you may write to")


@contextmanager
def locked(run_folder: Path) -> Iterator[None]:
    """Create the run's folder and keep two processes from writing one run; the lock goes with the process.

    Raises:
        UserError: The folder cannot be written, or another process holds it.
    """
    try:
        run_folder.mkdir(parents=True, exist_ok=True)
        file = (run_folder / LOCK_FILE).open("a", encoding="utf-8")
    except OSError as error:
        raise _unwritable(run_folder, error) from None
    with file:
        if not lock(file, wait=False):
            raise UserError(f"--out {run_folder}: another g2sd run is writing there; wait for it or give another --out")
        _tell_holder(file)
        yield


def _tell_holder(file: IO[str]) -> None:
    """Who holds the lock since when, for those who watch; what it says of a process that ended is left standing."""
    since = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    with suppress(OSError):  # a note; a full disk is told of where it matters
        file.truncate(0)
        file.write(json.dumps({"host": platform.node(), "pid": os.getpid(), "since": since}) + "\n")
        file.flush()
