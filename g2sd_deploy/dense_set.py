"""The images with their truth that a command's --on names, for a segmenter or a detector."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from g2sd_deploy.errors import UserError

if TYPE_CHECKING:
    from g2sd_deploy.data.dense.reading import DenseSource
    from g2sd_export.edge.dense.task import DenseTask

_KIND_OF_SET = {"masks": "segmentation", "coco": "detection"}
_NAMED = 3


class Answering(Protocol):
    """A model that answers for pixels or objects."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def task(self) -> "DenseTask":
        """What it is for."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of its classes."""


def set_for(model: Answering, root: str, *, ignore_zero: bool, option: str = "--on") -> "DenseSource":
    """Open a folder of masks, or of COCO's layout, for a model.

    Args:
        model: Which has to know its classes.
        root: The folder, as the option gave it.
        ignore_zero: As `DataSettings.ignore_zero`.
        option: Its name, for people.

    Raises:
        UserError: It is no such folder, or has other classes.
    """
    from g2sd_deploy.data.dense.folders import dense_kind_of, open_dense_folder

    kind = dense_kind_of(root)
    if kind is None or _KIND_OF_SET[kind] != model.task.kind:
        wanted = "images/SPLIT and annotations/SPLIT" if model.task.kind == "segmentation" else "SPLIT and annotations/instances_SPLIT.json"
        raise UserError(f"{option} {root}: {model.name} is for {model.task.kind}; give a folder with {wanted} (docs/dense_data.md)")
    source = open_dense_folder(kind, root, ignore_zero=ignore_zero)
    if source.class_names != model.class_names:
        raise UserError(
            f"{option} {root}: has {_listed(source.class_names)}, and {model.name} is for {about(model)}; "
            "give a set of its classes in their order"
        )
    return source


def about(model: Answering) -> str:
    """What a model is for, in words."""
    return f"{model.task.kind} of {_listed(model.class_names)}"


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)} classes ({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''})"
