"""Pulling test sets from a real server: verified, unpacked whole or not at all, gone on with after every kind of stop."""

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from g2sd_deploy.data.testsets import catalogue, pulling
from g2sd_deploy.data.testsets.catalogue import find_set
from g2sd_deploy.data.testsets.listing import rows, state_of
from g2sd_deploy.data.testsets.pulling import Pulled, Wanted, assign, pull
from g2sd_deploy.errors import UserError
from g2sd_deploy.zoo.download import Policy
from g2sd_deploy.zoo.places import Places

HURRIED = Policy(connect_s=2.0, stall_s=0.5, attempts=3, backoff_s=0.0, sleep=lambda _: None)


class Shelf:
    """A server's folder of archives, and a catalogue that lists them.

    Attributes:
        server: The server.
        places: A cache of the test's own.
        shown: Titles of the work that was shown.
    """

    def __init__(self, server: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = server
        self.places = Places(folder / "cache", folder / "teachers.lock")
        self.shown: list[str] = []
        self._sets: dict[str, Any] = {}
        self._file = folder / "testsets.yaml"
        self._num = 0
        self._patch = monkeypatch

    @property
    def data(self) -> Path:
        return self.places.cache / "data"

    def add(self, name: str, archives: dict[str, bytes], changes: dict[str, Any] | None = None, **listed: Any) -> None:
        """List a set whose archives the server has; `changes` are made to what is listed of each archive."""
        entries = []
        for file, content in archives.items():
            (self.server.folder / file).write_bytes(content)
            sha256 = hashlib.sha256(content).hexdigest()
            entry = {"file": file, "url": f"{self.server.url}/{file}", "bytes": len(content), "sha256": sha256}
            entries.append(entry | (changes or {}).get(file, {}))
        base = {"title": name, "licence": "MIT", "page": "https://example.org/page", "classes": ["cat", "dog"], "archives": entries}
        self._sets[name] = base | listed
        self._num += 1
        file = self._file.with_name(f"{self._num}_{self._file.name}")
        file.write_text(json.dumps({"format": 1, "aliases": {"nickname": name}, "sets": self._sets}))
        self._patch.setattr(catalogue, "CATALOGUE", file)

    @contextlib.contextmanager
    def show(self, title: str) -> Iterator[Callable[[int, int | None], None]]:
        self.shown.append(title)
        yield lambda done, total: None

    def pull(self, name: str, wanted: Wanted | None = None, places: Places | None = None, show: Any = None) -> Pulled:
        return pull(name, places or self.places, wanted or Wanted(), show=show or self.show, policy=HURRIED)

    def asked(self) -> list[str]:
        """Archives that were asked for, in order."""
        return [name for _, name, _ in self.server.asked]


@pytest.fixture
def shelf(file_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setattr(os, "sync", lambda: None)  # it waits for whatever else this machine writes
    return Shelf(file_server, tmp_path, monkeypatch)


def tar_of(files: dict[str, bytes], mode: Any = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def pets(top: str = "pets", per_class: int = 2) -> dict[str, bytes]:
    return {f"{top}/{name}/{name}{i}.jpg": f"{name}{i}".encode() * 99 for name in ("cat", "dog") for i in range(per_class)}


FOUR = {".": {"images": 4, "per_class": 2}}


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".guard")}


def nothing_has_the_name(shelf: Shelf, name: str) -> bool:
    return not (shelf.data / name).exists() and state_of(name, find_set(name)[1], shelf.places) != "here"


# ------------------------------------------------------------------ the way it should go


def test_a_set_is_fetched_verified_unpacked_and_counted_and_only_the_set_is_left(shelf: Shelf) -> None:
    shelf.add("pets", {"pets.tar": tar_of(pets() | {"pets/README.txt": b"hello"})}, folders=FOUR)
    got = shelf.pull("pets")
    assert got == Pulled(shelf.data / "pets", True, {".": 4}, 1, ("pets/README.txt",))
    assert tree(shelf.data) == {f"pets/{name}/{name}{i}.jpg" for name in ("cat", "dog") for i in range(2)}
    assert (shelf.data / "pets" / "dog" / "dog1.jpg").read_bytes() == b"dog1" * 99
    assert shelf.shown == ["fetch pets.tar", "verify pets.tar", "unpack pets.tar", "count the images"]
    assert {path.name for path in shelf.data.iterdir()} == {"pets", ".pets.guard"}
    again = shelf.pull("nickname")
    assert again == Pulled(shelf.data / "pets", False) and shelf.asked() == ["pets.tar"]


def test_zip_gzip_and_splits_work_as_well(shelf: Shelf) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in pets("sketch").items():
            archive.writestr(name, content)
    shelf.add("sketch", {"sketch.zip": buffer.getvalue()}, folders={".": {"images": [3, 9]}})
    nette = tar_of(pets("nette/train") | pets("nette/val", 1), "w:gz")
    shelf.add("nette", {"nette.tgz": nette}, folders={"train": {"images": 4}, "val": {"images": 2}})
    assert shelf.pull("sketch").num == {".": 4}
    assert shelf.pull("nette").num == {"train": 4, "val": 2}
    assert (shelf.data / "nette" / "val" / "dog" / "dog0.jpg").is_file()


def test_a_set_can_go_to_another_folder_and_its_archives_be_kept(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add("pets", {"pets.tar": tar_of(pets())}, folders=FOUR)
    got = shelf.pull("pets", Wanted(data=tmp_path / "disk", keep=True))
    assert got.path == tmp_path / "disk" / "pets" and not shelf.data.exists()
    kept = tmp_path / "disk" / "archives" / "pets" / "pets.tar"
    assert kept.read_bytes() == (shelf.server.folder / "pets.tar").read_bytes()
    shutil.rmtree(got.path)
    assert shelf.pull("pets", Wanted(data=tmp_path / "disk", keep=True)).fetched
    assert shelf.asked() == ["pets.tar"] and kept.is_file()


def corruption_set(shelf: Shelf, **changes: Any) -> None:
    cases = [(severity, name) for severity in range(1, 6) for name in ("cat", "dog")]
    archives = {
        f"{kind}.tar": tar_of({f"{kind}/{severity}/{name}/1.jpg": f"{kind}{severity}{name}".encode() for severity, name in cases})
        for kind in ("snow", "fog")
    }
    holds = {f"{name}.tar": {"holds": [name]} | changes.get(name, {}) for name in ("snow", "fog")}
    shelf.add("many", archives, holds, corruptions=["snow", "fog"], folders={".": {"images": 2, "per_class": 1}})


def test_each_archive_is_removed_before_the_next_is_fetched(shelf: Shelf) -> None:
    corruption_set(shelf)
    there: list[set[str]] = []

    @contextlib.contextmanager
    def show(title: str) -> Iterator[Any]:
        there.append({path.name for path in (shelf.data / "archives" / "many").iterdir() if not path.name.startswith(".")})
        yield lambda done, total: None

    assert sum(shelf.pull("many", show=show).num.values()) == 20
    assert there == [set(), set(), {"snow.tar"}, set(), set(), {"fog.tar"}, set()]


def test_labels_alone_are_a_set_of_one_file(shelf: Shelf) -> None:
    content = json.dumps([[0], [], [0, 1]]).encode()
    shelf.add("real", {"real.json": content}, {"real.json": {"use": "file"}}, labels={"file": "real.json", "images": 3, "empty": 1})
    got = shelf.pull("real")
    assert (got.path / "real.json").read_bytes() == content and got.num == {"real.json": 3}
    shelf.add("wrong", {"w.json": b"[[0], [7]]"}, {"w.json": {"use": "file"}}, labels={"file": "w.json", "images": 2, "empty": 0})
    with pytest.raises(UserError, match=r"w\.json: wrong labels: image 2 has label 7, out of 0 to 1; look with"):
        shelf.pull("wrong")


# ------------------------------------------------------------------ ImageNet's validation set


def devkit(wnid_of_id: dict[int, str], truth: list[int]) -> bytes:
    """As ImageNet's: a synset is (id, wnid, words, gloss, children, ...), and synsets with children are no classes."""
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O"), ("children", "O")]
    rows = [(i, wnid, "words", "gloss", 0, np.array([])) for i, wnid in wnid_of_id.items()]
    rows.append((99, "n99", "entity", "all", 3, np.arange(3)))
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"synsets": np.array(rows, dtype=fields)})
    text = "".join(f"{one}\n" for one in truth).encode()
    return tar_of({"kit/data/meta.mat": buffer.getvalue(), "kit/data/ILSVRC2012_validation_ground_truth.txt": text}, "w:gz")


