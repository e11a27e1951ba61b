"""What every stage is given, and the names of the files that stages hand over."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from g2sd_deploy.artifact import Artifact
from g2sd_deploy.data.images import ImageSet
from g2sd_deploy.models.vit import EncoderSpec
from g2sd_deploy.progress import Progress
from g2sd_deploy.randomness import torch_seed
from g2sd_deploy.settings import EncoderSettings, Recipe
from g2sd_export.edge.preprocess import Preprocessing

DATASET_FILE = "dataset.json"
MASKED_FILE = "masked.safetensors"
GENERIC_FILE = "generic.safetensors"
ENCODER_FILE = "encoder.safetensors"
CLASSIFIER_FILE = "classifier.safetensors"
HISTORY_FILE = "history.jsonl"
BUNDLE = "bundle"


@dataclass(frozen=True)
class Context:
    """Inputs of one stage.

    Attributes:
        recipe: The whole resolved recipe.
        stage: The stage's name.
        inputs: Verified parent artifacts by role.
        folder: Where to write the files of the new artifact.
        run_folder: The run's folder, for a stage that reports on all of it.
        device: Where to compute.
        progress: How to tell a person what is going on.
        warnings: What a person has been warned of.
    """

    recipe: Recipe
    stage: str
    inputs: Mapping[str, Artifact]
    folder: Path
    run_folder: Path
    device: torch.device
    progress: Progress
    warnings: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        """Tell a person now, and keep it for the report."""
        self.progress.warn(text)
        self.warnings.append(text)


@dataclass(frozen=True)
class Dataset:
    """Prepared images of a run."""

    train: ImageSet
    test: ImageSet
    preprocessing: Preprocessing
    class_names: tuple[str, ...]


def open_dataset(artifact: Artifact) -> Dataset:
    """Memory-map the images that the data stage prepared."""
    described = json.loads(artifact.file(DATASET_FILE).read_bytes())
    splits = [
        ImageSet(np.load(artifact.file(f"{split}_images.npy"), mmap_mode="r"), np.load(artifact.file(f"{split}_labels.npy")))
        for split in ("train", "test")
    ]
    return Dataset(splits[0], splits[1], Preprocessing.from_dict(described["preprocessing"]), tuple(described["class_names"]))


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


def seed_weights(context: Context) -> None:
    """Make the initial weights of this stage a function of the recipe's seed."""
    torch.manual_seed(torch_seed(context.recipe.seed, f"weights/{context.stage}"))
