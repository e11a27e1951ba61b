"""The second stage of a student: what it learns with labels, by method."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt

from g2sd_deploy.settings.base import Fraction, NonNegative, Positive
from g2sd_deploy.settings.training import ClassifyTrainSettings

Token = Literal["none", "g2sd", "deit"]


class SpecificTrainSettings(ClassifyTrainSettings):
    """Supervised training that starts from the generic stage's encoder."""

    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.75
    """Factor between the learning rates of one layer and the next."""


class FinetuneOnlySettings(SpecificTrainSettings):
    """Labels only."""

    method: Literal["finetune"]
    """Plain fine-tuning, without a teacher."""


class HardDistillationSettings(SpecificTrainSettings):
    """G2SD: labels for the class token, the teacher's decisions for the distillation token, half and half."""

    method: Literal["hard"]
    """Hard distillation."""
    token: Literal["g2sd", "deit"] = "g2sd"
    """Distillation token: g2sd has no position, deit has one."""


class SoftDistillationSettings(SpecificTrainSettings):
    """Labels, and the divergence from the teacher's probabilities."""

    method: Literal["soft"]
    """Soft distillation."""
    temperature: Positive = 1.0
    """Both networks' logits are divided by it in the divergence."""
    alpha: Fraction = 0.5
    """Weight of the divergence; the labels have 1 - alpha."""
    token: Token = "none"
    """Distillation token that learns the divergence; without one the class token learns both."""


class NkdSettings(SpecificTrainSettings):
    """Normalised knowledge distillation in the place of the labels' loss."""

    method: Literal["nkd"]
    """NKD."""
    temperature: Positive = 1.0
    """Both networks' other logits are divided by it."""
    gamma: Positive = 1.0
    """Weight of the classes that are not the label."""


class CustomSpecificSettings(SpecificTrainSettings):
    """A loss of your own."""

    method: Literal["custom"]
    """Named by import path in loss."""
    loss: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    """package.module:function; see docs/methods.md."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Handed to the loss by keyword."""
    token: Token = "none"
    """Distillation token."""


class CwdSettings(SpecificTrainSettings):
    """G2SD for segmentation: labels, and where in the image the teacher finds each class."""

    method: Literal["cwd"]
    """Channel-wise distillation of the class logits."""
    weight: NonNegative = 3.0
    """Weight of the distillation beside the labels' loss."""
    temperature: Positive = 1.0
    """Both networks' logits are divided by it before the softmax over positions."""


class FrsSettings(SpecificTrainSettings):
    """G2SD for detection: labels, and the teacher's pyramid and objectness where it finds the image rich."""

    method: Literal["frs"]
    """Distillation weighted by feature richness."""
    feature_weight: NonNegative = 0.001
    """Weight of the pyramid's features."""
    objectness_weight: NonNegative = 0.1
    """Weight of the objectness of the anchors."""
    ramp_steps: NonNegativeInt = 500
    """Optimiser steps over which both weights rise from 0."""


SpecificSettings = Annotated[
    HardDistillationSettings
    | SoftDistillationSettings
    | NkdSettings
    | FinetuneOnlySettings
    | CustomSpecificSettings
    | CwdSettings
    | FrsSettings,
    Field(discriminator="method"),
]
