"""Lists of a JSON file that is read in pieces: the same as read at once, and refused where that would refuse it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from g2sd_deploy.data.dense import json_stream
from g2sd_deploy.data.dense.json_stream import list_elements

HELD = {"first": {"a": [1, {"b": "}]"}]}, "x": [1, 22.5e-3, 'tüx\\"]', {"y": [[]]}, None, True, [-7, 123456789]], "n": 1234567, "z": []}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 40, 10_000])
@pytest.mark.parametrize("indent", [None, 2])
def test_elements_do_not_depend_on_the_pieces_that_are_read(
    size: int, indent: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "_CHARACTERS", size)
    path = tmp_path / "held.json"
    path.write_text(json.dumps(HELD, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8-sig")
    assert list(list_elements(path, ["z", "x"])) == [("x", element) for element in HELD["x"]]


def test_a_long_element_is_tried_a_few_times_and_not_once_a_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_CHARACTERS", 16)
    tried = []

    class Counting(json.JSONDecoder):
        def raw_decode(self, text: str, idx: int = 0) -> tuple[object, int]:
            tried.append(len(text))
            return super().raw_decode(text, idx)

    monkeypatch.setattr(json_stream, "_DECODER", Counting())
    path = tmp_path / "held.json"
    numbers = np.arange(5000).tolist()
    path.write_text(json.dumps({"x": [numbers]}))
    assert list(list_elements(path, ["x"])) == [("x", numbers)]
    assert len(tried) < 20 and sum(tried) < 5 * path.stat().st_size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no object; wanted an object with x"),
        ("[1]", "holds no object"),
        ("{", r"is no JSON \(expecting a name, character 1\); fetch or write it again"),
        ('{"x": [1, 2', "is no JSON .it ends after 11 characters"),
        ('{"x": [1 2]}', r"expecting ',', character 9"),
        ('{"x": [1, {"a": }]}', "Expecting value, character 16"),
        ('{"x": [1,]}', "Expecting value, character 9"),
        ('{"x": ["abc]}', "Unterminated string starting at, character 7"),
        ('{"x": [1] "y": 2}', "expecting ','"),
        ('{"x": [1]} {}', "more follows behind the end, character 11"),
        ('{"x": [1]', "it ends after 9 characters"),
        ('{"x" [1]}', "expecting ':', character 5"),
        ("{1: [1]}", "expecting a name, character 1"),
        ('{"x": [1], "x": [2]}', "has 'x' twice"),
        ('{"x": 3}', "x is no list"),
        ('{"y": []}', "holds no x .found y"),
        ('{"x": ' + "[" * 100_000, "a value cannot be read, character 7"),
        ('{"x": [' + "9" * 5000 + "]}", "a value cannot be read, character 7"),
    ],
)
@pytest.mark.parametrize("size", [3, 1 << 20])
def test_what_is_no_json_is_refused_with_its_place(
    text: str, message: str, size: int, tmp_path: Path, refused: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "_CHARACTERS", size)
    path = tmp_path / "held.json"
    path.write_text(text)
    refused(lambda: list(list_elements(path, ["x"])), f"held.json: .*{message}")


def test_a_fault_long_before_the_end_is_found_without_reading_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_CHARACTERS", 64)
    path = tmp_path / "held.json"
    path.write_text('{"x": [' + "1,," + " " * 100_000 + "]}")
    with path.open() as file:
        reader = json_stream._Reader(file)
        reader.take("{")
        reader.value()
        reader.take(":")
        with pytest.raises(json_stream._Broken, match="Expecting value, character 9"):
            list(reader.list())
        assert file.tell() < 10_000


def test_a_file_that_is_no_text_or_cannot_be_read_is_refused(tmp_path: Path, refused: Callable[..., None]) -> None:
    (tmp_path / "bytes.json").write_bytes(b'{"x": ["\xff"]}')
    refused(lambda: list(list_elements(tmp_path / "bytes.json", ["x"])), r"bytes.json: is no JSON \(it is not UTF-8 text\)")
    refused(lambda: list(list_elements(tmp_path, ["x"])), "cannot be read .Is a directory")
