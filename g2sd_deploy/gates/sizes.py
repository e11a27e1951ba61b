"""The gates on what can be counted: bytes and weights."""

from g2sd_deploy.gates.outcome import Gate, Kind, not_run
from g2sd_deploy.gates.settings import ParametersGate, SizeGate
from g2sd_deploy.gates.snapshot import Model

_MIB = 1 << 20


def size_gate(name: str, before: Model, after: Model, settings: SizeGate) -> Gate | None:
    """A gate on a model's file; None where neither side has one."""
    return _gate("size", name, (before.file_bytes, after.file_bytes), settings.max_growth)


def parameters_gate(name: str, before: Model, after: Model, settings: ParametersGate) -> Gate | None:
    """A gate on a model's weights; None where neither side tells them."""
    return _gate("parameters", name, (before.num_parameters, after.num_parameters), settings.max_growth)


def _gate(kind: Kind, name: str, values: tuple[int | None, int | None], max_growth: float) -> Gate | None:
    before, after = values
    if before is None and after is None:
        return None
    if before is None or after is None:
        return not_run(kind, name, f"the {'baseline' if before is None else 'run'} does not tell it")
    growth = after / before - 1 if before else 0.0
    unit = "file_bytes" if kind == "size" else "num_parameters"
    reason = f"{_told(kind, before)} → {_told(kind, after)}, {growth:+.2%}, {max_growth:.1%} tolerated"
    figures = {unit: after, f"baseline_{unit}": before, "growth": growth}
    return Gate(kind, name, "failed" if after - before > max_growth * before else "passed", reason, figures)


def _told(kind: Kind, value: int) -> str:
    return f"{value / _MIB:.3f} MiB" if kind == "size" else f"{value:,}"
