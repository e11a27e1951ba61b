"""Commands on segmenters, detectors and data with masks or boxes: what they find, print and refuse."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from g2sd_deploy.data.dense.coco import CocoFolder
from g2sd_deploy.data.dense.mask_folder import MaskFolder
from g2sd_deploy.data.scenes.settings import SceneSpec
from g2sd_deploy.data.scenes.source import SceneSource
from g2sd_deploy.data.scenes.writing import write_scenes
from g2sd_deploy.evaluation.dense_networks import detector_infer, segmenter_infer
from g2sd_deploy.evaluation.dense_scoring import Scoring, score_detector, score_segmenter
from g2sd_deploy.exporting_dense import DenseJob, export_dense
from g2sd_deploy.models.dense.detector import Detector
from g2sd_deploy.models.dense.detector_file import DetectorFile, save_detector
from g2sd_deploy.models.dense.detector_spec import DetectorSpec
from g2sd_deploy.models.dense.segmenter import Segmenter, SegmenterSpec
from g2sd_deploy.models.dense.segmenter_file import SegmenterFile, save_segmenter
from g2sd_deploy.models.vit import EncoderSpec
from g2sd_deploy.settings import ExportSettings
from g2sd_export.edge.dense.task import DenseTask
from g2sd_export.shipping.runtimes import why_not
from g2sd_export.targets import Candidate, load_target

G2sd = Callable[..., Any]
PX = 32
ENCODER = EncoderSpec(image_px=PX, patch_px=8, num_channels=3, width=16, depth=4, heads=2)
PIXELS = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}
NUM_TEST = 3
SEED = 2  # weights with which the segmenter gets a third of the pixels right


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `g2sd data scenes` writes. Not to be changed."""
    folder = tmp_path_factory.mktemp("scenes") / "scenes"
    write_scenes(SceneSource(SceneSpec(image_px=PX), 4, NUM_TEST), folder, tick=lambda done, total: None)
    return folder


def shaken(model: Any) -> Any:
    """With weights far from those of a new network, whose answers are all alike; the same whenever it is asked for."""
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + (parameter.ndim == 1))
    return model.eval()


@pytest.fixture(scope="module")
def segmenter(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SegmenterFile]:
    names = MaskFolder(scenes / "masks", ignore_zero=False).class_names
    spec = SegmenterSpec(ENCODER, len(names), (0, 1, 2, 3), 8, None, relative_positions=False, layer_scale=None)
    file = SegmenterFile(shaken(Segmenter(spec)), DenseTask("segmentation", PX, 3, **PIXELS), names)
    path = tmp_path_factory.mktemp("segmenter") / "segmenter.safetensors"
    save_segmenter(path, file)
    return path, file


@pytest.fixture(scope="module")
def detector(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DetectorFile]:
    names = CocoFolder(scenes / "coco").class_names
    small: dict[str, Any] = {"channels": 8, "box_width": 16, "mask_channels": 8, "num_proposals": 10, "max_detections": 8}
    spec = DetectorSpec(ENCODER, len(names), window=2, global_blocks=(1, 3), anchor_scale=2.0, level_proposals=20, **small)
    file = DetectorFile(shaken(Detector(spec)), DenseTask("detection", PX, 3, **PIXELS, min_score=0.0), names)
    path = tmp_path_factory.mktemp("detector") / "detector.safetensors"
    save_detector(path, file)
    return path, file


