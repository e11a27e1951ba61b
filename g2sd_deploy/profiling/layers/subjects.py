"""What a layer table is made of: a model on a runtime, with the call that is timed elsewhere and the graph that it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from g2sd_deploy.errors import UserError

if TYPE_CHECKING:
    from g2sd_export.bundle import Bundle, Variant

Feeds = Mapping[str, npt.NDArray[Any]]
_CPU_PROVIDER = "CPUExecutionProvider"
_TENSORRT = ("tensorrt", "tensorrt_rtx")


@dataclass(frozen=True)
class Running:
    """A model that is ready to be called.

    Attributes:
        call: One batch; returns when the answer is on the host.
        feeds: What it is fed, by the name of the input.
        version: Of the runtime.
        runner: The runner behind it, where its engine has to be asked.
    """

    call: Callable[[], object]
    feeds: Feeds
    version: str
    runner: Any = None


@dataclass(frozen=True)
class LayerSubject:
    """A model on a runtime.

    Attributes:
        model: As it was asked for: a path, a name or a role.
        variant: Of a bundle; empty otherwise.
        runtime: onnxruntime, openvino, tensorrt or tensorrt_rtx; another one has no layers to tell.
        precision: Number format as told: fp32, bf16, fp16, int8, fp8; empty where nobody says.
        graph: The ONNX file that runs, or that the engine was built from: its path or its content.
        settings: Of the runtime: ``provider`` of onnxruntime, ``inference_precision`` of openvino.
        open: Makes it ready for a batch on a number of threads; raises UserError where it cannot run here.
        refusal: Why it is not looked into; empty where it may be tried.
    """

    model: str
    variant: str
    runtime: str
    precision: str
    graph: Path | bytes
    open: Callable[[int, int], Running]
    settings: Mapping[str, Any] = field(default_factory=dict)
    refusal: str = ""


def subjects_of_bundle(bundle: Bundle, names: Sequence[str] | None = None, *, model: str = "") -> list[LayerSubject]:
    """Variants of a bundle, on the runtimes and with the settings that they were proven with.

    Args:
        bundle: An opened bundle.
        names: Variants that are wanted; None for all.
        model: What the tables call it; empty for the bundle's name.
    """
    wanted = [variant for variant in bundle.variants if names is None or variant.name in names]
    return [_of_variant(bundle, variant, model or bundle.name) for variant in wanted]


def subject_of_file(
    model: str,
    file: Path | bytes,
    runtime: str,
    feeds: Callable[[int], Feeds],
    *,
    settings: Mapping[str, Any] | None = None,
    precision: str = "",
) -> LayerSubject:
    """Any ONNX file on a runtime.

    Args:
        model: What the table calls it.
        file: Its path, or its content.
        runtime: onnxruntime or openvino.
        feeds: From a batch size to the inputs, by name; raises UserError where the file fixes another batch.
        settings: Of the runtime; None takes float32 on the CPU.
        precision: Number format as told.
    """
    chosen = dict(settings) if settings is not None else _default_settings(runtime)
    opener = {"onnxruntime": _open_onnxruntime, "openvino": _open_openvino}.get(runtime)
    if opener is None:
        return refused_subject(model, runtime, f"{runtime} runs no ONNX file by itself", precision=precision)
    return LayerSubject(model, "", runtime, precision, file, partial(opener, file, chosen, feeds), chosen)


def refused_subject(model: str, runtime: str, reason: str, *, variant: str = "", precision: str = "") -> LayerSubject:
    """A subject whose table says why it has no numbers."""
    return LayerSubject(model, variant, runtime, precision, b"", _never, refusal=reason)


def probed_model(graph: Path | bytes, feeds: Feeds) -> Any:
    """An ONNX file as OpenVINO's model, sized for what it is fed."""
    from g2sd_export.edge.openvino_runner import read_model

    model = read_model(graph)
    model.reshape({name: list(value.shape) for name, value in feeds.items() if value.ndim})
    return model


def _default_settings(runtime: str) -> dict[str, Any]:
    return {"provider": _CPU_PROVIDER} if runtime == "onnxruntime" else {"inference_precision": "f32"}


def _never(batch: int, threads: int) -> Running:
    raise AssertionError(f"a refused subject was opened for batch {batch} on {threads} threads")


def _open_onnxruntime(file: Path | bytes, settings: Mapping[str, Any], feeds: Callable[[int], Feeds], batch: int, threads: int) -> Running:
    import tempfile

    from g2sd_export.edge.onnx_runner import open_session

    fed = feeds(batch)
    with tempfile.TemporaryDirectory() as folder:
        version, session = open_session(file, threads, settings["provider"], folder)
    return Running(lambda: session.run(None, dict(fed)), fed, version)


def _open_openvino(file: Path | bytes, settings: Mapping[str, Any], feeds: Callable[[int], Feeds], batch: int, threads: int) -> Running:
    import openvino

    from g2sd_export.edge.openvino_runner import compile_model, refuse_missing_precision

    refuse_missing_precision(settings["inference_precision"])
    fed = feeds(batch)
    compiled = compile_model(probed_model(file, fed), threads=threads, inference_precision=settings["inference_precision"])
    request = compiled.create_infer_request()
    return Running(lambda: request.infer(dict(fed), share_inputs=True), fed, str(openvino.__version__).split("-")[0])


def _of_variant(bundle: Bundle, variant: Variant, model: str) -> LayerSubject:
    if refusal := bundle.refusal(variant):
        return refused_subject(model, variant.runtime, refusal, variant=variant.name, precision=variant.precision)
    graph = bundle.read(variant.settings.get("source", variant.file) if variant.runtime in _TENSORRT else variant.file)
    opener = partial(_open_variant, bundle, variant)
    return LayerSubject(model, variant.name, variant.runtime, variant.precision, graph, opener, variant.settings)


def _open_variant(bundle: Bundle, variant: Variant, batch: int, threads: int) -> Running:
    opened = bundle.runner if bundle.task is None else bundle.network
    runner: Any = opened(threads=threads, variant=variant.name)
    fixed = runner.image_input.batch
    if fixed not in (None, batch):
        raise UserError(f"{variant.file} takes {fixed} images at a time and no other number; ask for batch {fixed}")
    pre = bundle.preprocessing
    pixels = np.random.default_rng(0).integers(0, 256, (batch, pre.image_px, pre.image_px, pre.num_channels), dtype=np.uint8)
    inputs = runner.prepare(pixels)
    return Running(lambda: runner.forward(inputs), {runner.image_input.name: inputs}, runner.version, runner)
