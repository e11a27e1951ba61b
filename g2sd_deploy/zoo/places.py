"""Where teachers are kept and fetched from: the cache folder, the lock file, a mirror, and whether the network may be used.

The four environment variables are read here and nowhere else.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from g2sd_deploy.errors import UserError
from g2sd_deploy.locks import lock

_LOG = logging.getLogger(__name__)
_YES, _NO = frozenset({"1", "true", "yes", "on"}), frozenset({"", "0", "false", "no", "off"})


@dataclass(frozen=True)
class Places:
    """Where files come from and go to.

    Attributes:
        cache: Folder of pulled files; a file lies at CACHE/NAME/FILE.
        lock_file: Records the hash of each file that has no published one.
        mirror: Folder or URL that is asked instead of the published address, laid out as the cache; None for the address itself.
        offline: Use the cache, or a mirror that is a folder, and nothing else.
    """

    cache: Path
    lock_file: Path
    mirror: str | None = None
    offline: bool = False

    @property
    def mirror_folder(self) -> Path | None:
        """The mirror, where it is a folder."""
        if self.mirror is None or self.mirror.startswith(("http://", "https://")):
            return None
        return Path(self.mirror).expanduser()


def places(environ: Mapping[str, str] = os.environ) -> Places:
    """The places that the environment asks for.

    Raises:
        UserError: G2SD_OFFLINE is neither yes nor no, or G2SD_MIRROR is a folder that is not there.
    """
    base = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "g2sd"
    cache = Path(environ.get("G2SD_CACHE") or base).expanduser()
    offline = environ.get("G2SD_OFFLINE", "").strip().lower()
    if offline not in _YES | _NO:
        raise UserError(f"G2SD_OFFLINE is {offline!r}; wanted 1 (use no network) or 0")
    lock_file = Path(environ.get("G2SD_LOCK") or cache / "teachers.lock").expanduser()
    found = Places(cache, lock_file, environ.get("G2SD_MIRROR") or None, offline in _YES)
    if found.mirror_folder is not None and not found.mirror_folder.is_dir():
        raise UserError(
            f"G2SD_MIRROR is {found.mirror}: there is no such folder; give a folder, or a URL that starts with https:// or http://"
        )
    return found


@contextmanager
def exclusive(path: Path, *, quiet: bool = False) -> Iterator[None]:
    """Hold a lock that goes with the process; a second process waits here.

    Args:
        path: The lock's own file.
        quiet: Do not log that another process is waited for, where that is nothing unusual.

    Raises:
        UserError: The folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be written ({error.strerror}); set G2SD_CACHE to a folder you may write to") from None
    with file:
        if not lock(file, wait=False):
            if not quiet:
                _LOG.warning("%s: another process is writing there; waiting for it", path.parent)
            lock(file, wait=True)
        yield