@pytest.fixture(scope="module")
def bundle(scenes: Path, segmenter: tuple[Path, SegmenterFile], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The segmenter on ONNX Runtime and on OpenVINO."""
    folder = tmp_path_factory.mktemp("bundle")
    test = MaskFolder(scenes / "masks", ignore_zero=False).samples("test", None)
    narrowed = load_target("cpu-x86").narrowed(("fp32-onnxruntime", "fp32-openvino"), None)
    target = narrowed.model_copy(update={"ship": "passed", "machine": "any"})
    settings = ExportSettings(timing_seconds=0.01, num_samples=1)
    job = DenseJob("tiny", segmenter[1], "ab" * 32, test, target, settings)
    export_dense(job, scratch=folder, folder=folder / "bundle")
    return folder / "bundle"


def error_of(answer: Any, code: int = 2) -> str:
    assert answer.code == code and "Traceback" not in answer.err, answer.err
    (line,) = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    return str(line.removeprefix("error: "))


def untimed(scores: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives them back, without what is told of the set."""
    return dict(
        json.loads(json.dumps({key: value for key, value in scores.items() if key not in ("num_images", "num_skipped", "skipped")}))
    )


def test_verify_looks_at_images_and_masks_of_a_folder_that_it_recognises(g2sd: G2sd, scenes: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(scenes / "masks", tmp_path / "masks"))
    odd, unasked = sorted((root / "annotations" / "train").iterdir())[:2]
    for mask, value in ((odd, 200), (unasked, 0)):
        Image.fromarray(np.full((PX, PX), value, np.uint8)).save(mask)
    answer = g2sd("data", "verify", root, "--workers", 1, "--ignore-zero", "--json")
    found = json.loads(answer.out)
    assert (answer.code, found["errors"], found["num"]) == (1, 1, {"test": NUM_TEST, "train": 4})
    named = {one["problem"]: one for one in found["findings"]}
    assert named["unusable image"]["name"].endswith(f"train/{odd.stem}.png") and "200" in named["unusable image"]["detail"]
    assert named["nothing asked"]["name"].endswith(f"train/{unasked.stem}.png")


def test_verify_looks_at_the_annotations_of_coco(g2sd: G2sd, scenes: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(scenes / "coco", tmp_path / "coco"))
    image = next((root / "test").iterdir())
    image.write_bytes(b"")
    answer = g2sd("data", "verify", root, "--splits", "test", "--workers", 1, "--json")
    found = json.loads(answer.out)
    assert (answer.code, found["errors"], found["num"]) == (1, 1, {"test": NUM_TEST})
    assert ("empty file", f"test/{image.name}") in {(one["problem"], one["name"]) for one in found["findings"]}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("verify", "{}"), "{}: holds its scenes twice, for detection in coco and for segmentation in masks; give {}/coco or {}/masks"),
        (("verify", "{}/coco", "--ignore-zero"), "--ignore-zero: is for masks, and {}/coco is a data set of COCO's layout; leave it out"),
        (
            ("verify", "bundled:fashion-mnist", "--ignore-zero"),
            "--ignore-zero: is for masks, and bundled:fashion-mnist is read as source idx; leave it out, or give --source masks",
        ),
        (
            ("prepare", "{}/masks", "new"),
            "{}/masks: is a data set of a task (source masks), whose boxes and masks belong to images of that size, so they are not "
            "prepared: name the folder in a recipe as it is (data.root, with data.source masks)",
        ),
    ],
)
def test_commands_on_data_refuse_what_they_cannot_do(g2sd: G2sd, scenes: Path, arguments: tuple[str, ...], told: str) -> None:
    answer = g2sd("data", *(one.replace("{}", str(scenes)) for one in arguments))
    assert error_of(answer) == told.replace("{}", str(scenes))


def test_a_segmenter_and_its_bundle_are_scored_side_by_side(
    g2sd: G2sd, scenes: Path, segmenter: tuple[Path, SegmenterFile], bundle: Path
) -> None:
    path, file = segmenter
    root = scenes / "masks"
    answer = g2sd("evaluate", f"weights={path}", bundle, "--on", root, "--device", "cpu", "--json", "--workers", 1)
    found = json.loads(answer.out)
    assert found["task"] == "segmentation" and found["sets"][str(root)]["num_images"] == NUM_TEST
    runtimes = {name: one["runtime"] for name, one in found["models"].items()}
    assert runtimes["weights"] == "torch" and set(runtimes.values()) == {"torch", "fp32-onnxruntime", "fp32-openvino"}
    assert list(runtimes)[1] == "bundle" and list(runtimes)[2] == f"bundle:{runtimes[list(runtimes)[2]]}"
    samples = MaskFolder(root, ignore_zero=False).samples("test", None)
    infer = segmenter_infer(file.model, torch.device("cpu"), **PIXELS)
    wanted = score_segmenter(infer, samples, file.task, file.class_names, lambda done, total: None)
    scores = {name: one["sets"][str(root)] for name, one in found["models"].items()}
    assert scores["weights"] == untimed(wanted) and 0 < wanted["aacc"] < 1
    for of_bundle in list(scores.values())[1:]:
        assert of_bundle["aacc"] == pytest.approx(wanted["aacc"], abs=0.01)
    assert found["models"]["weights"]["num_parameters"] == sum(p.numel() for p in file.model.parameters())


