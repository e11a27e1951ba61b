"""The quantise stage in a tiny recipe: what it learns from, what it leaves, and what it says of it."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from g2sd_deploy.artifact import Artifact
from g2sd_deploy.data.images import ImageSet
from g2sd_deploy.data.selection import Selection, random_selection
from g2sd_deploy.errors import RunFailed
from g2sd_deploy.models.checkpoint import load_classifier
from g2sd_deploy.models.fake_quant import QuantisedClassifier, RangeObserver, points_of
from g2sd_deploy.models.vit import Classifier
from g2sd_deploy.planning import stages_of
from g2sd_deploy.probe.sizing import extent_of, trial_recipe
from g2sd_deploy.progress import SilentProgress
from g2sd_deploy.settings import QuantiseSettings, Recipe
from g2sd_deploy.stages import quantise
from g2sd_deploy.stages.context import Context, classifier_to_quantise, open_dataset
from g2sd_deploy.training.schedule import num_steps_of
from g2sd_export.edge.preprocess import normalise

RecipeWith = Callable[..., Recipe]
MakeContext = Callable[..., Context]
ArtifactOf = Callable[[str], Artifact]
WEIGHTS = "classifier.safetensors"
NUM_HELD_OUT, NUM_TRAINED = 6, 58  # of 64 images
UNTOUCHED = {"augment": {"crop_scale": [1.0, 1.0], "crop_ratio": [1.0, 1.0], "flip": False}, "mix": {"mixup": 0.0, "cutmix": 0.0}}
ALL_AT_ONCE = {**UNTOUCHED, "batch_size": NUM_TRAINED, "base_lr": 1e-12, "weight_decay": 0.0}


@pytest.fixture
def make(make_context: MakeContext, recipe_with: RecipeWith) -> Callable[..., Context]:
    """What the stage is given, with some of its settings changed."""

    def context(folder: str = "made", seed: int = 0, specific: dict[str, Any] | None = None, **changes: Any) -> Context:
        recipe = recipe_with(quantise={"bits": 8} | changes, **({} if specific is None else {"specific": specific}))
        return make_context("quantise", recipe.model_copy(update={"seed": seed}), folder)

    return context


def split(context: Context) -> tuple[Selection, Selection]:
    """Images held out, and images learnt from."""
    return random_selection(open_dataset(context.inputs["data"]).train, NUM_HELD_OUT, seed=context.recipe.seed, stream="held_out")


def pixels_of(context: Context, images: Selection) -> Tensor:
    dataset = open_dataset(context.inputs["data"])
    return torch.from_numpy(normalise(np.stack([np.asarray(images.read(i)) for i in range(len(images))]), dataset.preprocessing))


def student_of(context: Context) -> Classifier:
    return load_classifier(context.inputs["student"].file(WEIGHTS)).model


def test_it_leaves_a_classifier_its_ranges_and_figures_twice_the_same(make: Callable[..., Context]) -> None:
    contents = []
    for folder, seed in (("one", 0), ("two", 0), ("three", 1)):
        context = make(folder, seed)
        made = quantise.run(context)
        contents.append((context.folder / WEIGHTS).read_bytes())
        assert sorted(path.name for path in context.folder.iterdir()) == [WEIGHTS, "history.jsonl", "ranges.json"]
    assert contents[0] == contents[1] != contents[2]
    assert made.metrics["method"] == "quantisation-aware distillation" and made.metrics["images_seen"] == 32
    assert made.metrics["held_out"]["num_images"] == NUM_HELD_OUT and made.metrics["bits"] == 8
    assert {model.token for model in (load_classifier(context.folder / WEIGHTS).model, student_of(context))} == {"g2sd"}


def test_the_ranges_are_those_of_the_student_on_training_images(make: Callable[..., Context]) -> None:
    context = make(ranges="all", **ALL_AT_ONCE)
    quantise.run(context)
    observer = RangeObserver(student_of(context))
    observer.look(pixels_of(context, split(context)[1]))
    described = json.loads((context.folder / "ranges.json").read_text())
    assert described["bits"] == 8 and list(described["inputs"]) == [point.name for point in points_of(student_of(context))]
    found = torch.tensor([[one["low"], one["high"]] for one in described["inputs"].values()])
    torch.testing.assert_close(found, observer.ranges(of_all=True))


def test_fewer_images_or_their_mean_give_other_ranges(make: Callable[..., Context]) -> None:
    texts = set()
    for folder, changes in (("all", {"ranges": "all"}), ("mean", {}), ("few", {"ranges": "all", "calibration_images": 3})):
        context = make(folder, **changes)
        quantise.run(context)
        texts.add((context.folder / "ranges.json").read_text())
    assert len(texts) == 3


def test_it_starts_from_the_student_that_the_specific_stage_made(make: Callable[..., Context]) -> None:
    context = make(**ALL_AT_ONCE)
    quantise.run(context)
    before, after = student_of(context).state_dict(), load_classifier(context.folder / WEIGHTS).model.state_dict()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, msg=name)


def log_probabilities(logits: Tensor, temperature: float = 1.0) -> np.ndarray:
    z = logits.detach().double().numpy() / temperature
    return np.asarray(z - np.log(np.exp(z).sum(axis=1, keepdims=True)))


def loss_by_hand(context: Context, *, float_weight: float, temperature: float, bits: int) -> float:
    """The stage's first loss in float64: all images that it learns from are in one batch, as they are."""
    student, teacher = student_of(context), load_classifier(context.inputs["classifier"].file(WEIGHTS)).model
    chosen = split(context)[1]
    seen, labels = pixels_of(context, chosen), chosen.labels
    observer = RangeObserver(student)
    observer.look(seen)
    quantised = QuantisedClassifier(student, observer.ranges(of_all=False), bits)
    with torch.no_grad():
        own, wanted, decisions = quantised.forward_heads(seen), student.forward_heads(seen), teacher(seen).argmax(1).numpy()
    apart = []
    for ours, theirs in zip(own, wanted, strict=True):
        q, p = log_probabilities(ours, temperature), log_probabilities(theirs, temperature)
        apart.append((np.exp(p) * (p - q)).sum(axis=1).mean() * temperature**2)
    targets = np.full((len(labels), 10), 0.01)
    targets[np.arange(len(labels)), labels] += 0.9
    rows, (cls, dist) = np.arange(len(labels)), (log_probabilities(own[0]), log_probabilities(own[1]))
    taught = (-(targets * cls).sum(axis=1).mean() - dist[rows, decisions].mean()) / 2
    return float((1 - float_weight) * taught + float_weight * np.mean(apart))


