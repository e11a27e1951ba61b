"""Sets that are evaluated together: images that several of them score are read once."""

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np

from g2sd_deploy.data.sources.folder import FileSamples
from g2sd_deploy.data.testsets.protocols import CLEAN, VAL
from g2sd_deploy.data.testsets.scorings import Scoring, TestSet, fingerprint_of_set


def merge(sets: Sequence[TestSet]) -> list[TestSet]:
    """Join the sets of the same files, and score the clean images of the classes of ImageNet-A and -R.

    Where imagenet-a (or imagenet-r) and imagenet-val are both among them, the validation images get the scoring imagenet-a-clean (or
    imagenet-r-clean): those of the 200 classes, with the logits cut to these, which is what the other figure compares with.

    Returns:
        The sets in the order in which their images were first asked for.
    """
    joined: dict[Hashable, TestSet] = {}
    for position, test in enumerate(sets):
        key = _same_images(test) or position
        joined[key] = _join(joined[key], test) if key in joined else test
    subsets = {scoring.name: scoring for test in sets for scoring in test.scorings if scoring.name in CLEAN}
    return [_with_clean(test, list(subsets.values())) for test in joined.values()]


def _same_images(test: TestSet) -> Hashable | None:
    """Equal for the same files, shown in the same way; None where nothing tells."""
    if not isinstance(test.samples, FileSamples):
        return None
    listing = test.samples.listing
    digest = hashlib.sha256(b"".join(np.asarray(listing.arrays[name]).tobytes() for name in ("names", "name_ends"))).digest()
    return listing.where["root"], digest, test.as_stored, test.corruption


def _join(first: TestSet, second: TestSet) -> TestSet:
    return replace(
        first,
        scorings=first.scorings + second.scorings,
        fingerprint=fingerprint_of_set(first.fingerprint + second.fingerprint, ()),
        note=first.note or second.note,
    )


def _with_clean(test: TestSet, subsets: Sequence[Scoring]) -> TestSet:
    val = next((scoring for scoring in test.scorings if scoring.name == VAL), None)
    if val is None:
        return test
    have = {scoring.name for scoring in test.scorings}
    clean = [_clean(val, subset) for subset in subsets if CLEAN[subset.name] not in have]
    clean = [scoring for scoring in clean if (scoring.labels >= 0).any()]
    if not clean:
        return test
    return replace(test, scorings=test.scorings + tuple(clean), fingerprint=fingerprint_of_set(test.fingerprint, clean))


def _clean(val: Scoring, subset: Scoring) -> Scoring:
    """Validation images of the subset's classes, with its cut of the logits."""
    place = {name: label for label, name in enumerate(subset.class_names)}
    of_class = np.array([place.get(name, -1) for name in val.class_names], dtype=np.int64)
    labels = np.where(val.labels >= 0, of_class[val.labels], -1)
    note = f"ImageNet validation images of the {len(place)} classes of {subset.name}, logits cut to these; {(labels >= 0).sum():,} images"
    class_map = {name: val.class_map[name] for name in subset.class_names if name in val.class_map}
    return Scoring(CLEAN[subset.name], labels, subset.class_names, True, note, class_map=class_map)
