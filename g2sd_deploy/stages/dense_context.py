"""What the stages of a task are given: its images with their truth, and how an image becomes the network's input."""

import json
from dataclasses import dataclass

from g2sd_deploy.artifact import Artifact
from g2sd_deploy.data.dense.annotations import DenseSamples
from g2sd_deploy.data.dense.opening import open_dense
from g2sd_deploy.models.dense.network_file import FILES, NETWORK_OF
from g2sd_deploy.settings import DetectionSettings, Recipe, SegmentationSettings
from g2sd_deploy.stages.context import DATASET_FILE, TRAIN_LISTING
from g2sd_export.edge.dense.task import DenseTask

TEST_LISTING = "test_listing"


@dataclass(frozen=True)
class DenseDataset:
    """Images of a run with their truth, read where they lie."""

    train: DenseSamples
    test: DenseSamples
    class_names: tuple[str, ...]


def open_dense_dataset(artifact: Artifact) -> DenseDataset:
    """What the data stage listed."""
    described = json.loads(artifact.file(DATASET_FILE).read_bytes())
    splits = ((TRAIN_LISTING, "train_where"), (TEST_LISTING, "test_where"))
    train, test = (open_dense(artifact.folder / listing, artifact.metrics[where]) for listing, where in splits)
    return DenseDataset(train, test, tuple(described["class_names"]))


def dense_task(recipe: Recipe) -> DenseTask:
    """How the networks of a recipe are asked."""
    data = recipe.data
    sizes = (data.image_px, data.num_channels, data.mean, data.std)
    match recipe.task:
        case SegmentationSettings(inference="slide", stride=stride):
            return DenseTask("segmentation", *sizes, inference="slide", stride=stride or data.image_px * 2 // 3)
        case DetectionSettings(min_score=min_score):
            return DenseTask("detection", *sizes, min_score=min_score)
        case _:
            return DenseTask("segmentation", *sizes)


def task_file(recipe: Recipe) -> str:
    """The file that holds a network of the recipe's task."""
    assert recipe.task is not None
    return FILES[NETWORK_OF[recipe.task.kind]]
