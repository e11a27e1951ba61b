"""Hugging Face data sets: Parquet that pyarrow and `datasets` wrote, folders of `save_to_disk`, and what is refused."""

import multiprocessing
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy.data.sources import guess_kind, open_samples, open_source, save_samples
from g2sd_deploy.errors import UserError

Png = Callable[..., bytes]
LABELS = {"train": [1, 0, 1, 2, 2, 0], "test": [2, 0]}


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`datasets` with a cache of the test's own, and quiet."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf_cache")
    datasets.disable_progress_bars()
    return datasets


def open_hub(root: Path | str, *splits: str) -> Any:
    return open_source("huggingface", str(root), splits=splits or ("train", "test"))


def refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.fixture
def tables(library: Any, png: Png) -> Any:
    """Both splits with an image column, a ClassLabel and a column of no use."""
    features = library.Features(
        {"when": library.Value("int64"), "picture": library.Image(), "kind": library.ClassLabel(names=["ape", "cat", "dog"])}
    )
    return library.DatasetDict(
        {
            split: library.Dataset.from_dict(
                {
                    "when": list(range(len(labels))),
                    "picture": [{"bytes": png(i), "path": None} for i in range(len(labels))],
                    "kind": labels,
                },
                features=features,
            )
            for split, labels in LABELS.items()
        }
    )


def write_parquet(tables: Any, root: Path) -> Path:
    """Two files for the training split, laid out as on the hub."""
    (root / "data").mkdir(parents=True)
    for i in range(2):
        tables["train"].shard(2, i, contiguous=True).to_parquet(str(root / "data" / f"train-{i:05d}-of-00002.parquet"))
    tables["test"].to_parquet(str(root / "data" / "test-00000-of-00001.parquet"))
    return root


@pytest.mark.parametrize("layout", ["parquet", "save_to_disk"])
def test_images_labels_and_names_come_from_columns_that_are_found_by_type(layout: str, tables: Any, tmp_path: Path, png: Png) -> None:
    root = tmp_path / "set"
    if layout == "parquet":
        write_parquet(tables, root)
    else:
        tables.save_to_disk(str(root), num_shards={"train": 3, "test": 1})
    source = open_hub(root)
    for split, labels in LABELS.items():
        samples = source.samples(split, None)
        assert samples.labels.tolist() == labels and samples.block_sizes.tolist() == [len(labels)]
        assert [samples.read(i) for i in range(len(labels))] == [png(i) for i in range(len(labels))], "the bytes that were stored"
    assert source.class_names == ("ape", "cat", "dog")
    some = source.samples("train", 2)
    assert [some.read(i) for i in (1, 0)] == [png(3), png(0)] and some.name(1) == "train/3"
    assert str(tmp_path) not in source.description and guess_kind(str(root)) == "huggingface"


def test_parquet_that_pyarrow_wrote_needs_no_word_of_hugging_face(tmp_path: Path, png: Png) -> None:
    import pyarrow
    import pyarrow.parquet

    for split, labels in LABELS.items():
        images = [{"bytes": png(i), "path": f"{i}.png"} for i in range(len(labels))]
        pyarrow.parquet.write_table(pyarrow.table({"image": images, "label": labels}), tmp_path / f"{split}.parquet")
    source = open_hub(tmp_path)
    assert source.class_names == ("0", "1", "2")
    assert [source.samples("test", None).read(i) for i in range(2)] == [png(0), png(1)]


def test_saved_samples_are_reopened_in_another_process_from_the_arrow_files(tables: Any, tmp_path: Path, png: Png) -> None:
    where = save_samples(open_hub(write_parquet(tables, tmp_path / "set")).samples("train", None), tmp_path / "listing")
    samples: Any = open_samples(tmp_path / "listing", where)
    samples.read(0)
    assert len(pickle.dumps(samples)) < 500
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(samples.read, [5, 1]) == [png(5), png(1)]
    assert samples.labels.tolist() == LABELS["train"]
    arrow = Path(samples.listing.where["files"][0]["file"])
    arrow.write_bytes(arrow.read_bytes() + b"\0")
    refused(lambda: open_samples(tmp_path / "listing", where).read(0), r"\.arrow: is gone or has another size than when it was listed")


