"""How much of a recipe a trial does."""

from collections.abc import Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from g2sd_deploy.recipe import with_values
from g2sd_deploy.settings import EvaluateSettings, ExportSettings, Recipe, TrainSettings
from g2sd_deploy.training.schedule import num_steps_of

if TYPE_CHECKING:
    from g2sd_export.targets import Target

NUM_STEPS = 20
"""Optimiser steps of each training stage in a trial, if it has so many."""
MIN_STEPS = 3
"""Fewest of them, whatever time they take."""
PROFILE_SECONDS = 0.1
"""For each thing that the profile times; a round of each is timed in any case."""
_HANDFUL_AT_224 = 160
_CORRUPTED_AT_224 = 16
_MOST_IMAGES, _MOST_CORRUPTED = 2000, 400
_EVALUATE_BATCHES = 4
_PER_CORE = 128
_FEWEST_COMPARED = 8
_FEWEST_CALIBRATED = 8
_NUM_ROBUST = 8


@dataclass(frozen=True)
class Extent:
    """Images that a run uses, and that its trial uses.

    Attributes:
        corrupted: Images of each corrupted set.
        occluded: Images that patches are removed from.
        compared: Images whose layers are compared.
    """

    train: int
    test: int
    corrupted: int
    occluded: int
    compared: int
    trial_train: int
    trial_test: int
    trial_corrupted: int
    trial_occluded: int
    trial_compared: int


def training_of(recipe: Recipe) -> dict[str, TrainSettings]:
    """Stages that train, by name."""
    sections = {name: getattr(recipe, name) for name in type(recipe).model_fields}
    return {name: section for name, section in sections.items() if isinstance(section, TrainSettings)}


def extent_of(recipe: Recipe, num_train: int, num_test: int, num_cores: int = 1) -> Extent:
    """Images that a trial needs.

    Encoded images, and those of a task, are read once only, as many as the longest of its trainings needs: read again they would come
    from memory. Images stored as arrays have to be decoded first, so there are no more of them than one batch needs, and at least so many
    that every core has its share of the decoding that is timed.

    Args:
        recipe: Its data's limits are not looked at; the numbers hold.
        num_train: Training images of the run.
        num_test: Test images of the run.
        num_cores: Cores that decode.
    """
    batch = max((training.fewest_images for training in training_of(recipe).values()), default=1)
    settings = recipe.evaluate or EvaluateSettings()
    corrupted = min(num_test, settings.corruptions.max_images) if settings.corruptions is not None else 0
    occluded = min(num_test, settings.occlusion.max_images) if settings.occlusion is not None else 0
    compared = min(num_test, settings.similarity.max_images) if settings.similarity is not None else 0
    few = _handful(_CORRUPTED_AT_224, recipe.data.image_px, _MOST_CORRUPTED)
    handful = _handful(_HANDFUL_AT_224, recipe.data.image_px, _MOST_IMAGES)
    read_anew = recipe.data.store == "encoded" or recipe.task is not None
    train = NUM_STEPS * batch if read_anew else max(batch, handful, _PER_CORE * num_cores)
    return Extent(
        train=num_train,
        test=num_test,
        corrupted=corrupted,
        occluded=occluded,
        compared=compared,
        trial_train=min(num_train, train),
        trial_test=min(num_test, handful),
        trial_corrupted=min(corrupted, few),
        trial_occluded=min(occluded, few),
        trial_compared=min(compared, max(_FEWEST_COMPARED, few)),
    )


