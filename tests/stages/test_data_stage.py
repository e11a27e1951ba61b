"""The data stage: images decoded once, at the size that the networks need."""

import io
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from g2sd_deploy.artifact import Artifact
from g2sd_deploy.data.images import BadImage, ImageSet
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.progress import SilentProgress
from g2sd_deploy.runtime import Runtime
from g2sd_deploy.settings import DataSettings, Recipe
from g2sd_deploy.stages import data
from g2sd_deploy.stages.context import Context, Dataset, encoder_spec, open_dataset, preprocessing_of

TEST_FILES = ("dataset.json", "test_images.npy", "test_labels.npy")
COLOUR = {"num_channels": 3, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)}


def settings(root: Path | str, **changes: Any) -> DataSettings:
    return DataSettings(**({"source": "folder", "root": str(root), "image_px": 16} | COLOUR | changes))


def prepare(settings: DataSettings, folder: Path, warnings: list[str] | None = None) -> Any:
    folder.mkdir(exist_ok=True)
    recipe = Recipe(name="colour", data=settings)
    context = Context(recipe, "data", {}, folder, folder, Runtime(torch.device("cpu")), SilentProgress(), "key")
    made = data.run(context)
    if warnings is not None:
        warnings += context.warnings
    return made


def reopened(made: Any, folder: Path) -> Dataset:
    """What a later stage gets."""
    files = {str(path.relative_to(folder)): {} for path in folder.rglob("*") if path.is_file()}
    return open_dataset(artifact(made, folder, files))


def artifact(made: Any, folder: Path, files: dict[str, Any]) -> Artifact:
    """As it is read from its marker, where figures of the moment stand beside the others."""
    return Artifact(folder, "data", "", "", files, {"data": {"max_bad_images": 0}}, {}, made.metrics | made.timing, "")


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


def test_encoded_images_are_listed_once_and_read_where_they_lie(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = prepare(settings(pictures, store="encoded", max_train_images=4), tmp_path / "out")
    assert not (tmp_path / "out" / "train_images.npy").exists() and (made.metrics["num_train"], made.metrics["store"]) == (4, "encoded")
    monkeypatch.setattr(Path, "rglob", None), monkeypatch.setattr(Path, "iterdir", None)
    train = open_dataset(artifact(made, tmp_path / "out", {name: {} for name in TEST_FILES})).train
    assert train.labels.tolist() == [0, 0, 1, 1] and train.block_sizes.tolist() == [4]
    assert len(pickle.dumps(train)) < 500, "its arrays are mapped, not sent"
    names = [train.name(i) for i in range(4)]
    assert names == ["train/blue/0.png", "train/blue/2.png", "train/red/0.png", "train/red/2.png"]
    assert [train.read(i) for i in range(4)] == [(pictures / name).read_bytes() for name in names]


def test_an_encoded_image_that_went_or_changed_is_noticed_at_reading(pictures: Path, tmp_path: Path) -> None:
    made = prepare(settings(pictures, store="encoded"), tmp_path / "out")
    train = reopened(made, tmp_path / "out").train
    (pictures / "train/blue/1.png").unlink()
    with pytest.raises(BadImage, match="the file is gone since the images were listed"):
        train.read(1)
    with (pictures / "train/blue/2.png").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BadImage, match=r"the file has \d+ bytes, but had \d+ when the images were listed"):
        train.read(2)
    pictures.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"the folder of the images is not there any more; mount it again, or set data\.root"):
        train.read(0)


def test_bad_training_images_are_left_out_warned_of_and_counted(pictures: Path, tmp_path: Path) -> None:
    (pictures / "train/blue/1.png").write_bytes(b"")
    (pictures / "train/red/3.png").write_bytes(b"no image")
    warned: list[str] = []
    made = prepare(settings(pictures, max_bad_images=2), tmp_path / "out", warned)
    assert [line.partition(": cannot be decoded as an image")[0] for line in warned] == [
        f"{pictures}/train/blue/1.png",
        f"{pictures}/train/red/3.png",
    ]
    assert (made.metrics["num_bad"], made.metrics["num_train"]) == (2, 6)
    assert [bad["name"] for bad in made.metrics["bad_images"]] == ["train/blue/1.png", "train/red/3.png"]
    train = reopened(made, tmp_path / "out").train
    assert isinstance(train, ImageSet) and train.images.shape == (6, 16, 16, 3)
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(train.images[:, 8, 8], [[200 * label, 0, 200 * (1 - label)] for label in train.labels])


