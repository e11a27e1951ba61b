"""The page of a bundle: what it shows, what it answers, and whom it does not answer."""

import http.client
import io
import json
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from PIL import Image

from g2sd_export.bundle import BuiltVariant, Variant
from g2sd_export.bundle.serving import MAX_IMAGE_BYTES, make_server, show
from g2sd_export.edge.errors import UserError

CLASS_NAMES = ("T-shirt", "Trouser", "Pullover", "Kleid für Übermorgen", "Coat", "Sandal")
BYTES = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def server(pristine_bundle: Path) -> Iterator[ThreadingHTTPServer]:
    with make_server(show(pristine_bundle, threads=1)) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


@pytest.fixture
def ask(server: ThreadingHTTPServer) -> Callable[..., tuple[int, str, bytes]]:
    def request(method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            reply = connection.getresponse()
            return reply.status, reply.headers["Content-Type"], reply.read()
        finally:
            connection.close()

    return request


def png(image: npt.NDArray[np.uint8]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image[:, :, 0]).save(content, "PNG")
    return content.getvalue()


def probabilities(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    weights = np.exp(logits.astype(np.float64))
    return weights / weights.sum()


def test_the_page_shows_each_sample_with_the_answer(ask: Any, images: npt.NDArray[np.uint8]) -> None:
    status, kind, page = ask("GET", "/")
    assert (status, kind) == (HTTPStatus.OK, "text/html; charset=utf-8")
    assert page.decode().count("<figure>") == len(images) and b'differs">' not in page and b"fp32-onnxruntime" in page


def test_the_images_are_those_of_the_sample(ask: Any, images: npt.NDArray[np.uint8]) -> None:
    status, kind, content = ask("GET", "/sample/3.png")
    assert (status, kind) == (HTTPStatus.OK, "image/png")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), images[3, :, :, 0])


def test_the_facts_name_variant_runtime_and_verdict(ask: Any) -> None:
    facts = json.loads(ask("GET", "/facts")[2])
    assert (facts["name"], facts["variant"], facts["verdict"], facts["num_classes"]) == ("tiny", "fp32-onnxruntime", "passed", 6)
    assert facts["runtime"].startswith("onnxruntime ")


def test_an_image_is_answered_as_the_reference_answers(ask: Any, images: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32]) -> None:
    status, _, content = ask("POST", "/predict", png(images[2]), **BYTES)
    told = json.loads(content)
    assert status == HTTPStatus.OK and told["variant"] == "fp32-onnxruntime"
    wanted = probabilities(logits[2])
    assert [one["index"] for one in told["predictions"]] == list(np.argsort(-wanted)[:5])
    np.testing.assert_allclose([one["probability"] for one in told["predictions"]], np.sort(wanted)[::-1][:5], atol=1e-5)
    assert [one["name"] for one in told["predictions"]] == [CLASS_NAMES[one["index"]] for one in told["predictions"]]


def test_many_at_once_are_answered_alike(ask: Any, images: npt.NDArray[np.uint8]) -> None:
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda: answers.append(ask("POST", "/predict", png(images[0]), **BYTES)[2])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8 and len(set(answers)) == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "words"),
    [
        ("POST", "/predict", b"no image", BYTES, HTTPStatus.BAD_REQUEST, "cannot be decoded as an image"),
        ("POST", "/predict", b"", BYTES, HTTPStatus.BAD_REQUEST, "cannot be decoded as an image"),
        ("POST", "/predict", b"x", {"Content-Type": "text/plain"}, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "application/octet-stream"),
        ("POST", "/predict", None, {**BYTES, "Content-Length": "-1"}, HTTPStatus.LENGTH_REQUIRED, "Content-Length"),
        (
            *("POST", "/predict", None, {**BYTES, "Content-Length": str(MAX_IMAGE_BYTES + 1)}),
            *(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "at most"),
        ),
        ("POST", "/", b"x", BYTES, HTTPStatus.NOT_FOUND, "there is /predict"),
        ("GET", "/sample/8.png", None, {}, HTTPStatus.NOT_FOUND, "/sample/N.png"),
        ("GET", "/sample/../manifest.json", None, {}, HTTPStatus.NOT_FOUND, "there is"),
        ("GET", "/sample/²png", None, {}, HTTPStatus.NOT_FOUND, "there is"),
        ("GET", "/manifest.json", None, {}, HTTPStatus.NOT_FOUND, "there is"),
        ("GET", "/", None, {"Host": "evil.example"}, HTTPStatus.MISDIRECTED_REQUEST, "127.0.0.1 and localhost only"),
        ("POST", "/predict", b"x", {**BYTES, "Host": "evil.example:8000"}, HTTPStatus.MISDIRECTED_REQUEST, "only"),
    ],
)
def test_what_is_refused(method: str, path: str, body: bytes | None, headers: dict[str, str], status: int, words: str, ask: Any) -> None:
    found, kind, content = ask(method, path.replace("²", "%C2%B2"), body, **headers)
    assert (found, kind) == (status, "application/json") and words in json.loads(content)["error"]