def test_a_detector_is_scored_on_boxes_and_masks(g2sd: G2sd, scenes: Path, detector: tuple[Path, DetectorFile]) -> None:
    path, file = detector
    root = scenes / "coco"
    answer = g2sd("evaluate", path.parent, "--on", root, "--seed", 3, "--device", "cpu", "--json", "--workers", 1)
    found = json.loads(answer.out)
    infer = detector_infer(file.model, torch.device("cpu"), **PIXELS)
    wanted = score_detector(
        infer, CocoFolder(root).samples("test", None), file.task, file.class_names, lambda done, total: None, Scoring(3)
    )
    (model,) = found["models"].values()
    assert found["task"] == "detection" and model["sets"][str(root)] == untimed(wanted)
    shown = g2sd("evaluate", path.parent, "--on", root, "--max-images", 2, "--device", "cpu", "--workers", 1).out
    assert f"{root}: 2 images" in shown.replace("\n", "") and "mask AP %" in shown


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            ("--on", "{}/coco"),
            "--on {}/coco: segmenter is for segmentation; give a folder with images/SPLIT and annotations/SPLIT (docs/dense_data.md)",
        ),
        (
            ("--on", "{}/masks", "--out", "new"),
            "--out: for classifiers only, and segmenter={model} is a segmenter or detector; keep what --json prints",
        ),
        (
            ("--on", "{}/masks", "--std", "1,1,1"),
            "--std: for classifiers only, and segmenter={model} is a segmenter or detector; leave it out",
        ),
        (
            ("--on", "{}/masks", "--teacher", "x"),
            "--teacher: for classifiers only, and segmenter={model} is a segmenter or detector; name it as one of the models",
        ),
        (("resnet18", "--on", "{}/masks"), "resnet18 is no segmenter or detector, and segmenter is one; score them with two commands"),
        (
            ("{detector}", "--on", "{}/masks"),
            "segmenter is for segmentation of 11 classes (background, T-shirt/top, Trouser, ...), and detector.safetensors is for "
            "detection of 10 classes (T-shirt/top, Trouser, Pullover, ...); score them with two commands",
        ),
    ],
)
def test_evaluate_refuses_what_does_not_go_together(
    g2sd: G2sd,
    scenes: Path,
    segmenter: tuple[Path, SegmenterFile],
    detector: tuple[Path, DetectorFile],
    more: tuple[str, ...],
    told: str,
) -> None:
    def filled(text: str) -> str:
        return text.replace("{}", str(scenes)).replace("{model}", str(segmenter[0])).replace("{detector}", str(detector[0]))

    answer = g2sd("evaluate", f"segmenter={segmenter[0]}", *map(filled, more), "--device", "cpu")
    assert error_of(answer) == filled(told)


def test_a_set_of_other_classes_is_refused(g2sd: G2sd, scenes: Path, segmenter: tuple[Path, SegmenterFile], tmp_path: Path) -> None:
    root = Path(shutil.copytree(scenes / "masks", tmp_path / "masks"))
    (root / "classes.txt").write_text("a\nb\nc\n")
    assert error_of(g2sd("evaluate", segmenter[0], "--on", root, "--device", "cpu")) == (
        f"--on {root}: has 3 classes (a, b, c), and segmenter.safetensors is for segmentation of 11 classes (background, T-shirt/top, "
        "Trouser, ...); give a set of its classes in their order"
    )