def imagenet(shelf: Shelf, wnid_of_id: dict[int, str] | None = None, truth: list[int] | None = None) -> None:
    images = tar_of({f"ILSVRC2012_val_{i:08d}.JPEG": f"image {i}".encode() for i in range(1, 7)})
    kit = devkit(wnid_of_id or {1: "n30", 2: "n10", 3: "n20"}, truth or [1, 2, 3, 3, 2, 1])
    shelf.add(
        "val",
        {"val.tar": images, "kit.tar.gz": kit},
        {"kit.tar.gz": {"use": "labels"}},
        classes=["n10", "n20", "n30"],
        folders={"val": {"images": 6, "per_class": 2}},
        terms="example.org gives it to people with an account",
        unique=True,
    )


def given(shelf: Shelf) -> Wanted:
    return Wanted(given={file: shelf.server.folder / file for file in ("val.tar", "kit.tar.gz")})


def test_the_flat_validation_set_is_sorted_by_the_development_kit_and_not_by_the_order_of_wnids(shelf: Shelf) -> None:
    imagenet(shelf)
    got = shelf.pull("val", given(shelf))
    assert got.num == {"val": 6} and shelf.asked() == []
    by_class = {"n30": (1, 6), "n10": (2, 5), "n20": (3, 4)}
    assert tree(got.path) == {f"val/{wnid}/ILSVRC2012_val_{i:08d}.JPEG" for wnid, images in by_class.items() for i in images}
    assert (got.path / "val" / "n20" / "ILSVRC2012_val_00000004.JPEG").read_bytes() == b"image 4"
    assert (shelf.server.folder / "val.tar").is_file()  # what is given stays


