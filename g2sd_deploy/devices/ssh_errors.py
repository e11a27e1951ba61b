"""What ssh's own words mean, in one line each: what came, what was wanted, what to change."""

import re
from collections.abc import Sequence

from g2sd_deploy.devices.device import Device

NO_PROGRAM = 127
NOT_EXECUTABLE = 126
SSH_FAILED = 255

_NOISE = re.compile(r"^(Warning: Permanently added|\*\*|debug\d:|Connection to \S+ closed|Pseudo-terminal|Shared connection)")
_TEXTS: tuple[tuple[str, str], ...] = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is another one than known_hosts holds; find out why, and only then remove the old key: ssh-keygen -R {known_as}",
    ),
    ("Host key verification failed", "ssh does not know its host key; compare the key and take it in by hand, once: {by_hand}"),
    (
        "Permission denied (",
        "it refused every key that ssh offered ({words}); set up a key that asks nothing (ssh-copy-id, ssh-agent) until this works by "
        "hand: ssh -o BatchMode=yes {login}",
    ),
    (
        "Too many authentication failures",
        "it refused every key that ssh offered ({words}); name the right one in ~/.ssh/config (IdentityFile)",
    ),
    ("Could not resolve hostname", "there is no host of this name ({words}); give its number, or an alias of ~/.ssh/config"),
    ("Bad configuration option", "ssh does not start ({words}); put ~/.ssh/config right, or G2SD_SSH if you set it"),
    ("Bad owner or permissions", "ssh does not start ({words}); put its permissions right"),
)
_UNREACHABLE = re.compile(
    r"Connection refused|timed out|No route to host|Network is unreachable|Host is down|kex_exchange_identification|Connection closed by|"
    r"Connection reset|Operation not permitted"
)


def cannot_connect(device: Device, lines: Sequence[str], status: int | None) -> str:
    """Why a device could not be spoken to at all.

    Args:
        device: Whom it was about.
        lines: What ssh and the shell on the device wrote to standard error.
        status: Exit status of ssh; None or negative where it was ended because nothing came.

    Returns:
        One line.
    """
    told = [line.strip() for line in lines if line.strip() and not _NOISE.match(line.strip())]
    text, words = "\n".join(told), told[-1] if told else f"ssh ended with status {status}"
    by_hand = " ".join(["ssh", *(["-p", str(device.target.port)] if device.target.port else []), device.target.login])
    if status in (NO_PROGRAM, NOT_EXECUTABLE):
        return no_python(device, words)
    for sign, meaning in _TEXTS:
        if sign in text:
            line = next((line for line in told if sign in line), words)
            return meaning.format(words=line, by_hand=by_hand, login=by_hand[len("ssh ") :], known_as=_known_as(device))
    if _UNREACHABLE.search(text):
        return f"it cannot be reached ({words}); is it on, and are address and port right? Try by hand: {by_hand}"
    if status is None or status < 0:  # ended by a signal: ours, for nothing came
        return f"it does not answer; try by hand: {by_hand}"
    return f"no program could be started there ({words}); try by hand: {by_hand} {device.interpreter} --version"


def no_python(device: Device, words: str) -> str:
    """The interpreter is not there, or is for another architecture."""
    if "Exec format error" in words:
        return f"{device.interpreter} is a program for another processor ({words}); name a Python of this device with --python PATH"
    if device.makes_venv:
        return f"there is no python3 ({words}); install Python 3.8 or newer there, or name one with --python PATH"
    return f"there is no Python at {device.interpreter} ({words}); name one with --python PATH or --venv FOLDER"


def lost(lines: Sequence[str], status: int | None) -> str:
    """How a connection that worked ended."""
    told = [line.strip() for line in lines if line.strip() and not _NOISE.match(line.strip())]
    return told[-1] if told else f"ssh ended with status {status}"


def _known_as(device: Device) -> str:
    target = device.target
    return f"'[{target.host}]:{target.port}'" if target.port not in (None, 22) else target.host
