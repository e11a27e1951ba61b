"""NumPy arrays on disk and in one .npz."""

import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from g2sd_deploy.data.sources import guess_kind, open_samples, open_source, save_samples
from g2sd_deploy.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
LABELS = np.array([2, 0, 1, 1, 0], np.int32)


def open_arrays(root: Path, *splits: str) -> Any:
    return open_source("numpy", str(root), splits=splits or ("train", "test"))


def refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "arrays"
    root.mkdir()
    for split, num in (("train", 5), ("test", 3)):
        np.save(root / f"{split}_images.npy", IMAGES[:num])
        np.save(root / f"{split}_labels.npy", LABELS[:num])
    return root


def test_rows_are_read_by_index_and_labels_are_names_unless_there_are_others(folder: Path) -> None:
    source = open_arrays(folder)
    samples = source.samples("train", None)
    assert samples.labels.tolist() == LABELS.tolist() and samples.labels.dtype == np.int64
    np.testing.assert_array_equal(np.stack([samples.read(i) for i in range(5)]), IMAGES)
    assert source.class_names == ("0", "1", "2")
    (folder / "classes.txt").write_text("ape\ncat\ndog\n", encoding="utf-8")
    assert open_arrays(folder).class_names == ("ape", "cat", "dog")
    some = source.samples("train", 2)
    assert some.labels.tolist() == [2, 1] and some.name(1) == "train_images.npy/2"
    assert str(folder.parent) not in source.description and guess_kind(str(folder)) == "numpy"


def test_grey_images_may_leave_their_channel_out(folder: Path) -> None:
    np.save(folder / "train_images.npy", IMAGES[..., 0])
    image = open_arrays(folder).samples("train", None).read(1)
    np.testing.assert_array_equal(image, IMAGES[1, :, :, :1])


def test_the_array_stays_on_disk_and_is_reopened_in_another_process(folder: Path, tmp_path: Path) -> None:
    where = save_samples(open_arrays(folder).samples("train", None), tmp_path / "listing")
    samples: Any = open_samples(tmp_path / "listing", where)
    samples.read(0)
    assert isinstance(samples._images, np.memmap) and len(pickle.dumps(samples)) < 500
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.map(samples.read, [4])[0], IMAGES[4])
    np.save(folder / "train_images.npy", IMAGES[:4])
    refused(
        lambda: open_samples(tmp_path / "listing", where).read(0), r"train_images\.npy: is gone or has another size than when it was listed"
    )


def test_one_npz_holds_all_splits(tmp_path: Path) -> None:
    file = tmp_path / "digits.npz"
    np.savez(file, train_images=IMAGES, train_labels=LABELS, test_images=IMAGES[:2], test_labels=LABELS[:2])
    source = open_arrays(file)
    samples = source.samples("train", 3)
    np.testing.assert_array_equal(samples.read(1), IMAGES[1])
    assert samples.labels.tolist() == [2, 0, 1] and source.class_names == ("0", "1", "2") and guess_kind(str(file)) == "numpy"
    np.savez(file, train_images=IMAGES, train_labels=LABELS, class_names=np.array(["ape", "cat", "dog"]))
    assert open_arrays(file).class_names == ("ape", "cat", "dog")
    refused(lambda: open_arrays(file).samples("test", None), r"npz: holds no test_images \(found train_images, train_labels, class_names\)")
    refused(lambda: save_samples(samples, tmp_path / "listing"), "these images lie in memory, not in files; set data.store to arrays")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES.astype(np.float32), LABELS, r"train images are float32 \[5, 6, 7, 3\]; wanted uint8"),
        (IMAGES[..., :2], LABELS, r"train images are uint8 \[5, 6, 7, 2\]; wanted uint8"),
        (IMAGES, LABELS[:4], r"train labels are int32 \[4\]; wanted 5 whole numbers"),
        (IMAGES, LABELS.astype(float), r"train labels are float64 \[5\]; wanted 5 whole numbers"),
        (IMAGES, LABELS - 1, "train has label -1, but there are"),
        (np.array([{}] * 5), LABELS, r"train_images\.npy: cannot be read as \.npy .*without objects"),
    ],
)
def test_arrays_that_are_no_images_and_labels_are_refused(images: Any, labels: Any, message: str, folder: Path) -> None:
    np.save(folder / "train_images.npy", images, allow_pickle=True)
    np.save(folder / "train_labels.npy", labels)
    refused(lambda: open_arrays(folder).samples("train", None), message)


def test_what_is_missing_or_damaged_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "classes.txt").write_text("a\nb\n", encoding="utf-8")
    refused(lambda: open_arrays(folder).samples("train", None), "train has label 2, but there are 2 class names")
    refused(lambda: open_arrays(folder, "val").samples("val", None), r"no val_images\.npy \(found test_images\.npy, ")
    (folder / "test_labels.npy").write_bytes(b"\x93NUMPY")
    refused(lambda: open_arrays(folder).samples("test", None), r"test_labels\.npy: cannot be read as \.npy")
    (tmp_path / "x.npz").write_bytes(b"PK nothing")
    refused(lambda: open_arrays(tmp_path / "x.npz").class_names, r"x\.npz: cannot be read as \.npz")
    refused(lambda: open_arrays(tmp_path / "none"), "there is no such folder")


def test_the_fingerprint_changes_with_a_file(folder: Path) -> None:
    before = open_arrays(folder).fingerprint()
    np.save(folder / "test_labels.npy", LABELS[:2])
    assert open_arrays(folder).fingerprint() != before
