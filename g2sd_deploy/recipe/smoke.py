"""A recipe on a handful of images."""

import json

from g2sd_deploy.settings import Recipe

NUM_STEPS = 5
"""Optimiser steps of each training stage."""
BATCH_SIZE = 8
NUM_IMAGES = NUM_STEPS * BATCH_SIZE
"""Training images, and test images, spread evenly over the classes by the source."""


def shrink_for_smoke(recipe: Recipe) -> Recipe:
    """The same recipe and models for a few steps on a handful of images: it proves that every stage runs, not that the result is good."""
    values = recipe.model_dump(mode="json")
    for split in ("max_train_images", "max_test_images"):
        values["data"][split] = min(NUM_IMAGES, values["data"][split] or NUM_IMAGES)
    for stage in ("pretrain", "finetune", "generic", "specific", "baseline"):
        if values[stage] is not None:
            values[stage] |= {"epochs": 1.0, "warmup_epochs": 0.4, "batch_size": BATCH_SIZE}
    if values["generic"] is not None and "loss_band" in values["generic"]:
        values["generic"]["loss_band"] = None  # five steps teach nothing
    if values["evaluate"] is not None and values["evaluate"]["corruptions"] is not None:
        values["evaluate"]["corruptions"] |= {"max_images": 4, "severities": [3]}
    if values["profile"] is not None:
        values["profile"] |= {"repeats": 10, "warmup": 2}
    return Recipe.model_validate_json(json.dumps(values))
