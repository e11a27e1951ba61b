"""`g2sd evaluate`: models and sets as a person names them, from the command line to the artifact."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from g2sd_deploy.artifact import read_artifact
from g2sd_deploy.evaluate_command import named_models
from g2sd_deploy.evaluation.predictions import columns_of, predictions_file

G2sd = Callable[..., Any]
SET = "fashion-mnist test"
ON = ("--on", "bundled:fashion-mnist", "--max-images", "40", "--device", "cpu", "--workers", "1")


def error_of(answer: Any, code: int = 2) -> str:
    assert answer.code == code and answer.err.startswith("error: ") and answer.err.count("\n") == 1, answer.err
    return str(answer.err.removeprefix("error: ").removesuffix("\n"))


def metrics_of(answer: Any) -> dict[str, Any]:
    assert answer.code == 0, answer.err
    assert answer.out.count("\n") == 1
    return dict(json.loads(answer.out))


def test_stages_files_and_bundles_are_scored_in_one_pass_as_the_run_scored_them(g2sd: G2sd, smoke_run: Any) -> None:
    folder = smoke_run.folder
    models = {
        "specific": folder / "specific",
        "classifier.safetensors": folder / "specific" / "classifier.safetensors",
        "export": folder / "export",
        "onnx": f"onnx={folder / 'export' / 'bundle' / 'models' / 'fp32.onnx'}",
        "teacher": folder / "teacher",
    }
    found = metrics_of(g2sd("evaluate", *models.values(), *ON, "--teacher", "teacher", "--json"))
    assert list(found["models"]) == list(models) and found["teacher"] == "teacher"
    assert [one["runtime"].split()[0] for one in found["models"].values()] == ["torch", "torch", "onnxruntime", "onnxruntime", "torch"]
    evaluated = read_artifact(folder / "evaluate")
    assert evaluated is not None
    for name, model in zip(models, ("student",) * 4 + ("teacher",), strict=True):
        scores, wanted = found["models"][name]["sets"][SET], evaluated.metrics["models"][model]["clean"]
        assert scores["num_images"] == 40
        assert scores["top1"] == wanted["top1"] and scores["nll"] == pytest.approx(wanted["nll"], rel=1e-4)
        assert scores["intervals"]["top1"] == wanted["intervals"]["top1"]
    assert found["models"]["specific"]["num_parameters"] == pytest.approx(found["models"]["export"]["num_parameters"], rel=0.01)
    agreement = found["models"]["export"]["sets"][SET]["agreement"]
    assert agreement["same"] == found["models"]["specific"]["sets"][SET]["agreement"]["same"] and agreement["kl"] > 0


def test_scores_are_shown_with_how_images_were_prepared(g2sd: G2sd, smoke_run: Any) -> None:
    answer = g2sd("evaluate", smoke_run.folder / "specific", *ON)
    assert answer.code == 0
    for words in (SET, "top-1", "NLL", "Brier", "ECE", "AURC", "specific", "28 px", "bicubic", "mean .286"):
        assert words in answer.out, words


def test_everything_that_can_be_asked_for_is_kept_and_not_made_twice(g2sd: G2sd, smoke_run: Any, tmp_path: Path) -> None:
    out = tmp_path / "evaluation"
    models = (f"student={smoke_run.folder / 'specific'}", smoke_run.folder / "baseline", "--teacher", smoke_run.folder / "teacher")
    asked = ("--corruptions", "contrast, brightness", "--severities", "1,5", "--occlusion", "--save-predictions", "--out", out, "--json")
    command = ("evaluate", *models, *ON, *asked)
    found = metrics_of(g2sd(*command))
    assert list(found["models"]) == ["teacher", "student", "baseline"], "a teacher that is none of the models takes part"
    for name, one in found["models"].items():
        assert list(one["corruptions"]) == ["contrast", "brightness"] and list(one["corruptions"]["contrast"]) == ["1", "5"]
        assert list(one["occlusion"]) == ["random", "salient_first", "salient_last"]
        stored = columns_of(out / predictions_file(name), SET)
        assert stored["correct"].mean() == pytest.approx(one["sets"][SET]["top1"]) and len(stored["image"]) == 40
        assert columns_of(out / predictions_file(name), SET, "contrast/5")["correct"].mean() == pytest.approx(
            one["corruptions"]["contrast"]["5"]["top1"]
        )
    artifact = read_artifact(out)
    assert artifact is not None and artifact.metrics == found
    artifact.verify()
    assert {"report.html", "report.md"} <= set(artifact.files)
    again = g2sd(*command)
    assert metrics_of(again) == found and "is up to date; nothing was run" in again.err
    other = g2sd(*command, "--seed", "1")
    assert metrics_of(other)["occlusion"]["seed"] == 1 and "up to date" not in other.err


def test_layers_are_compared_with_the_teachers(g2sd: G2sd, smoke_run: Any) -> None:
    student, teacher = smoke_run.folder / "specific", smoke_run.folder / "teacher"
    arguments = ("--on", "bundled:fashion-mnist", "--max-images", "64", "--device", "cpu", "--workers", "1", "--json")
    found = metrics_of(
        g2sd("evaluate", student, f"same={teacher / 'classifier.safetensors'}", "--teacher", teacher, "--similarity", *arguments)
    )
    by_name = {pair["name"]: np.array(pair["cka"]) for pair in found["similarity"]["pairs"]}
    assert found["similarity"]["num_images"] == 64
    np.testing.assert_allclose(np.diag(by_name["same"]), 1.0, atol=1e-9)
    assert (by_name["specific"] < 1).all()


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Class folders of odd images: grey, CMYK, 16 bits, with transparency, and one that is no image."""
    rng = np.random.default_rng(0)
    for name in ("T-shirt", "Trouser"):
        (tmp_path / "odd" / name).mkdir(parents=True)
    for i, mode in enumerate(("L", "RGB", "RGBA", "CMYK", "I;16")):
        shape = {"L": (30, 40), "I;16": (30, 40), "RGB": (30, 40, 3)}.get(mode, (30, 40, 4))
        kind = np.uint16 if mode == "I;16" else np.uint8
        image = Image.fromarray(rng.integers(0, 256, shape, dtype=kind), mode=None if mode in ("L", "RGB", "RGBA", "I;16") else mode)
        image.save(tmp_path / "odd" / ("T-shirt", "Trouser")[i % 2] / f"{i}.{'tif' if mode == 'CMYK' else 'png'}")
    return tmp_path / "odd"


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
def test_images_of_any_kind_are_scored_and_bad_ones_are_counted_where_they_may_be(
    g2sd: G2sd, smoke_run: Any, photographs: Path, tmp_path: Path
) -> None:
    classes = tmp_path / "classes.txt"
    classes.write_text("T-shirt\tT-shirt/top\nTrouser\t1\n")
    command = ("evaluate", smoke_run.folder / "specific", "--on", photographs, "--class-map", classes, "--device", "cpu", "--json")
    assert metrics_of(g2sd(*command))["models"]["specific"]["sets"]["odd"]["num_images"] == 5
    (photographs / "Trouser" / "bad.jpg").write_bytes(b"no image")
    refused = g2sd(*command)
    assert refused.code == 1 and "error: Trouser/bad.jpg: cannot be decoded as an image" in refused.err
    assert "1 bad image, and at most 0 are allowed" in refused.err
    found = metrics_of(g2sd(*command, "--max-bad", "1"))
    assert found["sets"]["odd"]["num_skipped"] == 1 and found["sets"]["odd"]["skipped"][0]["name"] == "Trouser/bad.jpg"
    assert found["models"]["specific"]["sets"]["odd"]["num_images"] == 5


