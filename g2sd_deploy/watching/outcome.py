"""What came of a finished stage, in a few words."""

from collections.abc import Mapping
from typing import Any

from g2sd_deploy.report import formatting
from g2sd_deploy.watching.training_view import number

_MODELS = ("teacher", "student", "baseline")
_FIGURES = {"top-1": ("clean", "top1"), "mIoU": ("miou",), "box AP": ("box", "ap")}
"""What models are scored by, and where it stands."""


def outcome_of(stage: str, metrics: Mapping[str, Any]) -> str:
    """The figures that a person looks for first; empty where a stage has none."""
    if stage == "evaluate":
        return _scores(metrics)
    if stage == "export":
        return _shipped(metrics)
    first, final = number(metrics.get("first_loss")), number(metrics.get("final_loss"))
    if first is None or final is None:
        return ""
    parts = [f"loss {formatting.loss(first)} → {formatting.loss(final)}"]
    if (speed := number(metrics.get("images_per_s"))) is not None:
        parts.append(f"{speed:,.0f} images/s")
    band = metrics.get("loss_band")
    if isinstance(band, Mapping) and "verdict" in band:
        parts.append(f"loss band {str(band['verdict']).replace('_', ' ')}")
    return ", ".join(parts)


def _scores(metrics: Mapping[str, Any]) -> str:
    models = metrics.get("models")
    if not isinstance(models, Mapping):
        return ""
    names = (*_MODELS, *(name for name in models if name not in _MODELS))
    for title, path in _FIGURES.items():
        found = {name: number(_inner(models, name, *path)) for name in names}
        if shown := [f"{name} {formatting.percent(value)}" for name, value in found.items() if value is not None]:
            return f"{title} {', '.join(shown[:4])}"
    return ""


def _shipped(metrics: Mapping[str, Any]) -> str:
    num_bytes = number(metrics.get("model_bytes"))
    parts = [str(metrics[key]) for key in ("default",) if metrics.get(key)]
    if num_bytes is not None:
        parts.append(formatting.mib(num_bytes / formatting.MIB))
    if metrics.get("verdict"):
        parts.append(f"parity {str(metrics['verdict']).replace('_', ' ')}")
    return ", ".join(parts)


def _inner(found: Any, *names: str) -> Any:
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
