"""The page of a run with a task: every number is that of the artifacts, and the pictures are inside."""

import base64
import io
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from g2sd_deploy.report import Rendered, read_run, render_report

ONLY = {
    "segmentation": {"miou": "mIoU", "macc": "mAcc", "aacc": "aAcc"},
    "detection": {"ap": "Box AP", "ap50": "Box AP50", "ap75": "Box AP75"},
}


def render(run: Any, folder: Path) -> Rendered:
    return render_report(read_run(run.write(folder)))


def section(markdown: str, title: str) -> str:
    assert f"\n## {title}\n" in markdown, [line for line in markdown.splitlines() if line.startswith("## ")]
    return markdown.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text: str, table: str) -> dict[str, dict[str, str]]:
    """Cells of a Markdown table by the name of the row and the title of the column."""
    lines = [line for line in text.partition(f"{table}\n")[2].splitlines() if line.startswith("|")]
    titles = [cell.strip() for cell in lines[0].strip("|").split("|")]
    found = {}
    for line in lines[2:]:
        cells = [cell.strip().strip("*").replace("\\", "") for cell in line.strip("|").split("|")]
        if len(cells) != len(titles):
            break
        found[cells[0]] = dict(zip(titles, cells, strict=True))
    return found


def percent(value: float, digits: int = 2) -> str:
    return f"{100 * value:.{digits}f} %"


def test_every_measure_of_every_model_is_that_of_the_artifact(shown: Any) -> None:
    table = rows(section(shown.rendered.markdown, "Accuracy"), "### Models")
    assert list(table) == ["Teacher", "Student", "Baseline"]
    for name, model in shown.run.models.items():
        cells, figures = table[name.capitalize()], model.get("box", model)
        for key, title in ONLY[shown.run.task].items():
            assert cells[title].startswith(percent(figures[key])), (name, key)
        low, high = model.get("miou_interval", model.get("box_ap_interval"))
        assert f"({100 * low:.2f}–{100 * high:.2f})" in cells[next(iter(ONLY[shown.run.task].values()))]
        assert cells["Parameters"] == f"{model['num_parameters'] / 1e6:.3g} M"
        if "mask" in model:
            assert [cells[f"Mask {title}"] for title in ("AP", "AP50", "AP75")] == [
                percent(model["mask"][k]) for k in ("ap", "ap50", "ap75")
            ]
    assert table["Student"]["Of teacher"] == percent(0.6857 / 0.7131, 1)
    assert table["Baseline"]["Training"] == "166 s"  # its own stage after the generic one that it shares with the student


def test_sizes_of_objects_have_columns_where_there_are_such_objects(shown: Any) -> None:
    text = section(shown.rendered.markdown, "Accuracy")
    if shown.run.task == "segmentation":
        assert "By size of the objects" not in text
        return
    table = rows(text, "### By size of the objects")
    student = shown.run.models["student"]
    assert table["Student"] == {
        "Model": "Student",
        "Box AP, small": percent(student["box"]["ap_small"]),
        "Box AP, medium": percent(student["box"]["ap_medium"]),
        "Mask AP, small": percent(student["mask"]["ap_small"]),
        "Mask AP, medium": percent(student["mask"]["ap_medium"]),
    }


def test_the_first_screen_says_what_is_kept_and_what_distillation_is_worth(shown: Any) -> None:
    measure = {"segmentation": "mIoU", "detection": "box AP"}[shown.run.task]
    text = shown.rendered.markdown
    assert f"**The student keeps 96.2 % of its teacher’s {measure} with 2.6× fewer parameters.**" in text
    assert f"| **96.2 %** | of the teacher’s {measure} | {measure} 68.6 % vs 71.3 % |" in text
    assert "| **\\+4.4 pp** | over plain fine-tuning |" in text
    assert ("of the teacher’s mask AP" in text) == (shown.run.task == "detection")
    words = {"segmentation": "0.012 % of the pixels change their class", "detection": "0.130 % of the objects have no counterpart"}
    assert words[shown.run.task] in text
    assert "| **0.913 ms** | per image, p50 |" in text


