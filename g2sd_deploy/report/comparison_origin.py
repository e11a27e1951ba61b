"""What the runs were made from and with: settings that differ, machines and versions that differ, and where each comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from g2sd_deploy.report import formatting
from g2sd_deploy.report.comparison_runs import Compared
from g2sd_deploy.report.document import Block, Code, Column, Note, Row, Section, Table
from g2sd_deploy.report.provenance import UNKNOWN, digests_of, licences_of

NOT_SET = "not set"
_FOLDED_FROM = 40
_NAMES = ("name", "description")


def settings_section(items: Sequence[Compared]) -> Section:
    """Settings of the resolved recipes that are not the same in all runs."""
    rows = differing_settings(items)
    if not rows:
        return Section("settings", "What differs in the recipes", "", (Note("The recipes have the same settings.", "", "idle"),))
    columns = (Column("Setting"), *(Column(item.name) for item in items))
    table = Table("Settings that differ", columns, tuple(map(Row, rows)), folded=len(rows) >= _FOLDED_FROM)
    lead = f"{formatting.count(len(rows))} of the resolved settings are not the same in all runs."
    return Section("settings", "What differs in the recipes", lead, (table,))


def differing_settings(items: Sequence[Compared]) -> list[tuple[str, ...]]:
    """Name of each setting that differs, with its value in every run."""
    flat = [_flat({name: value for name, value in item.run.resolved.items() if name not in _NAMES}) for item in items]
    return _differing(flat, NOT_SET)


def environment_section(items: Sequence[Compared]) -> Section:
    """Facts of machines and versions that are not the same in all runs."""
    rows = _differing([_environment(item) for item in items], formatting.MISSING)
    title = "Differences in machines and versions"
    if not rows:
        return Section("environment", title, "", (Note("All runs name the same machine and the same versions.", "", "idle"),))
    columns = (Column("What"), *(Column(item.name) for item in items))
    return Section("environment", title, "", (Table(title, columns, tuple(map(Row, rows))),))


def provenance_section(items: Sequence[Compared]) -> Section:
    """Folder, command, licences and digests of each run."""
    facts = [_facts(item) for item in items]
    columns = (Column("What"), *(Column(item.name) for item in items))
    rows = tuple(
        Row((name, *(fact.get(name, formatting.MISSING) for fact in facts)))
        for name in dict.fromkeys(key for fact in facts for key in fact)
    )
    digests = [digests_of(item.run) for item in items]
    names = dict.fromkeys(name for found in digests for name in found)
    digest_rows = tuple(Row((name, *(formatting.short(found.get(name, "")) for found in digests))) for name in names)
    commands = "\n".join(f"{item.run.command}  # {item.name}" for item in items if item.run.command)
    blocks: list[Block] = [Table("Where each run comes from", columns, rows)]
    blocks += [Code("Commands", commands, "sh")] if commands else []
    caption = "The first 12 characters of SHA-256; each run’s own report holds them in full."
    blocks.append(Table("Digests", columns, digest_rows, caption))
    return Section("provenance", "Provenance", "", tuple(blocks))


def _facts(item: Compared) -> dict[str, str]:
    run = item.run
    licences = licences_of(run)
    return {
        "Folder": item.folder,
        "Recipe": run.recipe,
        "Finished": formatting.moment(max(stage.finished_at for stage in run.stages)),
        "Teacher": run.teacher.source if run.teacher else formatting.MISSING,
        "Data": run.data.description if run.data else formatting.MISSING,
        **{f"Licence of {what}": name or UNKNOWN for what, name in licences.items()},
    }


def _environment(item: Compared) -> dict[str, str]:
    """Each fact with all values that the stages of a run name for it, and what the profile says of its machine."""
    found: dict[str, dict[str, None]] = {}
    for stage in item.run.stages:
        for name, value in {**stage.environment, **stage.tools}.items():
            found.setdefault(name, {})[value] = None
    machine = _flat(item.run.profile.machine, "timed on: ") if item.run.profile else {}
    return {name: ", ".join(values) for name, values in found.items()} | machine


def _differing(flat: Sequence[Mapping[str, str]], missing: str) -> list[tuple[str, ...]]:
    names = dict.fromkeys(name for found in flat for name in found)
    rows = [(name, *(found.get(name, missing) for found in flat)) for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def _flat(values: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """`{"a": {"b": [1, 2]}}` as `{"a.b": "[1, 2]"}`; what is null counts as absent."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            found[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value, default=str)
    return found
