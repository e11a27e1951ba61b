"""TensorRT as a runner: on a GPU against torch, and without one against a stand-in that keeps TensorRT's rules.

The stand-in holds its memory apart from the host's, does queued work only when it is waited for, and refuses (as TensorRT does) shapes
outside the profile, tensors without memory and memory that is too small; it fails outright on two callers at once.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from g2sd_export.edge import tensorrt_runner
from g2sd_export.edge.errors import UserError
from g2sd_export.edge.preprocess import Preprocessing
from g2sd_export.edge.runner import Choices
from g2sd_export.edge.tensorrt_runner import Engine

PRE = Preprocessing(4, 4, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
WEIGHT = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)


def images(num: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (num, 4, 4, 3), dtype=np.uint8)


def expected(num: int) -> npt.NDArray[np.float64]:
    unit = (images(num).astype(np.float64) / 255 - PRE.mean) / PRE.std
    return np.asarray(unit.mean((1, 2)) @ WEIGHT.astype(np.float64))


class Cuda:
    """Stands in for cuda.bindings.runtime: memory behind addresses, and a queue that runs when it is waited for."""

    cudaError_t = SimpleNamespace(cudaSuccess=0)  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="up", cudaMemcpyDeviceToHost="down")  # noqa: N815

    def __init__(self) -> None:
        self.memory: dict[int, npt.NDArray[np.uint8]] = {}
        self.host: dict[int, npt.NDArray[Any]] = {}
        self.queue: list[Callable[[], None]] = []
        self.count = (0, 1)

    def cudaGetDeviceCount(self) -> tuple[int, int]:  # noqa: N802
        return self.count

    def cudaGetErrorString(self, error: int) -> tuple[int, bytes]:  # noqa: N802
        return 0, f"error {error}".encode()

    def cudaStreamCreate(self) -> tuple[int, int]:  # noqa: N802
        return 0, 77

    def cudaStreamDestroy(self, _: int) -> tuple[int]:  # noqa: N802
        return (0,)

    def cudaFree(self, address: int) -> tuple[int]:  # noqa: N802
        del self.memory[address]
        return (0,)

    def cudaMalloc(self, num_bytes: int) -> tuple[int, int]:  # noqa: N802
        address = 4096 * (len(self.memory) + 1)
        self.memory[address] = np.full(num_bytes, 0xAB, np.uint8)
        return 0, address

    def cudaMemcpyAsync(self, target: int, source: int, num_bytes: int, kind: str, stream: int) -> tuple[int]:  # noqa: N802
        import ctypes

        def copy() -> None:
            there, here = (target, source) if kind == "up" else (source, target)
            host = np.ctypeslib.as_array((ctypes.c_uint8 * num_bytes).from_address(here))
            if kind == "up":
                self.memory[there][:num_bytes] = host
            else:
                host[:] = self.memory[there][:num_bytes]

        assert stream == 77
        self.queue.append(copy)
        return (0,)

    def cudaStreamSynchronize(self, _: int) -> tuple[int]:  # noqa: N802
        queue, self.queue = self.queue, []
        for work in queue:
            work()
        return (0,)


class Mode(Enum):
    INPUT = 1
    OUTPUT = 2


class FakeEngine:
    """Mean of each channel times a matrix, and the mean itself as a second output."""

    num_layers = 2

    def __init__(
        self, cuda: Cuda, *, shape: tuple[int, ...], profiles: tuple[tuple[int, int], ...], half: bool, pixels: bool, num_classes: int
    ) -> None:
        self.cuda, self.shape, self.profiles = cuda, shape, profiles
        self.takes_pixels = pixels
        self.dtype = np.float16 if half else np.float32
        self.shapes = {"pixels": shape, "scores": (shape[0], num_classes), "means": (shape[0], 3, 1)}
        self.num_io_tensors, self.num_optimization_profiles = 3, len(profiles)

    def get_tensor_name(self, index: int) -> str:
        return list(self.shapes)[index]

    def get_tensor_mode(self, name: str) -> Mode:
        return Mode.INPUT if name == "pixels" else Mode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def kind_of(self, name: str) -> Any:
        return np.uint8 if self.takes_pixels and name == "pixels" else self.dtype

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name={"uint8": "UINT8", "float16": "HALF", "float32": "FLOAT"}[np.dtype(self.kind_of(name)).name])

    def get_tensor_profile_shape(self, _: str, index: int) -> list[tuple[int, ...]]:
        return [(batch, *self.shape[1:]) for batch in (self.profiles[index][0], *self.profiles[index])]

    def create_execution_context(self) -> FakeContext:
        return FakeContext(self)


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.profile, self.batch, self.busy = engine, 0, 0, False
        self.addresses: dict[str, int] = {}
        self.runs: list[tuple[int, int]] = []

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.profile, self.batch = index, 0
        return stream == 77

    def set_input_shape(self, _: str, shape: tuple[int, ...]) -> bool:
        assert not self.busy, "two callers at once"
        self.busy = True
        time.sleep(0.001)  # lets another caller in where nothing keeps it out
        least, most = self.engine.profiles[self.profile]
        self.batch = shape[0]
        return least <= shape[0] <= most

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.batch, *self.engine.shapes[name][1:])

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return address % 256 == 0

    def execute_async_v3(self, stream: int) -> bool:
        self.busy = False
        kinds, memory = {name: np.dtype(self.engine.kind_of(name)) for name in self.engine.shapes}, self.engine.cuda.memory
        sizes = {name: int(np.prod(self.get_tensor_shape(name))) * kind.itemsize for name, kind in kinds.items()}
        if stream != 77 or any(len(memory[self.addresses[name]]) < size for name, size in sizes.items()):
            return False
        batch, addresses = self.batch, dict(self.addresses)
        self.runs.append((self.profile, batch))

        def compute() -> None:
            stored = memory[addresses["pixels"]][: sizes["pixels"]].view(kinds["pixels"]).reshape(batch, *self.engine.shape[1:])
            means = stored.astype(np.float32).mean((2, 3) if self.engine.shape[1] == 3 else (1, 2))
            if self.engine.takes_pixels:  # as a deployable file, it normalises by itself
                means = (means / 255 - np.float32(PRE.mean)) / np.float32(PRE.std)
            scores = (means @ WEIGHT).astype(kinds["scores"])
            memory[addresses["scores"]][: sizes["scores"]] = np.ascontiguousarray(scores).reshape(-1).view(np.uint8)

        self.engine.cuda.queue.append(compute)
        return True


class FakeTensorRT:
    """Stands in for the package, with its interface of 10 and 11."""

    __version__ = "10.3.0"
    TensorIOMode = Mode

    class ILogger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1)

        def __init__(self) -> None: ...

    def __init__(self, name: str, engine: Callable[[], FakeEngine] | None) -> None:
        self.__name__ = name
        self.engine = engine

    def Runtime(self, logger: Any) -> Any:  # noqa: N802
        def deserialize(content: bytes) -> FakeEngine | None:
            assert content == b"engine"
            if self.engine is None:
                logger.log(2, "a warning")
                logger.log(1, "magic tag\ndoes not match")
                logger.log(1, "consequence")
            return self.engine() if self.engine is not None else None

        return SimpleNamespace(deserialize_cuda_engine=deserialize)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """A machine with the stand-ins, and the path of an engine on it."""

    def make(
        *,
        shape: tuple[int, ...] = (-1, 3, 4, 4),
        profiles: tuple[tuple[int, int], ...] = ((1, 4),),
        half: bool = False,
        pixels: bool = False,
        num_classes: int = 5,
        packages: tuple[str, ...] = ("tensorrt",),
        refusing: tuple[str, ...] = (),
        cuda: Cuda | None = None,
    ) -> Path:
        cuda = cuda or Cuda()

        def engine() -> FakeEngine:
            return FakeEngine(cuda, shape=shape, profiles=profiles, half=half, pixels=pixels, num_classes=num_classes)

        modules: dict[str, Any] = {name: FakeTensorRT(name, None if name in refusing else engine) for name in packages}
        modules["cuda.bindings.runtime"] = cuda
        monkeypatch.setattr(tensorrt_runner, "_optional", modules.get)
        (tmp_path / "model.engine").write_bytes(b"engine")
        return tmp_path / "model.engine"

    return make


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("num", [1, 3, 4, 9])
def test_logits_of_any_number_of_images_come_back_in_order(machine: Callable[..., Path], num: int, half: bool) -> None:
    runner = Engine(machine(half=half)).runner(PRE)
    got = runner.infer(images(num))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected(num), atol=0.02 if half else 1e-5)
    np.testing.assert_allclose(runner.infer(images(2)), expected(2), atol=0.02 if half else 1e-5)


@pytest.mark.parametrize("shape", [(-1, 4, 4, 3), (-1, 3, 4, 4)], ids=str)
def test_an_engine_that_takes_pixels_gets_them_as_they_are(machine: Callable[..., Path], shape: tuple[int, ...]) -> None:
    engine = Engine(machine(shape=shape, pixels=True))
    runner = engine.runner(PRE)
    assert engine.facts()["input"]["dtype"] == "uint8" and runner.prepare(images(2)).dtype == np.uint8
    for num in (1, 9):
        np.testing.assert_allclose(runner.infer(images(num)), expected(num), atol=1e-5)


def test_bytes_that_were_verified_are_opened_instead_of_the_file(machine: Callable[..., Path]) -> None:
    path = machine()
    path.write_bytes(b"changed since")
    np.testing.assert_allclose(Engine(path, content=b"engine").runner(PRE).infer(images(2)), expected(2), atol=1e-5)


def test_a_fixed_batch_is_filled_up(machine: Callable[..., Path]) -> None:
    runner = Engine(machine(shape=(4, 3, 4, 4), profiles=((4, 4),))).runner(PRE)
    np.testing.assert_allclose(runner.infer(images(6)), expected(6), atol=1e-5)
    assert [batch for _, batch in runner._context.runs] == [4, 4]


def test_of_several_profiles_the_narrowest_that_holds_the_images_is_used(machine: Callable[..., Path]) -> None:
    runner = Engine(machine(profiles=((8, 16), (1, 1), (2, 4)))).runner(PRE)
    for num in (1, 3, 6, 20, 1):
        np.testing.assert_allclose(runner.infer(images(num)), expected(num), atol=1e-5)
    assert runner._context.runs == [(1, 1), (2, 3), (0, 8), (0, 16), (2, 4), (1, 1)]


def test_an_engine_states_its_facts(machine: Callable[..., Path]) -> None:
    engine = Engine(machine(half=True, profiles=((1, 4), (5, 8))))
    assert engine.facts() == {
        "runtime": "tensorrt",
        "version": "10.3.0",
        "input": {"name": "pixels", "layout": "NCHW", "dtype": "float16"},
        "output": {"name": "scores", "num_classes": 5, "dtype": "float16"},
        "batches": [[1, 4], [5, 8]],
        "num_layers": 2,
    }
    runner = engine.runner(PRE)
    assert (runner.name, runner.version, runner.num_classes, runner.preprocessing) == ("tensorrt", "10.3.0", 5, PRE)


def test_four_threads_at_once_take_turns_and_get_the_bits_that_one_gets(machine: Callable[..., Path]) -> None:
    runner = Engine(machine()).runner(PRE)
    parts = [images(40)[start : start + 5] for start in range(0, 40, 5)] * 2
    wanted = [runner.infer(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        for got, want in zip(pool.map(runner.infer, parts), wanted, strict=True):
            np.testing.assert_array_equal(got, want)


def test_copies_and_computing_are_waited_for_and_told_apart(machine: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    class SlowCuda(Cuda):
        """Each copy to the GPU takes 1 s, computing 5 s, each copy back 2 s, and a launch nothing."""

        now, done = 0.0, 0

        def cudaStreamSynchronize(self, stream: int) -> tuple[int]:  # noqa: N802
            for _ in self.queue:
                self.now += (1.0, 5.0, 2.0)[self.done % 3]
                self.done += 1
            return super().cudaStreamSynchronize(stream)

    cuda = SlowCuda()
    runner = Engine(machine(cuda=cuda)).runner(PRE)
    monkeypatch.setattr(tensorrt_runner.time, "perf_counter", lambda: cuda.now)
    assert runner.phases(runner.prepare(images(2))) == {"to_device_ms": 1000.0, "compute_ms": 5000.0, "from_device_ms": 2000.0}
    assert runner.phases(runner.prepare(images(9))) == {"to_device_ms": 3000.0, "compute_ms": 15000.0, "from_device_ms": 6000.0}
    np.testing.assert_allclose(runner.infer(images(3)), expected(3), atol=1e-5)


def test_the_package_that_built_the_engine_is_found_and_named(machine: Callable[..., Path]) -> None:
    assert Engine(machine(packages=("tensorrt", "tensorrt_rtx"), refusing=("tensorrt",))).name == "tensorrt_rtx"
    with pytest.raises(
        UserError, match=r"model.engine: cannot be opened \(tensorrt 10.3.0: magic tag does not match\); an engine belongs to the GPU model"
    ):
        Engine(machine(refusing=("tensorrt",)))


def test_what_is_missing_is_said_in_one_line(machine: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"absent.engine: no such TensorRT engine"):
        Engine(tmp_path / "absent.engine")
    with pytest.raises(
        UserError, match=r"TensorRT cannot be imported; .* pip install tensorrt or, for an engine .* pip install tensorrt-rtx"
    ):
        Engine(machine(packages=()))
    no_driver, no_gpu = Cuda(), Cuda()
    no_driver.count, no_gpu.count = (35, 0), (0, 0)
    with pytest.raises(
        UserError, match=r"model.engine: no working NVIDIA GPU here, CUDA says: error 35; run this where nvidia-smi shows one"
    ):
        Engine(machine(cuda=no_driver))
    with pytest.raises(UserError, match="needs an NVIDIA GPU, and this machine has none"):
        Engine(machine(cuda=no_gpu))
    path = machine()
    fake = {"tensorrt": tensorrt_runner._optional("tensorrt")}
    monkeypatch.setattr(tensorrt_runner, "_optional", fake.get)
    with pytest.raises(UserError, match="pip install cuda-python"):
        Engine(path)
    fake["torch"] = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False))  # type: ignore[assignment]
    with pytest.raises(UserError, match="torch finds none"):
        Engine(path)


def test_an_engine_that_does_not_fit_is_refused(machine: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"model.engine: the model has no output 'logits'; it gives scores \[-1, 5\], means \[-1, 3, 1\]"):
        Engine(machine(), Choices(output="logits"))
    with pytest.raises(UserError, match="does not say how many classes"):
        Engine(machine(num_classes=-1))
    with pytest.raises(UserError, match="takes images of 3 channels and 8 px; the preprocessing makes 3 channels and 4 px"):
        Engine(machine(shape=(-1, 3, 8, 8))).runner(PRE)


def test_what_tensorrt_refuses_at_work_is_told(machine: Callable[..., Path]) -> None:
    runner = Engine(machine()).runner(PRE)
    runner._context.execute_async_v3 = lambda _: False
    with pytest.raises(UserError, match=r"model.engine: tensorrt 10.3.0 refuses to execute \(it does not say why\)"):
        runner.infer(images(1))


@pytest.mark.gpu
@pytest.mark.parametrize("package", ["tensorrt", "tensorrt_rtx"])
def test_an_engine_built_here_answers_as_torch(package: str, tmp_path: Path, onnx_path: Path, make_model: Callable[..., Any]) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    trt = pytest.importorskip(package, reason=f"{package} is not installed")
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    assert parser.parse(onnx_path.read_bytes())
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape("images", (1, 1, 28, 28), (4, 1, 28, 28), (4, 1, 28, 28))
    config.add_optimization_profile(profile)
    path = tmp_path / "tiny.engine"
    path.write_bytes(bytes(builder.build_serialized_network(network, config)))
    pre = Preprocessing(28, 28, 1, (0.286,), (0.353,))
    runner = Engine(path).runner(pre)
    pixels = np.random.default_rng(0).integers(0, 256, (11, 28, 28, 1), dtype=np.uint8)
    with torch.inference_mode():
        inputs = torch.from_numpy(((pixels.astype(np.float64).transpose(0, 3, 1, 2) / 255 - 0.286) / 0.353).astype(np.float32))
        wanted = make_model()(inputs).numpy()
    np.testing.assert_allclose(runner.infer(pixels), wanted, atol=5e-3)
    parts = [pixels[start : start + 3] for start in range(8)] * 4
    alone = [runner.infer(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        for got, want in zip(pool.map(runner.infer, parts), alone, strict=True):
            np.testing.assert_array_equal(got, want)
    assert importlib.import_module(package).__version__ == runner.version
