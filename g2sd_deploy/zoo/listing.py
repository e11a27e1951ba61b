"""The catalogue as a table: what there is, what it is good for, and what is here."""

import sys
from typing import Any, Literal

from g2sd_deploy.zoo.catalog import Teacher, teachers
from g2sd_deploy.zoo.places import Places, places
from g2sd_deploy.zoo.pulling import cached_path

State = Literal["pulled", "begun", "not pulled", "by hand"]
_MB = 1e6
_WIDE = 200


def state_of(teacher: Teacher, where: Places) -> State:
    """Whether a teacher's file is in the cache; a file there was verified when it got its name, and is again whenever it is used."""
    path = cached_path(teacher, where)
    if path is not None and path.is_file():
        return "pulled"
    if path is not None and path.with_name(f".{path.name}.part").is_file():
        return "begun"
    return "not pulled" if teacher.listed.url is not None else "by hand"


def rows() -> list[dict[str, Any]]:
    """Every teacher as plain values."""
    where = places()
    return [
        {
            "name": name,
            "state": state_of(teacher, where),
            "num_parameters": teacher.num_parameters,
            "approximate_bytes": teacher.approximate_bytes,
            **teacher.listed.model_dump(mode="json", exclude_none=True),
        }
        for name, teacher in teachers().items()
    ]


def print_table() -> None:
    """Print the table on stdout."""
    from rich.console import Console
    from rich.table import Table

    where = places()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "holds", "for", "MB", "top-1", "licence", "state"):
        table.add_column(heading, justify="right" if heading in ("MB", "top-1") else "left", no_wrap=heading == "name")
    for name, teacher in teachers().items():
        listed = teacher.listed
        top1 = f"{listed.top1:.1f}" if listed.top1 is not None else ""
        licence = listed.licence.partition(" (")[0]
        table.add_row(name, listed.content, ", ".join(listed.use_for) or "-", _size(teacher), top1, licence, state_of(teacher, where))
    console = Console(width=None if sys.stdout.isatty() else _WIDE)
    console.print(table)
    console.print(f"~ computed from the shapes. Files go to {where.cache}; `g2sd teacher pull NAME`.", soft_wrap=True, highlight=False)


def _size(teacher: Teacher) -> str:
    if teacher.listed.bytes is not None:
        return f"{teacher.listed.bytes / _MB:,.0f}"
    return f"~{teacher.approximate_bytes / _MB:,.0f}"
