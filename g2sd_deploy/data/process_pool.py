"""One function over many inputs in several processes, with the answers in the order of the inputs."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from g2sd_deploy.errors import RunFailed

Input = TypeVar("Input")
Answer = TypeVar("Answer")

_AHEAD = 4
"""Inputs on their way per process: enough that none waits, few enough that memory stays flat."""

_work: Callable[[Any], Any] | None = None


def map_in_order(work: Callable[[Input], Answer], inputs: Iterable[Input], *, workers: int) -> Generator[Answer]:
    """Call `work` on each input in `workers` processes.

    The processes ignore Ctrl-C, which is the caller's to handle, and end with the caller, also where that is killed.

    Args:
        work: Pickled once into each process, so it may carry much; what it raises is raised here.
        inputs: Taken as they are needed.
        workers: Processes; the answers do not depend on it.

    Raises:
        RunFailed: A process died.
    """
    context = multiprocessing.get_context("spawn")  # forked processes would keep each other alive, and a forked lock may stay locked
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(work,))
    pending: deque[Future[Answer]] = deque()
    try:
        for one in inputs:
            with _ctrl_c_held_back():
                pending.append(pool.submit(_call, one))
            if len(pending) >= _AHEAD * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise RunFailed(
            f"one of the {workers} worker processes was killed, most likely because memory ran out; what is finished is kept: "
            "use fewer --workers and give the same command again"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Processes that are started inside never see Ctrl-C, not even before `begin_worker`; the caller sees it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(work: Callable[[Any], Any]) -> None:
    global _work
    begin_worker()
    _work = work


def begin_worker() -> None:
    """Tie this process to its parent: Ctrl-C is the parent's to handle, and whatever ends the parent ends this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # the main thread may wait forever on a pipe whose other end its siblings hold open


def _call(one: Any) -> Any:
    assert _work is not None
    return _work(one)
