"""Engines for a bundle, built on the device from the ONNX files that it carries.

Runs on the device too: Python 3.10, what ``edge`` takes and the TensorRT package.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .edge.errors import UserError
from .tensorrt_build import EngineInfo, build_engine
from .tensorrt_settings import EngineSettings

_MODELS = "models"
_ENGINE_REASON = "the engine was built on this device and has not been run; run: python -m edge selftest --variant {name}"
_NOT_PROVEN = "not_run"


@dataclass(frozen=True)
class Built:
    """An engine that went into a bundle.

    Attributes:
        variant: Its name there.
        source: The bundle's ONNX file that it was built from.
        info: The engine.
    """

    variant: str
    source: str
    info: EngineInfo

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"variant": self.variant, "source": self.source, **self.info.to_dict()}


def build_into(
    folder: Path, settings: EngineSettings, *, variants: Sequence[str] = (), default: str = "", out: Path | None = None
) -> list[Built]:
    """Build a bundle's engines on this machine and record them in its manifest.

    An engine counts as ``not_run`` until it was proven. Model card, bill of materials and manifest are written anew, and a signature, which
    no longer fits, is left out. Beside each engine lies a JSON file with its layers.

    Args:
        folder: The bundle; every file is verified first.
        settings: Package, GPU and batch sizes.
        variants: Names of the variants to build engines from; none takes every one that is meant for ``settings.runtime``.
        default: Name of the variant that shall be the bundle's default from now on; empty leaves it.
        out: A new folder for the bundle with the engines; None puts it in the place of the old one.

    Returns:
        The engines.

    Raises:
        UnavailableError: This machine cannot build them.
        UserError: There is no such variant, TensorRT refuses a file (the message names node and reason), or ``out`` is not empty.
        IntegrityError: A file of the bundle was changed.
    """
    from .bundle.writing import seal
    from .edge.manifest import open_bundle, read_manifest

    target = folder if out is None else out
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not empty; give the bundle a folder of its own")
    open_bundle(folder)
    values, _ = read_manifest(folder)
    chosen = [_entry(values, name) for name in variants] if variants else _meant_for(values, settings.runtime)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        part = Path(scratch) / "new"
        shutil.copytree(folder, part, ignore=shutil.ignore_patterns("__pycache__"))
        built = [_add_engine(part, values, entry, settings) for entry in chosen]
        _set_default(values, default or values["default"])
        seal(part, values)
        open_bundle(part)
        _swap(part, target, aside=Path(scratch) / "old")
    return [dataclasses.replace(one, info=dataclasses.replace(one.info, path=target / one.info.path.relative_to(part))) for one in built]


def source_of(entry: Mapping[str, Any]) -> str:
    """The ONNX file of a variant, or that from which its engine was built.

    Raises:
        UserError: It names none.
    """
    source = str(entry["settings"].get("source", entry["file"]))
    if not source.endswith(".onnx"):
        raise UserError(f"variant {entry['name']} names no ONNX file to build an engine from; it has {source}")
    return source


def _entry(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = [one for one in values["variants"] if one["name"] == name]
    if not found:
        raise UserError(f"the bundle has no variant {name!r}; it has {', '.join(one['name'] for one in values['variants'])}")
    return found[0]


def _set_default(values: dict[str, Any], name: str) -> None:
    """Choose the default; a bundle whose default was not proven has not passed either."""
    entry = _entry(values, name)
    values["default"] = name
    if values["verdict"] == "passed" != entry["verdict"]:
        values["verdict"], values["reason"] = entry["verdict"], f"{name}: {entry['reason']}"


def _meant_for(values: Mapping[str, Any], runtime: str) -> list[dict[str, Any]]:
    found = [one for one in values["variants"] if one["runtime"] == runtime]
    if not found:
        have = ", ".join(one["name"] for one in values["variants"])
        raise UserError(f"no variant of the bundle is meant for {runtime}; name one to build from with --variant: {have}")
    return found


def _add_engine(folder: Path, values: dict[str, Any], entry: Mapping[str, Any], settings: EngineSettings) -> Built:
    """Build one engine into a bundle's folder and put it into the manifest's values."""
    source, name = source_of(entry), f"{entry['precision']}-{settings.runtime}"
    file = f"{_MODELS}/{name}.engine"
    info = build_engine(folder / source, settings, path=folder / file)
    (folder / f"{file}.json").write_bytes((json.dumps(info.layers.to_dict(), indent=2) + "\n").encode())
    _drop_replaced(folder, values, name, keep=file)
    like = next((one for one in values["variants"] if one["name"] == name), entry)
    added = {
        **like,
        "name": name,
        "file": file,
        "runtime": settings.runtime,
        "settings": {"source": source, **info.facts()},
        "verdict": _NOT_PROVEN,
        "reason": _ENGINE_REASON.format(name=name),
        "hops": [],
        "device_tolerance": None,
        "latency": None,
    }
    values["variants"] = [added if one["name"] == name else one for one in values["variants"]]
    if name not in [one["name"] for one in values["variants"]]:
        values["variants"].append(added)
    return Built(name, source, info)


def _swap(part: Path, target: Path, *, aside: Path) -> None:
    """Put the finished folder in the place of the old one, which comes back if that fails."""
    if target.exists():
        target.replace(aside)
    try:
        part.replace(target)
    except OSError as error:
        if aside.exists():
            aside.replace(target)
        raise UserError(f"{target}: cannot be replaced ({error.strerror}); name a new folder with --out") from error


def _drop_replaced(folder: Path, values: Mapping[str, Any], name: str, *, keep: str) -> None:
    """Remove the engine that a new one replaces, where it has a name of its own and no other variant runs it."""
    files = [one["file"] for one in values["variants"] if one["name"] == name and not one["file"].endswith(".onnx")]
    shared = {one["file"] for one in values["variants"] if one["name"] != name}
    for file in set(files) - shared - {keep}:
        (folder / file).unlink()
        (folder / f"{file}.json").unlink(missing_ok=True)
