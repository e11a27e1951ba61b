"""What the evaluation stage does for a task: scores of teacher, student and baseline, and pictures of what they see."""

from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from g2sd_deploy.artifact import Made
from g2sd_deploy.data.images import evenly_spread
from g2sd_deploy.evaluation.dense_networks import detector_infer, segmenter_infer
from g2sd_deploy.evaluation.dense_scoring import Infer, Scoring, score_detector, score_segmenter
from g2sd_deploy.models.dense.network_file import NETWORK_OF, DenseNetwork, load_network
from g2sd_deploy.models.dense.segmenter import Segmenter
from g2sd_deploy.stages.context import Context
from g2sd_deploy.stages.dense_context import DenseDataset, dense_task, open_dense_dataset, task_file
from g2sd_deploy.stages.dense_pictures import drawn_answer, drawn_truth, plain
from g2sd_export.edge.dense.detections import SHOWN_SCORE
from g2sd_export.edge.dense.task import DenseTask

_MODELS = ("teacher", "student", "baseline")
_NUM_PICTURES = 4
_BATCH = 8


def score_task(context: Context) -> Made:
    """Score every network of the task on the same test images."""
    settings, kind = context.recipe.evaluate, dense_task(context.recipe).kind
    assert settings is not None
    dataset, task = open_dense_dataset(context.inputs["data"]), dense_task(context.recipe)
    names = [name for name in _MODELS if name in context.inputs]
    models, infers = dict[str, Any](), dict[str, Infer]()
    for done, name in enumerate(names):
        network = load_network(context.inputs[name].file(task_file(context.recipe)), NETWORK_OF[kind]).model
        infers[name] = _infer_of(network, context, task)

        def tick(images: int, total: int, done: int = done, name: str = name) -> None:
            context.progress.update(done * total + images, len(names) * total, name)

        score = score_segmenter if kind == "segmentation" else score_detector
        scoring = Scoring(context.recipe.seed, batch_size=settings.batch_size or _BATCH)
        found = score(infers[name], dataset.test, task, dataset.class_names, tick, scoring)
        models[name] = {"num_parameters": sum(p.numel() for p in network.parameters()), **_of_model(found)}
    return Made(
        {
            "task": kind,
            "num_images": len(dataset.test),
            "class_names": list(dataset.class_names),
            "models": models,
            **({"shown_score": SHOWN_SCORE} if kind == "detection" else {}),
            "pictures": _pictures(context, dataset, task, infers),
        }
    )


def _of_model(found: dict[str, Any]) -> dict[str, Any]:
    """Figures of one network; how many images there were is said once, and none may be left out."""
    return {name: value for name, value in found.items() if name not in ("num_images", "num_skipped", "skipped")}


def _infer_of(network: DenseNetwork, context: Context, task: DenseTask) -> Infer:
    if isinstance(network, Segmenter):
        return segmenter_infer(network, context.device, task.mean, task.std)
    return detector_infer(network, context.device, task.mean, task.std)


def _pictures(context: Context, dataset: DenseDataset, task: DenseTask, infers: dict[str, Infer]) -> list[dict[str, str]]:
    """A few test images beside their truth and each network's answer."""
    rows = []
    for index in evenly_spread(len(dataset.test), min(_NUM_PICTURES, len(dataset.test))).tolist():
        annotated = dataset.test.read(index)
        drawn = {"image": plain(annotated.pixels), "truth": drawn_truth(annotated, task.kind, dataset.class_names)}
        drawn |= {name: drawn_answer(annotated.pixels, infer, task, dataset.class_names) for name, infer in infers.items()}
        rows.append({name: _saved(context, f"picture_{index}_{name}.png", picture) for name, picture in drawn.items()})
    return rows


def _saved(context: Context, name: str, picture: UInt8[np.ndarray, "h w 3"]) -> str:
    Image.fromarray(picture).save(context.folder / name)
    return name
