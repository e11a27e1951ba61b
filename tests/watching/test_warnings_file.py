"""Warnings that are kept on disk for who watches, and still told."""

import json
from pathlib import Path

from g2sd_deploy.progress import SilentProgress
from g2sd_deploy.warnings_file import KeptWarnings


class Heard(SilentProgress):
    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []

    def begin(self, title: str) -> None:
        self.calls.append(("begin", title))

    def update(self, done: int, total: int, note: str = "") -> None:
        self.calls.append(("update", str(done), str(total), note))

    def end(self, note: str = "") -> None:
        self.calls.append(("end", note))

    def tell(self, text: str) -> None:
        self.calls.append(("tell", text))

    def warn(self, text: str) -> None:
        self.calls.append(("warn", text))

    def abort(self) -> None:
        self.calls.append(("abort",))


def rows(path: Path) -> list[tuple[str, str]]:
    return [(row["stage"], row["warning"]) for row in map(json.loads, path.read_text().splitlines())]


def test_everything_is_passed_on_and_nothing_is_written_without_a_warning(tmp_path: Path) -> None:
    heard = Heard()
    kept = KeptWarnings(heard, tmp_path / "warnings.jsonl")
    kept.begin("data")
    kept.update(1, 2, "images")
    kept.tell("goes on")
    kept.abort()
    kept.end("well")
    assert heard.calls == [("begin", "data"), ("update", "1", "2", "images"), ("tell", "goes on"), ("abort",), ("end", "well")]
    assert not list(tmp_path.iterdir())


def test_a_stage_that_begins_again_removes_its_own_warnings_and_half_lines(tmp_path: Path) -> None:
    path, heard = tmp_path / "warnings.jsonl", Heard()
    for stage in ("data", "generic"):
        kept = KeptWarnings(heard, path)
        kept.begin(stage)
        kept.warn(f"{stage} is odd")
    with path.open("a") as file:
        file.write('{"stage": "data", "war')
    again = KeptWarnings(heard, path)
    again.begin("generic")
    assert rows(path) == [("data", "data is odd")]
    again.warn("another")
    assert rows(path) == [("data", "data is odd"), ("generic", "another")]
    assert heard.calls[-1] == ("warn", "another")


def test_a_folder_that_takes_no_file_still_lets_a_person_hear(tmp_path: Path) -> None:
    heard = Heard()
    kept = KeptWarnings(heard, tmp_path / "gone" / "warnings.jsonl")
    kept.begin("data")
    kept.warn("odd")
    assert heard.calls == [("begin", "data"), ("warn", "odd")]
