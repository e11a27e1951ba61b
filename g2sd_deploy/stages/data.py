"""Data stage: decode the images once, at the size the networks need, or list those that training decodes itself."""

import json

import numpy as np
from PIL import Image

from g2sd_deploy.artifact import Made
from g2sd_deploy.data.array_file import ArrayFile
from g2sd_deploy.data.decoding import decoded
from g2sd_deploy.data.images import ImageSet, Samples, Skipped, evenly_spread
from g2sd_deploy.data.sources import save_samples, source_of
from g2sd_deploy.data.sources.shards import ShardSamples
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.settings import DataSettings
from g2sd_deploy.stages.context import DATASET_FILE, TRAIN_LISTING, Context, preprocessing_of
from g2sd_deploy.stages.dense_data import list_dense
from g2sd_export.edge.preprocess import Preprocessing

_PREVIEW_IMAGES = 16
_NAMED = 5


def run(context: Context) -> Made:
    """Decode the test images and, where they are stored as arrays, the training images; encoded ones are only listed."""
    if context.recipe.task is not None:
        return list_dense(context)
    settings = context.recipe.data
    source = source_of(settings)
    train = source.samples(settings.train_split, settings.max_train_images)
    test = source.samples(settings.test_split, settings.max_test_images)
    for name, samples in (("training", train), ("test", test)):
        if not len(samples):
            raise UserError(f"data.root {settings.root}: there are no {name} images")
    skipped, where = list[Skipped](), {}
    if settings.store == "encoded":
        _check_cache(settings, train)
        where = save_samples(train, context.folder / TRAIN_LISTING)
    else:
        skipped = _store_train(context, train)
    preprocessing = preprocessing_of(settings)
    _store_test(context, test, preprocessing)
    described = {
        "store": settings.store,
        "shuffle_shards": settings.shuffle_shards,
        "preprocessing": preprocessing.to_dict(),
        "class_names": list(source.class_names),
    }
    (context.folder / DATASET_FILE).write_text(json.dumps(described, indent=2), encoding="utf-8")
    _write_preview(context, ImageSet(np.load(context.folder / "test_images.npy", mmap_mode="r"), np.asarray(test.labels)))
    return Made(
        {
            "num_train": len(train) - len(skipped),
            "num_test": len(test),
            "num_classes": len(source.class_names),
            "class_names": list(source.class_names),
            "image_px": settings.image_px,
            "num_channels": settings.num_channels,
            "description": source.description,
            "store": settings.store,
            "num_bad": len(skipped),
            "bad_images": [{"name": bad.name, "reason": bad.reason} for bad in skipped],
        },
        timing={"fingerprint": source.fingerprint(), "train_where": where},
    )


def _check_cache(settings: DataSettings, samples: Samples) -> None:
    """Refuse a cache that would fetch a shard again for nearly every image.

    Raises:
        UserError: The shards that are shuffled together do not fit into it.
    """
    if settings.cache_gib is None or not isinstance(samples, ShardSamples):
        return
    needed = samples.gib_at_once(settings.shuffle_shards)
    if needed > settings.cache_gib:
        together = f"the {settings.shuffle_shards} largest" if settings.shuffle_shards else "all"
        raise UserError(
            f"data.cache_gib is {settings.cache_gib:g}, but images are shuffled over {together} training shards, "
            f"which take {needed:.3g} GiB, so they would be fetched again and again; raise data.cache_gib or lower data.shuffle_shards"
        )


def _store_train(context: Context, samples: Samples) -> list[Skipped]:
    """Decode the training images into one array; bad ones are left out.

    Returns:
        The bad ones.

    Raises:
        RunFailed: There are more of them than the recipe allows, or no others.
    """
    settings = context.recipe.data
    side = settings.stored_px or settings.image_px
    fit = Preprocessing(side, side, settings.num_channels, settings.mean, settings.std)
    skipped: list[Skipped] = []
    with ArrayFile(context.folder / "train_images.npy", (side, side, settings.num_channels)) as file:
        context.progress.update(0, len(samples))
        for done, image in enumerate(decoded(samples, fit), 1):
            context.progress.update(done, len(samples))
            if not isinstance(image, Skipped):
                file.append(image)
                continue
            skipped.append(image)
            if len(skipped) > settings.max_bad_images:
                raise RunFailed(_too_many(settings, skipped))
            context.warn(f"{settings.root}/{image.name}: {image.reason}; the image is left out")
    if len(skipped) == len(samples):
        raise RunFailed(f"data.root {settings.root}: none of the {len(samples)} training images can be decoded")
    np.save(context.folder / "train_labels.npy", np.delete(samples.labels, [bad.index for bad in skipped]))
    return skipped


def _too_many(settings: DataSettings, skipped: list[Skipped]) -> str:
    last, before = skipped[-1], [bad.name for bad in skipped[:-1]]
    names = f" (before it: {', '.join(before[:_NAMED])}{', ...' if len(before) > _NAMED else ''})" if before else ""
    return (
        f"{settings.root}/{last.name}: {last.reason}{names}; data.max_bad_images allows {settings.max_bad_images} such training images: "
        "g2sd data verify lists all of them"
    )


def _store_test(context: Context, samples: Samples, fit: Preprocessing) -> None:
    """Decode the test images into one array.

    Raises:
        RunFailed: One cannot be decoded: accuracy on fewer images would be another figure.
    """
    with ArrayFile(context.folder / "test_images.npy", (fit.image_px, fit.image_px, fit.num_channels)) as file:
        context.progress.update(0, len(samples))
        for done, image in enumerate(decoded(samples, fit), 1):
            context.progress.update(done, len(samples))
            if isinstance(image, Skipped):
                root = context.recipe.data.root
                raise RunFailed(
                    f"{root}/{image.name}: {image.reason}; every test image has to be there: g2sd data verify lists all bad ones"
                )
            file.append(image)
    np.save(context.folder / "test_labels.npy", samples.labels)


def _write_preview(context: Context, images: ImageSet) -> None:
    """A strip of test images, one class after the other."""
    order = np.argsort(images.labels, kind="stable")
    picks = images.images[order[evenly_spread(len(order), min(_PREVIEW_IMAGES, len(order)))]]
    strip = np.concatenate(list(picks), axis=1)
    Image.fromarray(strip.squeeze(-1) if strip.shape[-1] == 1 else strip).save(context.folder / "preview.png")
