"""The subset that ships, and the script that made it."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from g2sd_deploy.data.decoding import decode_set
from g2sd_deploy.data.fashion_mnist import first_of_each_class, make_subset
from g2sd_deploy.data.idx import find_idx, read_idx, write_idx
from g2sd_deploy.data.sources import BUNDLED_FASHION_MNIST, FASHION_MNIST_CLASSES, IdxSource, open_source
from g2sd_export.edge.preprocess import Preprocessing

FIT = Preprocessing(image_px=28, resize_px=28, num_channels=1, mean=(0.286,), std=(0.353,))
DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def bundled_folder() -> Path:
    source = open_source("idx", BUNDLED_FASHION_MNIST)
    assert isinstance(source, IdxSource)
    return source.folder


@pytest.mark.parametrize(("split", "per_class"), [("train", 1000), ("test", 500)])
def test_the_bundled_set_holds_as_many_images_of_each_class_as_it_says(split: str, per_class: int) -> None:
    source = open_source("idx", BUNDLED_FASHION_MNIST)
    images = decode_set(source.samples(split, None), FIT, lambda done, total: None)  # compares the check sums, too
    assert images.images.shape == (10 * per_class, 28, 28, 1)
    assert np.bincount(images.labels).tolist() == [per_class] * 10
    assert source.class_names == FASHION_MNIST_CLASSES
    assert f"{per_class:,}" in source.description


def test_every_bundled_data_file_has_a_check_sum_that_holds() -> None:
    folder = bundled_folder()
    listed = dict(reversed(line.split()) for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines())
    assert set(listed) == {file.name for file in folder.glob("*.gz")} | {"LABELS.txt"}
    assert all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest for name, digest in listed.items())


def test_the_bundled_folder_stays_below_eight_megabytes() -> None:
    assert sum(file.stat().st_size for file in bundled_folder().rglob("*") if file.is_file()) <= 8_000_000


def test_the_mean_and_deviation_that_recipes_use_are_those_of_the_images() -> None:
    pixels = read_idx(find_idx(bundled_folder(), "train-images-idx3-ubyte")).astype(np.float64) / 255
    assert pixels.mean() == pytest.approx(0.286, abs=2e-3)
    assert pixels.std() == pytest.approx(0.353, abs=2e-3)


def test_the_first_images_of_each_class_are_picked_in_the_order_of_the_source() -> None:
    labels = np.array([2, 0, 0, 2, 0, 1, 2, 0])
    assert first_of_each_class(labels, 2).tolist() == [0, 1, 2, 3, 5]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four files with a few more images of each class than the subset keeps; each image holds its own number."""
    folder = tmp_path_factory.mktemp("full")
    for stem, num in (("train", 10_070), ("t10k", 5_030)):
        labels = np.random.default_rng(0).permutation(np.arange(num) % 10).astype(np.uint8)
        numbers = np.arange(num)
        write_idx(folder / f"{stem}-labels-idx1-ubyte.gz", labels)
        write_idx(folder / f"{stem}-images-idx3-ubyte.gz", np.stack([numbers // 256, numbers % 256], axis=1).astype(np.uint8)[:, None, :])
    return folder


def test_a_subset_is_the_first_images_of_each_class_with_labels_names_and_check_sums(source: Path, tmp_path: Path) -> None:
    make_subset(source, tmp_path / "subset")
    for stem, per_class in (("train", 1000), ("t10k", 500)):
        whole = read_idx(source / f"{stem}-labels-idx1-ubyte.gz").tolist()
        wanted = [place for place, label in enumerate(whole) if whole[:place].count(label) < per_class]
        images = read_idx(tmp_path / "subset" / f"{stem}-images-idx3-ubyte.gz").astype(int)
        assert (images[:, 0, 0] * 256 + images[:, 0, 1]).tolist() == wanted
        assert read_idx(tmp_path / "subset" / f"{stem}-labels-idx1-ubyte.gz").tolist() == [whole[place] for place in wanted]
    subset = IdxSource(tmp_path / "subset")
    small = Preprocessing(image_px=2, resize_px=2, num_channels=1, mean=(0.5,), std=(0.5,))
    assert len(decode_set(subset.samples("train", 3), small, lambda done, total: None)) == 3  # the check sums hold
    assert subset.class_names == FASHION_MNIST_CLASSES


def test_the_same_source_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_subset(source, tmp_path / name)
    files = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert len(files) == 6
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
@pytest.mark.parametrize(("stem", "per_class"), [("train", 1000), ("t10k", 500)])
def test_the_bundled_images_are_the_first_of_each_class_of_the_full_set(stem: str, per_class: int) -> None:
    labels = read_idx(find_idx(DEBIAN, f"{stem}-labels-idx1-ubyte"))
    picks = first_of_each_class(labels, per_class)
    for kind, whole in (("labels-idx1", labels), ("images-idx3", read_idx(find_idx(DEBIAN, f"{stem}-images-idx3-ubyte")))):
        assert np.array_equal(read_idx(find_idx(bundled_folder(), f"{stem}-{kind}-ubyte")), whole[picks])
