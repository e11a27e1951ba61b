"""Several runs side by side: what each is called, which were tested on the same images, which were timed on the same machine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from g2sd_deploy.report.latency import TimedRow
from g2sd_deploy.report.scores import ModelScores
from g2sd_deploy.report.summary import RunSummary, StageRecord

MAX_DRAWN = 8
"""More runs than this are compared in tables alone: there are no more colours that can be told apart."""
SERIES = ("student", "baseline", "green", "rose", "other", "teacher", "teal", "brown")
_TEST_FILES = ("test_images.npy", "test_labels.npy")
_MACHINE_FACTS = ("system", "machine", "cpu", "cpus", "gpu", "power_mode")


@dataclass(frozen=True)
class Compared:
    """A run with a name that no other has here, and the colour of its model; the colour is empty where too many are compared.

    `label` is the shortest name, for places as narrow as a point of a chart.
    """

    name: str
    label: str
    folder: str
    run: RunSummary
    series: str

    @property
    def model(self) -> str:
        """Name of the model that stands for the run: the student, else the first that was scored."""
        names = self.run.scored_names()
        return "student" if "student" in names or not names else names[0]

    @property
    def score(self) -> float | None:
        """What models are ranked by, of that model."""
        return self.run.main_score(self.model)

    @property
    def scores(self) -> ModelScores | None:
        """Scores of that model; None where it is that of a task."""
        return self.run.scores(self.model)

    @property
    def timed(self) -> TimedRow | None:
        """The row of what ships, one image at a time, whatever its verdict; None where none was timed."""
        rows = self.run.profile.rows if self.run.profile else ()
        own = [row for row in rows if row.model == self.model and row.batch == 1 and row.scenario == "single_stream"]
        default = self.run.export.default if self.run.export else ""
        return min(own, key=lambda row: (row.variant != default, not row.variant), default=None)


def compared(runs: Sequence[RunSummary], folders: Sequence[str] = ()) -> tuple[Compared, ...]:
    """Give each run its name and colour.

    Args:
        runs: In the order to show them.
        folders: Of each, to tell apart those of the same name; they are numbered where there are none.
    """
    places = list(folders) or [f"run {number}" for number in range(1, len(runs) + 1)]
    titles = Counter(run.title for run in runs)
    colours = SERIES if len(runs) <= MAX_DRAWN else ("",) * len(runs)
    tails = _tails(places)
    return tuple(
        Compared(*((run.title,) * 2 if titles[run.title] == 1 else (f"{run.title} ({tail})", tail)), place, run, colour)
        for run, place, tail, colour in zip(runs, places, tails, colours, strict=False)
    )


def same_test(one: RunSummary, other: RunSummary) -> bool:
    """Whether both were scored on the same images with the same labels, so that their accuracies may be set side by side."""
    if one.data is None or other.data is None:
        return False
    if (one.data.class_names, one.data.num_test) != (other.data.class_names, other.data.num_test):
        return False
    digests = _test_digests(one)
    same_source = bool(one.data.fingerprint) and one.data.fingerprint == other.data.fingerprint
    return same_source or (bool(digests) and digests == _test_digests(other))


def groups(items: Sequence[Compared], alike: Callable[[RunSummary, RunSummary], bool]) -> tuple[tuple[Compared, ...], ...]:
    """Runs that are alike, in the order in which they came."""
    found: list[list[Compared]] = []
    for item in items:
        home = next((group for group in found if alike(group[0].run, item.run)), None)
        if home is None:
            found.append([item])
        else:
            home.append(item)
    return tuple(map(tuple, found))


def same_machine(one: RunSummary, other: RunSummary) -> bool:
    """Whether both were timed on what describes itself as the same machine."""
    return machine_of(one) == machine_of(other)


def machine_of(run: RunSummary) -> str:
    """What tells the machine of the profile from another, as text."""
    machine = run.profile.machine if run.profile else {}
    known = {fact: machine[fact] for fact in _MACHINE_FACTS if machine.get(fact) is not None}
    stage = _stage(run, "profile")
    return json.dumps(known or (dict(stage.environment) if stage else {}), sort_keys=True, default=str)


def same_reference(one: RunSummary, other: RunSummary) -> bool:
    """Whether the latency ratios of both refer to the same network."""
    first = reference_digest(one)
    return bool(first) and first == reference_digest(other)


def reference_digest(run: RunSummary) -> str:
    """Digest of the network that latency ratios refer to; empty where none was timed."""
    rows = run.profile.rows if run.profile and run.profile.reference else ()
    return next((row.digest for row in rows if run.profile and row.model == run.profile.reference and row.digest), "")


def _stage(run: RunSummary, name: str) -> StageRecord | None:
    return next((stage for stage in run.stages if stage.name == name), None)


def _test_digests(run: RunSummary) -> tuple[str, ...]:
    stage = _stage(run, "data")
    files = stage.files if stage else {}
    return tuple(files[name].sha256 for name in _TEST_FILES) if all(name in files for name in _TEST_FILES) else ()


def _tails(places: Sequence[str]) -> list[str]:
    """The shortest ends of the paths by which all can be told apart."""
    parts = [PurePath(place).parts for place in places]
    for length in range(1, max(map(len, parts), default=0) + 1):
        tails = ["/".join(found[-length:]) for found in parts]
        if len(set(tails)) == len(tails):
            return tails
    return list(places)
