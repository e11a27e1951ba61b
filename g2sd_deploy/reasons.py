"""Reasons that differ in their amounts alone, told as one."""

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


def kind_of(reason: str) -> str:
    """A reason without its amounts."""
    return _NUMBER.sub("#", reason)


def together(reasons: Sequence[str]) -> str:
    """Reasons of one kind as one: where their amounts differ, the smallest and the largest."""
    amounts = iter(zip(*(_NUMBER.findall(reason) for reason in reasons), strict=True))

    def amount(_: re.Match[str]) -> str:
        found = sorted(set(next(amounts)), key=float)
        return found[0] if len(found) == 1 else f"{found[0]} to {found[-1]}"

    return _NUMBER.sub(amount, reasons[0])
