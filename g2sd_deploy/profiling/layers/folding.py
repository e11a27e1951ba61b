"""From layers to the rows of a table: groups of a vision transformer, its blocks, and how near each comes to what the machine can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from g2sd_deploy.profiling.layers.executed import Attribution, ExecutedLayer
from g2sd_deploy.profiling.layers.labels import ATTENTION, HEAD, MERGING, MLP, PATCHES, Folding, Label

BETWEEN = "between layers"
GROUPS = (PATCHES, "norm", ATTENTION, MLP, MERGING, "final norm", HEAD, "quantise")
"""Rows of a ViT's table, in their order; ``other`` and ``between layers`` stand behind them."""

_DIGITS = 6
_FLOP = 9  # digits of 10^9 operations that tell single ones
_BLOCK_GROUPS = {ATTENTION: "attention_ms", MLP: "mlp_ms", "norm": "norm_ms"}


@dataclass(frozen=True)
class Roofline:
    """What the machine can do.

    Attributes:
        peak_gflops: 10^9 operations per second by number format; a format that was not measured is absent.
        bandwidth_gb_s: 10^9 bytes per second from and to memory.
    """

    peak_gflops: Mapping[str, float]
    bandwidth_gb_s: float

    def needs_ms(self, precision: str, flops: float | None, mbyte: float | None) -> tuple[float, float] | None:
        """Least time of the arithmetic and of the traffic of a layer, in ms; None where something of it is not known."""
        peak = self.peak_gflops.get(precision)
        if flops is None or mbyte is None or (flops and peak is None):
            return None
        return (flops / peak / 1e6 if flops and peak else 0.0), mbyte / self.bandwidth_gb_s


@dataclass(frozen=True)
class Folded:
    """A layer with its place.

    Attributes:
        layer: As the profiler told of it.
        label: Its place in the network.
        flops: Operations of its products; None where they are not known.
        nodes: ONNX nodes in it.
        ms: Its share of an unprofiled call.
    """

    layer: ExecutedLayer
    label: Label
    flops: float | None
    nodes: tuple[str, ...]
    ms: float


def placed(layers: Sequence[ExecutedLayer], found: Attribution, unprofiled_ms: float, profiled_ms: float) -> list[Folded]:
    """Layers with their place; where they take longer under the profiler than a whole call without it, their times are scaled to that.

    A profiler makes nothing faster: where its calls took less time, other work slowed the calls without it, and their layers as well.
    """
    total = sum(layer.ms for layer in layers)
    scale = min(max(1.0, unprofiled_ms / profiled_ms), unprofiled_ms / total) if total else 1.0
    together = zip(layers, found.labels, found.flops, found.nodes, strict=True)
    return [Folded(layer, label, flops, nodes, layer.ms * scale) for layer, label, flops, nodes in together if layer.ms or flops]


def attributed_share(folding: Folding, layers: Iterable[Folded]) -> float:
    """Share of the layers' time that was put into a part of a ViT."""
    layers = list(layers)
    known = set(GROUPS) if folding == "blocks" else {ATTENTION} if folding == "attention" else set()
    total = sum(one.ms for one in layers)
    return _rounded(sum(one.ms for one in layers if one.label.group in known and one.label.region) / total) if total else 0.0


def group_rows(layers: Sequence[Folded], roofline: Roofline | None, unprofiled_ms: float) -> list[dict[str, Any]]:
    """A row for each group, and one for the time between layers; shares are of an unprofiled call and add up to 1."""
    members: dict[str, list[Folded]] = {}
    for one in layers:
        members.setdefault(one.label.group, []).append(one)
    order = [*(name for name in GROUPS if name in members), *sorted(set(members) - {*GROUPS, "other"}), *({"other"} & set(members))]
    rows = [_group_row(name, members[name], roofline, unprofiled_ms) for name in order]
    rest = max(0.0, unprofiled_ms - sum(one.ms for one in layers))
    empty: dict[str, Any] = {"gflop": 0.0, "mbyte": None, "roofline_share": None, "bound": None, "parts": {}}
    return [*rows, {"group": BETWEEN, "ms": _rounded(rest), "share": _rounded(rest / unprofiled_ms), **empty}]


def _group_row(name: str, members: Sequence[Folded], roofline: Roofline | None, unprofiled_ms: float) -> dict[str, Any]:
    ms = sum(one.ms for one in members)
    parts: dict[str, float] = {}
    for one in members:
        parts[one.label.part] = parts.get(one.label.part, 0.0) + one.ms
    share, bound = _against(roofline, members, ms)
    return {
        "group": name,
        "ms": _rounded(ms),
        "share": _rounded(ms / unprofiled_ms),
        "gflop": _sum((one.flops for one in members), 1e-9, _FLOP),
        "mbyte": _sum(one.layer.mbyte for one in members),
        "roofline_share": share,
        "bound": bound,
        "parts": {part: _rounded(value) for part, value in sorted(parts.items(), key=lambda item: -item[1])},
    }


def _against(roofline: Roofline | None, members: Sequence[Folded], ms: float) -> tuple[float | None, str | None]:
    """Share of the roofline and what bounds; above 1 where the traffic never reaches the memory, because caches hold it."""
    if roofline is None or not ms:
        return None, None
    needs = [roofline.needs_ms(one.layer.precision, one.flops, one.layer.mbyte) for one in members]
    known = [need for need in needs if need is not None]
    if len(known) < len(needs) or not any(map(any, known)):
        return None, None
    arithmetic, traffic = (sum(need[side] for need in known) for side in (0, 1))
    share = sum(max(need) for need in known) / ms
    bound = "compute" if arithmetic >= traffic else "caches" if share > 1 else "memory"
    return _rounded(share), bound


def block_rows(folding: Folding, layers: Sequence[Folded]) -> list[dict[str, Any]]:
    """Time of each block by its groups; none where no blocks are known."""
    if folding == "operators":
        return []
    rows: dict[int, dict[str, Any]] = {}
    for one in layers:
        if one.label.block is not None:
            empty = {"block": one.label.block, "ms": 0.0, "attention_ms": 0.0, "mlp_ms": 0.0, "norm_ms": 0.0, "other_ms": 0.0}
            row = rows.setdefault(one.label.block, empty)
            row["ms"] += one.ms
            row[_BLOCK_GROUPS.get(one.label.group, "other_ms")] += one.ms
    return [{key: _rounded(value) if isinstance(value, float) else value for key, value in rows[block].items()} for block in sorted(rows)]


def layer_row(one: Folded) -> dict[str, Any]:
    """A layer as plain JSON values."""
    return {
        "name": one.layer.name,
        "op": one.layer.op,
        "precision": one.layer.precision,
        "group": one.label.group,
        "part": one.label.part,
        "block": one.label.block,
        "ms": _rounded(one.ms),
        "gflop": None if one.flops is None else _rounded(one.flops / 1e9, _FLOP),
        "mbyte": None if one.layer.mbyte is None else _rounded(one.layer.mbyte),
        "nodes": list(one.nodes),
    }


def _sum(values: Iterable[float | None], scale: float = 1.0, digits: int = _DIGITS) -> float | None:
    found = list(values)
    return None if None in found else _rounded(scale * sum(value for value in found if value), digits)


def _rounded(value: float, digits: int = _DIGITS) -> float:
    return round(value, digits)