def test_a_set_behind_a_login_says_what_to_fetch_and_what_to_run(shelf: Shelf) -> None:
    imagenet(shelf)
    with pytest.raises(UserError) as caught:
        shelf.pull("val")
    told, sha256 = str(caught.value), hashlib.sha256((shelf.server.folder / "val.tar").read_bytes()).hexdigest()
    assert told.startswith("val: example.org gives it to people with an account. Log in there, fetch val.tar (")
    assert f"SHA-256 {sha256}) from {shelf.server.url}/val.tar and kit.tar.gz (" in told
    assert told.endswith("then run: g2sd data pull val --from val.tar --from kit.tar.gz")
    with pytest.raises(UserError, match=r"fetch kit\.tar\.gz \([^)]*\) from [^ ]*, then run: .* --from val\.tar --from kit\.tar\.gz$"):
        shelf.pull("val", Wanted(given={"val.tar": shelf.server.folder / "val.tar"}))
    assert shelf.asked() == []


@pytest.mark.parametrize(
    ("wnid_of_id", "truth", "told"),
    [
        ({1: "n30", 2: "n10", 3: "n21"}, None, "labels 6 images of 3 classes, wanted 6 of the 3 classes of the set; it is another"),
        (None, [1, 2, 3], "labels 3 images of 3 classes, wanted 6"),
        (None, [1, 2, 3, 3, 2, 4], r"its labels cannot be read \(KeyError: 4\)"),
        (None, [1, 2, 3, 3, 2, 99], r"its labels cannot be read \(KeyError: 99\)"),  # no leaf
    ],
)
def test_a_development_kit_that_does_not_fit_is_refused(shelf: Shelf, wnid_of_id: Any, truth: Any, told: str) -> None:
    imagenet(shelf, wnid_of_id, truth)
    with pytest.raises(UserError, match=told):
        shelf.pull("val", given(shelf))
    assert nothing_has_the_name(shelf, "val")