def test_classes_come_hardest_first_and_one_that_nobody_saw_is_named(shown: Any) -> None:
    text = section(shown.rendered.markdown, "Class by class")
    table = rows(text, "### Every class")
    key, column = ("iou_by_class", "Student") if shown.run.task == "segmentation" else ("box_ap_by_class", "Student, box AP")
    wanted = {name: value for name, value in shown.run.models["student"][key].items() if value is not None}
    assert list(table) == sorted(wanted, key=lambda name: wanted[name])
    assert {name: cells[column] for name, cells in table.items()} == {name: percent(value, 1) for name, value in wanted.items()}
    assert "Without a figure, as no test image has them: Dress." in text


def test_many_classes_are_drawn_in_part_and_folded(dense_run: Callable[..., Any], tmp_path: Path) -> None:
    found = render(dense_run("segmentation", 150), tmp_path)
    assert "<details><summary>Every class</summary>" in found.html
    drawn = next(svg for svg in re.findall(r"<svg.*?</svg>", found.html, re.DOTALL) if "by class" in svg)
    assert len(re.findall(r">class \d{3}</text>", drawn)) + len(re.findall(r">(?:Shirt|Sneaker|Pullover)</text>", drawn)) == 20
    assert "129 easier classes are in the table alone." in found.html
    assert all(f"class {index:03}" in found.html for index in range(10, 150))


def test_every_picture_is_inside_the_page_under_its_name_and_with_a_text_alternative(shown: Any) -> None:
    images = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)"><figcaption>([^<]+)', shown.rendered.html)
    images = [image for image in images if image[2] != "Sample images."]
    files = [file for row in shown.run.metrics("evaluate")["pictures"] for file in row.values()]
    assert [base64.b64decode(content) for content, _, _ in images] == [shown.run.pictures[file] for file in files]
    assert [name for _, _, name in images] == ["Image", "Truth", "Teacher", "Student", "Baseline"] * 2
    drawn = {"segmentation": "classes", "detection": "boxes and masks"}[shown.run.task]
    assert [unescape(text) for _, text, _ in images[:3]] == [
        "Test image 1",
        f"Test image 1 with its true {drawn}",
        f"Test image 1 with the {drawn} that the teacher finds",
    ]
    assert len({text for _, text, _ in images}) == len(images)
    told = section(shown.rendered.markdown, "Side by side")
    assert "evaluate/picture\\_75\\_student.png" in told
    assert ("Objects that a model gives a score of 0.3 or more." in told) == (shown.run.task == "detection")


def test_a_large_picture_is_shrunk_and_a_run_without_pictures_has_no_section(dense_run: Callable[..., Any], tmp_path: Path) -> None:
    from g2sd_deploy.report.dense_pictures import data_uri

    run = dense_run("segmentation")
    rng = np.random.default_rng(0)
    written = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (900, 1200, 3), np.uint8)).save(written, "PNG")
    kind, _, content = data_uri(written.getvalue()).partition(",")
    with Image.open(io.BytesIO(base64.b64decode(content))) as shrunk:
        assert (kind, shrunk.size) == ("data:image/jpeg;base64", (800, 600))
    run.metrics("evaluate")["pictures"] = []
    assert 'id="pictures"' not in render(run, tmp_path).html


def test_the_proof_stands_beside_what_is_allowed(shown: Any) -> None:
    text = section(shown.rendered.markdown, "Parity")
    proof = rows(text, "### Parity of what ships")
    if shown.run.task == "segmentation":
        assert proof["Pixels that change their class"] == {
            "Check": "Pixels that change their class",
            "Measured": "0.012 %",
            "Allowed": "at most 0.100 %",
        }
        assert proof["The same, of the worst image"]["Measured"] == "0.134 %"
        assert proof["mIoU of torch 2.15.0"]["Measured"] == "68.61 %"
    else:
        assert proof["Objects of either without a counterpart"]["Allowed"] == "at most 0.500 %"
        assert proof["Largest difference of the scores of counterparts"]["Measured"] == "4.20 × 10⁻⁴"
        assert proof["Mask AP of torch 2.15.0"]["Measured"] == "64.12 %"
    ways = rows(text, "### Ways to run it")
    assert ways["fp32-onnxruntime"]["Verdict"] == "passed" and ways["bf16-openvino"]["Verdict"] == "not run"
    assert ways["int8-dynamic-onnxruntime"]["Lost, pp"] == "+0.18"
    assert "onnx" in rows(text, "### Hop by hop") and "cannot run on this machine" not in text


