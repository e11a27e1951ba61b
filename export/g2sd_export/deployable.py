"""From a graph that wants normalised floats to one that takes the pixels themselves.

The mean and the standard deviation go into the weights of the patch projection, the only operator that sees pixels, so the device converts
nothing and no operator is added but a Cast. Shape letters: B images, H rows, W columns, C channels, P and Q rows and columns of a patch,
N patches, K numbers of a patch (C x P x Q), D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .edge.errors import UserError
from .edge.preprocess import Preprocessing
from .onnx_file import OnnxInfo, write_onnx
from .onnx_graph import Graph, attributes, fold_constants, read_onnx, replace_nodes, with_inputs

if TYPE_CHECKING:
    import onnx

Weights = npt.NDArray[np.float64]

# Axes of images cut into patches, [B, C, rows, P, columns, Q], and where each lies once the channels are last, [B, rows, P, columns, Q, C].
_AXIS_NHWC = {0: 0, 1: 5, 2: 1, 3: 2, 4: 3, 5: 4}
_NHWC_PATCH = (3, 5, 1)  # numbers of a patch in the order (P, Q, C): pixels that lie side by side in memory stay together


@dataclass
class _Edit:
    """What changes in the graph: nodes by the output they had, nodes that come first or behind another, and new constants.

    ``pixels`` is the tensor that holds the images once they are cast.
    """

    pixels: str = ""
    replaced: dict[str, onnx.NodeProto] = field(default_factory=dict)
    first: list[onnx.NodeProto] = field(default_factory=list)
    behind: dict[str, onnx.NodeProto] = field(default_factory=dict)
    constants: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def apply(self, graph: onnx.GraphProto) -> None:
        nodes = list(self.first)
        for node in graph.node:
            name = node.output[0]
            nodes.append(self.replaced.get(name, node))
            if name in self.behind:
                nodes.append(self.behind[name])
        replace_nodes(graph, nodes, self.constants)


def deployable_onnx(source: Path, preprocessing: Preprocessing, *, path: Path) -> OnnxInfo:
    """Write the same model for raw pixels: what ``source`` answers to ``normalise(pixels)``, this answers to the pixels.

    Args:
        source: A float32 ONNX file with input [B, C, H, W], whose first operator on the images is a patch projection: a reshape, a
            transpose, a reshape and a matrix product (as ``export_onnx`` writes it), or a convolution without padding.
        preprocessing: Mean, standard deviation, size and channels of that input.
        path: The file to write, whole or not at all; its metadata is that of ``source`` with ``input`` and ``source_sha256``.

    Returns:
        Digest, size and shapes of the file, which takes uint8 [B, H, W, C]; new weights are computed in float64 and rounded once.

    Raises:
        UserError: The file is not ONNX, its input is of another type or size, or its images meet another operator first.
    """
    read = read_onnx(source)
    fold_constants(read.proto)
    edit = _Edit()
    graph = Graph(read.proto.graph)
    images = _image_input(graph, preprocessing, source)
    first = _first_operator(graph, images, source)
    _cast(graph, images, edit)
    if first.op_type == "Conv":
        _fold_into_convolution(graph, first, preprocessing, edit, source)
    else:
        _fold_into_patches(graph, first, preprocessing, edit, source)
    edit.apply(read.proto.graph)
    _take_pixels(read.proto.graph.input[0], preprocessing)
    del read.proto.graph.value_info[:]
    return write_onnx(read.proto, path, metadata=read.metadata | {"input": "uint8 NHWC, raw pixels", "source_sha256": read.sha256})


def _image_input(graph: Graph, pre: Preprocessing, source: Path) -> str:
    """Name of the one input, which must be float32 [B, C, H, W] of the size of the preprocessing."""
    import onnx

    inputs = list(graph.graph.input)
    kind = inputs[0].type.tensor_type if len(inputs) == 1 else None
    wanted = [pre.num_channels, pre.image_px, pre.image_px]
    dims = [dim.dim_param or dim.dim_value for dim in kind.shape.dim] if kind else []
    if kind is None or kind.elem_type != onnx.TensorProto.FLOAT or dims[1:] != wanted:
        found = ", ".join(_described(item) for item in inputs)
        raise UserError(
            f"{source}: its input is {found}; wanted one float32 input of shape [batch, {', '.join(map(str, wanted))}]: "
            "give the float file that was exported with this preprocessing"
        )
    return str(inputs[0].name)


def _described(item: onnx.ValueInfoProto) -> str:
    import onnx

    kind = item.type.tensor_type
    dims = ", ".join(dim.dim_param or str(dim.dim_value) for dim in kind.shape.dim)
    return f"{item.name} {onnx.TensorProto.DataType.Name(kind.elem_type).lower()} [{dims}]"


def _first_operator(graph: Graph, images: str, source: Path) -> onnx.NodeProto:
    """The one operator that reads pixels; readers of the batch size alone do not count."""
    readers = [node for node in graph.consumers.get(images, []) if not _reads_batch_size(graph, node)]
    if len(readers) != 1 or readers[0].op_type not in ("Conv", "Reshape"):
        raise _refused(source, f"its images go first into {_names(readers)}")
    return readers[0]


def _reads_batch_size(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node asks for the first dimension alone, which is the same in both layouts."""
    if node.op_type != "Shape":
        return False
    settings = attributes(node)
    if settings.get("start", 0) == 0 and settings.get("end") == 1:
        return True
    readers = graph.consumers.get(node.output[0], [])
    return bool(readers) and all(
        reader.op_type == "Gather" and (index := graph.constant(reader.input[1])) is not None and not index.any() for reader in readers
    )


