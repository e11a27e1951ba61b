"""What every stage is given, and the glue that several of them need."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from g2sd_deploy.artifact import Artifact, Made
from g2sd_deploy.data.augment import Mixed, mix_batch
from g2sd_deploy.data.images import ImageSet
from g2sd_deploy.methods.classification import smoothed_one_hot
from g2sd_deploy.models.vit import EncoderSpec
from g2sd_deploy.progress import Progress
from g2sd_deploy.randomness import generator, torch_seed, uniform
from g2sd_deploy.settings import EncoderSettings, MixSettings, Recipe, TrainSettings
from g2sd_deploy.training.loop import Batch, Feed, TrainLog, train
from g2sd_export.edge.preprocess import Preprocessing

DATASET_FILE = "dataset.json"
MASKED_FILE = "masked.safetensors"
GENERIC_FILE = "generic.safetensors"
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
    """

    recipe: Recipe
    stage: str
    inputs: Mapping[str, Artifact]
    folder: Path
    run_folder: Path
    device: torch.device
    progress: Progress


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
    )


def seed_weights(context: Context) -> None:
    """Make the initial weights of this stage a function of the recipe's seed."""
    torch.manual_seed(torch_seed(context.recipe.seed, f"weights/{context.stage}"))


def mask_noise(context: Context, batch: Batch, num_patches: int) -> Tensor:
    """Uniform noise that decides which patches of each image are hidden; one draw, shared by teacher and student."""
    noise = uniform(context.recipe.seed, "mask", batch.epoch, batch.indices, num_patches)
    return torch.from_numpy(noise).to(batch.images.device)


def mixed(context: Context, batch: Batch, settings: MixSettings, num_classes: int) -> Mixed:
    """Smoothed labels, then mixup or CutMix as a function of (seed, epoch, step)."""
    targets = smoothed_one_hot(batch.labels, num_classes, settings.label_smoothing)
    return mix_batch(batch.images, targets, settings, generator(context.recipe.seed, "mix", batch.epoch, batch.step))


def make_feed(context: Context, dataset: Dataset, settings: TrainSettings) -> Feed:
    """Batches of the training set as the stage's settings ask for."""
    pre = dataset.preprocessing
    return Feed(dataset.train, settings, context.recipe.seed, pre.image_px, pre.mean, pre.std, context.device)


def fit(context: Context, model: nn.Module, optimizer: Optimizer, feed: Feed, loss_of: Callable[[Batch], Tensor]) -> TrainLog:
    """Run the training loop and keep its history in the artifact."""

    def observe(step: int, num_steps: int, loss: float, images_per_s: float) -> None:
        context.progress.update(step, num_steps, f"loss {loss:.4f}, {images_per_s:,.0f} images/s")

    log = train(model, optimizer, feed, loss_of, observe)
    model.eval()
    lines = "".join(json.dumps(row) + "\n" for row in log.history)
    (context.folder / HISTORY_FILE).write_text(lines, encoding="utf-8")
    return log


def training_result(context: Context, log: TrainLog, model: nn.Module, file_name: str, method: str) -> Made:
    """Metrics of a training stage; speed is a note, for it is not part of what the stage made."""
    metrics = {
        "method": method,
        "first_loss": log.history[0]["loss"],
        "final_loss": log.history[-1]["loss"],
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "model_bytes": (context.folder / file_name).stat().st_size,
        "images_seen": log.images_seen,
    }
    return Made(
        metrics, timing={"train_seconds": round(log.seconds, 2), "images_per_s": round(log.images_per_s, 1), "device": str(context.device)}
    )
