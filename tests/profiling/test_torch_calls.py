"""Weights on torch as what is timed."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from g2sd_deploy.errors import UserError
from g2sd_deploy.profiling import torch_calls
from g2sd_deploy.profiling.candidate import Case
from g2sd_deploy.profiling.torch_calls import Network, TorchCall, open_torch, torch_as_before, why_no_torch

CPU = torch.device("cpu")


@pytest.fixture
def network() -> Network:
    return Network(nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5), nn.Dropout(0.5)), image_px=4, num_channels=3)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_call_is_the_forward_pass_in_evaluation_mode(network: Network, batch: int) -> None:
    network.module.train()
    opened = open_torch(network, "torch", Case(batch, 1))
    with torch.no_grad():
        wanted = network.module[1](network.images(batch).flatten(1))  # type: ignore[index]
    got = opened.call()
    torch.testing.assert_close(got, wanted)
    assert (opened.version, opened.provider, opened.phases) == (torch.__version__, "", None)


def test_threads_are_those_asked_for_and_put_back_in_the_end(network: Network) -> None:
    before = torch.get_num_threads()
    seen = []
    network.module.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    with torch_as_before():
        open_torch(network, "torch", Case(1, before + 1)).call()
    assert seen == [before + 1] and torch.get_num_threads() == before


def test_a_machine_without_a_compiler_is_told_what_to_install(network: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"^torch.compile needs a C\+\+ compiler, and none of g\+\+, clang\+\+"):
        open_torch(network, "torch-compile", Case(1, 1))
    monkeypatch.setenv("CXX", "/opt/bin/clang++")
    assert why_no_torch("torch-compile") == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("runtime", ["torch-cuda", "torch-compile-cuda"])
def test_a_machine_without_a_gpu_says_so(network: Network, runtime: str) -> None:
    with pytest.raises(UserError, match="finds no usable GPU"):
        open_torch(network, runtime, Case(1, 1))


def test_a_network_that_cannot_be_compiled_is_told_in_one_line(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(module: nn.Module, **_: object) -> object:
        def broken(images: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("C++ compile error\nfatal error: omp.h: No such file")

        return broken

    monkeypatch.setattr(torch, "compile", refuse)
    monkeypatch.setenv("CXX", os.environ.get("CXX", "c++"))
    with pytest.raises(UserError, match=r"^torch.compile cannot compile it \(C\+\+ compile error fatal error: omp.h: No such file\)$"):
        open_torch(network, "torch-compile", Case(1, 1))


def test_the_parts_of_a_call_are_waited_for_and_told_apart(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gpu:
        """A clock and a queue: copying takes 1 ms, computing 5 ms, and a launch nothing."""

        now, waiting = 0.0, 0.0

        def launch(self, seconds: float) -> None:
            self.waiting += seconds

        def synchronize(self, *_: object) -> None:
            self.now, self.waiting = self.now + self.waiting, 0.0

    gpu = Gpu()

    class Images(torch.Tensor):
        def to(self, *_: object, **__: object) -> "Images":  # type: ignore[override]
            gpu.launch(0.001)
            return self

    class Logits:
        def float(self) -> "Logits":
            return self

        def cpu(self) -> "Logits":
            gpu.launch(0.002)
            gpu.synchronize()
            return self

    def compute(images: torch.Tensor) -> Logits:
        gpu.launch(0.005)
        return Logits()

    call = TorchCall(compute, network.images(1), CPU, 1)  # type: ignore[arg-type]
    call._images, call._device = torch.zeros(1).as_subclass(Images), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "synchronize", gpu.synchronize)
    monkeypatch.setattr(torch_calls.time, "perf_counter", lambda: gpu.now)
    assert call.phases() == pytest.approx({"to_device_ms": 1.0, "compute_ms": 5.0, "from_device_ms": 2.0})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_a_gpu_computes_in_a_copy_and_tells_its_copies_apart(network: Network) -> None:
    opened = open_torch(network, "torch-cuda", Case(2, 1))
    assert opened.provider == torch.cuda.get_device_name() and next(network.module.parameters()).device.type == "cpu"
    torch.testing.assert_close(opened.call(), open_torch(network, "torch", Case(2, 1)).call(), atol=1e-2, rtol=1e-2)
    assert opened.phases is not None
    assert set(opened.phases()) == {"to_device_ms", "compute_ms", "from_device_ms"} and min(opened.phases().values()) > 0


@pytest.mark.slow
def test_what_is_compiled_answers_as_the_eager_network(network: Network) -> None:
    with torch_as_before():
        compiled = open_torch(network, "torch-compile", Case(2, 1)).call()
        torch.testing.assert_close(compiled, open_torch(network, "torch", Case(2, 1)).call())
