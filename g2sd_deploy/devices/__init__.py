"""Devices that are reached over ssh: what they are, how models are timed on them, and how their results are kept."""

from g2sd_deploy.devices import store
from g2sd_deploy.devices.device import Device
from g2sd_deploy.devices.options import DeviceOptions, DeviceProfiles
from g2sd_deploy.devices.profiling import profile_on
from g2sd_deploy.devices.store import find as find_device

__all__ = ["Device", "DeviceOptions", "DeviceProfiles", "find_device", "profile_on", "store"]