@pytest.mark.parametrize(("float_weight", "temperature", "bits"), [(0.0, 1.0, 8), (1.0, 1.0, 3), (1.0, 4.0, 3), (0.3, 2.0, 4)])
def test_the_loss_is_that_of_the_specific_method_and_of_the_distance_from_the_float_student(
    make: Callable[..., Context], float_weight: float, temperature: float, bits: int
) -> None:
    context = make(float_weight=float_weight, temperature=temperature, bits=bits, **ALL_AT_ONCE)
    made = quantise.run(context)
    wanted = loss_by_hand(context, float_weight=float_weight, temperature=temperature, bits=bits)
    assert made.metrics["first_loss"] == pytest.approx(wanted, rel=2e-4, abs=1e-6) and wanted > 1e-4


@pytest.mark.parametrize("method", ["finetune", "soft", "nkd"])
def test_it_goes_on_with_the_method_of_the_specific_stage(method: str, run_of: Callable[..., Any], recipe_with: RecipeWith) -> None:
    sections = {"specific": {"method": method}, "quantise": {"float_weight": 0.5, "bits": 4}}
    run = run_of("quantise", **sections)
    described = json.loads((run / "quantise" / "artifact.json").read_text())
    assert described["config"]["specific"]["method"] == method and described["metrics"]["num_steps"] == 1
    assert ("finetune" in described["parents"]) == (method != "finetune")
    model = load_classifier(run / "quantise" / WEIGHTS).model
    assert model.token == "none"
    parents = {stage.name: dict(stage.parents) for stage in stages_of(recipe_with(**sections))}["quantise"]
    assert parents == {"data": "data", "student": "specific"} | ({} if method == "finetune" else {"classifier": "finetune"})


