"""Small images, and a real HTTP server whose connections can be cut."""

import functools
import http.server
import io
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

Serving = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="session")
def png() -> Callable[..., bytes]:
    """Bytes of a plain image; its first pixel's red tells which one it is."""

    def make(red: int, size: tuple[int, int] = (8, 8)) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", size, (red, 0, 0)).save(buffer, "PNG")
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def write_tar() -> Callable[..., Path]:
    """Write members to an uncompressed tar."""

    def write(path: Path, members: Sequence[tuple[str, bytes]], layout: int = tarfile.USTAR_FORMAT) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w", format=layout) as tar:
            for name, content in members:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return path

    return write


@dataclass
class FileServer:
    """Serves a folder.

    Attributes:
        url: Address of the folder.
        folder: What is served.
        asked: Method, path and range of each request.
        cuts: After how many bytes the next answers break off, by file name; each is used once.
        statuses: Answer these instead, by file name; each is used once.
    """

    url: str
    folder: Path
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, plan: FileServer, *args: object) -> None:
        self.plan = plan
        super().__init__(*args)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        name, asked = self.path.lstrip("/"), self.headers.get("Range", "")
        self.plan.asked.append((self.command, name, asked))
        file = self.plan.folder / name
        status = self.plan.statuses.get(name) or ([] if file.is_file() else [404])
        if status:
            self.send_response(status.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = file.read_bytes()
        found = re.fullmatch(r"bytes=(\d+)-", asked)
        start = int(found[1]) if found else 0
        self.send_response(206 if found else 200)
        if found:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{file.stat().st_mtime_ns}"')
        self.end_headers()
        cut = self.plan.cuts.get(name)
        if with_body:
            stop = start + cut.pop(0) if cut else None
            self.wfile.write(content[start:stop])
            self.close_connection = stop is not None

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def file_server(tmp_path: Path, serving: Serving) -> Iterator[FileServer]:
    """A server of the folder tmp_path/served in a thread of its own."""
    plan = FileServer("", tmp_path / "served")
    plan.folder.mkdir()
    with serving(functools.partial(_Handler, plan)) as plan.url:
        yield plan
