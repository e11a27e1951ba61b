"""What the stages that train with truth do for a task: the same for the teacher, the student and the baseline."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from g2sd_deploy.artifact import Made
from g2sd_deploy.data.dense.maker import DenseMaker
from g2sd_deploy.data.dense.targets import DetectionTruth, SegmentationTruth
from g2sd_deploy.methods.detection import DetectionLearner, DetectionViews, ramp_at
from g2sd_deploy.methods.segmentation import SegmentationLearner, SegmentationViews
from g2sd_deploy.models.checkpoint import load_encoder
from g2sd_deploy.models.dense.detector import Detector
from g2sd_deploy.models.dense.network_file import NETWORK_OF, DenseNetwork, load_network, save_network
from g2sd_deploy.models.dense.segmenter import Segmenter
from g2sd_deploy.models.vit import Encoder, EncoderSpec
from g2sd_deploy.randomness import uniform
from g2sd_deploy.settings import CwdSettings, FrsSettings, LabelledTrainSettings
from g2sd_deploy.stages.context import Context, Dataset, encoder_file, encoder_spec, frozen, open_dataset, seed_weights
from g2sd_deploy.stages.dense_context import dense_task, open_dense_dataset, task_file
from g2sd_deploy.stages.dense_models import make_network, start_from_encoder
from g2sd_deploy.stages.fitting import fit, make_feed, survival, training_result
from g2sd_deploy.stages.student_start import student_start
from g2sd_deploy.training.feed import Batch, Feed
from g2sd_deploy.training.optimizer import build_optimizer

InputsOf = Callable[[Batch], Any]


def train_teacher(context: Context) -> Made:
    """Fine-tune the pre-trained teacher on the task."""
    settings = context.recipe.finetune
    assert settings is not None
    encoder = load_encoder(encoder_file(context.inputs["masked"]))
    dtype = getattr(torch, settings.weights)
    return _train(context, settings, encoder.spec, encoder, method="supervised fine-tuning", dtype=dtype)


def train_student(context: Context) -> Made:
    """Train the generic stage's encoder on the task, with what the recipe's method takes from the teacher."""
    settings = context.recipe.specific
    assert settings is not None
    return _train(context, settings, _student_spec(context), student_start(context), method=_METHODS[settings.method])


def train_baseline(context: Context) -> Made:
    """Train the student's architecture on the truth alone."""
    settings = context.recipe.baseline
    assert settings is not None
    encoder = student_start(context) if settings.start == "generic" else None
    return _train(context, settings, _student_spec(context), encoder, method=BASELINES[settings.start])


_METHODS = {
    "finetune": "plain fine-tuning",
    "cwd": "G2SD specific distillation (channel-wise)",
    "frs": "G2SD specific distillation (feature richness)",
}
BASELINES = {"scratch": "supervised training from scratch", "generic": "plain fine-tuning of the generic stage's encoder"}


def _student_spec(context: Context) -> EncoderSpec:
    shape = context.recipe.student
    assert shape is not None
    return encoder_spec(shape, open_dataset(context.inputs["data"]).preprocessing)


def _train(
    context: Context,
    settings: LabelledTrainSettings,
    spec: EncoderSpec,
    encoder: Encoder | None,
    *,
    method: str,
    dtype: torch.dtype = torch.float32,
) -> Made:
    """Train a network of the task and write it.

    Args:
        encoder: Weights to begin with; None for random ones.
        method: Said in the metrics.
        dtype: Number format of the stored weights.
    """
    task, dataset = context.recipe.task, open_dataset(context.inputs["data"])
    assert task is not None
    seed_weights(context)
    network = make_network(task, spec, len(dataset.class_names))
    if encoder is not None:
        start_from_encoder(network, encoder)
    learner, inputs_of = _lesson(context, network, settings)
    optimizer = build_optimizer(
        learner,
        settings,
        depth=spec.depth,
        layer_decay=settings.layer_decay,
        no_decay=(*network.no_weight_decay, "cls_token"),
        prefix="model.",
    )
    log = fit(context, learner, optimizer, _feed(context, dataset, settings), inputs_of, ema_decay=settings.ema_decay)
    path = context.folder / task_file(context.recipe)
    save_network(path, network, dense_task(context.recipe), dataset.class_names, dtype)
    return training_result(context, log, network, path, method)


