"""Scenes as files: read back by pycocotools and Pillow they are the scenes, and they are written as a whole or not at all."""

import contextlib
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from pycocotools.coco import COCO
from typer.testing import CliRunner

from g2sd_deploy.cli_scenes import write_scenes as command
from g2sd_deploy.data.dense.coco import CocoFolder
from g2sd_deploy.data.dense.mask_folder import MaskFolder
from g2sd_deploy.data.scenes import SceneSource, SceneSpec
from g2sd_deploy.data.scenes.preview import draw_preview
from g2sd_deploy.data.scenes.source import SceneSamples
from g2sd_deploy.data.scenes.writing import write_scenes
from g2sd_deploy.errors import RunFailed, UserError

# pycocotools' decoder with NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")


@pytest.fixture(scope="module")
def source() -> SceneSource:
    return SceneSource(SceneSpec(image_px=40, max_garments=4, seed=2), num_train=5, num_test=3)


@pytest.fixture(scope="module")
def written(source: SceneSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("scenes") / "new" / "set"
    write_scenes(source, target, tick=lambda done, total: None)
    return target


def _files(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("split", ["train", "test"])
def test_pycocotools_reads_the_scenes_back(source: SceneSource, written: Path, split: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(written / "coco" / "annotations" / f"instances_{split}.json"))
    samples = source.samples(split, None)
    assert [coco.cats[1 + label]["name"] for label in range(10)] == list(SceneSource(source.spec, 1, 1, "detection").class_names)
    assert len(coco.imgs) == len(samples)
    for index, image in enumerate(coco.dataset["images"]):
        scene = samples.read(index)
        assert scene.instances is not None
        assert (image["width"], image["height"]) == (40, 40)
        with Image.open(written / "coco" / split / image["file_name"]) as opened:
            assert np.array_equal(np.asarray(opened), scene.pixels)
        found = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert [one["category_id"] - 1 for one in found] == scene.instances.labels.tolist()
        assert np.array_equal(np.stack([coco.annToMask(one) for one in found]), scene.instances.masks)
        assert [one["area"] for one in found] == scene.instances.masks.sum((1, 2)).tolist()
        assert not any(one["iscrowd"] for one in found)
        for one, box in zip(found, scene.instances.boxes, strict=True):
            left, top, width, height = one["bbox"]
            assert [left, top, left + width, top + height] == box.tolist()
    assert len({one["id"] for one in coco.dataset["annotations"]}) == len(coco.dataset["annotations"])


@pytest.mark.parametrize("split", ["train", "test"])
def test_pillow_reads_the_masks_back(source: SceneSource, written: Path, split: str) -> None:
    samples = source.samples(split, None)
    names = [f"{index:06d}.png" for index in range(len(samples))]
    for kind in ("images", "annotations"):
        assert sorted(path.name for path in (written / "masks" / kind / split).iterdir()) == names
    for index, name in enumerate(names):
        scene = samples.read(index)
        with (
            Image.open(written / "masks" / "images" / split / name) as image,
            Image.open(written / "masks" / "annotations" / split / name) as mask,
        ):
            assert np.array_equal(np.asarray(image), scene.pixels)
            assert mask.mode == "L"
            assert np.array_equal(np.asarray(mask), scene.classes)


def test_names_licence_and_origin_lie_beside_the_scenes(source: SceneSource, written: Path) -> None:
    assert tuple((written / "masks" / "classes.txt").read_text().splitlines()) == source.class_names
    assert "MIT License" in (written / "LICENSE").read_text()
    about = json.loads((written / "scenes.json").read_text())
    assert SceneSource(SceneSpec(**about["spec"]), about["num_train"], about["num_test"]) == source


def test_the_same_scenes_give_the_same_files(source: SceneSource, written: Path, tmp_path: Path) -> None:
    counts = []
    (tmp_path / "again").mkdir()
    write_scenes(source, tmp_path / "again", tick=lambda done, total: counts.append((done, total)))
    assert _files(tmp_path / "again") == _files(written)
    assert counts == [(done, 8) for done in range(1, 9)]
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(13, "Permission denied"), KeyboardInterrupt()])
def test_what_breaks_off_leaves_nothing(source: SceneSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def read(samples: SceneSamples, index: int) -> None:
        raise error

    monkeypatch.setattr(SceneSamples, "read", read)
    with pytest.raises((UserError, RunFailed, KeyboardInterrupt)) as caught:
        write_scenes(source, tmp_path / "set", tick=lambda done, total: None)
    assert list(tmp_path.iterdir()) == []
    wanted = {28: "the disk is full; nothing was written", 13: "Permission denied; nothing was written", None: ""}
    assert wanted[getattr(error, "errno", None)] in str(caught.value)


def test_a_place_that_is_taken_is_refused(source: SceneSource, written: Path, tmp_path: Path) -> None:
    before = _files(written)
    with pytest.raises(UserError, match="the folder is not empty; give a new or an empty one"):
        write_scenes(source, written, tick=lambda done, total: None)
    assert _files(written) == before
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        write_scenes(source, tmp_path / "file", tick=lambda done, total: None)


def test_a_preview_shows_each_scene_beside_its_truth(source: SceneSource, tmp_path: Path) -> None:
    draw_preview(source.samples("train", None), tmp_path / "scenes.png")
    with Image.open(tmp_path / "scenes.png") as opened:
        drawn = np.asarray(opened.convert("RGB"))
    scene, side = source.samples("train", None).read(0), 160  # 40 px, four times enlarged
    shown = drawn[8 : 8 + side : 4, 8 : 8 + side : 4].astype(int)
    assert np.abs(shown - scene.pixels).mean() < 12  # the file has few colours
    truth = drawn[8 : 8 + side : 4, 8 + side + 4 : 8 + 2 * side + 4 : 4]
    assert scene.instances is not None
    coloured = np.ptp(truth.astype(int), axis=-1) > 30
    assert coloured[scene.instances.masks.any(0)].mean() > 0.9
    with pytest.raises(UserError, match="give a file that can be written"):
        draw_preview(source.samples("train", None), tmp_path / "none" / "scenes.png")


def _run(*arguments: object) -> tuple[int, str, str]:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_the_command_writes_and_tells_how_to_use_what_it_wrote(source: SceneSource, written: Path, tmp_path: Path) -> None:
    target = tmp_path / "set"
    options = ["--num-train", 5, "--num-test", 3, "--image-px", 40, "--max-garments", 4, "--seed", 2, "--preview", tmp_path / "p.png"]
    code, out, err = _run(target, *options)
    assert (code, out) == (0, f"{target}\n")
    assert f"source: coco, root: {target / 'coco'}" in err
    assert f"source: masks, root: {target / 'masks'}" in err
    assert _files(target) == _files(written)
    assert (tmp_path / "p.png").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image-px", 7], "image_px is 7; give 32 to 1024"),
        (["--max-garments", 99], "max_garments is 99; give 1 to 20"),
        (["--num-train", 0], "num_train is 0; give at least 1"),
        (["--smallest", 0.6, "--largest", 0.5], "smallest is 0.6; give 0.2 to 0.5"),
        (["--max-turn-deg", 200], "max_turn_deg is 200.0; give 0 to 180"),
        (["--min-visible", 2], "min_visible is 2.0; give 0 to 1"),
        (["--seed", -4], "seed is -4; give at least 0"),
        (["--preview", "nowhere/at/all.png"], "there is no folder nowhere/at"),
    ],
)
def test_the_command_refuses_impossible_numbers_in_one_line(options: list[object], message: str, tmp_path: Path) -> None:
    code, out, err = _run(tmp_path / "set", *options)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "set").exists()


def test_the_command_refuses_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    code, _, err = _run(tmp_path)
    assert code == 2
    assert "the folder is not empty" in err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_this_package_reads_its_own_files_back(source: SceneSource, written: Path) -> None:
    pixels_of, objects_of = MaskFolder(written / "masks", ignore_zero=False), CocoFolder(written / "coco")
    assert pixels_of.class_names == source.class_names
    assert objects_of.class_names == SceneSource(source.spec, 1, 1, "detection").class_names
    for split in ("train", "test"):
        scenes, maps, objects = (one.samples(split, None) for one in (source, pixels_of, objects_of))
        assert len(maps) == len(objects) == len(scenes)
        for index in range(len(scenes)):
            scene, found = scenes.read(index), objects.read(index)
            assert np.array_equal(maps.read(index).pixels, scene.pixels)
            assert np.array_equal(maps.read(index).classes, scene.classes)
            for name in ("boxes", "labels", "masks", "crowd"):
                assert np.array_equal(getattr(found.instances, name), getattr(scene.instances, name)), name
