"""What a recipe may say: one frozen, strict model per stage. Values only; `recipe.py` reads files into these."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from g2sd_deploy.data.corruptions import CorruptionName

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]
Precision = Literal["fp32", "bf16"]


class Settings(BaseModel):
    """Base of every group of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class DataSettings(Settings):
    """Images to train and test on."""

    source: Literal["idx", "folder"]
    """idx: four IDX files as MNIST and Fashion-MNIST ship them; folder: SPLIT/CLASS/IMAGE."""
    root: str
    """Folder of the data; `bundled:fashion-mnist` is the subset inside the package. `~` and $VARIABLES are expanded."""
    train_split: str = "train"
    """Name of the training folder (folder source)."""
    test_split: str = "test"
    """Name of the test folder (folder source)."""
    image_px: PositiveInt
    """Side of the square image that the networks see."""
    stored_px: PositiveInt | None = None
    """Side of the square training images before random cropping; image_px by default."""
    resize_px: PositiveInt | None = None
    """Short side of a test image before its centre crop; image_px by default."""
    num_channels: Literal[1, 3]
    """1: grey, 3: RGB; images are converted."""
    mean: Annotated[tuple[float, ...], Field(strict=False)]
    """Mean of each channel, in units of pixel / 255."""
    std: Annotated[tuple[Positive, ...], Field(strict=False)]
    """Standard deviation of each channel, in units of pixel / 255."""
    max_train_images: PositiveInt | None = None
    """Keep this many training images, spread evenly over the source's order; all by default."""
    max_test_images: PositiveInt | None = None
    """Keep this many test images, spread evenly over the source's order; all by default."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if len(self.mean) != self.num_channels or len(self.std) != self.num_channels:
            raise ValueError(
                f"mean and std need {self.num_channels} numbers each, one per channel; got {len(self.mean)} and {len(self.std)}"
            )
        for name, value in (("stored_px", self.stored_px), ("resize_px", self.resize_px)):
            if value is not None and value < self.image_px:
                raise ValueError(f"{name} is {value}, smaller than image_px {self.image_px}; make it at least image_px")
        return self


class TransformerSettings(Settings):
    """A transformer whose heads share its width."""

    width: Annotated[int, Field(gt=0, multiple_of=4)]
    """Embedding width, a multiple of 4."""
    depth: PositiveInt
    """Number of blocks."""
    heads: PositiveInt
    """Attention heads; must divide width."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads is {self.heads}, which does not divide width {self.width}")
        return self


class EncoderSettings(TransformerSettings):
    """Shape of a ViT encoder."""

    patch_px: PositiveInt
    """Patch side; must divide data.image_px."""
    mlp_ratio: Positive = 4.0
    """Hidden width of a block's MLP over its width."""


class DecoderSettings(TransformerSettings):
    """Shape of the decoder of a masked model."""


class AugmentSettings(Settings):
    """Random crop and flip of a training image."""

    crop_scale: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = (0.2, 1.0)
    """Smallest and largest share of the area that a random resized crop keeps."""
    crop_ratio: Annotated[tuple[Positive, Positive], Field(strict=False)] = (0.75, 1.3333333333333333)
    """Smallest and largest width over height of the crop."""
    flip: bool = True
    """Mirror half of the images left to right."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name, (low, high) in (("crop_scale", self.crop_scale), ("crop_ratio", self.crop_ratio)):
            if not 0 < low <= high:
                raise ValueError(f"{name} is [{low}, {high}]; the first must be above 0 and at most the second")
        return self


class MixSettings(Settings):
    """Mixing of images and labels within a batch."""

    mixup: NonNegative = 0.8
    """Alpha of mixup's Beta distribution; 0 turns mixup off."""
    cutmix: NonNegative = 1.0
    """Alpha of CutMix's Beta distribution; 0 turns CutMix off. Where both are on, each batch takes one of them at random."""
    label_smoothing: Fraction = 0.1
    """Share of the label spread evenly over all classes."""


