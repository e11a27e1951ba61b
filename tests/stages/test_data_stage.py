"""The data stage: images decoded once, at the size that the networks need."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from g2sd_deploy.artifact import Artifact
from g2sd_deploy.errors import UserError
from g2sd_deploy.progress import SilentProgress
from g2sd_deploy.settings import DataSettings, Recipe
from g2sd_deploy.stages import data
from g2sd_deploy.stages.context import Context, encoder_spec, open_dataset
from g2sd_deploy.stages.data import preprocessing_of

COLOUR = {"num_channels": 3, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)}


def settings(root: Path, **changes: Any) -> DataSettings:
    return DataSettings(**({"source": "folder", "root": str(root), "image_px": 16} | COLOUR | changes))


def prepare(settings: DataSettings, folder: Path) -> Any:
    folder.mkdir(exist_ok=True)
    recipe = Recipe(name="colour", data=settings)
    return data.run(Context(recipe, "data", {}, folder, folder, torch.device("cpu"), SilentProgress()))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of plain colours, wider than high."""
    root = tmp_path / "pictures"
    for split, num in (("train", 4), ("test", 3)):
        for label, name in enumerate(("blue", "red")):
            (root / split / name).mkdir(parents=True)
            for i in range(num):
                Image.new("RGB", (40 + i, 24), (200 * label, 0, 200 * (1 - label))).save(root / split / name / f"{i}.png")
    return root


def test_images_and_labels_are_stored_at_the_size_asked_for(pictures: Path, tmp_path: Path) -> None:
    made = prepare(settings(pictures, stored_px=20, resize_px=18), tmp_path / "out")
    train, test = (np.load(tmp_path / "out" / f"{split}_images.npy") for split in ("train", "test"))
    assert (train.shape, train.dtype) == ((8, 20, 20, 3), np.uint8)
    assert test.shape == (6, 16, 16, 3)
    labels = np.load(tmp_path / "out" / "test_labels.npy")
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(test[:, 8, 8], [[200 * label, 0, 200 * (1 - label)] for label in labels])
    assert made.metrics["class_names"] == ["blue", "red"] and made.metrics["num_classes"] == 2
    assert (made.metrics["num_train"], made.metrics["num_test"]) == (8, 6)
    assert str(tmp_path) not in str(made.metrics), "a result names no path of this machine"


def test_the_preview_shows_every_class(pictures: Path, tmp_path: Path) -> None:
    prepare(settings(pictures), tmp_path / "out")
    with Image.open(tmp_path / "out" / "preview.png") as preview:
        assert (preview.size, preview.mode) == ((6 * 16, 16), "RGB")
        assert preview.getpixel((8, 8)) == (0, 0, 200) and preview.getpixel((5 * 16 + 8, 8)) == (200, 0, 0)


def test_fewer_images_are_spread_over_the_classes(pictures: Path, tmp_path: Path) -> None:
    prepare(settings(pictures, max_train_images=4, max_test_images=2), tmp_path / "out")
    assert np.load(tmp_path / "out" / "train_labels.npy").tolist() == [0, 0, 1, 1]
    assert np.load(tmp_path / "out" / "test_labels.npy").tolist() == [0, 1]


def test_the_networks_preprocessing_is_that_of_the_settings(pictures: Path) -> None:
    plain = preprocessing_of(settings(pictures))
    assert (plain.image_px, plain.resize_px, plain.num_channels, plain.mean, plain.std) == (16, 16, 3, COLOUR["mean"], COLOUR["std"])
    assert preprocessing_of(settings(pictures, resize_px=20)).resize_px == 20


def test_a_split_of_no_images_is_refused(tmp_path: Path) -> None:
    from g2sd_deploy.data.idx import write_idx

    root = tmp_path / "digits"
    root.mkdir()
    for split, num in (("train", 3), ("t10k", 0)):
        write_idx(root / f"{split}-images-idx3-ubyte.gz", np.zeros((num, 28, 28), np.uint8))
        write_idx(root / f"{split}-labels-idx1-ubyte.gz", np.zeros(num, np.uint8))
    with pytest.raises(UserError, match=r"digits: there are no test images$"):
        prepare(settings(root, source="idx", image_px=28, num_channels=1, mean=(0.5,), std=(0.5,)), tmp_path / "out")


def test_a_later_stage_opens_what_was_stored(artifact_of: Callable[[str], Artifact], recipe: Recipe) -> None:
    dataset = open_dataset(artifact_of("data"))
    assert (len(dataset.train), len(dataset.test), len(dataset.class_names)) == (64, 40, 10)
    assert dataset.preprocessing == preprocessing_of(recipe.data)
    assert recipe.student is not None
    spec = encoder_spec(recipe.student, dataset.preprocessing)
    assert (spec.image_px, spec.num_channels, spec.patch_px, spec.width, spec.num_patches) == (28, 1, 7, 8, 16)
