"""The second stage of a student: what it learns with labels, by method."""

from typing import Annotated, Any, Literal

from pydantic import Field

from g2sd_deploy.settings.base import Fraction, Positive
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


SpecificSettings = Annotated[
    HardDistillationSettings | SoftDistillationSettings | NkdSettings | FinetuneOnlySettings | CustomSpecificSettings,
    Field(discriminator="method"),
]