def _refused(source: Path, found: str) -> UserError:
    wanted = "a patch projection: Reshape, Transpose, Reshape and MatMul or Gemm, or a Conv without padding"
    return UserError(f"{source}: {found}; mean and std can be folded into {wanted} only; ship the float file of this model instead")


def _names(nodes: list[onnx.NodeProto]) -> str:
    return ", ".join(f"{node.op_type} {node.name}".strip() for node in nodes) or "nothing"


def _fold_into_convolution(graph: Graph, conv: onnx.NodeProto, pre: Preprocessing, edit: _Edit, source: Path) -> None:
    """Cast, put the channels first, convolve with folded weights."""
    from onnx import helper

    settings, weight = attributes(conv), graph.constant(conv.input[1])
    # A border of zeros is a border of the mean colour to the float model; in pixels it would be black.
    padded = any(settings.get("pads", ())) or settings.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    if weight is None or padded or settings.get("group", 1) != 1:
        raise _refused(source, f"its first operator {_names([conv])} has padding, groups or weights that are computed")
    scale, shift = _scale_and_shift(pre)
    kernel = weight.astype(np.float64)
    bias = _bias(graph, conv.input[2] if len(conv.input) > 2 else "", len(kernel), source)
    folded = kernel * scale[None, :, None, None]
    names = _constants(graph, edit, folded, bias + (kernel * shift[None, :, None, None]).sum(axis=(1, 2, 3)))
    nchw = graph.new_name("images_nchw")
    edit.first.append(helper.make_node("Transpose", [edit.pixels], [nchw], "images_nchw", perm=[0, 3, 1, 2]))
    edit.replaced[conv.output[0]] = with_inputs(conv, [nchw, *names])


def _fold_into_patches(graph: Graph, cut: onnx.NodeProto, pre: Preprocessing, edit: _Edit, source: Path) -> None:
    """Cast, cut the patches with the channels last, multiply with folded weights whose rows are in that order."""
    order, join = _patch_order(graph, cut, pre, source)
    product = graph.only_consumer(join.output[0])
    if product is None or product.op_type not in ("MatMul", "Gemm") or product.input[0] != join.output[0]:
        raise _refused(source, f"its patches go into {_names(graph.consumers.get(join.output[0], []))}")
    weight = _rows_by_number(graph, product, source)  # [K, D]
    sizes = _patch_sizes(graph, cut)
    if len(weight) != sizes[1] * sizes[3] * sizes[5]:
        raise _refused(source, f"its patch projection {_names([product])} multiplies rows of {len(weight)} numbers")
    scale, shift = _scale_and_shift(pre)
    rows = weight.reshape(*(sizes[axis] for axis in order), -1)
    rows = rows.transpose(*(order.index(axis) for axis in _NHWC_PATCH), 3)  # [P, Q, C, D]
    folded = (rows * scale[None, None, :, None]).reshape(weight.shape)
    shift = (rows * shift[None, None, :, None]).sum(axis=(0, 1, 2))
    _cut_channels_last(graph, cut, sizes, edit)
    _multiply(graph, product, folded, shift, edit, source)


def _patch_order(graph: Graph, cut: onnx.NodeProto, pre: Preprocessing, source: Path) -> tuple[tuple[int, ...], onnx.NodeProto]:
    """The order in which the numbers of a patch lie (axes of [B, C, rows, P, columns, Q]), and the reshape that joins them."""
    sizes = _patch_sizes(graph, cut)
    wanted = len(sizes) == 6 and (sizes[1], sizes[2] * sizes[3], sizes[4] * sizes[5]) == (pre.num_channels, pre.image_px, pre.image_px)
    turn = graph.only_consumer(cut.output[0])
    join = graph.only_consumer(turn.output[0]) if turn is not None else None
    if not wanted or turn is None or turn.op_type != "Transpose" or join is None or join.op_type != "Reshape":
        raise _refused(source, f"its images go through {_names([cut])} to {sizes} without being cut into patches")
    perm = tuple(attributes(turn)["perm"])
    if perm[:3] != (0, 2, 4) or graph.constant(join.input[1]) is None:
        raise _refused(source, f"its patches are turned by {list(perm)} or joined to a shape that is computed")
    return perm[3:], join


def _patch_sizes(graph: Graph, cut: onnx.NodeProto) -> list[int]:
    shape = graph.constant(cut.input[1])
    return [] if shape is None else [int(size) for size in shape]


