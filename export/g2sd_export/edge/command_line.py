"""What both programs say when they are asked for something that cannot be: one line on stderr, exit status 2."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """argparse with one line in place of its usage and message."""

    def error(self, message: str) -> NoReturn:
        """End the program with status 2."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())} (see {self.prog} --help)\n")


def complain(program: str, message: str) -> None:
    """Say what is wrong in one line."""
    sys.stderr.write(f"{program}: error: {' '.join(message.split())}\n")


def refuse(program: str, message: str) -> int:
    """The same, and the exit status of a mistake in what was asked."""
    complain(program, message)
    return 2