def test_a_difference_above_what_is_allowed_is_red(dense_run: Callable[..., Any], tmp_path: Path) -> None:
    run = dense_run("segmentation")
    run.metrics("export")["parity"].update(changed_share=0.02, verdict="failed", reason="2 % of the pixels change their class")
    html = render(run, tmp_path).html
    assert re.search(r'<tr class="bad"><th scope="row">Pixels that change their class', html)
    assert "Do not ship: the exported model is not equal to the student." in html


def test_every_term_of_the_loss_has_a_curve_and_one_of_zeros_is_told_of(dense_run: Callable[..., Any], tmp_path: Path) -> None:
    run = dense_run("segmentation")
    for row in run.full.histories["baseline"]:
        row["loss_cwd"] = 0.0
    html = render(run, tmp_path).html
    drawn = {title: svg for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL) for title in re.findall(r"<title[^>]*>([^<]+)", svg)}
    specific = drawn["Terms of the loss of stage specific"]
    assert all(name in specific for name in ("Cross-entropy", "Auxiliary head", "Distillation, channel-wise"))
    assert "channel-wise" not in drawn["Terms of the loss of stage baseline"]
    assert "not drawn: Distillation, channel-wise." in html
    assert "Terms of the loss of stage generic" not in drawn  # its loss has no parts


@pytest.mark.parametrize(
    ("recipe", "task", "classes", "stated"),
    [
        ("g2sd_vit_tiny_ade20k", "segmentation", 150, {"Paper, mIoU": ("44.5 %", "48.3 %")}),
        ("g2sd_vit_tiny_coco", "detection", 80, {"Paper, box AP": ("46.3 %", "51.6 %"), "Paper, mask AP": ("41.3 %", "45.9 %")}),
    ],
)
def test_the_papers_row_stands_beside_ours(
    recipe: str, task: str, classes: int, stated: dict[str, tuple[str, str]], dense_run: Callable[..., Any], tmp_path: Path
) -> None:
    run = dense_run(task, classes)
    run.full.run["recipe"] = recipe
    table = rows(section(render(run, tmp_path / "paper").markdown, "Accuracy"), "### Models")
    for title, (student, teacher) in stated.items():
        assert (table["Student"][title], table["Teacher"][title], table["Baseline"][title]) == (student, teacher, "–")
    other = dense_run(task, 12)  # of other data the paper says nothing
    other.full.run["recipe"] = recipe
    assert "Paper" not in section(render(other, tmp_path / "other").markdown, "Accuracy")


def test_a_run_that_was_not_evaluated_says_so(dense_run: Callable[..., Any], tmp_path: Path) -> None:
    run = dense_run("detection")
    for stage in ("evaluate", "export", "profile"):
        del run.full.artifacts[stage]
    run.pictures, run.full.manifest = {}, {}
    found = render(run, tmp_path)
    assert "**This run has not been evaluated.**" in found.markdown
    assert "this run has not finished it" in section(found.markdown, "Accuracy").lower()
    assert 'id="robustness"' not in found.html and 'id="classes"' not in found.html


def test_a_teacher_alone_is_shown(dense_run: Callable[..., Any], tmp_path: Path) -> None:
    run = dense_run("segmentation")
    run.metrics("evaluate")["models"] = {"teacher": run.models["teacher"]}
    assert "**The teacher reaches 71.3 % mIoU on 300 test images.**" in render(run, tmp_path).markdown


def test_names_of_classes_cannot_change_the_page(dense_run: Callable[..., Any], tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> | `$x_y$`"
    run = dense_run("segmentation")
    run.metrics("evaluate")["class_names"][0] = evil
    for model in run.models.values():
        model["iou_by_class"] = {evil if name == "T-shirt/top" else name: value for name, value in model["iou_by_class"].items()}
    found = render(run, tmp_path)
    assert "<script>" not in found.html and "<script>" not in found.markdown.replace("\\<", "")
    assert "alert(1)" in found.html
