"""The detached work on a device: make the environment, prove the bundles, time them, write one result.

Runs on the device itself, beside its ``job.json``: Python 3.8, the standard library, nothing of this package. Whatever happens is in
``result.json`` at the end, which is written last and whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple  # noqa: UP035 (Python 3.8 runs this)

_PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "--no-color", "install", "--timeout", "15", "--retries", "1")
_UNREACHABLE = ("NewConnectionError", "ConnectTimeoutError", "Retrying (", "ProxyError", "SSLError", "Could not fetch URL")
_LAST_CHARACTERS = 400

Json = Dict[str, Any]  # noqa: UP006


class Failure(Exception):  # noqa: N818 (a sentence for the person at the other end)
    """Why there is no result, in one line."""


def main(folder: Path) -> None:
    """Do the job that lies in a folder."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    try:
        result = work(job, folder)
    except Failure as failure:
        result = {"error": str(failure)}
    except OSError as error:
        result = {"error": f"{error.filename or folder}: {error.strerror}"}
    result["finished_at"] = time.time()
    part = folder / ".result.json.part"
    part.write_text(json.dumps(result), encoding="utf-8")
    part.replace(folder / "result.json")


def work(job: Json, folder: Path) -> Json:
    """All steps, in order."""
    python, absent = prepared(job, folder)
    selftests, benches = {}, []
    for bundle in job["bundles"]:
        tell(folder, f"self-test of {bundle['name']}")
        selftests[bundle["tree"]] = selftest(job, python, bundle)
    for bundle in job["bundles"]:
        passed = [one["variant"] for one in selftests[bundle["tree"]] if one["verdict"] == "passed"]
        names = [name for name in bundle["variants"] if name in passed]
        for case in job["cases"] if names else ():
            tell(folder, f"timing {bundle['name']}: {', '.join(names)}; {case['told']}")
            benches.append({"tree": bundle["tree"], "case": case, "variants": names, **bench(job, python, bundle, case, names)})
    return {"selftests": selftests, "benches": benches, "absent": absent}


def prepared(job: Json, folder: Path) -> Tuple[str, Dict[str, str]]:  # noqa: UP006
    """The Python to work with, and why runtimes could not be installed there."""
    wanted: Optional[Json] = job["venv"]  # noqa: UP045
    if wanted is None:
        return os.path.expanduser(job["python"]), {}  # noqa: PTH111 (a bare name is looked up, not made absolute)
    place = Path(job["root"]) / "venvs" / wanted["name"]
    python = place / "bin" / "python"
    ready = place / "ready.json"
    if ready.is_file() and run([str(python), "-c", ""], job).returncode == 0:  # a system's upgrade takes its old Python away
        tell(folder, f"the virtual environment {place} is there")
        return str(python), json.loads(ready.read_text(encoding="utf-8"))
    tell(folder, "making a virtual environment with " + ", ".join(sum(wanted["runtimes"].values(), wanted["base"])))
    make_venv(place, wanted["see_system"], job)
    if problem := install(python, wanted["base"], job):
        raise Failure(problem)
    absent = {}
    for runtime, packages in wanted["runtimes"].items():
        if problem := install(python, packages, job):
            absent[runtime] = problem
    if len(absent) == len(wanted["runtimes"]):
        raise Failure("; ".join(dict.fromkeys(absent.values())))
    ready.write_text(json.dumps(absent), encoding="utf-8")
    return str(python), absent


def make_venv(place: Path, see_system: bool, job: Json) -> None:
    """An empty environment; one that a broken attempt left is replaced."""
    options = ["--clear", *(["--system-site-packages"] if see_system else [])]
    done = run([sys.executable, "-m", "venv", *options, str(place)], job)
    if done.returncode == 0:
        return
    words = last_words(done)
    if "ensurepip" in words or "No module named venv" in words:
        raise Failure(
            f"{sys.executable} cannot make virtual environments (no ensurepip); install them there (Debian, Ubuntu: sudo apt install "
            "python3-venv), or name an environment of yours with --venv FOLDER"
        )
    raise Failure(f"no virtual environment could be made at {place}: {words}")


