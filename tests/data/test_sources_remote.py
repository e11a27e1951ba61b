"""Shards behind a real HTTP server that cuts and lies, and behind fsspec's file systems; one cache for all processes."""

import hashlib
import json
import multiprocessing
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy.data.sources import open_samples, open_source, remote, save_samples
from g2sd_deploy.errors import UserError
from g2sd_deploy.zoo.download import Policy, Refused

GIB = 1 << 30


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("G2SD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("G2SD_OFFLINE", raising=False)
    hurried = Policy(connect_s=2.0, stall_s=1.0, attempts=3, backoff_s=0.0, sleep=lambda _: None, mirrored=False)
    monkeypatch.setattr(remote.RemoteStorage.__init__, "__defaults__", (hurried,))
    return tmp_path / "cache" / "shards"


@pytest.fixture
def shards(file_server: Any, png: Callable[..., bytes], write_tar: Callable[..., Path]) -> Path:
    """The served folder: four shards of two images, padded to 40 KiB each, with their manifest."""
    listed = []
    for shard in range(4):
        members = [(f"{i:05d}.png", png(i)) for i in (2 * shard, 2 * shard + 1)]
        members = [pair for name, content in members for pair in ((name, content), (name.replace("png", "cls"), b"%d" % shard))]
        path = write_tar(file_server.folder / f"train-{shard}.tar", [*members, ("padding.bin", bytes(30_000))])
        content = path.read_bytes()
        listed.append({"file": path.name, "num": 2, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    write_manifest(file_server.folder, listed)
    return file_server.folder


def write_manifest(folder: Path, shards: list[dict[str, Any]]) -> None:
    splits = {"train": {"shards": shards, "num": 8}}
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "class_names": list("abcd"), "splits": splits}))


def requests(server: Any, name: str) -> list[tuple[str, str]]:
    return [(method, ranges) for method, path, ranges in server.asked if path == name]


def cached(cache: Path) -> list[str]:
    return sorted(path.name.partition("-")[2] for path in cache.rglob("*.tar"))


def refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def samples_at(url: str, split: str = "train", cache_gib: float | None = None) -> Any:
    return open_source("shards", url, splits=(split,), cache_gib=cache_gib).samples(split, None)


def test_each_shard_is_fetched_once_and_read_from_the_cache(file_server: Any, shards: Path, cache: Path, png: Any) -> None:
    samples = samples_at(file_server.url)
    assert [samples.read(i) for i in range(8)] == [png(i) for i in range(8)]
    assert samples.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and samples.block_sizes.tolist() == [2] * 4
    samples_at(file_server.url).read(3)
    assert [requests(file_server, f"train-{i}.tar") for i in range(4)] == [[("GET", "")]] * 4
    assert cached(cache) == [f"train-{i}.tar" for i in range(4)]
    assert not list(cache.rglob("*.part*")), "nothing is left beside the shards"


def test_a_limit_fetches_only_the_shards_that_have_a_pick(file_server: Any, shards: Path, cache: Path) -> None:
    open_source("shards", file_server.url).samples("train", 2)
    assert cached(cache) == ["train-0.tar", "train-2.tar"]


def test_after_a_cut_only_the_rest_is_fetched(file_server: Any, shards: Path, png: Any) -> None:
    file_server.cuts["train-1.tar"] = [20_000, 5_000]
    assert samples_at(file_server.url).read(2) == png(2)
    assert [ranges for _, ranges in requests(file_server, "train-1.tar")] == ["", "bytes=20000-", "bytes=25000-"]


def test_a_line_that_always_breaks_is_given_up_with_the_shards_address(file_server: Any, shards: Path) -> None:
    file_server.cuts["train-1.tar"] = [100] * 9
    refused(lambda: samples_at(file_server.url), r"/train-1\.tar: 3 attempts failed, .* try later$")


def test_a_server_in_trouble_is_asked_again_and_a_missing_shard_is_named(file_server: Any, shards: Path) -> None:
    file_server.statuses["train-0.tar"] = [503, 500]
    samples_at(file_server.url)
    (shards / "train-3.tar").unlink()
    listing = json.loads((shards / "manifest.json").read_text())["splits"]["train"]["shards"]
    listing[3]["sha256"] = "0" * 64  # so that the cache has not got it
    write_manifest(shards, listing)
    refused(lambda: samples_at(file_server.url), r"/train-3\.tar: there is no such file; correct data\.root")


