"""Looks at a run's folder again and again. Everything is read, nothing is written, locked or hashed."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from g2sd_deploy.run_folder import RUN_FILE
from g2sd_deploy.warnings_file import WARNINGS_FILE
from g2sd_deploy.watching.folders import METRICS_FILE, in_work, newest_checkpoint
from g2sd_deploy.watching.holder import find_holder
from g2sd_deploy.watching.json_lines import GrowingLines
from g2sd_deploy.watching.news_clock import NewsClock
from g2sd_deploy.watching.outcome import outcome_of
from g2sd_deploy.watching.stage_states import Finished, OnDisk, Run, read_finished, read_run_file, states_of
from g2sd_deploy.watching.training_view import Row, band_note, moment, rows_of, training_of
from g2sd_deploy.watching.view import Checkpoint, Holder, RunView, StageView, State


class Watcher:
    """One run, seen from outside.

    Args:
        folder: Its folder; it need not exist yet.
        clock: Tells how old news is.

    Attributes:
        problem: Why the last look saw no run; empty where it did.
    """

    def __init__(self, folder: Path, clock: NewsClock | None = None) -> None:
        self._folder, self._clock = folder, clock or NewsClock()
        self._metrics, self._warnings = GrowingLines(folder / METRICS_FILE), GrowingLines(folder / WARNINGS_FILE)
        self.problem = ""

    def look(self) -> RunView | None:
        """The run as it is now, None where there is none (yet)."""
        run = read_run_file(self._folder / RUN_FILE)
        self.problem = run if isinstance(run, str) else ""
        if isinstance(run, str):
            return None
        self._metrics.update()
        self._warnings.update()
        self._clock.hear(self._metrics.rows[-1] if self._metrics.rows else None)
        disk, holder = self._on_disk(run), find_holder(self._folder)
        states = states_of(disk, is_gone=holder.state == "gone")
        stages = tuple(self._stage(name, state, disk, holder) for name, state in states.items())
        remarks = filter(None, (self._metrics.problem, self._warnings.problem, self._clock.remark))
        return RunView(str(self._folder), run.recipe, run.command, stages, holder, tuple(remarks))

    def _on_disk(self, run: Run) -> OnDisk:
        """Stages in work are looked for before and after: one that finishes in between is finished."""
        before = in_work(self._folder, run.stages)
        found = {name: artifact for name in run.stages if (artifact := read_finished(self._folder / name)) is not None}
        with_rows = {str(row.get("stage")) for row in self._metrics.rows}
        begun = {name for name in run.stages if name in with_rows or newest_checkpoint(self._folder, name)}
        return OnDisk(run, found, before & in_work(self._folder, run.stages), frozenset(begun) | before)

    def _stage(self, name: str, state: State, disk: OnDisk, holder: Holder) -> StageView:
        warnings = dict.fromkeys(str(row["warning"]) for row in self._warnings.rows if row.get("stage") == name and "warning" in row)
        found = disk.finished.get(name)
        if found is not None and state in ("done", "failed", "earlier"):
            note = found.failure if state == "failed" else outcome_of(name, found.metrics)
            return StageView(name, state, found.seconds, note, warnings=tuple(warnings) or _texts(found.metrics.get("warnings")))
        checkpoint = self._checkpoint(name)
        if state not in ("running", "stopped"):
            return StageView(name, state, checkpoint=checkpoint)
        settings = disk.run.resolved.get(name, {})
        rows = self._rows(name, holder)
        training = training_of(rows, settings, self._clock.age_of_row_s(rows[-1])) if rows else None
        seconds = self._clock.age_s(_last_begin(holder, disk.finished)) if state == "running" else None
        note = band_note(settings, rows) if rows else ""
        return StageView(name, state, seconds, note, training, checkpoint, tuple(warnings))

    def _rows(self, stage: str, holder: Holder) -> list[Row]:
        rows = rows_of(self._metrics.rows, stage)
        return [] if rows and _is_of_earlier_attempt(rows[-1], holder) else rows

    def _checkpoint(self, stage: str) -> Checkpoint | None:
        found = newest_checkpoint(self._folder, stage)
        return Checkpoint(found[0], self._clock.age_of_file_s(found[1])) if found else None


def _last_begin(holder: Holder, finished: Mapping[str, Finished]) -> datetime | None:
    """When the stage in work began: with the process, or when the stage before it was done."""
    moments = (moment(holder.since), *(moment(one.finished_at) for one in finished.values()))
    return max((when for when in moments if when is not None), default=None)


def _is_of_earlier_attempt(row: Row, holder: Holder) -> bool:
    """It was there before the process that holds the run began; both times are by that machine's clock."""
    when, since = moment(row.get("time")), moment(holder.since)
    return holder.state != "gone" and when is not None and since is not None and when < since


def _texts(found: object) -> tuple[str, ...]:
    return tuple(str(text) for text in found) if isinstance(found, list) else ()
