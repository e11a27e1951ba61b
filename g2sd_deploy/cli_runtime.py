"""What the commands share that compute, in one process or in several."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from g2sd_deploy.progress import Progress
    from g2sd_deploy.runtime import Runtime


@contextmanager
def told(runtime: "Runtime") -> "Iterator[Progress]":
    """Progress that the first process shows; it also heeds SIGTERM, and all of them part in the end."""
    from g2sd_deploy.progress import SilentProgress, make_progress
    from g2sd_deploy.signals import sigterm_stops

    with sigterm_stops() if runtime.ranks.is_main else nullcontext():
        yield make_progress() if runtime.ranks.is_main else SilentProgress()
    runtime.ranks.leave()
