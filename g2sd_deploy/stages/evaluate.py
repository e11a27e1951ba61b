"""Evaluation stage: teacher, student and baseline on the same images, clean, corrupted and occluded, and the similarity of their layers."""

from typing import Any

import numpy as np
import torch

from g2sd_deploy.artifact import Made
from g2sd_deploy.data.testsets import Options, Scoring, TestSet, open_all
from g2sd_deploy.data.testsets.catalogue import data_folder
from g2sd_deploy.evaluation.evaluating import Evaluator
from g2sd_deploy.evaluation.layers import layer_reader, open_layers
from g2sd_deploy.evaluation.predictions import PredictionWriter
from g2sd_deploy.evaluation.representation import Comparison, Network, compare_layers
from g2sd_deploy.evaluation.running import GPU_BATCH
from g2sd_deploy.models.checkpoint import load_encoder
from g2sd_deploy.models.vit import Encoder
from g2sd_deploy.predictors import Predictor, classifier_predictor, competitor_of, teacher_of
from g2sd_deploy.randomness import torch_seed
from g2sd_deploy.settings import EvaluateSettings, SimilaritySettings
from g2sd_deploy.stages.context import CLASSIFIER_FILE, Context, Dataset, encoder_file, open_dataset
from g2sd_deploy.stages.dense_evaluation import score_task
from g2sd_deploy.zoo.places import places
from g2sd_export.edge.preprocess import Preprocessing

_MODELS = ("teacher", "student", "baseline")
CLEAN = "clean"
"""The recipe's own test images, among the sets that are scored."""


def run(context: Context) -> Made:
    """Score every network of the run."""
    if context.recipe.task is not None:
        return score_task(context)
    settings = context.recipe.evaluate
    assert settings is not None
    dataset = open_dataset(context.inputs["data"])
    predictors = {
        name: classifier_predictor(context.inputs[name].file(CLASSIFIER_FILE), context.device) for name in _MODELS if name in context.inputs
    }
    with PredictionWriter(context.folder, tuple(predictors)) as writer:
        metrics = _scores(_evaluator(context, settings, predictors, writer), settings, _test_set(dataset))
    if settings.similarity is not None:
        metrics["similarity"] = _similarity(context, settings.similarity, dataset)
    return Made(metrics)


def _scores(evaluator: Evaluator, settings: EvaluateSettings, test: TestSet) -> dict[str, Any]:
    scored = evaluator.score([test, *open_all(settings.sets, options=Options(), home=data_folder(places()))])
    models = evaluator.described()
    metrics: dict[str, Any] = {"models": models}
    for name, sets in scored.models.items():
        models[name]["clean"] = sets.pop(CLEAN)
        models[name] |= {"sets": sets} if sets else {}
    del scored.about[CLEAN]
    metrics |= {"sets": scored.about} if scored.about else {}
    if "teacher" in models:
        metrics["agreement"] = {name: one["clean"]["agreement"]["same"] for name, one in models.items() if name != "teacher"}
    return metrics | evaluator.stressed(test, settings, models)


def _test_set(dataset: Dataset) -> TestSet:
    """The recipe's own test images, in the terms of the other sets."""
    scoring = Scoring(CLEAN, np.asarray(dataset.test.labels), dataset.class_names, False, "the recipe's test images")
    return TestSet("test images", dataset.test, (scoring,), fingerprint="")


def _evaluator(context: Context, settings: EvaluateSettings, predictors: dict[str, Predictor], writer: PredictionWriter) -> Evaluator:
    on_cpu = context.device.type == "cpu"
    return Evaluator(
        {name: competitor_of(one, threads=1 if on_cpu else None) for name, one in predictors.items()},
        seed=context.recipe.seed,
        batch_size=settings.batch_size or (None if on_cpu else GPU_BATCH),
        workers=context.runtime.num_threads,
        tick=context.progress.update,
        teacher=teacher_of("teacher", predictors["teacher"], context.device) if "teacher" in predictors else None,
        max_bad=settings.max_bad_images,
        ranks=context.runtime.ranks,
        writer=writer,
    )


def _similarity(context: Context, settings: SimilaritySettings, dataset: Dataset) -> dict[str, Any]:
    """The student's layers against the teacher's before and after each stage, and the baseline's."""
    networks = networks_of(context, dataset.preprocessing)
    places = {(one.name, one.when): place for place, one in enumerate(networks)}
    masked, teacher = places.get(("masked teacher", "")), places.get(("teacher", ""))
    before, between = places.get(("student", "initial")), places.get(("student", "generic"))
    pairs = [
        (masked, before, "before generic"),
        (masked, between, "after generic"),
        (teacher, between, "before specific"),
        (teacher, places.get(("student", "specific")), "after specific"),
        (teacher, places.get(("baseline", "")), "baseline"),
    ]
    comparisons = [Comparison(one, other, when) for one, other, when in pairs if one is not None and other is not None]
    return compare_layers(
        networks,
        comparisons,
        dataset.test,
        settings=settings,
        device=context.device,
        tick=lambda done, total: context.progress.update(done, total, "similarity"),
    )


def networks_of(context: Context, fit: Preprocessing) -> list[Network]:
    """Every encoder of the run; the student as it was before its first stage is made again from the seed."""
    inputs = context.inputs
    classifiers = [("teacher", "", "teacher"), ("student", "specific", "student"), ("baseline", "", "baseline")]
    found = [("masked teacher", "", encoder_file(inputs["masked"]))] if "masked" in inputs else []
    found += [("student", "generic", encoder_file(inputs["generic"]))] if "generic" in inputs else []
    found += [(name, when, inputs[role].file(CLASSIFIER_FILE)) for name, when, role in classifiers if role in inputs]
    networks = [Network(name, when, open_layers(file), fit) for name, when, file in found]
    if "generic" in inputs:
        spec = load_encoder(encoder_file(inputs["generic"])).spec
        torch.manual_seed(torch_seed(context.recipe.seed, "weights/generic"))
        networks.append(Network("student", "initial", layer_reader(Encoder(spec)), fit))
    for network in networks:
        network.reader.to(context.device)
    return networks