def test_teacher_verify_says_what_a_segmenter_or_a_detector_is_for(
    g2sd: G2sd, segmenter: tuple[Path, SegmenterFile], detector: tuple[Path, DetectorFile], tmp_path: Path
) -> None:
    found = json.loads(g2sd("teacher", "verify", segmenter[0], "--json").out)
    assert found["recognised_as"] == "segmenter of g2sd" and found["classes"] == 11
    assert found["can_be_used_as"].startswith("teacher.segmenter of a recipe with task segmentation")
    assert found["can_be_used_as"].endswith("its encoder as teacher.encoder")  # it has no relative positions or layer scales
    shown = g2sd("teacher", "verify", detector[0]).out
    assert "teacher.detector of a recipe with task detection" in shown and "mean 0.4,0.5,0.6, deviation 0.2,0.25,0.3" in shown
    (tmp_path / "cut.safetensors").write_bytes(segmenter[0].read_bytes()[:-4])
    assert error_of(g2sd("teacher", "verify", tmp_path / "cut.safetensors")).startswith(f"{tmp_path / 'cut.safetensors'}: ")


def test_the_front_is_for_classifiers(g2sd: G2sd, bundle: Path) -> None:
    assert error_of(g2sd("pareto", bundle)) == (
        "bundle: its model is one of segmentation, and the front is of top-1, which classifiers have; its figures and latencies are side "
        f"by side in `g2sd bundle show {bundle}`"
    )
    shown = g2sd("bundle", "show", bundle)
    assert shown.code == 0 and "mIoU" in shown.out


def test_weights_of_a_task_are_timed_on_torch_and_on_nothing_else(g2sd: G2sd, detector: tuple[Path, DetectorFile]) -> None:
    short = ("--batch", "1", "--threads", "1", "--seconds", "0.1", "--json")
    answer = g2sd("profile", detector[0], "--runtime", "torch,onnxruntime", *short)
    assert answer.code in (0, 1), answer.err  # after a tenth of a second no latency may be believed
    rows = {row["runtime"]: row for row in json.loads(answer.out)["rows"] if row["model"] == str(detector[0])}
    assert rows["torch"]["p50_ms"] > 0 and rows["torch"]["file_bytes"] == detector[0].stat().st_size
    assert rows["onnxruntime"]["verdict"] == "not_run" and "name its bundle" in rows["onnxruntime"]["reasons"][0]


def test_a_segmenter_is_exported_proven_and_answers_from_its_bundle(
    g2sd: G2sd, segmenter: tuple[Path, SegmenterFile], scenes: Path, tmp_path: Path
) -> None:
    only = ("--only", "fp32-onnxruntime", "--timing-seconds", 0.01, "--licence", "MIT")
    answer = g2sd("export", segmenter[0], "--on", scenes / "masks", "--out", tmp_path / "bundle", *only, "--output", "logits")
    assert answer.code == 0, answer.err
    assert f"cpu-x86: {NUM_TEST} images, float mIoU" in answer.out and "changed" in answer.out
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest["task"]["kind"] == "segmentation" and manifest["licences"]["model"] == "MIT"
    again = g2sd("evaluate", segmenter[0], tmp_path / "bundle", "--on", scenes / "masks", "--device", "cpu", "--json")
    first, second = (told["sets"][str(scenes / "masks")]["miou"] for told in json.loads(again.out)["models"].values())
    assert first == pytest.approx(second, abs=0.01)


def test_a_detector_is_exported_and_proven_by_its_objects(
    g2sd: G2sd, detector: tuple[Path, DetectorFile], scenes: Path, tmp_path: Path
) -> None:
    only = ("--only", "fp32-onnxruntime", "--timing-seconds", 0.01, "--max-images", 2)
    answer = g2sd("export", detector[0], "--on", scenes / "coco", "--out", tmp_path / "bundle", *only, "--json")
    assert answer.code == 0, answer.err
    made = json.loads(answer.out)
    assert (made["task"], made["verdict"], made["parity"]["num_images"]) == ("detection", "passed", 2)
    assert g2sd("bundle", "verify", tmp_path / "bundle").code == 0


