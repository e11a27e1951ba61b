"""What answers on the device while somebody is connected: takes files, starts a job that outlives the connection, and brings its result.

Runs on the device itself: Python 3.8, the standard library, nothing of this package. Requests come as JSON lines on standard input (files
follow theirs as raw bytes); each is answered with lines on standard output that begin with ``MARK``, so that what a login shell prints is
told apart.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, Optional  # noqa: UP035 (Python 3.8 runs this)

MARK = b"g2sd-device "
SPARE_BYTES = 32 << 20
_BLOCK_BYTES = 1 << 20
_BEAT_S = 2.0
_POLL_S = 0.5
_MADE = ".made.json"
_PACKAGES = ("numpy", "pillow", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx", "tensorrt_rtx")

Json = Dict[str, Any]  # noqa: UP006


class Refusal(Exception):  # noqa: N818 (as UserError: a sentence for the person at the other end)
    """Something that cannot be done here, in one line."""


class Agent:
    """One connection's requests."""

    def __init__(self, source: IO[bytes], sink: IO[bytes]) -> None:
        self._source = source
        self._sink = sink
        self._root = Path()
        self._job_code = ""

    def serve(self) -> None:
        """Answer requests until the other end hangs up."""
        with contextlib.suppress(BrokenPipeError):
            while line := self._source.readline():
                request = json.loads(line)
                try:
                    self._say(getattr(self, "do_" + request["do"])(request))
                except Refusal as refusal:
                    self._say({"error": str(refusal)})
                    return
                except BrokenPipeError:
                    raise
                except OSError as error:
                    self._say({"error": self._told(error)})
                    return

    def do_hello(self, request: Json) -> Json:
        """Take the work folder and the job's code; tell what machine this is."""
        self._root = Path(os.path.expanduser(request["root"]))  # noqa: PTH111 (a name with an unknown ~user stays as it is)
        self._job_code = request["job_code"]
        return {**machine(), "root": str(self._root), "free_bytes": free_bytes(self._root), "left": list(self._left())}

    def do_plan(self, request: Json) -> Json:
        """Which files of the trees are not here yet; those that lie in another tree are linked, not asked for."""
        missing = [[digest, name] for digest, files in request["trees"].items() for name in self._missing(digest, files)]
        num_bytes = sum(request["trees"][digest][name]["bytes"] for digest, name in missing)
        free = free_bytes(self._root)
        if num_bytes + SPARE_BYTES > free:
            for digest in {digest for digest, _ in missing}:
                self._remove_tree(digest)
            self._tidy()
            raise Refusal(
                f"{num_bytes / 2**20:.0f} MiB are to be copied to {self._root} and {free / 2**20:.0f} MiB are free there; free "
                f"{(num_bytes + SPARE_BYTES - free) / 2**20 + 1:.0f} MiB, or name a folder on another disk: ssh://HOST/FOLDER"
            )
        return {"missing": missing}

    def do_receive(self, request: Json) -> Json:
        """Write files whose bytes follow, in order; where the disk is full, nothing of their trees stays."""
        self._make_root()
        try:
            for item in request["files"]:
                self._receive(self._tree(item["tree"]) / inside(item["name"]), item)
            for digest, files in request["trees"].items():
                write_whole(self._tree(digest).with_suffix(".json"), json.dumps(files))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                for digest in {item["tree"] for item in request["files"]}:
                    self._remove_tree(digest)
            raise
        finally:
            self._tidy()
        return {"received": len(request["files"])}

    def do_start(self, request: Json) -> Json:
        """Start a job, unless it runs or has finished already; a dead one of the same key is started again."""
        folder = self._job(request["key"])
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "lock", "w") as lock:  # noqa: PTH123
            if not taken(lock):
                return {"state": "running"}
            if (folder / "result.json").is_file():
                return {"state": "finished", "finished_at": (folder / "result.json").stat().st_mtime}
            for stale in ("progress.txt", "log.txt"):
                with contextlib.suppress(FileNotFoundError):
                    (folder / stale).unlink()
            job = {**request["job"], "root": str(self._root), "lock": lock.fileno()}
            write_whole(folder / "job.json", json.dumps(job))
            write_whole(folder / "job.py", self._job_code)
            with open(folder / "log.txt", "w") as log:  # noqa: PTH123
                started = subprocess.Popen(
                    [sys.executable, str(folder / "job.py")],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=str(folder),
                    start_new_session=True,  # it goes on when the connection is lost
                    pass_fds=(lock.fileno(),),  # and the lock is held as long as it or its children live
                )
            write_whole(folder / "pid", str(started.pid))
        return {"state": "started"}

    def do_follow(self, request: Json) -> Json:
        """Tell a job's progress until it ends, then its result; a beat now and then shows whether anybody still listens."""
        folder = self._job(request["key"])
        told, last = 0, time.monotonic()
        while True:
            running = is_running(folder)  # before the result is looked for: a job that ends between the two has written it
            lines = lines_of(folder / "progress.txt")
            for line in lines[told:]:
                self._say({"progress": line})
            told = max(told, len(lines))
            if (folder / "result.json").is_file():
                return {"result": json.loads((folder / "result.json").read_text(encoding="utf-8"))}
            if not running:
                last_words = " ".join(lines_of(folder / "log.txt")[-1:])[:300]
                raise Refusal(
                    f"the bench ended without a result{': ' + last_words if last_words else ' (killed, or the device restarted)'}; "
                    f"its log is {folder / 'log.txt'}; the same command starts it again"
                )
            if time.monotonic() - last > _BEAT_S:
                self._say({"beat": True})
                last = time.monotonic()
            time.sleep(_POLL_S)

    def do_remove(self, request: Json) -> Json:
        """Remove a job, and of the trees and environments named those that no other job needs; of environments all unfinished ones, too."""
        shutil.rmtree(str(self._job(request["key"])), ignore_errors=True)
        needed = " ".join(path.read_text(encoding="utf-8") for path in self._root.glob("jobs/*/job.json"))
        for digest in request["trees"]:
            if digest not in needed:
                self._remove_tree(digest)
        for folder in self._root.glob("venvs/*"):
            unfinished = not (folder / "ready.json").is_file()
            if folder.name not in needed and (unfinished or folder.name in request["venvs"]):
                shutil.rmtree(str(folder), ignore_errors=True)
        self._tidy()
        return {"left": list(self._left())}

    def do_clean(self, request: Json) -> Json:
        """End what runs here and remove everything."""
        left = list(self._left())
        for folder in self._root.glob("jobs/*"):
            if is_running(folder):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(int((folder / "pid").read_text()), signal.SIGKILL)
        for name in ("jobs", "trees", "venvs"):
            shutil.rmtree(str(self._root / name), ignore_errors=True)
        self._tidy()
        return {"removed": left, "left": list(self._left())}

    def _say(self, answer: Json) -> None:
        self._sink.write(MARK + json.dumps(answer).encode() + b"\n")
        self._sink.flush()

    def _told(self, error: OSError) -> str:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return (
                f"no space is left in {self._root} ({free_bytes(self._root) / 2**20:.0f} MiB free); free some there, or name a folder on "
                "another disk: ssh://HOST/FOLDER"
            )
        return f"{error.filename or self._root}: {error.strerror}; name a folder that may be written: ssh://HOST/FOLDER"

    def _job(self, key: str) -> Path:
        return self._root / "jobs" / inside(key)

    def _tree(self, digest: str) -> Path:
        return self._root / "trees" / inside(digest)

    def _receive(self, path: Path, record: Json) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part, left, digest = path.with_name(f".{path.name}.part"), record["bytes"], hashlib.sha256()
        try:
            with open(part, "wb") as file:  # noqa: PTH123
                while left:
                    block = self._source.read(min(left, _BLOCK_BYTES))
                    if not block:
                        raise BrokenPipeError
                    file.write(block)
                    digest.update(block)
                    left -= len(block)
            if digest.hexdigest() != record["sha256"]:
                raise Refusal(f"{record['name']} changed while it was copied; run the command again")
            part.replace(path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()

    def _elsewhere(self) -> Dict[str, Path]:  # noqa: UP006
        """Files of all trees by digest, as they were when they came."""
        found = {}
        for listing in self._root.glob("trees/*.json"):
            with contextlib.suppress(OSError, ValueError):
                for name, record in json.loads(listing.read_text(encoding="utf-8")).items():
                    found[record["sha256"]] = listing.with_suffix("") / inside(name)
        return found

    def _linked(self, path: Path, record: Json, elsewhere: Dict[str, Path]) -> bool:  # noqa: UP006
        source = elsewhere.get(record["sha256"])
        if source is None or source == path or not is_whole(source, record):
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        try:
            os.link(str(source), str(path))
        except OSError:  # a file system without hard links
            return False
        return True

    def _missing(self, digest: str, files: Json) -> Iterator[str]:
        tree, elsewhere = self._tree(digest), self._elsewhere()
        for name, record in files.items():
            if not (is_whole(tree / inside(name), record) or self._linked(tree / inside(name), record, elsewhere)):
                yield name

    def _remove_tree(self, digest: str) -> None:
        shutil.rmtree(str(self._tree(digest)), ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            self._tree(digest).with_suffix(".json").unlink()

    def _make_root(self) -> None:
        """Make the work folder, and note which folders above it were not there."""
        if not self._root.is_dir():
            made = [str(folder) for folder in self._root.parents if not folder.exists()]
            write_whole(self._root / _MADE, json.dumps(made))

    def _tidy(self) -> None:
        """Remove folders that hold nothing any more: the work folder too, and those that were made for it."""
        for name in ("jobs", "trees", "venvs"):
            with contextlib.suppress(OSError):
                (self._root / name).rmdir()
        note, made = self._root / _MADE, []
        if note.is_file() and list(self._root.iterdir()) == [note]:
            made = json.loads(note.read_text(encoding="utf-8"))
            note.unlink()
        for folder in (self._root, *map(Path, made)):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _left(self) -> Iterator[str]:
        for kind, what in (("jobs", "a bench"), ("trees", "a copy"), ("venvs", "a virtual environment")):
            for folder in sorted(self._root.glob(kind + "/*")):
                if folder.is_dir():
                    yield f"{what} at {folder}" + (" (running)" if kind == "jobs" and is_running(folder) else "")


def machine() -> Json:
    """What this machine is, and which packages its Python has."""
    from importlib.metadata import PackageNotFoundError, version

    packages = {}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            packages[name.replace("_", "-")] = version(name)
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "platform": sysconfig.get_platform(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "packages": packages,
    }


def free_bytes(folder: Path) -> int:
    """What this user may still write at a folder, or where it would be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(str(folder)).free


def inside(name: str) -> str:
    """A relative path that stays in its folder, unchanged."""
    if name.startswith("/") or ".." in name.split("/") or not name:
        raise Refusal(f"{name!r} lies outside the work folder")
    return name


def is_whole(path: Path, record: Json) -> bool:
    """Whether a file is there with this size and SHA-256."""
    try:
        if path.stat().st_size != record["bytes"]:
            return False
        digest = hashlib.sha256()
        with open(path, "rb") as file:  # noqa: PTH123
            for block in iter(lambda: file.read(_BLOCK_BYTES), b""):
                digest.update(block)
    except OSError:
        return False
    same: bool = digest.hexdigest() == record["sha256"]
    return same


def write_whole(path: Path, text: str) -> None:
    """Write a small file so that a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def taken(lock: IO[Any]) -> bool:
    """Take a lock that goes with the processes that hold it; False where another holds it."""
    import fcntl  # here, for the other end reads MARK from this module on any system

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_running(folder: Path) -> bool:
    """Whether a job's process, or a child of it, lives."""
    try:
        with open(folder / "lock") as lock:  # noqa: PTH123
            return not taken(lock)
    except FileNotFoundError:
        return False


def lines_of(path: Path) -> List[str]:  # noqa: UP006
    """Whole lines of a text file that may be growing; none where there is no file."""
    try:
        text: Optional[str] = path.read_text(encoding="utf-8", errors="replace")  # noqa: UP045
    except FileNotFoundError:
        text = ""
    return [line for line in (text or "").split("\n")[:-1] if line.strip()]


if __name__ == "g2sd_agent":
    Agent(sys.stdin.buffer, sys.stdout.buffer).serve()
