"""A real sshd on loopback, with a host key, a configuration and a client key of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from g2sd_deploy.devices import Device
from g2sd_export.bundle import BuiltVariant, Variant, write_bundle
from g2sd_export.edge.agreement import ParityTolerance
from g2sd_export.edge.preprocess import Preprocessing, normalise

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
PRIVILEGE_SEPARATION = Path("/run/sshd")
START_S = 20.0


def children_of(pid: int) -> list[int]:
    """Processes below one, its grandchildren too; one that ends meanwhile has none."""
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path("/proc").glob(f"{pid}/task/*/children"):
            for child in map(int, task.read_text().split()):
                found += [child, *children_of(child)]
    return found


@dataclass
class Sshd:
    """A running sshd.

    Attributes:
        folder: Its keys and configuration.
        port: On 127.0.0.1.
        pid: Of the process that listens.
    """

    folder: Path
    port: int
    pid: int

    def device(self, name: str, place: Path, **settings: object) -> Device:
        """A device at this sshd that works below a folder, with this test's own Python unless told otherwise."""
        if not settings.keys() & {"python", "venv", "make_venv"}:
            settings["python"] = sys.executable
        return Device(name, f"ssh://127.0.0.1:{self.port}{place}", **settings)  # type: ignore[arg-type]

    def cut(self) -> None:
        """End every session, as a lost network does: the processes of sshd that serve one, not what they started."""
        for pid in children_of(self.pid):
            with contextlib.suppress(OSError):
                if (Path("/proc") / str(pid) / "comm").read_text().startswith("sshd"):
                    os.kill(pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    return port


def wait_until_it_answers(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as answering:
            answering.recv(16)
            return
        time.sleep(0.05)
    raise AssertionError(f"sshd does not answer: {log.read_text()}")


def make_keys(folder: Path) -> None:
    for name in ("host", "client", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "client.pub", folder / "authorized_keys")


def configure(folder: Path, port: int, environment: dict[str, str]) -> None:
    pairs = " ".join(f'"{key}={value}"' for key, value in environment.items())
    server = f"""
        Port {port}
        ListenAddress 127.0.0.1
        HostKey {folder / "host"}
        PidFile none
        AuthorizedKeysFile {folder / "authorized_keys"}
        StrictModes no
        PermitRootLogin yes
        UsePAM no
        PasswordAuthentication no
        KbdInteractiveAuthentication no
        {f"SetEnv {pairs}" if pairs else ""}
    """
    (folder / "sshd_config").write_text("\n".join(line.strip() for line in server.splitlines()))
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    client = f"""
        IdentityFile {folder / "client"}
        IdentitiesOnly yes
        UserKnownHostsFile {folder / "known_hosts"}
        GlobalKnownHostsFile /dev/null
        StrictHostKeyChecking yes
    """
    (folder / "ssh_config").write_text("\n".join(line.strip() for line in client.splitlines()))


@contextlib.contextmanager
def running_sshd(folder: Path, environment: dict[str, str]) -> Iterator[Sshd]:
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("needs sshd and ssh (Debian: apt install openssh-server)")
    if os.geteuid() == 0:  # stays: the session of another test may be using it, and a system that starts sshd makes it too
        PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    make_keys(folder)
    port = free_port()
    configure(folder, port, environment)
    log = folder / "log"
    with log.open("wb") as written:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stdout=written, stderr=written)
    try:
        wait_until_it_answers(process, port, log)
        yield Sshd(folder, port, process.pid)
    finally:
        for pid in [*children_of(process.pid), process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        process.wait(START_S)


@pytest.fixture
def make_sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Sshd]]:
    """Starts a sshd whose sessions have the given environment variables, and makes it the one that `ssh` asks."""
    with contextlib.ExitStack() as stack:

        def start(**environment: str) -> Sshd:
            folder = tmp_path / f"sshd{len(list(tmp_path.glob('sshd*')))}"
            folder.mkdir()
            sshd = stack.enter_context(running_sshd(folder, environment))
            monkeypatch.setenv("G2SD_SSH", f"ssh -F {folder / 'ssh_config'}")
            return sshd

        yield start


@pytest.fixture
def sshd(make_sshd: Callable[..., Sshd]) -> Sshd:
    return make_sshd()


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store lies in the test's folder."""
    monkeypatch.setenv("G2SD_DEVICES", str(tmp_path / "store"))
    return tmp_path / "store"


CLASS_NAMES = ("cat", "dog", "bird")
IMAGE_PX = 8


def write_onnx(path: Path) -> None:
    """One product from pixels to logits."""
    weights = np.random.default_rng(0).normal(size=(IMAGE_PX * IMAGE_PX, len(CLASS_NAMES))).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["images"], ["flat"]), helper.make_node("MatMul", ["flat", "weights"], ["logits"])],
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, IMAGE_PX, IMAGE_PX])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(CLASS_NAMES)])],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)


def variant_of(name: str) -> Variant:
    return Variant(
        name=name,
        file="models/fp32.onnx",
        precision="fp32",
        runtime="openvino" if name.endswith("openvino") else "onnxruntime",
        settings={"inference_precision": "f32"} if name.endswith("openvino") else {"provider": "CPUExecutionProvider"},
        input={"name": "images", "dtype": "float32", "layout": "NCHW", "shape": ["batch", 1, IMAGE_PX, IMAGE_PX]},
        output={"name": "logits", "dtype": "float32", "shape": ["batch", len(CLASS_NAMES)]},
        verdict="passed",
        reason="",
        hops=(),
        tolerance=ParityTolerance(),
        device_tolerance=ParityTolerance(),
    )


@pytest.fixture(scope="session")
def pristine_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two variants that share one small file; not to be changed."""
    import onnxruntime

    folder = tmp_path_factory.mktemp("pristine")
    model, preprocessing = folder / "model.onnx", Preprocessing(IMAGE_PX, IMAGE_PX, num_channels=1, mean=(0.5,), std=(0.25,))
    write_onnx(model)
    images = np.random.default_rng(1).integers(0, 256, (4, IMAGE_PX, IMAGE_PX, 1), dtype=np.uint8)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    logits = session.run(None, {"images": normalise(images, preprocessing)})[0]
    names = ("fp32-onnxruntime", "fp32-openvino")
    return write_bundle(
        folder / "bundle",
        name="tiny",
        variants=[BuiltVariant(variant_of(name), model, logits) for name in names],
        default=names[0],
        preprocessing=preprocessing,
        class_names=CLASS_NAMES,
        sample_images=images,
        expected_logits=logits,
        target={"name": "cpu-x86", "description": "Any x86 processor."},
        licences={"model": "Apache-2.0", "code": "Apache-2.0 AND MIT", "data": "MIT"},
        provenance={"recipe": "tiny", "evaluated_on": "noise"},
        verdict="passed",
        program_version="1.2.3",
        threads=1,
    )


@pytest.fixture
def bundle(pristine_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that the test may change."""
    return Path(shutil.copytree(pristine_bundle, tmp_path / "bundle"))
