"""Data stage: decode the images once, at the size the networks need."""

import json

import numpy as np
from PIL import Image

from g2sd_deploy.artifact import Made
from g2sd_deploy.data.images import ImageSet, evenly_spread
from g2sd_deploy.data.sources import open_source
from g2sd_deploy.errors import UserError
from g2sd_deploy.settings import DataSettings
from g2sd_deploy.stages.context import DATASET_FILE, Context
from g2sd_export.edge.preprocess import Preprocessing

_PREVIEW_IMAGES = 16


def preprocessing_of(settings: DataSettings) -> Preprocessing:
    """How a test image becomes the networks' input; it belongs to every model trained on these images."""
    return Preprocessing(
        image_px=settings.image_px,
        resize_px=settings.resize_px or settings.image_px,
        num_channels=settings.num_channels,
        mean=settings.mean,
        std=settings.std,
    )


def run(context: Context) -> Made:
    """Decode both splits to arrays."""
    settings = context.recipe.data
    source = open_source(settings.source, settings.root)
    test_fit = preprocessing_of(settings)
    stored_px = settings.stored_px or settings.image_px
    train_fit = Preprocessing(stored_px, stored_px, settings.num_channels, settings.mean, settings.std)
    train = source.read(settings.train_split, train_fit, settings.max_train_images, context.progress.update)
    test = source.read(settings.test_split, test_fit, settings.max_test_images, context.progress.update)
    for name, images in (("training", train), ("test", test)):
        if not len(images):
            raise UserError(f"data.root {settings.root}: there are no {name} images")
    for split, images in (("train", train), ("test", test)):
        np.save(context.folder / f"{split}_images.npy", images.images)
        np.save(context.folder / f"{split}_labels.npy", images.labels)
    described = {"preprocessing": test_fit.to_dict(), "class_names": list(source.class_names)}
    (context.folder / DATASET_FILE).write_text(json.dumps(described, indent=2), encoding="utf-8")
    _write_preview(context, test)
    return Made(
        {
            "num_train": len(train),
            "num_test": len(test),
            "num_classes": len(source.class_names),
            "class_names": list(source.class_names),
            "image_px": settings.image_px,
            "num_channels": settings.num_channels,
            "description": source.description,
        },
        timing={"fingerprint": source.fingerprint()},
    )


def _write_preview(context: Context, images: ImageSet) -> None:
    """A strip of test images, one class after the other."""
    order = np.argsort(images.labels, kind="stable")
    picks = images.images[order[evenly_spread(len(order), min(_PREVIEW_IMAGES, len(order)))]]
    strip = np.concatenate(list(picks), axis=1)
    Image.fromarray(strip.squeeze(-1) if strip.shape[-1] == 1 else strip).save(context.folder / "preview.png")
