"""A page for a look at a bundle: its sample with the answers of this machine, and a field for an image of one's own.

For one person on one machine: it listens on the loopback address alone, and is nothing to build a service on.
"""

from __future__ import annotations

import html
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..edge.errors import UserError
from ..edge.manifest import Bundle, Sample, Variant, open_bundle
from ..edge.preprocess import load_image
from ..edge.runner import Runner, describe

HOST = "127.0.0.1"
MAX_IMAGE_BYTES = 32 << 20
_TOP_K = 5
_TIMEOUT_S = 30.0
_LOCAL_NAMES = ("127.0.0.1", "localhost")

# What the page may do: nothing from elsewhere, and no page from elsewhere may frame it.
_POLICY = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
_HEADERS = {
    "Content-Security-Policy": f"{_POLICY}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Shown:
    """A bundle with one of its variants at work.

    Attributes:
        bundle: Verified.
        variant: The one that answers.
        runner: What runs it; asked by several threads at once.
    """

    bundle: Bundle
    variant: Variant
    runner: Runner

    @cached_property
    def sample(self) -> Sample:
        """The stored images."""
        return self.bundle.sample()

    def predict(self, images: npt.NDArray[np.uint8]) -> list[list[dict[str, Any]]]:
        """The most probable classes of each image of uint8 [B, H, W, C], most probable first: index, name, probability."""
        logits = self.runner.infer(images).astype(np.float64)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares = weights / weights.sum(axis=1, keepdims=True)
        order = np.argsort(-shares, axis=1, kind="stable")[:, :_TOP_K]
        names = self.bundle.class_names
        return [
            [{"index": int(index), "name": names[index], "probability": float(row[index])} for index in best]
            for best, row in zip(order, shares, strict=True)
        ]

    def facts(self) -> dict[str, Any]:
        """What the page says of itself."""
        bundle, variant = self.bundle, self.variant
        proof = {"verdict": variant.verdict, "reason": variant.reason}
        told = {"name": bundle.name, "digest": bundle.digest, "variant": variant.name, "runtime": describe(self.runner), **proof}
        return {**told, "num_classes": len(bundle.class_names), "num_samples": len(self.sample.images)}


def show(folder: Path, *, variant: str | None = None, threads: int | None = None) -> Shown:
    """Open a bundle for ``make_server``.

    Args:
        folder: The bundle; every file is verified.
        variant: Name of the variant that answers; None takes the default one.
        threads: Threads of its runtime; None takes one per CPU this process may use.

    Raises:
        UserError: The bundle is damaged, its proof failed, or the variant cannot run here.
    """
    bundle = open_bundle(folder)
    chosen = bundle.variant(variant)
    if refusal := bundle.refusal(chosen):
        raise UserError(f"{folder}: {refusal}; its answers are not shown, export it again")
    return Shown(bundle, chosen, bundle.runner(threads=threads, variant=chosen.name))


def make_server(shown: Shown, *, port: int = 0) -> ThreadingHTTPServer:
    """A server that is bound and not yet serving; ``server_port`` tells its port.

    Args:
        shown: What to show.
        port: Of the loopback address; 0 takes a free one.

    Returns:
        GET /, /facts and /sample/N.png; POST /predict takes the bytes of an image file and answers as JSON.

    Raises:
        UserError: The port is taken or may not be used.
    """
    page = _page(shown).encode()

    class Handler(_Handler):
        held = shown
        index = page

    try:
        server = ThreadingHTTPServer((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        raise UserError(f"port {port} of {HOST} cannot be listened on ({error}); choose another with --port") from error
    server.daemon_threads = True
    return server


class _Handler(BaseHTTPRequestHandler):
    """Answers one request; ``held`` and ``index`` are set by ``make_server``."""

    held: Shown
    index: bytes
    timeout = _TIMEOUT_S

    def do_GET(self) -> None:
        """The page, its facts, or an image of the sample."""
        if not self._is_local():
            return
        name = self.path.removeprefix("/sample/").removesuffix(".png")
        if self.path == "/":
            self._reply(HTTPStatus.OK, "text/html; charset=utf-8", self.index)
        elif self.path == "/facts":
            self._json(HTTPStatus.OK, self.held.facts())
        elif self.path == f"/sample/{name}.png" and name.isdecimal() and int(name) < len(self.held.sample.images):
            self._reply(HTTPStatus.OK, "image/png", _png(self.held.sample.images[int(name)]))
        else:
            self._json(HTTPStatus.NOT_FOUND, {"error": f"{self.path}: there is /, /facts and /sample/N.png"})

    def do_POST(self) -> None:
        """The classes of an image."""
        if not self._is_local():
            return
        self.close_connection = True  # a body that is refused is not read
        length = self.headers.get("Content-Length", "")
        if self.path != "/predict":
            self._json(HTTPStatus.NOT_FOUND, {"error": f"{self.path}: there is /predict"})
        elif self.headers.get("Content-Type") != "application/octet-stream":  # a page from elsewhere cannot send this unasked
            self._json(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, {"error": "wanted the bytes of an image file as application/octet-stream"})
        elif not length.isdecimal():
            self._json(HTTPStatus.LENGTH_REQUIRED, {"error": "wanted Content-Length"})
        elif int(length) > MAX_IMAGE_BYTES:
            self._json(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": f"the image has {length} bytes; at most {MAX_IMAGE_BYTES} are taken"})
        else:
            self._predict(self.rfile.read(int(length)))

    def _predict(self, content: bytes) -> None:
        try:
            image = load_image(content, self.held.bundle.preprocessing)
        except UserError as error:
            self._json(HTTPStatus.BAD_REQUEST, {"error": str(error)})
            return
        self._json(HTTPStatus.OK, {"variant": self.held.variant.name, "predictions": self.held.predict(image[None])[0]})

    def _is_local(self) -> bool:
        """Whether the request names this machine: a page from elsewhere whose name was pointed here does not."""
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host in _LOCAL_NAMES:
            return True
        self.close_connection = True
        self._json(HTTPStatus.MISDIRECTED_REQUEST, {"error": f"this server answers to {' and '.join(_LOCAL_NAMES)} only"})
        return False

    def _json(self, status: HTTPStatus, values: Mapping[str, Any]) -> None:
        self._reply(status, "application/json", json.dumps(values, ensure_ascii=False).encode())

    def _reply(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **_HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: who looks at the page sees what happens."""


def _page(shown: Shown) -> str:
    facts, sample = shown.facts(), shown.sample
    answers = shown.predict(sample.images)
    names, wanted = shown.bundle.class_names, sample.logits.argmax(axis=1)
    figures = [_figure(index, answer[0], names[want]) for index, (answer, want) in enumerate(zip(answers, wanted, strict=True))]
    proof = f"proof at export {facts['verdict']}" + (f": {facts['reason']}" if facts["reason"] else "")
    told = f"{facts['variant']} on {facts['runtime']}; {proof}; {facts['num_classes']} classes; bundle {facts['digest'][:12]}"
    page = Template((files(__package__) / "page.html").read_text(encoding="utf-8"))
    return page.substitute(name=html.escape(shown.bundle.name), facts=html.escape(told), samples="\n".join(figures))


def _figure(index: int, answer: Mapping[str, Any], wanted: str) -> str:
    told = f"{answer['probability']:.1%} {html.escape(answer['name'])}"
    if answer["name"] != wanted:
        told = f'<span class="differs">{told}</span>; the trained model: {html.escape(wanted)}'
    return f'<figure><img src="/sample/{index}.png" alt="image {index} of the sample"><figcaption>{told}</figcaption></figure>'


def _png(image: npt.NDArray[np.uint8]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[-1] == 1 else image).save(content, "PNG")
    return content.getvalue()
