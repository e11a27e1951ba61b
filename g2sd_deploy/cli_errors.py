"""How every command of `g2sd` ends when something is wrong: one line on stderr and an exit code."""

import functools
import os
import signal
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

import typer

from g2sd_deploy.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USER_ERROR, RunFailed, Stopped, UserError

P = ParamSpec("P")
R = TypeVar("R")


def tell_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Turn an error that a person can act on into one line on stderr and an exit code."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            _end(error, EXIT_USER_ERROR)
        except RunFailed as error:
            _end(error, EXIT_FAILED)
        except Stopped as error:
            _end(error, 128 + error.signal_number)
        except KeyboardInterrupt:
            stopped = Stopped(signal.SIGINT, "stopped; finished stages are kept, and the same command goes on with the next one")
            stopped.told = os.environ.get("RANK", "0") != "0"  # type: ignore[attr-defined]
            _end(stopped, EXIT_INTERRUPTED)

    return wrapped


def _end(error: BaseException, code: int) -> NoReturn:
    """Say it, unless the first of several processes says the same."""
    if getattr(error, "told", False):
        raise typer.Exit(code)
    rank = os.environ.get("RANK", "0")
    _fail(str(error) if rank == "0" else f"process {rank}: {error}", code)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"error: {' '.join(message.splitlines())}", err=True)
    raise typer.Exit(code)
