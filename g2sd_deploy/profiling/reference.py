"""The reference network: latencies of two sessions, or of two machines, are compared as ratios to it.

It has the shape of a ViT-Ti/16: 224 px images, 196 patches and a class token, width 192, 12 blocks of 3 heads, 1000 classes. Its weights
mean nothing. Its bytes are the same wherever they are made: weights come from SHAKE-256 alone, versions are written down, and every number
is a byte times a power of two, which no processor rounds.
"""

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx

REFERENCE = "reference"
"""The name of its rows."""

_IMAGE_PX, _PATCH_PX, _CHANNELS, _WIDTH, _DEPTH, _HEADS, _CLASSES = 224, 16, 3, 192, 12, 3, 1000
_PATCHES = (_IMAGE_PX // _PATCH_PX) ** 2
_TOKENS = _PATCHES + 1
_HIDDEN = 4 * _WIDTH
_HEAD_WIDTH = _WIDTH // _HEADS
# 17 is the first opset with LayerNormalization, and every runtime of the last years reads it.
_OPSET, _IR_VERSION = 17, 8
# Bytes less 127.5 have a deviation of 74; a 1024th of it is that of weights which keep the size of what 192 numbers feed.
_SCALE = 2.0**-10


@lru_cache(maxsize=1)
def reference_onnx() -> bytes:
    """The network as an ONNX file: float32 images [batch, 3, 224, 224] to logits [batch, 1000]; kept in memory, 23 MB."""
    from onnx import TensorProto, helper

    net = _Network()
    x = net.add("MatMul", _patches(net), net.weights("patch.weight", _CHANNELS * _PATCH_PX**2, _WIDTH))
    # A row of zeros in front becomes the class token when positions are added: no operator needs to know the batch.
    x = net.add("Pad", x, net.constant("pads", np.array([0, 1, 0, 0, 0, 0], np.int64)))
    x = net.add("Add", x, net.weights("positions", 1, _TOKENS, _WIDTH))
    for index in range(_DEPTH):
        x = _block(net, x, f"block{index}")
    x = net.add("Gather", _norm(net, x, "norm"), net.constant("first", np.array(0, np.int64)), axis=1)
    _linear(net, x, "head", _WIDTH, _CLASSES, output="logits")
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", _CHANNELS, _IMAGE_PX, _IMAGE_PX])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", _CLASSES])
    graph = helper.make_graph(net.nodes, REFERENCE, [image], [logits], net.initializers)
    opset = helper.make_opsetid("", _OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name=REFERENCE)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def reference_sha256() -> str:
    """Digest of the network's bytes, which two profiles must share for their ratios to compare."""
    return hashlib.sha256(reference_onnx()).hexdigest()


@dataclass
class _Network:
    """A graph that grows node by node."""

    nodes: "list[onnx.NodeProto]" = field(default_factory=list)
    initializers: "list[onnx.TensorProto]" = field(default_factory=list)

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Name of the new node's output."""
        from onnx import helper

        name = output or f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, values: npt.NDArray[Any]) -> str:
        """Name of the stored values; a name that is there already is not stored again."""
        from onnx import numpy_helper

        if all(item.name != name for item in self.initializers):
            self.initializers.append(numpy_helper.from_array(values, name))
        return name

    def weights(self, name: str, *shape: int) -> str:
        drawn = np.frombuffer(hashlib.shake_256(name.encode()).digest(int(np.prod(shape))), np.uint8)
        return self.constant(name, ((drawn.astype(np.float32) - np.float32(127.5)) * np.float32(_SCALE)).reshape(shape))

    def scalar(self, name: str, value: float) -> str:
        return self.constant(name, np.array(value, np.float32))

    def reshaped(self, x: str, *shape: int) -> str:
        return self.add("Reshape", x, self.constant("shape_" + "_".join(map(str, shape)), np.array(shape, np.int64)))


def _patches(net: _Network) -> str:
    """Images cut into rows of 768 numbers: [batch, 196, 768]."""
    side = _IMAGE_PX // _PATCH_PX
    cut = net.reshaped("images", 0, _CHANNELS, side, _PATCH_PX, side, _PATCH_PX)
    turned = net.add("Transpose", cut, perm=[0, 2, 4, 1, 3, 5])
    return net.reshaped(turned, 0, _PATCHES, _CHANNELS * _PATCH_PX**2)


def _block(net: _Network, x: str, name: str) -> str:
    x = net.add("Add", x, _attention(net, _norm(net, x, f"{name}.norm1"), f"{name}.attention"))
    hidden = _gelu(net, _linear(net, _norm(net, x, f"{name}.norm2"), f"{name}.fc1", _WIDTH, _HIDDEN))
    return net.add("Add", x, _linear(net, hidden, f"{name}.fc2", _HIDDEN, _WIDTH))


def _attention(net: _Network, x: str, name: str) -> str:
    joined = net.reshaped(_linear(net, x, f"{name}.qkv", _WIDTH, 3 * _WIDTH), 0, _TOKENS, 3, _HEADS, _HEAD_WIDTH)
    by_kind = net.add("Transpose", joined, perm=[2, 0, 3, 1, 4])
    query, key, value = (net.add("Gather", by_kind, net.constant(f"kind{i}", np.array(i, np.int64)), axis=0) for i in range(3))
    scores = net.add("MatMul", query, net.add("Transpose", key, perm=[0, 1, 3, 2]))
    shares = net.add("Softmax", net.add("Mul", scores, net.scalar("attention_scale", _HEAD_WIDTH**-0.5)), axis=-1)
    mixed = net.add("Transpose", net.add("MatMul", shares, value), perm=[0, 2, 1, 3])
    return _linear(net, net.reshaped(mixed, 0, _TOKENS, _WIDTH), f"{name}.proj", _WIDTH, _WIDTH)


def _linear(net: _Network, x: str, name: str, num_in: int, num_out: int, output: str = "") -> str:
    product = net.add("MatMul", x, net.weights(f"{name}.weight", num_in, num_out))
    return net.add("Add", product, net.weights(f"{name}.bias", num_out), output=output)


def _norm(net: _Network, x: str, name: str) -> str:
    scale = net.constant(f"{name}.scale", np.ones(_WIDTH, np.float32))
    return net.add("LayerNormalization", x, scale, net.weights(f"{name}.bias", _WIDTH), axis=-1, epsilon=2.0**-20)


def _gelu(net: _Network, x: str) -> str:
    """x (1 + erf(x / sqrt 2)) / 2 in the form that runtimes fuse into one operator."""
    erf = net.add("Erf", net.add("Div", x, net.scalar("root2", 2**0.5)))
    gate = net.add("Mul", x, net.add("Add", erf, net.scalar("one", 1.0)))
    return net.add("Mul", gate, net.scalar("half", 0.5))
