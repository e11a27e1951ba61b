"""The view as plain lines for a pipe or a log: one when something changes, one now and then while a training goes on."""

from collections.abc import Callable

from g2sd_deploy.report import formatting
from g2sd_deploy.watching import words
from g2sd_deploy.watching.view import RunView, StageView, State

_EVERY_S = 15.0


class PlainLines:
    """Tells what differs from the view before.

    Args:
        say: Takes one line.
        tick: Seconds of a clock that is never set.
    """

    def __init__(self, say: Callable[[str], None], tick: Callable[[], float]) -> None:
        self._say, self._tick = say, tick
        self._states: dict[str, State] = {}
        self._told: set[str] = set()
        self._steps = -1
        self._step_told_s = float("-inf")
        self._lasting: dict[str, str] = {}

    def waiting(self, folder: str, problem: str) -> None:
        """Say once that there is no run yet."""
        self._once_while("waiting", f"waiting for {folder}: {problem}")

    def show(self, view: RunView) -> None:
        """Say what is new."""
        self._once_while("waiting", "")
        for stage in view.stages:
            self._stage(stage)
        self._once_while("writer", "" if view.ended else words.writer(view.holder))
        for remark in view.remarks:
            self._once(remark)
        if view.ended:
            self._say("all stages are done")

    def _stage(self, stage: StageView) -> None:
        if self._states.get(stage.name, "waiting") != stage.state:
            self._states[stage.name] = stage.state
            took = f" in {formatting.duration(stage.seconds)}" if stage.state in ("done", "failed") else ""
            note = f": {stage.note}" if stage.note and stage.state in ("done", "failed", "earlier") else ""
            self._say(f"{stage.name}: {words.state(stage)}{took}{note}")
            self._steps = -1
        for warning in stage.warnings:
            self._once(f"{stage.name}: warning: {warning}")
        if stage.training is None or stage.state not in ("running", "stopped"):
            return
        due = self._tick() - self._step_told_s >= _EVERY_S or self._steps < 0
        if due and stage.training.done_steps != self._steps:
            self._steps, self._step_told_s = stage.training.done_steps, self._tick()
            parts = (words.position(stage.training), words.losses(stage.training), words.speed(stage.training))
            self._say(f"{stage.name}: {', '.join(filter(None, parts))}")
        self._once_while("news", f"{stage.name}: no news for a while" if stage.training.is_late else "")

    def _once(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            self._say(line)

    def _once_while(self, subject: str, line: str) -> None:
        """Say a line when it becomes true."""
        if line and self._lasting.get(subject) != line:
            self._say(line)
        self._lasting[subject] = line