def install(python: Path, packages: List[str], job: Json) -> str:  # noqa: UP006
    """Install packages; why not, in one line, or nothing."""
    done = run([str(python), *_PIP, *packages], job)
    if done.returncode == 0:
        return ""
    names, text = " and ".join(packages), done.stdout + done.stderr
    if "No space left" in text:
        raise Failure(
            f"no space is left for {names} in {job['root']}; free some there, or name a folder on another disk: ssh://HOST/FOLDER"
        )
    if any(sign in text for sign in _UNREACHABLE):
        return (
            f"pip reaches no package index, so {names} cannot be installed; give the device a network or a mirror (pip config), or name a "
            "Python that has it: --venv FOLDER or --python PATH"
        )
    if "No matching distribution" in text:
        return f"there is no {names} for {job['platform']} with Python {sys.version.split()[0]}; time another runtime or use another Python"
    return f"pip could not install {names}: {last_words(done)}"


def selftest(job: Json, python: str, bundle: Json) -> List[Json]:  # noqa: UP006
    """The verdict of every variant, by the code that ships with the bundle."""
    tree = Path(job["root"]) / "trees" / bundle["tree"]
    done = run([python, "-m", "edge", "selftest", "--all", "--json"], job, cwd=tree)
    found = []
    for line in done.stdout.splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    found = [one for one in found if isinstance(one, dict) and "verdict" in one]
    if not found:
        raise Failure(f"the self-test of {bundle['name']} does not run: {last_words(done)}")
    if not any(one.get("variant") for one in found):
        raise Failure(f"the self-test of {bundle['name']} failed: {found[0].get('reason')}")
    return found


def bench(job: Json, python: str, bundle: Json, case: Json, variants: List[str]) -> Json:  # noqa: UP006
    """A profile of the variants, or why there is none."""
    tree, code = (Path(job["root"]) / "trees" / digest for digest in (bundle["tree"], job["code"]))
    named = [word for name in variants for word in ("--variant", name)]
    references = [name for name in bundle["references"] if name in variants]
    named += ["--reference", references[0]] if references and len(variants) > 1 else []
    done = run([python, "-m", "edge", "bench", "--json", "--bundle", str(tree), *case["arguments"], *named], job, cwd=code)
    for line in reversed(done.stdout.splitlines()):
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict) and "rows" in found:
                return {"profile": found}
    return {"error": last_words(done)}


def run(command: List[str], job: Json, cwd: Optional[Path] = None) -> "subprocess.CompletedProcess[str]":  # noqa: UP006, UP045
    """Run a program; it holds the job's lock too, so that what it still does counts as running."""
    changed = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    env = {**os.environ, **changed}
    for name in ("PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH"):
        env.pop(name, None)
    try:
        return subprocess.run(
            command,
            cwd=None if cwd is None else str(cwd),
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            pass_fds=(job["lock"],),
        )
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, "", f"{error.filename}: {error.strerror}")


def last_words(done: "subprocess.CompletedProcess[str]") -> str:
    """The line that tells why a program failed."""
    lines = [line.strip() for line in (done.stderr + "\n" + done.stdout).splitlines() if line.strip()]
    errors = [line for line in (line.strip() for line in done.stderr.splitlines()) if line]
    return ((errors or lines)[-1] if errors or lines else f"it ended with status {done.returncode}")[-_LAST_CHARACTERS:]


def tell(folder: Path, line: str) -> None:
    """Add a line to what somebody who follows the job is shown."""
    with open(folder / "progress.txt", "a", encoding="utf-8") as file:  # noqa: PTH123
        file.write(line + "\n")


if __name__ == "__main__":
    main(Path(__file__).resolve().parent)