def test_an_image_that_is_a_path_is_read_from_there_and_a_row_without_one_is_bad(tmp_path: Path, png: Png) -> None:
    import pyarrow
    import pyarrow.parquet

    from g2sd_deploy.data.images import BadImage

    (tmp_path / "0.png").write_bytes(png(0))
    column = pyarrow.array(
        [{"path": str(tmp_path / "0.png")}, {"path": str(tmp_path / "1.png")}, {"path": None}],
        pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}),
    )
    (tmp_path / "set").mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"image": column, "label": [0, 1, 0]}), tmp_path / "set" / "train.parquet")
    samples = open_hub(tmp_path / "set", "train").samples("train", None)
    assert samples.read(0) == png(0)
    with pytest.raises(BadImage, match=r"names the file 1\.png, which cannot be read"):
        samples.read(1)
    with pytest.raises(BadImage, match="the row holds no image"):
        samples.read(2)


def test_a_fingerprint_changes_with_a_file(tables: Any, tmp_path: Path) -> None:
    root = write_parquet(tables, tmp_path / "set")
    before = open_hub(root).fingerprint()
    assert open_hub(root).fingerprint() == before
    tables["train"].to_parquet(str(root / "data" / "test-00000-of-00001.parquet"))
    assert open_hub(root).fingerprint() != before


def with_two_pictures(table: Any) -> Any:
    import datasets

    return datasets.concatenate_datasets([table, table.rename_column("picture", "other").select_columns("other")], axis=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.remove_columns("picture"), "wanted one column of images, found none among when, kind"),
        (with_two_pictures, "wanted one column of images, found picture, other among"),
        (lambda table: table.remove_columns(["kind", "when"]), r"wanted one column of labels \(ClassLabel, or whole numbers\), found none"),
    ],
)
def test_columns_that_cannot_be_told_apart_are_named(change: Any, message: str, tables: Any, tmp_path: Path) -> None:
    change(tables["train"]).save_to_disk(str(tmp_path / "set" / "train"))
    refused(lambda: open_hub(tmp_path / "set", "train").samples("train", None), message)


def test_labels_that_are_missing_or_have_no_name_are_refused(library: Any, tables: Any, tmp_path: Path) -> None:
    hidden = tables["test"].map(lambda row: {"kind": -1})
    hidden.save_to_disk(str(tmp_path / "set" / "test"))
    refused(lambda: open_hub(tmp_path / "set", "test").samples("test", None), "test has label -1, but there are 3 class names")
    tables["test"].map(lambda row: {"kind": None}).save_to_disk(str(tmp_path / "none" / "test"))
    refused(lambda: open_hub(tmp_path / "none", "test").samples("test", None), "2 images of test have no kind; remove them")


def test_splits_whose_classes_differ_are_refused(library: Any, tables: Any, tmp_path: Path) -> None:
    tables["train"].save_to_disk(str(tmp_path / "set" / "train"))
    other = tables["test"].cast_column("kind", library.ClassLabel(names=["cat", "ape", "dog"]))
    other.save_to_disk(str(tmp_path / "set" / "test"))
    refused(lambda: open_hub(tmp_path / "set").class_names, "the splits train, test name their classes differently")


def test_a_split_or_data_set_that_is_not_there_is_named(tables: Any, tmp_path: Path, library: Any, monkeypatch: Any) -> None:
    tables.save_to_disk(str(tmp_path / "disk"))
    refused(lambda: open_hub(tmp_path / "disk").samples("val", None), r"there is no split val \(found test, train\)")
    tables["train"].save_to_disk(str(tmp_path / "single"))
    refused(lambda: open_hub(tmp_path / "single").samples("train", None), r"no split train \(found a single data set\).*save a DatasetDict")
    root = write_parquet(tables, tmp_path / "set")
    refused(lambda: open_hub(root).samples("val", None), 'cannot be opened as a Hugging Face data set .*Unknown split "val"')
    refused(lambda: open_hub("./none/at all"), r"data\.root \./none/at all: there is no such folder, and it is no name on the hub")
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)
    refused(lambda: open_hub("nobody/nothing").samples("train", None), "data.root nobody/nothing: cannot be opened as a")


def test_a_missing_library_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    refused(lambda: open_hub(tmp_path), r"needs the library datasets; run: pip install 'g2sd-deploy\[huggingface\]'$")
