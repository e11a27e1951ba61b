"""Floors and ceilings of a model, which hold without a baseline."""

from collections.abc import Iterator

from g2sd_deploy.gates.outcome import Gate, not_run, percent
from g2sd_deploy.gates.settings import Limits
from g2sd_deploy.gates.snapshot import Interval, Model, Row, Snapshot

_MIB = 1 << 20
_CLEAN, _SHIPPED = "clean", "shipped"


def limit_gates(name: str, run: Snapshot, limits: Limits) -> list[Gate]:
    """A gate for every limit that is set.

    A figure counts as it was measured; where the limit lies inside its 95 % interval the sample cannot tell the two apart, and the gate
    says so.

    Args:
        name: The model.
        run: The run.
        limits: Its floors and ceilings.
    """
    model = run.models.get(name, Model())
    return [*_measured(name, model, limits), *_counted(name, model, limits), *_timed(name, run, limits)]


def _measured(name: str, model: Model, limits: Limits) -> Iterator[Gate]:
    clean, corrupted = model.sets.get(_CLEAN), model.corruptions
    if limits.min_top1 is not None:
        value, interval = (clean.top1, clean.top1_interval) if clean else (None, None)
        yield _gate(f"{name} min_top1", value, limits.min_top1, interval, floor=True)
    for score, limit in (("miou", limits.min_miou), ("box_ap", limits.min_box_ap), ("mask_ap", limits.min_mask_ap)):
        if limit is not None:
            held = model.scores.get(score)
            value, interval = (held.value, held.interval) if held else (None, None)
            yield _gate(f"{name} min_{score}", value, limit, interval, floor=True)
    if limits.min_corruption_top1 is not None:
        value, interval = (corrupted.mean, corrupted.interval) if corrupted else (None, None)
        yield _gate(f"{name} min_corruption_top1", value, limits.min_corruption_top1, interval, floor=True)
    if limits.max_ece is not None:
        value, interval = (clean.ece, clean.ece_interval) if clean else (None, None)
        yield _gate(f"{name} max_ece", value, limits.max_ece, interval, floor=False)


def _gate(subject: str, value: float | None, limit: float, interval: Interval, *, floor: bool) -> Gate:
    if value is None:
        return not_run("limit", subject, "the run has no such figure")
    failed = value < limit if floor else value > limit
    side = ("below" if failed else "not below") if floor else ("above" if failed else "not above")
    caveat = ""
    if interval is not None and interval[0] < limit < interval[1]:
        caveat = f"the limit lies inside the 95 % interval, {percent(interval[0])} to {percent(interval[1])}, so the sample cannot tell"
    reason = f"{percent(value)} is {side} {percent(limit)}"
    return Gate("limit", subject, "failed" if failed else "passed", reason, {"value": value, "limit": limit}, caveat)


def _counted(name: str, model: Model, limits: Limits) -> Iterator[Gate]:
    if limits.max_size_mib is not None:
        size = None if model.file_bytes is None else model.file_bytes / _MIB
        yield _ceiling(f"{name} max_size_mib", size, limits.max_size_mib, "MiB")
    if limits.max_parameters is not None:
        yield _ceiling(f"{name} max_parameters", model.num_parameters, limits.max_parameters, "weights")


def _ceiling(subject: str, value: float | None, limit: float, unit: str) -> Gate:
    if value is None:
        return not_run("limit", subject, "the run has no such figure")
    reason = f"{value:,.6g} {unit} is {'above' if value > limit else 'not above'} {limit:,.6g}"
    return Gate("limit", subject, "failed" if value > limit else "passed", reason, {"value": value, "limit": limit})


def _timed(name: str, run: Snapshot, limits: Limits) -> Iterator[Gate]:
    if limits.max_latency_ms is None:
        return
    subject, rows = f"{name} max_latency_ms", _rows_of(name, run)
    if not rows:
        yield not_run("limit", subject, f"no profile of the run times {name} on single images")
    for row in rows:
        value: float | None = getattr(row, f"{limits.latency_percentile}_ms")
        if row.verdict != "valid" or value is None:
            why = "; ".join(row.reasons) or f"there is no {limits.latency_percentile}"
            yield not_run("limit", f"{subject} {row.name}", f"the row is {row.verdict.replace('_', ' ')}: {why}")
        else:
            yield _ceiling(f"{subject} {row.name}", value, limits.max_latency_ms, f"ms at {limits.latency_percentile}")


def _rows_of(name: str, run: Snapshot) -> list[Row]:
    """Rows of one image at a time; those of the default variant stand for what ships."""
    default = run.parity.default if run.parity else None
    rows = [row for profile in run.profiles for row in profile.rows if row.batch == 1 and row.scenario == "single_stream"]
    return [row for row in rows if row.model == name or (name == _SHIPPED and default is not None and row.variant == default)]
