"""A layer table for the terminal, at most 120 columns wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table
    from rich.text import Text

_PARTS_SHOWN = 4
_SHADES = " ▁▂▃▄▅▆▇█"


def render_layers(table: Mapping[str, Any], *, blocks: bool = True) -> Group:
    """A layer table as rich prints it.

    Args:
        table: As ``layer_tables`` gives it.
        blocks: Also a row for each part of the blocks, with the height of each block's time.
    """
    from rich.console import Group
    from rich.text import Text

    title = " ".join(str(table[key]) for key in ("model", "variant", "runtime", "precision") if table[key])
    threads = "" if table["threads"] is None else f", {table['threads']} threads" if table["threads"] > 1 else ", 1 thread"
    title = f"{title}, batch {table['batch']}{threads}"
    if table["verdict"] != "measured":
        return Group(Text(f"{title}: not_run ({table['reason']})"))
    parts: list[RenderableType] = [_groups(title, table), Text(_footnote(table), style="dim")]
    if blocks and len(table["blocks"]) > 1:
        parts.insert(1, _blocks(table["blocks"]))
    return Group(*parts)


def _groups(title: str, table: Mapping[str, Any]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    shown.add_column("part")
    for name in ("ms", "share", "GFLOP", "MB", "GFLOP/s", "of roofline", "bound by"):
        shown.add_column(name, justify="right" if name != "bound by" else "left", no_wrap=True)
    shown.add_column("mostly", overflow="fold")
    for row in table["groups"]:
        shown.add_row(Text(row["group"]), *map(Text, _cells(row)))
    return shown


def _cells(row: Mapping[str, Any]) -> list[str]:
    ms, gflop = row["ms"], row["gflop"]
    rate = f"{gflop / ms * 1e3:.3g}" if gflop and ms else ""
    largest = [f"{part} {value:.3g}" for part, value in list(row["parts"].items())[:_PARTS_SHOWN] if value and len(row["parts"]) > 1]
    return [
        f"{ms:.3f}",
        f"{100 * row['share']:.1f} %",
        "?" if gflop is None else f"{gflop:.3g}" if gflop else "",
        f"{row['mbyte']:.3g}" if row["mbyte"] is not None else "",
        rate,
        "" if row["roofline_share"] is None else f"{100 * row['roofline_share']:.0f} %",
        row["bound"] or "",
        ", ".join(largest),
    ]


def _blocks(blocks: Sequence[Mapping[str, Any]]) -> Text:
    """One line for each part: the height of every block's time, and the range."""
    from rich.text import Text

    lines = []
    for key, name in (("ms", "block"), ("attention_ms", "attention"), ("mlp_ms", "mlp"), ("norm_ms", "norm")):
        values = [block[key] for block in blocks]
        top = max(values)
        bars = "".join(_SHADES[round((len(_SHADES) - 1) * value / top)] if top else " " for value in values)
        lines.append(f"{name:9} {bars}  {min(values):.3f} to {top:.3f} ms in {len(values)} blocks")
    return Text("\n".join(lines))


def _footnote(table: Mapping[str, Any]) -> str:
    low, high = table["unprofiled_quartiles_ms"]
    lines = [
        f"{table['unprofiled_ms']:.3f} ms a call (half of them {low:.3f} to {high:.3f}); {table['profiled_ms']:.3f} ms under the profiler "
        f"({table['overhead']:.2f} times), "
        f"{table['total_ms']:.3f} ms of them in layers; {table['num_calls']} calls",
        _folding_line(table),
    ]
    roofline = table["roofline"]
    if roofline is None:
        lines.append(table["roofline_reason"])
    else:
        peaks = ", ".join(f"{name} {value:.4g} GFLOP/s" for name, value in roofline["peak_gflops"].items())
        lines.append(f"Roofline measured here on {table['runtime']}: {peaks or 'no product'}; memory {roofline['bandwidth_gb_s']:.3g} GB/s")
    if any(row["bound"] == "caches" for row in table["groups"]):
        lines.append("bound by caches: faster than the memory could be, for the tensors never leave the processor's caches")
    if any(row["bound"] == "compute" and row["roofline_share"] > 1 for row in table["groups"]):
        lines.append("more than 100 % of the arithmetic: other work slowed this machine down while its peak was measured; run it again")
    return "\n".join(lines)


def _folding_line(table: Mapping[str, Any]) -> str:
    share = f"{100 * table['attributed_share']:.1f} %"
    match table["folding"]:
        case "blocks":
            return f"{share} of the layers' time is in a known part of the network"
        case "attention":
            return f"only the attention was found in this graph ({share} of the layers' time); the rest is told by kinds of operators"
        case _:
            return "no vision transformer was found in this graph; its time is told by kinds of operators"