@pytest.fixture
def garments(tmp_path: Path) -> Path:
    """SPLIT/CLASS/IMAGE folders with images of the bundled test set, two of each class, named as the model names them."""
    from g2sd_deploy.data.sources import BUNDLED_FASHION_MNIST, open_source

    source = open_source("idx", BUNDLED_FASHION_MNIST)
    images = source.samples("test", 20)
    for i in range(20):
        folder = tmp_path / "garments" / "test" / source.class_names[int(images.labels[i])].replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images.read(i)[..., 0]).save(folder / f"{i}.png")
    (tmp_path / "map.txt").write_text("T-shirt-top\tT-shirt/top\n")
    return tmp_path / "garments"


@pytest.mark.parametrize("kind", ["shards", "parquet"])
def test_shards_and_parquet_are_scored_as_the_folders_that_they_were_made_from(
    kind: str, g2sd: G2sd, smoke_run: Any, garments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / kind
    if kind == "shards":
        assert g2sd("data", "prepare", garments, other, "--shards", "--workers", "1").code == 0
    else:
        datasets = pytest.importorskip("datasets")
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf_cache")
        datasets.disable_progress_bars()
        files = sorted(garments.glob("test/*/*.png"))
        names = sorted({file.parent.name for file in files})
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
        rows = {
            "image": [{"bytes": file.read_bytes(), "path": None} for file in files],
            "label": [names.index(file.parent.name) for file in files],
        }
        (other / "data").mkdir(parents=True)
        datasets.Dataset.from_dict(rows, features=features).to_parquet(str(other / "data" / "test-00000-of-00001.parquet"))
    options = ("--class-map", tmp_path / "map.txt", "--device", "cpu", "--workers", "1", "--json")
    found = [metrics_of(g2sd("evaluate", smoke_run.folder / "specific", "--on", place, *options)) for place in (garments, other)]
    folder, same = (next(iter(one["models"]["specific"]["sets"].values())) for one in found)
    assert folder["num_images"] == same["num_images"] == 20
    assert same["nll"] == pytest.approx(folder["nll"], rel=1e-6) and same["top1"] == folder["top1"]


def test_images_that_were_resized_when_they_were_stored_are_only_cropped(g2sd: G2sd, smoke_run: Any, tmp_path: Path) -> None:
    """A dark image whose border of 2 px is white: resized to 28 px it keeps some white, cropped to 28 px it has none."""
    pixels = np.full((32, 32), 255, np.uint8)
    pixels[2:30, 2:30] = 0
    (tmp_path / "set" / "Bag").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "set" / "Bag" / "1.png")
    (tmp_path / "black" / "Bag").mkdir(parents=True)
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(tmp_path / "black" / "Bag" / "1.png")
    command = ("evaluate", smoke_run.folder / "specific", "--device", "cpu", "--json", "--on")
    resized, cropped = (metrics_of(g2sd(*command, tmp_path / "set", *option)) for option in ((), ("--as-stored",)))
    black = metrics_of(g2sd(*command, tmp_path / "black"))["models"]["specific"]["sets"]["black"]["nll"]
    assert cropped["models"]["specific"]["sets"]["set"]["nll"] == black != resized["models"]["specific"]["sets"]["set"]["nll"]
    assert "as stored, the centre cropped without a resize" in cropped["sets"]["set"]["note"]