def test_given_files_are_told_apart_by_name_else_by_size(shelf: Shelf, tmp_path: Path) -> None:
    imagenet(shelf)
    renamed = tmp_path / "val (1).tar"
    shutil.copy(shelf.server.folder / "val.tar", renamed)
    kit = shelf.server.folder / "kit.tar.gz"
    assert assign(["val"], [renamed, kit]) == {"val": {"val.tar": renamed, "kit.tar.gz": kit}}
    (tmp_path / "other.tar").write_bytes(b"other")
    for files, told in (
        ([tmp_path / "other.tar"], r"^--from .*other\.tar: is none of val\.tar, kit\.tar\.gz, by name or by size"),
        ([tmp_path / "gone.tar"], r"^--from .*gone\.tar: there is no such file$"),
        ([kit, kit], r"kit\.tar\.gz is given already"),
    ):
        with pytest.raises(UserError, match=told):
            assign(["val"], files)


def test_a_given_file_that_is_a_saved_login_page_is_told_as_one(shelf: Shelf) -> None:
    imagenet(shelf)
    (shelf.server.folder / "val.tar").write_bytes(b"<!DOCTYPE html><html>log in</html>")
    with pytest.raises(
        UserError, match=r"val\.tar: holds 34 bytes instead of \d+, so it is a web page .* that was saved; fetch it again from https"
    ):
        shelf.pull("val", given(shelf))


def test_a_given_file_that_is_cut_off_or_damaged_is_told_and_left_alone(shelf: Shelf) -> None:
    imagenet(shelf)
    path = shelf.server.folder / "val.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:5000])
    with pytest.raises(
        UserError, match=r"val\.tar: holds 5000 bytes instead of \d+, so it is truncated or another file; fetch it again from"
    ):
        shelf.pull("val", given(shelf))
    path.write_bytes(whole[:-1] + b"x")
    with pytest.raises(
        UserError, match=r"val\.tar: has SHA-256 [0-9a-f]{12}\.\.\. instead of [0-9a-f]{12}\.\.\., so it is damaged or another file"
    ):
        shelf.pull("val", given(shelf))
    assert path.is_file() and nothing_has_the_name(shelf, "val")


# ------------------------------------------------------------------ what servers do wrong


def test_a_download_that_is_cut_goes_on_where_it_stopped(shelf: Shelf) -> None:
    content = tar_of(pets())
    shelf.add("pets", {"pets.tar": content}, folders=FOUR)
    shelf.server.cuts["pets.tar"] = [4000, 2000]
    assert shelf.pull("pets").fetched
    assert [asked for _, _, asked in shelf.server.asked] == ["", "bytes=4000-", "bytes=6000-"]


def test_another_process_goes_on_with_the_bytes_that_are_there(shelf: Shelf) -> None:
    shelf.add("pets", {"pets.tar": tar_of(pets())}, folders=FOUR)
    shelf.server.cuts["pets.tar"] = [3000, 0, 0]
    with pytest.raises(UserError, match=r"3 attempts failed, .* are kept, and the same command goes on from there"):
        shelf.pull("pets")
    assert state_of("pets", find_set("pets")[1], shelf.places) == "begun"
    shelf.server.asked.clear()
    assert shelf.pull("pets").fetched and shelf.server.asked[0][2] == "bytes=3000-"


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_wrong_checksum_leaves_nothing_under_a_name(shelf: Shelf, kind: str) -> None:
    wrong = {"sha256": None, "md5": None, kind: "0" * {"sha256": 64, "md5": 32}[kind]}
    shelf.add("pets", {"pets.tar": tar_of(pets())}, {"pets.tar": wrong}, folders=FOUR)
    title = {"sha256": "SHA-256", "md5": "MD5"}[kind]
    with pytest.raises(
        UserError, match=rf"^pets: what came as pets\.tar has {title} .* instead of 000000000000\.\.\., so it is damaged .*pull it again$"
    ):
        shelf.pull("pets")
    assert tree(shelf.data) == set() and nothing_has_the_name(shelf, "pets")


