"""Look at a device without timing anything, and take away what earlier calls left there."""

from typing import Any

from g2sd_deploy.devices.connection import Connection
from g2sd_deploy.devices.device import Device
from g2sd_deploy.errors import UserError


def check(device: Device, *, connect_timeout_s: float) -> dict[str, Any]:
    """Whether a device can be used: log in, and ask its Python what it is.

    Args:
        device: Which.
        connect_timeout_s: How long to wait for it to answer at all.

    Returns:
        JSON values: ``system machine platform python executable cpus packages root free_bytes left``, the last of which names what
        earlier calls left there.

    Raises:
        UserError: It cannot be reached, or cannot be used.
    """
    with _connected(device, connect_timeout_s) as connection:
        return connection.facts


def clean(device: Device, *, connect_timeout_s: float) -> list[str]:
    """End what runs on a device and remove all that lies in its work folder.

    Returns:
        What was removed, one line each.

    Raises:
        UserError: It cannot be reached, or something could not be removed.
    """
    with _connected(device, connect_timeout_s) as connection:
        answer = connection.request("clean")
        if answer["left"]:
            raise UserError(f"{device.name}: could not be removed: {'; '.join(answer['left'])}; remove it there by hand")
        removed: list[str] = answer["removed"]
        return removed


def _connected(device: Device, connect_timeout_s: float) -> Connection:
    try:
        return Connection(device, connect_timeout_s=connect_timeout_s)
    except UserError as error:
        raise UserError(f"{device.name} ({device.address}): {error}") from error
