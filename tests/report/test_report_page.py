"""The HTML page: complete, self-contained, escaped, and honest about what failed or did not run."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy.report import Rendered, formatting, read_run, render_report

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> & | `"


class Balance(HTMLParser):
    """Collects tags, ids and visible text, and what is wrong with the nesting."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.wrong: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if not {"style", "svg"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("\n".join(self.words).replace("\u00a0", " ").split())


def page_of(run: Any, folder: Path) -> str:
    return render_report(read_run(run.write(folder))).html


def fail_parity(run: Any) -> None:
    change = {
        "verdict": "failed",
        "reason": "412 of 5,000 decisions flipped",
        "flipped": 412,
        "flipped_share": 0.0824,
        "max_abs_logit_diff": 3.71,
    }
    run.artifacts["export"]["metrics"]["parity"].update(change)


def test_every_tag_is_closed_in_order(full_report: Rendered) -> None:
    page = Balance(full_report.html)
    assert (page.wrong, page.open) == ([], [])


def test_ids_are_unique_and_every_reference_inside_the_page_resolves(full_report: Rendered) -> None:
    html = full_report.html
    ids = [attributes["id"] for _, attributes in Balance(html).tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"(?:url\(#|href=\"#)([\w-]+)", html)) <= set(ids)


def test_the_page_loads_nothing_and_runs_nothing(full_report: Rendered) -> None:
    html = full_report.html
    page = Balance(html)
    assert "http://" not in html and "https://" not in html and "@import" not in html
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    sources = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "srcset", "data") or name.startswith("on")
    ]
    assert sources and all(value and value.startswith("data:image/png;base64,") for value in sources)
    assert all(value.startswith("#") for _, attributes in page.tags if (value := attributes.get("href") or "#"))
    assert all(found.startswith("#") for found in re.findall(r"url\(([^)]*)\)", html))


def test_a_chart_style_does_not_leak_into_the_page(full_report: Rendered) -> None:
    tags = [tag for tag, _ in Balance(full_report.html).tags]
    assert tags.count("style") == 1
    # three loss curves, robustness, accuracy over latency, two batch sizes with two charts each, the blocks of one model
    assert tags.count("svg") == 10


def test_charts_take_their_colours_from_the_page_so_that_dark_mode_follows(full_report: Rendered) -> None:
    html = full_report.html
    drawn = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert re.findall(r"(?:fill|stroke): #[0-9a-f]+", drawn) == []
    assert {"var(--teacher)", "var(--student)", "var(--baseline)"} <= set(re.findall(r"var\(--\w+\)", drawn))


def test_every_number_of_the_artifacts_is_on_the_page(full_run: Any, full_report: Rendered) -> None:
    text = Balance(full_report.html).text
    missing = [shown for shown in expected_numbers(full_run) if shown not in text]
    assert missing == []


def expected_numbers(run: Any) -> list[str]:
    """Each metric as the page should print it; formats are the subject of test_report_formatting."""
    metrics = {stage: artifact["metrics"] for stage, artifact in run.artifacts.items()}
    shown = [formatting.count(metrics["data"][key]) for key in ("num_train", "num_test", "num_classes")] + list(
        metrics["data"]["class_names"]
    )
    for stage in ("generic", "specific", "baseline"):
        found = metrics[stage]
        shown += [formatting.loss(found["first_loss"]), formatting.loss(found["final_loss"]), formatting.count(found["images_seen"])]
        shown += [formatting.duration(found["train_seconds"]), formatting.millions(found["num_parameters"])]
    for found in metrics["evaluate"]["models"].values():
        shown += [
            formatting.millions(found["num_parameters"]),
            formatting.mib(found["model_mib"]),
            formatting.significant(found["clean"]["nll"]),
        ]
        shown += [formatting.percent(found["clean"][key]) for key in ("top1", "top5", "ece")] + [
            formatting.percent(found["mean_corruption_top1"])
        ]
        shown += [formatting.percent(score["top1"]) for levels in found["corruptions"].values() for score in levels.values()]
    shown += [formatting.percent(value, 1) for value in metrics["evaluate"]["agreement"].values()] + [
        metrics["evaluate"]["corruption_note"]
    ]
    parity = metrics["export"]["parity"]
    shown += [
        formatting.scientific(parity["max_abs_logit_diff"]),
        formatting.scientific(parity["mean_abs_logit_diff"]),
        "0.9999999",
        "at most 0.001",
    ]
    shown += [formatting.percent(parity["top1_candidate"]), parity["reference"], parity["candidate"], "0 of 5,000", "at most 0.00 %"]
    shown += [formatting.mib(metrics["export"]["model_bytes"] / 2**20), "models/fp32.onnx", metrics["export"]["model_sha256"][:12]]
    shown += ["cpu-x86", "the fastest inside the accuracy budget", "1.30 points of accuracy are lost"]
    shown += ["Calibration and robustness of what ships"]
    for row in metrics["profile"]["rows"]:
        if row["verdict"] != "not_run":
            shown += [formatting.significant(row[key]) for key in ("p50_ms", "p90_ms", "p99_ms", "images_per_s")]
            shown += [f"{row['runtime']} {row['version']}", formatting.count(row["num_samples"])]
        shown += [f"{reason[0].upper()}{reason[1:]}." for reason in row["reasons"]]
    for artifact in run.artifacts.values():
        shown += [
            artifact["digest"][:12],
            formatting.duration(artifact["seconds"]),
            *artifact["tools"].values(),
            *map(str, artifact["environment"].values()),
        ]
    return [*shown, run.run["recipe"], run.run["command"], run.run["resolved"]["description"]]


