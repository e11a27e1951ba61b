"""Latency in the report: what is not to be believed is shown and used nowhere."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy.errors import UserError
from g2sd_deploy.report import Rendered, charts_front, charts_latency, read_run, render_report
from g2sd_deploy.report.latency import BlockTime, Histogram

SHIPS = "fp32-onnxruntime"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the charts of latency were asked to draw, by the name of the chart; drawing itself takes most of the time of a page."""
    asked: dict[str, Any] = {}

    def ask(name: str, title: str, rows: Any) -> str:
        asked[name] = rows
        return f"<svg><title>{title}</title></svg>"

    for name in ("distributions", "courses", "block_bars"):
        monkeypatch.setattr(charts_latency, name, ask)
    monkeypatch.setattr(charts_front, "accuracy_latency", lambda marks: asked.update(front=marks) or "<svg></svg>")
    monkeypatch.setattr("g2sd_deploy.report.charts.loss_curve", lambda *given: "<svg></svg>")
    monkeypatch.setattr("g2sd_deploy.report.charts.top1_bars", lambda *given: "<svg></svg>")
    return asked


def rows_of(run: Any, **wanted: object) -> list[dict[str, Any]]:
    """Rows of the profile that have these values."""
    return [row for row in run.artifacts["profile"]["metrics"]["rows"] if all(row[key] == value for key, value in wanted.items())]


def rendered(run: Any, folder: Path) -> Rendered:
    return render_report(read_run(run.write(folder)))


def section(report: Rendered, anchor: str) -> str:
    """A section's HTML; no-break spaces are spaces, and breaks within words are gone."""
    return report.html.split(f'<section id="{anchor}">')[1].split("</section>")[0].replace("\u00a0", " ").replace("<wbr>", "")


def header(report: Rendered) -> str:
    return report.html.split("<header")[1].split("</header>")[0].replace("\u00a0", " ")


def table_rows(html: str, title: str) -> list[list[str]]:
    """Cells of the table under a heading, without markup."""
    table = re.split(rf"<(?:h3|summary)>{re.escape(title)}</", html)[1].split("</table>")[0]
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr.*?</tr>", table)]
    return [[re.sub(r"<[^>]+>", " ", cell).strip() for cell in row] for row in cells[1:]]


def test_the_verdict_on_the_conditions_comes_first_with_every_void_round(full_run: Any, tmp_path: Path, drawn: dict[str, Any]) -> None:
    html = section(rendered(full_run, tmp_path), "latency")
    note = html.index("Conditions valid")
    assert note < html.index("<svg") < html.index("<table")
    assert "10 of 12 rounds count, 2 void. 2 rounds: another process used 31 % of the processors." in html


def test_invalid_conditions_stand_at_the_top_of_the_page(full_run: Any, tmp_path: Path, drawn: dict[str, Any]) -> None:
    full_run.artifacts["profile"]["metrics"]["conditions"].update(verdict="invalid", reasons=["the processor throttled 3 times"])
    report = rendered(full_run, tmp_path)
    assert re.search(r'<li class="bad"><b>✗ invalid</b><div><a href="#latency">Latency</a> <span>.*the processor throttled', header(report))
    assert '<div class="note bad">' in section(report, "latency")
    assert "| ❌ invalid | Latency |" in report.markdown


def test_an_invalid_row_is_struck_with_its_reason_and_drawn_nowhere(full_run: Any, tmp_path: Path, drawn: dict[str, Any]) -> None:
    report = rendered(full_run, tmp_path)
    html = section(report, "latency")
    struck = [row for row in re.findall(r"<tr.*?</tr>", html) if "<em>invalid</em>" in row]
    assert len(struck) == 1 and "<s>13.2<small>" in struck[0] and "<s>–" in struck[0], "its ratio is not told"
    assert table_rows(html, "Invalid rows (1)") == [
        ["Student, torch, batch 8", "The medians of its rounds rise by 11 %, more than the 5 % that are let pass."]
    ]
    for chart in ("latency-8", "rounds-8"):
        assert [row.text for row in drawn[chart]] == ["Teacher, torch", f"Student, {SHIPS}", "Student, int8-dynamic-onnxruntime"]
    assert "| Student (invalid) | torch 2.15.0 | ~~8~~ | ~~13.2 (13.1–13.3)~~ |" in report.markdown