def test_training_wins_back_what_coarse_rounding_cost(make: Callable[..., Context]) -> None:
    """Three bits take the student far from its float self; a minute part of an epoch's work brings it nearer."""
    far = {"bits": 3, "float_weight": 1.0, "calibration_images": 58, **UNTOUCHED}
    context = make(**{**far, "epochs": 40, "batch_size": 29, "base_lr": 2e-2})
    made = quantise.run(context)
    assert made.metrics["final_loss"] < 0.5 * made.metrics["first_loss"]


def test_the_held_out_images_are_learnt_from_by_none_and_drawn_at_random() -> None:
    labels = np.arange(100) % 10
    images = ImageSet(np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1), labels)
    held_out, trained = random_selection(images, 10, seed=3, stream="held_out")
    assert sorted([*held_out.indices, *trained.indices]) == list(range(100)) and (len(held_out), len(trained)) == (10, 90)
    assert [int(np.asarray(trained.read(i)).item()) for i in range(90)] == trained.indices.tolist()
    assert trained.labels.tolist() == labels[trained.indices].tolist() and trained.name(0) == images.name(int(trained.indices[0]))
    assert len(set(held_out.labels.tolist())) > 3  # every tenth image would be of one class
    assert random_selection(images, 10, seed=4, stream="held_out")[0].indices.tolist() != held_out.indices.tolist()
    assert len(random_selection(images, 1000, seed=0, stream="calibration")[0]) == 100


def test_a_selection_knows_how_many_of_its_images_lie_in_each_shard() -> None:
    class Shards(ImageSet):
        @property
        def block_sizes(self) -> Any:
            return np.array([3, 2, 5])

    images = Shards(np.zeros((10, 1, 1, 1), np.uint8), np.zeros(10, np.int64))
    assert Selection(images, np.array([0, 2, 5, 6, 9])).block_sizes.tolist() == [2, 0, 3]
    assert Selection(images, np.arange(10)).block_sizes.tolist() == [3, 2, 5]


@pytest.mark.parametrize(("num", "held_out"), [(1, 1), (40, 4), (9_999, 999), (50_000, 1000)])
def test_at_most_a_tenth_of_the_images_is_held_out(num: int, held_out: int) -> None:
    settings = QuantiseSettings(epochs=1.0, batch_size=8, base_lr=0.1)
    assert (settings.num_held_out(num), settings.num_trained(num)) == (held_out, num - held_out)


def test_a_trial_of_the_stage_has_twenty_steps_of_what_is_not_held_out(recipe_with: RecipeWith) -> None:
    recipe = recipe_with(quantise={"epochs": 3.0, "batch_size": 400})
    extent = extent_of(recipe, 50_000, 10_000)
    trial = trial_recipe(recipe, extent, {"quantise"}).quantise
    assert trial is not None and recipe.quantise is not None
    assert extent.trial_train == 2000 and num_steps_of(trial.epochs, 400, trial.num_trained(2000)) == 20
    few = recipe_with(quantise={"epochs": 3.0, "batch_size": 8192})
    assert few.quantise is not None and few.quantise.num_trained(extent_of(few, 50_000, 10_000).trial_train) >= 8192
    assert recipe.quantise.num_looked_at(50_000) == (256, 1000) and recipe.quantise.num_looked_at(100) == (90, 10)


