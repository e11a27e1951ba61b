"""Errors that a user can act on, and the exit code that each one gives the process."""

from g2sd_export.edge.errors import UserError

__all__ = ["EXIT_FAILED", "EXIT_INTERRUPTED", "EXIT_USER_ERROR", "RunFailed", "UserError"]

EXIT_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class RunFailed(Exception):  # noqa: N818 (a failed verdict is no mistake of the program)
    """Work that started from good input and did not succeed: a diverged loss, a failed verdict. Exit code 1."""
