"""A file of rows that grows, is half written, and is replaced while it is read."""

from pathlib import Path

from g2sd_deploy.watching.json_lines import GrowingLines


def steps(lines: GrowingLines) -> list[int]:
    lines.update()
    return [row["step"] for row in lines.rows]


def test_a_file_that_is_not_there_yet_has_no_rows_and_is_no_problem(tmp_path: Path) -> None:
    lines = GrowingLines(tmp_path / "rows.jsonl")
    assert steps(lines) == [] and lines.problem == ""
    (tmp_path / "rows.jsonl").write_text('{"step": 1}\n')
    assert steps(lines) == [1]


def test_a_half_written_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    lines = GrowingLines(path)
    assert steps(lines) == [1]
    with path.open("a") as file:
        file.write('ss": 0.5}\n')
    assert steps(lines) == [1, 2] and lines.rows[1]["loss"] == 0.5


def test_lines_that_are_no_objects_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2, "cut\n[3]\n\xff\xfe\n\n{"step": 4}\n')
    assert steps(GrowingLines(path)) == [1, 4]


def test_a_history_that_a_resumed_run_wrote_anew_replaces_what_was_read(tmp_path: Path) -> None:
    path, other = tmp_path / "rows.jsonl", tmp_path / "other"
    path.write_text("".join(f'{{"step": {step}}}\n' for step in (1, 2, 3)))
    lines = GrowingLines(path)
    assert steps(lines) == [1, 2, 3]
    other.write_text("".join(f'{{"step": {step}}}\n' for step in (1, 2, 30, 40, 50)))
    other.replace(path)
    assert steps(lines) == [1, 2, 30, 40, 50]


def test_a_file_that_was_written_over_in_place_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    lines = GrowingLines(path)
    assert steps(lines) == [1, 2]
    path.write_text('{"step": 7}\n')
    assert steps(lines) == [7], "shorter"
    path.write_text('{"step": 8}\n{"step": 9}\n')
    assert steps(lines) == [8, 9], "longer, but not what was there"


def test_a_file_that_vanishes_leaves_nothing_of_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": 1}\n')
    lines = GrowingLines(path)
    assert steps(lines) == [1]
    path.unlink()
    assert steps(lines) == []


def test_a_folder_that_does_not_answer_is_told_and_what_was_read_stays(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": 1}\n')
    lines = GrowingLines(path)
    assert steps(lines) == [1]
    path.unlink()
    path.mkdir()  # as near to a failing mount as a test comes without root
    assert steps(lines) == [1] and "cannot be read now (Is a directory)" in lines.problem
