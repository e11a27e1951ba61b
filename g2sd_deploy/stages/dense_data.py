"""What the data stage does for a task: list the images, and look at every test image with its truth."""

import json

import numpy as np
from PIL import Image

from g2sd_deploy.artifact import Made
from g2sd_deploy.data.dense.annotations import Annotated, DenseSamples
from g2sd_deploy.data.dense.sources import dense_source_of
from g2sd_deploy.data.images import BadImage, evenly_spread
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.stages.context import DATASET_FILE, TRAIN_LISTING, Context, preprocessing_of
from g2sd_deploy.stages.dense_context import TEST_LISTING
from g2sd_deploy.stages.dense_pictures import drawn_truth

_PREVIEW_IMAGES = 6
_PREVIEW_PX = 256


def list_dense(context: Context) -> Made:
    """List the training and test images of a task; those of the test have to be sound, every one."""
    settings, task = context.recipe.data, context.recipe.task
    assert task is not None
    source = dense_source_of(settings, task.kind)
    train = source.samples(settings.train_split, settings.max_train_images)
    test = source.samples(settings.test_split, settings.max_test_images)
    for name, samples in (("training", train), ("test", test)):
        if not len(samples):
            raise UserError(f"data.root {settings.root}: there are no {name} images")
    where = {f"{split}_where": samples.save(context.folder / listing) for split, samples, listing in _splits(train, test)}
    described = {"class_names": list(source.class_names), "task": task.kind, "preprocessing": preprocessing_of(settings).to_dict()}
    (context.folder / DATASET_FILE).write_text(json.dumps(described, indent=2), encoding="utf-8")
    counts = _look_at_all(context, test, task.kind, source.class_names)
    return Made(
        {
            "num_train": len(train),
            "num_test": len(test),
            "num_classes": len(source.class_names),
            "class_names": list(source.class_names),
            "image_px": settings.image_px,
            "num_channels": settings.num_channels,
            "description": source.description,
            **counts,
        },
        timing={"fingerprint": source.fingerprint(), **where},
    )


def _splits(train: DenseSamples, test: DenseSamples) -> tuple[tuple[str, DenseSamples, str], ...]:
    return ("train", train, TRAIN_LISTING), ("test", test, TEST_LISTING)


def _look_at_all(context: Context, test: DenseSamples, kind: str, class_names: tuple[str, ...]) -> dict[str, int]:
    """Read every test image, and draw a few.

    Raises:
        RunFailed: One cannot be used: scores on fewer images would be other figures.
    """
    shown = set(evenly_spread(len(test), min(_PREVIEW_IMAGES, len(test))).tolist())
    pictures, num_objects, num_empty = [], 0, 0
    for index in range(len(test)):
        context.progress.update(index + 1, len(test))
        annotated = _read(context, test, index)
        if annotated.instances is not None:
            num_objects += len(annotated.instances.labels)
            num_empty += not len(annotated.instances.labels)
        if index in shown:
            pictures.append(_square(drawn_truth(annotated, kind, class_names)))
    Image.fromarray(np.concatenate(pictures, axis=1)).save(context.folder / "preview.png")
    return {"num_test_objects": num_objects, "num_empty_test_images": num_empty} if num_objects or num_empty else {}


def _read(context: Context, test: DenseSamples, index: int) -> Annotated:
    try:
        return test.read(index)
    except BadImage as error:
        root = context.recipe.data.root
        raise RunFailed(
            f"{root}/{test.name(index)}: {error}; every test image and its truth has to be sound: `g2sd data verify` lists all bad ones"
        ) from None


def _square(picture: np.ndarray) -> np.ndarray:
    side = (_PREVIEW_PX, _PREVIEW_PX)
    return np.asarray(Image.fromarray(picture).resize(side, Image.Resampling.BILINEAR))