def _feed(context: Context, dataset: Dataset, settings: LabelledTrainSettings) -> Feed:
    task, pre = context.recipe.task, dataset.preprocessing
    assert task is not None
    samples = open_dense_dataset(context.inputs["data"]).train
    sizes = {"image_px": pre.image_px, "num_channels": pre.num_channels}
    return make_feed(context, dataset, settings, maker=DenseMaker(samples, task.augment, seed=context.recipe.seed, mean=pre.mean, **sizes))


def _lesson(context: Context, network: DenseNetwork, settings: LabelledTrainSettings) -> tuple[nn.Module, InputsOf]:
    """The network with its losses, and what it is given of a batch."""
    if isinstance(network, Segmenter):
        return _segmentation_lesson(context, network, settings)
    return _detection_lesson(context, network, settings)


def _segmentation_lesson(context: Context, network: Segmenter, settings: LabelledTrainSettings) -> tuple[nn.Module, InputsOf]:
    if isinstance(settings, CwdSettings):
        teacher = _teacher(context, settings)
        learner = SegmentationLearner(network, teacher, tau=settings.temperature, distill_weight=settings.weight)
    else:
        learner = SegmentationLearner(network)

    def inputs_of(batch: Batch) -> SegmentationViews:
        assert isinstance(batch.truth, SegmentationTruth)
        dropout = _draws(context, batch, "dropout", network.num_dropout_draws)
        return SegmentationViews(batch.images, batch.truth.classes.long(), _survival(context, batch, network, settings), dropout)

    return learner, inputs_of


def _detection_lesson(context: Context, network: Detector, settings: LabelledTrainSettings) -> tuple[nn.Module, InputsOf]:
    ramp_steps = 0
    if isinstance(settings, FrsSettings):
        teacher, ramp_steps = _teacher(context, settings), settings.ramp_steps
        assert isinstance(teacher, Detector)
        weights = {"feature_weight": settings.feature_weight, "objectness_weight": settings.objectness_weight}
        learner = DetectionLearner(network, teacher.levels, teacher_channels=teacher.spec.channels, **weights)
    else:
        learner = DetectionLearner(network)

    def inputs_of(batch: Batch) -> DetectionViews:
        assert isinstance(batch.truth, DetectionTruth)
        return DetectionViews(
            batch.images,
            batch.truth.images,
            _survival(context, batch, network, settings),
            anchor_draws=_draws(context, batch, "anchors", network.spec.num_anchors).float(),
            region_draws=_draws(context, batch, "regions", network.spec.num_region_draws).float(),
            ramp=ramp_at(batch.turn.step, ramp_steps),
        )

    return learner, inputs_of


def _teacher(context: Context, settings: CwdSettings | FrsSettings) -> DenseNetwork:
    task = context.recipe.task
    assert task is not None
    path = context.inputs["classifier"].file(task_file(context.recipe))
    return frozen(context, load_network(path, NETWORK_OF[task.kind]).model, settings.precision)


def _survival(context: Context, batch: Batch, network: DenseNetwork, settings: LabelledTrainSettings) -> Tensor | None:
    return survival(context, batch, network.encoder.spec.depth, settings.drop_path)


def _draws(context: Context, batch: Batch, stream: str, num: int) -> Tensor:
    """Uniform numbers of each image, a function of (seed, epoch, sample index)."""
    draws = uniform(context.recipe.seed, stream, batch.turn.epoch, batch.turn.indices, num)
    return torch.from_numpy(draws).to(batch.images.device, non_blocking=True)
