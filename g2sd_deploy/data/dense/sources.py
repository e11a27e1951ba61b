"""The data set of a task that a recipe names."""

from typing import Literal

from g2sd_deploy.data.dense.folders import open_dense_folder
from g2sd_deploy.data.dense.reading import DenseSource
from g2sd_deploy.data.scenes.settings import SceneSpec
from g2sd_deploy.data.scenes.source import SceneSource
from g2sd_deploy.data.sources import BUNDLED_FASHION_MNIST, expand
from g2sd_deploy.errors import UserError
from g2sd_deploy.settings import DataSettings

Kind = Literal["segmentation", "detection"]


def dense_source_of(settings: DataSettings, kind: Kind) -> DenseSource:
    """Open the data set with the truth that the task asks for.

    Args:
        settings: Of the recipe; its source is one that the task knows.
        kind: The task.

    Raises:
        UserError: It is not there, or is built otherwise than its source says.
    """
    match settings.source:
        case "scenes":
            return _scenes(settings, kind)
        case "huggingface":
            from g2sd_deploy.data.dense.huggingface import HubMasks

            classes = None if settings.classes is None else expand(settings.classes)
            return HubMasks(settings.root, ignore_zero=settings.ignore_zero, classes=classes)
        case folder:
            return open_dense_folder(folder, settings.root, ignore_zero=settings.ignore_zero)


def _scenes(settings: DataSettings, kind: Kind) -> DenseSource:
    if settings.root != BUNDLED_FASHION_MNIST:
        raise UserError(f"data.root is {settings.root}; scenes are composed of {BUNDLED_FASHION_MNIST}, so set data.root to it")
    assert settings.max_train_images is not None and settings.max_test_images is not None
    contents = {} if settings.scenes is None else settings.scenes.model_dump()
    try:
        spec = SceneSpec(image_px=settings.image_px, **contents)
    except UserError as error:
        raise UserError(f"data.{error}") from None
    return SceneSource(spec, settings.max_train_images, settings.max_test_images, task=kind)