def test_it_listens_on_this_machine_alone_and_lets_no_other_page_in(server: ThreadingHTTPServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request("GET", "/", headers={"Host": f"localhost:{server.server_port}"})
    reply = connection.getresponse()
    policy = reply.headers["Content-Security-Policy"]
    connection.close()
    assert reply.status == HTTPStatus.OK and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert reply.headers["Access-Control-Allow-Origin"] is None


def test_class_names_cannot_write_the_page(
    make_bundle: Callable[..., Path], make_variant: Callable[..., Variant], onnx_path: Path, logits: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    names = [f"<script>alert({index})</script>" for index in range(6)]
    model = onnx.load(onnx_path)
    del model.metadata_props[:]  # which hold the names that the file was made with
    onnx.save(model, tmp_path / "plain.onnx")
    variants = [BuiltVariant(make_variant(), tmp_path / "plain.onnx", logits)]
    with make_server(show(make_bundle(tmp_path / "bundle", variants=variants, class_names=names, name="<b>&"), threads=1)) as server:
        page = server.RequestHandlerClass.index.decode()  # type: ignore[attr-defined]
    assert "<script>alert" not in page and "&lt;script&gt;alert(" in page and "<title>&lt;b&gt;&amp;</title>" in page


def test_an_answer_that_is_not_the_reference_s_is_marked(pristine_bundle: Path, logits: npt.NDArray[np.float32]) -> None:
    shown = show(pristine_bundle, threads=1)
    object.__setattr__(shown, "runner", Turned(shown.runner))
    with make_server(shown) as server:
        page = server.RequestHandlerClass.index.decode()  # type: ignore[attr-defined]
    assert page.count('class="differs"') == len(logits)


class Turned:
    """A runner whose answers are upside down."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.name, self.version = inner.name, inner.version

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        answers: npt.NDArray[np.float32] = -self.inner.infer(images)
        return answers


def test_a_bundle_whose_proof_failed_is_not_shown(
    make_bundle: Callable[..., Path], make_variant: Callable[..., Variant], onnx_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="3 decisions flip; its answers are not shown, export it again"):
        show(make_bundle(tmp_path / "a", verdict="failed", reason="3 decisions flip"))
    failed = BuiltVariant(make_variant("fp32-b", verdict="failed", reason="NaN in layer 3"), onnx_path)
    folder = make_bundle(tmp_path / "b", variants=[BuiltVariant(make_variant(), onnx_path), failed])
    with pytest.raises(UserError, match=r"fp32-b .*NaN in layer 3; its answers are not shown"):
        show(folder, variant="fp32-b")
    with pytest.raises(UserError, match="has no variant 'x'"):
        show(folder, variant="x")


def test_a_port_that_is_taken_is_refused(server: ThreadingHTTPServer, pristine_bundle: Path) -> None:
    with pytest.raises(UserError, match=rf"port {server.server_port} of 127.0.0.1 cannot be listened on .*; choose another with --port"):
        make_server(show(pristine_bundle, threads=1), port=server.server_port)