def test_what_this_machine_cannot_run_is_told_in_the_table(
    g2sd: G2sd, segmenter: tuple[Path, SegmenterFile], scenes: Path, tmp_path: Path
) -> None:
    """Nothing of it is calibrated, so that no training images are asked for."""
    if not why_not(Candidate(runtime="onnxruntime", precision="fp16", provider="TensorrtExecutionProvider")):
        pytest.skip("this machine can run it")
    target = tmp_path / "gpu.yaml"
    target.write_text(
        "name: gpu\ndescription: A GPU.\nint8: {scheme: tensorrt}\ncandidates:\n"
        "  - {runtime: tensorrt_rtx, precision: int8}\n  - {runtime: onnxruntime, precision: fp16, provider: TensorrtExecutionProvider}\n"
        "tolerance: {fp32: {max_abs_logit_diff: 1.0}, fp16: {max_abs_logit_diff: 1.0}, int8: {max_abs_logit_diff: 1.0}}\n"
    )
    root = shutil.copytree(scenes / "masks", tmp_path / "masks")
    for part in ("images", "annotations"):
        shutil.rmtree(root / part / "train")
    answer = g2sd("export", segmenter[0], "--on", root, "--target", target, "--max-images", 2, "--out", tmp_path / "bundle")
    assert answer.code == 0, answer.err
    assert "fp16-onnxruntime-tensorrt   not run" in answer.out and "bundle (not run)" in answer.out
    assert "tensorrt_rtx is built for classifiers only" in answer.out


@pytest.mark.parametrize(
    ("model", "options", "told"),
    [
        (
            "segmenter",
            ("--calibrate-on", "x"),
            "--calibrate-on x: {} is for segmentation; give a folder with images/SPLIT",
        ),
        ("segmenter", ("--calibrate-split", "test"), "--calibrate-split test: INT8 would be calibrated on the images that judge it"),
        ("segmenter", ("--token-merging", 2), "--token-merging: for classifiers only"),
        ("segmenter", ("--not-corrupted",), "--not-corrupted: for classifiers only"),
        ("detector", ("--output", "classes"), "--output classes: is for segmenters, and {} is a detector; leave it out"),
        ("detector", (), "is for detection; give a folder with SPLIT and annotations/instances_SPLIT.json"),
        ("segmenter", ("--split", "val"), "val"),
    ],
)
def test_export_refuses_what_does_not_go_together(
    g2sd: G2sd,
    segmenter: tuple[Path, SegmenterFile],
    detector: tuple[Path, DetectorFile],
    scenes: Path,
    tmp_path: Path,
    model: str,
    options: tuple[Any, ...],
    told: str,
) -> None:
    path = {"segmenter": segmenter[0], "detector": detector[0]}[model]
    answer = g2sd("export", path, "--on", scenes / "masks", "--out", tmp_path / "bundle", *options)
    assert told.format(path) in error_of(answer) and not (tmp_path / "bundle").exists()


def test_a_bundle_is_not_exported_again(g2sd: G2sd, bundle: Path, scenes: Path, tmp_path: Path) -> None:
    answer = g2sd("export", bundle, "--on", scenes / "masks", "--out", tmp_path / "bundle")
    assert "is a bundle, which has been exported already; give the weights" in error_of(answer)


def test_options_of_segmenters_are_not_for_classifiers(g2sd: G2sd, tmp_path: Path) -> None:
    answer = g2sd("export", "vit_tiny_patch16_224", "--on", "bundled:fashion-mnist", "--out", tmp_path / "bundle", "--output", "logits")
    assert "--output: is for segmenters, and vit_tiny_patch16_224 is none" in error_of(answer)
