"""A check and a baseline as tables for people."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from g2sd_deploy.gates.checking import Checked
from g2sd_deploy.gates.outcome import Gate
from g2sd_deploy.gates.snapshot import Interval, Model, Snapshot
from g2sd_deploy.gates.task_scores import NAMES

if TYPE_CHECKING:
    from rich.table import Table

_STYLES = {"passed": "green", "failed": "bold red", "not_run": "yellow"}
_MIB = 1 << 20


def check_table(checked: Checked) -> "Table":
    """A row for each gate."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "gate", "what was found"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "")
    for gate in checked.gates:
        table.add_row(Text(word(checked, gate), style=_STYLES[gate.verdict]), Text(gate.name), Text(gate.told))
    return table


def word(checked: Checked, gate: Gate) -> str:
    """A verdict in words; of a gate that had to have one and has none, too."""
    if gate.verdict == "not_run":
        return "not run, required" if checked.fails(gate) else "not run"
    return f"{gate.verdict}, unsure" if gate.caveat else gate.verdict


def snapshot_table(snapshot: Snapshot) -> "Table":
    """A row for each model."""
    from rich.table import Table

    scores = [score for score in NAMES if any(score in model.scores for model in snapshot.models.values())]
    of_classes = ("top-1", "ECE", "under corruption")
    headings = ("model", *([NAMES[score] for score in scores] or of_classes), "parameters", "MiB", "stored answers")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for name, model in snapshot.models.items():
        table.add_row(name, *(_score_cells(model, scores) if scores else _class_cells(model)), *_cells(model))
    return table


def snapshot_lines(snapshot: Snapshot) -> list[str]:
    """What a baseline holds besides its models."""
    lines = [f"recipe {snapshot.recipe}, made of {', '.join(snapshot.made_of)}"]
    if snapshot.parity is not None:
        verdicts = ", ".join(f"{name} {verdict.replace('_', ' ')}" for name, verdict in snapshot.parity.candidates.items())
        lines.append(f"parity {snapshot.parity.verdict.replace('_', ' ')}, ships {snapshot.parity.default}: {verdicts}")
    for profile in snapshot.profiles:
        lines.append(f"latency on {profile.machine}: {sum(row.ratio is not None for row in profile.rows)} ratios to {profile.reference}")
    lines += [f"loss of {stage}: {curve.means[0]:.4g} → {curve.means[-1]:.4g}" for stage, curve in snapshot.losses.items()]
    return lines


def _score_cells(model: Model, scores: Sequence[str]) -> list[str]:
    held = [model.scores.get(score) for score in scores]
    return ["-" if one is None else _share(one.value, one.interval) for one in held]


def _class_cells(model: Model) -> tuple[str, ...]:
    clean, corrupted = model.sets.get("clean"), model.corruptions
    return (
        _share(clean.top1, clean.top1_interval) if clean else "-",
        "-" if clean is None or clean.ece is None else f"{clean.ece:.4f}{_ends(clean.ece_interval, 1, 4)}",
        _share(corrupted.mean, corrupted.interval) if corrupted else "-",
    )


def _cells(model: Model) -> tuple[str, ...]:
    return (
        "-" if model.num_parameters is None else f"{model.num_parameters:,}",
        "-" if model.file_bytes is None else f"{model.file_bytes / _MIB:.3f}",
        f"{sum(one.num_images for one in model.answers):,}" if model.answers else "-",
    )


def _share(value: float, interval: Interval) -> str:
    return f"{100 * value:.2f} %{_ends(interval, 100, 2)}"


def _ends(interval: Interval, scale: int, digits: int) -> str:
    return "" if interval is None else f" ({scale * interval[0]:.{digits}f} to {scale * interval[1]:.{digits}f})"
