"""What the original implementations computed, and the formula that gives our models their weights and inputs.

The numbers are in tests/fixtures/originals; its README says how they were made.
"""

import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from g2sd_deploy.methods.views import Views
from g2sd_deploy.models.masked import DecoderSpec
from g2sd_deploy.models.vit import EncoderSpec
from g2sd_deploy.randomness import uniform

FOLDER = Path(__file__).parents[1] / "fixtures" / "originals"
TOLERANCE = 1e-5
GRADIENT_VALUES = 5e-5  # single values: both sides round to about 4e-6, and another processor may round otherwise

# Our name -> the original's, by beginning; the first that fits counts.
NAMES = {
    "decoder.embed.": "decoder_embed.",
    "decoder.blocks.": "decoder_blocks.",
    "decoder.mask_token": "mask_token",
    "decoder.pos_embed": "decoder_pos_embed",
    "feature_head.0.": "decoderfeature_pred.fc1.",
    "feature_head.2.": "decoderfeature_pred.fc2.",
    "projection.": "aligned_feature_projection_heads.0.",
    "student.": "",
    "encoder.": "",
}


class DisagreementError(AssertionError):
    """Our number is not the original's."""


class Original:
    """The numbers of one original, and the weights and inputs that it was given."""

    def __init__(self, name: str) -> None:
        self.data: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        self.cases: dict[str, Any] = self.data["cases"]
        self.batch: int = self.data["batch"]

    def draw(self, stream: str, shape: tuple[int, ...], low: float, high: float) -> Tensor:
        """Numbers in [low, high), each a function of its stream and its place."""
        drawn = draws(self.data["formula"]["seed"], stream, math.prod(shape))
        return torch.from_numpy((low + (high - low) * drawn).astype(np.float32)).view(shape)

    def images(self, stream: str = "images") -> Tensor:
        """Images whose patches differ in mean and contrast; drawn by the shape of any of the models."""
        spec = next(iter(self.data["models"].values()))
        px, patch = spec["image_px"], spec["patch_px"]
        coarse = self.draw(f"{stream}/patches", (self.batch, 3, px // patch, px // patch), -1.5, 1.5)
        whole = self.draw(f"{stream}/image", (self.batch, 3, 1, 1), -1.5, 1.5)
        fine = self.draw(stream, (self.batch, 3, px, px), -1.2, 1.2)
        return fine + coarse.repeat_interleave(patch, 2).repeat_interleave(patch, 3) + whole

    def views(self, *, teacher: str = "images", student: str = "images", drops: Tensor | None = None, times: float = 1.0) -> Views:
        """The inputs of a step; `times` multiplies the images."""
        images, others = self.images(student) * times, self.images(teacher) * times
        spec = next(iter(self.data["models"].values()))
        noise = self.draw("noise", (self.batch, (spec["image_px"] // spec["patch_px"]) ** 2), 0, 1)
        drops = torch.zeros(self.batch, 1, 2) if drops is None else drops
        return Views(images=others, student_images=images, mask_noise=noise.double(), drop_draws=drops.double())

    def specs(self, model: str) -> tuple[EncoderSpec, DecoderSpec | None]:
        """Shape of one of its models, in our words."""
        spec = self.data["models"][model]
        encoder = EncoderSpec(spec["image_px"], spec["patch_px"], 3, spec["width"], spec["depth"], spec["heads"])
        if "decoder_width" not in spec:
            return encoder, None
        return encoder, DecoderSpec(spec["decoder_width"], spec["decoder_depth"], spec["decoder_heads"])

    def fill(self, name: str, model: nn.Module, *, renamed: dict[str, str] | None = None, learned_positions: bool = False) -> None:
        """Give a model of ours the weights that model `name` of the original had.

        Args:
            name: Model of the fixture.
            model: Ours.
            renamed: Names of ours that this model alone calls differently.
            learned_positions: Positions are drawn too; otherwise both keep their own table of sines.
        """
        digest, values = hashlib.sha256(), {}
        for ours, parameter in model.named_parameters():
            theirs = original_name(ours, renamed)
            if learned_positions or not theirs.endswith("pos_embed"):
                values[theirs] = (self.draw(f"{name}/{theirs}", tuple(parameter.shape), *weight_range(theirs, parameter)), parameter)
        for theirs, (drawn, parameter) in sorted(values.items()):
            digest.update(theirs.encode() + drawn.numpy().tobytes())
            parameter.data.copy_(our_rows(drawn) if theirs.startswith("decoder_pred.") else drawn)
        assert digest.hexdigest() == self.data["models"][name]["weights_sha256"], (
            f"these are not the weights that the original's {name} had"
        )

    def check(self, case: str, **ours: Tensor) -> None:
        """Compare numbers of ours with those stored under the same names; raises DisagreementError."""
        for name, value in ours.items():
            agree(name, self.cases[case][name], value.detach())

    def check_gradients(self, case: str, model: nn.Module, loss: Tensor, renamed: dict[str, str] | None = None) -> None:
        """Compare the gradient of each parameter; those that get none must be the same too."""
        loss.backward()
        found = {}
        for ours, parameter in model.named_parameters():
            if parameter.grad is not None and bool(parameter.grad.any()):
                theirs = original_name(ours, renamed)
                found[theirs] = their_rows(parameter.grad) if theirs.startswith("decoder_pred.") else parameter.grad
        expected = self.cases[case]["gradients"]
        if found.keys() != expected.keys():
            raise DisagreementError(f"gradients of {sorted(found.keys() ^ expected.keys())} in one of the two only")
        for theirs, gradient in found.items():
            agree(f"gradient of {theirs}", expected[theirs], gradient)


@functools.cache
def draws(seed: int, stream: str, num: int) -> Any:
    """`num` uniform numbers of a stream."""
    return uniform(seed, stream, 0, np.arange(num), 1)[:, 0]


def original_name(ours: str, renamed: dict[str, str] | None = None) -> str:
    """What the original calls a parameter of ours."""
    if renamed and ours in renamed:
        return renamed[ours]
    for beginning, theirs in NAMES.items():
        if ours.startswith(beginning):
            return original_name(theirs + ours.removeprefix(beginning))
    return ours


def weight_range(theirs: str, parameter: Tensor) -> tuple[float, float]:
    """Range of a parameter's weights: of a scale that keeps features apart and makes attention peaked."""
    if "norm" in theirs and theirs.endswith("weight"):
        return 0.5, 1.5
    if theirs.endswith("bias"):
        return -0.4, 0.4
    if theirs.endswith(("token", "pos_embed")):
        return -1.0, 1.0
    limit = (1.5 if theirs.endswith("qkv.weight") else 1.0) * math.sqrt(3.0 / math.prod(parameter.shape[1:]))
    return -limit, limit


def our_rows(rows: Tensor) -> Tensor:
    """Pixels of a patch from the originals' order (y, x, channel) to ours (channel, y, x), along the first axis."""
    side = math.isqrt(len(rows) // 3)
    return rows.unflatten(0, (side, side, 3)).movedim(2, 0).flatten(0, 2)


def their_rows(rows: Tensor) -> Tensor:
    """The way back of `our_rows`."""
    side = math.isqrt(len(rows) // 3)
    return rows.unflatten(0, (3, side, side)).movedim(0, 2).flatten(0, 2)


def agree(name: str, expected: Any, ours: Tensor) -> None:
    """Compare with a stored number, list of integers, or summary (shape, norm, mean and every `stride`-th value).

    Raises:
        DisagreementError: Off by more than 1e-5 of the number, of a tensor's norm, or (a tensor's mean and values) of the value or the
            tensor's root mean square, whichever is larger; single values of a gradient by 5e-5.
    """
    if isinstance(expected, list):
        if ours.long().tolist() != expected:
            raise DisagreementError(f"{name} is not the original's")
        return
    if isinstance(expected, float):
        close(name, [expected], [float(ours)], 0.0)
        return
    if list(ours.shape) != expected["shape"]:
        raise DisagreementError(f"{name} has the shape {list(ours.shape)}, the original's has {expected['shape']}")
    flat = ours.double().flatten()
    size = expected["norm"] / math.sqrt(len(flat))
    close(f"norm of {name}", [expected["norm"]], [float(flat.norm())], 0.0)
    close(f"mean of {name}", [expected["mean"]], [float(flat.mean())], size)
    tolerance = GRADIENT_VALUES if name.startswith("gradient of ") else TOLERANCE
    close(f"values of {name}", expected["sample"], flat[:: expected["stride"]].tolist(), size, tolerance)


def close(name: str, expected: Iterable[float], ours: Iterable[float], size: float, tolerance: float = TOLERANCE) -> None:
    """Compare number by number, relative to the number or to `size`, whichever is larger."""
    for theirs, own in zip(expected, ours, strict=True):
        if not abs(own - theirs) <= tolerance * max(abs(theirs), size):
            raise DisagreementError(f"{name}: {own} of ours against {theirs} of the original")


@pytest.fixture(scope="session")
def original() -> Callable[[str], Original]:
    """Reads the numbers of one original by the name of its file."""
    return Original


@pytest.fixture(scope="session")
def disagreement() -> type[AssertionError]:
    """What a comparison raises."""
    return DisagreementError
