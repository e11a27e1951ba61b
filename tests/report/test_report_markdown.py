"""The Markdown report: the page's content as tables that GitHub can read."""

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy.report import Rendered, read_run, render_report
from g2sd_deploy.report.render import escape_markdown, fenced

EVIL = "<b>x</b> | `y` *z* [a](http://b) $m$\nnext"


def markdown_of(run: Any, folder: Path) -> str:
    return render_report(read_run(run.write(folder))).markdown


def tables(text: str) -> list[list[str]]:
    """Blocks of adjacent lines that start with a bar."""
    return [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)]


def num_cells(line: str) -> int:
    return len(re.split(r"(?<!\\)\|", line.strip())) - 2


@pytest.mark.parametrize("name", ["full_run", "teacher_run"])
def test_every_table_has_a_rule_and_rows_of_one_width(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    found = tables(markdown_of(request.getfixturevalue(name), tmp_path))
    assert len(found) >= 7
    for table in found:
        assert re.fullmatch(r"\|(?: (?:---|---:) \|)+", table[1])
        assert len(table) >= 3 and {num_cells(line) for line in table} == {num_cells(table[1])}


def test_every_table_stands_alone_between_blank_lines(full_report: Rendered) -> None:
    text = full_report.markdown
    for table in tables(text):
        before, after = text.split("\n".join(table), 1)
        assert before.endswith("\n\n") and after.startswith("\n\n")


def test_a_real_parser_sees_the_tables_headings_and_code(full_report: Rendered) -> None:
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    kinds = [token.type for token in parser.parse(full_report.markdown)]
    assert kinds.count("table_open") == len(tables(full_report.markdown))
    assert (kinds.count("heading_open"), kinds.count("fence")) == (35, 3)


def test_both_formats_have_the_same_sections(full_report: Rendered) -> None:
    assert re.findall(r"^## (.*)$", full_report.markdown, flags=re.MULTILINE) == re.findall(r"<h2>(.*)</h2>", full_report.html)


def test_both_formats_have_the_same_cells(full_report: Rendered) -> None:
    plain = re.sub(r"\\(.)", r"\1", full_report.markdown)
    cells = [unescape(cell).replace("\u00a0", " ") for cell in re.findall(r"<td[^>]*>([^<]*)</td>", full_report.html)]
    assert len(cells) > 300 and [cell for cell in cells if f"| {cell} |" not in plain] == []


def test_a_failed_verdict_comes_before_the_numbers(full_run: Any, tmp_path: Path) -> None:
    full_run.artifacts["export"]["metrics"]["parity"].update(verdict="failed", reason="412 decisions flipped")
    text = markdown_of(full_run, tmp_path)
    assert text.index("Do not ship") < text.index("> **❌ Parity failed.** 412 decisions flipped.") < text.index("| Key figure |")


def test_names_from_the_outside_stay_text(full_run: Any, tmp_path: Path) -> None:
    full_run.run.update(recipe=EVIL)
    full_run.artifacts["data"]["metrics"].update(class_names=[EVIL] * 10, description=EVIL)
    text = markdown_of(full_run, tmp_path)
    assert "<b>" not in re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert r"\<b\>x\</b\> \| \`y\` \*z\* \[a\](http://b) \$m\$ next" in text
    assert {num_cells(line) for line in tables(text)[-3]} == {num_cells(tables(text)[-3][1])}


def test_a_line_cannot_begin_a_list_or_a_heading() -> None:
    assert [escape_markdown(text) for text in ("- a", "+ a", "1. a", "# a", "=")] == [r"\- a", r"\+ a", r"1\. a", r"\# a", r"\="]
    assert escape_markdown("0.913 ms") == "0.913 ms"


def test_a_fence_is_longer_than_the_backticks_inside() -> None:
    assert fenced("a ```` b", "sh") == "`````sh\na ```` b\n`````"
