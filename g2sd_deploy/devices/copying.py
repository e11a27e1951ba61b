"""What has to lie on a device, and the sending of what does not lie there yet."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from g2sd_deploy.artifact import digest_of
from g2sd_deploy.devices.connection import Connection
from g2sd_deploy.errors import UserError
from g2sd_export.edge.files import FileRecord, record_of

_BLOCK_BYTES = 1 << 20
_MIB = 1 << 20


@dataclass(frozen=True)
class Tree:
    """A folder that is to lie on a device as it lies here.

    Attributes:
        files: Where each file is, by the path that it has there.
        records: Its digest and size.
        digest: Of all of them: two trees of the same digest hold the same.
    """

    files: dict[str, Path]
    records: dict[str, FileRecord]
    digest: str

    def to_dict(self) -> dict[str, dict[str, object]]:
        """The records as plain JSON values."""
        return {name: {"sha256": record.sha256, "bytes": record.bytes} for name, record in self.records.items()}


def tree_of(folder: Path) -> Tree:
    """A bundle, or any folder, without Python's byte code."""
    return _tree({path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if _travels(path)})


def tree_of_edge() -> Tree:
    """The code that measures: every bundle of a session is timed by the same, also one that an older program wrote."""
    import g2sd_export.edge

    folder = Path(str(g2sd_export.edge.__file__)).parent
    return _tree({f"edge/{path.relative_to(folder).as_posix()}": path for path in sorted(folder.rglob("*.py"))})


def send(connection: Connection, trees: Sequence[Tree], tell: Callable[[str], None]) -> None:
    """Bring trees to a device; a file that lies there with the same SHA-256 is not sent again.

    Args:
        connection: To the device.
        trees: What has to be there.
        tell: Told how much is sent.

    Raises:
        LostConnection: The connection ended; whole files stay there for the next time.
        UserError: The device cannot take it: no space, no right to write.
    """
    by_digest = {tree.digest: tree for tree in trees}
    listed = {digest: tree.to_dict() for digest, tree in by_digest.items()}
    missing = connection.request("plan", trees=listed)["missing"]
    records = [(by_digest[digest], name) for digest, name in missing]
    num_bytes = sum(tree.records[name].bytes for tree, name in records)
    num_there = sum(len(tree.files) for tree in by_digest.values()) - len(records)
    tell(f"copying {len(records)} files ({num_bytes / _MIB:.1f} MiB); {num_there} are there already")
    items = [{"tree": tree.digest, "name": name, **tree.to_dict()[name]} for tree, name in records]
    connection.request("receive", files=items, trees=listed, body=_contents(records))


def _tree(files: dict[str, Path]) -> Tree:
    records = {name: record_of(path) for name, path in files.items()}
    return Tree(files, records, digest_of({name: record.sha256 for name, record in records.items()}))


def _travels(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def _contents(records: Sequence[tuple[Tree, str]]) -> Iterator[bytes]:
    """The bytes of files; as many as were announced, whatever happened to a file meanwhile."""
    for tree, name in records:
        left = tree.records[name].bytes
        try:
            with tree.files[name].open("rb") as file:
                while left and (block := file.read(min(left, _BLOCK_BYTES))):
                    left -= len(block)
                    yield block
        except OSError as error:
            raise UserError(f"{tree.files[name]}: cannot be read any more ({error.strerror}); run the command again") from error
        if left:
            raise UserError(f"{tree.files[name]}: became shorter while it was copied; run the command again")


def key_of(values: object) -> str:
    """A short name for a job: the same work has the same name, so that it is found again."""
    return digest_of(json.loads(json.dumps(values)))[:24]
