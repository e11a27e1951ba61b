"""The protocols, against the catalogue that the sets are fetched by and against the published list of AlexNet's errors."""

import pytest

from g2sd_deploy.data.corruptions import CORRUPTION_NAMES
from g2sd_deploy.data.testsets.catalogue import ListedSet, known_sets
from g2sd_deploy.data.testsets.label_spaces import imagenet_wnids
from g2sd_deploy.data.testsets.protocols import EXTRA_CORRUPTIONS, KNOWN, MEAN_CORRUPTIONS, imagenette_wnids


@pytest.mark.parametrize(("name", "listed"), known_sets().items(), ids=known_sets())
def test_every_set_that_can_be_fetched_can_be_opened_with_the_same_classes_and_folders(name: str, listed: ListedSet) -> None:
    known = KNOWN[name]
    assert name in known.homes
    assert [known.folder_of(label) for label in range(len(known.class_names()))] == list(listed.class_names)
    assert [known.label_of(folder) for folder in listed.class_names] == list(range(len(listed.class_names)))
    assert known.label_of("train") is None
    assert set(known.corruptions) == {*listed.corruptions, *listed.may_hold}
    if listed.labels is None and not listed.corruptions:
        scored = "val" if "val" in listed.folders else "."
        assert scored in known.inside
        assert known.num_images == listed.folders[scored].most


def test_the_mean_is_over_the_published_15_corruptions() -> None:
    assert len(set(MEAN_CORRUPTIONS)) == 15
    assert set(MEAN_CORRUPTIONS) - set(CORRUPTION_NAMES) == {"frost"}
    assert not set(MEAN_CORRUPTIONS) & set(EXTRA_CORRUPTIONS)
    assert len(EXTRA_CORRUPTIONS) == 4


def test_imagenette_has_the_published_classes() -> None:
    assert imagenette_wnids()[:2] == ("n01440764", "n02102040")
    assert [imagenet_wnids().index(wnid) for wnid in imagenette_wnids()] == [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]
