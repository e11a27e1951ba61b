"""What a run will take, from a trial of it: every stage is begun for real, and what it takes is extended to its full length."""

from g2sd_deploy.probe.table import print_probe
from g2sd_deploy.probe.trial import Probe, probe

__all__ = ["Probe", "print_probe", "probe"]
