"""Quantisation imitated in floating point: what a classifier's linear layers compute once their file is 8-bit.

Weights are symmetric with one scale for each output channel, the inputs of linear layers asymmetric with one scale and zero point for the
whole tensor. Everything else (norms, softmax, attention's own products, biases, sums) stays in float, as in the files that are exported.

Source: arXiv 1712.05877 (rounding imitated in training, ranges), arXiv 1308.3432 (straight-through estimator), ONNX QuantizeLinear.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float, Int32
from torch import Tensor, nn
from torch.func import functional_call

from g2sd_deploy.models.vit import Classifier

_SMALLEST_SCALE = 1e-12
"""A channel of zeros has no scale of its own."""


def fake_quantised_weight(weight: Float[Tensor, "out ..."], bits: int) -> Float[Tensor, "out ..."]:
    """Weights rounded to signed integers of `bits` bits, one scale for each output channel, as floats again.

    The largest weight of a channel is the largest integer, and the smallest integer is not used, so that zero is the middle. The gradient
    passes as if nothing were rounded.
    """
    largest = 2 ** (bits - 1) - 1
    scales = (weight.detach().abs().flatten(1).amax(1) / largest).clamp_min(_SMALLEST_SCALE)
    return torch.fake_quantize_per_channel_affine(weight, scales, torch.zeros_like(scales, dtype=torch.int32), 0, -largest, largest)


def activation_scales(ranges: Float[Tensor, "points 2"], bits: int) -> tuple[Float[Tensor, " points"], Int32[Tensor, " points"]]:
    """Scale and zero point of unsigned integers of `bits` bits, for each range (smallest and largest value).

    A range is extended to hold zero, which has to be an integer: padding and ReLU-like zeros would be wrong by a share of a step otherwise.
    """
    largest = 2**bits - 1
    low, high = ranges[:, 0].clamp_max(0), ranges[:, 1].clamp_min(0)
    scales = ((high - low) / largest).clamp_min(_SMALLEST_SCALE)
    return scales, (-low / scales).round().clamp(0, largest).to(torch.int32)


def fake_quantised_activation(x: Float[Tensor, "..."], scale: Float[Tensor, ""], zero: Int32[Tensor, ""], bits: int) -> Tensor:
    """Activations rounded to unsigned integers of `bits` bits, as floats again; what is out of range becomes its end.

    The gradient passes within the range as if nothing were rounded, and is zero outside. Computed in float32.
    """
    return torch.fake_quantize_per_tensor_affine(x.float(), scale, zero, 0, 2**bits - 1).to(x.dtype)


@dataclass(frozen=True)
class Point:
    """Where an activation is rounded.

    Attributes:
        name: The linear layer that reads it.
        module: It goes into this module, or comes out of it.
        comes_out: Which of the two.
    """

    name: str
    module: nn.Module
    comes_out: bool = False


def points_of(model: Classifier) -> list[Point]:
    """The input of every linear layer, in the order in which they compute.

    A block's qkv is met at the norm before it: the last block may use its weight without calling it.
    """
    points = [Point("encoder.patch_embed.proj", model.encoder.patch_embed)]
    for number, block in enumerate(model.encoder.blocks):
        inner, name = cast("Any", block), f"encoder.blocks.{number}"
        points += [
            Point(f"{name}.attn.qkv", inner.norm1, comes_out=True),
            Point(f"{name}.attn.proj", inner.attn.proj),
            Point(f"{name}.mlp.fc1", inner.mlp.fc1),
            Point(f"{name}.mlp.fc2", inner.mlp.fc2),
        ]
    points.append(Point("head", model.head))
    return points if model.head_dist is None else [*points, Point("head_dist", model.head_dist)]


@contextmanager
def _changed(points: Sequence[Point], change: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """Pass every activation through `change(number of the point, activation)`."""
    hooks = []
    for number, point in enumerate(points):
        changed = partial(change, number)
        if point.comes_out:
            hooks.append(point.module.register_forward_hook(lambda _, __, x, changed=changed: changed(x)))
        else:
            hooks.append(point.module.register_forward_pre_hook(lambda _, x, changed=changed: (changed(x[0]),)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class RangeObserver:
    """Smallest and largest value of every activation, image by image.

    Args:
        model: In evaluation mode; it is not changed.
    """

    def __init__(self, model: Classifier) -> None:
        self._model = model
        self._points = points_of(model)
        self._seen: list[list[Tensor]] = [[] for _ in self._points]

    @torch.no_grad()
    def look(self, images: Float[Tensor, "B C H W"]) -> None:
        """Take in some normalised images."""

        def noted(number: int, x: Tensor) -> Tensor:
            flat = x.detach().float().flatten(1)
            self._seen[number].append(torch.stack([flat.amin(1), flat.amax(1)], dim=1).cpu())
            return x

        with _changed(self._points, noted):
            self._model(images)

    def ranges(self, *, of_all: bool) -> Float[Tensor, "points 2"]:
        """The extremes of all images, or the mean of each image's extremes, which one odd image moves little.

        Raises:
            ValueError: No image was looked at.
        """
        if not self._seen[0]:
            raise ValueError("no image was looked at, so no range is known")
        found = torch.stack([torch.cat(seen).double() for seen in self._seen])
        extremes = torch.stack([found[..., 0].amin(1), found[..., 1].amax(1)], dim=1) if of_all else found.mean(1)
        return extremes.float()


class QuantisedClassifier(nn.Module):
    """A classifier that computes as its quantised file will, and whose float weights are trained.

    Args:
        model: Its parameters are these parameters; called by itself it still computes in float.
        ranges: Smallest and largest value of the activation at each of the model's points.
        bits: Of weights and activations.
    """

    def __init__(self, model: Classifier, ranges: Float[Tensor, "points 2"], bits: int = 8) -> None:
        super().__init__()
        self.heads = _Heads(model)
        self.bits = bits
        scales, zeros = activation_scales(ranges, bits)
        self.register_buffer("scales", scales)
        self.register_buffer("zeros", zeros)
        self._points = points_of(model)
        self._weights = [f"model.{point.name}.weight" for point in self._points]

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # hooks that come and go with each call are not compiled
    def forward_heads(
        self, images: Float[Tensor, "B C H W"], *, survival: Float[Tensor, "B depth 2"] | None = None
    ) -> tuple[Float[Tensor, "B classes"], Float[Tensor, "B classes"] | None]:
        """Logits of the class head and, where there is one, of the distillation head."""
        scales, zeros = cast("Tensor", self.scales).unbind(), cast("Tensor", self.zeros).unbind()
        own = dict(self.heads.named_parameters())
        rounded = {name: fake_quantised_weight(own[name], self.bits) for name in self._weights}
        with _changed(self._points, lambda number, x: fake_quantised_activation(x, scales[number], zeros[number], self.bits)):
            logits: tuple[Tensor, Tensor | None] = functional_call(self.heads, rounded, (images, survival))
        return logits

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B classes"]:
        """Logits for inference: the mean of the two heads where there are two."""
        heads: tuple[Tensor, Tensor | None] = self.forward_heads(images)
        logits, dist = heads
        return logits if dist is None else (logits + dist) / 2


class _Heads(nn.Module):
    """Both heads' logits, by the call that `functional_call` makes."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, survival: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return self.model.forward_heads(images, survival=survival)