class TrainSettings(Settings):
    """How long and how fast a stage trains (AdamW, linear warm-up, half cosine, per step)."""

    epochs: Positive
    """Passes over the training images; may be a fraction."""
    batch_size: PositiveInt
    """Images per step; the last incomplete batch of an epoch is dropped."""
    base_lr: Positive
    """Peak learning rate for a batch of 256; the rate used is base_lr * batch_size / 256."""
    min_lr: NonNegative = 0.0
    """Learning rate at the end."""
    warmup_epochs: NonNegative = 0.0
    """Passes of linear warm-up from 0."""
    weight_decay: NonNegative = 0.05
    """AdamW weight decay of matrices; vectors and biases are not decayed."""
    betas: Annotated[tuple[Beta, Beta], Field(strict=False)] = (0.9, 0.999)
    """AdamW betas."""
    precision: Precision = "fp32"
    """Number format of the matrix products; losses are computed in float32."""
    augment: AugmentSettings = AugmentSettings()
    """Random crop and flip."""

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}, more than epochs {self.epochs}")
        return self


class TeacherSettings(Settings):
    """A finished teacher."""

    masked: str
    """Masked model with its decoder (safetensors); `bundled:fashion-mnist` is the one inside the package."""
    classifier: str
    """The same teacher fine-tuned on the task (safetensors); `bundled:fashion-mnist` is the one inside the package."""


class PretrainSettings(TrainSettings):
    """MAE pre-training of a teacher."""

    encoder: EncoderSettings
    """Teacher encoder."""
    decoder: DecoderSettings
    """Teacher decoder."""
    mask_ratio: Annotated[float, Field(gt=0.0, le=1.0)] = 0.75
    """Share of the patches that the encoder does not see; these are the ones to reconstruct."""
    norm_pix: bool = True
    """Reconstruct pixels standardised within their patch."""
    weights: Literal["float32", "float16"] = "float32"
    """Number format of the stored weights."""


class ClassifyTrainSettings(TrainSettings):
    """Supervised training of a classifier."""

    mix: MixSettings = MixSettings()
    """Mixup, CutMix and label smoothing."""
    pooling: Literal["cls", "mean"] = "cls"
    """Token that the head reads: the class token, or the mean of the patch tokens."""


class FinetuneSettings(ClassifyTrainSettings):
    """Supervised fine-tuning of the pre-trained teacher."""

    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.65
    """Factor between the learning rates of one layer and the next."""
    weights: Literal["float32", "float16"] = "float32"
    """Number format of the stored weights."""


class GenericSettings(TrainSettings):
    """G2SD's first stage: the student's decoder learns the teacher decoder's hidden states under a shared mask."""

    decoder: DecoderSettings
    """Student decoder, used in this stage only."""
    teacher_decoder_block: PositiveInt
    """Teacher decoder block, counted from 1, whose output is the target; the blocks behind it are not run."""
    mask_ratio: Fraction = 0.75
    """Share of the patches that the encoders do not see."""
    betas: Annotated[tuple[Beta, Beta], Field(strict=False)] = (0.9, 0.95)
    """AdamW betas."""


class SpecificSettings(TrainSettings):
    """G2SD's second stage: the student learns the labels and the fine-tuned teacher's decisions."""

    mix: MixSettings = MixSettings()
    """Mixup, CutMix and label smoothing."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.75
    """Factor between the learning rates of one layer and the next."""


class BaselineSettings(ClassifyTrainSettings):
    """The student's architecture trained from scratch on labels alone: what distillation has to beat."""


class CorruptionSettings(Settings):
    """Robustness to regenerated corruptions."""

    names: Annotated[tuple[CorruptionName, ...], Field(strict=False, min_length=1)]
    """Corruptions to apply."""
    severities: Annotated[tuple[Annotated[int, Field(ge=1, le=5)], ...], Field(strict=False, min_length=1)] = (1, 2, 3, 4, 5)
    """Severities to apply."""
    max_images: PositiveInt = 1000
    """Test images to corrupt, spread evenly over the test set."""


class EvaluateSettings(Settings):
    """Accuracy of teacher, student and baseline."""

    batch_size: PositiveInt = 500
    """Images per forward pass."""
    corruptions: CorruptionSettings | None = None
    """Robustness; not measured when left out."""


class ExportSettings(Settings):
    """ONNX file, its parity with the trained student, and the bundle."""

    opset: Annotated[int, Field(ge=18, le=23)] = 20
    """ONNX operator set."""
    max_flipped_share: Fraction = 0.0
    """Parity fails when more than this share of the test images changes its decision."""
    max_abs_logit_diff: Positive = 1e-3
    """Parity fails when a logit moves by more than this."""
    num_samples: PositiveInt = 16
    """Test images stored in the bundle for its self-test."""