def test_a_damaged_bundle_is_not_scored(g2sd: G2sd, own_run: Path, tmp_path: Path) -> None:
    bundle = (own_run / "export" / "bundle").rename(tmp_path / "bundle")
    with (bundle / "models" / "fp32.onnx").open("ab") as file:
        file.write(b"\0")
    assert "fp32.onnx" in error_of(g2sd("evaluate", bundle, *ON))


def test_another_normalisation_than_the_models_is_refused(g2sd: G2sd, smoke_run: Any) -> None:
    for model in ("specific", "export", "export/bundle/models/fp32.onnx"):
        error = error_of(g2sd("evaluate", smoke_run.folder / model, *ON, "--mean", "0.5"))
        assert "--mean 0.5 is asked for, but" in error and "says 0.286" in error and "drop --mean" in error
    assert g2sd("evaluate", smoke_run.folder / "specific", *ON, "--mean", "0.286", "--image-px", "28").code == 0


def test_images_of_other_classes_are_refused(g2sd: G2sd, smoke_run: Any, make_idx_folder: Any, tmp_path: Path) -> None:
    root = make_idx_folder(tmp_path / "digits")
    error = error_of(g2sd("evaluate", smoke_run.folder / "specific", "--on", root))
    assert "the model has 10 classes (T-shirt/top, Trouser, " in error and "lacks 10 of the set's 10: 0, 1, " in error
    assert "--class-map" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--on", "gone"), "--on gone: there is no such folder or file, and no known set of that name"),
        (("--on", "imagenet-v"), "did you mean imagenet-val?"),
        (("--on", "imagenet-val"), "fetch it with `g2sd data pull imagenet-val`"),
        ((*ON, "--corruptions", "fogg"), "fog"),
        ((*ON, "--split", "train", "--corruptions", "frost"), "frost"),
        ((*ON, "--corruptions", "fog", "--severities", "1,6"), "--severities 1,6: wanted whole numbers from 1 to 5"),
        ((*ON, "--save-predictions"), "--save-predictions: needs a folder to keep them in; add --out FOLDER"),
        ((*ON, "--similarity"), "--similarity: compares layers with those of a teacher; add --teacher MODEL"),
        ((*ON, "--on", "bundled:fashion-mnist", "--occlusion"), "--occlusion: looks at one set, and 2 are given"),
        ((*ON, "--mean", "a,b"), "--mean a,b: wanted numbers with commas between them"),
        ((*ON, "--out", "/dev/null"), "--out /dev/null: exists and is no evaluation; give a new folder"),
        ((*ON, "--class-map", "gone.txt"), "--class-map gone.txt: cannot be read"),
    ],
)
def test_what_cannot_be_scored_is_named(
    arguments: tuple[str, ...], message: str, g2sd: G2sd, smoke_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("G2SD_CACHE", str(tmp_path))
    assert message in error_of(g2sd("evaluate", smoke_run.folder / "specific", *arguments))


def test_layers_of_a_file_without_layers_are_refused(g2sd: G2sd, smoke_run: Any) -> None:
    models = (smoke_run.folder / "export", "--teacher", smoke_run.folder / "teacher")
    assert "--similarity looks at layers, and only weights on torch show them" in error_of(g2sd("evaluate", *models, *ON, "--similarity"))


def test_a_folder_that_holds_something_else_is_not_overwritten(g2sd: G2sd, smoke_run: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch")
    assert "exists and is no evaluation" in error_of(g2sd("evaluate", smoke_run.folder / "specific", *ON, "--out", tmp_path / "mine"))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "do not touch"


def test_models_are_named_by_their_end_by_what_is_given_or_in_full() -> None:
    assert named_models(["runs/a/specific", "x=runs/b/specific", "timm:deit@w.pth"]) == {
        "specific": "runs/a/specific",
        "x": "runs/b/specific",
        "deit": "timm:deit@w.pth",
    }
    assert list(named_models(["runs/a/specific", "runs/b/specific"])) == ["specific", "runs-b-specific"]


def test_two_models_of_one_name_are_refused(g2sd: G2sd, smoke_run: Any) -> None:
    model = f"m={smoke_run.folder / 'specific'}"
    assert "there are two models of the name m; give one as NAME=MODEL" in error_of(g2sd("evaluate", model, model, *ON))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="torchrun of this test needs a POSIX system")
def test_two_processes_make_the_artifact_of_one(
    g2sd: G2sd, smoke_run: Any, tmp_path: Path, python: str, process_environment: dict[str, str]
) -> None:
    models = (smoke_run.folder / "specific", smoke_run.folder / "teacher", "--teacher", "teacher", "--batch-size", "7")
    asked = (*ON, "--corruptions", "gaussian_noise", "--severities", "3", "--save-predictions", "--json")
    alone = metrics_of(g2sd("evaluate", *models, *asked, "--out", tmp_path / "one" / "e"))
    command = [python, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29613", "-m", "g2sd_deploy", "evaluate"]
    done = subprocess.run(
        [*command, *map(str, (*models, *asked, "--out", tmp_path / "two" / "e"))],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env=process_environment,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == alone
    one, two = read_artifact(tmp_path / "one" / "e"), read_artifact(tmp_path / "two" / "e")
    assert one is not None and two is not None and one.digest == two.digest
