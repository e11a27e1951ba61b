"""From a variant of a bundle with a task to the network that was proven: its runtime, its settings, and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import IntegrityError, UserError
from ..opening import others, refuse_other_metadata
from .network import Network, onnx_network, openvino_network
from .task import DenseTask

if TYPE_CHECKING:
    from ..manifest import Bundle, Variant

_SETTINGS = {"onnxruntime": "provider", "openvino": "inference_precision"}


def open_network(bundle: Bundle, variant: Variant, threads: int | None = None) -> Network:
    """A network for a variant, with the settings that its manifest records: ``provider`` or ``inference_precision``.

    Args:
        bundle: An opened bundle.
        variant: One of its variants.
        threads: Threads of the runtime; None takes one per CPU this process may use.

    Raises:
        UserError: The bundle is one of a classifier, the runtime is absent, refuses the file or is none for such networks, or a setting is
            unknown.
        IntegrityError: The file changed since the bundle was opened, or is not what the manifest says of it.
    """
    if bundle.task is None:
        raise UserError(f"{bundle.folder}: its model is a classifier, and one of pixels or objects was wanted; give another bundle")
    try:
        network = _opened(bundle, bundle.task, variant, threads)
    except UserError as error:
        if isinstance(error, IntegrityError):
            raise
        raise UserError(f"variant {variant.name}: {error}{others(bundle, variant)}") from error
    _check(bundle, bundle.task, variant, network)
    return network


def _opened(bundle: Bundle, task: DenseTask, variant: Variant, threads: int | None) -> Network:
    if variant.runtime not in _SETTINGS:
        raise UserError(f"{variant.runtime} runs classifiers only; networks of {task.kind} run on {' and '.join(_SETTINGS)}")
    wanted = _SETTINGS[variant.runtime]
    if set(variant.settings) != {wanted}:
        raise UserError(f"its settings are {', '.join(variant.settings) or 'none'}; wanted {wanted}")
    content, num_classes = bundle.read(variant.file), len(bundle.class_names)
    settings: dict[str, Any] = {"threads": threads, **variant.settings}
    if variant.runtime == "onnxruntime":
        return onnx_network(content, task, num_classes, **settings)
    return openvino_network(content, task, num_classes, **settings)


def _check(bundle: Bundle, task: DenseTask, variant: Variant, network: Network) -> None:
    found, said = network.image_input, variant.input
    told = (said["dtype"], said["layout"], variant.output["name"])
    if (found.dtype, found.layout, network.outputs[0]) != told:
        takes = f"takes {found.dtype} {found.layout} and gives {network.outputs[0]}"
        raise IntegrityError(
            f"{variant.file} {takes}, and the manifest says {' '.join(map(str, told[:2]))} and {told[2]}; copy or download the bundle again"
        )
    wanted = {
        "class_names": list(bundle.class_names),
        "preprocessing": bundle.preprocessing.to_dict(),
        "task": task.to_dict(),
    }
    refuse_other_metadata(variant.file, network.metadata, wanted)
