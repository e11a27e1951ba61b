"""What the logits of a model mean, and where in them a class of a set is found."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from g2sd_deploy.errors import UserError

_WNID = re.compile(r"n\d{8}")


def timm_info(name: str) -> str:
    """A text file of timm's `data/_info`; timm itself, which takes seconds to import, is not imported."""
    found = find_spec("timm")
    assert found is not None and found.submodule_search_locations
    return (Path(found.submodule_search_locations[0]) / "data" / "_info" / name).read_text(encoding="utf-8")


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """WordNet ids of the 1000 classes of ImageNet-1k, in the order of every public classifier's logits.

    Source: huggingface/pytorch-image-models, timm/data/_info/imagenet_synsets.txt (sorted as text).
    """
    return tuple(timm_info("imagenet_synsets.txt").split())


@cache
def imagenet_subset(which: Literal["a", "r"]) -> tuple[str, ...]:
    """WordNet ids of the 200 classes of ImageNet-A or of ImageNet-R, which are not the same ones, in the order of the logits.

    Source: huggingface/pytorch-image-models, timm/data/_info/imagenet_a_indices.txt and imagenet_r_indices.txt; equal to
    `thousand_k_to_200` of hendrycks/natural-adv-examples eval.py and `imagenet_r_mask` of hendrycks/imagenet-r eval.py.
    """
    wnids = imagenet_wnids()
    return tuple(wnids[int(index)] for index in timm_info(f"imagenet_{which}_indices.txt").split())


def is_of_imagenet(class_names: tuple[str, ...]) -> bool:
    """Whether these are classes of ImageNet-1k, named by their WordNet ids."""
    return bool(class_names) and all(map(_WNID.fullmatch, class_names)) and set(class_names) <= set(imagenet_wnids())


@dataclass(frozen=True)
class LabelSpace:
    """The classes that a model tells apart.

    Attributes:
        class_names: Name of each logit; None where the model does not say.
        num_logits: Number of logits.
    """

    class_names: tuple[str, ...] | None
    num_logits: int

    @classmethod
    def of(cls, class_names: tuple[str, ...] | None, num_logits: int) -> "LabelSpace":
        """The space of a model.

        Raises:
            UserError: There are not as many names as logits.
        """
        if class_names is not None and len(class_names) != num_logits:
            raise UserError(f"the model has {num_logits} logits, but names {len(class_names)} classes; give it the names of all of them")
        return cls(class_names, num_logits)

    @cached_property
    def is_numbered(self) -> bool:
        """Whether the logits have no names but their numbers."""
        return self.class_names is None or self.class_names == tuple(map(str, range(self.num_logits)))

    @cached_property
    def has_imagenet_size(self) -> bool:
        """Whether the logits may be those of ImageNet-1k in its usual order, though no name says so."""
        return self.is_numbered and self.num_logits == len(imagenet_wnids())

    def index(self, name: str) -> int | None:
        """Logit of a class; None where the model has no such class.

        Raises:
            UserError: Several of its classes have this name.
        """
        if name in self._ambiguous:
            raise UserError(f"several classes of the model are named {name}; name the logit by its number in a --class-map FILE")
        return self._indices.get(name)

    @cached_property
    def _indices(self) -> dict[str, int]:
        names = map(str, range(self.num_logits)) if self.class_names is None else self.class_names
        return {name: index for index, name in enumerate(names)}

    @cached_property
    def _ambiguous(self) -> frozenset[str]:
        return frozenset(name for name, times in Counter(self.class_names or ()).items() if times > 1)
