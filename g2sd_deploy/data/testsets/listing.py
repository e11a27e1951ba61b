"""The catalogue of test sets as a table: what there is, how large it is, and what is here."""

import sys
from pathlib import Path
from typing import Any, Literal

from g2sd_deploy.data.testsets.catalogue import ListedSet, data_folder, known_sets
from g2sd_deploy.zoo.places import Places, places

State = Literal["here", "begun", "not here", "by hand"]
_GB = 1e9
_WIDE = 200


def state_of(name: str, listed: ListedSet, where: Places) -> State:
    """Whether a set is in the cache; it was counted when it got its name."""
    data = data_folder(where)
    if _holds(data / name):
        return "here"
    if (data / f".{name}.part").is_dir() or _holds(data / "archives" / name):
        return "begun"
    return "by hand" if listed.terms is not None else "not here"


def _holds(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def rows() -> list[dict[str, Any]]:
    """Every set as plain values."""
    where = places()
    return [
        {
            "name": name,
            "state": state_of(name, listed, where),
            "place": str(data_folder(where) / name),
            "num_images": _counts(listed),
            "num_classes": len(listed.class_names),
            "bytes": listed.bytes,
            **listed.model_dump(mode="json", exclude_none=True, include={"title", "licence", "terms", "page", "needs", "note"}),
        }
        for name, listed in known_sets().items()
    ]


def _counts(listed: ListedSet) -> list[int]:
    """The least and the largest number of images that are right."""
    if listed.labels is not None:
        return [listed.labels.images] * 2
    groups = listed.groups.values()
    return [sum(images.least for images in groups), sum(images.most for images in groups)]


def print_table() -> None:
    """Print the table on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "images", "classes", "GB", "licence", "state"):
        table.add_column(heading, justify="right" if heading in ("images", "classes", "GB") else "left", no_wrap=heading == "name")
    for row in rows():
        least, most = row["num_images"]
        images = f"{most:,}" if least == most else f"{least:,} to {most:,}"
        size = f"{row['bytes'] / _GB:,.1f}" if row["bytes"] >= _GB / 10 else f"{row['bytes'] / _GB:,.4f}"
        table.add_row(row["name"], images, f"{row['num_classes']:,}", size, row["licence"], row["state"])
    console = Console(width=None if sys.stdout.isatty() else _WIDE)
    console.print(table)
    console.print(f"Sets go to {data_folder(places())}; `g2sd data pull NAME`.", soft_wrap=True, highlight=False)