@pytest.mark.parametrize("batch_size", [1, 8, 9, 10, 64, 90, 100, 4096])
def test_the_fewest_images_are_enough_for_one_batch(batch_size: int) -> None:
    settings = QuantiseSettings(epochs=1.0, batch_size=batch_size, base_lr=0.1, held_out=10**6)
    assert settings.num_trained(settings.fewest_images) >= batch_size


def decisions(right: int, wrong_as: int = 9) -> dict[int, int]:
    """Of ten images of class 0: so many right."""
    return {index: 0 if index < right else wrong_as for index in range(10)}


@pytest.mark.parametrize(
    ("before", "after", "recovered", "said"),
    [
        (4, 7, 0.75, ""),
        (4, 6, 0.5, ""),
        (4, 5, 0.25, "costs 40.00% top-1 on 10 held-out training images, and training won back 25% of it, less than half"),
        (4, 3, -0.25, "won back -25% of it"),
        (8, 9, None, "costs no top-1 on 10 held-out training images"),
        (9, 9, None, "there is nothing to win back; the stage can be left out"),
    ],
)
def test_what_was_won_back_is_told_and_too_little_is_said(before: int, after: int, recovered: float | None, said: str) -> None:
    found = {"float": decisions(8), "before": decisions(before), "after": decisions(after)}
    figures = quantise.held_out_figures(found, np.zeros(10, np.int64))
    assert figures["top1"] == {"float": 0.8, "before": before / 10, "after": after / 10}
    assert figures["recovered"] == (None if recovered is None else pytest.approx(recovered))
    assert figures["flipped"] == {"before": abs(8 - before), "after": abs(8 - after)}
    warning = quantise.shortfall_of(figures, 8)
    assert said in warning and bool(said) == bool(warning)


def test_images_that_could_not_be_decoded_are_not_counted() -> None:
    found = {name: {0: 1, 7: 1} for name in ("float", "before", "after")}
    figures = quantise.held_out_figures(found, np.array([1, 0, 0, 0, 0, 0, 0, 2]))
    assert figures["num_images"] == 2 and figures["top1"]["float"] == 0.5


class Failing(SilentProgress):
    """The disk of the machine fails after the first step, say."""

    def update(self, done: int, total: int, note: str = "") -> None:
        if note.startswith("loss"):
            raise RunFailed("the machine fails")


def test_a_training_that_was_cut_short_goes_on_to_the_same_bytes(make: Callable[..., Context]) -> None:
    options = {"bits": 4, "epochs": 3, "batch_size": 16, "ema_decay": 0.9}
    whole, cut, resumed = (make(folder, **options) for folder in ("whole", "cut", "resumed"))
    quantise.run(whole)
    with pytest.raises(RunFailed, match="the machine fails"):
        quantise.run(replace(cut, progress=Failing()))
    made = quantise.run(resumed)
    assert (made.metrics["num_steps"], made.timing["resumed_at"]) == (9, 1)
    for name in (WEIGHTS, "ranges.json", "history.jsonl"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_a_warning_is_kept_for_the_report(make: Callable[..., Context], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantise, "shortfall_of", lambda figures, bits: f"too little at {bits} bits")
    assert quantise.run(make(bits=5)).metrics["warnings"] == ["too little at 5 bits"]


def test_the_export_finds_the_classifier_for_eight_bits(artifact_of: ArtifactOf) -> None:
    student, other = artifact_of("specific"), artifact_of("finetune")
    assert classifier_to_quantise({"student": student}) == student.file(WEIGHTS)
    assert classifier_to_quantise({"student": student, "quantised": other}) == other.file(WEIGHTS)


def test_it_needs_a_student(recipe_with: RecipeWith) -> None:
    with pytest.raises(ValidationError, match="quantise needs specific before it: there is no student to quantise"):
        recipe_with(specific=None, evaluate=None, quantise={"bits": 8})
