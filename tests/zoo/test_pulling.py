"""Pulling a teacher: verified before it gets its name, from its address, a mirror or the cache, once even for two processes."""

import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy.errors import UserError
from g2sd_deploy.zoo.download import Policy
from g2sd_deploy.zoo.listing import state_of
from g2sd_deploy.zoo.lockfile import read_lock
from g2sd_deploy.zoo.places import Places
from g2sd_deploy.zoo.pulling import Pulled, cached_path, pull


@pytest.fixture
def fetch(places: Places, hurried: Policy) -> Any:
    """Pull a teacher into the test's own cache."""

    def run(teacher: Any, where: Places = places) -> Pulled:
        return pull(teacher, where, tick=lambda done, total: None, policy=hurried)

    return run


def names(folder: Path) -> set[str]:
    """What a person sees in a folder; guards and the like are hidden."""
    return {path.name for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")}


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*.part*")}


def test_the_first_pull_records_what_it_found_and_the_second_needs_no_network(
    make_teacher: Any, fetch: Any, server: Any, places: Places
) -> None:
    teacher = make_teacher()
    first = fetch(teacher)
    assert first.path == places.cache / "tiny" / "weights.pth" and first.path.read_bytes() == server.content
    assert (first.fetched, first.checked) == (True, ("nothing: recorded at the first pull",))
    locked = read_lock(places.lock_file)["tiny"]
    assert (locked.sha256, locked.bytes, locked.file) == (first.sha256, len(server.content), "weights.pth")
    second = fetch(teacher)
    assert (second.fetched, second.checked, len(server.ranges)) == (False, ("lock file",), 1)
    assert leftovers(places.cache) == set()


def test_a_later_pull_has_to_match_the_lock_file(make_teacher: Any, fetch: Any, server: Any, places: Places) -> None:
    teacher = make_teacher()
    fetch(teacher).path.unlink()
    server.content = server.content[:-30] + b"another comment of the archive"
    with pytest.raises(UserError, match=r"^tiny: what came has SHA-256 .* instead of .*; nothing was kept, .*its entry from .*\.lock$"):
        fetch(teacher)
    assert names(places.cache) == leftovers(places.cache) == set()


def test_flipped_bits_are_found_by_every_kind_of_hash_and_nothing_gets_the_name(
    make_teacher: Any, fetch: Any, server: Any, places: Places
) -> None:
    make_teacher()
    content = server.content
    sha256, md5 = hashlib.sha256(content).hexdigest(), hashlib.md5(content, usedforsecurity=False).hexdigest()
    for known, message in (({"sha256": sha256}, "SHA-256"), ({"md5_prefix": md5[:6]}, "MD5 that begins with"), ({"bytes": 7}, "announces")):
        server.fails(flip=5000)
        with pytest.raises(UserError, match=message):
            fetch(make_teacher(**known))
        assert names(places.cache) == leftovers(places.cache) == set()
        assert read_lock(places.lock_file) == {}
    assert fetch(make_teacher(sha256=sha256)).checked == ("published SHA-256",)


def test_flipped_bits_at_the_first_pull_are_found_by_the_archives_own_checksums(
    make_teacher: Any, fetch: Any, server: Any, places: Places
) -> None:
    teacher = make_teacher()
    server.fails(flip=len(server.content) // 2)
    with pytest.raises(UserError, match="is damaged: its record"):
        fetch(teacher)
    assert names(places.cache) == leftovers(places.cache) == set() and read_lock(places.lock_file) == {}


def test_the_hash_that_a_hub_announces_is_compared(make_teacher: Any, fetch: Any, server: Any) -> None:
    teacher = make_teacher()
    server.announced = "0" * 64
    server.fails(status=302, location="/there")
    with pytest.raises(UserError, match=r"what came has SHA-256 .* instead of 000000000000\.\.\."):
        fetch(teacher)
    server.announced = hashlib.sha256(server.content).hexdigest()
    server.fails(status=302, location="/there")
    assert "SHA-256 announced by the server" in fetch(teacher).checked


def test_a_published_md5_prefix_is_compared_and_the_whole_hash_recorded(make_teacher: Any, fetch: Any, server: Any, places: Places) -> None:
    make_teacher()
    prefix = hashlib.md5(server.content, usedforsecurity=False).hexdigest()[:6]
    assert fetch(make_teacher(md5_prefix=prefix)).checked == ("published MD5 prefix", "nothing: recorded at the first pull")
    assert read_lock(places.lock_file)["tiny"].sha256 == hashlib.sha256(server.content).hexdigest()


def test_a_file_that_is_shorter_than_it_should_be_is_no_weight_file(make_teacher: Any, fetch: Any, server: Any, places: Places) -> None:
    teacher = make_teacher()
    server.content, server.chunked = server.content[:-500], True
    with pytest.raises(UserError, match="is cut off or damaged"):
        fetch(teacher)
    assert names(places.cache) == leftovers(places.cache) == set()


def test_a_cached_file_that_was_changed_is_refused_and_kept(make_teacher: Any, fetch: Any) -> None:
    path = fetch(make_teacher()).path
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=rf"^tiny: {path} has SHA-256 .*; remove {path} and pull it again"):
        fetch(make_teacher())
    assert path.is_file()


def test_a_mirror_is_asked_instead_of_the_address(make_teacher: Any, fetch: Any, server: Any, places: Places) -> None:
    teacher = make_teacher(url="http://127.0.0.1:9/unreachable.pth")
    mirror = server.url.rpartition("/")[0] + "/a/"
    assert fetch(teacher, replace(places, mirror=mirror)).path.is_file()
    assert server.paths == ["/a/tiny/weights.pth"]


def test_a_copied_cache_is_a_mirror_and_is_verified_like_one(make_teacher: Any, fetch: Any, places: Places, tmp_path: Path) -> None:
    teacher = make_teacher()
    fetch(teacher)
    shutil.copytree(places.cache, tmp_path / "usb")
    offline = Places(tmp_path / "other", places.lock_file, str(tmp_path / "usb"), offline=True)
    assert fetch(teacher, offline).path == tmp_path / "other" / "tiny" / "weights.pth"
    (tmp_path / "usb" / "tiny" / "weights.pth").write_bytes(b"PK something else")
    with pytest.raises(UserError, match="what came holds 17 bytes instead of"):
        fetch(teacher, replace(offline, cache=tmp_path / "third"))
    assert names(tmp_path / "third") == leftovers(tmp_path / "third") == set()


def test_a_mirror_without_the_file_is_told_by_name(make_teacher: Any, fetch: Any, places: Places, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"usb/tiny/weights\.pth: there is no such file; a mirror is laid out as the cache is"):
        fetch(make_teacher(), replace(places, mirror=str(tmp_path / "usb")))


@pytest.mark.parametrize("mirror", [None, "https://mirror.example"])
def test_offline_means_no_request_at_all(make_teacher: Any, fetch: Any, server: Any, places: Places, mirror: str | None) -> None:
    with pytest.raises(UserError, match=r"is not in the cache .* and G2SD_OFFLINE forbids the network"):
        fetch(make_teacher(), replace(places, offline=True, mirror=mirror))
    assert server.ranges == []


def test_offline_uses_what_is_in_the_cache(make_teacher: Any, fetch: Any, places: Places) -> None:
    fetch(make_teacher())
    assert not fetch(make_teacher(), replace(places, offline=True)).fetched


def test_a_file_behind_a_web_page_is_to_be_fetched_by_hand_and_taken_from_the_cache_if_it_lies_there(
    make_teacher: Any, fetch: Any, server: Any, places: Places
) -> None:
    teacher = make_teacher(url=None, page="https://drive.example/folder")
    with pytest.raises(UserError, match=r"fetch weights\.pth by hand from https://drive\.example/f.*g2sd teacher import weights\.pth"):
        fetch(teacher)
    path = cached_path(teacher, places)
    assert path is not None
    path.write_bytes(server.content)
    assert not fetch(teacher).fetched
    with pytest.raises(UserError, match=r"fetch it by hand from .*g2sd teacher import FILE --out tiny\.safetensors"):
        fetch(make_teacher(url=None, page="https://drive.example/folder", file=None))


def test_the_state_of_a_teacher_is_read_off_the_cache(make_teacher: Any, fetch: Any, server: Any, places: Places) -> None:
    teacher = make_teacher()
    assert state_of(teacher, places) == "not pulled"
    for _ in range(4):
        server.fails(cut_after=10)
    with pytest.raises(UserError):
        fetch(teacher)
    assert state_of(teacher, places) == "begun"
    fetch(teacher)
    assert state_of(teacher, places) == "pulled"
    assert state_of(make_teacher(url=None, page="https://drive.example", file=None), places) == "by hand"


def _pull_in_a_process(teacher: Any, places: Places, results: Any) -> None:
    results.put((pull(teacher, places, tick=lambda done, total: None).fetched, os.getpid()))


@pytest.mark.skipif(sys.platform == "win32", reason="no lock that goes with the process")
def test_of_two_processes_one_fetches_and_the_other_waits_and_finds_it(make_teacher: Any, server: Any, places: Places) -> None:
    teacher = make_teacher()
    server.fails(stall_after=1000)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_pull_in_a_process, args=(teacher, places, results)) for _ in range(2)]
    for process in processes:
        process.start()
    while not server.ranges:
        time.sleep(0.01)
    time.sleep(0.3)  # the other one is at the lock, or arrives there while the first still waits for its server
    server.release.set()
    answers = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(30)
    assert sorted(fetched for fetched, _ in answers) == [False, True]
    assert (places.cache / "tiny" / "weights.pth").read_bytes() == server.content
    assert json.loads(places.lock_file.read_text())["files"].keys() == {"tiny"}
