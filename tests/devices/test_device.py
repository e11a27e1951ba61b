"""Names and addresses of devices."""

from __future__ import annotations

import pytest

from g2sd_deploy.devices import Device
from g2sd_deploy.devices.device import Target, target_of, unnamed
from g2sd_deploy.errors import UserError


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("ssh://pi", Target("pi", "", None, "~/.cache/g2sd-device")),
        ("ssh://me@192.168.1.7:2222", Target("192.168.1.7", "me", 2222, "~/.cache/g2sd-device")),
        ("ssh://me@Jetson-Lab/mnt/nvme/", Target("Jetson-Lab", "me", None, "/mnt/nvme/g2sd-device")),
        ("ssh://pi/~/store", Target("pi", "", None, "~/store/g2sd-device")),
        ("ssh://me@[fe80::1%eth0]:22", Target("fe80::1%eth0", "me", 22, "~/.cache/g2sd-device")),
    ],
)
def test_an_address_is_read_in_parts(address: str, target: Target) -> None:
    assert target_of(address) == target


@pytest.mark.parametrize(
    "address",
    [
        "pi",
        "http://pi",
        "ssh://",
        "ssh://-oProxyCommand=reboot",
        "ssh://-x@pi",
        "ssh://pi:no",
        "ssh://pi:99999",
        "ssh://pi?a=b",
        "ssh://a b",
    ],
)
def test_what_is_no_address_or_could_be_an_option_of_ssh_is_refused(address: str) -> None:
    with pytest.raises(UserError, match="is no address of a device"):
        target_of(address)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UserError, match="holds a password") as caught:
        target_of("ssh://me:hunter2@pi")
    assert "hunter2" not in str(caught.value)


def test_a_name_has_no_folders_in_it_and_is_not_that_of_this_machine() -> None:
    for name in ("../x", "", "a b", "-x"):
        with pytest.raises(UserError, match="is no name for a device"):
            Device(name, "ssh://pi")
    with pytest.raises(UserError, match="is the machine that the program runs on"):
        Device("local", "ssh://pi")


def test_a_device_has_one_python() -> None:
    with pytest.raises(UserError, match="give one of them"):
        Device("pi", "ssh://pi", python="/usr/bin/python3.11", make_venv=True)
    assert Device("pi", "ssh://pi").interpreter == "python3"
    assert Device("pi", "ssh://pi", venv="~/env/").interpreter == "~/env/bin/python"
    assert not Device("pi", "ssh://pi", venv="~/env").makes_venv


def test_a_device_without_a_name_is_called_by_its_address() -> None:
    assert unnamed("ssh://me@192.168.1.7:2222/data").name == "me@192.168.1.7:2222"
    assert unnamed("ssh://pi").name == "pi"
