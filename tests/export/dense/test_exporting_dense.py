"""The whole way of real networks, as the export stage goes it: file, proof with the task's metric, race, bundle, figures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from g2sd_deploy.data.dense.annotations import Annotated, Instances
from g2sd_deploy.data.images import BadImage
from g2sd_deploy.dense_images import metric_of, quantising_images, usable
from g2sd_deploy.errors import UserError
from g2sd_deploy.exporting import Exported, failure_of, figures, timings
from g2sd_deploy.exporting_dense import DenseJob, export_dense
from g2sd_deploy.models.dense.detector import Detector
from g2sd_deploy.models.dense.detector_file import DetectorFile
from g2sd_deploy.models.dense.detector_spec import DetectorSpec
from g2sd_deploy.models.dense.segmenter import Segmenter, SegmenterSpec
from g2sd_deploy.models.dense.segmenter_file import SegmenterFile
from g2sd_deploy.models.vit import EncoderSpec
from g2sd_deploy.profiling.layers import layer_tables, subjects_of_bundle
from g2sd_deploy.settings import ExportSettings
from g2sd_export.edge.dense.task import DenseTask
from g2sd_export.edge.selftest import run_selftest
from g2sd_export.int8.packing import num_quantised
from g2sd_export.targets import Candidate, DenseLimits, Int8Plan, load_target

NAMES = ("sky", "dog", "cat")
SETTINGS = ExportSettings(timing_seconds=0.02, num_samples=2, max_images=4, calibration_images=16)
LENIENT = DenseLimits(
    changed_share=0.5,
    changed_share_of_image=0.9,
    unmatched_share=0.9,
    max_score_diff=1.0,
    max_box_shift=1.0,
    changed_mask_share=0.9,
    max_metric_drop_points=50.0,
)
"""Random weights lose much in 8 bits."""


class Samples:
    """Images with all truths; the second cannot be read."""

    def __init__(self, num: int = 5, first: int = 0) -> None:
        self.num, self.first = num, first

    def __len__(self) -> int:
        return self.num

    def name(self, index: int) -> str:
        return f"image {index}"

    def read(self, index: int) -> Annotated:
        if index == 1:
            raise BadImage("torn")
        draw = np.random.default_rng(self.first + index)
        rows, columns = 30 + 5 * (index % 5), 44 - 3 * (index % 5)
        pixels = np.kron(draw.integers(0, 256, (8, 8, 3)), np.ones((8, 8, 1)))[:rows, :columns].astype(np.uint8)
        masks = np.zeros((1, rows, columns), bool)
        masks[0, 4:20, 4:16] = True
        instances = Instances(np.array([[4, 4, 16, 20]], np.float32), np.array([1]), masks, np.zeros(1, bool))
        return Annotated(pixels, (pixels[..., 0] // 100).clip(max=2).astype(np.uint8), instances)

    def save(self, folder: Path) -> dict[str, Any]:
        raise NotImplementedError


def network(kind: str) -> SegmenterFile | DetectorFile:
    """With weights that are not all alike, so that answers differ from place to place."""
    encoder = EncoderSpec(image_px=32, patch_px=8, num_channels=3, width=16, depth=2, heads=2)
    slide: dict[str, Any] = {"inference": "slide", "stride": 20} if kind == "segmentation" else {}
    task = DenseTask(kind, 32, 3, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), **slide)
    counts = {"level_proposals": 12, "num_proposals": 8, "detection_candidates": 12, "max_detections": 4}
    sizes = {"channels": 8, "box_width": 16, "mask_channels": 8, "anchor_scale": 2.0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Segmenter | Detector
        if kind == "segmentation":
            model = Segmenter(SegmenterSpec(encoder, 3, (0, 0, 1, 1), 8, None, relative_positions=True, layer_scale=1.0))
        else:
            model = Detector(DetectorSpec(encoder, 3, window=2, global_blocks=(1,), **sizes, **counts))  # type: ignore[arg-type]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.15 * torch.randn_like(parameter))
    model.eval()
    return SegmenterFile(model, task, NAMES) if isinstance(model, Segmenter) else DetectorFile(model, task, NAMES)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    known: dict[str, Exported] = {}

    def made(kind: str) -> Exported:
        if kind not in known:
            root = tmp_path_factory.mktemp(kind)
            target = load_target("cpu-x86").narrowed(("fp32-onnxruntime", "int8-onnxruntime"), None)
            target = target.model_copy(update={"int8": Int8Plan(methods=("ort-minmax",)), "dense": {"int8": LENIENT}})
            told: dict[str, Any] = {"train_source": "made-up, train", "test_source": "made-up", "provenance": {"recipe": "tiny"}}
            job = DenseJob("tiny", network(kind), "ab" * 32, Samples(), target, SETTINGS, train=Samples(40, 100), **told)
            known[kind] = export_dense(job, scratch=root, folder=root / "bundle")
        return known[kind]

    return made


BOTH = pytest.mark.parametrize("kind", ["segmentation", pytest.param("detection", marks=pytest.mark.slow)])  # torch traces it for 9 s


@BOTH
def test_a_real_network_is_proven_with_its_metric_and_ships(kind: str, exported: Callable[[str], Exported]) -> None:
    found = figures(exported(kind))
    assert (found["verdict"], failure_of(found)) == ("passed", "")
    assert found["parity"]["num_images"] == 3  # of four, one of which is torn
    metrics = {"miou_reference", "miou_candidate"} if kind == "segmentation" else {"ap_candidate", "mask_ap_reference", "unmatched_share"}
    assert metrics <= set(found["parity"]) and all(metrics <= set(one) for one in found["hops"])
    assert [one["verdict"] for one in found["candidates"]] == ["passed", "passed"]
    assert set(timings(exported(kind))["latency"]) == {"fp32-onnxruntime", "int8-onnxruntime"}
    assert run_selftest(exported(kind).bundle.folder, threads=1).verdict == "passed"
    assert json.dumps(found)


@BOTH
def test_its_int8_file_is_calibrated_and_judged_on_different_training_images(kind: str, exported: Callable[[str], Exported]) -> None:
    bundle, notes = exported(kind).bundle, figures(exported(kind))["notes"]["int8"]
    assert notes["accepted"] == "ort-minmax" and notes["num_calibrated"] + notes["num_judged"] == 39  # of 40 one is torn
    manifest = json.loads((bundle.folder / "manifest.json").read_bytes())
    assert manifest["provenance"]["calibration"]["source"] == "made-up, train"
    assert len(set(manifest["provenance"]["calibration"]["ids"])) == notes["num_calibrated"]
    int8, fp32 = (onnx.load(bundle.folder / "models" / f"{name}.onnx") for name in ("int8", "fp32"))
    assert num_quantised(int8.graph) > 10 and num_quantised(fp32.graph) == 0
    sizes = [(bundle.folder / "models" / f"{name}.onnx").stat().st_size for name in ("int8", "fp32")]
    assert sizes[0] < sizes[1]


@BOTH
def test_its_blocks_and_its_head_are_told_apart_by_the_profile(kind: str, exported: Callable[[str], Exported]) -> None:
    (table,) = layer_tables(subjects_of_bundle(exported(kind).bundle, ["fp32-onnxruntime"]), threads=1, seconds=0.02)
    assert (table["verdict"], table["folding"]) == ("measured", "blocks"), table["reason"]
    groups = {row["group"]: row["gflop"] for row in table["groups"]}
    assert {"patch projection", "attention", "mlp", "head"} <= set(groups) and "token merging" not in groups
    assert groups["head"] > 0 and [row["block"] for row in table["blocks"]] == [0, 1]


def test_a_student_whose_windows_do_not_slide_ships_its_classes() -> None:
    file = network("segmentation")
    whole = SegmenterFile(file.model, DenseTask("segmentation", 32, 3, (0.5,) * 3, (0.2,) * 3), NAMES)  # type: ignore[arg-type]
    job = DenseJob("tiny", whole, "ab" * 32, Samples(), load_target("cpu-x86"), SETTINGS)
    assert job.asked_output == "classes" and DenseJob("tiny", file, "", Samples(), job.target, SETTINGS).asked_output == "logits"


def test_metrics_are_those_of_the_evaluation_and_need_the_truth() -> None:
    class Blind(Samples):
        def read(self, index: int) -> Annotated:
            return Annotated(super().read(index).pixels, None, None)

    task = DenseTask("segmentation", 32, 3, (0.5,) * 3, (0.2,) * 3)
    truth = [Samples().read(index).classes for index in (0, 2)]
    assert metric_of(usable(Samples(), (0, 1, 2)), task, NAMES)(truth) == {"miou": 1.0}
    with pytest.raises(UserError, match="image 0 has no truth for segmentation"):
        metric_of(usable(Blind(), (0, 2)), task, NAMES)(truth)


def test_training_images_are_picked_by_their_names_and_never_both_calibrate_and_judge() -> None:
    task = network("segmentation").task
    seen, held_out = quantising_images(Samples(40), task, NAMES, num_calibrated=12, source="made-up")
    again, _ = quantising_images(Samples(40), task, NAMES, num_calibrated=20, source="made-up")
    assert seen is not None and again is not None and held_out is not None
    assert set(seen.ids) < set(again.ids) and len(seen.images) == 12 and seen.images.shape[1:] == (32, 32, 3)
    assert len(held_out.questions.placements) + len(seen.ids) == 39
    none, nobody = quantising_images(Samples(1), task, NAMES, num_calibrated=12, source="made-up")
    assert none is not None and nobody is None


def test_training_images_are_left_alone_where_no_candidate_of_the_task_is_calibrated(tmp_path: Path) -> None:
    class Untouched(Samples):
        def read(self, index: int) -> Annotated:
            raise AssertionError("nothing is calibrated")

    target = load_target("rtx-40")
    target = target.model_copy(update={"candidates": (*target.candidates, Candidate(runtime="onnxruntime", precision="fp32"))})
    job = DenseJob("tiny", network("segmentation"), "ab" * 32, Samples(), target, SETTINGS, train=Untouched(40))
    made = export_dense(job, scratch=tmp_path, folder=tmp_path / "bundle")
    assert figures(made)["verdict"] == "passed" and target.calibrates
    assert json.loads((tmp_path / "bundle" / "manifest.json").read_bytes())["provenance"]["calibration"] is None


def test_without_training_images_int8_fails_and_says_what_to_name(tmp_path: Path) -> None:
    target = load_target("cpu-x86").narrowed(("fp32-onnxruntime", "int8-onnxruntime"), None)
    job = DenseJob("tiny", network("segmentation"), "ab" * 32, Samples(), target, SETTINGS)
    made = export_dense(job, scratch=tmp_path, folder=tmp_path / "bundle")
    outcome = next(way.outcome for way in made.shipment.ways if way.name == "int8-onnxruntime")
    assert outcome.verdict == "failed" and "INT8 needs training images to calibrate with" in outcome.reason
    assert figures(made)["verdict"] == "passed" and figures(made)["default"] == "fp32-onnxruntime"
