"""A finished teacher, or how to make one."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from g2sd_deploy.settings.base import Settings, WeightFormat
from g2sd_deploy.settings.networks import DecoderSettings, EncoderSettings
from g2sd_deploy.settings.training import ClassifyTrainSettings, PretextTrainSettings


class TeacherSettings(Settings):
    """A finished teacher; each part is a name of the zoo (`g2sd teacher list`), a weight file, or the folder of a finished stage."""

    masked: str | None = None
    """Masked model with its decoder, for generic distillation; `bundled:fashion-mnist` and `bundled:scenes` are inside the package."""
    encoder: str | None = None
    """Encoder alone, for methods that need no decoder; the masked model's by default."""
    classifier: str | None = None
    """The teacher fine-tuned on the task, for specific distillation; `bundled:fashion-mnist` is the one inside the package."""
    segmenter: str | None = None
    """The teacher trained for segmentation on these classes: a weight file, the folder of a finished stage, or `bundled:scenes`."""
    detector: str | None = None
    """The teacher trained for detection on these classes: a weight file, the folder of a finished stage, or `bundled:scenes`."""
    resize_positions: bool = False
    """Fit the positions of a teacher that was made for another image size to data.image_px."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if all(part is None for part in (self.masked, self.encoder, self.classifier, self.segmenter, self.detector)):
            raise ValueError("give at least one of masked, encoder, classifier, segmenter and detector")
        return self


class PretrainSettings(PretextTrainSettings):
    """MAE pre-training of a teacher."""

    encoder: EncoderSettings
    """Teacher encoder."""
    decoder: DecoderSettings
    """Teacher decoder."""
    mask_ratio: Annotated[float, Field(gt=0.0, le=1.0)] = 0.75
    """Share of the patches that the encoder does not see; these are the ones to reconstruct."""
    norm_pix: bool = True
    """Reconstruct pixels standardised within their patch."""
    weights: WeightFormat = "float32"
    """Number format of the stored weights."""


class FinetuneSettings(ClassifyTrainSettings):
    """Supervised fine-tuning of the pre-trained teacher."""

    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.65
    """Factor between the learning rates of one layer and the next."""
    weights: WeightFormat = "float32"
    """Number format of the stored weights."""


class BaselineSettings(ClassifyTrainSettings):
    """The student's architecture trained on labels alone: what distillation has to beat."""

    start: Literal["scratch", "generic"] = "scratch"
    """Weights to begin with: random ones, or the generic stage's encoder, which shows what the specific stage's teacher adds."""
