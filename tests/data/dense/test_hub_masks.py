"""Hugging Face data sets with masks: Parquet, folders of `save_to_disk`, and what is refused."""

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from g2sd_deploy.data.dense.huggingface import HubMasks
from g2sd_deploy.data.dense.opening import open_dense

Refused = Callable[[Callable[[], object], str], None]
SIZES = {"train": [(4, 5), (6, 3), (2, 2)], "validation": [(3, 4)]}


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`datasets` with a cache of the test's own, and quiet."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf_cache")
    datasets.disable_progress_bars()
    return datasets


def png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def written(split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng([len(split), index])
    size = SIZES[split][index]
    return draw.integers(0, 256, (*size, 3), dtype=np.uint8), draw.integers(0, 3, size, dtype=np.uint8)


def tables(library: Any, names: tuple[str, str] = ("image", "annotation"), mask: bytes | None = None) -> Any:
    """Both splits with two columns of images, and one of no use."""
    features = library.Features({"scene": library.Value("string"), **{name: library.Image() for name in names}})
    made = {}
    for split, sizes in SIZES.items():
        pairs = [written(split, i) for i in range(len(sizes))]
        columns = {
            names[0]: [{"bytes": png(pixels), "path": None} for pixels, _ in pairs],
            names[1]: [{"bytes": mask or png(values), "path": None} for _, values in pairs],
        }
        made[split] = library.Dataset.from_dict({"scene": ["hall"] * len(sizes), **columns}, features=features)
    return library.DatasetDict(made)


def saved(library: Any, root: Path, **options: Any) -> Path:
    tables(library, **options).save_to_disk(str(root))
    (root / "classes.txt").write_text("wall\nsky\ntree\n")
    return root


def check(samples: Any, split: str) -> None:
    assert len(samples) == len(SIZES[split])
    for i in range(len(samples)):
        annotated, (pixels, values) = samples.read(i), written(split, i)
        np.testing.assert_array_equal(annotated.pixels, pixels)
        np.testing.assert_array_equal(annotated.classes, values)
        assert samples.name(i) == f"{split}/{i}" and annotated.instances is None


@pytest.mark.parametrize("layout", ["parquet", "save_to_disk"])
def test_images_and_masks_are_those_that_were_stored(layout: str, library: Any, tmp_path: Path) -> None:
    root = tmp_path / "set"
    if layout == "parquet":
        (root / "data").mkdir(parents=True)
        for split, table in tables(library).items():
            table.to_parquet(str(root / "data" / f"{split}-00000-of-00001.parquet"))
        (root / "id2label.json").write_text(json.dumps({"0": "wall", "1": "sky", "2": "tree"}))
    else:
        saved(library, root)
    source = HubMasks(str(root), ignore_zero=False)
    assert source.class_names == ("wall", "sky", "tree") and source.description == "Hugging Face data set of the folder set."
    for split in SIZES:
        check(source.samples(split, None), split)
    samples = source.samples("train", None)
    where = samples.save(tmp_path / "kept")
    assert json.loads(json.dumps(where)) == where and where["source"] == "huggingface"
    opened = open_dense(tmp_path / "kept", where)
    check(opened, "train")
    check(pickle.loads(pickle.dumps(opened)), "train")
    assert source.samples("train", 2).name(1) == "train/1"


@pytest.mark.parametrize("names", [("image", "label"), ("pixel_values", "segmentation"), ("jpg", "png"), ("view", "mask")])
def test_columns_are_found_by_the_names_that_they_usually_have(names: tuple[str, str], library: Any, tmp_path: Path) -> None:
    check(HubMasks(str(saved(library, tmp_path / "set", names=names)), ignore_zero=False).samples("validation", None), "validation")


@pytest.mark.parametrize("names", [("image", "depth"), ("label", "mask")])
def test_columns_that_cannot_be_told_apart_are_named(names: tuple[str, str], library: Any, tmp_path: Path, refused: Refused) -> None:
    source = HubMasks(str(saved(library, tmp_path / "set", names=names)), ignore_zero=False)
    message = f"wanted one column of images called image .* found {names[0]}, {names[1]} among scene, {names[0]}, {names[1]}; rename or"
    refused(lambda: source.samples("train", None), message)


def test_zero_may_stand_for_nothing(library: Any, tmp_path: Path) -> None:
    root = saved(library, tmp_path / "set")
    (root / "classes.txt").write_text("sky\ntree\n")
    found = HubMasks(str(root), ignore_zero=True).samples("train", None).read(0).classes
    assert found is not None
    np.testing.assert_array_equal(found, (written("train", 0)[1] - np.uint8(1)))


def test_masks_of_colours_are_refused_at_once(library: Any, tmp_path: Path, refused: Refused) -> None:
    source = HubMasks(str(saved(library, tmp_path / "set", mask=png(np.zeros((4, 5, 3), dtype=np.uint8)))), ignore_zero=False)
    refused(lambda: source.samples("train", None), r"set: the mask of train/0 has colours or transparency \(RGB\); wanted a grey or")


def test_one_damaged_row_is_a_bad_image(library: Any, tmp_path: Path, bad: Refused) -> None:
    source = HubMasks(str(saved(library, tmp_path / "set", mask=png(np.zeros((4, 5), dtype=np.uint8)))), ignore_zero=False)
    samples = source.samples("train", None)
    assert samples.read(0).pixels.shape == (4, 5, 3)
    bad(lambda: samples.read(1), "its mask has 5 x 4 pixels, but the image has 3 x 6")
    without = tables(library)["validation"].map(lambda row: {"annotation": None})
    without.save_to_disk(str(tmp_path / "none" / "validation"))
    (tmp_path / "none" / "classes.txt").write_text("wall\nsky\ntree\n")
    empty = HubMasks(str(tmp_path / "none"), ignore_zero=False).samples("validation", None)
    bad(lambda: empty.read(0), "its mask validation/0: the row holds no image")


def test_class_names_come_from_a_file_of_the_folder_or_one_that_is_given(library: Any, tmp_path: Path, refused: Refused) -> None:
    root = saved(library, tmp_path / "set")
    (root / "classes.txt").rename(tmp_path / "names.txt")
    refused(lambda: HubMasks(str(root), ignore_zero=False).class_names, "nothing says what its classes are called; save the data set to a")
    assert HubMasks(str(root), ignore_zero=False, classes=tmp_path / "names.txt").class_names == ("wall", "sky", "tree")
    refused(lambda: HubMasks(str(root), ignore_zero=False, classes=tmp_path / "no.txt").class_names, "no.txt: cannot be read")
    refused(lambda: HubMasks("./none/at all", ignore_zero=False), "there is no such folder, and it is no name on the hub")
