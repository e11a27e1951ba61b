"""The sections of an evaluation on the page and in Markdown, in a run's report and by themselves."""

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy.report import Rendered, read_run, render_evaluation, render_report
from g2sd_deploy.report.charts_layers import similarity_map
from g2sd_deploy.report.scores import LayerPair

SVG = re.compile(r"<svg.*?</svg>", flags=re.DOTALL)
EVIL = "<script>alert(1)</script>\"'> & | `$x_y$"


def page_of(run: Any, folder: Path) -> Rendered:
    return render_report(read_run(run.write(folder)))


def text_of(html: str) -> str:
    """Words of a page outside of charts and style."""
    bare = re.sub(r"<style>.*?</style>", " ", SVG.sub(" ", html), flags=re.DOTALL).replace("<wbr>", "")
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", bare)).replace("\u00a0", " ").split())


def section(html: str, anchor: str) -> str:
    found = re.search(rf'<section id="{anchor}">.*?</section>', html, flags=re.DOTALL)
    return found[0] if found else ""


def row(html: str, anchor: str, name: str, place: int = 0) -> list[str]:
    """Cells of the rows of a section whose first cell is this name, the interval after its number."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", section(html, anchor), flags=re.DOTALL)
    cells = [[text_of(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", found, flags=re.DOTALL)] for found in rows]
    return [found for found in cells if found[0] == name][place]


@pytest.mark.parametrize("which", ["run", "standalone"])
def test_the_page_is_self_contained_and_its_ids_are_unique(evaluated_reports: dict[str, Rendered], which: str) -> None:
    html = evaluated_reports[which].html
    assert "http://" not in html and "https://" not in html and "<script" not in html and "<image" not in html
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids)) and set(re.findall(r'(?:url\(#|href="#)([\w-]+)', html)) <= set(ids)
    assert len(html) < 1_000_000


@pytest.mark.parametrize("which", ["run", "standalone"])
def test_every_colour_of_a_chart_follows_the_page(evaluated_reports: dict[str, Rendered], which: str) -> None:
    html = evaluated_reports[which].html
    drawn = "".join(SVG.findall(html))
    assert re.findall(r"#[0-9a-f]{6}", drawn) == []
    used = set(re.findall(r"var\((--\w+)\)", drawn))
    defined = re.findall(r"(--[\w-]+):", html)
    assert {name: defined.count(name) for name in used} == dict.fromkeys(used, 2)  # each has a value for light and one for dark


def test_accuracy_stands_with_its_interval_its_paper_and_its_preparation(evaluated_reports: dict[str, Rendered]) -> None:
    html = evaluated_reports["run"].html
    assert row(html, "accuracy", "Student")[3:7] == ["76.44 % 76.07–76.81", "77.0 %", "91.4 %", "93.40 % 93.19–93.62"]
    assert row(html, "accuracy", "Baseline")[4] == "–"
    text = text_of(section(html, "accuracy"))
    assert "Paper: what the authors' CVPR 2023 presentation of G2SD (2023-06) states in the row G2SD-Ti" in text
    assert "Images are prepared alike for every model: 224 px of 256, bicubic, mean .485 .456 .406, std .229 .224 .225." in text


def test_probabilities_are_a_table_of_their_own(evaluated_reports: dict[str, Rendered]) -> None:
    found = row(evaluated_reports["run"].html, "accuracy", "Student", place=1)
    assert found == ["Student", "0.919 0.916–0.921", "0.311 0.307–0.315", "4.36 % 4.18–4.53", "4.26 % 4.08–4.43", "0.0500 0.0480–0.0519"]


def test_each_model_has_a_reliability_diagram_and_all_share_one_curve_of_risk(evaluated_reports: dict[str, Rendered]) -> None:
    accuracy = section(evaluated_reports["run"].html, "accuracy")
    assert re.findall(r"<h3>(.*?)</h3>", accuracy) == [
        "Accuracy on clean test images",
        "Probabilities",
        "Reliability, teacher",
        "Reliability, student",
        "Reliability, baseline",
        "Risk over coverage",
    ]
    assert "the largest gap to the diagonal is 4.6 %" in accuracy  # .22 * .25 * (1.6 - .7644) at half confidence


@pytest.mark.usefixtures("without_charts")
def test_the_worst_classes_come_first_and_the_rest_is_counted(evaluated_run: Any, folder: Path) -> None:
    student = evaluated_run.artifacts["evaluate"]["metrics"]["models"]["student"]["clean"]["per_class"]
    student["top1"][7], student["top1"][8], student["num"][8] = 0.0, None, 0
    found = section(page_of(evaluated_run, folder).html, "accuracy").split("<summary>Top-1 by class</summary>")[1]
    rows = re.findall(r'<th scope="row"[^>]*>(\w+)</th>', found)
    assert len(rows) == 50 and rows[0] == "n01440813"  # class 7
    assert "949 better classes are not shown. 1 classes have no image." in text_of(found)


def test_a_paper_stands_only_beside_the_protocol_it_speaks_of(evaluated_reports: dict[str, Rendered]) -> None:
    html = evaluated_reports["run"].html
    heads = re.findall(r"<th scope=\"col\"[^>]*>(.*?)</th>", section(html, "sets"))
    assert heads[:6] == ["Set", "Teacher", "Teacher, paper", "Student", "Student, paper", "Baseline"]
    stated = {
        name: (row(html, "sets", name)[2], row(html, "sets", name)[4]) for name in ("imagenet-a", "imagenet-a-clean", "imagenet-real")
    }
    assert stated == {"imagenet-a": ("35.9 %", "12.9 %"), "imagenet-a-clean": ("–", "–"), "imagenet-real": ("–", "–")}


@pytest.mark.usefixtures("without_charts")
def test_another_recipe_has_no_column_of_a_paper(evaluated_run: Any, folder: Path) -> None:
    evaluated_run.run["recipe"] = "mine"
    assert "aper" not in text_of(page_of(evaluated_run, folder).html)


@pytest.mark.usefixtures("without_charts")
def test_a_test_set_that_is_not_imagenet_has_no_paper_beside_its_accuracy(evaluated_run: Any, folder: Path) -> None:
    evaluated_run.artifacts["data"]["metrics"].update(num_classes=10, class_names=["a"] * 10)
    html = page_of(evaluated_run, folder).html
    assert "aper" not in text_of(section(html, "accuracy")) and "Student, paper" in text_of(section(html, "sets"))


@pytest.mark.usefixtures("without_charts")
def test_a_paper_that_does_not_say_which_error_it_means_says_so(evaluated_run: Any, folder: Path) -> None:
    evaluated_run.run["recipe"] = "tinymim_vit_tiny"
    html = page_of(evaluated_run, folder).html
    assert row(html, "corrupted", "Student")[-1] == "50.1 %" and row(html, "corrupted", "Teacher")[-1] == "–"
    assert "Nor does it state whether its number is the mean error or mCE." in text_of(section(html, "corrupted"))


def test_every_set_says_how_it_is_scored_and_what_was_skipped(evaluated_reports: dict[str, Rendered]) -> None:
    html = evaluated_reports["run"].html
    assert row(html, "sets", "imagenet-sketch", place=1) == ["imagenet-sketch", "50,889", "1,000", "3", "All 1000 logits."]
    text = text_of(section(html, "sets"))
    assert "sketch/n01440764/sketch_7.JPEG the file is cut off 2 more are not named." in text


def test_published_and_regenerated_corruptions_are_not_confused(evaluated_reports: dict[str, Rendered]) -> None:
    html = evaluated_reports["run"].html
    assert "4 regenerated corruptions at severities 1 to 5, 2,000 test images each." in text_of(section(html, "robustness"))
    assert "The published files, not regenerated. Centre crop of 224 px, no resize" in text_of(section(html, "corrupted"))
    assert row(html, "corrupted", "Student") == ["Student", "54.14 % 53.92–54.35", "65.5 % 65.3–65.7", "72.5 %"]
    assert row(html, "robustness", "Mean of corruptions")[2] == "46.63 % 44.44–48.81"


@pytest.mark.usefixtures("without_charts")
def test_an_mce_that_cannot_be_computed_has_no_column(evaluated_run: Any, folder: Path) -> None:
    for found in evaluated_run.artifacts["evaluate"]["metrics"]["models"].values():
        found["sets"]["imagenet-c"].update(mce=None, relative_mce=None)
    assert row(page_of(evaluated_run, folder).html, "corrupted", "Student") == ["Student", "54.14 % 53.92–54.35"]


def test_occlusion_has_a_chart_for_each_order_as_it_is_and_relative(evaluated_reports: dict[str, Rendered]) -> None:
    found = section(evaluated_reports["run"].html, "occlusion")
    assert len(SVG.findall(found)) == 6 and len(re.findall(r"<h3>[^<]*, relative</h3>", found)) == 3
    assert all(
        {"var(--teacher)", "var(--student)", "var(--baseline)"} <= set(re.findall(r"var\(--\w+\)", drawn)) for drawn in SVG.findall(found)
    )
    assert "14 × 14 patches. Salience: the attention of the teacher." in text_of(found)


def test_a_map_of_cka_is_drawn_as_vectors_and_as_opaque_as_its_values() -> None:
    values = ((0.25, 1.0, 1.4), (0.5, None, -0.1))
    drawn = similarity_map(
        "cka", LayerPair("student", "", "teacher", ("embedding", "block 1"), ("embedding", "block 1", "block 2"), values)
    )
    assert "<image" not in drawn
    styles = re.findall(r"fill: var\(--heat\)[^\"]*", drawn)[:-10]  # the last ten are the colour bar
    opacity = [float(found[1]) if (found := re.search(r"opacity: ([\d.]+)", style)) else 1.0 for style in styles]
    assert opacity == [0.25, 1.0, 1.0, 0.5]  # what is unknown or below 0 is clear and not drawn


def test_every_moment_of_the_student_has_a_map_and_its_heads(evaluated_reports: dict[str, Rendered]) -> None:
    found = section(evaluated_reports["run"].html, "similarity")
    titles = re.findall(r"<h3>(.*?)</h3>", found.replace("<wbr>", ""))
    assert titles[:3] == ["Student, before generic", "Student, after generic", "Student, after specific"]
    assert titles[3:] == [
        "Similarity at equal depth",
        "Attention distance: Teacher",
        "Attention distance: Student, before generic",
        "Attention distance: Student, after generic",
        "Attention distance: Student, after specific",
    ]
    assert row(evaluated_reports["run"].html, "similarity", "Student, after generic")[:3] == ["Student, after generic", "teacher", "0.950"]


@pytest.mark.usefixtures("without_charts")
def test_what_was_not_measured_is_left_out(evaluated_run: Any, folder: Path) -> None:
    metrics = evaluated_run.artifacts["evaluate"]["metrics"]
    for key in ("sets", "occlusion", "similarity"):
        del metrics[key]
    for found in metrics["models"].values():
        del found["sets"], found["occlusion"], found["preprocessing"]
        found["num_parameters"] = None
        for key in ("brier", "aurc", "per_class", "reliability", "risk_coverage", "intervals", "agreement"):
            del found["clean"][key]
    html = page_of(evaluated_run, folder).html
    assert re.findall(r'<section id="(\w+)">', html)[:4] == ["accuracy", "robustness", "front", "parity"]
    text = text_of(section(html, "accuracy"))
    assert "Brier" not in text and "AURC" not in text and "Parameters" not in text and "interval" not in text and "by class" not in text


def test_both_formats_have_the_same_cells(evaluated_reports: dict[str, Rendered]) -> None:
    for report in evaluated_reports.values():
        plain = re.sub(r"\\(.)", r"\1", report.markdown)
        cells = re.findall(r"<td[^>]*>(.*?)</td>", report.html)
        shown = [unescape(re.sub(r"<small>(.*?)</small>", r" (\1)", re.sub("</?s>", "~~", cell))).replace("\u00a0", " ") for cell in cells]
        assert len(shown) > 200 and [cell for cell in shown if f"| {cell} |" not in plain] == []


def test_names_from_the_outside_stay_text(standalone: dict[str, Any]) -> None:
    models, old = standalone["models"], "student.onnx"
    models[EVIL] = models.pop(old)
    models[EVIL]["sets"] = {EVIL: models[EVIL]["sets"]["imagenet-a"]}
    for found in models.values():
        found["sets"], found["occlusion"] = {EVIL: next(iter(found["sets"].values()))}, None
    standalone["sets"] = {
        EVIL: {**standalone["sets"]["imagenet-a"], "note": EVIL, "num_skipped": 1, "skipped": [{"name": EVIL, "reason": EVIL}]}
    }
    standalone["similarity"]["pairs"] = [{**standalone["similarity"]["pairs"][0], "name": EVIL, "when": EVIL, "reference": EVIL}]
    del standalone["occlusion"], standalone["similarity"]["attention_distance"]
    page = render_evaluation(standalone, EVIL)
    assert "<script" not in page.html and EVIL in text_of(page.html)
    assert "<script" not in page.markdown.replace("\\<", "")


@pytest.mark.usefixtures("without_charts")
def test_a_standalone_page_names_models_as_they_were_given(standalone: dict[str, Any]) -> None:
    for found in (standalone, *standalone["models"].values()):
        found["sets"] = {"imagenet-val": found["sets"]["imagenet-val"]}
    page = render_evaluation(standalone, "Three models")
    html = page.html
    text = text_of(html)
    assert "mae_finetuned_vit_base is right on 83.6 % of imagenet-val, the best of 3 models." in text
    assert "vit_tiny_patch16_224.augreg_in21k_ft_in1k" in text and "Same as teacher (mae_finetuned_vit_base)" in text
    assert "Images for vit_tiny_patch16_224.augreg_in21k_ft_in1k: 224 px of 248, bicubic, mean .5, std .5." in text
    assert re.findall(r'<section id="([\w-]+)">', html) == ["set-0", "robustness", "occlusion", "similarity", "models"]
    assert "Finished" not in page.markdown and "recipe" not in text


def test_several_sets_are_first_shown_together(evaluated_reports: dict[str, Rendered]) -> None:
    anchors = re.findall(r'<section id="([\w-]+)">', evaluated_reports["standalone"].html)
    assert anchors[:3] == ["sets", "set-0", "set-1"]


@pytest.mark.usefixtures("without_charts")
def test_an_evaluation_of_nothing_but_occlusion_is_rendered(standalone: dict[str, Any]) -> None:
    del standalone["sets"], standalone["similarity"]
    for found in standalone["models"].values():
        del found["sets"], found["corruptions"]
    page = render_evaluation(standalone, "Occlusion")
    assert "<h1>3 models evaluated.</h1>" in page.html and section(page.html, "occlusion")
