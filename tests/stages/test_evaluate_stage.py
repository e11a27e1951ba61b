"""The evaluation stage: every classifier of the run, on the same images."""

from collections.abc import Callable

import numpy as np
import pytest

from g2sd_deploy.artifact import Artifact
from g2sd_deploy.settings import Recipe
from g2sd_deploy.stages import evaluate
from g2sd_deploy.stages.context import Context

ArtifactOf = Callable[[str], Artifact]


@pytest.mark.parametrize("model", ["teacher", "student", "baseline"])
def test_the_score_is_that_of_the_stored_predictions(model: str, artifact_of: ArtifactOf) -> None:
    artifact = artifact_of("evaluate")
    stored = np.load(artifact.file(f"predictions-{model}.npz"))
    scores = artifact.metrics["models"][model]
    assert scores["clean"]["num_images"] == len(stored["label"]) == 40
    assert scores["clean"]["top1"] == pytest.approx(float((stored["top1"] == stored["label"]).mean()))
    np.testing.assert_array_equal(stored["label"], np.load(artifact_of("data").file("test_labels.npy")))
    assert stored["prob_top1"].dtype == np.float32 and ((stored["prob_top1"] > 0) & (stored["prob_top1"] <= 1)).all()


def test_agreement_is_the_share_of_equal_decisions(artifact_of: ArtifactOf) -> None:
    artifact = artifact_of("evaluate")
    top1 = {name: np.load(artifact.file(f"predictions-{name}.npz"))["top1"] for name in ("teacher", "student", "baseline")}
    wanted = {name: pytest.approx(float((top1[name] == top1["teacher"]).mean())) for name in ("student", "baseline")}
    assert artifact.metrics["agreement"] == wanted


def test_robustness_is_scored_at_the_severities_asked_for(artifact_of: ArtifactOf) -> None:
    metrics = artifact_of("evaluate").metrics
    assert metrics["num_corruption_images"] == 10 and metrics["corruption_note"]
    for scores in metrics["models"].values():
        assert list(scores["corruptions"]) == ["contrast"] and list(scores["corruptions"]["contrast"]) == ["1", "5"]
        values = [cell["top1"] for cell in scores["corruptions"]["contrast"].values()]
        assert scores["mean_corruption_top1"] == pytest.approx(sum(values) / 2)


def test_robustness_is_left_out_where_it_is_not_asked_for(make_context: Callable[..., Context], recipe: Recipe) -> None:
    assert recipe.evaluate is not None
    context = make_context("evaluate", recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"corruptions": None})}))
    made = evaluate.run(context)
    assert set(made.metrics) == {"models", "agreement"}
    assert all("corruptions" not in scores for scores in made.metrics["models"].values())


def test_the_size_of_the_batch_does_not_change_a_decision(
    make_context: Callable[..., Context], artifact_of: ArtifactOf, recipe: Recipe
) -> None:
    assert recipe.evaluate is not None
    small = recipe.evaluate.model_copy(update={"batch_size": 7, "corruptions": None})
    context = make_context("evaluate", recipe.model_copy(update={"evaluate": small}))
    made = evaluate.run(context)
    for name, scores in made.metrics["models"].items():
        assert scores["clean"]["top1"] == artifact_of("evaluate").metrics["models"][name]["clean"]["top1"]
