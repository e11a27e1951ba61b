"""How a stage trains: augmentation, mixing, optimiser and schedule."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from g2sd_deploy.settings.base import Beta, Fraction, NonNegative, Positive, Precision, Settings


class AugmentSettings(Settings):
    """Random crop and flip of a training image."""

    crop_scale: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = (0.2, 1.0)
    """Smallest and largest share of the area that a random resized crop keeps."""
    crop_ratio: Annotated[tuple[Positive, Positive], Field(strict=False)] = (0.75, 1.3333333333333333)
    """Smallest and largest width over height of the crop."""
    flip: bool = True
    """Mirror half of the images left to right."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Filter that resizes the crop."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name, (low, high) in (("crop_scale", self.crop_scale), ("crop_ratio", self.crop_ratio)):
            if not 0 < low <= high:
                raise ValueError(f"{name} is [{low}, {high}]; the first must be above 0 and at most the second")
        return self

    @property
    def policy(self) -> str | None:
        """RandAugment policy, where there is one: it works on one image at a time."""
        return None


class ClassifyAugmentSettings(AugmentSettings):
    """Augmentation of supervised training."""

    rand_augment: str | None = None
    """RandAugment policy as timm writes it, for example rand-m9-mstd0.5-inc1; none by default."""
    erasing: Fraction = 0.0
    """Probability that a random box of the image is replaced by noise."""

    @field_validator("rand_augment")
    @classmethod
    def _policy_is_known(cls, policy: str | None) -> str | None:
        if policy is not None:
            from g2sd_deploy.data.rand_augment_policy import policy_problem

            if problem := policy_problem(policy):
                raise ValueError(problem)
        return policy

    @property
    def policy(self) -> str | None:
        return self.rand_augment


class MixSettings(Settings):
    """Mixing of images and labels of neighbours in a batch."""

    mixup: NonNegative = 0.8
    """Alpha of mixup's Beta distribution; 0 turns mixup off."""
    cutmix: NonNegative = 1.0
    """Alpha of CutMix's Beta distribution; 0 turns CutMix off. Where both are on, each pair takes one of them at random."""
    label_smoothing: Fraction = 0.1
    """Share of the label spread evenly over all classes."""


class TrainSettings(Settings):
    """How long and how fast a stage trains (AdamW, linear warm-up, then the rate falls, per step)."""

    epochs: Positive
    """Passes over the training images; may be a fraction."""
    batch_size: PositiveInt
    """Images per optimiser step, of all processes and accumulated pieces together; the last incomplete batch of an epoch is dropped."""
    base_lr: Positive
    """Peak learning rate for a batch of 256; the rate used is base_lr * batch_size / 256."""
    min_lr: NonNegative = 0.0
    """Learning rate at the end."""
    warmup_epochs: NonNegative = 0.0
    """Passes of linear warm-up from 0."""
    schedule: Literal["cosine", "linear", "steps"] = "cosine"
    """How the rate falls behind the warm-up: half a cosine or a straight line to min_lr, or by a factor of ten at each of drops."""
    drops: Annotated[tuple[Fraction, ...], Field(strict=False)] = ()
    """Shares of the training after which the rate falls to a tenth; for schedule steps."""
    weight_decay: NonNegative = 0.05
    """AdamW weight decay of matrices; vectors and biases are not decayed."""
    betas: Annotated[tuple[Beta, Beta], Field(strict=False)] = (0.9, 0.999)
    """AdamW betas."""
    clip_grad: Positive | None = None
    """Largest norm of the gradient; longer ones are scaled down. Not limited by default."""
    precision: Precision = "fp32"
    """Number format of the matrix products; losses are computed in float32. fp16 scales the loss, and needs a GPU."""
    augment: AugmentSettings = AugmentSettings()
    """Random crop and flip."""

    @property
    def fewest_images(self) -> int:
        """Training images that one step needs."""
        return self.batch_size

    def num_trained(self, num_images: int) -> int:
        """Training images that the stage learns from, of those that there are."""
        return num_images

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}, more than epochs {self.epochs}")
        return self

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        if (self.schedule == "steps") != bool(self.drops):
            raise ValueError(f"schedule is {self.schedule} and drops are {list(self.drops)}; steps needs drops, and no other reads them")
        if list(self.drops) != sorted(set(self.drops)):
            raise ValueError(f"drops are {list(self.drops)}; they have to ascend")
        if self.schedule == "steps" and self.min_lr:
            raise ValueError(f"min_lr is {self.min_lr}, which schedule steps does not read; remove it")
        return self


class PretextTrainSettings(TrainSettings):
    """Training without labels."""

    betas: Annotated[tuple[Beta, Beta], Field(strict=False)] = (0.9, 0.95)
    """AdamW betas."""


class LabelledTrainSettings(TrainSettings):
    """Training of a classifier on labels."""

    augment: ClassifyAugmentSettings = ClassifyAugmentSettings()
    """Random crop and flip, RandAugment and erasing."""
    mix: MixSettings = MixSettings()
    """Mixup, CutMix and label smoothing."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Factor between the learning rates of one layer and the next; 1 gives every layer the same rate."""
    drop_path: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Probability of skipping the last block for a sample; it grows linearly from 0 at the first block."""
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Keep an exponential moving average of the weights with this decay per step, and save it instead; none by default."""


class ClassifyTrainSettings(LabelledTrainSettings):
    """Supervised training of a new classifier."""

    pooling: Literal["cls", "mean"] = "cls"
    """Token that the head reads: the class token, or the mean of the patch tokens followed by a norm of its own."""
