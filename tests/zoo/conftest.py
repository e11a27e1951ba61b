"""A real HTTP server that can do everything that servers and lines do wrong, and weight files to serve."""

import functools
import http.server
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from g2sd_deploy.models.masked import DecoderSpec, MaskedAutoencoder
from g2sd_deploy.models.vit import Encoder, EncoderSpec
from g2sd_deploy.zoo.catalog import DecoderShape, Listed, Network, Teacher
from g2sd_deploy.zoo.download import Policy
from g2sd_deploy.zoo.opening import imagenet_preprocessing
from g2sd_deploy.zoo.places import Places

Serving = Callable[..., AbstractContextManager[str]]


@pytest.fixture
def hurried() -> Policy:
    """Gives up after four attempts and a third of a second of silence, and does not wait in between."""
    return Policy(connect_s=2.0, stall_s=0.3, attempts=4, backoff_s=0.0, sleep=lambda _: None)


@dataclass
class Fault:
    """What is wrong with one answer; the defaults are a correct server.

    Attributes:
        status: Answer this status instead.
        cut_after: Close the connection after so many bytes of the body.
        stall_after: Send so many bytes and then nothing.
        flip: Index of a byte of the file to send changed.
        length: Announce this length of the whole file.
        ignore_range: Send everything from the start.
        content_type: Say this instead of application/octet-stream.
        body: Send this instead of the file.
        shift: Send a range that starts so many bytes later than asked for.
        retry_after: Say how long to wait.
        location: Where a redirection leads.
    """

    status: int | None = None
    cut_after: int | None = None
    stall_after: int | None = None
    flip: int | None = None
    length: int | None = None
    ignore_range: bool = False
    content_type: str = "application/octet-stream"
    body: bytes | None = None
    shift: int = 0
    retry_after: int | None = None
    location: str | None = None


@dataclass
class Server:
    """Serves one file at every path.

    Attributes:
        url: Address of the file.
        content: The file.
        etag: Its validator; None sends none.
        faults: One per answer, in order; correct once they are used up.
        announced: SHA-256 sent as the hub does; None sends none.
        ranges: The Range header of each request (empty where there was none).
        paths: The path of each request.
        checks_if_range: Whether a changed ETag makes it send everything.
        chunked: Announce no length at all.
        release: Set when the test is over.
    """

    url: str = ""
    content: bytes = b""
    etag: str | None = '"v1"'
    faults: list[Fault] = field(default_factory=list)
    announced: str | None = None
    ranges: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    checks_if_range: bool = True
    chunked: bool = False
    release: threading.Event = field(default_factory=threading.Event)

    def fails(self, **fault: Any) -> "Server":
        """The next answer that is not spoken for has this fault; see `Fault`."""
        self.faults.append(Fault(**fault))
        return self


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, plan: Server, *args: object) -> None:
        self.plan = plan
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        plan = self.plan
        fault = plan.faults.pop(0) if plan.faults else Fault()
        asked = self.headers.get("Range", "")
        plan.ranges.append(asked)
        plan.paths.append(self.path)
        if fault.status is not None:
            self._refuse(fault)
            return
        content = plan.content if fault.body is None else fault.body
        start = self._start(asked, fault)
        if start is None:
            start = 0
            self.send_response(200)
        elif start >= len(content):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        else:
            start += fault.shift
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if fault.flip is not None:
            content = content[: fault.flip] + bytes([content[fault.flip] ^ 1]) + content[fault.flip + 1 :]
        self._headers(fault, (fault.length or len(content)) - start)
        self._body(content[start:], fault)

    def _start(self, asked: str, fault: Fault) -> int | None:
        found = re.fullmatch(r"bytes=(\d+)-", asked)
        if found is None or fault.ignore_range:
            return None
        wanted = self.headers.get("If-Range")
        if self.plan.checks_if_range and wanted is not None and wanted != self.plan.etag:
            return None
        return int(found[1])

    def _refuse(self, fault: Fault) -> None:
        assert fault.status is not None
        self.send_response(fault.status)
        if fault.retry_after is not None:
            self.send_header("Retry-After", str(fault.retry_after))
        if fault.location is not None:
            self.send_header("Location", fault.location)
            self.send_header("X-Linked-Etag", f'"{self.plan.announced}"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _headers(self, fault: Fault, length: int) -> None:
        self.send_header("Content-Type", fault.content_type)
        if self.plan.chunked:
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(length))
        if self.plan.etag is not None:
            self.send_header("ETag", self.plan.etag)
        self.end_headers()

    def _body(self, body: bytes, fault: Fault) -> None:
        stop = next((stop for stop in (fault.cut_after, fault.stall_after) if stop is not None), None)
        self.wfile.write(body[:stop] if stop is not None else body[: fault.length])
        self.wfile.flush()
        if fault.stall_after is not None:
            self.plan.release.wait(10)
        if stop is not None or fault.length is not None:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server(serving: Serving) -> Iterator[Server]:
    """A server in a thread of its own; the test says what it does wrong."""
    plan = Server()
    with serving(functools.partial(_Handler, plan)) as address:
        plan.url = f"{address}/weights.pth"
        yield plan
        plan.release.set()


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small masked autoencoder as MAE's scripts save it."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save({"model": mae_names(MaskedAutoencoder(EncoderSpec(8, 4, 3, 16, 2, 4), DecoderSpec(8, 1, 2)).state_dict())}, path)
    return path.read_bytes()


def mae_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A masked model of ours under MAE's names; the order of the pixels is left as it is."""
    renamed = {name.removeprefix("encoder.").replace("decoder.", "decoder_"): value for name, value in state.items()}
    return {name.replace("decoder_mask_token", "mask_token"): value for name, value in renamed.items()}


MakeTeacher = Callable[..., Teacher]


@pytest.fixture
def make_teacher(server: Server, weights: bytes) -> MakeTeacher:
    """An entry of a catalogue whose file the server has."""
    server.content = weights

    def make(**changes: object) -> Teacher:
        values = {
            "title": "a tiny teacher",
            "url": server.url,
            "file": "weights.pth",
            "licence": "MIT",
            "layout": "mae",
            "content": "masked",
            "network": "tiny",
            "decoder": "tiny",
            "use_for": ["g2sd"],
        } | changes
        return Teacher(
            name="tiny",
            listed=Listed.model_validate(values),
            network=Network(patch_px=4, width=16, depth=2, heads=4),
            decoder=DecoderShape(width=8, depth=1, heads=2),
            preprocessing=imagenet_preprocessing(8),
        )

    return make


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A cache of the test's own."""
    return Places(tmp_path / "cache", tmp_path / "teachers.lock")


@pytest.fixture
def encoder_of_base(tmp_path: Path) -> Path:
    """An encoder-only file of MAE-B's width and depth, under the name that it has on the web; everything else of it is small."""
    path = tmp_path / "mae_pretrain_vit_base.pth"
    with torch.device("meta"):
        state = Encoder(EncoderSpec(4, 4, 3, 768, 12, 12, mlp_ratio=1 / 768)).state_dict()
    torch.save({"model": {name: torch.zeros(value.shape, dtype=torch.float16) for name, value in state.items()}}, path)
    return path