def _handful(at_224: int, image_px: int, most: int) -> int:
    """About as many pixels, whatever the size of an image."""
    return max(at_224 // 4, min(most, round(at_224 * (224 / image_px) ** 2)))


def trial_recipe(recipe: Recipe, extent: Extent, running: Set[str]) -> Recipe:
    """The same models, sizes, batches and number formats on fewer images, for fewer steps.

    The learning rate is next to nothing: the schedule's warm-up is not part of a trial, and without it a loss could leave all bounds.

    Args:
        recipe: What the run will be.
        extent: Images of both.
        running: Stages that the run will do; of the others, which only hand something on, as little as possible is done.
    """
    changes: dict[str, Any] = {
        "data": {"max_train_images": max(1, extent.trial_train), "max_test_images": max(1, extent.trial_test)},
        "evaluate": {
            "corruptions": {"max_images": max(1, extent.trial_corrupted), "severities": [3]},
            "occlusion": {"max_images": max(1, extent.trial_occluded)},
            "similarity": {"max_images": extent.trial_compared, "batch_size": extent.trial_compared},
            "sets": [],
        },
        "profile": {"seconds": PROFILE_SECONDS},
    }
    if recipe.export is not None:
        of_classifiers = {"robustness": {"max_images": _NUM_ROBUST}} if recipe.task is None else {}
        changes["export"] = {"max_quantisers": 1, "calibration_images": _num_calibrated(recipe, extent)[1], **of_classifiers}
    if recipe.evaluate is not None and recipe.evaluate.batch_size is not None:
        changes["evaluate"]["batch_size"] = max(1, min(recipe.evaluate.batch_size, extent.trial_test // _EVALUATE_BATCHES))
    for name, settings in training_of(recipe).items():
        of_run, of_trial = settings.num_trained(extent.train), settings.num_trained(extent.trial_train)
        steps = min(NUM_STEPS, num_steps_of(settings.epochs, settings.batch_size, of_run)) if name in running else 1
        epochs = steps / max(1, of_trial // settings.batch_size)
        changes[name] = {"epochs": epochs, "warmup_epochs": 0.0, "base_lr": 1e-8, "min_lr": 0.0, "loss_band": None}
    return with_values(recipe, changes)


def evaluation_factors(settings: EvaluateSettings, extent: Extent, set_images: int) -> list[float]:
    """How many times as much the run does of each pass that its trial makes over the test images, in their order.

    Args:
        settings: What the run measures.
        extent: Images of both.
        set_images: Images of the other sets, which the trial passes over.
    """
    factors = [(extent.test + set_images) / extent.trial_test]
    if settings.corruptions is not None:
        factors.append(len(settings.corruptions.severities) * extent.corrupted / extent.trial_corrupted)
    if settings.occlusion is not None:
        factors.append(extent.occluded / extent.trial_occluded)
    if settings.similarity is not None:
        factors.append(extent.compared / extent.trial_compared)
    return factors


def export_factor(note: str, recipe: Recipe, extent: Extent) -> float:
    """How many times as much the run does of what its trial counted while it exported.

    Args:
        note: What was counted.
        recipe: Of the run; it exports.
        extent: Images of both.

    Returns:
        1 for what does not depend on the images: files that are made, engines that are built, latency.
    """
    settings = recipe.export
    assert settings is not None
    of_run, of_trial = (min(num, settings.max_images or num) for num in (extent.test, extent.trial_test))
    if note.startswith("quantising"):
        calibrated, tried = _num_calibrated(recipe, extent)
        return len(_target_of(settings).int8.methods) * calibrated / tried
    if settings.robustness is not None and note.endswith("corrupted"):
        return min(of_run, settings.robustness.max_images) / min(of_trial, _NUM_ROBUST)
    return of_run / of_trial if note.startswith("proving") else 1.0


def _num_calibrated(recipe: Recipe, extent: Extent) -> tuple[int, int]:
    """Images that a run calibrates with, and its trial, which keeps as many and more to judge its files on."""
    from g2sd_export.int8.calibration import inputs_of

    settings = recipe.export
    assert settings is not None
    planned = _target_of(settings).int8.num_images
    wanted = min(
        extent.train, settings.calibration_images or (planned if recipe.task is None else inputs_of(planned, recipe.data.image_px))
    )
    return wanted, max(_FEWEST_CALIBRATED, min(wanted, extent.trial_train // 4))


def _target_of(settings: ExportSettings) -> "Target":
    from g2sd_export.targets import load_target

    return load_target(settings.target).narrowed(settings.only, settings.max_quantisers)


def decoded_bytes(recipe: Recipe, num_train: int, num_test: int) -> tuple[int, int]:
    """Sizes of the arrays that the data stage writes: training images (0 where they stay encoded), and test images; none for a task."""
    data = recipe.data
    if recipe.task is not None:
        return 0, 0
    side = data.stored_px or data.image_px
    train = num_train * side**2 * data.num_channels if data.store == "arrays" else 0
    return train, num_test * data.image_px**2 * data.num_channels