def _cut_channels_last(graph: Graph, cut: onnx.NodeProto, sizes: list[int], edit: _Edit) -> None:
    turn = graph.only_consumer(cut.output[0])
    assert turn is not None
    shape = graph.new_name("pixel_grid")
    by_old = {new: sizes[old] for old, new in _AXIS_NHWC.items()}
    edit.constants[shape] = np.array([by_old[axis] for axis in range(6)], dtype=np.int64)
    edit.replaced[cut.output[0]] = with_inputs(cut, [edit.pixels, shape])
    turned = with_inputs(turn, list(turn.input))
    del turned.attribute[:]
    turned.attribute.append(_ints("perm", [_AXIS_NHWC[axis] for axis in (0, 2, 4, *_NHWC_PATCH)]))
    edit.replaced[turn.output[0]] = turned


def _multiply(graph: Graph, product: onnx.NodeProto, weight: Weights, shift: Weights, edit: _Edit, source: Path) -> None:
    """Replace the product's weights and the bias behind it; where there is none, one is added."""
    from onnx import helper

    if product.op_type == "Gemm":
        bias = _bias(graph, product.input[2] if len(product.input) > 2 else "", weight.shape[1], source)
        stored = weight.T if attributes(product).get("transB", 0) else weight
        edit.replaced[product.output[0]] = with_inputs(product, [product.input[0], *_constants(graph, edit, stored, bias + shift)])
        return
    output = product.output[0]
    add = graph.only_consumer(output)
    name = next((name for name in add.input if name != output), "") if add is not None and add.op_type == "Add" else ""
    value = graph.constant(name) if name else None
    has_bias = add is not None and value is not None and value.shape == (weight.shape[1],)
    bias = _bias(graph, name if has_bias else "", weight.shape[1], source)
    names = _constants(graph, edit, weight, bias + shift)
    if add is not None and has_bias:
        edit.replaced[output] = with_inputs(product, [product.input[0], names[0]])
        edit.replaced[add.output[0]] = with_inputs(add, [output if item == output else names[1] for item in add.input])
        return
    bare = graph.new_name("patches_without_bias")
    edit.replaced[output] = helper.make_node("MatMul", [product.input[0], names[0]], [bare], product.name)
    edit.behind[output] = helper.make_node("Add", [bare, names[1]], [output], "patch_bias")


def _rows_by_number(graph: Graph, product: onnx.NodeProto, source: Path) -> Weights:
    """The product's weights as float64 [K, D]."""
    weight, settings = graph.constant(product.input[1]), attributes(product)
    plain = settings.get("alpha", 1.0) == settings.get("beta", 1.0) == 1.0 and not settings.get("transA", 0)
    if weight is None or weight.ndim != 2 or not plain:
        raise _refused(source, f"its patch projection {_names([product])} is scaled, turned or has weights that are computed")
    return (weight.T if settings.get("transB", 0) else weight).astype(np.float64)


def _scale_and_shift(pre: Preprocessing) -> tuple[Weights, Weights]:
    """Per channel: (pixel / 255 - mean) / std = pixel * scale + shift, with the float32 values that ``normalise`` uses."""
    mean, std = (np.asarray(values, dtype=np.float32).astype(np.float64) for values in (pre.mean, pre.std))
    return 1 / (255 * std), -mean / std


def _bias(graph: Graph, name: str, width: int, source: Path) -> Weights:
    if not name:
        return np.zeros(width)
    value = graph.constant(name)
    if value is None or value.shape != (width,):
        raise _refused(source, f"the bias {name} of its patch projection is computed or not of {width} numbers")
    return value.astype(np.float64)


def _constants(graph: Graph, edit: _Edit, weight: Weights, bias: Weights) -> list[str]:
    """Names of new constants; the old ones stay, as another layer with equal values may share them."""
    names = [graph.new_name("patch_weight_pixels"), graph.new_name("patch_bias_pixels")]
    edit.constants |= dict(zip(names, (np.ascontiguousarray(weight, dtype=np.float32), bias.astype(np.float32)), strict=True))
    return names


def _cast(graph: Graph, images: str, edit: _Edit) -> None:
    """Pixels as float32, and nothing else reads the input: TensorRT takes 8 bits at a network's input alone, and wants a Cast there."""
    import onnx
    from onnx import helper

    edit.pixels = graph.new_name("pixels")
    edit.first.append(helper.make_node("Cast", [images], [edit.pixels], "pixels", to=onnx.TensorProto.FLOAT))
    for node in graph.consumers[images]:
        if node.op_type == "Shape":
            edit.replaced[node.output[0]] = with_inputs(node, [edit.pixels])


def _ints(name: str, values: list[int]) -> onnx.AttributeProto:
    from onnx import helper

    return helper.make_attribute(name, values)


def _take_pixels(item: onnx.ValueInfoProto, pre: Preprocessing) -> None:
    """Change the declared input to uint8 [B, H, W, C]; its name and the name of its batch stay."""
    import onnx
    from onnx import helper

    batch = item.type.tensor_type.shape.dim[0]
    shape = [batch.dim_param or batch.dim_value, pre.image_px, pre.image_px, pre.num_channels]
    item.CopyFrom(helper.make_tensor_value_info(item.name, onnx.TensorProto.UINT8, shape))