def test_the_commands_install_the_runtime_that_ships(full_run: Any, tmp_path: Path) -> None:
    assert "pip install numpy pillow onnxruntime" in page_of(full_run, tmp_path / "onnx")
    for one in full_run.artifacts["export"]["metrics"]["candidates"]:
        one["runtime"] = "openvino"
    assert "pip install numpy pillow openvino" in page_of(full_run, tmp_path / "openvino")


def test_the_headline_says_share_of_accuracy_size_gain_and_latency(full_report: Rendered) -> None:
    text = Balance(full_report.html).text
    assert "The student keeps 96.8 % of its teacher’s accuracy with 4.4× fewer parameters." in text  # 0.8944 / 0.9236; 2131978 / 481354
    assert "makes the same decision on all 5,000 test images" in text
    assert "+4.2 pp" in text and "0.913 ms" in text and "6.5× faster than the teacher" in text  # 5.91 / 0.913


def test_a_student_worse_than_its_baseline_is_shown_as_a_loss(full_run: Any, tmp_path: Path) -> None:
    full_run.artifacts["evaluate"]["metrics"]["models"]["baseline"]["clean"]["top1"] = 0.91
    html = page_of(full_run, tmp_path)
    assert re.search(r'<li class="bad"><b>−1.6\u00a0pp</b>', html)


def test_failed_parity_takes_over_the_headline(full_run: Any, tmp_path: Path) -> None:
    fail_parity(full_run)
    html = page_of(full_run, tmp_path)
    text = Balance(html).text
    assert '<header class="bad">' in html and "<h1>Do not ship" in html
    assert html.count('<div class="note bad">') == 3  # at the top, in the parity section and above the commands
    assert "412 of 5,000 decisions flipped" in text and "✓ Parity" not in text
    assert html.count('<tr class="bad">') == 3  # a candidate that failed, and the two limits that were crossed


def test_a_nan_in_the_parity_check_is_marked_as_outside_its_limit(full_run: Any, tmp_path: Path) -> None:
    fail_parity(full_run)
    full_run.artifacts["export"]["metrics"]["parity"].update(flipped_share=0.0, max_abs_logit_diff=float("nan"))
    assert re.findall(r'<tr class="bad"><th scope="row"[^>]*>([^<]*)', page_of(full_run, tmp_path)) == [
        "int8-onnxruntime",
        "Largest logit difference",
    ]


def test_parity_that_did_not_run_is_grey_with_its_reason(full_run: Any, tmp_path: Path) -> None:
    full_run.artifacts["export"]["metrics"]["parity"] = {"verdict": "not_run", "reason": "onnxruntime is not installed"}
    html = page_of(full_run, tmp_path)
    assert html.count('<div class="note idle">') == 2
    text = Balance(html).text
    assert "– not run Parity of the file that ships Onnxruntime is not installed." in text
    assert "✓ Parity" not in text and "✓ passed Parity" not in text


