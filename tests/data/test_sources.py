"""Folders of images and of IDX files, and what is wrong with them."""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from g2sd_deploy.data.decoding import decode_set
from g2sd_deploy.data.idx import write_idx
from g2sd_deploy.data.images import ImageSet
from g2sd_deploy.data.sources import BUNDLED_FASHION_MNIST, FolderSource, IdxSource, Source, guess_kind, open_source
from g2sd_deploy.errors import UserError
from g2sd_export.edge.preprocess import Preprocessing

GREY = Preprocessing(image_px=8, resize_px=8, num_channels=1, mean=(0.5,), std=(0.5,))
COLOUR = Preprocessing(image_px=8, resize_px=8, num_channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)


def read(source: Source, split: str = "train", fit: Preprocessing = GREY, limit: int | None = None) -> ImageSet:
    return decode_set(source.samples(split, limit), fit, lambda done, total: None)


def save_image(path: Path, colour: tuple[int, int, int] = (90, 90, 90), size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes with four training images and one test image each; the grey level tells them apart."""
    for level, name in ((40, "cat"), (160, "ape")):
        for i in range(4):
            save_image(tmp_path / "train" / name / f"{i}.png", (level + i,) * 3)
        save_image(tmp_path / "test" / name / "0.png", (level,) * 3)
    return tmp_path


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    """Eight training and four test images of 8 x 8 pixels with labels 0 to 3; the pixels tell the label."""
    for stem, num in (("train", 8), ("t10k", 4)):
        labels = np.arange(num, dtype=np.uint8) % 4
        write_idx(tmp_path / f"{stem}-labels-idx1-ubyte.gz", labels)
        write_idx(tmp_path / f"{stem}-images-idx3-ubyte.gz", np.broadcast_to(labels[:, None, None] * 50, (num, 8, 8)))
    return tmp_path


def refused(work: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        work()
    assert "\n" not in str(caught.value)


def test_classes_are_the_sorted_folder_names_and_images_follow_in_the_order_of_their_names(folder: Path) -> None:
    source = FolderSource(folder)
    assert source.class_names == ("ape", "cat")
    images = read(source)
    assert images.labels.tolist() == [0] * 4 + [1] * 4
    assert images.images[:, 0, 0, 0].tolist() == [160, 161, 162, 163, 40, 41, 42, 43]
    assert read(source, "test").labels.tolist() == [0, 1]


def test_classes_are_sorted_whatever_order_the_file_system_lists_them_in(tmp_path: Path) -> None:
    for name in "qmzak":
        save_image(tmp_path / "train" / name / "0.png")
    assert FolderSource(tmp_path).class_names == ("a", "k", "m", "q", "z")


def test_reading_tells_how_far_it_is(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    decode_set(FolderSource(folder).samples("train", None), GREY, lambda done, total: told.append((done, total)))
    assert told == [(i, 8) for i in range(1, 9)]


def test_files_that_are_no_images_are_ignored_and_sub_folders_and_capital_suffixes_are_not(folder: Path) -> None:
    (folder / "train" / "ape" / "notes.txt").write_text("not an image")
    (folder / "train" / "ape" / ".DS_Store").write_bytes(b"\0")
    save_image(folder / "train" / "ape" / "more" / "9.PNG")
    assert np.bincount(read(FolderSource(folder)).labels).tolist() == [5, 4]


def test_images_are_converted_to_grey_or_colour_and_cropped_to_size(folder: Path) -> None:
    save_image(folder / "train" / "ape" / "0.png", (255, 0, 0), (16, 9))
    source = FolderSource(folder)
    colour, grey = read(source, fit=COLOUR), read(source, fit=GREY)
    assert colour.images.shape == (8, 8, 8, 3)
    assert grey.images.shape == (8, 8, 8, 1)
    assert (colour.images[0] == (255, 0, 0)).all()
    assert (grey.images[0] == 76).all()  # ITU-R 601: 0.299 * 255
    assert (colour.images[1] == 161).all()


def test_a_limit_is_spread_evenly_over_the_classes(folder: Path) -> None:
    some = read(FolderSource(folder), limit=4)
    assert some.labels.tolist() == [0, 0, 1, 1]
    assert some.images[:, 0, 0, 0].tolist() == [160, 162, 40, 42]
    assert len(read(FolderSource(folder), limit=99)) == 8


def test_an_image_that_cannot_be_decoded_is_named(folder: Path) -> None:
    broken = folder / "train" / "cat" / "2.png"
    broken.write_bytes(broken.read_bytes()[:40])
    refused(lambda: read(FolderSource(folder)), "^train/cat/2.png: cannot be decoded as an image")


def test_an_empty_class_folder_is_named(folder: Path) -> None:
    (folder / "train" / "dog").mkdir()
    refused(
        lambda: read(FolderSource(folder)),
        r"train/dog: the class folder holds no image; add images or remove the class".replace("/", re.escape(os.sep)),
    )


def test_a_class_that_only_the_test_split_has_is_named(folder: Path) -> None:
    save_image(folder / "test" / "dog" / "0.png")
    refused(lambda: read(FolderSource(folder)), f"train{re.escape(os.sep)}dog: the class folder holds no image")


def test_a_missing_split_is_named_with_those_that_are_there(folder: Path) -> None:
    refused(
        lambda: read(FolderSource(folder), "val"),
        r"there is no split val \(found test, train\); set data\.train_split and data\.test_split",
    )


def test_a_folder_without_class_folders_is_refused(tmp_path: Path) -> None:
    save_image(tmp_path / "1.png")
    refused(lambda: FolderSource(tmp_path).class_names, "holds no class folders; wanted SPLIT/CLASS/IMAGE, for example")


def test_a_folders_fingerprint_changes_with_its_files_alone(folder: Path) -> None:
    source, changes = FolderSource(folder), []
    before = source.fingerprint()
    assert source.fingerprint() == before
    save_image(folder / "train" / "cat" / "new.png")
    changes.append(source.fingerprint())
    save_image(folder / "test" / "ape" / "0.png", size=(9, 9))
    changes.append(source.fingerprint())
    (folder / "train" / "cat" / "new.png").rename(folder / "train" / "cat" / "newer.png")
    changes.append(source.fingerprint())
    assert len({before, *changes}) == 4


def test_idx_images_come_with_their_labels_in_order_and_one_channel(idx_folder: Path) -> None:
    images = read(IdxSource(idx_folder))
    assert images.images.shape == (8, 8, 8, 1)
    assert images.labels.tolist() == [0, 1, 2, 3] * 2
    assert images.labels.dtype == np.int64
    assert images.images[:, 3, 3, 0].tolist() == [0, 50, 100, 150] * 2
    assert len(read(IdxSource(idx_folder), "test")) == 4
    assert read(IdxSource(idx_folder), limit=2).labels.tolist() == [0, 0]


def test_idx_images_are_made_the_size_and_colours_that_are_asked_for(idx_folder: Path) -> None:
    larger = Preprocessing(image_px=16, resize_px=16, num_channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    images = read(IdxSource(idx_folder), fit=larger)
    assert images.images.shape == (8, 16, 16, 3)
    assert images.images[:, 5, 5, 2].tolist() == [0, 50, 100, 150] * 2


def test_idx_classes_are_named_by_the_folders_list_or_by_its_name_or_else_by_digits(
    idx_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert IdxSource(idx_folder).class_names == ("0", "1", "2", "3")
    (idx_folder / "LABELS.txt").write_text("a\nb\nc\nd\n", encoding="utf-8")
    assert IdxSource(idx_folder).class_names == ("a", "b", "c", "d")
    fashion = tmp_path_factory.mktemp("Fashion") / "mnist"
    fashion.mkdir()
    assert IdxSource(fashion).class_names[:2] == ("T-shirt/top", "Trouser")


def test_a_label_without_a_name_is_refused(idx_folder: Path) -> None:
    (idx_folder / "LABELS.txt").write_text("a\nb\nc\n", encoding="utf-8")
    refused(lambda: read(IdxSource(idx_folder)), "train has label 3, but there are 3 class names")


@pytest.mark.parametrize("labels", [np.zeros(7, np.uint8), np.zeros((8, 1), np.uint8)])
def test_images_and_labels_that_do_not_belong_together_are_refused(idx_folder: Path, labels: np.ndarray) -> None:
    write_idx(idx_folder / "train-labels-idx1-ubyte.gz", labels)
    refused(lambda: read(IdxSource(idx_folder)), r"train images \(8, 8, 8\) and labels \(.*\) do not belong together")


def test_a_missing_idx_file_is_named(idx_folder: Path) -> None:
    (idx_folder / "t10k-labels-idx1-ubyte.gz").unlink()
    refused(lambda: read(IdxSource(idx_folder), "test"), "there is no t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte")
    refused(IdxSource(idx_folder).fingerprint, "there is no t10k-labels-idx1-ubyte")


def write_checksums(folder: Path) -> None:
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in sorted(folder.glob("*.gz"))]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def test_files_that_match_the_check_sums_are_read_and_a_changed_or_missing_one_is_named(idx_folder: Path) -> None:
    write_checksums(idx_folder)
    assert len(read(IdxSource(idx_folder))) == 8
    changed = idx_folder / "t10k-images-idx3-ubyte.gz"
    write_idx(changed, np.ones((4, 8, 8), np.uint8))
    refused(lambda: read(IdxSource(idx_folder)), f"^{re.escape(str(changed))}: is not the file that SHA256SUMS names")
    changed.unlink()
    refused(lambda: read(IdxSource(idx_folder)), f"^{re.escape(str(changed))}: is not the file that SHA256SUMS names")


def test_the_kind_of_a_source_is_seen_from_its_files(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    idx = tmp_path_factory.mktemp("idx")
    write_idx(idx / "train-images-idx3-ubyte.gz", np.zeros((1, 2, 2), np.uint8))
    assert [guess_kind(str(root)) for root in (folder, idx, BUNDLED_FASHION_MNIST, folder / "none")] == ["folder", "idx", "idx", "folder"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    refused(lambda: open_source("folder", str(tmp_path / "none")), "data.root .*none: there is no such folder; set data.root")
    refused(lambda: open_source("folder", BUNDLED_FASHION_MNIST), "data.root bundled:fashion-mnist needs data.source idx, not folder")


def test_variables_in_a_path_are_expanded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICTURES", str(folder))
    source = open_source("folder", "$PICTURES/.")
    assert source.class_names == ("ape", "cat")


@pytest.mark.parametrize("kind", ["folder", "idx"])
def test_a_description_names_no_path_of_this_machine(kind: str, folder: Path) -> None:
    description = open_source(kind, str(folder)).description
    assert folder.name in description
    assert os.sep not in description