def test_more_bad_training_images_than_allowed_stop_the_run(pictures: Path, tmp_path: Path) -> None:
    for name in ("blue/1.png", "blue/2.png", "red/0.png"):
        (pictures / "train" / name).write_bytes(b"")
    with pytest.raises(RunFailed, match=r"red/0\.png: .* \(before it: train/blue/1\.png, train/blue/2\.png\); .* allows 2 .*data verify"):
        prepare(settings(pictures, max_bad_images=2), tmp_path / "out")
    with pytest.raises(RunFailed, match=r"^[^ ]*train/blue/1\.png: cannot be decoded .* allows 0 such training images: g2sd data"):
        prepare(settings(pictures), tmp_path / "out")


def test_a_cache_that_the_shards_do_not_fit_into_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("G2SD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "web").mkdir()
    image = io.BytesIO()
    Image.new("RGB", (16, 16)).save(image, "PNG")
    for shard in range(3):
        with tarfile.open(tmp_path / "web" / f"{shard}.tar", "w") as tar:
            for name, content in (("0.png", image.getvalue()), ("0.cls", b"0"), ("note", bytes(100_000))):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    gib = (tmp_path / "web" / "0.tar").stat().st_size / (1 << 30)
    remote = {"source": "shards", "store": "encoded", "train_split": "{0..2}.tar", "test_split": "0.tar"}
    fits = settings(f"file://{tmp_path}/web", **remote, cache_gib=2.5 * gib, shuffle_shards=2)
    assert reopened(prepare(fits, tmp_path / "out"), tmp_path / "out").train.block_sizes.tolist() == [1, 1, 1]
    with pytest.raises(UserError, match=r"images are shuffled over all training shards, which take .* lower data\.shuffle_shards"):
        prepare(fits.model_copy(update={"shuffle_shards": None}), tmp_path / "all")
    with pytest.raises(UserError, match=r"shuffled over the 3 largest training shards"):
        prepare(fits.model_copy(update={"shuffle_shards": 3}), tmp_path / "three")


def test_a_set_without_one_good_training_image_is_refused(pictures: Path, tmp_path: Path) -> None:
    for file in (pictures / "train").rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(RunFailed, match="pictures: none of the 8 training images can be decoded"):
        prepare(settings(pictures, max_bad_images=99), tmp_path / "out")


@pytest.mark.parametrize("store", ["arrays", "encoded"])
def test_a_bad_test_image_always_stops_the_run(store: str, pictures: Path, tmp_path: Path) -> None:
    (pictures / "test/red/2.png").write_bytes(b"")
    with pytest.raises(RunFailed, match=r"test/red/2\.png: cannot be decoded as an image .*every test image has to be there"):
        prepare(settings(pictures, max_bad_images=99, store=store), tmp_path / "out")


@pytest.mark.skipif(sys.platform == "win32", reason="no count of a child's memory")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """100 MB and 400 MB of decoded pixels, each in a process of its own."""
    code = """
import resource, sys
import numpy as np
from g2sd_deploy.data.array_file import ArrayFile
from g2sd_deploy.data.decoding import decoded
from g2sd_deploy.data.sources import open_source
from g2sd_export.edge.preprocess import Preprocessing
from pathlib import Path
fit = Preprocessing(500, 500, 3, (0.5,) * 3, (0.5,) * 3)
with ArrayFile(Path(sys.argv[2]), (500, 500, 3)) as file:
    for image in decoded(open_source("folder", sys.argv[1]).samples("train", None), fit):
        file.append(image)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    peaks = []
    for num in (130, 530):
        folder = tmp_path / str(num) / "train" / "a"
        folder.mkdir(parents=True)
        Image.new("RGB", (500, 500)).save(folder / "0.png")
        for i in range(1, num):
            (folder / f"{i}.png").hardlink_to(folder / "0.png")
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder.parent.parent), str(tmp_path / "out.npy")], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout))
        assert np.load(tmp_path / "out.npy", mmap_mode="r").shape == (num, 500, 500, 3)
    assert peaks[1] < peaks[0] + 60, f"{peaks} MiB"


def test_a_later_stage_opens_what_was_stored(artifact_of: Callable[[str], Artifact], recipe: Recipe) -> None:
    dataset = open_dataset(artifact_of("data"))
    assert (len(dataset.train), len(dataset.test), len(dataset.class_names)) == (64, 40, 10)
    assert dataset.preprocessing == preprocessing_of(recipe.data)
    assert recipe.student is not None
    spec = encoder_spec(recipe.student, dataset.preprocessing)
    assert (spec.image_px, spec.num_channels, spec.patch_px, spec.width, spec.num_patches) == (28, 1, 7, 8, 16)
