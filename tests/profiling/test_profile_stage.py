"""The profile stage: a run's teacher, student and bundle, through the same sessions as `g2sd profile`."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from g2sd_deploy.progress import SilentProgress
from g2sd_deploy.runtime import Runtime
from g2sd_deploy.settings import ProfileSettings
from g2sd_deploy.stages import profile
from g2sd_deploy.stages.context import Context


@pytest.fixture
def context(classifier: Path, bundle: Path, tmp_path: Path) -> Any:
    """What the stage is given: two stages that made a classifier, one that made a bundle, and settings."""

    def make(**settings: Any) -> Context:
        made = SimpleNamespace(file=lambda name: classifier)
        inputs: Any = {"teacher": made, "student": made, "export": SimpleNamespace(folder=bundle.parent)}
        recipe: Any = SimpleNamespace(task=None, profile=ProfileSettings(threads=1, seconds=0.05, percentile=50.0, **settings))
        return Context(recipe, "profile", inputs, tmp_path, tmp_path, Runtime(torch.device("cpu")), SilentProgress(), "key")

    return make


def test_teacher_student_and_every_variant_are_timed_beside_the_reference(context: Any) -> None:
    made = profile.run(context(batches=(1, 2)))
    assert made.metrics == {} and made.failure == "", "a latency is of the moment, and one that is not believed fails no run"
    found = json.loads(json.dumps(made.timing))
    assert {(row["model"], row["variant"], row["runtime"], row["batch"]) for row in found["rows"]} == {
        (*one, batch)
        for one in (
            ("teacher", "", "torch"),
            ("student", "", "torch"),
            ("student", "fp32-onnxruntime", "onnxruntime"),
            ("student", "int8-onnxruntime", "onnxruntime"),
            ("student", "fp32-onnxruntime-cuda", "onnxruntime-cuda"),
            ("reference", "", "onnxruntime"),
        )
        for batch in (1, 2)
    }
    assert (found["format"], found["reference"]) == (1, "reference")
    assert [(one["model"], one["variant"], one["batch"], one["verdict"]) for one in found["layers"]] == [
        ("student", "fp32-onnxruntime", 1, "measured")
    ]


def test_runtimes_of_the_weights_and_layers_are_settings(context: Any) -> None:
    found = profile.run(context(batches=(1,), runtimes=("onnxruntime",), layers=False)).timing
    assert [(row["model"], row["variant"], row["runtime"]) for row in found["rows"] if row["verdict"] != "not_run"] == [
        ("teacher", "", "onnxruntime"),
        ("student", "", "onnxruntime"),
        ("student", "fp32-onnxruntime", "onnxruntime"),
        ("reference", "", "onnxruntime"),
    ]
    assert found["layers"] == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scenarios": ["server"]}, "rate_per_s belongs to the scenario server, which needs it; give both or neither"),
        ({"rate_per_s": 5.0}, "rate_per_s belongs to the scenario server"),
        ({"runtimes": ["onnx"]}, "Input should be 'torch', 'torch-compile'"),
        ({"seconds": 0.0}, "greater than 0"),
        ({"percentile": 100.0}, "less than or equal to 99.99"),
        ({"repeats": 700}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_mean_nothing_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ProfileSettings.model_validate(values)
