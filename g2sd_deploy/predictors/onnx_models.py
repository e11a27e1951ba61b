"""Any ONNX classifier: one of ours, which describes itself, or a foreign one that is described beside it or on the command line."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from g2sd_deploy.errors import UserError
from g2sd_deploy.predictors.predictor import Predictor
from g2sd_deploy.predictors.preprocessing import (
    AskedPreprocessing,
    Said,
    Sidecar,
    check_class_names,
    read_sidecar,
    said_by_json,
    settle,
)

if TYPE_CHECKING:
    from g2sd_export.edge.preprocess import Preprocessing
    from g2sd_export.edge.runner import Choices


def onnx_predictor(name: str, path: Path, asked: AskedPreprocessing | None) -> Predictor:
    """An ONNX file on ONNX Runtime's CPU.

    Raises:
        UserError: It is no classifier of square images, or how it wants them is said by nobody or in two ways.
    """
    from g2sd_export.edge.onnx_runner import OnnxRunner
    from g2sd_export.onnx_file import count_parameters

    content = path.read_bytes()
    graph, metadata = _opened(path, content)
    sidecar = read_sidecar(path)
    others = [path.parent / file for file in _files_beside(graph)]
    digest = _digest(name, content, others)
    sidecar.check(digest)
    try:
        choices, said = _choices(graph, sidecar), _said_by_graph(graph, sidecar)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    stored = [said_by_json(f"{name}: its metadata", metadata["preprocessing"])] if "preprocessing" in metadata else []
    pre = settle(name, [*stored, said, sidecar.said()], asked, sidecar=sidecar.path)
    names = _class_names(name, metadata, sidecar)
    num_classes = _checked_runner(name, path, pre, choices).num_classes
    check_class_names(name, names, num_classes)
    return Predictor(
        name=name,
        kind="onnx",
        preprocessing=pre,
        class_names=names,
        num_classes=num_classes,
        num_parameters=count_parameters(content),
        model_bytes=len(content) + sum(file.stat().st_size for file in others),
        digest=digest,
        open=lambda threads: OnnxRunner(path, pre, threads=threads, choices=choices),
    )


def _opened(path: Path, content: bytes) -> tuple[Any, dict[str, str]]:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError) as error:
        raise UserError(f"{path}: is no whole ONNX file ({' '.join(str(error).split())}); fetch or export it again") from None
    if not model.graph.output:
        raise UserError(f"{path}: is no whole ONNX file (it has no outputs); fetch or export it again")
    return model.graph, {item.key: item.value for item in model.metadata_props}


def _checked_runner(name: str, path: Path, pre: "Preprocessing", choices: "Choices") -> Any:
    from g2sd_export.edge.onnx_runner import OnnxRunner

    try:
        return OnnxRunner(path, pre, threads=1, choices=choices)
    except UserError as error:
        raise UserError(f"{name}: {str(error).removeprefix(f'{path}: ')}") from None


def _said_by_graph(graph: Any, sidecar: Sidecar) -> Said:
    """What the shape of the input tells."""
    from g2sd_export.edge.image_input import read_image_input

    stored = {item.name for item in graph.initializer}
    inputs = [item for item in graph.input if item.name not in stored]
    if len(inputs) != 1:
        raise UserError(f"takes {len(inputs)} inputs ({', '.join(item.name for item in inputs)}); wanted one, of images")
    try:
        image = read_image_input(inputs[0].name, _dims(inputs[0]), sidecar.layout)
    except UserError as error:
        advice = f' (as "layout" in {sidecar.path})' if "say NCHW or NHWC" in str(error) else ""
        raise UserError(f"{error}{advice}") from None
    found = {"image_px": image.image_px, "num_channels": image.num_channels}
    return Said("its input", {key: value for key, value in found.items() if value is not None})


def _choices(graph: Any, sidecar: Sidecar) -> "Choices":
    from g2sd_export.edge.image_input import choose_output
    from g2sd_export.edge.runner import Choices

    try:
        output = choose_output({item.name: _dims(item) for item in graph.output}, sidecar.output)
    except UserError as error:
        raise UserError(f'{error} as "output" in {sidecar.path}') from None
    made_by = next((node.op_type for node in graph.node if output in node.output), "")
    if made_by == "Sigmoid":
        raise UserError(
            f"its output {output!r} comes out of a Sigmoid: each class has a probability of its own, and wanted is one class per image"
        )
    return Choices(output=output, layout=sidecar.layout, probabilities=made_by == "Softmax")


def _class_names(name: str, metadata: dict[str, str], sidecar: Sidecar) -> tuple[str, ...] | None:
    if "class_names" not in metadata:
        return sidecar.class_names
    try:
        names = json.loads(metadata["class_names"])
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(item, str) for item in names):
        raise UserError(f"{name}: its metadata holds the class names {metadata['class_names']:.80}; wanted a JSON list of texts")
    if sidecar.class_names not in (None, tuple(names)):
        raise UserError(f"{name}: its metadata and {sidecar.path} hold different class names; correct one of them")
    return tuple(names)


def _files_beside(graph: Any) -> Iterator[str]:
    """Files that hold weights outside the ONNX file."""
    places = {entry.value for item in graph.initializer for entry in item.external_data if entry.key == "location"}
    yield from sorted(places)


def _digest(name: str, content: bytes, others: list[Path]) -> str:
    """Of the file; where weights lie beside it, of the digests of all files."""
    from g2sd_deploy.artifact import sha256_of

    if missing := [file for file in others if not file.is_file()]:
        raise UserError(f"{name}: its weights lie in {missing[0]}, which is not there; copy it beside the ONNX file")
    digest = hashlib.sha256(content).hexdigest()
    return hashlib.sha256("".join([digest, *map(sha256_of, others)]).encode()).hexdigest() if others else digest


def _dims(item: Any) -> list[int | str]:
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in item.type.tensor_type.shape.dim]
