"""The lock file: written whole, read strictly, and no record is lost."""

import threading
from pathlib import Path

import pytest

from g2sd_deploy.errors import UserError
from g2sd_deploy.zoo.lockfile import Locked, read_lock, record

LOCKED = Locked("a.pth", "ab" * 32, 7, "https://example.org/a.pth")


def test_a_record_comes_back_and_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "teachers.lock"
    assert read_lock(path) == {}
    record(path, "one", LOCKED)
    record(path, "two", LOCKED)
    assert read_lock(path) == {"one": LOCKED, "two": LOCKED}


def test_records_of_several_writers_at_once_are_all_kept(tmp_path: Path) -> None:
    writers = [threading.Thread(target=record, args=(tmp_path / "teachers.lock", f"t{i}", LOCKED)) for i in range(12)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(read_lock(tmp_path / "teachers.lock")) == 12


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2, "files": {}}', '{"format": 1, "files": {"a": {"file": "x"}}}', "\ud800"])
def test_a_damaged_lock_file_is_refused_and_not_overwritten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "teachers.lock"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    before = path.read_bytes()
    for use in (lambda: read_lock(path), lambda: record(path, "one", LOCKED)):
        with pytest.raises(UserError, match=r"teachers\.lock: .*restore it, or move it away to trust the next pull"):
            use()
    assert path.read_bytes() == before


def test_a_lock_file_that_cannot_be_written_is_told_with_the_variable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written .*G2SD_"):
        record(tmp_path / "file" / "teachers.lock", "one", LOCKED)
