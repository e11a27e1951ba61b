"""The evaluation stage: every classifier of the run, on the same images."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from g2sd_deploy.artifact import Artifact
from g2sd_deploy.evaluation.predictions import columns_of, predictions_file
from g2sd_deploy.settings import EvaluateSettings, OcclusionSettings, Recipe, SimilaritySettings
from g2sd_deploy.stages import evaluate
from g2sd_deploy.stages.context import Context

ArtifactOf = Callable[[str], Artifact]
MODELS = ("teacher", "student", "baseline")


@pytest.fixture
def evaluated(make_context: Callable[..., Context], recipe: Recipe) -> Callable[..., tuple[dict[str, Any], Context]]:
    """Figures of the stage with other settings."""

    def run(**settings: Any) -> tuple[dict[str, Any], Context]:
        context = make_context("evaluate", recipe.model_copy(update={"evaluate": EvaluateSettings(**settings)}))
        return evaluate.run(context).metrics, context

    return run


@pytest.mark.parametrize("model", MODELS)
def test_the_score_is_that_of_the_stored_predictions(model: str, artifact_of: ArtifactOf) -> None:
    artifact = artifact_of("evaluate")
    stored = columns_of(artifact.file(predictions_file(model)), "clean")
    scores = artifact.metrics["models"][model]["clean"]
    assert scores["num_images"] == len(stored["label"]) == 40
    assert scores["top1"] == pytest.approx(float((stored["top5"][:, 0] == stored["label"]).mean()))
    np.testing.assert_array_equal(stored["label"], np.load(artifact_of("data").file("test_labels.npy")))
    np.testing.assert_array_equal(stored["correct"], stored["top5"][:, 0] == stored["label"])


def test_agreement_is_the_share_of_equal_decisions(artifact_of: ArtifactOf) -> None:
    artifact = artifact_of("evaluate")
    top1 = {name: columns_of(artifact.file(predictions_file(name)), "clean")["top5"][:, 0] for name in MODELS}
    wanted = {name: pytest.approx(float((top1[name] == top1["teacher"]).mean())) for name in ("student", "baseline")}
    assert artifact.metrics["agreement"] == wanted
    assert artifact.metrics["models"]["teacher"]["clean"]["agreement"] is None


def test_how_images_were_prepared_stands_beside_the_figures(artifact_of: ArtifactOf) -> None:
    for scores in artifact_of("evaluate").metrics["models"].values():
        assert scores["preprocessing"]["image_px"] == 28 and scores["preprocessing"]["interpolation"] == "bicubic"
        assert scores["runtime"].startswith("torch ") and len(scores["digest"]) == 64


def test_robustness_is_scored_at_the_severities_asked_for(artifact_of: ArtifactOf) -> None:
    metrics = artifact_of("evaluate").metrics
    assert metrics["num_corruption_images"] == 10 and metrics["corruption_note"]
    for scores in metrics["models"].values():
        assert list(scores["corruptions"]) == ["contrast"] and list(scores["corruptions"]["contrast"]) == ["1", "5"]
        values = [cell["top1"] for cell in scores["corruptions"]["contrast"].values()]
        assert scores["mean_corruption_top1"] == pytest.approx(sum(values) / 2)


def test_what_is_not_asked_for_is_left_out(evaluated: Callable[..., tuple[dict[str, Any], Context]]) -> None:
    metrics, _ = evaluated()
    assert set(metrics) == {"models", "agreement"}
    wanted = {"num_parameters", "model_mib", "runtime", "preprocessing", "digest", "clean"}
    assert all(set(scores) == wanted for scores in metrics["models"].values())


def test_the_size_of_the_batch_does_not_change_a_decision(
    evaluated: Callable[..., tuple[dict[str, Any], Context]], artifact_of: ArtifactOf
) -> None:
    metrics, _ = evaluated(batch_size=7)
    for name, scores in metrics["models"].items():
        assert scores["clean"]["top1"] == artifact_of("evaluate").metrics["models"][name]["clean"]["top1"]


def test_occlusion_goes_by_the_teachers_attention(evaluated: Callable[..., tuple[dict[str, Any], Context]]) -> None:
    metrics, context = evaluated(occlusion=OcclusionSettings(shares=(0.0, 0.5, 1.0), max_images=10))
    assert metrics["occlusion"]["salience"] == "teacher" and metrics["occlusion"]["grid"] == 4
    for name, scores in metrics["models"].items():
        assert list(scores["occlusion"]) == ["random", "salient_first", "salient_last"]
        nothing_left = {order: curve["top1"][2] for order, curve in scores["occlusion"].items()}
        assert len(set(nothing_left.values())) == 1, "images without any patch are all the same"
        whole = columns_of(context.folder / predictions_file(name), "clean")["correct"][::4]
        assert all(curve["top1"][0] == pytest.approx(whole.mean()) for curve in scores["occlusion"].values())


def test_layers_are_compared_before_and_after_each_stage(
    evaluated: Callable[..., tuple[dict[str, Any], Context]], artifact_of: ArtifactOf
) -> None:
    metrics, _ = evaluated(similarity=SimilaritySettings(max_images=20, batch_size=8))
    found = metrics["similarity"]
    assert found["num_images"] == 16
    assert [(pair["reference"], pair["name"], pair["when"]) for pair in found["pairs"]] == [
        ("masked teacher", "student", "before generic"),
        ("masked teacher", "student", "after generic"),
        ("teacher", "student", "before specific"),
        ("teacher", "student", "after specific"),
        ("teacher", "baseline", "baseline"),
    ]
    for pair in found["pairs"]:
        assert pair["rows"] == pair["columns"] == ["embedding", "block 1", "block 2"]
        assert np.array(pair["cka"]).shape == (3, 3)
    assert found["pairs"][0]["cka"] != found["pairs"][1]["cka"]
    names = [one["name"] for one in found["attention_distance"]]
    assert names == ["masked teacher", "student", "teacher", "student", "baseline", "student"]


def test_the_student_before_its_first_stage_is_the_one_that_training_begins_with(
    make_context: Callable[..., Context], recipe: Recipe
) -> None:
    from g2sd_deploy.stages.context import encoder_spec, open_dataset
    from g2sd_deploy.stages.lessons import make_lesson

    assert recipe.generic is not None and recipe.student is not None
    generic = make_context("generic")
    lesson = make_lesson(generic, recipe.generic, encoder_spec(recipe.student, open_dataset(generic.inputs["data"]).preprocessing))
    begun = lesson.student.encoder
    settings = recipe.model_copy(update={"evaluate": EvaluateSettings(similarity=SimilaritySettings())})
    context = make_context("evaluate", settings, folder="evaluate")
    networks = evaluate.networks_of(context, open_dataset(context.inputs["data"]).preprocessing)
    initial = next(one for one in networks if one.when == "initial").reader.module
    assert initial is not None
    for name, value in initial.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), begun.state_dict()[name].numpy(), err_msg=name)


def test_other_sets_are_scored_beside_the_test_images(
    evaluated: Callable[..., tuple[dict[str, Any], Context]], artifact_of: ArtifactOf
) -> None:
    metrics, _ = evaluated(sets=("bundled:fashion-mnist",))
    ((name, about),) = metrics["sets"].items()
    assert about["num_images"] == 5000 and "all logits" in about["note"]
    for scores in metrics["models"].values():
        assert scores["sets"][name]["num_images"] == 5000 and scores["clean"]["num_images"] == 40
