"""The local store: which devices there are, and what was measured on each."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from g2sd_deploy.artifact import write_text_whole
from g2sd_deploy.devices.device import SCHEME, Device, unnamed
from g2sd_deploy.errors import UserError
from g2sd_deploy.locks import lock

FORMAT = 1
_DEVICES = "devices.json"
_RESULTS = "results"


@dataclass(frozen=True)
class Entry:
    """One stored profile.

    Attributes:
        at: When it was stored, UTC, ISO 8601.
        profile: As it was measured.
    """

    at: str
    profile: Mapping[str, Any]


def folder() -> Path:
    """Where the store lies: ``G2SD_DEVICES``, or the user's data folder."""
    if named := os.environ.get("G2SD_DEVICES"):
        return Path(named)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "g2sd" / "devices"


def devices() -> dict[str, Device]:
    """All devices by name, in the order in which they were added.

    Raises:
        UserError: The file that lists them cannot be read.
    """
    path = folder() / _DEVICES
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or values.get("format") != FORMAT or not isinstance(values.get("devices"), list):
            raise UserError(f"it is no list of devices in format {FORMAT}")
        return {device.name: device for device in map(Device.from_dict, values["devices"])}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, UserError) as error:
        raise UserError(f"{path}: cannot be read ({error}); put it right, or remove it and add the devices again") from error


def add(device: Device) -> None:
    """Keep a device; one of the same name is replaced.

    Raises:
        UserError: The store cannot be written.
    """
    with _locked():
        _write({**devices(), device.name: device})


def remove(name: str) -> Device:
    """Forget a device; its results stay until its history is removed by hand.

    Raises:
        UserError: There is none of this name.
    """
    with _locked():
        known = devices()
        if name not in known:
            raise UserError(_unknown(name, known))
        _write({key: device for key, device in known.items() if key != name})
    return known[name]


def find(text: str) -> Device:
    """The device of a name, or at an address, whether it is in the store or not.

    Args:
        text: ``pi`` or ``ssh://me@192.168.1.7``.

    Raises:
        UserError: There is none of this name, or the address is none.
    """
    known = devices()
    if not text.startswith(SCHEME):
        if text not in known:
            raise UserError(_unknown(text, known))
        return known[text]
    for device in known.values():
        if device.address == text:
            return device
    device = unnamed(text)
    if device.name in known:
        raise UserError(
            f"{text} is another address than that of the device {device.name!r} ({known[device.name].address}); give the name, or add this "
            "one under a name of its own: g2sd devices add"
        )
    return device


def record(device: str, profile: Mapping[str, Any]) -> None:
    """Add a profile to the history of a device.

    Args:
        device: Its name; "local" for this machine.
        profile: As ``g2sd profile --json`` prints it.

    Raises:
        UserError: The store cannot be written.
    """
    at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    line = json.dumps({"format": FORMAT, "at": at, "profile": dict(profile)}, separators=(",", ":")).encode()
    path = _results_of(device)
    with _locked(), _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            if file.tell() and _last_byte(path) != b"\n":  # an interrupted write left half a line: it stays one damaged line
                file.write(b"\n")
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())


def results(device: str, warn: Callable[[str], None]) -> list[Entry]:
    """What was measured on a device, oldest first.

    Args:
        device: Its name.
        warn: Told each line of the file that is damaged, and therefore left out.

    Raises:
        UserError: The file cannot be read.
    """
    path = _results_of(device)
    found = []
    with _told(path, "read"):
        lines = path.read_bytes().split(b"\n") if path.is_file() else []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            if values["format"] != FORMAT:
                raise ValueError(f"its format is {values['format']!r}, not {FORMAT}")
            rows = values["profile"]["rows"]
            if not all(isinstance(row, dict) for row in rows):
                raise TypeError
            found.append(Entry(str(values["at"]), values["profile"]))
        except (ValueError, KeyError, TypeError) as error:
            why = str(error) if isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError) else "it is no whole result"
            warn(f"{path}, line {number}: damaged and left out ({why})")
    return found


def names() -> list[str]:
    """Every device that is known or has results, in alphabetical order."""
    return sorted({*devices(), *with_results()})


def with_results() -> Iterator[str]:
    """Names of devices that have results."""
    for path in sorted((folder() / _RESULTS).glob("*.jsonl")):
        yield unquote(path.stem)


def _results_of(device: str) -> Path:
    return folder() / _RESULTS / f"{quote(device, safe='')}.jsonl"


def _unknown(name: str, known: Mapping[str, Device]) -> str:
    have = f"known are {', '.join(known)}" if known else "none was added yet"
    return f"{name!r} is no device; {have}; give ssh://[user@]host[:port], or add it: g2sd devices add {name} ssh://..."


def _write(known: Mapping[str, Device]) -> None:
    path = folder() / _DEVICES
    with _told(path):
        text = json.dumps({"format": FORMAT, "devices": [device.to_dict() for device in known.values()]}, indent=2)
        write_text_whole(path, text + "\n")


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)


@contextmanager
def _locked() -> Iterator[None]:
    path = folder() / ".lock"
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    with file:
        lock(file, wait=True)
        yield


@contextmanager
def _told(path: Path, what: str = "written") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be {what} ({error.strerror}); name another folder in G2SD_DEVICES") from error
