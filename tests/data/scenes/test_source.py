"""Scenes as a data set: its names, its numbers, and opening it again elsewhere."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from g2sd_deploy.data.scenes import SceneSource, SceneSpec, compose, open_scenes
from g2sd_deploy.data.sources.idx import FASHION_MNIST_CLASSES
from g2sd_deploy.errors import UserError


@pytest.fixture
def source(spec: SceneSpec) -> SceneSource:
    return SceneSource(spec, num_train=10, num_test=4)


def test_class_names_are_those_of_pixels_or_of_objects(spec: SceneSpec) -> None:
    assert SceneSource(spec, 1, 1, task="segmentation").class_names == ("background", *FASHION_MNIST_CLASSES)
    assert SceneSource(spec, 1, 1, task="detection").class_names == FASHION_MNIST_CLASSES


def test_a_split_holds_the_asked_number_and_a_limit_spreads_evenly(source: SceneSource, spec: SceneSpec) -> None:
    assert (len(source.samples("train", None)), len(source.samples("test", None))) == (10, 4)
    some = source.samples("train", 5)
    assert [some.name(i) for i in range(len(some))] == ["train/000000", "train/000002", "train/000004", "train/000006", "train/000008"]
    assert np.array_equal(some.read(3).pixels, compose(spec, "train", 6).pixels)


def test_more_scenes_begin_with_the_same_ones(source: SceneSource) -> None:
    more = replace(source, num_train=1000).samples("train", None)
    assert np.array_equal(more.read(9).pixels, source.samples("train", None).read(9).pixels)


def test_samples_are_opened_again_from_what_they_tell_and_in_workers(source: SceneSource, tmp_path: Path) -> None:
    samples = source.samples("test", 2)
    opened = open_scenes(json.loads(json.dumps(samples.save(tmp_path))))
    assert opened == samples == pickle.loads(pickle.dumps(samples))
    assert np.array_equal(opened.read(1).pixels, samples.read(1).pixels)


def test_scenes_of_another_version_are_refused(source: SceneSource, tmp_path: Path) -> None:
    where = source.samples("test", None).save(tmp_path)
    for changed in ({"version": 0}, {"garments": "other"}):
        with pytest.raises(UserError, match="make the data stage again with --force data"):
            open_scenes({**where, **changed})


def test_the_fingerprint_covers_all_that_the_data_follow_from(
    source: SceneSource, spec: SceneSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [replace(source, spec=replace(spec, seed=9)), replace(source, num_train=11), replace(source, num_test=5)]
    others += [replace(source, spec=replace(spec, max_garments=2)), replace(source, task="detection")]
    prints = {one.fingerprint() for one in (source, *others)}
    monkeypatch.setattr("g2sd_deploy.data.scenes.source.VERSION", 99)
    prints.add(source.fingerprint())
    monkeypatch.setattr("g2sd_deploy.data.scenes.source.digest_of_garments", lambda: "other")
    prints.add(source.fingerprint())
    assert len(prints) == 8


def test_the_description_says_what_the_scenes_are_made_of(source: SceneSource) -> None:
    assert "1 to 6 Fashion-MNIST garments" in source.description
    assert "10 for training and 4 for testing" in source.description


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_px": 31}, "image_px is 31; give 32 to 1024"),
        ({"max_garments": 0}, "max_garments is 0; give 1 to 20"),
        ({"seed": -1}, "seed is -1; give at least 0"),
        ({"largest": 0.8}, "largest is 0.8; give 0.2 to 0.7"),
        ({"smallest": 0.5, "largest": 0.4}, "smallest is 0.5; give 0.2 to 0.4"),
        ({"min_visible": 1.5}, "min_visible is 1.5; give 0 to 1"),
    ],
)
def test_impossible_scenes_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SceneSpec(**wrong)  # type: ignore[arg-type]


def test_sets_without_scenes_and_unknown_splits_are_refused(spec: SceneSpec, source: SceneSource) -> None:
    with pytest.raises(UserError, match="num_test is 0; give at least 1"):
        SceneSource(spec, 1, 0)
    with pytest.raises(UserError, match="no split val; give train or test"):
        source.samples("val", None)
