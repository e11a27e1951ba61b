"""Signals that ask a run to end: training finishes its step and saves first, anything else stops where it is."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from g2sd_deploy.errors import Stopped

_ASKING = (signal.SIGTERM, signal.SIGINT)


class Wishes:
    """The signal that came while `remembered_signals` lasted; 0 where none did."""

    signal_number = 0


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def sigterm_stops() -> Iterator[None]:
    """While this lasts, SIGTERM raises `Stopped` where the program is, so that nothing is left half written."""

    def stop(number: int, _: FrameType | None) -> None:
        raise Stopped(number, "stopped; finished stages are kept, and the same command goes on with the next one")

    if not _is_main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def remembered_signals() -> Iterator[Wishes]:
    """While this lasts, SIGTERM and the first Ctrl-C are only remembered; a second Ctrl-C interrupts at once.

    One that came too late to be heeded is sent again afterwards, so that none is lost.
    """
    wishes = Wishes()
    if not _is_main_thread():
        yield wishes
        return

    def remember(number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and wishes.signal_number:
            raise KeyboardInterrupt
        wishes.signal_number = number

    before = {number: signal.signal(number, remember) for number in _ASKING}
    try:
        yield wishes
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if wishes.signal_number:
        signal.raise_signal(wishes.signal_number)
