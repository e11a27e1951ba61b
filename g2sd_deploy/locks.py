"""Locks between processes; they go with the process that holds them."""

from typing import IO, Any


def lock(file: IO[Any], *, wait: bool) -> bool:
    """Lock an open file until it is closed.

    Args:
        file: The lock's own file.
        wait: Wait for another process that holds it.

    Returns:
        Whether it is held now; without `wait`, False where another process holds it. A system without such locks (Windows) answers True.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True
