"""How every command of `g2sd` ends when something is wrong: one line on stderr and an exit code."""

import functools
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

import typer

from g2sd_deploy.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USER_ERROR, RunFailed, UserError

P = ParamSpec("P")
R = TypeVar("R")


def tell_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Turn an error that a person can act on into one line on stderr and an exit code."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            _fail(str(error), EXIT_USER_ERROR)
        except RunFailed as error:
            _fail(str(error), EXIT_FAILED)
        except KeyboardInterrupt:
            _fail("stopped; finished stages are kept, and the same command goes on with the next one", EXIT_INTERRUPTED)

    return wrapped


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"error: {' '.join(message.splitlines())}", err=True)
    raise typer.Exit(code)
