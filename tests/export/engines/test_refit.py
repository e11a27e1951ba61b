"""New weights in an old engine, and switches of TensorRT that need a GPU: with a stand-in that keeps its rules, and on a GPU."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from g2sd_export import tensorrt_build, tensorrt_package, tensorrt_refit
from g2sd_export.edge.errors import UserError
from g2sd_export.edge.preprocess import Preprocessing
from g2sd_export.onnx_file import export_onnx
from g2sd_export.tensorrt_build import build_engine
from g2sd_export.tensorrt_package import Gpu, UnavailableError
from g2sd_export.tensorrt_refit import refit_engine
from g2sd_export.tensorrt_settings import BatchRange, EngineSettings

ORIN = Gpu("Orin", "SM87")


def enumeration(*names: str) -> Any:
    return SimpleNamespace(**{name: name for name in names})


class FakeEngine:
    def __init__(self, plan: bytes) -> None:
        self.refittable = plan.startswith(b"soft")
        self.weights = plan[4:]
        self.flags = {"EXCLUDE_WEIGHTS"}  # the default of the newest versions

    def create_serialization_config(self) -> Any:
        return SimpleNamespace(clear_flag=self.flags.discard, set_flag=self.flags.add)

    def serialize_with_config(self, _: Any) -> bytes:
        assert self.flags == {"INCLUDE_REFIT"}
        return b"soft" + self.weights


class FakeTensorRT:
    """The part of TensorRT that refits, and the part that is configured; a "model" is a text of comma separated weights."""

    __name__ = "tensorrt"
    __version__ = "10.3.0"
    LayerInformationFormat = enumeration("JSON")
    SerializationFlag = enumeration("EXCLUDE_WEIGHTS", "INCLUDE_REFIT")
    BuilderFlag = enumeration("TF32", "REFIT", "VERSION_COMPATIBLE")
    HardwareCompatibilityLevel = enumeration("NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY")
    MemoryPoolType = enumeration("WORKSPACE")
    ProfilingVerbosity = enumeration("DETAILED")
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)

    class ILogger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

        def __init__(self) -> None: ...

    def __init__(self) -> None:
        self.config = FakeConfig()
        self.network_flags = 0

    def Runtime(self, logger: Any) -> Any:  # noqa: N802
        def deserialize(plan: bytes) -> Any:
            if plan[:4] not in (b"soft", b"hard"):
                logger.log(1, "magic tag\ndoes not match")
                return None
            return FakeEngine(plan)

        return SimpleNamespace(deserialize_cuda_engine=deserialize)

    def Refitter(self, engine: FakeEngine, _: Any) -> Any:  # noqa: N802
        held = set(engine.weights.split(b","))
        given: set[bytes] = set()

        def refit() -> bool:
            engine.weights = b",".join(sorted(given))
            return True

        return SimpleNamespace(
            given=given,
            held={name.split(b"=")[0] for name in held},
            get_missing_weights=lambda: [
                name.decode() for name in {one.split(b"=")[0] for one in held} - {one.split(b"=")[0] for one in given}
            ],
            refit_cuda_engine=refit,
        )

    def OnnxParserRefitter(self, refitter: Any, _: Any) -> Any:  # noqa: N802
        def refit(content: bytes) -> bool:
            refitter.given.update(content.split(b","))
            return all(name.split(b"=")[0] in refitter.held for name in refitter.given)

        error = SimpleNamespace(node=lambda: 3, node_name=lambda: "head", node_operator=lambda: "Gemm", desc=lambda: "no such\nweights")
        return SimpleNamespace(refit_from_bytes=refit, num_errors=1, get_error=lambda _: error)

    def Builder(self, _: Any) -> Any:  # noqa: N802
        def network(flags: int) -> Any:
            self.network_flags = flags
            image = SimpleNamespace(name="images", shape=(-1, 1, 28, 28))
            return SimpleNamespace(num_inputs=1, get_input=lambda _: image, num_layers=0)

        return SimpleNamespace(
            create_network=network,
            create_builder_config=lambda: self.config,
            create_optimization_profile=lambda: SimpleNamespace(set_shape=lambda *shapes: self.config.shapes.append(shapes)),
            build_serialized_network=lambda *_: b"none",
        )

    def OnnxParser(self, *_: Any) -> Any:  # noqa: N802
        return SimpleNamespace(parse=lambda _: True)


class FakeConfig:
    def __init__(self) -> None:
        self.flags, self.shapes, self.caches = {"TF32"}, [], []  # type: ignore[var-annotated]
        self.set_flag, self.clear_flag = self.flags.add, self.flags.discard
        self.pools: dict[str, int] = {}
        self.set_memory_pool_limit = self.pools.__setitem__
        self.num_profiles = 0

    def add_optimization_profile(self, _: Any) -> None:
        self.num_profiles += 1

    def create_timing_cache(self, stored: bytes) -> bytes:
        return stored

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        fits = cache in (b"", b"ours")
        if fits:
            self.caches.append(cache)
        return fits

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: b"ours")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    """A machine with a GPU and TensorRT 10.3."""
    package = FakeTensorRT()
    for module in (tensorrt_build, tensorrt_package, tensorrt_refit):
        monkeypatch.setattr(module, "find_gpu", lambda: ORIN)
    monkeypatch.setattr(importlib, "import_module", lambda name: package)
    return package


def refit(folder: Path, plan: bytes, model: bytes) -> bytes:
    (folder / "old.engine").write_bytes(plan)
    (folder / "new.onnx").write_bytes(model)
    info = refit_engine(folder / "old.engine", folder / "new.onnx", runtime="tensorrt", path=folder / "new.engine")
    assert info.bytes == len((folder / "new.engine").read_bytes())
    assert info.to_dict()["version"] == "10.3.0"
    return (folder / "new.engine").read_bytes()


def test_weights_are_replaced_and_the_engine_can_be_refitted_again(fake: FakeTensorRT, tmp_path: Path) -> None:
    once = refit(tmp_path, b"softa=1,b=2", b"a=3,b=4")
    assert once == b"softa=3,b=4"
    assert refit(tmp_path, once, b"a=5,b=6") == b"softa=5,b=6"


@pytest.mark.parametrize(
    ("plan", "model", "message"),
    [
        (b"noise", b"a=1", r"old\.engine: tensorrt 10\.3\.0 cannot open it \(magic tag does not match\)"),
        (b"harda=1", b"a=1", r"old\.engine: its weights are built in; build it again with --refittable"),
        (
            b"softa=1",
            b"z=1",
            r"new\.onnx: tensorrt 10\.3\.0 cannot take its weights into the engine: node 'head' \(Gemm\): no such weights; it must",
        ),
        (b"softa=1,b=2", b"a=1", r"new\.onnx: lacks weights that the engine has: b; it must be the engine's graph"),
    ],
)
def test_an_engine_or_a_student_that_does_not_fit_is_refused(
    plan: bytes, model: bytes, message: str, fake: FakeTensorRT, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        refit(tmp_path, plan, model)
    assert not (tmp_path / "new.engine").exists()


def test_without_a_gpu_nothing_is_refitted(fake: FakeTensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_refit, "find_gpu", lambda: None)
    with pytest.raises(UnavailableError, match="only where there is its GPU"):
        refit(tmp_path, b"softa=1", b"a=2")


def test_every_setting_reaches_tensorrt(fake: FakeTensorRT, tmp_path: Path) -> None:
    settings = EngineSettings(
        "tensorrt",
        (BatchRange(1, 2, 4), BatchRange(8, 8, 8)),
        workspace_mib=64,
        optimisation_level=5,
        version_compatible=True,
        hardware_compatibility="ampere_plus",
        refittable=True,
        timing_cache=tmp_path / "timings",
    )
    (tmp_path / "model.onnx").write_bytes(b"model")
    info = build_engine(tmp_path / "model.onnx", settings, path=tmp_path / "one")
    config = fake.config
    assert fake.network_flags == 1 << 1
    assert config.flags == {"REFIT", "VERSION_COMPATIBLE"}
    assert (config.hardware_compatibility_level, config.builder_optimization_level) == ("AMPERE_PLUS", 5)  # type: ignore[attr-defined]
    assert config.pools == {"WORKSPACE": 64 << 20}
    assert config.shapes == [
        ("images", (1, 1, 28, 28), (2, 1, 28, 28), (4, 1, 28, 28)),
        ("images", (8, 1, 28, 28), (8, 1, 28, 28), (8, 1, 28, 28)),
    ]
    assert config.num_profiles == 2
    assert (info.gpu, info.compute_capabilities, info.layers.source) == ("Orin", ("SM87",), "none")


@pytest.mark.parametrize(("stored", "taken"), [(None, b""), (b"ours", b"ours"), (b"of another GPU", b"")])
def test_kernel_timings_are_kept_and_those_of_another_gpu_begun_anew(
    stored: bytes | None, taken: bytes, fake: FakeTensorRT, tmp_path: Path
) -> None:
    if stored is not None:
        (tmp_path / "timings").write_bytes(stored)
    (tmp_path / "model.onnx").write_bytes(b"model")
    build_engine(tmp_path / "model.onnx", EngineSettings("tensorrt", timing_cache=tmp_path / "timings"), path=tmp_path / "one")
    assert fake.config.caches == [taken]
    assert (tmp_path / "timings").read_bytes() == b"ours"


def test_fp32_is_fp32_unless_tf32_is_asked_for(fake: FakeTensorRT, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"model")
    build_engine(tmp_path / "model.onnx", EngineSettings("tensorrt", tf32=True), path=tmp_path / "one")
    assert fake.config.flags == {"TF32"}
    build_engine(tmp_path / "model.onnx", EngineSettings("tensorrt"), path=tmp_path / "two")
    assert fake.config.flags == set()


@pytest.mark.gpu
@pytest.mark.parametrize("package", ["tensorrt", "tensorrt_rtx"])
def test_an_engine_refitted_for_another_student_answers_as_that_student(
    package: Any,
    make_model: Callable[..., nn.Module],
    onnx_path: Path,
    tmp_path: Path,
    images: npt.NDArray[np.uint8],
    preprocessing: Preprocessing,
    gpu: None,
) -> None:
    from g2sd_export.edge.onnx_runner import OnnxRunner
    from g2sd_export.edge.tensorrt_runner import Engine

    pytest.importorskip(package, reason=f"{package} is not installed")
    settings = EngineSettings(package, (BatchRange(1, 1, 8),), refittable=True)
    build_engine(onnx_path, settings, path=tmp_path / "old.engine")
    other = make_model()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.25).add_(0.01)
    student = export_onnx(other, image_px=28, num_channels=1, path=tmp_path / "new.onnx").path
    refit_engine(tmp_path / "old.engine", student, runtime=package, path=tmp_path / "new.engine")
    got = Engine(tmp_path / "new.engine").runner(preprocessing).infer(images)
    np.testing.assert_allclose(got, OnnxRunner(student, preprocessing, threads=1).infer(images), atol=1e-3)
