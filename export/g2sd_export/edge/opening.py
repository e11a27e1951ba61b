"""From a variant of a bundle to the runner that was proven with it: its runtime, its settings, and no other."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .errors import IntegrityError, UserError
from .runner import Runner

if TYPE_CHECKING:
    from .manifest import Bundle, Variant


def open_variant(bundle: Bundle, variant: Variant, threads: int | None = None) -> Runner:
    """A runner for a variant, with the settings that its manifest records.

    Settings: ``provider`` of onnxruntime; ``inference_precision`` (f32 or bf16) of openvino; an engine's tell how it was built, and its
    ``source`` and ``source_sha256`` were compared with the bundle's when it was opened.

    Args:
        bundle: An opened bundle.
        variant: One of its variants.
        threads: Threads of a runtime on the CPU; None takes one per CPU this process may use.

    Raises:
        UserError: The runtime is absent or refuses the file, or a setting is unknown.
        IntegrityError: The file changed since the bundle was opened, or is not what the manifest says of it.
    """
    try:
        runner = _OPENERS[variant.runtime](bundle, variant, threads)
    except UserError as error:
        if isinstance(error, IntegrityError):
            raise
        raise UserError(f"variant {variant.name}: {error}{others(bundle, variant)}") from error
    _check(bundle, variant, runner)
    return runner


def _onnxruntime(bundle: Bundle, variant: Variant, threads: int | None) -> Runner:
    from .onnx_runner import OnnxRunner

    settings = _known(variant.settings, "provider")
    return OnnxRunner(bundle.read(variant.file), bundle.preprocessing, threads=threads, **settings)


def _openvino(bundle: Bundle, variant: Variant, threads: int | None) -> Runner:
    from .openvino_runner import OpenVINORunner

    settings = _known(variant.settings, "inference_precision")
    return OpenVINORunner(bundle.read(variant.file), bundle.preprocessing, threads=threads, **settings)


def _tensorrt(bundle: Bundle, variant: Variant, _: int | None) -> Runner:
    from .tensorrt_runner import Engine

    engine = Engine(bundle.folder / variant.file, content=bundle.read(variant.file))
    if engine.name != variant.runtime:
        raise UserError(f"{variant.file} was built for {variant.runtime}, and {engine.name} opened it")
    return engine.runner(bundle.preprocessing)


_OPENERS: Mapping[str, Callable[[Bundle, Variant, "int | None"], Runner]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "tensorrt": _tensorrt,
    "tensorrt_rtx": _tensorrt,
}


def _known(settings: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """The settings, if they are exactly these: one that is ignored or guessed would run something else than what was proven."""
    if set(settings) != set(keys):
        raise UserError(f"its settings are {', '.join(settings) or 'none'}; wanted {', '.join(keys)}")
    return dict(settings)


def _check(bundle: Bundle, variant: Variant, runner: Any) -> None:
    found, said = runner.image_input, variant.input
    if (found.dtype, found.layout) != (said["dtype"], said["layout"]):
        raise IntegrityError(
            f"{variant.file} takes {found.dtype} {found.layout}, and the manifest says {said['dtype']} {said['layout']}; "
            "copy or download the bundle again"
        )
    if runner.num_classes != len(bundle.class_names):
        raise IntegrityError(
            f"{variant.file} gives {runner.num_classes} logits and {len(bundle.class_names)} classes are named; "
            "copy or download the bundle again"
        )
    wanted = {"class_names": list(bundle.class_names), "preprocessing": bundle.preprocessing.to_dict()}
    refuse_other_metadata(variant.file, getattr(runner, "metadata", {}), wanted)  # an engine holds none


def refuse_other_metadata(file: str, metadata: Mapping[str, str], wanted: Mapping[str, object]) -> None:
    """Raise IntegrityError where a model file says something else of itself than its bundle.

    Args:
        file: Path of the model in the bundle.
        metadata: What it says, as JSON, by key.
        wanted: What the bundle says; keys that the file does not have are let pass.
    """
    for key, text in metadata.items():
        if key in wanted and _parsed(text) != wanted[key]:
            raise IntegrityError(f"{file} was made with other {key.replace('_', ' ')} than the bundle has; export the model again")


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def others(bundle: Bundle, variant: Variant) -> str:
    """Advice: variants of this bundle that run elsewhere."""
    names = [item.name for item in bundle.variants if item.runtime != variant.runtime and item.verdict != "failed"]
    return f"; or take another variant: {', '.join(names)}" if names else ""