@pytest.mark.parametrize("stage", ["data", "evaluate", "export", "profile", "baseline", "generic"])
def test_a_stage_that_was_not_finished_is_named_with_the_reason(full_run: Any, tmp_path: Path, stage: str) -> None:
    full_run.preview = b""
    full_run.artifacts.pop(stage)
    full_run.histories.pop(stage, None)
    page = Balance(page_of(full_run, tmp_path))
    assert page.wrong == []
    assert page.text.count(f"the recipe has a stage {stage}, but this run has not finished it") >= 1
    assert f"The recipe has a stage {stage}, but this run has not finished it." in page.text


def test_a_teacher_only_run_keeps_every_section(teacher_run: Any, full_run: Any, tmp_path: Path) -> None:
    pages = [Balance(page_of(run, tmp_path / name)) for run, name in ((teacher_run, "teacher"), (full_run, "full"))]
    anchors = [[attributes["id"] for tag, attributes in page.tags if tag == "section"] for page in pages]
    assert [anchor for anchor in anchors[1] if anchor not in anchors[0]] == ["front", "blocks"]  # what needs a profile
    assert set(anchors[0]) < set(anchors[1])
    assert "The teacher reaches 92.4 % top-1 on 5,000 test images." in pages[0].text
    assert "The recipe has no stage export." in pages[0].text


def test_names_from_the_outside_stay_text(full_run: Any, tmp_path: Path) -> None:
    full_run.run.update(recipe=EVIL, command=EVIL)
    full_run.run["resolved"].update(description=EVIL, report={"title": EVIL})
    full_run.artifacts["data"]["metrics"].update(class_names=[EVIL] * 10, description=EVIL)
    full_run.artifacts["generic"]["metrics"]["method"] = EVIL
    full_run.artifacts["export"]["metrics"]["parity"].update(verdict="failed", reason=EVIL, candidate=EVIL)
    full_run.artifacts["export"]["environment"]["cpu"] = EVIL
    models = full_run.artifacts["evaluate"]["metrics"]["models"]
    models[EVIL] = models["student"]
    models["student"]["corruptions"][EVIL] = models["student"]["corruptions"]["fog"]
    for row in full_run.artifacts["profile"]["metrics"]["rows"]:
        row["runtime"] = EVIL
    page = Balance(page_of(full_run, tmp_path))
    assert page.wrong == []
    assert "script" not in {tag for tag, _ in page.tags}
    assert [attributes["src"][:15] for tag, attributes in page.tags if tag == "img"] == ["data:image/png;"]
    assert EVIL in page.text


def test_a_dollar_in_a_corruption_name_is_not_mathematics(full_run: Any, tmp_path: Path) -> None:
    for scores in full_run.artifacts["evaluate"]["metrics"]["models"].values():
        scores["corruptions"]["cost_$\\frac{$"] = scores["corruptions"]["fog"]
    assert "Cost $\\frac{$" in page_of(full_run, tmp_path)


def test_equal_runs_give_equal_bytes(full_run: Any, tmp_path: Path) -> None:
    first, second = (render_report(read_run(full_run.write(tmp_path / name))) for name in ("a", "b"))
    assert first == second


def test_a_diverged_loss_is_reported_and_not_drawn(full_run: Any, tmp_path: Path) -> None:
    for row in full_run.histories["generic"][-5:]:
        row["loss"] = float("nan")
    full_run.artifacts["generic"]["metrics"].update(final_loss=float("nan"), images_per_s=float("inf"))
    text = Balance(page_of(full_run, tmp_path)).text
    assert "5 steps without a finite loss are not drawn." in text


def test_more_classes_than_fit_are_counted(full_run: Any, tmp_path: Path) -> None:
    full_run.artifacts["data"]["metrics"].update(class_names=[f"class {index}" for index in range(1000)], num_classes=1000)
    text = Balance(page_of(full_run, tmp_path)).text
    assert "class 19 and 980 more" in text and "class 20" not in text


def test_a_fact_on_which_stages_differ_is_listed_with_its_stages(full_run: Any, tmp_path: Path) -> None:
    full_run.artifacts["profile"]["environment"]["cpu"] = "Arm Cortex-A78"
    full_run.artifacts["profile"]["metrics"]["machine"]["cpu"] = "Arm Cortex-A78"
    text = Balance(page_of(full_run, tmp_path)).text
    assert "Arm Cortex-A78 (profile)" in text and "Intel Xeon, 2.60 GHz (data, teacher," in text
    assert "Timed on Arm Cortex-A78." in text