def test_a_wrong_size_is_refused_when_it_is_announced(shelf: Shelf) -> None:
    shelf.add("pets", {"pets.tar": tar_of(pets())}, {"pets.tar": {"bytes": 12345}}, folders=FOUR)
    with pytest.raises(UserError, match=r"pets\.tar: the server announces \d+ bytes, but the file has 12345; nothing was kept"):
        shelf.pull("pets")
    assert tree(shelf.data) == set()


def test_a_web_page_instead_of_the_file_is_told_as_one(shelf: Shelf) -> None:
    shelf.add("pets", {"pets.tar": b"<!doctype html><html><body>Sorry</body></html>"}, folders=FOUR)
    with pytest.raises(UserError, match="the server sent a web page instead of the file"):
        shelf.pull("pets")
    assert tree(shelf.data) == set()


def test_a_server_without_the_file_is_told(shelf: Shelf) -> None:
    shelf.add("pets", {"pets.tar": tar_of(pets())}, folders=FOUR)
    (shelf.server.folder / "pets.tar").unlink()
    with pytest.raises(UserError, match="the server answered 404"):
        shelf.pull("pets")


# ------------------------------------------------------------------ what archives do wrong


def test_an_archive_with_the_right_hash_that_escapes_is_refused_and_nothing_gets_the_name(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add("pets", {"pets.tar": tar_of(pets() | {"../../../evil/cat/x.jpg": b"x"})}, folders=FOUR)
    with pytest.raises(
        UserError, match=r"pets\.tar: its member \.\./\.\./\.\./evil/cat/x\.jpg leads out of the folder; it was not unpacked"
    ):
        shelf.pull("pets")
    assert nothing_has_the_name(shelf, "pets") and not list(tmp_path.rglob("*evil*"))


def test_a_truncated_archive_with_a_hash_of_its_own_is_refused(shelf: Shelf) -> None:
    shelf.add("pets", {"pets.tar": tar_of(pets())[:2000]}, folders=FOUR)
    with pytest.raises(UserError, match=r"pets\.tar: is truncated; fetch it again"):
        shelf.pull("pets")
    assert nothing_has_the_name(shelf, "pets")


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (pets(per_class=1), r"\.: wrong number of images: 2 instead of 4 \(and 2 more\)"),
        ({name: content for name, content in pets().items() if "/cat/" in name}, "dog: missing class: no such folder"),
        ({"pets/cow/1.jpg": b"x"}, "content: holds no class folder of the set"),
    ],
)
def test_an_archive_that_does_not_hold_the_set_never_gets_its_name(shelf: Shelf, files: dict[str, bytes], told: str) -> None:
    shelf.add("pets", {"pets.tar": tar_of(files)}, folders=FOUR)
    for _ in range(2):  # and the second time it is not fetched again
        with pytest.raises(UserError, match=told):
            shelf.pull("pets")
        assert nothing_has_the_name(shelf, "pets")
    assert shelf.asked() == ["pets.tar"]


# ------------------------------------------------------------------ stopped, full, offline, at once


def _pull_in_a_process(file: Path, places: Places, name: str, kill_in: str, results: Any) -> None:
    """Pull as another program would; dies in the middle of the work of that title."""

    @contextlib.contextmanager
    def show(title: str) -> Iterator[Any]:
        time.sleep(0.05)  # so that a second process meets the first one
        yield lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if title == kill_in and done > 20 else None

    catalogue.CATALOGUE = file
    results.put(pull(name, places, Wanted(), show=show, policy=HURRIED).fetched)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no signal that cannot be caught")
