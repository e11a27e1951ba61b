"""The first stage of a student: what it learns without labels, by method."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from g2sd_deploy.settings.base import Fraction, NonNegative, Positive, Settings
from g2sd_deploy.settings.networks import DecoderSettings
from g2sd_deploy.settings.training import PretextTrainSettings

Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class LossBandSettings(Settings):
    """Where the loss has to be, so that a teacher that cannot teach is noticed before anyone pays for the rest."""

    start: Annotated[tuple[Positive, Positive], Field(strict=False)] = (0.15, 1.0)
    """Smallest and largest first loss. Predicting nothing costs 0.247, for the targets are normalised; fresh weights cost 0.35 to 0.55."""
    below: Positive = 0.1
    """The loss has to be under this ..."""
    after: Share = 0.3
    """... once this share of the steps is done (mean of the last tenth of the steps before that point)."""


class MaeSettings(PretextTrainSettings):
    """MAE: reconstruct the pixels of hidden patches."""

    method: Literal["mae"]
    """MAE needs no teacher."""
    decoder: DecoderSettings
    """Decoder."""
    mask_ratio: Annotated[float, Field(gt=0.0, le=1.0)] = 0.75
    """Share of the patches that the encoder does not see; these are the ones to reconstruct."""
    norm_pix: bool = True
    """Reconstruct pixels standardised within their patch."""


class G2sdSettings(PretextTrainSettings):
    """G2SD: the student's decoder learns the teacher's hidden states under a shared mask."""

    method: Literal["g2sd"]
    """Generic distillation of G2SD."""
    teacher_decoder_block: PositiveInt | None = None
    """Teacher decoder block, counted from 1, whose output is the target; the blocks behind it are not run."""
    teacher_encoder_block: PositiveInt | None = None
    """Instead: teacher encoder block, counted from 1, whose output is the target; no decoder is used then."""
    decoder: DecoderSettings | None = None
    """Student decoder, used in this stage only; wanted with teacher_decoder_block."""
    supervise: Literal["all", "masked"] = "all"
    """Positions that are compared: all, or only the patches that the encoder did not see."""
    mask_ratio: Fraction = 0.75
    """Share of the patches that the encoders do not see."""
    loss_band: LossBandSettings | None = None
    """Stop a run whose loss shows that the teacher cannot teach; not checked by default."""

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        by_decoder = self.teacher_decoder_block is not None
        if by_decoder == (self.teacher_encoder_block is not None):
            raise ValueError("give one of teacher_decoder_block (G2SD's target) and teacher_encoder_block")
        if by_decoder != (self.decoder is not None):
            wanted = "teacher_decoder_block needs decoder (the student's)" if by_decoder else "teacher_encoder_block uses no decoder"
            raise ValueError(f"{wanted}; {'add' if by_decoder else 'remove'} decoder")
        if self.supervise == "masked" and self.mask_ratio == 0:
            raise ValueError("supervise is masked, but mask_ratio 0 hides no patch; raise mask_ratio, or use supervise all")
        if not by_decoder and self.supervise == "masked":
            raise ValueError("supervise is masked, but an encoder sees no masked patch; use supervise all with teacher_encoder_block")
        return self


class DmaeSettings(PretextTrainSettings):
    """DMAE: MAE's pixel loss, and one block of the encoder is drawn to one of the teacher's."""

    method: Literal["dmae"]
    """Distilled masked autoencoder."""
    decoder: DecoderSettings
    """Student decoder that reconstructs pixels."""
    student_block: PositiveInt
    """Student encoder block, counted from 1, that is compared."""
    teacher_block: PositiveInt
    """Teacher encoder block, counted from 1, that it is compared with; the blocks behind it are not run."""
    distance: Literal["l1", "l2"] = "l1"
    """Distance of the normalised features: mean absolute or mean squared difference."""
    align_weight: NonNegative = 1.0
    """Weight of the feature distance beside the pixel loss."""
    mask_ratio: Annotated[float, Field(gt=0.0, le=1.0)] = 0.75
    """Share of the patches that the encoders do not see."""
    norm_pix: bool = False
    """Reconstruct pixels standardised within their patch."""


class TinymimSettings(PretextTrainSettings):
    """TinyMIM: the student's attention relations learn the teacher's, on whole images."""

    method: Literal["tinymim"]
    """TinyMIM with query-key and value-value relations."""
    teacher_block: PositiveInt
    """Teacher encoder block, counted from 1, whose relations are the target; the blocks behind it are not run."""
    heads: PositiveInt | None = None
    """Attention heads of the student's blocks in this stage; student.heads by default."""
    relation_heads: PositiveInt | None = None
    """Heads that both networks' relations are split into; the teacher's heads by default."""
    color_jitter: Fraction = 0.4
    """Strength of brightness, contrast and saturation jitter of the student's view; the teacher sees the image as it is."""
    drop_path: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Probability of skipping a student's block for a sample, the same for every block but the last."""


class CustomGenericSettings(PretextTrainSettings):
    """A method of your own."""

    method: Literal["custom"]
    """Named by import path in builder."""
    builder: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    """package.module:function that makes the method; see docs/methods.md."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Handed to the builder by keyword."""
    color_jitter: Fraction = 0.0
    """Strength of the colour jitter of the student's view."""


GenericSettings = Annotated[
    G2sdSettings | DmaeSettings | TinymimSettings | MaeSettings | CustomGenericSettings, Field(discriminator="method")
]
