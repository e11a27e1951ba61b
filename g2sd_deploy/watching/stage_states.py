"""What the folders of a run say of each stage: finished, in work, left behind, or not begun."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from g2sd_deploy.artifact import MARKER
from g2sd_deploy.watching.view import State

_BROKEN: tuple[State, ...] = ("failed", "blocked")
_OPEN: tuple[State, ...] = ("waiting", "running", "stopped", "earlier")


@dataclass(frozen=True)
class Finished:
    """What the marker of a finished stage says; digests are not checked: looking on must cost the run nothing."""

    digest: str
    parents: Mapping[str, str]
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    failure: str
    seconds: float | None
    finished_at: str


@dataclass(frozen=True)
class Run:
    """run.json: the stages that were asked for, in order, each with those that it builds on."""

    recipe: str
    command: str
    resolved: Mapping[str, Any]
    stages: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class OnDisk:
    """What lies in a run's folder at one moment."""

    run: Run
    finished: Mapping[str, Finished] = field(default_factory=dict)
    in_work: frozenset[str] = frozenset()
    begun: frozenset[str] = frozenset()


def read_run_file(path: Path) -> Run | str:
    """The run, or why there is none to be seen."""
    try:
        found = json.loads(path.read_bytes())
        stages, resolved = found["stages"], found["resolved"]
        named = {str(name): [str(parent) for parent in parents] for name, parents in stages.items()}
        return Run(str(found["recipe"]), str(found["command"]), dict(resolved), named)
    except FileNotFoundError:
        return f"no run there yet: it has no {path.name}"
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{path.name} is damaged, or of another version; the run writes it anew when it is started again"


def read_finished(folder: Path) -> Finished | None:
    """None where no stage finished there, or its marker cannot be read at this moment."""
    try:
        found = json.loads((folder / MARKER).read_bytes())
        seconds = found["seconds"]
        return Finished(
            str(found["digest"]),
            dict(found["parents"]),
            dict(found["config"]),
            dict(found["metrics"]),
            str(found["failure"]),
            float(seconds),
            str(found["finished_at"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def states_of(disk: OnDisk, *, is_gone: bool) -> dict[str, State]:
    """The state of every stage.

    Args:
        disk: What lies in the folder.
        is_gone: No process of the machine that ran it holds the run.
    """
    states: dict[str, State] = {}
    for name, parents in disk.run.stages.items():
        before = [states[parent] for parent in parents if parent in states]
        found = disk.finished.get(name)
        if name in disk.in_work:
            states[name] = "stopped" if is_gone else "running"
        elif name != "report" and any(state in _BROKEN for state in before):
            states[name] = "blocked"
        elif found is None:
            states[name] = "stopped" if is_gone and name in disk.begun else "waiting"
        elif any(state in _OPEN for state in before) or not _is_current(name, found, disk):
            states[name] = "earlier"
        else:
            states[name] = "failed" if found.failure else "done"
    return states


def _is_current(name: str, found: Finished, disk: OnDisk) -> bool:
    """Whether it was made with the settings of run.json, from the parents that are there now."""
    parents = {parent: disk.finished[parent].digest for parent in disk.run.stages[name] if parent in disk.finished}
    if any(found.parents.get(parent) != digest for parent, digest in parents.items()):
        return False
    shared = found.config.keys() & disk.run.resolved.keys()
    return all(_without_none(found.config[key]) == _without_none(disk.run.resolved[key]) for key in shared)


def _without_none(value: Any) -> Any:
    """run.json leaves out settings that are not set, artifacts keep them."""
    if isinstance(value, Mapping):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list) else value