@pytest.mark.parametrize("wrong", [{"sha256": "0" * 64}, {"bytes": 5}])
def test_a_shard_that_is_not_the_one_of_the_manifest_is_not_kept(wrong: Any, file_server: Any, shards: Path, cache: Path) -> None:
    listing = json.loads((shards / "manifest.json").read_text())["splits"]["train"]["shards"]
    write_manifest(shards, [listing[0] | wrong, *listing[1:]])
    refused(lambda: samples_at(file_server.url), r"/train-0\.tar: (is not the file that manifest|the server announces \d+ bytes)")
    assert cached(cache) == [] and not list(cache.rglob("*.part"))


def test_a_shard_that_was_replaced_after_it_was_indexed_is_noticed(file_server: Any, shards: Path, cache: Path, tmp_path: Path) -> None:
    where = save_samples(samples_at(file_server.url), tmp_path / "listing")
    for file in cache.rglob("*.tar"):
        file.unlink()
    content = bytearray((shards / "train-0.tar").read_bytes())
    content[600] ^= 1
    (shards / "train-0.tar").write_bytes(content)
    refused(lambda: open_samples(tmp_path / "listing", where).read(0), r"/train-0\.tar: is not the file .* that was indexed .*--force data")
    assert open_samples(tmp_path / "listing", where).read(2)


def test_the_least_recently_used_shards_make_room(file_server: Any, shards: Path, cache: Path, png: Any) -> None:
    size = (shards / "train-0.tar").stat().st_size
    samples = samples_at(file_server.url, cache_gib=2.5 * size / GIB)
    assert cached(cache) == ["train-2.tar", "train-3.tar"]
    for file in cache.rglob("*.tar"):
        os.utime(file, ns=(0, 0) if "train-3" in file.name else (1, 1))
    assert samples.read(0) == png(0)
    assert cached(cache) == ["train-0.tar", "train-2.tar"]
    assert [samples.read(i) for i in range(8)] == [png(i) for i in range(8)]


def test_room_is_made_for_shards_without_a_manifest_too(file_server: Any, shards: Path, cache: Path, png: Any) -> None:
    (shards / "manifest.json").unlink()
    size = (shards / "train-0.tar").stat().st_size
    samples = samples_at(file_server.url, "train-{0..3}.tar", cache_gib=1.5 * size / GIB)
    assert cached(cache) == ["train-3.tar"]
    assert samples.read(0) == png(0) and cached(cache) == ["train-0.tar"]


def test_a_part_that_an_older_version_left_behind_is_not_taken_for_the_new_one(
    file_server: Any, shards: Path, cache: Path, png: Any
) -> None:
    (shards / "manifest.json").unlink()
    pattern = "train-{0..0}.tar"
    samples_at(file_server.url, pattern)
    whole, note = next(cache.rglob("*.tar")), next(cache.rglob(".train-0.tar.json"))
    part = note.with_name(".train-0.tar.part")  # as if the process had been killed before it gave the file its name
    part.write_bytes(whole.read_bytes())
    total = part.stat().st_size
    notes = {"url": f"{file_server.url}/train-0.tar", "etag": '"1"', "last_modified": None, "total": total, "announced": None}
    part.with_name(f"{part.name}.json").write_text(json.dumps(notes))
    (shards / "train-0.tar").write_bytes((shards / "train-1.tar").read_bytes())
    assert samples_at(file_server.url, pattern).read(0) == png(2)


def test_a_shard_larger_than_the_cache_is_still_read(file_server: Any, shards: Path, cache: Path, png: Any) -> None:
    samples = samples_at(file_server.url, cache_gib=1 / GIB)
    assert [samples.read(i) for i in (7, 0)] == [png(7), png(0)]
    assert cached(cache) == ["train-0.tar"]


def test_processes_that_want_the_same_shard_fetch_it_once(file_server: Any, shards: Path, cache: Path, tmp_path: Path, png: Any) -> None:
    where = save_samples(samples_at(file_server.url), tmp_path / "listing")
    for file in cache.rglob("*.tar"):
        file.unlink()
    file_server.asked.clear()
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map(open_samples(tmp_path / "listing", where).read, [4] * 6, chunksize=1) == [png(4)] * 6
    assert requests(file_server, "train-2.tar") == [("GET", "")]


