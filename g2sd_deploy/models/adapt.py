"""Fit a finished model to other data without training: another image size, fewer classes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from g2sd_deploy.models.masked import GenericStudent, MaskedAutoencoder
from g2sd_deploy.models.position import resize_positions
from g2sd_deploy.models.vit import Classifier, Encoder, EncoderSpec

Model = TypeVar("Model", Encoder, MaskedAutoencoder, GenericStudent, Classifier)
_POSITIONS = "pos_embed"


def at_image_size(model: Model, image_px: int) -> Model:
    """The same model for square images of another size: every position table is resized, all other weights are kept.

    Args:
        model: Any of our models.
        image_px: Side of the new images in pixels.

    Returns:
        A new model in evaluation mode; its unchanged weights are shared with `model`.

    Raises:
        ValueError: The patch does not divide the size.
    """
    spec = encoder_of(model).spec
    if image_px % spec.patch_px:
        raise ValueError(f"patches of {spec.patch_px} px do not divide images of {image_px} px")
    other = replace(spec, image_px=image_px)
    state = {
        name: resize_positions(value, other.grid) if name.rpartition(".")[2] == _POSITIONS else value
        for name, value in model.state_dict().items()
    }
    return filled(cast("Model", _empty_like(model, other)), state)


def with_classes(classifier: Classifier, rows: Sequence[int]) -> Classifier:
    """The same classifier, restricted to some of its classes: logit i is the old logit `rows[i]`.

    Returns:
        A new classifier in evaluation mode; its other weights are shared with `classifier`.
    """
    state = {
        name: value[list(rows)] if name.startswith(("head.", "head_dist.")) else value for name, value in classifier.state_dict().items()
    }
    with torch.device("meta"):
        empty = Classifier(classifier.encoder.spec, len(rows), pooling=classifier.pooling, token=classifier.token)
    return filled(empty, state)


def encoder_of(model: nn.Module) -> Encoder:
    """The encoder of any of our models."""
    found = model if isinstance(model, Encoder) else model.encoder
    assert isinstance(found, Encoder)
    return found


def filled(model: Model, state: dict[str, Tensor]) -> Model:
    """Give a model that was built on the meta device its weights, without a copy."""
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


def _empty_like(model: nn.Module, spec: EncoderSpec) -> nn.Module:
    """A model of the same kind without storage."""
    with torch.device("meta"):
        match model:
            case Encoder():
                return Encoder(spec)
            case MaskedAutoencoder():
                return MaskedAutoencoder(spec, model.decoder.spec)
            case GenericStudent():
                return GenericStudent(spec, model.decoder.spec, model.state_dict()["feature_head.2.weight"].shape[0])
            case Classifier():
                return Classifier(spec, model.num_classes, pooling=model.pooling, token=model.token)
    raise AssertionError(f"{type(model).__name__} is no model of ours")
