"""One profile out of what a device did: every bundle, batch and number of threads, with the self-tests."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from g2sd_deploy.devices.options import DeviceOptions
from g2sd_deploy.errors import UserError
from g2sd_export.edge.manifest import Bundle, Variant

FORMAT = 1
_VERDICTS = ("invalid", "valid", "not_run")  # the worst that occurs is the profile's

Json = dict[str, Any]


def profile_from(
    result: Mapping[str, Any],
    bundles: Mapping[str, tuple[Path, Bundle, Sequence[Variant]]],
    options: DeviceOptions,
    machine: Mapping[str, Any],
) -> Json:
    """A profile, as ``g2sd profile --json`` prints it.

    Args:
        result: What the job wrote: ``selftests``, ``benches``, ``absent``.
        bundles: By digest of the tree: the bundle as the user named it, opened, and the variants that were asked for.
        options: What was asked for.
        machine: What the device said of itself; used where no bench ran.

    Returns:
        The profile; `selftest` holds the verdict of each variant.

    Raises:
        UserError: Nothing could be timed, and no self-test says why.
    """
    selftests = [one for tree, asked in bundles.items() for one in _selftests(result, tree, *asked)]
    profiles = [bench["profile"] for bench in result["benches"] if "profile" in bench]
    rows = [row for bench in result["benches"] for row in _rows_of(bench, *bundles[bench["tree"]], options)]
    rows += [row for tree, asked in bundles.items() for row in _untested(selftests, *asked, options)]
    if not any(row["verdict"] != "not_run" for row in rows) and not any(one["verdict"] == "failed" for one in selftests):
        raise UserError("nothing could be timed: " + "; ".join(dict.fromkeys(reason for row in rows for reason in row["reasons"])))
    return {
        "format": FORMAT,
        "machine": profiles[0]["machine"] if profiles else dict(machine),
        "conditions": _conditions([profile["conditions"] for profile in profiles]),
        "reference": next((profile["reference"] for profile in profiles if profile.get("reference")), None),
        "rows": rows,
        "layers": [],
        "selftest": selftests,
    }


def _selftests(result: Mapping[str, Any], tree: str, path: Path, bundle: Bundle, variants: Sequence[Variant]) -> Iterator[Json]:
    """Each variant's own; where its runtime could not be installed, that is the reason."""
    found = {one.get("variant"): one for one in result["selftests"].get(tree, ())}
    for variant in variants:
        one = dict(found.get(variant.name, {"verdict": "not_run", "reason": "the self-test did not reach it"}))
        if one["verdict"] == "not_run" and variant.runtime in result["absent"]:
            one["reason"] = result["absent"][variant.runtime]
        yield {**one, "model": str(path), "variant": variant.name}


def _rows_of(bench: Mapping[str, Any], path: Path, bundle: Bundle, variants: Sequence[Variant], options: DeviceOptions) -> Iterator[Json]:
    if "profile" in bench:
        yield from ({**row, "model": str(path)} for row in bench["profile"]["rows"])
        return
    for name in bench["variants"]:
        yield from _not_run(path, bundle, bundle.variant(name), options, (bench["case"]["batch"],), f"the bench failed: {bench['error']}")


def _untested(
    selftests: Iterable[Mapping[str, Any]], path: Path, bundle: Bundle, variants: Sequence[Variant], options: DeviceOptions
) -> Iterator[Json]:
    """Rows of variants that were not timed because their self-test did not pass."""
    reasons = {one["variant"]: one for one in selftests if one["model"] == str(path) and one["verdict"] != "passed"}
    for variant in variants:
        if variant.name in reasons:
            one = reasons[variant.name]
            reason = str(one["reason"]) if one["verdict"] == "not_run" else f"its self-test failed on the device: {one['reason']}"
            yield from _not_run(path, bundle, variant, options, options.batches, reason)


def _not_run(path: Path, bundle: Bundle, variant: Variant, options: DeviceOptions, batches: Sequence[int], reason: str) -> Iterator[Json]:
    for threads in options.threads or (None,):
        for batch in batches:
            yield {
                "model": str(path),
                "variant": variant.name,
                "runtime": variant.runtime,
                "version": "",
                "provider": "",
                "precision": variant.precision,
                "digest": bundle.digest,
                "file_bytes": bundle.files[variant.file].bytes,
                "batch": batch,
                "threads": threads,
                "scenario": options.scenario,
                "verdict": "not_run",
                "reasons": [reason],
            }


def _conditions(sessions: Sequence[Mapping[str, Any]]) -> Json:
    """Of all sessions together: rounds added, reasons gathered, the state before the first and after the last."""
    if not sessions:
        return {"verdict": "not_run", "reasons": ["no bench ran"], "num_rounds": 0, "num_void": 0, "voids": {}, "before": {}, "after": {}}
    voids: Counter[str] = Counter()
    for session in sessions:
        voids.update(session.get("voids", {}))
    verdicts = {session["verdict"] for session in sessions}
    return {
        **sessions[0],
        "verdict": next(verdict for verdict in _VERDICTS if verdict in verdicts),
        "reasons": list(dict.fromkeys(reason for session in sessions for reason in session.get("reasons", ()))),
        "num_rounds": sum(session.get("num_rounds", 0) for session in sessions),
        "num_void": sum(session.get("num_void", 0) for session in sessions),
        "voids": dict(voids),
        "after": sessions[-1].get("after", {}),
    }