def test_killed_in_the_middle_of_unpacking_the_next_pull_goes_on_with_that_archive(shelf: Shelf) -> None:
    corruption_set(shelf)
    context = multiprocessing.get_context("spawn")
    arguments = (catalogue.CATALOGUE, shelf.places, "many", "unpack fog.tar", context.Queue())
    killed = context.Process(target=_pull_in_a_process, args=arguments)
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    part = shelf.data / ".many.part"
    assert tree(part / "unpacking") and {path.name for path in (part / "content").iterdir()} == {"snow"}
    assert state_of("many", find_set("many")[1], shelf.places) == "begun" and nothing_has_the_name(shelf, "many")
    marked = part / "content" / "snow" / "1" / "cat" / "1.jpg"
    before = marked.stat().st_ino
    shelf.server.asked.clear()
    assert sum(shelf.pull("many").num.values()) == 20
    assert shelf.asked() == [] and shelf.shown == ["verify fog.tar", "unpack fog.tar", "count the images"]
    assert (shelf.data / "many" / "snow" / "1" / "cat" / "1.jpg").stat().st_ino == before  # not unpacked again


def test_killed_before_it_could_say_that_an_archive_is_unpacked_the_archive_is_unpacked_again(shelf: Shelf) -> None:
    corruption_set(shelf)
    half = shelf.data / ".many.part" / "content" / "snow" / "1" / "cow"
    half.mkdir(parents=True)
    (half / "stale.jpg").write_bytes(b"x")
    assert shelf.pull("many").fetched
    assert not list(shelf.data.rglob("stale.jpg"))


def test_an_archive_that_the_catalogue_replaced_is_not_taken_for_unpacked(shelf: Shelf) -> None:
    corruption_set(shelf)
    part = shelf.data / ".many.part"
    part.mkdir(parents=True)
    (part / "unpacked.json").write_text(json.dumps({"snow.tar": "0" * 64}))
    assert shelf.pull("many").fetched and "snow.tar" in shelf.asked()


def test_ctrl_c_leaves_what_came(shelf: Shelf) -> None:
    corruption_set(shelf)

    @contextlib.contextmanager
    def show(title: str) -> Iterator[Any]:
        if title == "fetch fog.tar":
            raise KeyboardInterrupt
        yield lambda done, total: None

    with pytest.raises(KeyboardInterrupt):
        shelf.pull("many", show=show)
    assert nothing_has_the_name(shelf, "many")
    assert shelf.pull("many").fetched and shelf.asked() == ["snow.tar", "fog.tar"]


