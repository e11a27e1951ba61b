"""Shards against webdataset, which wrote them, and every way in which a shard can be wrong."""

import hashlib
import json
import multiprocessing
import pickle
import re
import tarfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from g2sd_deploy.data.sources import guess_kind, open_samples, open_source, save_samples
from g2sd_deploy.data.sources.storage import expand_braces
from g2sd_deploy.errors import UserError

Png = Callable[..., bytes]
WriteTar = Callable[..., Path]


def open_shards(root: Path, *splits: str) -> Any:
    return open_source("shards", str(root), splits=splits or ("train", "test"))


def refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def pairs(png: Png, labels: list[int], first: int = 0) -> list[tuple[str, bytes]]:
    """Members of a shard: image i has red 10 i."""
    return [
        member for i, label in enumerate(labels, first) for member in ((f"{i:09d}.png", png(10 * i)), (f"{i:09d}.cls", str(label).encode()))
    ]


def write_manifest(root: Path, nums: dict[str, list[int]], **changes: Any) -> None:
    """A manifest of the tars that lie in a folder."""
    splits = {}
    for split, counts in nums.items():
        shards = []
        for i, num in enumerate(counts):
            content = (root / f"{split}-{i:06d}.tar").read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            shards.append({"file": f"{split}-{i:06d}.tar", "num": num, "bytes": len(content), "sha256": digest})
        splits[split] = {"shards": shards, "num": sum(counts)}
    manifest = {"format": 1, "class_names": ["ape", "cat", "dog"], "splits": splits, "prepared": {"skipped": []}} | changes
    (root / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


@pytest.fixture
def prepared(tmp_path: Path, png: Png, write_tar: WriteTar) -> Path:
    """Two training shards and a test shard with their manifest."""
    root = tmp_path / "prepared"
    write_tar(root / "train-000000.tar", pairs(png, [2, 0, 1, 0]))
    write_tar(root / "train-000001.tar", pairs(png, [1, 1, 2], first=4))
    write_tar(root / "test-000000.tar", pairs(png, [0, 2]))
    write_manifest(root, {"train": [4, 3], "test": [2]})
    return root


def test_shards_that_webdataset_wrote_are_read_as_webdataset_reads_them(tmp_path: Path, png: Png) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its imports and of its files that it leaves to the garbage collector
        import webdataset

        root = tmp_path / "web"
        root.mkdir()
        with webdataset.ShardWriter(f"file:{root}/train-%06d.tar", maxcount=5, verbose=0) as writer:
            for i in range(13):
                writer.write({"__key__": f"folder/sample{i}", "png": png(i), "cls": i % 3, "txt": "ignored"})
        files = sorted(str(path) for path in root.glob("*.tar"))
        theirs = [(one["__key__"], one["png"], int(one["cls"])) for one in webdataset.WebDataset(files, shardshuffle=False)]
        del writer
        import gc

        gc.collect()
    samples = open_shards(root, "train").samples("train", None)
    ours = [(f"folder/sample{i}", samples.read(i), int(samples.labels[i])) for i in range(len(samples))]
    assert ours == theirs and len(ours) == 13
    assert samples.block_sizes.tolist() == [5, 5, 3]
    assert samples.name(5) == "train-000001.tar/folder/sample5.png"


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_layout_of_tar_is_read_long_and_foreign_names_too(layout: int, tmp_path: Path, png: Png, write_tar: WriteTar) -> None:
    names = ["plain", f"{'d' * 60}/{'long' * 20}"] + (["naïve-ß"] if layout != tarfile.USTAR_FORMAT else [])
    members = [member for i, name in enumerate(names) for member in ((f"{name}.png", png(i)), (f"{name}.cls", b" 1\n"))]
    write_tar(tmp_path / "train-0.tar", members, layout)
    samples = open_shards(tmp_path, "train").samples("train", None)
    assert [samples.read(i) for i in range(len(samples))] == [png(i) for i in range(len(names))]
    assert [samples.name(i) for i in range(len(names))] == [f"train-0.tar/{name}.png" for name in names]


def test_a_manifest_gives_names_order_and_counts(prepared: Path, png: Png) -> None:
    source = open_shards(prepared)
    samples = source.samples("train", None)
    assert source.class_names == ("ape", "cat", "dog")
    assert samples.labels.tolist() == [2, 0, 1, 0, 1, 1, 2]
    assert samples.block_sizes.tolist() == [4, 3] and len(samples) == 7
    assert [samples.read(i) for i in (6, 0, 3)] == [png(60), png(0), png(30)]
    assert "prepared" in source.description and str(prepared.parent) not in source.description


def test_a_limit_is_spread_over_the_shards_and_reads_no_shard_without_a_pick(prepared: Path) -> None:
    samples = open_shards(prepared).samples("train", 3)
    assert [samples.name(i)[-13:-4] for i in range(3)] == ["000000000", "000000002", "000000004"]
    assert samples.block_sizes.tolist() == [2, 1]
    (prepared / "train-000001.tar").unlink()
    assert open_shards(prepared).samples("train", 1).block_sizes.tolist() == [1]


def test_saved_samples_are_reopened_without_their_source_and_travel_to_another_process(prepared: Path, tmp_path: Path, png: Png) -> None:
    where = save_samples(open_shards(prepared).samples("train", None), tmp_path / "listing")
    (prepared / "manifest.json").unlink()
    samples: Any = open_samples(tmp_path / "listing", where)
    samples.read(2)  # an open file must not travel
    assert len(pickle.dumps(samples)) < 500
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(samples.read, [5, 1]) == [png(50), png(10)]
    assert samples.labels.tolist() == [2, 0, 1, 0, 1, 1, 2]
    assert {path.suffix for path in (tmp_path / "listing").iterdir()} == {".json", ".npy"}


def test_many_threads_and_more_shards_than_are_kept_open_read_the_right_bytes(tmp_path: Path, png: Png, write_tar: WriteTar) -> None:
    for shard in range(40):
        write_tar(tmp_path / f"train-{shard:03d}.tar", pairs(png, [0, 0], first=2 * shard % 25))
    samples = open_shards(tmp_path, "train").samples("train", None)
    wrong: list[int] = []

    def read(seed: int) -> None:
        for i in np.random.default_rng(seed).permutation(80):
            if samples.read(int(i)) != png(10 * ((2 * (i // 2)) % 25 + i % 2)):
                wrong.append(int(i))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_without_a_manifest_shards_are_found_by_their_names_and_classes_by_a_list_or_their_numbers(
    tmp_path: Path, png: Png, write_tar: WriteTar
) -> None:
    write_tar(tmp_path / "train" / "b.tar", pairs(png, [3], first=1))
    write_tar(tmp_path / "train" / "a.tar", pairs(png, [1]))
    write_tar(tmp_path / "val-7.tar", pairs(png, [0]))
    source = open_shards(tmp_path, "train", "val")
    assert source.samples("train", None).labels.tolist() == [1, 3]
    assert source.class_names == ("0", "1", "2", "3")
    (tmp_path / "classes.txt").write_text("ape\ncat\ndog\nelk\n\n", encoding="utf-8")
    assert open_shards(tmp_path, "train", "val").class_names == ("ape", "cat", "dog", "elk")
    pattern = "train/{b,a}.tar"
    assert open_shards(tmp_path, pattern).samples(pattern, None).labels.tolist() == [3, 1]


def test_labels_may_be_json(tmp_path: Path, png: Png, write_tar: WriteTar) -> None:
    write_tar(tmp_path / "train-0.tar", [("a.json", b'{"label": 4, "text": "x"}'), ("a.png", png(0))])
    assert open_shards(tmp_path, "train").samples("train", None).labels.tolist() == [4]


def test_brace_patterns_mean_what_a_shell_means() -> None:
    assert expand_braces("x-{08..11}.tar") == ["x-08.tar", "x-09.tar", "x-10.tar", "x-11.tar"]
    assert expand_braces("{a,b}-{0..1}") == ["a-0", "b-0", "a-1", "b-1"] and expand_braces("one.tar") == ["one.tar"]
    refused(lambda: expand_braces("x-{5..2}.tar"), r"x-\{5\.\.2\}\.tar: \{5\.\.2\} is no range of 1 to")


def test_the_fingerprint_changes_with_the_manifest_and_with_a_shard(prepared: Path) -> None:
    prints = [open_shards(prepared).fingerprint(), open_shards(prepared).fingerprint()]
    assert prints[0] == prints[1]
    with (prepared / "test-000000.tar").open("ab") as tar:
        tar.write(b"\0" * 512)
    prints.append(open_shards(prepared).fingerprint())
    write_manifest(prepared, {"train": [4, 3], "test": [2]})
    prints.append(open_shards(prepared).fingerprint())
    assert len(set(prints)) == 3


BROKEN = {
    "no label": (lambda png: [("7.png", png(0))], r"member 7\.png: there is no 7\.cls \(or \.json with a label\) beside the image"),
    "no image": (lambda png: [("7.cls", b"0")], r"member 7\.cls: wanted one image with the key 7, found none"),
    "two images": (
        lambda png: [("7.png", png(0)), ("7.jpg", b""), ("7.cls", b"0")],
        r"member 7\.png: wanted one image with the key 7, found 7\.png, 7\.jpg",
    ),
    "key twice": (lambda png: 2 * [("7.png", png(0)), ("7.cls", b"0")], r"member 7\.png: the key 7 comes twice"),
    "key twice apart": (
        lambda png: [("7.png", png(0)), ("7.cls", b"0"), ("8.png", png(0)), ("8.cls", b"0"), ("7.txt", b"")],
        r"member 7\.txt: the key 7 comes twice",
    ),
    "no number": (lambda png: [("7.png", png(0)), ("7.cls", b"cat")], r"member 7\.cls: holds b'cat'; wanted a whole number"),
    "no label in json": (lambda png: [("7.png", png(0)), ("7.json", b"{}")], r"member 7\.json: holds b'\{\}'; wanted a JSON object"),
    "negative": (lambda png: [("7.png", png(0)), ("7.cls", b"-1")], r"member 7\.cls: holds b'-1'; wanted a whole number"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_members_that_do_not_belong_together_are_named(fault: str, tmp_path: Path, png: Png, write_tar: WriteTar) -> None:
    members, message = BROKEN[fault]
    write_tar(tmp_path / "train-0.tar", pairs(png, [0], first=1) + members(png))
    refused(lambda: open_shards(tmp_path, "train").samples("train", None), f"^{re.escape(str(tmp_path))}/train-0.tar: {message}")


def test_a_label_without_a_name_is_named_with_its_member(prepared: Path) -> None:
    write_manifest(prepared, {"train": [4, 3], "test": [2]}, class_names=["ape", "cat"])
    refused(
        lambda: open_shards(prepared).samples("train", None),
        r"prepared/train-000000\.tar/000000000\.png: has label 2, but there are 2 class names",
    )


@pytest.mark.parametrize("place", ["header", "in a member", "between members", "end mark"])
def test_a_tar_that_was_cut_or_damaged_anywhere_is_named(place: str, tmp_path: Path, png: Png, write_tar: WriteTar) -> None:
    path = write_tar(tmp_path / "train-0.tar", pairs(png, [0, 1, 2]))
    with tarfile.open(path) as tar:
        last, middle = tar.getmembers()[-2], tar.getmembers()[2]
    content = path.read_bytes()
    path.write_bytes(
        {
            "header": content[: middle.offset] + b"\xff" * 512 + content[middle.offset + 512 :],
            "in a member": content[: last.offset_data + 10],
            "between members": content[: middle.offset],
            "end mark": content[: last.offset_data + 1024 + 512],
        }[place]
    )
    where = re.escape(f"member {last.name}: the tar is cut off in it") if place == "in a member" else "the tar is damaged or cut off behind"
    refused(lambda: open_shards(tmp_path, "train").samples("train", None), f"train-0.tar: {where}.*; fetch or write the shard again")


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, b"\x1f\x8b\x08" + b"x" * 2000])
def test_what_is_no_uncompressed_tar_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "train-0.tar").write_bytes(content)
    refused(lambda: open_shards(tmp_path, "train").samples("train", None), "train-0.tar: is no uncompressed tar or a damaged one")


def test_a_manifest_that_disagrees_with_a_file_is_refused(prepared: Path) -> None:
    write_manifest(prepared, {"train": [4, 2], "test": [2]})
    refused(lambda: open_shards(prepared).samples("train", None), r"train-000001\.tar: holds 3 images, but manifest\.json states 2; fetch")
    with (prepared / "test-000000.tar").open("ab") as tar:
        tar.write(b"\0")
    refused(lambda: open_shards(prepared).samples("test", None), r"test-000000\.tar: has \d+ bytes, but \d+ are recorded of it")
    (prepared / "test-000000.tar").unlink()
    refused(lambda: open_shards(prepared).samples("test", None), r"test-000000\.tar: cannot be read \(No such file or directory\)")
    refused(lambda: open_shards(prepared).samples("val", None), r"manifest\.json: names no split val \(found train, test\)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "is no manifest of this version"),
        ('{"format": 2, "class_names": [], "splits": {}}', "format: Input should be 1"),
        (
            '{"format": 1, "class_names": [], "splits": {"train": {"num": 0, "shards": [{"file": "../x.tar", "num": 0, "bytes": 0, '
            f'"sha256": "{64 * "0"}"}}]}}}}}}',
            r"\.\./x\.tar is no name of a \.tar below the manifest's folder",
        ),
        ('{"format": 1, "class_names": [], "splits": {"train": {"num": 1, "shards": []}}}', "split train states 1 images, but its shards"),
    ],
)
def test_a_damaged_manifest_is_named(text: str, message: str, prepared: Path) -> None:
    (prepared / "manifest.json").write_text(text)
    refused(lambda: open_shards(prepared).class_names, f"manifest.json: .*{message}")


def test_a_shard_that_changed_or_went_after_it_was_listed_is_noticed_at_reading(prepared: Path, tmp_path: Path) -> None:
    where = save_samples(open_shards(prepared).samples("train", None), tmp_path / "listing")
    with (prepared / "train-000001.tar").open("ab") as tar:
        tar.write(b"\0")
    refused(lambda: open_samples(tmp_path / "listing", where).read(5), r"train-000001\.tar: has \d+ bytes, but \d+ are recorded of it")
    (prepared / "train-000001.tar").unlink()
    refused(lambda: open_samples(tmp_path / "listing", where).read(5), r"train-000001\.tar: cannot be read")
    assert open_samples(tmp_path / "listing", where).read(1)


def test_a_folder_without_shards_says_what_was_wanted(tmp_path: Path) -> None:
    refused(lambda: open_shards(tmp_path).samples("train", None), r"there are no shards train-\*\.tar or train/\*\.tar; set ")
    refused(lambda: open_shards(tmp_path / "none"), "data.root .*none: there is no such folder")


def test_shards_are_recognised(prepared: Path) -> None:
    assert [guess_kind(root) for root in (str(prepared), "s3://bucket/data", "https://a.b/c")] == ["shards"] * 3
