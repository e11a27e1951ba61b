"""The profile: machine, conditions, rows and layers in one JSON object, which commands print, stages keep and histories hold."""

from collections.abc import Callable, Sequence
from typing import Any

from g2sd_deploy.profiling.candidate import Candidate
from g2sd_deploy.profiling.reference import REFERENCE
from g2sd_deploy.profiling.sessions import Plan, time_candidates
from g2sd_export.edge.bench import FORMAT

Profile = dict[str, Any]


def profile_of(candidates: Sequence[Candidate], plan: Plan, tick: Callable[[int, int, str], None]) -> Profile:
    """The profile of candidates, without layers.

    Raises:
        UserError: Two candidates are the same, or nothing can be timed here.
    """
    from g2sd_export.edge.machine import describe

    timed = time_candidates(candidates, plan, tick)
    has_reference = any(row["model"] == REFERENCE for row in timed.rows)
    return {
        "format": FORMAT,
        "machine": describe(),
        "conditions": timed.conditions,
        "reference": REFERENCE if has_reference else None,
        "rows": timed.rows,
        "layers": [],
    }


def layers_of(candidates: Sequence[Candidate], plan: Plan, tick: Callable[[int, int, str], None]) -> list[dict[str, Any]]:
    """Layer tables of the first batch and number of threads, of every candidate whose runtime tells of layers."""
    from g2sd_deploy.profiling.layers import layer_tables

    found = [one.layers() for one in candidates if one.layers is not None and not one.refusal]
    return layer_tables(found, batch=plan.batches[0], threads=plan.threads[0], tick=tick)


def is_believed(profile: Profile) -> bool:
    """Whether any latency of a model, rather than that of the reference network, is valid."""
    return any(row["verdict"] == "valid" for row in profile["rows"] if row["model"] != profile["reference"])