def test_a_latency_of_what_ships_that_is_not_to_be_believed_is_no_key_figure(full_run: Any, tmp_path: Path, drawn: dict[str, Any]) -> None:
    for row in rows_of(full_run, variant=SHIPS, batch=1, scenario="single_stream"):
        row.update(verdict="invalid", reasons=["the machine was busy"], p50_ms=0.4)
    run = read_run(full_run.write(tmp_path))
    assert run.shipped_latency("student") is None and run.times_faster is None
    report = render_report(run)
    figures = header(report).split('<ul class="figures">')[1]
    assert " ms" not in figures and "faster" not in figures and " mJ" not in figures
    assert "✗ invalid" in header(report)
    assert [mark.latency_ms for mark in drawn["front"] if mark.text == f"Student, {SHIPS}"] == [0.91], "as the export timed it"


def test_rows_that_were_not_run_are_folded_with_their_reasons(full_run: Any, tmp_path: Path, drawn: dict[str, Any]) -> None:
    html = section(rendered(full_run, tmp_path), "latency")
    assert "<details><summary>Not timed (2)</summary>" in html
    assert table_rows(html, "Not timed (2)") == [
        ["Student, bf16-openvino, batch 1", "Openvino is not installed here."],
        ["Student, fp16-tensorrt, batch 1", "This machine has no NVIDIA GPU."],
    ]


def test_every_row_has_its_percentiles_interval_ratio_speed_and_energy(full_run: Any, tmp_path: Path, drawn: dict[str, Any]) -> None:
    rows = table_rows(section(rendered(full_run, tmp_path), "latency"), "Latency of one call")
    ships = next(row for row in rows if row[1].startswith(SHIPS))
    assert ships[0] == "Student" and ships[1].split() == [SHIPS, "onnxruntime", "1.31.1"]
    assert [cell.split() for cell in ships[2:]] == [
        ["1"],
        ["0.913", "0.907–0.918"],
        ["0.986"],
        ["1.20"],
        ["0.276", "0.273–0.278"],
        ["1,063"],
        ["13.0"],
        ["2"],
        ["700"],
    ]


def test_a_percentile_for_which_there_are_too_few_samples_is_a_dash(full_run: Any, tmp_path: Path, drawn: dict[str, Any]) -> None:
    rows_of(full_run, variant=SHIPS, batch=1)[0]["p99_ms"] = None
    rows = table_rows(section(rendered(full_run, tmp_path), "latency"), "Latency of one call")
    assert next(row for row in rows if row[1].startswith(SHIPS))[5] == "–"


def test_offline_and_server_have_tables_of_their_own(full_run: Any, tmp_path: Path, drawn: dict[str, Any]) -> None:
    html = section(rendered(full_run, tmp_path), "latency")
    assert [row[5] for row in table_rows(html, "Offline: as many images as it can")] == ["2,215"]
    server = table_rows(html, "Server: requests that arrive at random")[0]
    assert server[5:7] == ["500", "499"] and server[-1] == "4.21"


def test_copies_to_a_device_are_shown_apart_where_they_were_measured(full_run: Any, tmp_path: Path, drawn: dict[str, Any]) -> None:
    assert "Copies to and from" not in section(rendered(full_run, tmp_path / "cpu"), "latency")
    phases = {"verdict": "measured", "to_device_ms": 0.0214, "compute_ms": 0.871, "from_device_ms": 0.0108}
    rows_of(full_run, variant=SHIPS, batch=1)[0]["phases"] = phases
    html = section(rendered(full_run, tmp_path / "gpu"), "latency")
    assert table_rows(html, "Copies to and from the device") == [[f"Student, {SHIPS}, batch 1", "0.0214", "0.871", "0.0108"]]


def test_energy_that_cannot_be_read_is_told_with_the_reason(full_run: Any, tmp_path: Path, drawn: dict[str, Any]) -> None:
    for row in full_run.artifacts["profile"]["metrics"]["rows"]:
        if row["verdict"] != "not_run":
            row["energy"] = {"verdict": "not_run", "reason": "no energy counter can be read"}
    report = rendered(full_run, tmp_path)
    assert "Energy was not measured: no energy counter can be read." in section(report, "latency")
    assert "mJ" not in report.html


def test_the_machine_is_described_before_and_after(full_run: Any, tmp_path: Path, drawn: dict[str, Any]) -> None:
    html = section(rendered(full_run, tmp_path), "latency")
    states = table_rows(html, "State of the machine, before and after")
    assert ["Temperature, °C", "54.0", "61.5"] in states and ["Power mode", *["unknown: nvpmodel is not installed"] * 2] in states
    facts = table_rows(html, "Machine and libraries")
    assert ["Governor", "performance"] in facts and ["Libraries: onnxruntime", "1.31.1"] in facts and ["Turbo", "no"] in facts


