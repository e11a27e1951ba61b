"""A recipe on a handful of images."""

from g2sd_deploy.recipe.shrinking import with_values
from g2sd_deploy.settings import Recipe

NUM_STEPS = 5
"""Optimiser steps of each training stage."""
BATCH_SIZE = 8
NUM_IMAGES = NUM_STEPS * BATCH_SIZE
"""Training images, and test images, spread evenly over the classes by the source."""


def shrink_for_smoke(recipe: Recipe) -> Recipe:
    """The same recipe and models for a few steps on a handful of images: it proves that every stage runs, not that the result is good."""
    data = recipe.data
    images = {name: min(NUM_IMAGES, getattr(data, name) or NUM_IMAGES) for name in ("max_train_images", "max_test_images")}
    training = {"epochs": 1.0, "warmup_epochs": 0.4, "batch_size": BATCH_SIZE}
    of_classifiers = {"robustness": {"max_images": 4}} if recipe.task is None else {}
    return with_values(
        recipe,
        {
            "data": images,
            **dict.fromkeys(("pretrain", "finetune", "specific", "quantise", "baseline"), training),
            "generic": training | {"loss_band": None},  # five steps teach nothing
            "evaluate": {
                "corruptions": {"max_images": 4, "severities": [3]},
                "occlusion": {"max_images": 4, "shares": [0.0, 0.5, 1.0]},
                "similarity": {"max_images": BATCH_SIZE, "batch_size": BATCH_SIZE},
                "sets": [],
            },
            "export": {"timing_seconds": 0.1, "max_quantisers": 1, "calibration_images": 8} | of_classifiers,
            "profile": {"seconds": 0.1},
        },
    )
