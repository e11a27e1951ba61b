"""Images that are read once, and the ways to score them."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Int64

from g2sd_deploy.data.images import Samples
from g2sd_deploy.data.testsets.class_maps import FORM
from g2sd_deploy.data.testsets.label_spaces import LabelSpace, imagenet_wnids, is_of_imagenet
from g2sd_deploy.errors import UserError

_NAMED = 3


@dataclass(frozen=True)
class LabelSets:
    """Several right classes for each image; none where nobody knows.

    Attributes:
        classes: Right classes of all images, one image after the other.
        ends: Where in `classes` those of each image end.
    """

    classes: Int64[np.ndarray, "entries"]
    ends: Int64[np.ndarray, "num"]

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> "LabelSets":
        """One list of classes per image."""
        ends = np.cumsum([len(one) for one in lists], dtype=np.int64)
        return cls(np.array([label for one in lists for label in one], dtype=np.int64), ends)

    def first(self) -> Int64[np.ndarray, "num"]:
        """The first right class of each image; -1 where there is none."""
        found = np.full(len(self.ends), -1, dtype=np.int64)
        starts = np.concatenate([[0], self.ends[:-1]]).astype(np.int64)
        known = starts < self.ends
        found[known] = self.classes[starts[known]]
        return found

    def rows(self, indices: Int64[np.ndarray, "batch"], place: Int64[np.ndarray, "classes"], num: int) -> Bool[np.ndarray, "batch {num}"]:
        """True where a class is right.

        Args:
            indices: Images.
            place: Column of each class.
            num: Columns.
        """
        right = np.zeros((len(indices), num), dtype=np.bool_)
        for row, index in enumerate(indices.tolist()):
            start = int(self.ends[index - 1]) if index else 0
            right[row, place[self.classes[start : int(self.ends[index])]]] = True
        return right


@dataclass(frozen=True)
class Aligned:
    """A scoring in terms of the logits of one model.

    Attributes:
        columns: Logits that are kept, in the order of the scoring's classes; None keeps all as they are.
        labels: Right class of each image among the kept logits; -1 where the image is not scored. Where several classes are right, one.
        num_classes: Kept logits.
        note: What had to be taken for granted; empty where nothing.
    """

    columns: Int64[np.ndarray, "kept"] | None
    labels: Int64[np.ndarray, "num"]
    num_classes: int
    note: str = ""
    label_sets: LabelSets | None = field(default=None, repr=False)
    place: Int64[np.ndarray, "classes"] | None = field(default=None, repr=False)

    def right(self, indices: Int64[np.ndarray, "batch"]) -> Bool[np.ndarray, "batch kept"] | None:
        """Right classes of some images, where there are several for an image; None where `labels` says it."""
        if self.label_sets is None or self.place is None:
            return None
        return self.label_sets.rows(indices, self.place, self.num_classes)


@dataclass(frozen=True)
class Scoring:
    """One way to score the images of a set.

    Attributes:
        name: What scores are listed under: the set's name, or that of the part of it which is scored.
        labels: Right class of each image, an index of `class_names`; -1 where the image is not scored.
        class_names: Classes of the set; WordNet ids for sets of ImageNet.
        restricted: Whether the logits are cut to these classes; otherwise a model may answer with any class that it has.
        label_sets: Right classes of each image, where there may be several; `labels` then holds one of them.
        note: The protocol in one line, for people.
        class_map: Class of the set to class of the model, or to the number of its logit, where the names differ.
    """

    name: str
    labels: Int64[np.ndarray, "num"]
    class_names: tuple[str, ...]
    restricted: bool
    note: str
    label_sets: LabelSets | None = None
    class_map: Mapping[str, str] = field(default_factory=dict)

    def aligned(self, space: LabelSpace) -> Aligned:
        """Where the classes are among the logits of a model.

        A model that tells exactly these classes apart has its logits brought into their order, so that models can be compared.

        Raises:
            UserError: The model lacks classes of the set.
        """
        logits, note = self._logits(space)
        kept = np.array(list(dict.fromkeys(logits.tolist())), dtype=np.int64)  # a class map may lead several classes to one logit
        if not self.restricted and len(kept) < space.num_logits:
            return self._aligned(None, logits, space.num_logits, note)
        rank = {logit: place for place, logit in enumerate(kept.tolist())}
        place = np.array([rank[logit] for logit in logits.tolist()], dtype=np.int64)
        is_all = np.array_equal(kept, np.arange(space.num_logits))
        return self._aligned(None if is_all else kept, place, len(kept), note)

    def _aligned(self, columns: Int64[np.ndarray, "kept"] | None, place: Int64[np.ndarray, "classes"], num: int, note: str) -> Aligned:
        labels = np.where(self.labels >= 0, place[self.labels], -1)
        return Aligned(columns, labels, num, note, self.label_sets, place)

    def _logits(self, space: LabelSpace) -> tuple[Int64[np.ndarray, "classes"], str]:
        """Logit of each class, and what had to be taken for granted."""
        assumed = space.has_imagenet_size and is_of_imagenet(self.class_names)
        order = {wnid: index for index, wnid in enumerate(imagenet_wnids())} if assumed else {}
        found = [self._mapped(name, space) if name in self.class_map else order.get(name, space.index(name)) for name in self.class_names]
        lacking = [name for name, index in zip(self.class_names, found, strict=True) if index is None]
        if lacking:
            named = ", ".join(lacking[:_NAMED]) + (f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else "")
            has = "without names" if space.is_numbered else f"({', '.join((space.class_names or ())[:_NAMED])}, ...)"
            raise UserError(
                f"{self.name}: the model has {space.num_logits} classes {has} and lacks {len(lacking)} of the set's {len(found)}: {named}; "
                f"leave the set out, or say which class of the model each is with --class-map FILE ({FORM})"
            )
        note = f"its {space.num_logits} logits have no names and are taken in the order of ImageNet's WordNet ids" if assumed else ""
        return np.array(found, dtype=np.int64), note

    def _mapped(self, name: str, space: LabelSpace) -> int:
        """Logit that the class map names: by the name of a class, else by its number."""
        target = self.class_map[name]
        index = space.index(target)
        if index is None and target.isdecimal() and int(target) < space.num_logits:
            index = int(target)
        if index is None:
            raise UserError(
                f"--class-map: {name} is mapped to {target}, which is no class of the model and no number of a logit from 0 to "
                f"{space.num_logits - 1}; correct the line"
            )
        return index


@dataclass(frozen=True)
class TestSet:
    """Images that are read once.

    Attributes:
        name: For people, while the images are read.
        samples: The images.
        scorings: Ways to score them.
        fingerprint: Changes when the files, the labels or the way to score them change.
        as_stored: Whether images are cropped in the middle and not resized, as those of ImageNet-C.
        corruption: Of the images, as they are stored: name and severity from 1 to 5.
        note: What a person should know of the files.
    """

    __test__ = False  # no test of pytest's

    name: str
    samples: Samples
    scorings: tuple[Scoring, ...]
    fingerprint: str
    as_stored: bool = False
    corruption: tuple[str, int] | None = None
    note: str = ""

    def without_repeats(self, spaces: Iterable[LabelSpace]) -> "TestSet":
        """The set without those restricted scorings that cut nothing from any model, where another one has the same labels.

        Raises:
            UserError: A model lacks classes of the set.
        """
        models = list(spaces)
        free = [one for one in self.scorings if not one.restricted]
        kept = tuple(
            one
            for one in self.scorings
            if not one.restricted
            or not any(np.array_equal(one.labels, other.labels) for other in free)
            or any(one.aligned(space).num_classes < space.num_logits for space in models)
        )
        return replace(self, scorings=kept)


def fingerprint_of_set(files: str, scorings: Sequence[Scoring]) -> str:
    """Digest of the files, given by their own, and of all that makes a score of them."""
    digest = hashlib.sha256(files.encode())
    for one in scorings:
        described = (one.name, one.class_names, one.restricted, sorted(one.class_map.items()))
        digest.update(repr(described).encode("utf-8", "surrogateescape"))
        digest.update(one.labels.tobytes())
        if one.label_sets is not None:
            digest.update(one.label_sets.classes.tobytes() + one.label_sets.ends.tobytes())
    return digest.hexdigest()