def test_the_teacher_is_compared_only_with_what_was_timed(full_run: Any, tmp_path: Path) -> None:
    run = read_run(full_run.write(tmp_path / "both"))
    assert run.times_faster == pytest.approx(5.91 / 0.913)
    for row in rows_of(full_run, model="teacher"):
        row.update(verdict="invalid", reasons=["it drifted"])
    assert read_run(full_run.write(tmp_path / "one")).times_faster is None


def test_time_by_block_is_drawn_where_a_vit_was_found_and_told_where_none_was(full_run: Any, tmp_path: Path, drawn: dict[str, Any]) -> None:
    html = section(rendered(full_run, tmp_path / "vit"), "blocks")
    assert [block.block for block in drawn["blocks-0"]] == [0, 1, 2, 3]
    groups = table_rows(html, f"Time by kind of layer, Student, {SHIPS}, batch 1")
    assert groups[1] == ["MLP", "0.416", "47.3 %", "0.0310", "3.74", "61 %", "compute"]
    assert "96.4 GFLOP/s in fp32 and 11.2 GB/s" in html
    assert table_rows(html, "Not looked into (1)") == [
        ["Teacher, torch, batch 1", "Torch has no profile of layers here; export the model."]
    ]
    full_run.artifacts["profile"]["metrics"]["layers"][0].update(blocks=[], roofline=None)
    foreign = section(rendered(full_run, tmp_path / "foreign"), "blocks")
    assert "<svg" not in foreign and "GFLOP/s" not in foreign


def test_a_run_without_a_table_of_layers_has_no_section_about_blocks(full_run: Any, tmp_path: Path, drawn: dict[str, Any]) -> None:
    full_run.artifacts["profile"]["metrics"]["layers"] = []
    assert 'id="blocks"' not in rendered(full_run, tmp_path).html


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.pop("conditions"), "profile/artifact.json: metrics: conditions is missing, but the report needs an object"),
        (
            lambda found: found["rows"][0].update(verdict="fine"),
            r"rows\[0\]: verdict is 'fine', but the report needs valid, invalid or not_run",
        ),
        (lambda found: found["rows"][0].pop("mean_ms"), r"rows\[0\]: mean_ms is missing"),
        (lambda found: found["rows"][0].update(scenario="burst"), "single_stream, offline or server"),
        (lambda found: found["rows"][0]["histogram"]["counts"].pop(), "histogram: edges_ms is .*one more than counts"),
        (lambda found: found["rows"][0]["round_index"].pop(), "round_index is .*one for each of round_p50_ms"),
        (lambda found: found["rows"][1]["ratio"].update(interval=[1]), "interval is .1., but the report needs two numbers"),
        (lambda found: found["layers"][0].update(verdict="valid"), "measured or not_run"),
    ],
)
def test_a_wrong_field_of_a_profile_is_named(full_run: Any, tmp_path: Path, change: Callable[[Any], object], message: str) -> None:
    change(full_run.artifacts["profile"]["metrics"])
    with pytest.raises(UserError, match=message):
        read_run(full_run.write(tmp_path))


def test_a_ridge_ends_where_almost_all_samples_are_below() -> None:
    long_tail = Histogram((1.0, 1.1, 1.2, 9.0), (900, 99, 1))
    row = charts_latency.Timed("student, torch", "student", 1.05, long_tail, {})
    svg = charts_latency.distributions("ridge", "Latency", [row])
    assert 'aria-labelledby="ridge-title"' in svg and "student, torch: median 1.05 ms." in svg
    assert ">9<" not in svg and ">8<" not in svg, "the axis ends before the outlier"


def test_rounds_that_do_not_count_are_bands() -> None:
    row = charts_latency.Timed("student", "student", 2.0, None, {0: 2.0, 1: 2.02, 3: 1.98, 6: 2.0})
    whole = charts_latency.Timed("student", "student", 2.0, None, dict.fromkeys(range(7), 2.0))
    gappy, steady = (charts_latency.courses("rounds", "Rounds", [item]) for item in (row, whole))
    filled = "fill: var(--line); opacity"
    assert (gappy.count(filled), steady.count(filled)) == (3, 0)
    assert "student: within 1.0 %" in gappy


def test_blocks_without_a_norm_have_no_norm_in_the_legend() -> None:
    svg = charts_latency.block_bars("blocks", "Blocks", [BlockTime(index, 0.1, 0.2, 0.0, 0.0) for index in range(12)])
    assert ">attention<" in svg and ">norm<" not in svg
    assert "Over 12 blocks: attention 1.20 ms, MLP 2.40 ms." in svg
