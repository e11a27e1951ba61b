"""Which student, number format, runtime and token merging: the front of accuracy against latency, and the pick under a budget."""

from g2sd_deploy.choosing.command import Decision, Request, decide
from g2sd_deploy.choosing.front import Budget

__all__ = ["Budget", "Decision", "Request", "decide"]
