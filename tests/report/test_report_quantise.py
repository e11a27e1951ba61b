"""What the report says of quantisation-aware distillation, where a recipe asks for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy.report import read_run, render_report

HELD_OUT = {"num_images": 1000, "top1": {"float": 0.891, "before": 0.847, "after": 0.88}, "flipped": {"before": 100, "after": 50}}


def page(run: Any, folder: Path) -> str:
    return render_report(read_run(run.write(folder))).markdown


def with_quantise(run: Any, recovered: float | None) -> Any:
    """The run with one more stage, which is described as the specific one is."""
    found = run.artifacts["specific"]
    metrics = found["metrics"] | {"method": "quantisation-aware distillation", "bits": 8, "held_out": HELD_OUT | {"recovered": recovered}}
    run.artifacts["quantise"] = found | {"metrics": metrics}
    run.run["resolved"]["quantise"] = {"bits": 8}
    return run


@pytest.mark.parametrize(("recovered", "said"), [(0.75, "; 75 % of the loss was won back."), (None, "88.00 % rounded after training.")])
def test_the_cost_of_rounding_before_and_after_is_told(
    full_run_factory: Callable[[], Any], recovered: float | None, said: str, tmp_path: Path
) -> None:
    text = page(with_quantise(full_run_factory(), recovered), tmp_path / "run")
    assert (
        "on 1,000 training images that were held out: 89.10 % in float, 84.70 % rounded to 8 bits, 88.00 % rounded after training" in text
    )
    assert said in text and ("won back" in text) == (recovered is not None)
    assert "Quantisation-aware distillation" in text


def test_a_recipe_without_the_stage_is_not_told_that_its_training_lacks_it(full_run_factory: Callable[[], Any], tmp_path: Path) -> None:
    training = page(full_run_factory(), tmp_path / "plain").split("## Training")[1].split("\n## ")[0]
    assert "quantise" not in training
    asked = with_quantise(full_run_factory(), 0.5)
    del asked.artifacts["quantise"]
    assert "has a stage quantise, but this run has not finished it" in page(asked, tmp_path / "asked")


def test_the_time_of_the_third_stage_does_not_count_as_the_evaluated_students(full_run_factory: Callable[[], Any], tmp_path: Path) -> None:
    plain = read_run(full_run_factory().write(tmp_path / "plain"))
    more = read_run(with_quantise(full_run_factory(), 0.5).write(tmp_path / "more"))
    assert more.train_seconds("student") == plain.train_seconds("student") and "quantise" in more.training
