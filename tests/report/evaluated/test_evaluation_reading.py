"""Reading an evaluation: typed, tolerant of what an older one lacks, and clear about what does not fit."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from g2sd_deploy.errors import UserError
from g2sd_deploy.recipe import bundled_recipes, load_recipe
from g2sd_deploy.report import papers, read_run
from g2sd_deploy.report.papers import paper_row
from g2sd_deploy.report.scores import Evaluation, LayerPair, series_of


def evaluation_of(run: Any, folder: Path) -> Evaluation:
    found = read_run(run.write(folder)).evaluation
    assert found is not None
    return found


def test_every_measure_is_read(evaluated_run: Any, folder: Path) -> None:
    found = evaluation_of(evaluated_run, folder)
    student = found.models["student"]
    assert student.clean.intervals["top1"] == tuple(
        evaluated_run.artifacts["evaluate"]["metrics"]["models"]["student"]["clean"]["intervals"]["top1"]
    )
    assert len(student.clean.reliability) == 15 and student.clean.reliability[0].accuracy is None
    assert student.clean.per_class is not None and len(student.clean.per_class.num) == 1000
    assert student.clean.agreement is not None and student.clean.agreement.kl == pytest.approx(0.2592, abs=1e-4)
    assert list(student.sets) == [name for name in found.sets if name != "imagenet-c"] and list(student.corrupted_sets) == ["imagenet-c"]
    assert student.preparation is not None and student.preparation.resize_px == 256
    assert found.sets["imagenet-sketch"].skipped == (("sketch/n01440764/sketch_7.JPEG", "the file is cut off"),)
    assert found.occlusion is not None and len(student.occlusion["random"].top1) == len(found.occlusion.shares)
    assert found.similarity is not None and found.similarity.pairs[0].when == "before generic"


def test_an_evaluation_of_an_older_version_has_none_of_the_new_measures(full_run: Any, folder: Path) -> None:
    found = evaluation_of(full_run, folder)
    assert (found.sets, found.occlusion, found.similarity) == ({}, None, None)
    clean = found.models["student"].clean
    assert (clean.brier, clean.aurc, clean.reliability, clean.per_class, clean.agreement) == (None, None, (), None, None)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("models", "student", "clean", "intervals", "top1"),
            [0.7],
            r"clean: intervals: top1 is \[0.7\], but the report needs two numbers",
        ),
        (("models", "student", "clean", "intervals", "top1"), "wide", "top1 is 'wide', but the report needs a list of numbers"),
        (("models", "student", "clean", "per_class", "top1"), [0.5], "per_class: top1 is .0.5., but the report needs 1000 values"),
        (("models", "student", "clean", "risk_coverage", "risk"), [0.5], "risk_coverage: risk is .0.5., but the report needs 100 values"),
        (("models", "student", "occlusion", "random", "top1"), [0.5], "random: top1 is .0.5., but the report needs 11 values"),
        (("models", "student", "occlusion", "random", "interval"), [[0.5]], "random: interval is ..0.5.., but the report needs lists of 2"),
        (("models", "student", "preprocessing", "mean"), None, "preprocessing: mean is None, but the report needs a list of numbers"),
        (("models", "student", "sets", "imagenet-a", "top1"), None, "imagenet-a: top1 is None, but the report needs a number"),
        (("models", "student", "clean"), None, "student: clean is None, but the report needs an object"),
        (("sets", "imagenet-a", "skipped"), [1], "imagenet-a: skipped is .1., but the report needs a list of objects"),
        (("similarity", "pairs", 0, "cka"), [[1.0]], "pairs.0.: cka is ..1.0.., but the report needs lists of 13 numbers"),
        (("similarity", "pairs", 0, "rows"), ["embedding"], "but the report needs 1 rows of 13 numbers"),
        (("similarity", "attention_distance", 1, "px"), 3, "px is 3, but the report needs a list of lists of numbers"),
    ],
)
def test_a_field_that_does_not_fit_is_named(evaluated_run: Any, folder: Path, path: tuple[Any, ...], value: object, message: str) -> None:
    place = evaluated_run.artifacts["evaluate"]["metrics"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(UserError, match=message):
        read_run(evaluated_run.write(folder))


def test_layers_at_equal_depth_are_those_of_the_same_share_of_the_network() -> None:
    pair = LayerPair(
        "student", "", "teacher", ("a", "b", "c", "d", "e"), ("x", "y", "z"), tuple((row + 0.1, row + 0.2, row + 0.3) for row in range(5))
    )
    assert pair.at_equal_depth() == (0.1, 2.2, 4.3)
    single = LayerPair("student", "", "teacher", ("a", "b"), ("x",), ((0.5,), (None,)))
    assert single.at_equal_depth() == (0.5,)


def test_models_of_a_run_keep_their_colours_and_no_other_model_takes_them() -> None:
    assert series_of(["teacher", "student", "a.onnx", "b.onnx"]) == {
        "teacher": "teacher",
        "student": "student",
        "a.onnx": "baseline",
        "b.onnx": "other",
    }
    assert len(set(series_of([f"model {index}" for index in range(6)]).values())) == 6


def test_a_recipe_of_ours_finds_the_row_of_its_paper(evaluated_run: Any, folder: Path) -> None:
    row = paper_row(read_run(evaluated_run.write(folder)))
    assert row is not None and row.row == "G2SD-Ti" and "CVPR 2023" in row.source
    assert row.value("student", "imagenet-val") == pytest.approx(0.77) and row.value("teacher", "imagenet-a") == pytest.approx(0.359)
    assert row.value("baseline", "imagenet-val") is None and row.value("student", "imagenet-a-clean") is None


def test_a_student_of_another_shape_or_a_recipe_of_another_name_has_no_row(evaluated_run: Any, folder: Path) -> None:
    evaluated_run.run["resolved"]["student"]["width"] = 256
    assert paper_row(read_run(evaluated_run.write(folder))) is None
    evaluated_run.run["resolved"]["student"]["width"] = 192
    evaluated_run.run["recipe"] = "mine"
    assert paper_row(read_run(evaluated_run.write(folder))) is None


def test_every_row_of_a_paper_belongs_to_a_recipe_and_its_student() -> None:
    written = YAML(typ="safe").load((Path(papers.__file__).parent / "papers.yaml").read_text(encoding="utf-8"))
    recipes = {path.stem: path for path in bundled_recipes()}
    for name, entry in written["recipes"].items():
        assert entry["source"] in written["sources"]
        student = load_recipe(recipes[name]).student
        assert student is not None and {key: getattr(student, key) for key in entry["shape"]} == entry["shape"]
