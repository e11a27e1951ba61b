"""Names of splits as each kind of source holds them."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from g2sd_deploy.data.splits import chosen_splits, find_splits
from g2sd_deploy.errors import UserError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


@pytest.mark.parametrize(
    ("kind", "files", "splits"),
    [
        ("folder", ("train/cat/1.jpg", "val/cat/1.jpg", ".cache/cat/1.jpg", "readme/1.txt"), ("train", "val")),
        ("shards", ("train-000000.tar", "train-000001.tar", "val-000000.tar"), ("train", "val")),
        ("shards", ("train/0.tar", "test/0.tar"), ("test", "train")),
        ("numpy", ("train_images.npy", "train_labels.npy", "held_out_images.npy"), ("held_out", "train")),
        ("idx", (), ("train", "test")),
        ("huggingface", ("dataset_dict.json", "train/state.json", "dev/state.json"), ("dev", "train")),
    ],
)
def test_splits_are_found_by_the_names_of_files(tmp_path: Path, kind: str, files: tuple[str, ...], splits: tuple[str, ...]) -> None:
    assert find_splits(kind, str(touch(tmp_path, *files))) == splits


def test_splits_of_one_npz_and_of_a_damaged_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", fine_images=np.zeros(1), fine_labels=np.zeros(1))
    assert find_splits("numpy", str(tmp_path / "a.npz")) == ("fine",)
    (tmp_path / "b.npz").write_bytes(b"PK\3\4")
    assert find_splits("numpy", str(tmp_path / "b.npz")) == ("train", "test")


def test_splits_of_parquet_files_have_the_names_that_the_library_gives_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    rows = pyarrow.table({"image": [{"bytes": buffer.getvalue(), "path": "1.png"}], "label": [0]})
    (tmp_path / "set").mkdir()
    for name in ("train-00000-of-00001", "val-00000-of-00001"):
        parquet.write_table(rows, tmp_path / "set" / f"{name}.parquet")
    assert find_splits("huggingface", str(tmp_path / "set")) == ("train", "validation")


def test_what_is_no_data_set_is_refused_or_left_to_the_source(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no class folders; wanted SPLIT/CLASS/IMAGE"):
        find_splits("folder", str(tmp_path))
    assert find_splits("folder", str(tmp_path / "nowhere")) == ("train", "test")
    assert find_splits("shards", "s3://bucket/set") == ("train", "test")


def test_asked_splits_are_taken_in_their_order(tmp_path: Path) -> None:
    assert chosen_splits("folder", str(tmp_path), "val, train") == ("val", "train")
    for wrong in ("", "train,", "train,train"):
        with pytest.raises(UserError, match="wanted names with commas between them, each once"):
            chosen_splits("folder", str(tmp_path), wrong)
