"""A standalone evaluation in the terminal."""

from typing import Any

import pytest

from g2sd_deploy.errors import UserError
from g2sd_deploy.report import evaluation_tables


def printed(metrics: dict[str, Any], width: int = 200) -> list[str]:
    """Each table as text; `width` is more than is wanted, so that what is too wide is seen."""
    console = pytest.importorskip("rich.console").Console(width=width, file=None, color_system=None)
    found = []
    for table in evaluation_tables(metrics):
        with console.capture() as capture:
            console.print(table)
        found.append(str(capture.get()))
    return found


def test_no_table_is_wider_than_120_columns(standalone: dict[str, Any]) -> None:
    for index in range(8):
        standalone["models"][f"another_model_with_a_long_name_{index}"] = standalone["models"]["student.onnx"]
    lines = "".join(printed(standalone)).splitlines()
    assert 100 < max(len(line.rstrip()) for line in lines) <= 120 and "…" not in "".join(lines)


def test_each_way_to_score_has_a_table_with_a_row_per_model(standalone: dict[str, Any]) -> None:
    tables = printed(standalone)
    titles = [table.splitlines()[0].strip() for table in tables]
    assert titles[:7] == [name for name in standalone["sets"] if name != "imagenet-c"]
    lines = [line.split() for line in tables[0].splitlines()]
    student = next(line for line in lines if line[:1] == ["student.onnx"])
    assert student[1:10] == ["76.44", "93.40", "0.919", "0.311", "4.36", "0.050", "50,000", "77.7", "%"]
    assert student[10:] == ["0.259"]
    after = lines[lines.index(student) + 1]
    assert after == ["76.07–76.81"]


def test_how_each_model_wants_its_images_stands_below_once_where_it_is_the_same(standalone: dict[str, Any]) -> None:
    caption = " ".join(printed(standalone)[0].split())
    for model in standalone["models"].values():
        model["preprocessing"] = next(iter(standalone["models"].values()))["preprocessing"]
    alike = " ".join(printed(standalone)[0].split())
    assert "224 px of 256, bicubic, mean .485 .456 .406" in caption and caption.count("bicubic") > 1
    assert alike.count("bicubic") == 1 and "images: 224 px of 256, bicubic" in alike


def test_the_other_tables_say_what_they_hold(standalone: dict[str, Any]) -> None:
    tables = {table.splitlines()[0].strip(): table for table in printed(standalone)[7:]}
    assert [title.split(":")[0].split(",")[0] for title in tables] == [
        "regenerated corruptions",
        "imagenet-c (lower is better)",
        "occlusion",
        "occlusion",
        "occlusion",
        "linear CKA with the layer of another model at equal depth",
    ]
    assert "do not compare with" in " ".join(tables[next(iter(tables))].split())
    assert "0.950" in list(tables.values())[-1] and "after generic" in list(tables.values())[-1]


def test_skipped_images_and_the_protocol_stand_below_the_table(standalone: dict[str, Any]) -> None:
    sketch = next(table for table in printed(standalone) if table.startswith("imagenet-sketch"))
    assert "All 1000 logits. 3 images could not be read and are not counted." in " ".join(sketch.split())


def test_a_column_without_numbers_is_left_out(standalone: dict[str, Any]) -> None:
    real = next(table for table in printed(standalone) if table.startswith("imagenet-real"))
    assert "NLL" not in real and "Brier" not in real and "AURC" in real


def test_markup_in_a_name_is_printed_as_it_is(standalone: dict[str, Any]) -> None:
    standalone["models"] = {"[red]x[/red]": standalone["models"]["student.onnx"]}
    standalone["sets"]["imagenet-val"]["note"] = "[bold]all[/bold]"
    first = printed(standalone)[0]
    assert "[red]x[/red]" in first and "[bold]all[/bold]" in first


def test_metrics_of_something_else_are_refused() -> None:
    with pytest.raises(UserError, match="evaluation: models is missing, but the report needs an object"):
        evaluation_tables({"rows": []})
