"""Time candidates: all of one batch size and number of threads together, in turns, beside the reference network."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from g2sd_deploy.errors import UserError
from g2sd_deploy.profiling.candidate import Candidate, Case, Opened
from g2sd_deploy.profiling.reference import REFERENCE
from g2sd_deploy.profiling.subjects import reference_candidate
from g2sd_deploy.settings.profile import Scenario

if TYPE_CHECKING:
    from g2sd_export.edge.measuring import MeasureSettings, Session, Subject

Tick = Callable[[int, int, str], None]

_PARTS = 20


@dataclass(frozen=True)
class Plan:
    """What to time.

    Attributes:
        batches: Images per call.
        threads: Numbers of threads of a runtime on the CPU; none leaves it to a device, which takes one per CPU.
        scenarios: As in MLPerf.
        percentile: The highest that is wanted.
        seconds: Most time for each candidate, batch, number of threads and scenario.
        rate_per_s: Arrivals per second of the server scenario.
        streams: Calls at the same time, offline and server.
        reference: Time the reference network, too.
    """

    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = (1,)
    scenarios: tuple[Scenario, ...] = ("single_stream",)
    percentile: float = 99.0
    seconds: float = 30.0
    rate_per_s: float | None = None
    streams: int = 1
    reference: bool = True

    def cases(self) -> list[Case]:
        """Every batch with every number of threads."""
        return [Case(batch, threads) for batch, threads in product(self.batches, self.threads)]


@dataclass(frozen=True)
class Timed:
    """What was measured.

    Attributes:
        rows: Of a profile: those that ran and those that did not, case by case.
        conditions: Of all sessions together.
    """

    rows: list[dict[str, Any]]
    conditions: dict[str, Any]


def time_candidates(candidates: Sequence[Candidate], plan: Plan, tick: Tick) -> Timed:
    """Measure every candidate in every case and scenario.

    A candidate that computes on a GPU is timed with the first number of threads alone.

    Args:
        candidates: Each once.
        plan: Cases and scenarios.
        tick: Told (done, total, note).

    Raises:
        UserError: Two candidates are the same, or nothing can be timed here.
    """
    from g2sd_export.edge.session import join_conditions

    labels = Counter(one.label for one in candidates)
    if twice := [label for label, num in labels.items() if num > 1]:
        raise UserError(f"{twice[0]}: is named twice; name each model once")
    rows: list[dict[str, Any]] = []
    conditions: list[dict[str, Any]] = []
    cases = plan.cases()
    for index, case in enumerate(cases):
        taking_part = [one for one in candidates if not one.on_gpu or case.threads == plan.threads[0]]
        for found, session_conditions in _Session(case, plan, _share(tick, index, len(cases), case)).run(taking_part):
            rows += found
            conditions += session_conditions
    if not conditions:
        reasons = dict.fromkeys(f"{row['model']} on {row['runtime']}: {reason}" for row in rows for reason in row["reasons"])
        raise UserError("nothing can be timed here: " + "; ".join(reasons))
    return Timed(rows, join_conditions(conditions))


def _share(tick: Tick, index: int, total: int, case: Case) -> Callable[[float, str], None]:
    """Progress of one case as a share of all of them."""
    where = f"batch {case.batch}, {case.threads} thread{'s' * (case.threads > 1)}"
    return lambda share, note: tick(round(_PARTS * (index + min(share, 1.0))), _PARTS * total, f"{where}: {note}")


@dataclass(frozen=True)
class _Session:
    """One case: everything that is opened for it is closed after it."""

    case: Case
    plan: Plan
    tell: Callable[[float, str], None]

    def run(self, candidates: Sequence[Candidate]) -> "list[tuple[list[dict[str, Any]], list[dict[str, Any]]]]":
        """Rows and conditions of each scenario."""
        with _torch_as_before(candidates):
            opened, refusals = self._open(candidates)
            found = []
            for scenario in self.plan.scenarios:
                rows, conditions = self._scenario(scenario, opened) if opened else ([], [])
                left_out = [{**one.row(self.case, scenario), "verdict": "not_run", "reasons": [why]} for one, why in refusals]
                found.append((rows + left_out, conditions))
            return found

    def _open(self, candidates: Sequence[Candidate]) -> tuple[dict[str, tuple[Candidate, Opened]], list[tuple[Candidate, str]]]:
        """Those that are ready, by label, and why others are not."""
        ready: dict[str, tuple[Candidate, Opened]] = {}
        refusals: list[tuple[Candidate, str]] = []
        for one in candidates:
            if one.refusal:
                refusals.append((one, one.refusal))
                continue
            self.tell(0.0, f"opens {one.label}")
            try:
                ready[one.label] = one, one.open(self.case)
            except UserError as error:
                refusals.append((one, str(error)))
        return ready, refusals

    def _scenario(
        self, scenario: Scenario, opened: dict[str, tuple[Candidate, Opened]]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        if scenario == "single_stream":
            return self._single_stream(opened)
        rows, conditions = [], []
        for label, (candidate, ready) in opened.items():
            self.tell(0.0, f"{scenario}, {label}")
            session = self._under_load(scenario, _subject(label, self.case, ready))
            rows.append(self._row(candidate, ready, scenario, session.rows[label]))
            conditions.append(session.conditions)
        return rows, conditions

    def _single_stream(self, opened: dict[str, tuple[Candidate, Opened]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        from g2sd_export.edge.measuring import measure

        if self.plan.reference:
            reference = reference_candidate()
            opened = {**opened, REFERENCE: (reference, reference.open(self.case))}
        subjects = [_subject(label, self.case, ready) for label, (_, ready) in opened.items()]
        settings = self._settings(REFERENCE if self.plan.reference else None)
        session = measure(subjects, settings, tick=self._ticker(self.plan.seconds * len(subjects)))
        rows = [self._row(*opened[label], "single_stream", session.rows[label]) for label in opened]
        return rows, [session.conditions]

    def _under_load(self, scenario: Scenario, subject: "Subject") -> "Session":
        from g2sd_export.edge.measuring import measure_offline, measure_server

        settings, tick = self._settings(None), self._ticker(self.plan.seconds)
        if scenario == "offline":
            return measure_offline(subject, settings, streams=self.plan.streams, tick=tick)
        assert self.plan.rate_per_s is not None
        return measure_server(subject, self.plan.rate_per_s, settings, streams=self.plan.streams, tick=tick)

    def _ticker(self, most_s: float) -> Callable[[int, int], None]:
        """Progress by rounds or by time, whichever is nearer to its end."""
        start = time.monotonic()

        def tick(done: int, total: int) -> None:
            share = max(done / max(total, 1), (time.monotonic() - start) / most_s)
            self.tell(share, f"{done} undisturbed rounds")

        return tick

    def _settings(self, reference: str | None) -> "MeasureSettings":
        from g2sd_export.edge.measuring import MeasureSettings

        return MeasureSettings(percentile=self.plan.percentile, seconds=self.plan.seconds, reference=reference)

    def _row(self, candidate: Candidate, ready: Opened, scenario: Scenario, measured: dict[str, Any]) -> dict[str, Any]:
        return {**candidate.row(self.case, scenario), "version": ready.version, "provider": ready.provider, **measured}


def _subject(label: str, case: Case, ready: Opened) -> "Subject":
    from g2sd_export.edge.measuring import Subject

    return Subject(label, case.batch, ready.call, ready.phases)


def _torch_as_before(candidates: Sequence[Candidate]) -> AbstractContextManager[None]:
    """torch's state is kept where torch takes part; where it does not, it is not even imported."""
    if not any(one.runtime.startswith("torch") for one in candidates):
        return nullcontext()
    from g2sd_deploy.profiling.torch_calls import torch_as_before

    return torch_as_before()
