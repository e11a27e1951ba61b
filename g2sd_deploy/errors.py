"""Errors that a user can act on, and the exit code that each one gives the process."""

from g2sd_export.edge.errors import UserError

__all__ = ["EXIT_FAILED", "EXIT_INTERRUPTED", "EXIT_USER_ERROR", "RunFailed", "Stopped", "UserError"]

EXIT_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class RunFailed(Exception):  # noqa: N818 (a failed verdict is no mistake of the program)
    """Work that started from good input and did not succeed: a diverged loss, a failed verdict. Exit code 1."""


class Stopped(BaseException):
    """A signal asked the process to end, and it did so in good order. Exit code 128 + signal, as a shell reports it.

    As KeyboardInterrupt, no Exception: a library that catches those and goes on would swallow it.
    """

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(signal_number, message)
        self.signal_number = signal_number
        self.message = message

    def __str__(self) -> str:
        return self.message