def test_a_disk_without_room_is_told_before_anything_is_fetched(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    corruption_set(shelf)
    size = {name: (shelf.server.folder / f"{name}.tar").stat().st_size for name in ("snow", "fog")}
    usage = shutil.disk_usage(shelf.server.folder)
    needed = sum(size.values()) + max(size.values())
    monkeypatch.setattr(pulling.shutil, "disk_usage", lambda path: usage._replace(free=needed - 1))
    with pytest.raises(UserError, match=r"data: many needs 0\.0 GiB there and 0\.0 GiB are free; make room, or give --to with a folder"):
        shelf.pull("many")
    assert shelf.asked() == []
    monkeypatch.setattr(pulling.shutil, "disk_usage", lambda path: usage._replace(free=needed))
    assert shelf.pull("many").fetched


def test_a_disk_that_fills_up_in_the_middle_is_one_line_and_the_next_pull_goes_on(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.add("pets", {"pets.tar": tar_of(pets())}, folders=FOUR)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("g2sd_deploy.data.testsets.unpacking._write_all", full)
        with pytest.raises(
            UserError, match=r"cat0\.jpg: the disk is full; archives that are unpacked are kept, and the same command goes on"
        ):
            shelf.pull("pets")
    with monkeypatch.context() as patch:
        patch.setattr(pulling, "write_text_whole", full)
        with pytest.raises(UserError, match=r"data: the disk is full; what came is kept, and the same command goes on from there"):
            shelf.pull("pets")
    assert shelf.pull("pets").fetched and shelf.asked() == ["pets.tar"]


def test_a_folder_that_cannot_be_written_is_told(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add("pets", {"pets.tar": tar_of(pets())}, folders=FOUR)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"^--to .*file/there: cannot be written \(Not a directory\); give a folder you may write to"):
        shelf.pull("pets", Wanted(data=tmp_path / "file" / "there"))
    with pytest.raises(UserError, match=r"cache/data: cannot be written .*; set G2SD_CACHE to a folder you may write to"):
        shelf.pull("pets", places=replace(shelf.places, cache=tmp_path / "file" / "cache"))


def test_offline_means_no_request_at_all_and_says_what_to_do(shelf: Shelf) -> None:
    shelf.add("pets", {"pets.tar": tar_of(pets())}, folders=FOUR)
    offline = replace(shelf.places, offline=True)
    with pytest.raises(UserError, match=r"^pets: is not here .*G2SD_OFFLINE forbids the network; .* g2sd data pull pets --from pets\.tar$"):
        shelf.pull("pets", places=offline)
    assert shelf.asked() == []
    wanted = Wanted(given={"pets.tar": shelf.server.folder / "pets.tar"})
    assert shelf.pull("pets", wanted, places=offline).fetched
    assert not shelf.pull("pets", places=offline).fetched


def test_a_mirror_is_asked_instead_of_the_address_also_for_what_is_behind_a_login(shelf: Shelf, tmp_path: Path) -> None:
    imagenet(shelf)
    for file in ("val.tar", "kit.tar.gz"):
        there = shelf.server.folder / "m" / "data" / "archives" / "val" / file
        there.parent.mkdir(parents=True, exist_ok=True)
        (shelf.server.folder / file).rename(there)
    assert shelf.pull("val", places=replace(shelf.places, mirror=f"{shelf.server.url}/m/")).num == {"val": 6}
    assert shelf.asked() == ["m/data/archives/val/kit.tar.gz", "m/data/archives/val/val.tar"]
    assert {path.name for path in shelf.data.iterdir()} == {"val", ".val.guard"}
    folder = Places(tmp_path / "other", tmp_path / "lock", str(shelf.server.folder / "m"), offline=True)
    assert shelf.pull("val", places=folder).fetched and len(shelf.asked()) == 2
    shutil.rmtree(tmp_path / "other")
    with pytest.raises(
        UserError, match=r"empty/data/archives/val/val\.tar: there is no such file; a mirror holds MIRROR/data/archives/NAME/FILE"
    ):
        shelf.pull("val", places=replace(folder, mirror=str(tmp_path / "empty")))


def test_a_kept_archive_that_was_changed_is_refused_and_named(shelf: Shelf) -> None:
    shelf.add("pets", {"pets.tar": tar_of(pets())}, folders=FOUR)
    kept = shelf.data / "archives" / "pets" / "pets.tar"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"x")
    with pytest.raises(UserError, match=rf"^{kept}: holds 1 bytes instead of \d+, .*; remove {kept} and pull it again"):
        shelf.pull("pets")


@pytest.mark.skipif(sys.platform == "win32", reason="no lock that goes with the process")
def test_of_two_processes_one_fetches_and_the_other_waits_and_finds_it(shelf: Shelf) -> None:
    shelf.add("pets", {"pets.tar": tar_of(pets())}, folders=FOUR)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    arguments = (catalogue.CATALOGUE, shelf.places, "pets", "", results)
    processes = [context.Process(target=_pull_in_a_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    assert sorted(results.get(timeout=60) for _ in processes) == [False, True]
    for process in processes:
        process.join(30)
    assert shelf.asked() == ["pets.tar"] and len(tree(shelf.data / "pets")) == 4


def test_the_list_says_what_is_here(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    imagenet(shelf)
    shelf.add("pets", {"pets.tar": tar_of(pets())}, folders=FOUR)
    monkeypatch.setenv("G2SD_CACHE", str(shelf.places.cache))
    assert {row["name"]: row["state"] for row in rows()} == {"val": "by hand", "pets": "not here"}
    shelf.pull("pets")
    row = rows()[1]
    assert (row["state"], row["num_images"], row["num_classes"], row["place"]) == ("here", [4, 4], 2, str(shelf.data / "pets"))
    assert re.fullmatch(r"\d+", str(row["bytes"]))
