"""What every stage is given, and the names of the files that stages hand over."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import nn

from g2sd_deploy.artifact import Artifact
from g2sd_deploy.data.dense.opening import open_dense
from g2sd_deploy.data.dense.pixels_only import PixelsOnly
from g2sd_deploy.data.images import ImageSet, Samples
from g2sd_deploy.data.sources import open_samples
from g2sd_deploy.models.frozen import cast_frozen
from g2sd_deploy.models.vit import EncoderSpec
from g2sd_deploy.progress import Progress
from g2sd_deploy.randomness import torch_seed
from g2sd_deploy.runtime import Runtime
from g2sd_deploy.settings import DataSettings, EncoderSettings, Precision, Recipe
from g2sd_export.edge.preprocess import Preprocessing

if TYPE_CHECKING:
    from g2sd_deploy.training.tracking import Trackers

DATASET_FILE = "dataset.json"
TRAIN_LISTING = "train_listing"
MASKED_FILE = "masked.safetensors"
GENERIC_FILE = "generic.safetensors"
ENCODER_FILE = "encoder.safetensors"
CLASSIFIER_FILE = "classifier.safetensors"
RANGES_FILE = "ranges.json"
HISTORY_FILE = "history.jsonl"
BUNDLE = "bundle"
_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Context:
    """Inputs of one stage.

    Attributes:
        recipe: The whole resolved recipe.
        stage: The stage's name.
        inputs: Verified parent artifacts by role.
        folder: Where to write the files of the new artifact.
        run_folder: The run's folder, for a stage that reports on all of it.
        runtime: Where and with how many processes to compute.
        progress: How to tell a person what is going on.
        key: What the stage's artifact is a function of.
        trackers: Where metrics are sent while the stage trains.
        warnings: What a person has been warned of.
    """

    recipe: Recipe
    stage: str
    inputs: Mapping[str, Artifact]
    folder: Path
    run_folder: Path
    runtime: Runtime
    progress: Progress
    key: str
    trackers: "Trackers | None" = None
    warnings: list[str] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        return self.runtime.device

    @property
    def checkpoints(self) -> Path:
        """Where the stage saves its training; not part of the artifact."""
        return checkpoint_folder(self.run_folder, self.stage)

    def warn(self, text: str) -> None:
        """Tell a person now, and keep it for the report."""
        self.progress.warn(text)
        self.warnings.append(text)


def checkpoint_folder(run_folder: Path, stage: str) -> Path:
    """Where a stage's checkpoints lie until it is done."""
    return run_folder / f".{stage}.checkpoints"


@dataclass(frozen=True)
class Dataset:
    """Prepared images of a run: training images decoded or encoded, test images decoded.

    Attributes:
        test: Empty where the run has a task: its test images are of many sizes, and `stages.dense_context` opens them with their truth.
        shuffle_shards: Shards whose images are shuffled together; None for all of them.
        max_bad_images: Most training images that may be unusable. It decides no result, so no later stage depends on it.
    """

    train: Samples
    test: ImageSet
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    shuffle_shards: int | None = None
    max_bad_images: int = 0


def open_dataset(artifact: Artifact) -> Dataset:
    """Memory-map the images that the data stage prepared; encoded training images are opened where they lie."""
    described = json.loads(artifact.file(DATASET_FILE).read_bytes())
    preprocessing, class_names = Preprocessing.from_dict(described["preprocessing"]), tuple(described["class_names"])
    max_bad = artifact.config["data"]["max_bad_images"]
    if "task" in described:
        train = PixelsOnly(open_dense(artifact.folder / TRAIN_LISTING, artifact.metrics["train_where"]))
        return Dataset(train, _no_images(preprocessing), preprocessing, class_names, max_bad_images=max_bad)
    encoded = described["store"] == "encoded"
    images = open_samples(artifact.folder / TRAIN_LISTING, artifact.metrics["train_where"]) if encoded else _image_set(artifact, "train")
    return Dataset(images, _image_set(artifact, "test"), preprocessing, class_names, described["shuffle_shards"], max_bad)


def _no_images(preprocessing: Preprocessing) -> ImageSet:
    side = preprocessing.image_px
    return ImageSet(np.empty((0, side, side, preprocessing.num_channels), np.uint8), np.empty(0, np.int64))


def _image_set(artifact: Artifact, split: str) -> ImageSet:
    images = np.load(artifact.file(f"{split}_images.npy"), mmap_mode="r")
    return ImageSet(images, np.load(artifact.file(f"{split}_labels.npy")))


def preprocessing_of(settings: DataSettings) -> Preprocessing:
    """How a test image becomes the networks' input; it belongs to every model trained on these images."""
    return Preprocessing(
        image_px=settings.image_px,
        resize_px=settings.resize_px or settings.image_px,
        num_channels=settings.num_channels,
        mean=settings.mean,
        std=settings.std,
    )


def encoder_spec(settings: EncoderSettings, preprocessing: Preprocessing) -> EncoderSpec:
    """Shape of an encoder for these images."""
    return EncoderSpec(
        image_px=preprocessing.image_px,
        patch_px=settings.patch_px,
        num_channels=preprocessing.num_channels,
        width=settings.width,
        depth=settings.depth,
        heads=settings.heads,
        mlp_ratio=settings.mlp_ratio,
        learned_positions=settings.positions == "learned",
    )


def encoder_file(artifact: Artifact) -> Path:
    """The file of a stage or a teacher that holds its encoder."""
    return artifact.file(next(name for name in (ENCODER_FILE, GENERIC_FILE, MASKED_FILE, CLASSIFIER_FILE) if name in artifact.files))


def classifier_to_quantise(inputs: Mapping[str, Artifact]) -> Path:
    """The classifier that 8-bit files are made from: what the quantise stage made of the student where it ran, else the student."""
    return inputs["quantised" if "quantised" in inputs else "student"].file(CLASSIFIER_FILE)


def frozen(context: Context, model: Network, precision: Precision) -> Network:
    """A teacher on the device, without gradients, its matrices in the number format that the stage computes with."""
    model.to(context.device).requires_grad_(False)
    cast_frozen(model, _DTYPES[precision])
    return model


def seed_weights(context: Context) -> None:
    """Make the initial weights of this stage a function of the recipe's seed."""
    torch.manual_seed(torch_seed(context.recipe.seed, f"weights/{context.stage}"))
