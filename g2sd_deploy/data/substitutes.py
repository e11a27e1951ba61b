"""What stands in for a bad image of a batch: the next one that can be used, under the bad one's draws."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from g2sd_deploy.data.images import BadImage, Skipped
from g2sd_deploy.errors import RunFailed

MAX_TRIES = 100
"""Neighbours of a bad image that are tried in its place; a set with a longer run of them is broken."""

Made = TypeVar("Made")


class Named(Protocol):
    """A set whose images have names for people."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """The image, for messages; no path of this machine."""
        ...


class BadImages:
    """The bad images that were met while one batch was made."""

    def __init__(self, samples: Named) -> None:
        self._samples = samples
        self._found: dict[int, Skipped] = {}

    @property
    def found(self) -> tuple[Skipped, ...]:
        """Each bad image once, in the order in which they were met."""
        return tuple(self._found.values())

    def note(self, index: int, error: BadImage) -> None:
        """Take down that an image is bad."""
        self._found[index] = Skipped(index, self._samples.name(index), str(error))

    def usable(self, index: int, make: Callable[[int], Made]) -> tuple[int, Made]:
        """What `make` gives for this image, or for the one that stands in for it.

        Returns:
            The index that was used, and what was made of it.

        Raises:
            RunFailed: Neither this image nor those after it can be used.
        """
        try:
            return index, make(index)
        except BadImage as error:
            self.note(index, error)
        return self.substitute(index, make)

    def substitute(self, index: int, make: Callable[[int], Made]) -> tuple[int, Made]:
        """What `make` gives for the next image that can be used: a function of the data, so no other process sees another one.

        Args:
            index: A bad image that was noted.
            make: Raises BadImage for an image that is bad, too.

        Returns:
            The index that was used, and what was made of it.

        Raises:
            RunFailed: None of the images after it can be used.
        """
        num = min(MAX_TRIES, len(self._samples))
        for step in range(1, num):
            other = (index + step) % len(self._samples)
            try:
                return other, make(other)
            except BadImage as error:
                self.note(other, error)
        first = self._found[index]
        raise RunFailed(
            f"{first.name} cannot be used ({first.reason}), nor can any of the {num - 1} images after it; "
            "`g2sd data verify` lists them all: mend the data set, or make it anew"
        )