class ProfileSettings(Settings):
    """Latency on this machine's CPU."""

    batches: Annotated[tuple[PositiveInt, ...], Field(strict=False, min_length=1)] = (1, 8)
    """Batch sizes to time."""
    threads: PositiveInt = 2
    """Threads that a forward pass may use."""
    warmup: PositiveInt = 20
    """Forward passes before the clock counts."""
    repeats: Annotated[int, Field(ge=10)] = 700
    """Timed forward passes; 662 or more carry a p99."""


class ReportSettings(Settings):
    """The HTML and Markdown report."""

    title: str | None = None
    """Heading; the recipe's name by default."""


class Recipe(Settings):
    """Everything that decides the result of a run."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    """Short name; the output folder is runs/NAME by default."""
    description: str = ""
    """One sentence for the report."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random draw."""
    data: DataSettings
    """Images."""
    teacher: TeacherSettings | None = None
    """A finished teacher; or give pretrain and finetune to make one."""
    pretrain: PretrainSettings | None = None
    """Make a teacher: MAE pre-training."""
    finetune: FinetuneSettings | None = None
    """Make a teacher: fine-tuning on the labels."""
    student: EncoderSettings | None = None
    """Student encoder, used by generic, specific and baseline."""
    generic: GenericSettings | None = None
    """Generic distillation."""
    specific: SpecificSettings | None = None
    """Specific distillation."""
    baseline: BaselineSettings | None = None
    """Supervised training of the same student, for comparison."""
    evaluate: EvaluateSettings | None = None
    """Accuracy and robustness."""
    export: ExportSettings | None = None
    """ONNX, parity and bundle."""
    profile: ProfileSettings | None = None
    """Latency."""
    report: ReportSettings = ReportSettings()
    """Report page."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for problem in _missing_pieces(self):
            raise ValueError(problem)
        return self


def _missing_pieces(recipe: Recipe) -> list[str]:
    """What a section needs from another section and does not find."""
    made = recipe.pretrain is not None or recipe.finetune is not None
    has_teacher = recipe.teacher is not None or (recipe.pretrain is not None and recipe.finetune is not None)
    checks = [
        (recipe.teacher is not None and made, "give either teacher (a finished one) or pretrain and finetune (to make one), not both"),
        (recipe.finetune is not None and recipe.pretrain is None, "finetune needs pretrain before it"),
        (
            recipe.generic is not None and recipe.teacher is None and recipe.pretrain is None,
            "generic needs a teacher: add teacher or pretrain",
        ),
        (recipe.specific is not None and not has_teacher, "specific needs a fine-tuned teacher: add teacher, or pretrain and finetune"),
        (recipe.specific is not None and recipe.generic is None, "specific needs generic before it"),
        (
            recipe.student is None and (recipe.generic is not None or recipe.baseline is not None),
            "generic and baseline need student (the encoder's shape)",
        ),
        (recipe.export is not None and recipe.specific is None, "export needs specific: there is no student to export"),
        (recipe.profile is not None and recipe.export is None, "profile needs export: there is no file to time"),
        (
            recipe.evaluate is not None and recipe.specific is None and not has_teacher,
            "evaluate needs a classifier: add finetune, teacher or specific",
        ),
    ]
    problems = [text for bad, text in checks if bad]
    pretrained = recipe.pretrain.encoder if recipe.pretrain is not None else None
    for section, encoder in (("student", recipe.student), ("pretrain.encoder", pretrained)):
        if encoder is not None and recipe.data.image_px % encoder.patch_px:
            problems.append(f"{section}.patch_px is {encoder.patch_px}, which does not divide data.image_px {recipe.data.image_px}")
    masked: tuple[tuple[str, PretrainSettings | GenericSettings | None, EncoderSettings | None], ...]
    masked = (("pretrain", recipe.pretrain, pretrained), ("generic", recipe.generic, recipe.student))
    for section, stage, encoder in masked:
        if stage is None or encoder is None:
            continue
        num_patches = (recipe.data.image_px // encoder.patch_px) ** 2
        if int(num_patches * (1 - stage.mask_ratio)) < 1:
            problems.append(f"{section}.mask_ratio is {stage.mask_ratio}, which hides all {num_patches} patches of an image; lower it")
    return problems
