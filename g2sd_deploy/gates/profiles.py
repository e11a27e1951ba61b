"""Profiles as the gates need them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from g2sd_deploy.errors import UserError
from g2sd_deploy.gates.snapshot import Profile, Ratio, Row, read_json
from g2sd_export.edge.bench import FORMAT

_SAME = ("model", "variant", "runtime", "version", "provider", "precision", "batch", "threads", "scenario", "verdict")
_NUMBERS = ("p50_ms", "p90_ms", "p99_ms")
_REMEDY = "make one with `g2sd profile MODEL --json > FILE`"


def read_profile(path: Path) -> Profile:
    """A profile from the file that `g2sd profile --json` wrote.

    Raises:
        UserError: It cannot be read, or is no profile.
    """
    return profile_of(read_json(path, "a profile", _REMEDY), str(path))


def is_profile(values: Mapping[str, Any]) -> bool:
    """Whether an artifact's figures are a profile with ratios, and not the bare rows of older versions."""
    return values.get("format") == FORMAT and "rows" in values and "machine" in values


def profile_of(values: Mapping[str, Any], where: str) -> Profile:
    """What the gates read of a profile.

    Args:
        values: The profile.
        where: What to call it in an error.

    Raises:
        UserError: It lacks what a profile has.
    """
    if not is_profile(values):
        raise UserError(f"{where}: is no profile of format {FORMAT}; {_REMEDY}")
    try:
        machine, reference = values["machine"], values.get("reference")
        rows = values["rows"]
        timed = {row["digest"] for row in rows if reference is not None and row["model"] == reference}
        return Profile(
            cpu=machine.get("cpu") or "",
            cpus=machine.get("cpus"),
            system=" ".join(str(machine[key]).split()[0] for key in ("system", "machine") if machine.get(key)),  # no kernel's version
            reference=reference,
            reference_digest=timed.pop() if len(timed) == 1 else None,
            rows=tuple(_row(row, values.get("conditions") or {}) for row in rows),
        )
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        raise UserError(f"{where}: is no profile ({' '.join(str(error).split())[:120]}); {_REMEDY}") from None


def _row(row: Mapping[str, Any], conditions: Mapping[str, Any]) -> Row:
    session_is_void = conditions.get("verdict") == "invalid" and row["verdict"] == "valid"
    values: dict[str, Any] = {name: row[name] for name in _SAME} | {name: row.get(name) for name in _NUMBERS}
    values["model"] = Path(str(row["model"])).name or str(row["model"])
    values["reasons"] = tuple(row.get("reasons") or ())
    if session_is_void:
        values |= {"verdict": "invalid", "reasons": tuple(conditions["reasons"])}
    values["ratio"] = _ratio(row, values["reasons"], session_is_void=session_is_void)
    return Row(**values)


def _ratio(row: Mapping[str, Any], row_reasons: tuple[str, ...], *, session_is_void: bool) -> Ratio | None:
    """Believed by reasons of its own, where it has some and the session was not void as a whole."""
    ratio = row.get("ratio")
    if not ratio:
        return None
    reasons = row_reasons if session_is_void else tuple(ratio.get("reasons", row_reasons))
    return Ratio(value=ratio["value"], interval=tuple(ratio["interval"]), num_rounds=len(row.get("round_p50_ms") or ()), reasons=reasons)
