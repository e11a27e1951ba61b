"""Trust on first pull: the hash of each file that has no published one, recorded once and compared ever after."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from g2sd_deploy.artifact import write_text_whole
from g2sd_deploy.errors import UserError
from g2sd_deploy.zoo.places import exclusive

_FORMAT = 1


@dataclass(frozen=True)
class Locked:
    """What the first pull found.

    Attributes:
        file: File name.
        sha256: Hex SHA-256 of the whole file.
        bytes: Its size.
        source: Its published address.
    """

    file: str
    sha256: str
    bytes: int
    source: str


def read_lock(path: Path) -> dict[str, Locked]:
    """Every record by the teacher's name; empty where there is no lock file yet.

    Raises:
        UserError: The file is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a lock file ({error}); restore it, or move it away to trust the next pull") from None
    try:
        found = json.loads(text)
        if found["format"] != _FORMAT:
            raise ValueError(f"format {found['format']}")
        return {name: _record(values) for name, values in found["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: is no lock file of this version ({error}); restore it, or move it away to trust the next pull") from None


def record(path: Path, name: str, locked: Locked) -> None:
    """Add or replace one record; the file is written whole, and two processes do not lose each other's records.

    Raises:
        UserError: The file is damaged or cannot be written.
    """
    with exclusive(path.with_name(f".{path.name}.guard")):
        records = read_lock(path) | {name: locked}
        files = {key: asdict(value) for key, value in sorted(records.items())}
        try:
            write_text_whole(path, json.dumps({"format": _FORMAT, "files": files}, indent=2) + "\n")
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); set G2SD_LOCK to a file you may write to") from None


def _record(values: dict[str, object]) -> Locked:
    file, sha256, size, source = (values[key] for key in ("file", "sha256", "bytes", "source"))
    if not (isinstance(file, str) and isinstance(sha256, str) and isinstance(size, int) and isinstance(source, str)):
        raise ValueError(f"a record of the wrong type: {values}")
    return Locked(file, sha256, size, source)
