"""The age of news from a machine whose clock may differ from this one's."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from g2sd_deploy.report import formatting
from g2sd_deploy.watching.training_view import moment

_TOLD_S = 5.0
"""Clocks that differ by more are spoken of."""


class NewsClock:
    """A row that appears between two looks is new, whatever its time says; of one that was there at the first look only that is known.

    Args:
        now: The time of day.
        tick: Seconds of a clock that is never set.
    """

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC), tick: Callable[[], float] = time.monotonic) -> None:
        self._now, self._tick = now, tick
        self._newest: str | None = None
        self._seen_s = self._age_when_seen_s = 0.0
        self._ahead_s: float | None = None

    def hear(self, row: Mapping[str, Any] | None) -> None:
        """Take note of the newest row at each look; None where there is none."""
        when = moment(row.get("time")) if row else None
        newest = str(row["time"]) if row and when else ""
        is_first, is_new = self._newest is None, newest != self._newest
        self._newest = newest
        if when is None or not is_new:
            return
        ahead_s = (when - self._now()).total_seconds()
        self._seen_s = self._tick()
        self._age_when_seen_s = max(0.0, -ahead_s) if is_first else 0.0
        if not is_first or ahead_s > _TOLD_S:
            self._ahead_s = ahead_s

    def age_of_row_s(self, row: Mapping[str, Any]) -> float | None:
        """Since the newest row was written; None for any other, and where its time is not known."""
        if not self._newest or str(row.get("time")) != self._newest:
            return None
        return self._age_when_seen_s + max(0.0, self._tick() - self._seen_s)

    def age_s(self, when: datetime | None) -> float | None:
        """Since a moment by the other machine's clock."""
        return None if when is None else max(0.0, (self._now() - when).total_seconds() + (self._ahead_s or 0.0))

    def age_of_file_s(self, written_s: float) -> float:
        """Since a file was written; file systems of other machines have a clock of their own, so this is near, not exact."""
        return max(0.0, self._now().timestamp() - written_s)

    @property
    def remark(self) -> str:
        """That the clocks differ; empty where they do not, or where that is not known."""
        if self._ahead_s is None or abs(self._ahead_s) <= _TOLD_S:
            return ""
        side = "ahead of" if self._ahead_s > 0 else "behind"
        return f"the clock of the machine that trains is {formatting.duration(abs(self._ahead_s))} {side} this one's"
