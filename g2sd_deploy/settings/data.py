"""Where images come from and how they are prepared."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from g2sd_deploy.settings.base import Positive, Settings
from g2sd_deploy.settings.scenes import SceneSettings


class DataSettings(Settings):
    """Images to train and test on."""

    source: Literal["idx", "folder", "shards", "huggingface", "numpy", "scenes", "masks", "coco"]
    """idx: four IDX files as MNIST and Fashion-MNIST ship them; folder: SPLIT/CLASS/IMAGE; shards: uncompressed tars as webdataset writes
    them; huggingface: a data set of the hub, a folder of Parquet files or one that `save_to_disk` wrote; numpy: SPLIT_images.npy and
    SPLIT_labels.npy, or one .npz. For a task: scenes: composed of the garments of root `bundled:fashion-mnist`, as many as max_train_images
    and max_test_images say; masks: images/SPLIT and annotations/SPLIT; coco: SPLIT and annotations/instances_SPLIT.json; huggingface."""
    root: str
    """Folder of the data; `bundled:fashion-mnist` is the subset inside the package. `~` and $VARIABLES are expanded. For shards also an
    address (https://, s3://), for huggingface also a name on the hub (OWNER/NAME or OWNER/NAME:CONFIGURATION), for numpy also an .npz."""
    train_split: str = "train"
    """Name of the training split; a folder, or the start of the names of files. For shards also a pattern such as
    `imagenet-train-{000000..000146}.tar`."""
    test_split: str = "test"
    """Name of the test split, as for the training split."""
    store: Literal["arrays", "encoded"] = "arrays"
    """arrays: training images are decoded once to stored_px into one array, and random crops are taken from that square; encoded: they are
    read and decoded anew whenever they are used, and random crops are taken from the whole image. Test images are always decoded once."""
    image_px: PositiveInt
    """Side of the square image that the networks see."""
    stored_px: PositiveInt | None = None
    """Side of the square training images before random cropping (store arrays); image_px by default."""
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
    max_bad_images: NonNegativeInt = 0
    """Training images that may turn out to be undecodable before the run stops; each is warned of by name, and left out or replaced by the
    next one. A bad test image always stops the run."""
    shuffle_shards: PositiveInt | None = None
    """Shuffle within windows of this many shards, in a new order of the shards each epoch, so that few shards are read at a time; over all
    images by default. Needs source shards and store encoded."""
    ignore_zero: bool = False
    """Nothing is asked where a mask is 0, and class 0 is value 1 of a mask, as in ADE20K. For sources masks and huggingface with a task."""
    classes: str | None = None
    """File with the name of each class of the masks, one a line, for source huggingface with a task; classes.txt beside the images says it
    for source masks."""
    scenes: SceneSettings | None = None
    """Contents of the scenes, for source scenes; one to five garments of a third to two thirds of the side when left out."""
    cache_gib: Positive | None = None
    """Disk space that remote shards may take in the cache folder, in GiB; beyond it those unused for the longest time are deleted. No limit
    by default. Needs a root that is an address."""

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

    @model_validator(mode="after")
    def _storing_fits(self) -> Self:
        if self.store == "encoded" and self.source == "idx":
            raise ValueError("store is encoded, but idx files hold decoded images; set store to arrays")
        if self.store == "encoded" and self.stored_px is not None:
            raise ValueError("stored_px is for store arrays; with store encoded crops are taken from the whole image, so remove stored_px")
        if self.shuffle_shards is not None and (self.source, self.store) != ("shards", "encoded"):
            raise ValueError(f"shuffle_shards needs source shards and store encoded; got {self.source} and {self.store}")
        remote = "://" in self.root
        if remote and self.source != "shards":
            raise ValueError(f"root is the address {self.root}; only source shards reads from an address, not {self.source}")
        if self.cache_gib is not None and not remote:
            raise ValueError("cache_gib is for shards at an address (https://, s3://); root is a path, so remove cache_gib")
        return self