def test_without_a_manifest_a_pattern_names_the_shards_and_a_changed_one_is_fetched_anew(
    file_server: Any, shards: Path, cache: Path, png: Any, write_tar: Any
) -> None:
    (shards / "manifest.json").unlink()
    pattern = "train-{0..3}.tar"
    source = open_source("shards", file_server.url, splits=(pattern,))
    samples, before = source.samples(pattern, None), source.fingerprint()
    assert samples.read(6) == png(6) and source.class_names == ("0", "1", "2", "3")
    file_server.asked.clear()
    samples_at(file_server.url, pattern)
    assert {method for method, name, _ in file_server.asked if name.endswith(".tar")} == {"HEAD"}
    write_tar(shards / "train-3.tar", [("6.png", png(99)), ("6.cls", b"1")])
    changed = open_source("shards", file_server.url, splits=(pattern,))
    assert changed.samples(pattern, None).read(6) == png(99) and changed.fingerprint() != before
    refused(lambda: samples_at(file_server.url), r"has no manifest\.json, and an address cannot be listed; .* such as train-\{000000")
    refused(lambda: samples_at(file_server.url, "val-{0..1}.tar"), r"val-0\.tar: the server answered 404")


def test_without_the_network_the_cache_is_all_there_is(file_server: Any, shards: Path, cache: Path, monkeypatch: Any, png: Any) -> None:
    before = open_source("shards", file_server.url).fingerprint()
    samples_at(file_server.url)
    file_server.asked.clear()
    monkeypatch.setenv("G2SD_OFFLINE", "1")
    assert samples_at(file_server.url).read(1) == png(1)
    assert open_source("shards", file_server.url).fingerprint() == before and file_server.asked == []
    next(cache.rglob("*train-1.tar")).unlink()
    refused(lambda: samples_at(file_server.url), r"/train-1\.tar: is not in the cache, and G2SD_OFFLINE forbids to fetch it")


def test_a_refusal_can_travel_from_a_worker() -> None:
    refusal = pickle.loads(pickle.dumps(Refused("no", 404)))
    assert (str(refusal), refusal.status) == ("no", 404)


def test_a_server_that_is_not_there_is_named() -> None:
    refused(lambda: samples_at("http://127.0.0.1:9"), r"http://127\.0\.0\.1:9/manifest\.json: 3 attempts failed")


def test_a_password_in_an_address_stays_out_of_messages_and_reports(file_server: Any) -> None:
    source = open_source("shards", file_server.url.replace("//", "//user:secret@") + "/data")
    with pytest.raises(UserError) as caught:
        source.samples("train", None)
    assert "secret" not in str(caught.value) + source.description


@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_other_addresses_are_read_through_fsspec(protocol: str, shards: Path, tmp_path: Path, cache: Path, png: Any) -> None:
    import fsspec

    root = f"file://{shards}"
    if protocol == "memory":
        system, root = fsspec.filesystem("memory"), f"memory://bucket-{tmp_path.name}/data"
        for file in shards.iterdir():
            system.pipe(f"{root}/{file.name}", file.read_bytes())
    samples = samples_at(root)
    assert [samples.read(i) for i in range(8)] == [png(i) for i in range(8)]
    assert len(cached(cache)) == 4
    pattern = "train-{1..2}.tar"
    assert open_source("shards", root, splits=(pattern,)).fingerprint()
    refused(lambda: samples_at(f"{root}/nothing", pattern), r"nothing/train-1\.tar: ")


def test_a_file_system_that_breaks_off_goes_on_where_it_was(shards: Path, monkeypatch: Any, png: Any) -> None:
    import fsspec

    starts: list[int] = []

    class Flaky(fsspec.get_filesystem_class("file")):  # type: ignore[misc]
        """Breaks the first two times that a shard is read, after 8 bytes."""

        protocol = "flaky"

        def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
            file = super()._open(path, mode, **options)
            if path.endswith("train-0.tar"):
                whole, seek = file.read, file.seek
                file = _Wrapped(file, seek, whole)
            return file

    class _Wrapped:
        def __init__(self, file: Any, seek: Any, read: Any) -> None:
            self._file, self._seek, self._read = file, seek, read

        def seek(self, place: int) -> None:
            starts.append(place)
            self._seek(place)

        def read(self, size: int) -> bytes:
            if len(starts) > 2:
                return bytes(self._read(size))
            if self._file.tell() == starts[-1]:
                return bytes(self._read(8))
            raise ConnectionResetError("the line broke")

        def __enter__(self) -> "_Wrapped":
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

    fsspec.register_implementation("flaky", Flaky, clobber=True)
    assert samples_at(f"flaky://{shards}").read(1) == png(1)
    assert starts == [0, 8, 16]


def test_an_address_that_nothing_reads_is_refused() -> None:
    refused(lambda: samples_at("nonsense://x/y"), "^nonsense://x/y: Protocol not known.*wanted https://, s3:// or another ")


def test_a_missing_library_for_an_address_is_named_with_its_command(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    refused(lambda: samples_at("s3://bucket/data"), r"^s3://bucket/data: .*; for s3:// run: pip install 'g2sd-deploy\[s3\]'$")
