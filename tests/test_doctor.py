"""What doctor finds on machines that lack this or that."""

import importlib
import json
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pytest
from typer.testing import CliRunner

from g2sd_deploy import doctor
from g2sd_deploy.cli import app
from g2sd_deploy.doctor import Finding, examine, print_findings


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Finding]]:
    """Examine a machine that has exactly the given modules; a string stands for why an import fails."""

    def examine_with(**modules: object) -> dict[str, Finding]:
        for name in ("torch", "timm", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx"):
            module = modules.get(name)
            monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]  # None: the import fails
        return {finding.name: finding for finding in examine()}

    return examine_with


def fake_torch(*, gpus: int = 0) -> ModuleType:
    cuda = SimpleNamespace(is_available=lambda: gpus > 0, device_count=lambda: gpus, get_device_name=lambda i: f"GPU {i}")
    torch = ModuleType("torch")
    vars(torch).update(__version__="2.9", get_num_threads=lambda: 4, cuda=cuda, version=SimpleNamespace(cuda="12.8"))
    return torch


def module(name: str, **attributes: object) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(attributes)
    return made


CPU_RUNTIME = module("onnxruntime", __version__="1.23", get_available_providers=lambda: ["CPUExecutionProvider"])
GPU_RUNTIME = module("onnxruntime", __version__="1.23", get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])


def test_a_laptop_has_what_is_required_and_hears_what_to_install_for_the_rest(machine: Callable[..., dict[str, Finding]]) -> None:
    found = machine(torch=fake_torch(), timm=module("timm", __version__="1.0.20"), onnxruntime=CPU_RUNTIME)
    assert {name for name, finding in found.items() if finding.status == "ok"} == {"machine", "torch", "timm", "ONNX Runtime"}
    assert found["torch"].detail == "2.9, 4 threads" and found["torch"].advice == ""
    assert found["ONNX Runtime"].detail == "1.23: CPUExecutionProvider"
    assert found["CUDA"].detail == "torch finds no usable GPU" and "NVIDIA GPU" in found["CUDA"].advice
    for name, advice in (
        ("OpenVINO", "pip install 'g2sd-deploy[openvino]'"),
        ("TensorRT", "pip install 'g2sd-deploy[tensorrt]'"),
        ("TensorRT-RTX", "pip install 'g2sd-deploy[tensorrt-rtx]'"),
    ):
        assert (found[name].status, found[name].advice, found[name].required) == ("missing", advice, False)


def test_a_gpu_is_found(machine: Callable[..., dict[str, Finding]]) -> None:
    found = machine(
        torch=fake_torch(gpus=2), timm=module("timm", __version__="1"), onnxruntime=GPU_RUNTIME, tensorrt=module("t", __version__="10.3")
    )
    assert found["CUDA"].detail == "CUDA 12.8, GPU 0, GPU 1"
    assert found["ONNX Runtime CUDA"].detail == "1.23"
    assert found["TensorRT"] == Finding("TensorRT", "ok", "10.3", "", required=False)


def test_a_package_whose_library_does_not_load_counts_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise OSError(f"libnv{name}.so.10: cannot open\n  shared object file")

    monkeypatch.setattr(importlib, "import_module", broken)
    found = {finding.name: finding for finding in examine()}
    assert (found["TensorRT"].status, found["TensorRT"].detail) == ("missing", "libnvtensorrt.so.10: cannot open shared object file")


FOUND = [Finding("torch", "ok", "2.9", "", True), Finding("TensorRT", "missing", "No module", "pip install 'g2sd-deploy[tensorrt]'", False)]
BROKEN = [Finding("timm", "missing", "No module named 'timm'", "pip install timm", True)]


@pytest.mark.parametrize(("findings", "code"), [(FOUND, 0), (BROKEN, 1), ([*FOUND, *BROKEN], 1)])
def test_the_exit_code_says_whether_the_chain_can_run(findings: list[Finding], code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: findings)
    for arguments in (["doctor"], ["doctor", "--json"]):
        assert CliRunner().invoke(app, arguments).exit_code == code


def test_the_table_shows_brackets_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_findings(FOUND, as_json=False)
    assert "g2sd-deploy[tensorrt]" in " ".join(capsys.readouterr().out.split())


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    print_findings(FOUND, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert [finding["name"] for finding in found["findings"]] == ["torch", "TensorRT"]
    assert found["findings"][1]["advice"] == "pip install 'g2sd-deploy[tensorrt]'"


def test_this_machine_can_run_the_chain() -> None:
    assert [finding.name for finding in examine() if finding.required and finding.status != "ok"] == []
