"""Several runs on one page: what is compared, what is refused to be, and that the page says so."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from g2sd_deploy.report import PairedStudents, Rendered, RunSummary, read_run, render_comparison
from g2sd_deploy.report.comparison_origin import differing_settings
from g2sd_deploy.report.comparison_runs import compared, same_test

Make = Callable[..., RunSummary]


@pytest.fixture
def make(full_run_factory: Callable[[], Any], tmp_path: Path) -> Make:
    """Writes and reads a run that differs from the full one as told."""

    def made(name: str, change: Callable[[Any], None] = lambda run: None) -> RunSummary:
        run = full_run_factory()
        change(run)
        return read_run(run.write(tmp_path / name))

    return made


def metrics(run: Any, stage: str) -> dict[str, Any]:
    return run.artifacts[stage]["metrics"]  # type: ignore[no-any-return]


def set_top1(top1: float) -> Callable[[Any], None]:
    def change(run: Any) -> None:
        metrics(run, "evaluate")["models"]["student"]["clean"]["top1"] = top1

    return change


def other_machine(run: Any) -> None:
    metrics(run, "profile")["machine"]["cpu"] = "Cortex-A76"


def other_test(run: Any) -> None:
    metrics(run, "data")["fingerprint"] = "0" * 64
    metrics(run, "data")["num_test"] = 40


def rendered(runs: Sequence[RunSummary], paired: Sequence[PairedStudents] = ()) -> tuple[Rendered, dict[str, Any]]:
    page = render_comparison(runs, [f"/runs/{name}" for name in "abcdefghijkl"[: len(runs)]], paired)
    return page, json.loads(page.json)


def section(markdown: str, title: str) -> str:
    """Text of a section."""
    assert f"\n## {title}\n" in markdown, [line for line in markdown.splitlines() if line.startswith("## ")]
    return markdown.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def charts(html: str) -> dict[str, str]:
    """Label and text of each chart."""
    return {
        next(title.text or "" for title in svg.iter("title")): " ".join(svg.itertext())
        for part in html.split("<svg")[1:]
        for svg in [ElementTree.fromstring("<svg" + part.partition("</svg>")[0] + "</svg>")]
    }


PAIR = PairedStudents(0, 1, num_images=5000, only_first=40, only_second=80, gain=0.008, interval=(0.004, 0.012), p_value=0.0003)


def test_runs_of_the_same_name_are_told_apart_by_their_folders(make: Make) -> None:
    runs = [make("a"), make("b"), make("c")]
    names = [item.name for item in compared(runs, ["/x/night/out", "/x/day/out", "/x/day/other"])]
    assert names == ["quickstart (night/out)", "quickstart (day/out)", "quickstart (day/other)"]
    other = replace(runs[0], title="imagenet")
    assert [item.name for item in compared([runs[0], other], ["/x/a", "/y/a"])] == ["quickstart", "imagenet"]
    assert [item.name for item in compared(runs[:2])] == ["quickstart (run 1)", "quickstart (run 2)"]


def test_the_page_says_first_who_leads_by_how_much_and_whether_that_may_be_chance(make: Make) -> None:
    runs = [make("a", set_top1(0.8864)), make("b")]
    page, data = rendered(runs, [PAIR])
    assert page.markdown.splitlines()[2].startswith(
        "**quickstart (b) is the most accurate of 2, with 89.44 % top-1.** \\+0.80 pp over quickstart (a) on the same 5,000 images "
        "(95 %: +0.40 to +1.20, McNemar p \\< 0.001)."
    )
    assert data["headline"]["sentence"] == "quickstart (b) is the most accurate of 2, with 89.44 % top-1."
    chance = replace(PAIR, interval=(-0.001, 0.017), p_value=0.08)
    assert "quickstart (b) leads with 89.44 % top-1, but its lead may be chance." in rendered(runs, [chance])[0].markdown
    alone = rendered(runs)[1]["headline"]["support"]
    assert "not compared image by image, so it is not known whether that may be chance" in alone


def test_the_interval_of_a_lead_is_turned_to_face_the_leader(make: Make) -> None:
    runs = [make("a"), make("b", set_top1(0.8864))]
    turned = replace(PAIR, only_first=80, only_second=40, gain=-0.008, interval=(-0.012, -0.004))
    assert "(95 %: +0.40 to +1.20, McNemar p < 0.001)" in rendered(runs, [turned])[1]["headline"]["support"]


def test_every_runs_verdicts_come_before_any_number(make: Make) -> None:
    def fail(run: Any) -> None:
        metrics(run, "export")["parity"] |= {"verdict": "failed", "reason": "3 decisions differ"}
        metrics(run, "export")["verdict"] = "failed"

    page, data = rendered([make("a"), make("b", fail)])
    rows = [line for line in page.markdown.splitlines() if "| quickstart (a) |" in line or "| quickstart (b) |" in line]
    assert rows[0].startswith(("| ✅ passed", "| ❌ invalid")) and rows[1].startswith("| ❌ failed") and "3 decisions differ" in rows[1]
    assert page.html.index('class="verdicts"') < page.html.index('id="students"')
    assert data["runs"][1]["verdicts"]["Parity of the file that ships"] == "failed"


def test_one_table_holds_every_student_with_its_intervals(make: Make) -> None:
    runs = [make("a"), make("b", set_top1(0.8))]
    page, data = rendered(runs)
    table = section(page.markdown, "Students")
    header, first, second = (line for line in table.splitlines() if line.startswith(("| Run", "| quickstart")))
    for title in ("Parameters", "Size", "Top-1", "Of teacher", "ECE", "Mean of corruptions", "p50 ms", "Of reference", "Timing"):
        assert f"| {title} |" in header
    assert "89.44 %" in first and "80.00 %" in second and "0.481 M" in first
    shipped = runs[0].shipped_latency("student")
    assert (
        shipped is not None
        and data["runs"][0]["p50_ms"] == shipped.p50_ms
        and data["runs"][0]["ratio"]["value"] == shipped.believed.ratio.value
    )  # type: ignore[union-attr]


def test_an_invalid_latency_is_no_number_of_the_table(make: Make) -> None:
    def disturb(run: Any) -> None:
        for row in metrics(run, "profile")["rows"]:
            row |= {"verdict": "invalid", "reasons": ["another process was busy"]}

    page, data = rendered([make("a"), make("b", disturb)])
    line = next(line for line in section(page.markdown, "Students").splitlines() if line.startswith("| quickstart (b)"))
    assert "invalid" in line and "another process was busy" in line
    assert data["runs"][1]["p50_ms"] is None and data["runs"][0]["p50_ms"] is not None


def test_latencies_of_two_machines_are_ratios_only_and_the_page_says_so(make: Make) -> None:
    page, data = rendered([make("a"), make("b", other_machine)])
    students = section(page.markdown, "Students")
    assert data["one_machine"] is False
    assert "Different machines" in students and "given as ratios to the same reference network" in students
    assert "p50 ms" not in students and "Of reference" in students
    front = section(page.markdown, "Accuracy over latency")
    assert "Of reference" in front and "p50 ms" not in front
    assert "p50 over that of the reference" in charts(page.html)["Accuracy over latency"]
    assert "timed on: cpu" in section(page.markdown, "Differences in machines and versions")


def test_two_machines_without_a_common_reference_share_no_axis_of_time(make: Make) -> None:
    def other_reference(run: Any) -> None:
        other_machine(run)
        for row in metrics(run, "profile")["rows"]:
            if row["model"] == metrics(run, "profile")["reference"]:
                row["digest"] = "f" * 64

    page, _ = rendered([make("a"), make("b", other_reference)])
    assert "the runs timed different ones" in section(page.markdown, "Students")
    assert "no common axis of time" in section(page.markdown, "Accuracy over latency")
    assert "Accuracy over latency" not in charts(page.html)


def test_runs_on_different_tests_are_never_in_one_chart_and_the_page_says_why(make: Make) -> None:
    runs = [make("a"), make("b", other_test)]
    assert not same_test(*runs)
    page, data = rendered(runs)
    assert data["one_test"] is False and data["headline"]["sentence"] == "These runs were tested on different images."
    assert "tested on different images or classes" in section(page.markdown, "Students")
    assert not any(title in page.markdown for title in ("## Robustness", "## Accuracy over latency", "## Occlusion"))
    assert "40 of 10 classes" in section(page.markdown, "Students")
    third = rendered([*runs, make("c")])[0]
    assert list(charts(third.html)).count("Accuracy over latency") == 1, "the two that share a test are drawn"
    assert "quickstart (b)" not in section(third.markdown, "Robustness")


def test_the_same_images_read_from_another_listing_are_the_same_test(make: Make) -> None:
    def listed(fingerprint: str, digest: str) -> Callable[[Any], None]:
        def change(run: Any) -> None:
            metrics(run, "data")["fingerprint"] = fingerprint
            run.artifacts["data"]["files"] = {name: {"sha256": digest, "bytes": 1} for name in ("test_images.npy", "test_labels.npy")}

        return change

    one, other, third = make("a", listed("1" * 64, "a" * 64)), make("b", listed("2" * 64, "a" * 64)), make("c", listed("2" * 64, "b" * 64))
    assert same_test(one, other) and not same_test(one, third)


def test_only_settings_that_differ_are_shown(make: Make) -> None:
    def change(run: Any) -> None:
        run.run["resolved"] |= {"seed": 1, "generic": {"epochs": 7, "betas": [0.9, 0.95]}, "description": "another text"}

    def base(run: Any) -> None:
        run.run["resolved"]["generic"] = {"betas": [0.9, 0.95]}

    runs = [make("a", base), make("b", change)]
    assert differing_settings(compared(runs)) == [("seed", "0", "1"), ("generic.epochs", "not set", "7")]
    assert "The recipes have the same settings." in rendered([runs[0], runs[0]])[0].markdown


def test_curves_of_equal_stages_lie_in_one_chart(make: Make) -> None:
    page, _ = rendered([make("a"), make("b")])
    found = charts(page.html)
    assert {"Loss of stage generic in 2 runs", "Loss of stage specific in 2 runs", "Loss of stage baseline in 2 runs"} <= set(found)
    assert all(name in found["Loss of stage generic in 2 runs"] for name in ("quickstart (a)", "quickstart (b)"))


def test_losses_of_other_methods_are_not_compared_in_height(make: Make) -> None:
    def change(run: Any) -> None:
        metrics(run, "generic")["method"] = "MAE"

    page, _ = rendered([make("a"), make("b", change)])
    assert "The runs trained by different methods (G2SD generic distillation and MAE): compare the course, not the height." in page.html


def test_the_front_holds_the_ways_of_all_runs(make: Make) -> None:
    page, _ = rendered([make("a"), make("b", set_top1(0.99))])
    front = section(page.markdown, "Accuracy over latency")
    assert front.count("| quickstart (a) |") == front.count("| quickstart (b) |") > 1
    assert "beaten by quickstart (b)" in front


def test_nine_runs_are_compared_in_tables_only(make: Make) -> None:
    page, data = rendered([make(name) for name in "abcdefghi"])
    assert charts(page.html) == {} and len(data["runs"]) == 9
    assert "More than 8 runs are compared in tables only." in page.markdown and "## Training" not in page.markdown


def test_eight_runs_have_eight_colours(make: Make) -> None:
    items = compared([make(name) for name in "abcdefgh"])
    assert len({item.series for item in items}) == 8 and "" not in {item.series for item in items}


def test_a_run_of_a_teacher_alone_stands_beside_others(make: Make, teacher_run: Any, tmp_path: Path) -> None:
    teacher = read_run(teacher_run.write(tmp_path / "t"))
    page, data = rendered([make("a"), teacher])
    assert data["runs"][1]["model"] == "teacher" and "quickstart\\_teacher: teacher" in page.markdown


def test_pairs_that_could_not_be_compared_say_why(make: Make) -> None:
    pairs = [replace(PAIR), PairedStudents(0, 2, "the second holds no predictions of a student on its test images")]
    page, data = rendered([make("a"), make("b"), make("c")], pairs)
    students = section(page.markdown, "Students")
    assert "not compared: the second holds no predictions" in students and "+0.80 (+0.40 to +1.20)" in students
    assert [pair["first"] for pair in data["paired"]] == ["quickstart (a)", "quickstart (a)"]


def test_equal_runs_give_equal_bytes_and_the_page_loads_nothing(make: Make) -> None:
    runs = [make("a"), make("b")]
    page, again = rendered(runs)[0], rendered(runs)[0]
    assert (page.html, page.markdown, page.json) == (again.html, again.markdown, again.json)
    assert "https://" not in page.html and "http://" not in page.html and "<script" not in page.html
    ids = [part.partition('"')[0] for part in page.html.split(' id="')[1:]]
    assert len(ids) == len(set(ids))


def test_text_of_a_run_is_inert(make: Make) -> None:
    def change(run: Any) -> None:
        run.run["resolved"] |= {"report": {"title": "<script>alert(1)</script>"}, "seed": "<b>|x|</b>"}

    page, _ = rendered([make("a"), make("b", change)])
    assert "<script>alert" not in page.html and "<b>|x|" not in page.html and "\\<b\\>\\|x\\|" in page.markdown
