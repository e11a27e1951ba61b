"""Where images come from and how they are prepared."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from g2sd_deploy.settings.base import Positive, Settings


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
