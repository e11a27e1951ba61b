"""The downloader against a real server that cuts, stalls, lies and changes its mind."""

import hashlib
import json
import resource
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy.errors import UserError
from g2sd_deploy.zoo.download import Expected, Policy, download

CONTENT = bytes(range(256)) * 2000  # half a MiB, and no byte is like the one 1 or 2 places on
UNKNOWN = Expected()
KNOWN = Expected(len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / ".weights.part"


@pytest.fixture
def fetch(server: Any, part: Path, hurried: Policy) -> Any:
    """Download the server's file; returns what arrived."""
    server.content = CONTENT

    def run(expected: Expected = UNKNOWN, policy: Policy = hurried) -> bytes:
        download(server.url, part, expected, tick=lambda done, total: None, policy=policy)
        return part.read_bytes()

    return run


def test_a_file_arrives_whole_and_progress_is_told_in_bytes(server: Any, part: Path, hurried: Policy) -> None:
    server.content, seen = CONTENT, []
    download(server.url, part, UNKNOWN, tick=lambda done, total: seen.append((done, total)), policy=hurried)
    assert part.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and seen == sorted(seen)


def test_after_a_cut_only_the_rest_is_asked_for(server: Any, fetch: Any) -> None:
    server.fails(cut_after=100_000).fails(cut_after=50_000)
    assert fetch() == CONTENT
    assert server.ranges == ["", "bytes=100000-", "bytes=150000-"]


def test_another_process_goes_on_where_the_first_was_stopped(server: Any, fetch: Any, hurried: Policy) -> None:
    server.fails(cut_after=100_000)
    with pytest.raises(UserError, match=r"1 attempts failed"):
        fetch(policy=Policy(attempts=1))
    assert fetch() == CONTENT
    assert server.ranges == ["", "bytes=100000-"]


def test_a_complete_part_file_needs_no_request(server: Any, fetch: Any) -> None:
    fetch()
    assert fetch() == CONTENT
    assert len(server.ranges) == 1


def test_a_server_that_ignores_the_range_is_read_from_the_start(server: Any, fetch: Any) -> None:
    server.fails(cut_after=100_000).fails(ignore_range=True)
    assert fetch() == CONTENT


def test_a_file_that_changed_on_the_server_is_fetched_anew(server: Any, fetch: Any) -> None:
    server.fails(cut_after=100_000)
    with pytest.raises(UserError):
        fetch(policy=Policy(attempts=1))
    server.content, server.etag = CONTENT[::-1], '"v2"'
    assert fetch() == CONTENT[::-1]
    assert server.ranges == ["", "bytes=100000-"]  # asked with If-Range, so the second answer is already the whole new file


def test_a_change_is_noticed_even_if_the_server_does_not_honour_if_range(server: Any, fetch: Any) -> None:
    server.fails(cut_after=100_000)
    with pytest.raises(UserError):
        fetch(policy=Policy(attempts=1))
    server.content, server.etag, server.checks_if_range = CONTENT[::-1], '"v2"', False
    assert fetch() == CONTENT[::-1]


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_validator_and_without_a_hash_nothing_is_stitched(server: Any, fetch: Any, etag: str | None) -> None:
    server.etag = etag
    server.fails(cut_after=100_000)
    assert fetch() == CONTENT
    assert server.ranges == ["", ""]


def test_with_a_known_hash_a_missing_validator_does_no_harm(server: Any, fetch: Any) -> None:
    server.etag = None
    server.fails(cut_after=100_000)
    assert fetch(KNOWN) == CONTENT
    assert server.ranges == ["", "bytes=100000-"]


def test_a_range_that_starts_elsewhere_is_not_stitched(server: Any, fetch: Any) -> None:
    server.fails(cut_after=100_000).fails(shift=7)
    assert fetch() == CONTENT


def test_a_part_file_longer_than_the_file_is_thrown_away(server: Any, fetch: Any, part: Path) -> None:
    server.fails(cut_after=100_000)
    with pytest.raises(UserError):
        fetch(policy=Policy(attempts=1))
    part.write_bytes(CONTENT + b"more")
    assert fetch() == CONTENT


def test_a_stall_ends_and_the_rest_is_fetched(server: Any, fetch: Any) -> None:
    server.fails(stall_after=100_000)
    assert fetch() == CONTENT


def test_a_server_that_stalls_for_ever_is_given_up_and_what_came_is_kept(server: Any, fetch: Any, part: Path) -> None:
    for _ in range(4):
        server.fails(stall_after=10)
    with pytest.raises(UserError, match=r"4 attempts failed, the last one because the server stayed silent; .* are kept") as caught:
        fetch()
    assert "\n" not in str(caught.value)
    assert part.read_bytes() == CONTENT[:40]


def test_a_line_that_always_breaks_is_given_up(server: Any, fetch: Any) -> None:
    server.faults = []
    for _ in range(9):
        server.fails(cut_after=0)
    with pytest.raises(UserError, match="4 attempts failed"):
        fetch()
    assert len(server.ranges) == 4


def test_attempts_that_bring_a_mebibyte_each_do_not_count_as_failures(server: Any, part: Path, hurried: Policy) -> None:
    server.content = CONTENT * 14  # 7 MiB
    for _ in range(6):
        server.fails(cut_after=1 << 20)
    download(server.url, part, UNKNOWN, tick=lambda done, total: None, policy=hurried)
    assert part.read_bytes() == server.content


def test_a_server_that_starts_anew_and_breaks_every_time_is_given_up(server: Any, part: Path, hurried: Policy) -> None:
    server.content = CONTENT * 8
    for _ in range(20):
        server.fails(cut_after=2 << 20, ignore_range=True)
    with pytest.raises(UserError, match="attempts failed"):
        download(server.url, part, UNKNOWN, tick=lambda done, total: None, policy=hurried)
    assert len(server.ranges) <= 6


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_ends_at_once(server: Any, fetch: Any, status: int) -> None:
    server.fails(status=status).fails(status=status)
    with pytest.raises(UserError, match=f"weights.pth: the server answered {status}"):
        fetch()
    assert len(server.ranges) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_server_in_trouble_is_asked_again(server: Any, fetch: Any, status: int) -> None:
    server.fails(status=status).fails(status=status)
    assert fetch() == CONTENT
    assert len(server.ranges) == 3


def test_a_server_in_trouble_for_good_is_given_up_with_its_answer(server: Any, fetch: Any) -> None:
    for _ in range(5):
        server.fails(status=500)
    with pytest.raises(UserError, match=r"the last one because the server answered 500 Internal Server Error; try later"):
        fetch()


def test_it_waits_longer_after_each_failure_and_as_long_as_the_server_asks_but_not_for_ever(server: Any, fetch: Any) -> None:
    server.fails(status=500).fails(status=500).fails(status=429, retry_after=7).fails(status=429, retry_after=9000)
    waits: list[float] = []
    fetch(policy=Policy(backoff_s=1.0, longest_wait_s=60.0, attempts=6, sleep=waits.append))
    assert waits == [1.0, 2.0, 7.0, 60.0]


@pytest.mark.parametrize(
    "fault",
    [
        {"content_type": "text/html; charset=utf-8", "body": b"please log in"},
        {"body": b"\n<!DOCTYPE html><html><body>quota exceeded"},
    ],
)
def test_a_web_page_is_refused_and_leaves_nothing(server: Any, fetch: Any, part: Path, fault: dict[str, Any]) -> None:
    server.fails(**fault)
    with pytest.raises(UserError, match="the server sent a web page instead of the file"):
        fetch()
    assert not part.exists() and len(server.ranges) == 1


def test_a_wrong_announced_size_is_refused_before_anything_is_fetched(server: Any, fetch: Any, part: Path) -> None:
    for length in (len(CONTENT) - 1000, len(CONTENT) + 1000):
        server.fails(length=length)
        with pytest.raises(UserError, match=f"announces {length} bytes, but the file has {len(CONTENT)}; nothing was kept"):
            fetch(KNOWN)
        assert not part.exists()


def test_a_server_that_announces_too_much_and_keeps_doing_so_is_given_up(server: Any, fetch: Any) -> None:
    for _ in range(5):
        server.fails(length=len(CONTENT) + 1000)
    with pytest.raises(UserError, match="attempts failed"):
        fetch()


def test_without_an_announced_length_too_many_or_too_few_bytes_are_noticed(server: Any, fetch: Any, part: Path) -> None:
    server.chunked = True
    for content, message in ((CONTENT + b"x", "sent more than"), (CONTENT[:-1], "sent 511999 bytes, but the file has 512000")):
        server.content = content
        with pytest.raises(UserError, match=message):
            fetch(KNOWN)
        assert not part.exists()


def test_a_redirection_is_followed_and_a_resumed_download_follows_it_again(server: Any, fetch: Any) -> None:
    server.fails(status=302, location="/there").fails(cut_after=1000).fails(status=302, location="/there")
    assert fetch() == CONTENT
    assert server.paths == ["/weights.pth", "/there"] * 2 and server.ranges[-1] == "bytes=1000-"


def test_a_mirrors_password_stays_out_of_the_message(server: Any, part: Path, hurried: Policy) -> None:
    server.fails(status=403)
    url = server.url.replace("//", "//user:secret@")
    with pytest.raises(UserError, match=r"^http://127\.0\.0\.1:\d+/weights\.pth: the server answered 403") as caught:
        download(url, part, UNKNOWN, tick=lambda done, total: None, policy=hurried)
    assert "secret" not in str(caught.value)


def test_an_address_that_nobody_listens_at_is_one_clear_error(part: Path, hurried: Policy) -> None:
    with pytest.raises(UserError, match=r"^http://127\.0\.0\.1:9/x: 4 attempts failed, the last one because the connection broke"):
        download("http://127.0.0.1:9/x", part, UNKNOWN, tick=lambda done, total: None, policy=hurried)


@pytest.mark.parametrize("url", ["ftp://example.org/x", "htp//nonsense", "http://[::1/x"])
def test_an_address_of_no_use_is_not_tried_again(part: Path, hurried: Policy, url: str) -> None:
    with pytest.raises(UserError, match=r"cannot be fetched .* correct the address"):
        download(url, part, UNKNOWN, tick=lambda done, total: None, policy=hurried)


def test_a_disk_without_room_is_told_before_the_download(server: Any, fetch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UserError, match="MiB are still to come and 0 MiB are free; make room, or set G2SD_CACHE"):
        fetch()


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_disk_that_fills_up_keeps_what_came_and_the_next_run_goes_on(server: Any, fetch: Any, part: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        with pytest.raises(UserError, match=r"the disk is full; the 0\.3 MiB that came are kept, and the same command goes on"):
            fetch()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert part.read_bytes() == CONTENT[:300_000]
    assert fetch() == CONTENT
    assert server.ranges[-1] == "bytes=300000-"


def test_notes_that_are_damaged_only_cost_a_fresh_start(server: Any, fetch: Any, part: Path) -> None:
    server.fails(cut_after=100_000)
    with pytest.raises(UserError):
        fetch(policy=Policy(attempts=1))
    part.with_name(f"{part.name}.json").write_text("{")
    assert fetch() == CONTENT
    assert server.ranges == ["", ""]


def test_the_hash_that_a_hub_announces_is_handed_on_and_survives_a_restart(server: Any, part: Path, hurried: Policy) -> None:
    server.content, server.announced = CONTENT, "ab" * 32
    server.fails(status=302, location="/elsewhere")
    for _ in range(2):
        assert download(server.url, part, UNKNOWN, tick=lambda done, total: None, policy=hurried) == "ab" * 32
    assert json.loads(part.with_name(f"{part.name}.json").read_text())["announced"] == "ab" * 32
