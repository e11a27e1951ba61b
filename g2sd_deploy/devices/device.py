"""A device: its name, its address, and which Python works there."""

import re
from dataclasses import asdict, dataclass, fields, replace
from typing import Any
from urllib.parse import urlsplit

from g2sd_deploy.errors import UserError

LOCAL = "local"
SCHEME = "ssh://"
_WORK_FOLDER = "g2sd-device"
_DEFAULT_PLACE = "~/.cache"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@\\-]*")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:%-]*")
_FORM = "ssh://[user@]host[:port][/folder]"


@dataclass(frozen=True)
class Device:
    """A machine that ssh reaches.

    Attributes:
        name: What its results are kept under.
        address: As ``ssh://[user@]host[:port][/folder]``; the folder holds what is copied there, ``/~/folder`` lies at home.
        python: Interpreter on the device that has what the bundles need; empty for python3 and an environment made there.
        venv: Virtual environment on the device that has it; empty for none.
        make_venv: Keep the environment that is made there for the next time.
        keep: Keep what was copied, too.
    """

    name: str
    address: str
    python: str = ""
    venv: str = ""
    make_venv: bool = False
    keep: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) and self.name != named_by(self.address):
            raise UserError(f"{self.name!r} is no name for a device; letters, digits, dots, hyphens and underscores make one")
        if self.name == LOCAL:
            raise UserError(f"{LOCAL!r} is the machine that the program runs on; give the device another name")
        if sum(map(bool, (self.python, self.venv, self.make_venv))) > 1:
            raise UserError(f"{self.name}: --python, --venv and --make-venv each say which Python works there; give one of them")
        target_of(self.address)

    @property
    def target(self) -> "Target":
        """Its address in parts."""
        return target_of(self.address)

    @property
    def interpreter(self) -> str:
        """The Python to start there."""
        return self.python or (f"{self.venv.rstrip('/')}/bin/python" if self.venv else "python3")

    @property
    def makes_venv(self) -> bool:
        """Whether an environment has to be made there."""
        return not (self.python or self.venv)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "Device":
        """Read what ``to_dict`` wrote.

        Raises:
            UserError: A key is missing or unknown, or a value is none of a device.
        """
        types = {field.name: field.type for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != set(types):
            raise UserError(f"a device has the keys {', '.join(types)}")
        if wrong := [key for key, kind in types.items() if not isinstance(values[key], kind)]:  # type: ignore[arg-type]
            raise UserError(f"{wrong[0]} is {values[wrong[0]]!r}")
        return cls(**values)


@dataclass(frozen=True)
class Target:
    """An address in parts.

    Attributes:
        host: Name, number or alias of the ssh configuration.
        user: Empty where ssh is to choose.
        port: None where ssh is to choose.
        folder: Work folder on the device; ``~/`` is the home there.
    """

    host: str
    user: str
    port: int | None
    folder: str

    @property
    def login(self) -> str:
        """As ssh takes it."""
        return f"{self.user}@{self.host}" if self.user else self.host


def target_of(address: str) -> Target:
    """An address in parts.

    Raises:
        UserError: It is none, or could be taken for an option of ssh.
    """
    if not address.startswith(SCHEME):
        raise UserError(f"{address!r} is no address of a device; it has the form {_FORM}")
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise UserError(f"{address!r} is no address of a device ({error}); it has the form {_FORM}") from error
    user, colon, _ = parts.netloc.rpartition("@")[0].partition(":")
    if colon:
        raise UserError(f"the address of {host} holds a password; ssh takes none from there: set up a key, and leave it out")
    shown = parts.netloc.rpartition("@")[2]
    spelled = shown[: len(host)] if shown.lower().startswith(host) else host  # aliases of ssh know capital letters
    if not _HOST.fullmatch(spelled) or (user and not _USER.fullmatch(user)) or parts.query or parts.fragment:
        raise UserError(f"{address!r} is no address of a device; it has the form {_FORM}")
    place = parts.path.rstrip("/")
    place = place[1:] if place.startswith("/~") else place
    return Target(spelled, user, port, f"{place or _DEFAULT_PLACE}/{_WORK_FOLDER}")


def named_by(address: str) -> str:
    """The name of a device that was given by its address alone: ``user@host:port``."""
    target = target_of(address)
    return target.login + (f":{target.port}" if target.port else "")


def unnamed(address: str) -> Device:
    """A device that is in no store.

    Raises:
        UserError: It is no address.
    """
    return Device(named_by(address), address)


__all__ = ["LOCAL", "SCHEME", "Device", "Target", "named_by", "replace", "target_of", "unnamed"]
